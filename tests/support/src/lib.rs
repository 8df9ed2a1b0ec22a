//! Actors and instruments for the tests: they drive the real executable over real sockets.
//!
//! Owns: a [`Site`] (directory, configuration, command line), a [`Gateway`] (the running process), an [`Origin`]
//! (recording upstream), the clients, a [`Wire`] that can be cut, a [`TestCa`], and the facts that hold for every
//! answer and every forwarded request. Must not know: any type of the crate under test. It is given the executable's
//! path and speaks only what users, clients, upstreams and scrapers can see.
//!
//! Start at [`Site`] for the arrangement, [`Call`] for the act, [`Origin::requests`] and [`Response`] for the result.
#![allow(
    clippy::disallowed_methods,
    reason = "a test harness reads the clock and the environment itself; the ban is for the gateway"
)]

mod answer;
mod ca;
mod call;
mod connection;
mod facts;
mod gateway;
pub mod h2_frames;
pub mod h2_server;
pub mod key_text;
mod logs;
mod metrics;
mod origin;
pub mod patience;
mod postgres;
mod raw;
mod recorded;
mod redis;
mod response;
mod scripted;
mod site;
mod stream;
mod vault;
mod wire;

#[cfg(test)]
mod kit_tests;

pub use answer::{Answer, Feed, Latch};
pub use ca::{Identity, TestCa, TlsClient};
pub use call::Call;
pub use connection::{Connection, Streaming};
pub use facts::Facts;
pub use gateway::Gateway;
pub use h2_frames::{Flooded, H2Outcome, H2Peer};
pub use h2_server::{H2Frame, H2Server};
pub use logs::{Logs, Stream};
pub use metrics::{Metrics, Sample};
pub use origin::Origin;
pub use patience::{patience, patient};
pub use postgres::{Database, PostgresServer, own_postgres_or_left_out, postgres_or_left_out};
pub use raw::RawClient;
pub use recorded::Recorded;
pub use redis::{RedisServer, ServerKind};
pub use response::Response;
pub use scripted::{RawPeer, ScriptedOrigin};
pub use site::{Key, KeySpec, Outcome, Site, SiteBuilder};
pub use vault::Vault;
pub use wire::{Side, Wire};
