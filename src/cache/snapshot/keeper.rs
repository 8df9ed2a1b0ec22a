//! The queue to the thread that writes the files.
//!
//! Whoever changes the set holds the queue's lock while doing so and queues what it did before letting go: whatever can be
//! seen in the set is queued or on the disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::watch;

use super::claim::SnapshotClaim;
use super::record::Record;
use super::restore::{Restored, restore};
use super::writer::{Disk, Own, Writer};
use crate::cache::apply::Replica;
use crate::domain::{StoreHead, Timestamp, time};

/// More keys than this waiting for the disk, and they are let go: the next base holds them.
const MOST_QUEUED: usize = if cfg!(test) { 1_000 } else { 100_000 };

/// Tells which revision is applied.
pub(in crate::cache) type Applied = watch::Sender<Option<StoreHead>>;

/// How the snapshot is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SnapshotStatus {
    /// Whether a restart would find one that holds everything applied.
    pub is_current: bool,
    /// Bytes of the base and the journals behind it.
    pub len: u64,
}

/// What the files held.
pub(in crate::cache) struct Found {
    /// Where the set stands.
    pub(in crate::cache) head: StoreHead,
    /// When the store last confirmed that.
    pub(in crate::cache) as_of: Timestamp,
    /// Whether the node had left its fleet: nobody waits for it, so it decides by nothing that was not confirmed anew.
    pub(in crate::cache) has_left: bool,
}

/// The way to the thread.
pub(in crate::cache) struct Keeper {
    queue: Arc<Queue>,
    /// What the thread starts with, until it has started.
    start: Option<(SnapshotClaim, Applied, watch::Sender<SnapshotStatus>)>,
}

/// See the module.
pub(super) struct Queue {
    pub(super) waiting: Mutex<Waiting>,
    pub(super) something: Condvar,
}

/// What the thread is to do.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) records: Vec<Record>,
    /// How many keys the records hold.
    pub(super) keys: usize,
    /// Where the set stands.
    pub(super) head: StoreHead,
    /// When the store last confirmed that.
    pub(super) as_of: Timestamp,
    /// Whether this process heard that from the store.
    pub(super) is_confirmed: bool,
    /// Whether the store was ever found to have lost commits.
    pub(super) diverged: bool,
    /// Whether the journal does not lead to `head`: everything was loaded anew, or too much was waiting.
    pub(super) wants_base: bool,
    /// Whether anything of this changed since the thread looked.
    pub(super) has_news: bool,
    pub(super) is_closed: bool,
}

impl Keeper {
    /// A keeper that tells what is applied, and how it is.
    pub(in crate::cache) fn new(claim: SnapshotClaim, applied: Applied, status: watch::Sender<SnapshotStatus>) -> Self {
        let queue = Arc::new(Queue { waiting: Mutex::default(), something: Condvar::new() });
        Self { queue, start: Some((claim, applied, status)) }
    }

    /// Fills an empty set from the files; nothing when there are none, or they cannot be used, which is logged. Starts the
    /// thread, which goes on from there. Blocks.
    pub(in crate::cache) fn restore(&mut self, replica: &mut Replica) -> Option<Found> {
        let (SnapshotClaim { place, seal, lock, id }, applied, status) = self.start.take()?;
        let nothing_yet = Disk::Empty { try_at: time::monotonic_now() };
        let has_left = place.left().exists();
        // Whatever becomes of it, the thread is started: nothing is acknowledged without it.
        let read = AssertUnwindSafe(|| restore(&place, &seal.load(), replica));
        let read = || catch_unwind(read).unwrap_or_else(|_| Err("reading it panicked".to_owned()));
        let (disk, found) = match lock.as_ref().map(|_| read()) {
            None | Some(Ok(None)) => (nothing_yet, None),
            Some(Ok(Some(restored))) => {
                let Restored { head, as_of, torn, diverged, journal, older } = restored;
                if torn {
                    tracing::warn!("the end of the snapshot was torn; it goes as far as was acknowledged");
                }
                let mut waiting = self.queue.waiting.lock();
                (waiting.head, waiting.as_of, waiting.diverged) = (head, as_of, diverged);
                let disk = Disk::Current { journal: Box::new(journal), older, acknowledged: head };
                (disk, Some(Found { head, as_of, has_left }))
            }
            Some(Err(reason)) => {
                tracing::error!(%reason, "the snapshot cannot be used; it is set aside");
                let left = Disk::Outdated { try_at: time::monotonic_now() };
                (place.set_aside().map_or(left, |()| nothing_yet), None)
            }
        };
        let (queue, set) = (Arc::clone(&self.queue), Arc::clone(replica.set()));
        let writer = Writer::new(queue, place, seal, set, (applied, status), disk, Own { lock, id, has_left });
        // What was restored stays what is acknowledged.
        if let Err(error) = std::thread::Builder::new().name("snapshot".to_owned()).spawn(move || writer.run()) {
            tracing::error!(%error, "the snapshot cannot be kept: no thread for it");
        }
        found
    }

    /// To be held while the set is changed.
    pub(in crate::cache) fn begin(&self) -> Change<'_> {
        Change { waiting: self.queue.waiting.lock(), something: &self.queue.something }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.queue.waiting.lock().is_closed = true;
        self.queue.something.notify_one();
    }
}

/// The set is being changed.
pub(in crate::cache) struct Change<'a> {
    waiting: MutexGuard<'a, Waiting>,
    something: &'a Condvar,
}

impl Change<'_> {
    /// This was applied.
    pub(in crate::cache) fn applied(mut self, record: Record) {
        self.waiting.head = record.head;
        self.waiting.as_of = record.as_of;
        self.waiting.keys += record.keys.len() + record.removed.len() + record.owners.len();
        if self.waiting.keys > MOST_QUEUED {
            self.waiting.want_base();
        } else if !self.waiting.wants_base {
            self.waiting.records.push(record);
        }
        self.tell();
    }

    /// Everything was loaded anew.
    pub(in crate::cache) fn loaded(mut self, head: StoreHead, as_of: Timestamp, diverged: bool) {
        self.waiting.head = head;
        self.waiting.as_of = as_of;
        self.waiting.diverged = diverged;
        self.waiting.want_base();
        self.tell();
    }

    /// The store confirmed that nothing else has happened.
    pub(in crate::cache) fn confirmed(mut self, as_of: Timestamp) {
        self.waiting.is_confirmed = true;
        // The thread looks around by itself.
        self.waiting.as_of = as_of;
    }

    fn tell(mut self) {
        self.waiting.has_news = true;
        self.something.notify_one();
    }
}

impl Waiting {
    pub(super) fn want_base(&mut self) {
        self.wants_base = true;
        self.records = Vec::new();
        self.keys = 0;
    }
}

impl Queue {
    /// What is waiting to be appended, and when the store confirmed where it leads; `None` when it does not lead on from
    /// what was appended.
    pub(super) fn take(&self) -> Option<(Vec<Record>, Timestamp)> {
        let mut waiting = self.waiting.lock();
        if waiting.wants_base {
            return None;
        }
        waiting.keys = 0;
        Some((std::mem::take(&mut waiting.records), waiting.as_of))
    }
}
