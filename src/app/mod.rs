//! The composition root: settings become a running gateway, and a running gateway becomes a drained one.
//!
//! Owns the order in which things start, are replaced and stop. Every part it joins knows nothing of the others.
//! Threads: the caller's becomes the control runtime (sync, reload, signals, the local socket); the others stand in
//! `ARCHITECTURE.md`, "Threads".

mod accounts;
mod clock;
mod core_files;
mod descriptors;
mod doors;
mod error;
mod forgetting;
mod generation;
mod memory;
mod metering;
mod nodes;
mod operations;
mod panics;
mod reload;
mod run;
mod secrets;
mod self_service;
mod socket;
mod supervisor;
mod tasks;
#[cfg(test)]
mod tests;
mod vitals;

pub use accounts::actor_of_user;
pub use core_files::forbid_core_files;
pub use error::RunError;
pub use run::{Options, Started, run};
