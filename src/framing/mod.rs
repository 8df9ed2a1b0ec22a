//! The framing guard: one reading of every HTTP/1 message, or none.
//!
//! hyper hides evidence: it drops a `Content-Length` beside `Transfer-Encoding` and equal duplicates before a service
//! sees them, and takes bare line feeds for line ends. So a strict validator sits between the socket and hyper, towards
//! clients ([`RequestGuard`]) and towards upstreams ([`AnswerGuard`]). It passes on whole heads only, follows lengths and
//! chunk boundaries byte by byte, accepts a subset of what hyper accepts, and never rewrites.
//!
//! Owns what a well-framed HTTP/1 message is (RFC 9112), how a connection that broke it is refused and closed, and the
//! facts about a connection ([`Progress`]) that timers need.
//! Must not know routes, credentials, what an answer says, or how it is rendered; it reads no clock.
//! Start at `request.rs` for what is checked in a head and at [`RequestGuard`] for what hyper sees of it.
//!
//! Both guards are tokio streams to be wrapped in `hyper_util::rt::TokioIo`, and both belong to one thread. As they cannot
//! be sent elsewhere, hyper's `with_upgrades` is out of reach: await `&mut connection`, then take the guard back with
//! `into_parts`, either for a tunnel or to shut it down. The latter always: once a request has named an upgrade, hyper
//! ends without shutting its stream down, and that is when a refusal is written. Shutting down twice does no harm.

mod answer;
mod answer_guard;
mod chunked;
mod closing;
mod fault;
mod field;
mod head;
mod held;
mod octets;
mod progress;
mod request;
mod request_guard;

pub use answer::AnswerLimits;
pub use answer_guard::{AnswerGuard, Exchange, UpgradeWanted};
pub use fault::Fault;
pub use progress::{CoarseClock, Patience, Phase, Progress, Swept};
pub use request::RequestLimits;
pub use request_guard::{Refusal, RequestGuard};

#[cfg(test)]
mod answer_tests;
#[cfg(test)]
mod closing_tests;
#[cfg(test)]
mod differential_tests;
#[cfg(test)]
mod hyper_client_tests;
#[cfg(test)]
mod hyper_server;
#[cfg(test)]
mod octets_tests;
#[cfg(test)]
mod pieces;
#[cfg(test)]
mod progress_tests;
#[cfg(test)]
mod request_tests;
#[cfg(test)]
mod split_tests;
