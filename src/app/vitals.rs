//! What probes and scrapers are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::StatusCode;
use tokio::sync::watch;

use crate::cache::{Directory, KeySet, Publish, SyncHandle};
use crate::domain::KeyState;
use crate::domain::clock::deciding_now;
use crate::domain::time::{self, monotonic_now};
use crate::lending::LendingStatus;
use crate::limit::Meters;
use crate::proxy::Live;
use crate::server::{Limits, Memory, Page, Pages};
use crate::telemetry::{CONTENT_TYPE, Metrics, SharedLimits};
use crate::usage::Tally;

/// What is told when the key set changes: the data plane follows, and revocations are counted as they take effect.
pub(super) struct Effects {
    pub(crate) live: Arc<Live>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Publish for Effects {
    fn directory_changed(&self, directory: &Arc<Directory>) {
        self.live.directory_changed(directory);
    }

    fn revoked(&self, after: Duration) {
        self.metrics.revocation_took_effect(after);
    }
}

/// The gateway as seen from outside its data path.
pub(super) struct Health {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) keys: Arc<KeySet>,
    pub(crate) sync: SyncHandle,
    pub(crate) tally: Arc<Tally>,
    pub(crate) meters: Arc<Meters>,
    /// Where limits are shared: how that goes.
    pub(crate) lending: Option<Arc<LendingStatus>>,
    pub(crate) draining: Arc<AtomicBool>,
    /// Set once every listener accepts.
    pub(crate) accepting: Arc<AtomicBool>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) limits: Arc<ArcSwap<Limits>>,
    /// How long keys are let pass without the store; none: for ever.
    pub(crate) max_staleness: watch::Receiver<Option<Duration>>,
}

impl Pages for Health {
    fn page(&self, path: &str) -> Page {
        match path {
            "/metrics" => match self.scrape() {
                Ok(body) => Page { status: StatusCode::OK, media_type: CONTENT_TYPE, body },
                Err(error) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            "/livez" => Page::text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.not_ready() {
                None => Page::text(StatusCode::OK, "ok\n"),
                Some(reason) => Page::text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            },
            _ => Page::text(StatusCode::NOT_FOUND, "there are /metrics, /livez and /readyz\n"),
        }
    }
}

impl Health {
    fn scrape(&self) -> Result<String, String> {
        let census = self.keys.census(deciding_now());
        self.metrics.set_keys(census.iter().flat_map(|count| {
            let name = count.environment.as_ref();
            [
                (name, KeyState::Active, count.active),
                (name, KeyState::Disabled, count.disabled),
                (name, KeyState::Expired, count.expired),
                (name, KeyState::Revoked, count.revoked),
            ]
        }));
        self.metrics.set_cache(self.keys.len(), self.keys.revision());
        let status = self.sync.status();
        self.metrics.set_store_up(status.store_up);
        let snapshot = self.sync.snapshot();
        self.metrics.set_snapshot(snapshot.is_current, snapshot.len);
        let now = monotonic_now();
        if let (Some(at), Some(mut age)) = (status.last_success, self.keys.age(now)) {
            if !self.keys.is_vouched_for() {
                age = time::now().since(at);
            }
            self.metrics.sync_succeeded(at, now.checked_sub(age).unwrap_or(now));
        }
        self.metrics.set_notes_dropped(self.tally.dropped(), self.tally.dropped_marks());
        self.metrics.set_memory(self.memory.held(), self.memory.limit(&self.limits.load()));
        self.metrics.set_rate_meters(self.meters.len(), self.meters.evicted());
        if let (Some(lending), Some(sharing)) = (&self.lending, self.meters.sharing()) {
            let (waited, late) = sharing.waited();
            let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
            self.metrics.set_shared_limits(SharedLimits {
                up: lending.up.load(Ordering::Relaxed),
                outages: read(&lending.outages),
                leases: self.meters.leases(),
                granted: read(&lending.granted),
                refused: read(&lending.refused),
                failed: read(&lending.failed),
                waited,
                late,
            });
        }
        self.metrics.render(now).map_err(|error| error.to_string())
    }

    fn not_ready(&self) -> Option<&'static str> {
        if self.draining.load(Ordering::Relaxed) {
            Some("draining: this process is leaving")
        } else if !self.accepting.load(Ordering::Relaxed) {
            Some("starting: not every listener accepts yet")
        } else if !self.keys.is_loaded() {
            Some("loading: the key set is not complete yet")
        } else if self.max_staleness.borrow().is_some() && !self.keys.is_vouched_for() {
            // Whoever sends requests elsewhere, or waits before it replaces the next one, should go on doing so.
            Some("waiting for the store: this gateway had left its fleet, and asks before it decides by what it knew")
        } else {
            None
        }
    }
}
