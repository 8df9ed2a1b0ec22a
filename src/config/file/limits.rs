//! `rate_limit`, `quota` and `rate_limits`: how often may be asked.

use std::time::Duration;

use super::super::shape::{At, choice, shape};
use crate::gate::LimitBy;

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
    }
}

choice!(LimitBy, "key, owner or address", { "key" => LimitBy::Key, "owner" => LimitBy::Owner, "address" => LimitBy::Address, });
