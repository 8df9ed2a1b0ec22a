//! The gateway that the API is part of: what it can be asked, and what it can be told to do.

use std::future::Future;
use std::pin::Pin;

use crate::manage::ThisNode;
use crate::store::Actor;
use crate::telemetry::Recollection;

/// A running gateway, for those who operate it.
pub trait Operations: Send + Sync {
    /// The newest request of this id that is remembered; its client's address as the log would have it.
    fn remembered<'a>(&'a self, request_id: &'a str) -> Pin<Box<dyn Future<Output = Recollection> + Send + 'a>>;

    /// Reads the configuration again, and takes it over unless it is a dry run. Cancelling it cancels the answer alone.
    fn reload(&self, by: Actor, dry_run: bool) -> Pin<Box<dyn Future<Output = ReloadReport> + Send + '_>>;

    /// How this process stands.
    fn this_node(&self) -> ThisNode;
}

/// What came of a reload.
#[derive(Debug, Default, serde::Serialize)]
pub struct ReloadReport {
    /// Whether the file is in force (or, at a dry run, could be).
    pub ok: bool,
    /// The file that the gateway reads; none where it runs without one.
    pub file: Option<String>,
    /// Routes whose demands differ.
    pub changed_routes: Vec<String>,
    /// What else differs, as paths (`environments.live.rate_limit`); secrets are not compared, and not all are told where there
    /// are many.
    pub changed_settings: Vec<String>,
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
