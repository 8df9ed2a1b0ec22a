//! The engine: how an admitted request reaches its upstream, and how the answer comes back.
//!
//! Owns connections to upstreams, header rewriting, streaming and tunnels. Must not know configuration files, stores,
//! or why a request was admitted. Start at `Engine::begin`.

mod aftermath;
mod answer;
mod asked;
mod asking;
mod balance;
mod body;
pub(crate) mod certificate;
mod client;
mod connect;
mod cors;
mod course;
mod echo;
mod engine;
mod exchange;
mod exec;
mod headers;
mod line_facts;
mod live;
mod names;
mod noting;
mod observe;
mod observed;
mod outgoing;
mod placed;
mod pool;
mod probe;
mod remember;
mod request_id;
mod respond;
mod self_service;
mod settings;
mod shelf;
mod standing;
mod target;
mod timer;
mod tls;
mod told;
mod tripwire;
mod tunnel;
mod upkeep;
mod waiting;
mod watch;

#[cfg(test)]
pub(crate) mod test_ca;
#[cfg(test)]
mod tls_tests;

pub(crate) use answer::{Answer, Length};
pub(crate) use asked::{Asked, ClientBody};
pub(crate) use body::{BodyPatience, Download, ReplyBody, failure_of};
pub use certificate::TlsError;
pub(crate) use certificate::{authorities_fault, pair_fault};
pub(crate) use client::{ClientConnection, HeadBounds};
pub(crate) use engine::{Engine, Forward, Step};
pub(crate) use exec::LocalExecutor;
pub(crate) use headers::HeaderRules;
pub(crate) use live::{Live, LiveReader, Plan};
pub(crate) use noting::WorkerTally;
pub(crate) use observe::Observer;
pub(crate) use self_service::{ApiRefusal, Inquiries, Inquiry};
pub use settings::*;
pub use target::UpstreamError;
pub(crate) use target::{Target as LiveTarget, Upstream};
pub(crate) use timer::{TICK, Timers};
pub(crate) use tls::TlsClient;
pub(crate) use tunnel::{PendingTunnel, TUNNEL_MEMORY, run as run_tunnel};
pub(crate) use upkeep::Upkeep;
pub(crate) use waiting::Waiting;
