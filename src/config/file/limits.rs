//! `rate_limit`, `quota` and `rate_limits`: how often may be asked.

use std::time::Duration;

use super::super::shape::text::{FilePath, Label};
use super::super::shape::{At, Secret, choice, shape};
use crate::gate::LimitBy;
use crate::limit::OnOutage;

shape! {
    /// So many requests in so long a time.
    pub(crate) struct RateLimitFile {
        /// How many requests in `per`.
        requests: At<u64>,
        /// The time that `requests` refers to. 1s to 24h.
        per: At<Duration>,
        /// How many requests may come at once. Without it: as many as `requests`.
        burst: Option<At<u64>>,
    }
}

shape! {
    /// How often a route may be asked.
    pub(crate) struct RouteLimitFile {
        /// How many requests in `per`.
        requests: At<u64>,
        /// The time that `requests` refers to. 1s to 24h.
        per: At<Duration>,
        /// How many requests may come at once. Without it: as many as `requests`.
        burst: Option<At<u64>>,
        /// Who is one caller: each `key`, each `owner` or each client `address`. Public routes limit by address.
        by: Option<At<LimitBy>> = "key",
    }
}

shape! {
    /// So many requests by the calendar of UTC.
    pub(crate) struct QuotaFile {
        /// From midnight to midnight.
        per_day: Option<At<u64>>,
        /// From the first of a month to the first of the next.
        per_month: Option<At<u64>>,
    }
}

shape! {
    /// How limits of requests are kept and told.
    pub(crate) struct RateLimitsFile {
        /// Tell callers where they stand in `RateLimit-Policy` and `RateLimit`, on every answer to which a limit applied.
        headers: Option<bool> = true,
        /// Tell them in `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset` (in seconds), too.
        legacy_headers: Option<bool> = false,
        /// Most meters kept at once; beyond, those go that would be full again soonest. 10000 to 100000000.
        max_meters: Option<At<u64>> = 1000000,
        /// How often counts of quotas are written, and so what a crash may lose of them. 100ms to 1m.
        quota_flush: Option<At<Duration>> = "1s",
        /// Count rates together with other gateways. Without it: each gateway counts its own. A change of anything here
        /// needs a restart.
        shared: Option<SharedLimitsFile>,
    }
}

shape! {
    /// Where gateways that count rates together keep them.
    pub(crate) struct SharedLimitsFile {
        /// A Redis or Valkey server: rediss://user:password@host:6379/0, redis:// without TLS, unix:///path?db=0; best with
        /// the password, or all of it, from `${NAME}` or `${file:PATH}`.
        url: At<Secret>,
        /// Of rediss://: the authorities that the server's certificate is checked against, as PEM. Without it: those of the
        /// operating system.
        ca: Option<At<FilePath>>,
        /// How long connecting may take. 10ms to 1m.
        connect_timeout: Option<At<Duration>> = "2s",
        /// Longest that a request waits for the server; it seldom has to. 1ms to 5s.
        timeout: Option<At<Duration>> = "20ms",
        /// What requests do that meet a limit while the server cannot be asked. `local`: each gateway goes by what it has
        /// counted itself. `refuse`: they are answered 503.
        on_outage: Option<At<OnOutage>> = "local",
        /// How much use a gateway borrows of a limit at a time. Longer asks the server less often, and bounds less exactly.
        /// 10ms to 10s.
        lease: Option<At<Duration>> = "100ms",
        /// What every key in the server begins with.
        prefix: Option<At<Label>> = "portcullis:",
    }
}

choice!(OnOutage, "local or refuse", { "local" => OnOutage::Local, "refuse" => OnOutage::Refuse, });

choice!(LimitBy, "key, owner or address", { "key" => LimitBy::Key, "owner" => LimitBy::Owner, "address" => LimitBy::Address, });
