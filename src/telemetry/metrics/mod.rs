//! What is counted, and how it is shown to Prometheus.
//!
//! Workers write to cells of their own ([`WorkerMetrics`]); a scrape sums them. Everything rare goes through
//! [`Metrics`]. Must not know what a request, a route or a store is: callers bring labels, durations and counts.
//! Start at [`Metrics`]; the names are in `families`.

mod cells;
mod exposition;
mod families;
mod labels;
mod shared;
mod worker;

#[cfg(test)]
mod deploy_tests;
#[cfg(test)]
mod exposition_tests;
#[cfg(test)]
mod worker_tests;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use self::exposition::{CONTENT_TYPE, NotRendered};
pub use self::labels::{
    ConnectionState, DecisionMode, DecisionResult, EnvironmentLabel, EventLabel, LimitLabel, ListenerLabel, Reload,
    Retry, RouteLabel, Shed, UpstreamConnectionState, UpstreamLabel,
};
pub use self::shared::{EventCount, SharedLimits};
pub use self::worker::{ConnectionGauge, GaugeState, StateGauge, UpstreamConnectionGauge, WorkerMetrics};

use self::labels::LabelSets;
use self::shared::{Shared, TargetState};
use self::worker::{Claim, WorkerCells};
use crate::domain::{KeyState, Revision, Timestamp};

/// The metrics of one process. Cloning gives another handle to the same numbers.
///
/// Labels are interned and never forgotten, so counters survive reloads: each set is bounded, and names beyond the
/// bound share the label `other`.
#[derive(Clone, Debug)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    labels: LabelSets,
    shared: Shared,
    workers: Mutex<Vec<Arc<WorkerCells>>>,
}

impl Metrics {
    /// Metrics with all counts at zero, and at most `max_routes` values of the `route` label beside `other` and
    /// `none`. `now` is where `portcullis_sync_lag_seconds` counts from until the first synchronisation.
    pub fn new(max_routes: usize, now: Instant) -> Self {
        let inner =
            Inner { labels: LabelSets::new(max_routes), shared: Shared::new(now), workers: Mutex::new(Vec::new()) };
        Self { inner: Arc::new(inner) }
    }

    /// A writer for one more worker thread. Counts of workers that ended stay in the sums.
    pub fn worker(&self) -> WorkerMetrics {
        let mut workers = self.inner.workers.lock();
        let claim = workers.iter().find_map(Claim::take).unwrap_or_else(|| {
            let (cells, claim) = Claim::on_new_cells();
            workers.push(cells);
            claim
        });
        WorkerMetrics::new(claim)
    }

    /// The `route` label of this text: a route's `name` or `group`, else its pattern.
    pub fn route(&self, label: &str) -> RouteLabel {
        RouteLabel(self.inner.labels.routes.number_of(label))
    }

    /// Changes how many values the `route` label may have. Routes that have a label of their own keep it.
    pub fn set_max_routes(&self, max_routes: usize) {
        self.inner.labels.routes.set_most(max_routes);
    }

    /// The `listener` label of this name.
    pub fn listener(&self, name: &str) -> ListenerLabel {
        ListenerLabel(self.inner.labels.listeners.number_of(name))
    }

    /// The `environment` label of this name.
    pub fn environment(&self, name: &str) -> EnvironmentLabel {
        EnvironmentLabel(self.inner.labels.environments.number_of(name))
    }

    /// The `upstream` label of this name.
    pub fn upstream(&self, name: &str) -> UpstreamLabel {
        UpstreamLabel(self.inner.labels.upstreams.number_of(name))
    }

