//! Listeners, connections, TLS at the edge, and the threads that serve them.
//!
//! Owns accepting, TLS and its handshakes, HTTP/1 and 2 with clients, the bounds of connections, draining, metrics and
//! health endpoints. Must not know what a request is answered, nor YAML. Start at `Acceptor`, `Worker` and `connection`.

mod accept;
mod connection;
mod h1;
mod h2;
mod handshake;
mod listen;
mod management;
mod memory;
mod pages;
mod proxy_protocol;
mod settings;
mod staple;
mod tls;
mod worker;

pub(crate) use accept::{Accepting, Acceptor, Listener};
pub use listen::ListenError;
pub(crate) use listen::{Inherited, Listening, listen};
pub(crate) use management::serve_management;
pub(crate) use memory::Memory;
pub(crate) use pages::{Page, Pages, serve_pages};
pub use proxy_protocol::{Announced, ProxyProtocolError, read_client_address};
pub use settings::*;
pub use staple::{StapleFault, StapleFaultKind, staple_fault};
pub use tls::*;
pub(crate) use worker::{Worker, WorkerParts};

#[cfg(test)]
mod handshake_tests;
#[cfg(test)]
mod proxy_protocol_tests;
#[cfg(test)]
mod staple_tests;
#[cfg(test)]
mod tls_tests;

/// Most sockets of operators and of their machines at one time.
pub(crate) const OPERATORS_SOCKETS: usize = pages::MAX_CONNECTIONS + management::MAX_CONNECTIONS;
