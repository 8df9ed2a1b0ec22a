//! What sharing limits is configured with.

use std::path::PathBuf;
use std::time::Duration;

use super::address::RedisAddress;
use crate::limit::{LeaseTerms, OnOutage};

/// `rate_limits.shared`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LendingSettings {
    /// Where the shared meters are.
    pub address: RedisAddress,
    /// The authorities that its certificate is checked against, as PEM; none: those of the operating system.
    pub ca: Option<PathBuf>,
    /// How long connecting may take. Default 2 s, 10 ms to 1 min.
    pub connect_timeout: Duration,
    /// Longest that a request waits for a lease. Default 20 ms, 1 ms to 5 s. After five times as long without an answer
    /// the server counts as gone.
    pub timeout: Duration,
    /// What requests do that meet a limit while it is gone. Default: they go by the meters of their node.
    pub on_outage: OnOutage,
    /// How much use a lease is for. Default 100 ms, 10 ms to 10 s: longer asks less often, and bounds less exactly.
    pub lease: Duration,
    /// What every key in it begins with. Default `portcullis:`.
    pub prefix: String,
}

impl LendingSettings {
    /// How leases are made.
    pub const fn terms(&self) -> LeaseTerms {
        LeaseTerms { span: self.lease, patience: self.timeout, on_outage: self.on_outage }
    }
}