    /// Replaces the counts of keys by environment and state.
    pub fn set_keys<'a>(&self, counts: impl IntoIterator<Item = (&'a str, KeyState, u64)>) {
        let counts =
            counts.into_iter().map(|(environment, state, count)| (self.environment(environment), state, count));
        self.inner.shared.set_keys(counts);
    }

    /// Says how many entries the key map has and which revision of the store it is at.
    pub fn set_cache(&self, entries: usize, revision: Revision) {
        self.inner.shared.set_cache(entries, revision);
    }

    /// Says that at this moment everything the store has committed is enforced.
    pub fn sync_succeeded(&self, at: Timestamp, now: Instant) {
        *self.inner.shared.last_sync.lock() = Some((at, now));
    }

    /// Notes whether a restart would find everything that was acknowledged on the disk, and how many bytes that is.
    pub fn set_snapshot(&self, up: bool, size: u64) {
        self.inner.shared.snapshot_up.store(up, Relaxed);
        self.inner.shared.snapshot_size.store(size, Relaxed);
    }

    /// Says how long after its revocation a key was refused. By one thread alone.
    pub fn revocation_took_effect(&self, after: Duration) {
        self.inner.shared.revocation_effect.observe(after);
    }

    /// Says whether the last attempt to reach the store succeeded.
    pub fn set_store_up(&self, up: bool) {
        self.inner.shared.store_up.store(up, Relaxed);
    }

    /// Says how many routes are in report mode.
    pub fn set_report_mode_routes(&self, routes: usize) {
        self.inner.shared.report_mode_routes.store(routes as u64, Relaxed);
    }

    /// Says how many meters there are, and how many were dropped so far to make room for others.
    pub fn set_rate_meters(&self, meters: usize, evicted: u64) {
        self.inner.shared.rate_meters.store(meters as u64, Relaxed);
        self.inner.shared.rate_meters_evicted.store(evicted, Relaxed);
    }

    /// Says how sharing limits goes, where it is configured.
    pub fn set_shared_limits(&self, shared: SharedLimits) {
        *self.inner.shared.shared_limits.lock() = Some(shared);
    }

    /// Counts an attempt to replace the running configuration. The first load is not one.
    pub fn count_reload(&self, outcome: Reload) {
        self.inner.shared.count_reload(outcome);
    }

    /// Replaces the ends of validity of the certificates in use, by name.
    pub fn set_certificates(&self, not_after: impl IntoIterator<Item = (String, Timestamp)>) {
        *self.inner.shared.certificates.lock() = not_after.into_iter().collect();
    }

    /// Replaces the list of upstream targets, each with whether it is healthy.
    pub fn set_upstream_targets(&self, targets: impl IntoIterator<Item = (UpstreamLabel, String, bool)>) {
        let mut known = self.inner.shared.upstream_targets.lock();
        let listed = targets.into_iter().map(|(upstream, target, is_healthy)| {
            let name = (upstream, target);
            let ejections = known.get(&name).map_or(0, |before| before.ejections);
            (name, TargetState { is_healthy, ejections })
        });
        *known = listed.collect();
    }

    /// Says whether a listed target is healthy, as `is_healthy` finds it while nobody else can say anything; nothing
    /// happens to one that is not listed.
    pub fn set_upstream_healthy(&self, upstream: UpstreamLabel, target: &str, is_healthy: impl FnOnce() -> bool) {
        if let Some(known) = self.inner.shared.upstream_targets.lock().get_mut(&(upstream, target.to_owned())) {
            known.is_healthy = is_healthy();
        }
    }

    /// Counts that a listed target was left out because it failed.
    pub fn count_ejection(&self, upstream: UpstreamLabel, target: &str) {
        if let Some(known) = self.inner.shared.upstream_targets.lock().get_mut(&(upstream, target.to_owned())) {
            known.ejections += 1;
        }
    }

    /// Counts a client's connection that was not taken.
    pub fn connection_shed(&self, reason: Shed) {
        self.inner.shared.shed[reason as usize].add(1);
    }

    /// How much memory clients hold, and how much they may, in bytes.
    pub fn set_memory(&self, held: u64, limit: u64) {
        self.inner.shared.memory_held.store(held, Relaxed);
        self.inner.shared.memory_limit.store(limit, Relaxed);
    }

    /// Counts a panic.
    pub fn panicked(&self) {
        self.inner.shared.panics.add(1);
    }

    /// The count of log lines that were dropped.
    pub fn log_lines_dropped(&self) -> Arc<EventCount> {
        Arc::clone(&self.inner.shared.log_lines_dropped)
    }

    /// How much was dropped of what is noted of keys: of usage, and of when they were last used.
    pub fn set_notes_dropped(&self, usage: u64, last_use: u64) {
        self.inner.shared.usage_notes_dropped.store(usage, Relaxed);
        self.inner.shared.last_use_marks_dropped.store(last_use, Relaxed);
    }

    /// Counts an unusual use of a key.
    pub fn count_event(&self, event: EventLabel) {
        self.inner.shared.events[event as usize].add(1);
    }

    /// All metrics in the Prometheus text format, as of `now`. Sums over workers and reads `/proc`, so it belongs on
    /// a control thread; costs some microseconds for each hundred series.
    ///
    /// # Errors
    /// [`NotRendered`] when the encoder refuses a family, which would be a mistake in this module.
    pub fn render(&self, now: Instant) -> Result<String, NotRendered> {
        exposition::render(&self.inner, now)
    }
}
