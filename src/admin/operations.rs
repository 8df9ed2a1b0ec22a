//! The gateway that the API is part of: what it can be asked, and what it can be told to do.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde_json::{Value, json};

use crate::domain::{Revision, Timestamp};
use crate::store::Actor;
use crate::telemetry::Remembered;

/// A running gateway, for those who operate it.
pub trait Operations: Send + Sync {
    /// The newest request of this id, if it is remembered; its client's address as the log would have it.
    fn remembered(&self, request_id: &str) -> Option<Remembered>;

    /// Reads the configuration again, and takes it over unless it is a dry run. Cancelling it cancels the answer alone.
    fn reload(&self, by: Actor, dry_run: bool) -> Pin<Box<dyn Future<Output = ReloadReport> + Send + '_>>;

    /// How this process stands.
    fn node(&self) -> Node;
}

/// What came of a reload.
#[derive(Debug, Default, serde::Serialize)]
pub struct ReloadReport {
    /// Whether the file is in force (or, at a dry run, could be).
    pub ok: bool,
    /// Routes whose demands differ.
    pub changed_routes: Vec<String>,
    /// Keys that would lose access somewhere; not all of them where there are many.
    pub losing_keys: Vec<String>,
    /// Why not, in words.
    pub problems: Vec<String>,
}

impl ReloadReport {
    /// It was not done, for this reason.
    pub fn refused(problem: impl Into<String>) -> Self {
        Self { problems: vec![problem.into()], ..Self::default() }
    }
}

/// One process that enforces keys.
#[derive(Clone, Debug)]
pub struct Node {
    /// The machine's name and the process's number.
    pub name: String,
    /// Since when it runs.
    pub started_at: Timestamp,
    /// The store's revision that it enforces.
    pub revision: Revision,
    /// How long ago the store confirmed that; none before the first time.
    pub lag: Option<Duration>,
    /// When that was, by the wall clock.
    pub as_of: Option<Timestamp>,
}

impl Node {
    /// For programs.
    pub fn json(&self) -> Value {
        let Self { name, started_at, revision, lag, as_of } = self;
        json!({
            "name": name,
            "version": env!("CARGO_PKG_VERSION"),
            "started_at": started_at,
            "revision": revision,
            "lag_ms": lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
            "as_of": as_of,
        })
    }
}
