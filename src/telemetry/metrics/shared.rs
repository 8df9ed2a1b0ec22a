//! The side of the metrics that everyone but the workers writes: rare events and states of the whole process.
//!
//! Owns the values that rooms set. Must not know how they are shown.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::Mutex;

use super::cells::{EFFECT_BOUNDS, Histogram};
use super::labels::{EnvironmentLabel, EventLabel, Reload, Shed, UpstreamLabel};
use crate::domain::{KeyState, Revision, Timestamp};

/// A count of rare events that any thread may add to.
#[derive(Debug, Default)]
pub struct EventCount(AtomicU64);

impl EventCount {
    /// Adds `events`.
    pub fn add(&self, events: u64) {
        self.0.fetch_add(events, Relaxed);
    }

    /// How many were added so far.
    pub fn total(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What is known of a target of an upstream.
#[derive(Debug, Clone, Copy)]
pub(super) struct TargetState {
    pub(super) is_healthy: bool,
    /// How often it was left out because it failed.
    pub(super) ejections: u64,
}

/// How sharing limits goes.
#[derive(Debug, Clone, Copy)]
pub struct SharedLimits {
    /// Whether the server can be asked.
    pub up: bool,
    /// How often it went away.
    pub outages: u64,
    /// Leases that are held or asked for.
    pub leases: usize,
    /// Asks that were granted something.
    pub granted: u64,
    /// Asks that were granted nothing.
    pub refused: u64,
    /// Asks that were not answered.
    pub failed: u64,
    /// Waits of requests.
    pub waited: u64,
    /// Those of them that were over before there was an answer.
    pub late: u64,
}

/// Values of the whole process.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) started: Instant,
    pub(super) panics: Arc<EventCount>,
    pub(super) log_lines_dropped: Arc<EventCount>,
    pub(super) last_use_marks_dropped: AtomicU64,
    pub(super) usage_notes_dropped: AtomicU64,
    pub(super) events: [EventCount; EventLabel::ALL.len()],
    pub(super) reloads: [EventCount; Reload::ALL.len()],
    pub(super) shed: [EventCount; Shed::ALL.len()],
    pub(super) last_reload_applied: AtomicBool,
    pub(super) store_up: AtomicBool,
    pub(super) snapshot_up: AtomicBool,
    pub(super) snapshot_size: AtomicU64,
    pub(super) cache_entries: AtomicU64,
    pub(super) cache_revision: AtomicU64,
    pub(super) report_mode_routes: AtomicU64,
    pub(super) rate_meters: AtomicU64,
    pub(super) memory_held: AtomicU64,
    pub(super) memory_limit: AtomicU64,
    pub(super) rate_meters_evicted: AtomicU64,
    pub(super) shared_limits: Mutex<Option<SharedLimits>>,
    pub(super) last_sync: Mutex<Option<(Timestamp, Instant)>>,
    /// Written by whoever applies changes, alone.
    pub(super) revocation_effect: Histogram,
    pub(super) keys: Mutex<BTreeMap<(EnvironmentLabel, &'static str), u64>>,
    pub(super) upstream_targets: Mutex<BTreeMap<(UpstreamLabel, String), TargetState>>,
    pub(super) certificates: Mutex<BTreeMap<String, Timestamp>>,
}

impl Shared {
    pub(super) fn new(started: Instant) -> Self {
        Self {
            started,
            panics: Arc::default(),
            log_lines_dropped: Arc::default(),
            last_use_marks_dropped: AtomicU64::new(0),
            usage_notes_dropped: AtomicU64::new(0),
            events: Default::default(),
            reloads: Default::default(),
            shed: Default::default(),
            last_reload_applied: AtomicBool::new(true),
            store_up: AtomicBool::new(false),
            snapshot_up: AtomicBool::new(false),
            snapshot_size: AtomicU64::new(0),
            cache_entries: AtomicU64::new(0),
            cache_revision: AtomicU64::new(0),
            report_mode_routes: AtomicU64::new(0),
            rate_meters: AtomicU64::new(0),
            memory_held: AtomicU64::new(0),
            memory_limit: AtomicU64::new(0),
            rate_meters_evicted: AtomicU64::new(0),
            shared_limits: Mutex::new(None),
            last_sync: Mutex::new(None),
            revocation_effect: Histogram::new(&EFFECT_BOUNDS),
            keys: Mutex::default(),
            upstream_targets: Mutex::default(),
            certificates: Mutex::default(),
        }
    }

    pub(super) fn count_reload(&self, outcome: Reload) {
        self.reloads[outcome as usize].add(1);
        self.last_reload_applied.store(outcome == Reload::Applied, Relaxed);
    }

    pub(super) fn set_cache(&self, entries: usize, revision: Revision) {
        self.cache_entries.store(entries as u64, Relaxed);
        self.cache_revision.store(revision.number(), Relaxed);
    }

    pub(super) fn set_keys(&self, counts: impl IntoIterator<Item = (EnvironmentLabel, KeyState, u64)>) {
        let mut keys = BTreeMap::new();
        for (environment, state, count) in counts {
            *keys.entry((environment, state.name())).or_insert(0) += count;
        }
        *self.keys.lock() = keys;
    }
}
