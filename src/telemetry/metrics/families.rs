//! Every metric family this gateway exports: name, help text, type and label names.
//!
//! Owns the names; nothing else in the crate spells one. Must not know values or who sets them.
//! The doc comment of an entry is its HELP text, so it is one sentence for operators.

use prometheus::proto::MetricType;

/// One metric family.
#[derive(Debug)]
pub(super) struct Family {
    /// The full name.
    pub(super) name: &'static str,
    /// The HELP text.
    pub(super) help: &'static str,
    /// Counter, gauge or histogram.
    pub(super) kind: MetricType,
    /// Label names in the order in which values are given.
    pub(super) labels: &'static [&'static str],
}

macro_rules! families {
    ($( #[doc = $help:literal] $konst:ident = $kind:ident $name:literal [$($label:literal),*]; )*) => {
        $(
            #[doc = $help]
            pub(super) static $konst: Family = Family {
                name: $name,
                help: $help.trim_ascii_start(),
                kind: MetricType::$kind,
                labels: &[$($label),*],
            };
        )*

        /// All families of our own, in the order of the documentation.
        #[cfg(test)]
        pub(super) static ALL: &[&Family] = &[$(&$konst),*];
    };
}

families! {
    /// Requests answered, by listener, route, method and HTTP status.
    HTTP_REQUESTS = COUNTER "portcullis_http_requests_total" ["listener", "route", "method", "code"];
    /// Time from a request's head to the last byte of its answer.
    HTTP_REQUEST_DURATION = HISTOGRAM "portcullis_http_request_duration_seconds" ["route"];
    /// Decisions about requests, by what was decided and why.
    AUTH_DECISIONS = COUNTER "portcullis_auth_decisions_total" ["route", "environment", "mode", "result", "reason"];
    /// Time spent on deciding about one request.
    AUTH_DURATION = HISTOGRAM "portcullis_auth_duration_seconds" [];
    /// Time from sending a request to an upstream until the head of its answer.
    UPSTREAM_REQUEST_DURATION = HISTOGRAM "portcullis_upstream_request_duration_seconds" ["upstream"];
    /// Requests that ran into a rate limit or a quota, by the limit that was in the way; report mode included.
    RATE_LIMITED = COUNTER "portcullis_rate_limited_total" ["route", "environment", "limit"];
    /// Meters of rate limits and quotas in memory.
    RATE_METERS = GAUGE "portcullis_rate_meters" [];
    /// Meters that were dropped to make room for others, and so began anew.
    RATE_METERS_EVICTED = COUNTER "portcullis_rate_meters_evicted_total" [];
    /// Whether the server of shared limits can be asked (1), or limits are not shared (0); absent where they are not configured.
    SHARED_LIMITS_UP = GAUGE "portcullis_shared_limits_up" [];
    /// How often the server of shared limits went away.
    SHARED_LIMITS_OUTAGES = COUNTER "portcullis_shared_limits_outages_total" [];
    /// Leases of shared limits that this node holds or asks for.
    SHARED_LIMITS_LEASES = GAUGE "portcullis_shared_limits_leases" [];
    /// Asks for leases of shared limits, by what came of them.
    SHARED_LIMITS_ASKS = COUNTER "portcullis_shared_limits_asks_total" ["result"];
    /// Waits of requests for a lease of a shared limit, by whether there was an answer in time.
    SHARED_LIMITS_WAITS = COUNTER "portcullis_shared_limits_waits_total" ["result"];
    /// Whether a target of an upstream is healthy (1), or fails and is left out as long as there is another (0).
    UPSTREAM_HEALTHY = GAUGE "portcullis_upstream_healthy" ["upstream", "target"];
    /// How often a target of an upstream was left out because requests to it failed.
    UPSTREAM_EJECTIONS = COUNTER "portcullis_upstream_ejections_total" ["upstream", "target"];
    /// Requests that could be sent again or to another target when one failed them, by whether they were.
    UPSTREAM_RETRIES = COUNTER "portcullis_upstream_retries_total" ["upstream", "result"];
    /// Connections to upstreams, by what they are doing.
    UPSTREAM_CONNECTIONS = GAUGE "portcullis_upstream_connections" ["upstream", "state"];
    /// Keys in the key set of this node, by environment and state.
    KEYS = GAUGE "portcullis_keys" ["environment", "state"];
    /// Entries in the key map of this node.
    CACHE_ENTRIES = GAUGE "portcullis_cache_entries" [];
    /// The store revision that this node enforces.
    CACHE_REVISION = GAUGE "portcullis_cache_revision" [];
    /// Seconds since this node last knew that it enforces the newest revision of the store.
    SYNC_LAG = GAUGE "portcullis_sync_lag_seconds" [];
    /// Unix time at which this node last knew that it enforces the newest revision of the store, 0 before the first time.
    SYNC_LAST_SUCCESS = GAUGE "portcullis_sync_last_success_timestamp_seconds" [];
    /// Time from the revocation of a key, by the clock of whoever revoked it, until this node refused it.
    REVOCATION_EFFECT = HISTOGRAM "portcullis_revocation_effect_seconds" [];
    /// Whether the last attempt to reach the store succeeded (1) or not (0).
    STORE_UP = GAUGE "portcullis_store_up" [];
    /// Whether a restart would find a snapshot that holds everything this node acknowledged (1) or none (0).
    SNAPSHOT_UP = GAUGE "portcullis_snapshot_up" [];
    /// Bytes of the snapshot on disk.
    SNAPSHOT_SIZE = GAUGE "portcullis_snapshot_size_bytes" [];
    /// Routes that are in report mode and therefore let refused requests pass.
    REPORT_MODE_ROUTES = GAUGE "portcullis_report_mode_routes" [];
    /// Attempts to replace the running configuration, by result.
    CONFIG_RELOADS = COUNTER "portcullis_config_reloads_total" ["result"];
    /// Whether the last attempt to load the configuration succeeded (1) or the one before it is still in force (0).
    CONFIG_LAST_RELOAD_SUCCESSFUL = GAUGE "portcullis_config_last_reload_successful" [];
    /// Unix time at which a certificate stops being valid.
    TLS_NOT_AFTER = GAUGE "portcullis_tls_certificate_not_after_timestamp_seconds" ["name"];
    /// Connections of clients, by what they are doing.
    CONNECTIONS = GAUGE "portcullis_connections" ["listener", "state"];
    /// Connections of clients that were answered 503, or ended, before anything was read, by what was full.
    CONNECTIONS_SHED = COUNTER "portcullis_connections_shed_total" ["reason"];
    /// Bytes that connections and streams of clients hold, or may come to hold at any moment by the bounds they have.
    MEMORY_HELD = GAUGE "portcullis_memory_held_bytes" [];
    /// Bytes that they may hold; from nine tenths on new ones are answered 503.
    MEMORY_LIMIT = GAUGE "portcullis_memory_limit_bytes" [];
    /// Panics: each cost one request, one connection or one task.
    PANICS = COUNTER "portcullis_panics_total" [];
    /// Log lines, access lines included, that were dropped because the output did not keep up.
    LOG_LINES_DROPPED = COUNTER "portcullis_log_lines_dropped_total" [];
    /// Marks of a key's last use that were dropped because the store did not keep up.
    LAST_USE_MARKS_DROPPED = COUNTER "portcullis_last_use_marks_dropped_total" [];
    /// Notes of usage that were dropped because there were more than fit until the store took them.
    USAGE_NOTES_DROPPED = COUNTER "portcullis_usage_notes_dropped_total" [];
    /// Unusual uses of keys that were told of, by kind.
    EVENTS = COUNTER "portcullis_events_total" ["event"];
    /// The version of this gateway, as a label of the constant 1.
    BUILD_INFO = GAUGE "portcullis_build_info" ["version"];
}
