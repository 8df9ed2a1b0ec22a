//! What requests note: counts, when and where keys are used, what report mode let pass. For next to nothing: each worker has
//! tables of its own, which allocate while they grow and when they meet a new key, not for each request.
//!
//! Everything is bounded. What finds no room is dropped and counted.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::findings::Findings;
use super::key_notes::{KeyNotes, NOBODY};
use super::pending::Dropped;
use super::recent::{Event, Recent};
use super::room::{is_filling, room_per_worker};
use super::rules::RuleName;
use super::visit::Visitor;
use crate::domain::{KeyId, KeyKind, Scope, Timestamp};
use crate::store::{FoundCaller, Passage};
use hashbrown::hash_map::Entry;
use hashbrown::{Equivalent, HashMap};
use parking_lot::{Mutex, MutexGuard};

/// Most findings of keys that one worker notes until they are taken, and half as many of clients without a key.
const MAX_FINDINGS_PER_WORKER: usize = 4_096;

/// Collects what is noted of requests.
pub struct Tally {
    /// One for each worker, so that a lock is contended only at the moment when notes are taken.
    workers: Box<[Worker]>,
    /// Most keys that each of them notes until they are taken, accepted or refused, and most counts that have no place beside
    /// their key.
    room: usize,
    dropped: AtomicU64,
    dropped_marks: AtomicU64,
}

/// On cache lines of its own, so that workers do not slow each other down.
#[repr(align(128))]
#[derive(Default)]
struct Worker(Mutex<Desk>);

/// What a worker notes, and where it is entered.
#[derive(Default)]
struct Desk {
    recent: Recent,
    noted: Noted,
}

/// What a worker noted.
#[derive(Default)]
pub(super) struct Noted {
    pub(super) keys: KeyNotes,
    /// Counts of keys that ask for more than one thing: all but the first of each.
    pub(super) counts: HashMap<Counted, u64>,
    pub(super) findings: Findings,
}

impl Noted {
    /// Whose requests there were, what became of them, and how many.
    pub(super) fn counts(&self) -> impl Iterator<Item = (KeyId, Passage, u64)> + Clone {
        let first =
            self.keys.iter().filter_map(|(key, note)| note.counted.map(|(row, requests)| (*key, row, requests)));
        let first = first.map(|(key, row, requests)| (key, row.passage, requests.into()));
        first.chain(self.counts.iter().map(|(counted, requests)| (counted.key, counted.row.passage, *requests)))
    }

    /// False where there is no room for another of `most` counts.
    fn count(&mut self, counted: Counted, requests: u32, most: usize) -> bool {
        let Counted { key, row } = counted;
        if self.keys.count(key, row, requests, most) {
            return true;
        }
        let is_full = self.counts.len() >= most;
        match self.counts.entry(counted) {
            Entry::Vacant(_) if is_full => return false,
            entry => *entry.or_default() += u64::from(requests),
        }
        true
    }
}

impl Desk {
    /// Enters what is recent, of each sort no more than `most`. Answers what there is no room for.
    fn enter(&mut self, most: usize) -> Dropped {
        let Self { recent, noted } = self;
        // Taken out first: what cannot be entered for a panic is not tried again with every request.
        let mut batch = std::mem::take(recent);
        noted.keys.reach(batch.keys(), most);
        let mut dropped = Dropped::default();
        for event in batch.iter() {
            let is_entered = match &event {
                Event::Visit(visitor) => noted.keys.visit(visitor, most),
                Event::Use(key, at) => noted.keys.mark(*key, *at, most),
                Event::Count(counted, requests) => noted.count(*counted, *requests, most),
            };
            if !is_entered {
                let (notes, marks) = event.weight();
                dropped.notes += notes;
                dropped.marks += marks;
            }
        }
        batch.clear();
        *recent = batch;
        dropped
    }
}

/// What requests are counted by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Counted {
    /// The key.
    pub(super) key: KeyId,
    /// What it asked for, and what came of it.
    pub(super) row: Row,
}

/// What requests of one key are counted by. In order of their time first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Row {
    /// When they came, in hours since 1970.
    hour: i32,
    /// The rule they met.
    pub(super) rule: RuleName,
    /// The HTTP status.
    pub(super) status: u16,
    /// What became of them.
    pub(super) passage: Passage,
}

impl Counted {
    /// A request that came at `at`; its status is not known yet.
    pub fn new(key: KeyId, rule: RuleName, passage: Passage, at: Timestamp) -> Self {
        let hour = i32::try_from(at.unix_seconds().div_euclid(3600)).unwrap_or(0);
        Self { key, row: Row { hour, rule, status: 0, passage } }
    }

    /// The same, answered with this status.
    #[must_use]
    pub const fn answered(self, status: u16) -> Self {
        Self { row: Row { status, ..self.row }, ..self }
    }
}

