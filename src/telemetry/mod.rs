//! Metrics, logs and the access line: how the gateway speaks about itself.
//!
//! Owns names of metrics, fields of log lines, and the escaping of text from outside. Must not know how requests are
//! decided or forwarded: callers bring labels, durations and texts. No text that enters here is a credential.
//! Start at [`Metrics`] for numbers, [`Logging`] for lines, [`AccessLine`] for what is said about a request,
//! [`Recall`] for what is remembered of it.

mod access;
mod line;
mod log;
mod metrics;
mod recall;
mod settings;
mod visible;

#[cfg(test)]
mod access_tests;
#[cfg(test)]
mod visible_tests;

pub use access::{AccessLine, Addresses, ClockText, LineFormat};
pub use log::{AccessLog, AlreadyInstalled, LogOutput, Logging};
pub use metrics::*;
pub use recall::{
    ADMISSIONS_KEPT, ADMISSIONS_SAMPLED, Kind as RecallKind, Noted, REFUSALS_KEPT, Recall, Recollection, Remembered,
    Ticket, WorkerRecall,
};
pub use settings::*;
pub use visible::{mask_address, visible};
