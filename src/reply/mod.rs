//! Refusals as HTTP: status, challenge, problem body, gRPC status. The only place that maps them.
//!
//! Owns [`Failure`], the [`Facts`] of every refusal and their rendering. Must not know how a refusal came about.
//! Two audiences: what stands here is what the client is told; the log gets `reason()`.

mod challenge;
mod facts;
mod failure;
mod render;
#[cfg(test)]
mod render_tests;
#[cfg(test)]
mod specimens_tests;

pub use facts::{Facts, Refusal};
pub use failure::Failure;
pub use render::{Audience, ErrorProfile, Rendered, render, render_h1, render_in};

#[cfg(test)]
pub(crate) use specimens_tests::every_refusal;