impl Row {
    /// A moment in the hour of their arrival.
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
        Arc::new(Self { workers, room, dropped: AtomicU64::new(0), dropped_marks: AtomicU64::new(0) })
    }

    /// Counts requests of one kind that `worker` answered. Some tens of nanoseconds, as all of these; what comes together with
    /// the 64th is entered, in some microseconds.
    pub fn count(&self, worker: usize, counted: Counted, requests: u32) {
        self.note(worker, Event::Count(counted, requests));
    }

    /// Notes who came with a key that is known.
    pub fn visit(&self, worker: usize, visitor: &Visitor<'_>) {
        self.note(worker, Event::Visit(*visitor));
    }

    /// Notes that a key was accepted, where it is of no interest who came with it.
    pub fn mark(&self, worker: usize, key: KeyId, at: Timestamp) {
        self.note(worker, Event::Use(key, at));
    }

    /// Whether a key was accepted since notes were last taken.
    pub(super) fn was_used(&self, key: &KeyId) -> bool {
        self.workers.iter().any(|worker| self.entered(worker).noted.keys.was_used(key))
    }

    /// Takes as long as [`Self::visit`]: a clock must not tell keys that are refused from keys that do not exist.
    pub fn visit_of_nobody(&self, worker: usize, address: Option<IpAddr>, agent: Option<&[u8]>, at: Timestamp) {
        let kind = KeyKind::Secret;
        self.visit(
            worker,
            &Visitor { key: NOBODY, kind, address, agent, is_browser_leak: false, is_accepted: false, at },
        );
    }

    /// Notes a request that report mode let pass.
    pub fn find(&self, worker: usize, found: &Found<'_>, at: Timestamp) {
        let once = FindingCount { requests: 1, first: at, last: at };
        if !self.desk(worker).noted.findings.add(found, once, MAX_FINDINGS_PER_WORKER) {
            self.drop_more(1);
        }
    }

    /// What all workers have room for.
    pub(super) fn room(&self) -> usize {
        self.workers.len() * self.room
    }

    /// How many notes were dropped for want of room. Takes every lock in turn: for scrapes.
    pub fn dropped(&self) -> u64 {
        self.enter();
        self.dropped.load(Ordering::Relaxed)
    }

    /// How many moments of last use were dropped for want of room. Takes every lock in turn: for scrapes.
    pub fn dropped_marks(&self) -> u64 {
        self.enter();
        self.dropped_marks.load(Ordering::Relaxed)
    }

    /// Counts moments of last use that were dropped later.
    pub(super) fn drop_marks(&self, marks: u64) {
        if marks > 0 {
            self.dropped_marks.fetch_add(marks, Ordering::Relaxed);
        }
    }

    /// Counts notes that were dropped later.
    pub(super) fn drop_more(&self, notes: u64) {
        if notes > 0 {
            self.dropped.fetch_add(notes, Ordering::Relaxed);
        }
    }

    /// What each worker noted since the last time.
    pub(super) fn take(&self) -> impl Iterator<Item = Noted> {
        self.workers.iter().map(|worker| {
            let room = {
                let noted = &self.entered(worker).noted;
                (noted.keys.len(), noted.counts.len(), noted.findings.len())
            };
            // The worker gets tables that are as roomy as those taken, so that it does not grow them again on its way.
            let fresh = Noted {
                keys: KeyNotes::with_capacity(room.0),
                counts: HashMap::with_capacity(room.1),
                findings: Findings::with_capacity(room.2),
            };
            let mut taken = std::mem::replace(&mut self.entered(worker).noted, fresh);
            taken.keys.forget_nobody();
            taken
        })
    }

    /// Whether a worker may run out of room before the next look.
    pub(super) fn is_filling(&self) -> bool {
        self.workers.iter().any(|worker| {
            let noted = &self.entered(worker).noted;
            // The fuller it is, the more requests of a key share a row.
            is_filling(noted.keys.len().max(noted.counts.len()), self.room)
                || noted.findings.of_keys() >= MAX_FINDINGS_PER_WORKER / 2
        })
    }

    fn note(&self, worker: usize, event: Event<'_>) {
        let mut desk = self.desk(worker);
        desk.recent.push(event);
        if desk.recent.is_full() {
            self.enter_one(&mut desk);
        }
    }

    /// Enters what all of them noted a moment ago.
    fn enter(&self) {
        self.workers.iter().for_each(|worker| drop(self.entered(worker)));
    }

    /// A worker's desk when all is entered.
    fn entered<'a>(&self, worker: &'a Worker) -> MutexGuard<'a, Desk> {
        let mut desk = worker.0.lock();
        self.enter_one(&mut desk);
        desk
    }

    fn enter_one(&self, desk: &mut Desk) {
        let Dropped { notes, marks } = desk.enter(self.room);
        self.drop_more(notes);
        self.drop_marks(marks);
    }

    /// The desk of the worker with this number; a number too high counts on from the first.
    fn desk(&self, worker: usize) -> MutexGuard<'_, Desk> {
        self.workers[worker % self.workers.len()].0.lock()
    }
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tally").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "tally_tests.rs"]
mod tests;
