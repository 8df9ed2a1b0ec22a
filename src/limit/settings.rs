//! What metering is configured with, apart from the limits themselves.

use std::time::Duration;

use super::headers::LimitFields;

/// `rate_limits`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LimitSettings {
    /// What answers say about limits.
    pub fields: LimitFields,
    /// Most meters kept at once, 10 000 to 100 million. Default one million; each holds 60 to 100 bytes. Beyond, those go
    /// that would be full again soonest.
    pub max_meters: usize,
    /// How often counts of quotas are written, and so what a crash may lose of them; 100 ms to a minute. Default 1 s. An
    /// orderly stop loses nothing.
    pub quota_flush: Duration,
}

impl LimitSettings {
    /// What holds unless configured.
    pub const USUAL: Self = Self {
        fields: LimitFields { standard: true, legacy: false },
        max_meters: 1_000_000,
        quota_flush: Duration::from_secs(1),
    };
}
