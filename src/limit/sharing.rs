//! What meters and the one that asks for leases have in common: whether it can be asked, what is to be asked, and who
//! waits for an answer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::{Notify, watch};

use super::subject::{RuleId, Subject};

/// Most leases that wait to be asked for, of each sort. Beyond, requests do without.
const MOST_QUEUED: usize = 65_536;

/// Whose meter it is, under which rule.
pub type MeterId = (Subject, RuleId);

/// What requests do that meet a limit while the shared meters cannot be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnOutage {
    /// They go by the meters of their node.
    Local,
    /// They are refused.
    Refuse,
}

impl OnOutage {
    /// The word in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Refuse => "refuse",
        }
    }
}

/// How leases are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseTerms {
    /// How much use a lease is for.
    pub span: Duration,
    /// Longest that a request waits for one.
    pub patience: Duration,
    /// What happens when nobody answers.
    pub on_outage: OnOutage,
}

/// Whether the shared meters can be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reach {
    /// Yes. The number says how often they were reached anew.
    Up(u32),
    /// Yes, but the last answer takes longer than a request would wait.
    Late(u32),
    /// No.
    Down,
}

/// See the module.
#[derive(Debug)]
pub struct Sharing {
    reach: OwnLine,
    pub(super) terms: LeaseTerms,
    queue: Mutex<Queue>,
    wanted: Notify,
    /// Counts answers; whoever waits looks again at each.
    answers: watch::Sender<u64>,
    pub(super) waits: AtomicU64,
    pub(super) late: AtomicU64,
}

/// On a cache line of its own: every request that is limited reads it.
#[derive(Debug)]
#[repr(align(128))]
struct OwnLine(AtomicU64);

#[derive(Debug, Default)]
struct Queue {
    first: VecDeque<MeterId>,
    other: VecDeque<MeterId>,
}

const DOWN: u64 = 0;
const LATE: u64 = 1;
const UP: u64 = 2;

impl Sharing {
    pub(super) fn new(terms: LeaseTerms) -> Self {
        Self {
            reach: OwnLine(AtomicU64::new(DOWN)),
            terms,
            queue: Mutex::default(),
            wanted: Notify::new(),
            answers: watch::Sender::new(0),
            waits: AtomicU64::new(0),
            late: AtomicU64::new(0),
        }
    }

    /// Notes that the shared meters can be asked from now on: leases of before are over.
    pub fn begin(&self) {
        let epoch = (self.reach.0.load(Relaxed) >> 32).wrapping_add(1);
        self.set(epoch << 32 | UP);
    }

    /// Notes whether an answer takes longer than a request would wait for it.
    pub fn set_late(&self, is_late: bool) {
        let epoch = self.reach.0.load(Relaxed) >> 32;
        self.set(epoch << 32 | if is_late { LATE } else { UP });
    }

    /// Notes that the shared meters cannot be asked. What was to be asked is forgotten.
    pub fn end(&self) {
        let epoch = self.reach.0.load(Relaxed) >> 32;
        *self.queue.lock() = Queue::default();
        self.set(epoch << 32 | DOWN);
    }

    fn set(&self, reach: u64) {
        self.reach.0.store(reach, Relaxed);
        self.answered();
    }

    pub(super) fn reach(&self) -> Reach {
        let reach = self.reach.0.load(Relaxed);
        let epoch = u32::try_from(reach >> 32).unwrap_or_default();
        match reach & 3 {
            UP => Reach::Up(epoch),
            LATE => Reach::Late(epoch),
            _ => Reach::Down,
        }
    }

    /// Returns when something is to be asked. One task waits.
    pub async fn wanted(&self) {
        loop {
            if self.has_asks() {
                return;
            }
            self.wanted.notified().await;
        }
    }

    fn has_asks(&self) -> bool {
        let queue = self.queue.lock();
        !queue.first.is_empty() || !queue.other.is_empty()
    }

    /// Longest that a request waits for a lease.
    pub const fn patience(&self) -> Duration {
        self.terms.patience
    }

    /// How many requests waited for a lease, and how many of them until their patience was over.
    pub fn waited(&self) -> (u64, u64) {
        (self.waits.load(Relaxed), self.late.load(Relaxed))
    }

    /// Puts a meter into the queue. False when there is no room.
    pub(super) fn enqueue(&self, meter: MeterId, is_waited_for: bool) -> bool {
        let mut queue = self.queue.lock();
        let queue = if is_waited_for { &mut queue.first } else { &mut queue.other };
        if queue.len() >= MOST_QUEUED {
            return false;
        }
        queue.push_back(meter);
        self.wanted.notify_one();
        true
    }

    /// Takes meters out of the queue, those that requests wait for first.
    pub(super) fn dequeue(&self, most: usize) -> Vec<MeterId> {
        let mut queue = self.queue.lock();
        let first = queue.first.len().min(most);
        let mut meters: Vec<MeterId> = queue.first.drain(..first).collect();
        let other = queue.other.len().min(most - first);
        meters.extend(queue.other.drain(..other));
        meters
    }

    /// Lets everybody who waits look again.
    pub fn answered(&self) {
        self.answers.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn await_answer(&self) -> Awaited {
        self.waits.fetch_add(1, Relaxed);
        Awaited { meters: SmallVec::new(), answers: self.answers.subscribe() }
    }

    /// How much use a lease is for, in nanoseconds.
    pub(super) fn span_ns(&self) -> u64 {
        u64::try_from(self.terms.span.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Leases that a request waits for.
#[derive(Debug)]
pub struct Awaited {
    pub(super) meters: SmallVec<[MeterId; 2]>,
    pub(super) answers: watch::Receiver<u64>,
}
