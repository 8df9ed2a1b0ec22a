//! What requests note: counts, where keys are used from, what report mode let pass. For next to nothing: each worker has a
//! table of its own, which allocates while it grows and when it meets a new key, not for each request.
//!
//! Everything is bounded. What finds no room is dropped and counted.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::findings::Findings;
use super::rules::RuleName;
use super::visit::{NOBODY, Visitor, Visits};
use crate::domain::{KeyId, KeyKind, Scope, Timestamp, is_filling, room_per_worker};
use crate::store::{FoundCaller, Passage};
use hashbrown::{Equivalent, HashMap};
use parking_lot::Mutex;

/// Most findings of keys that one worker notes between two flushes, and half as many of clients without a key.
const MAX_FINDINGS_PER_WORKER: usize = 4_096;
/// Collects what is noted of requests.
pub struct Tally {
    /// One for each worker, so that a lock is contended only at the moment of a flush.
    workers: Box<[Worker]>,
    /// Most counts, and most keys, that each of them notes between two flushes. About 120 bytes for each.
    room: usize,
    dropped: AtomicU64,
}

/// On cache lines of its own, so that workers do not slow each other down.
#[repr(align(128))]
#[derive(Default)]
struct Worker {
    noted: Mutex<Noted>,
}

/// What a worker noted.
#[derive(Default)]
pub(super) struct Noted {
    pub(super) counts: HashMap<Counted, u64>,
    pub(super) visits: Visits,
    pub(super) findings: Findings,
}

/// What requests are counted by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Counted {
    /// The key.
    pub(super) key: KeyId,
    /// The rule it met.
    pub(super) rule: RuleName,
    /// When it came.
    hour: i32,
    /// The HTTP status.
    pub(super) status: u16,
    /// What became of it.
    pub(super) passage: Passage,
}

impl Counted {
    /// A request that came at `at`; its status is not known yet.
    pub fn new(key: KeyId, rule: RuleName, passage: Passage, at: Timestamp) -> Self {
        let hour = i32::try_from(at.unix_seconds().div_euclid(3600)).unwrap_or(0);
        Self { key, rule, hour, status: 0, passage }
    }

    /// The same, answered with this status.
    #[must_use]
    pub const fn answered(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// A moment in the hour of its arrival.
    pub(super) fn at(&self) -> Timestamp {
        Timestamp::from_unix_seconds(i64::from(self.hour) * 3600)
    }
}

/// A request that report mode let pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found<'a> {
    /// The rule.
    pub rule: RuleName,
    /// Why enforcing would refuse it.
    pub reason: &'static str,
    /// Who sent it.
    pub caller: FoundCaller,
    /// The scopes that its key lacks.
    pub missing: &'a [Scope],
}

impl Found<'_> {
    pub(super) fn to_name(self) -> FindingName {
        let Self { rule, reason, caller, missing } = self;
        FindingName { rule, reason, caller, missing: missing.into() }
    }
}

impl Hash for Found<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.rule, self.reason, self.caller, self.missing).hash(state);
    }
}

/// As [`Found`], kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FindingName {
    pub(super) rule: RuleName,
    pub(super) reason: &'static str,
    pub(super) caller: FoundCaller,
    pub(super) missing: Box<[Scope]>,
}

impl FindingName {
    pub(super) fn as_found(&self) -> Found<'_> {
        Found { rule: self.rule, reason: self.reason, caller: self.caller, missing: &self.missing }
    }
}

/// As the borrowed form hashes, so that it finds this one.
impl Hash for FindingName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_found().hash(state);
    }
}

impl Equivalent<FindingName> for Found<'_> {
    fn equivalent(&self, key: &FindingName) -> bool {
        *self == key.as_found()
    }
}

#[derive(Clone, Copy)]
pub(super) struct FindingCount {
    pub(super) requests: u64,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
}

impl FindingCount {
    pub(super) fn add(&mut self, more: Self) {
        self.requests += more.requests;
        self.first = self.first.min(more.first);
        self.last = self.last.max(more.last);
    }
}

impl Tally {
    /// A collector for so many workers; at least one.
    pub fn new(workers: usize) -> Arc<Self> {
        let room = room_per_worker(workers);
        let workers = (0..workers.max(1)).map(|_| Worker::default()).collect();
        Arc::new(Self { workers, room, dropped: AtomicU64::new(0) })
    }

    /// Counts requests of one kind that `worker` answered. Some tens of nanoseconds.
    pub fn count(&self, worker: usize, counted: Counted, requests: u64) {
        self.with(worker, |noted| {
            if let Some(count) = noted.counts.get_mut(&counted) {
                *count += requests;
            } else if noted.counts.len() < self.room {
                noted.counts.insert(counted, requests);
            } else {
                return false;
            }
            true
        });
    }

    /// Notes who came with a key that is known. Some tens of nanoseconds.
    pub fn visit(&self, worker: usize, visitor: &Visitor<'_>) {
        self.with(worker, |noted| noted.visits.note(visitor, self.room));
    }

    /// Takes as long as [`Self::visit`]: a clock must not tell keys that are refused from keys that do not exist.
    pub fn visit_of_nobody(&self, worker: usize, address: Option<IpAddr>, agent: Option<&[u8]>, at: Timestamp) {
        let kind = KeyKind::Secret;
        self.visit(worker, &Visitor { key: NOBODY, kind, address, agent, is_browser_leak: false, at });
    }

    /// Notes a request that report mode let pass.
    pub fn find(&self, worker: usize, found: &Found<'_>, at: Timestamp) {
        let once = FindingCount { requests: 1, first: at, last: at };
        self.with(worker, |noted| noted.findings.add(found, once, MAX_FINDINGS_PER_WORKER));
    }

    /// What all workers have room for.
    pub(super) fn room(&self) -> usize {
        self.workers.len() * self.room
    }

    /// How many notes were dropped for want of room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Counts notes that were dropped later.
    pub(super) fn drop_more(&self, notes: u64) {
        self.dropped.fetch_add(notes, Ordering::Relaxed);
    }

    /// What each worker noted since the last time.
    pub(super) fn take(&self) -> impl Iterator<Item = Noted> {
        self.workers.iter().map(|worker| {
            let room = {
                let noted = worker.noted.lock();
                (noted.counts.len(), noted.visits.len(), noted.findings.len())
            };
            // The worker gets tables that are as roomy as those taken, so that it does not grow them again on its way.
            let fresh = Noted {
                counts: HashMap::with_capacity(room.0),
                visits: Visits::with_capacity(room.1),
                findings: Findings::with_capacity(room.2),
            };
            let mut taken = std::mem::replace(&mut *worker.noted.lock(), fresh);
            taken.visits.remove(&NOBODY);
            taken
        })
    }

    /// Whether a worker may run out of room before the next look.
    pub(super) fn is_filling(&self) -> bool {
        self.workers.iter().any(|worker| {
            let noted = worker.noted.lock();
            // The fuller it is, the more requests of a key share a row.
            is_filling(noted.counts.len().max(noted.visits.len()), self.room)
                || noted.findings.of_keys() >= MAX_FINDINGS_PER_WORKER / 2
        })
    }

    fn with(&self, worker: usize, note: impl FnOnce(&mut Noted) -> bool) {
        let Some(worker) = self.workers.get(worker % self.workers.len()) else { return };
        if !note(&mut worker.noted.lock()) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tally").field("workers", &self.workers.len()).field("dropped", &self.dropped()).finish()
    }
}

#[cfg(test)]
#[path = "tally_tests.rs"]
mod tests;
