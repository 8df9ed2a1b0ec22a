//! When keys were last used: noted by the data plane for next to nothing, written to the store in batches.
//!
//! Everything is bounded. Where there is more than fits, the oldest notes go first and are counted: last use is for
//! people who clean up keys, and no request waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::key_set::KeySet;
use crate::domain::{KeyId, Timestamp, is_filling, room_per_worker, time};
use crate::store::{Actor, Command, KeyWriter, Order, Outage, StoreError};

/// How often is looked whether there is room: what is left of it is for more keys than can come meanwhile.
const LOOK: Duration = Duration::from_millis(250);
/// Most notes kept while the store is away, unless workers have room for more.
const MAX_PENDING: usize = 262_144;

/// Collects the moments at which keys were used.
pub struct LastUse {
    /// One for each worker, so that a lock is contended only at the moment of a flush.
    workers: Box<[Worker]>,
    /// Most keys that each of them notes between two flushes.
    room: usize,
    pending: tokio::sync::Mutex<HashMap<KeyId, Timestamp>>,
    dropped: AtomicU64,
}

/// On cache lines of its own, so that workers do not slow each other down.
#[repr(align(128))]
#[derive(Default)]
struct Worker {
    noted: Mutex<HashMap<KeyId, Timestamp>>,
}

impl LastUse {
    /// A collector for so many workers; at least one.
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            workers: (0..workers.max(1)).map(|_| Worker::default()).collect(),
            room: room_per_worker(workers),
            pending: tokio::sync::Mutex::default(),
            dropped: AtomicU64::new(0),
        })
    }

    /// Notes that `worker` accepted this key. Some tens of nanoseconds; allocates only while its table grows.
    pub fn mark(&self, worker: usize, id: KeyId, now: Timestamp) {
        let Some(worker) = self.workers.get(worker % self.workers.len()) else { return };
        let mut noted = worker.noted.lock();
        if let Some(moment) = noted.get_mut(&id) {
            *moment = now;
        } else if noted.len() < self.room {
            noted.insert(id, now);
        } else {
            drop(noted);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many notes were dropped for want of room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Writes what was noted; keeps it when the store is away. To be called once more when the gateway stops.
    ///
    /// # Errors
    /// As any write. Cancelling it keeps what was not acknowledged.
    pub async fn flush(&self, writer: &dyn KeyWriter) -> Result<(), StoreError> {
        let mut pending = self.pending.lock().await;
        for worker in &self.workers {
            // The worker gets a table that is as roomy as the one taken, so that it does not grow it again on its way.
            let room = worker.noted.lock().len();
            let fresh = HashMap::with_capacity(room);
            let taken = std::mem::replace(&mut *worker.noted.lock(), fresh);
            for (id, at) in taken {
                let moment = pending.entry(id).or_insert(at);
                *moment = at.max(*moment);
            }
        }
        let most = MAX_PENDING.max(self.workers.len() * self.room);
        self.dropped.fetch_add(drop_oldest(&mut pending, most), Ordering::Relaxed);
        if pending.is_empty() {
            return Ok(());
        }
        writer.mark_used(pending.iter().map(|(id, at)| (*id, *at)).collect()).await?;
        *pending = HashMap::new();
        Ok(())
    }

    /// Whether a worker's notes may run out of room before the next look.
    fn is_filling(&self) -> bool {
        self.workers.iter().any(|worker| is_filling(worker.noted.lock().len(), self.room))
    }

    /// Ends the grace of keys whose successors have been used, where that is what their rotation asked for. To be called
    /// before each flush, which forgets who was used. A store that is away is asked again the next time.
    async fn end_graces(&self, keys: &KeySet, writer: &dyn KeyWriter) {
        for (successor, predecessor) in keys.ends_on_use() {
            if !self.was_used(successor).await {
                continue;
            }
            let by = Actor::named("gateway:first-use");
            match writer.submit(Order::new(Command::EndGrace { id: predecessor }, by, time::now())).await {
                Ok(_) => keys.note_ended(successor),
                Err(error) => tracing::debug!(%error, key_id = %predecessor, "a grace is not ended yet"),
            }
        }
    }

    /// Whether a key was used and that is not written yet.
    async fn was_used(&self, id: KeyId) -> bool {
        self.workers.iter().any(|worker| worker.noted.lock().contains_key(&id))
            || self.pending.lock().await.contains_key(&id)
    }

    /// Flushes at every interval, for ever, and sooner when many keys are used. Says once when the store goes away, and
    /// when it is back.
    pub async fn run(self: Arc<Self>, keys: Arc<KeySet>, writer: Arc<dyn KeyWriter>, every: Duration) {
        let mut outage = Outage::of("last use");
        let mut waited = Duration::ZERO;
        loop {
            let step = LOOK.min(every);
            tokio::time::sleep(step).await;
            waited += step;
            let is_time = waited >= every || self.is_filling();
            // Every second: there may be many of them.
            if is_time || waited.subsec_millis() == 0 {
                self.end_graces(&keys, writer.as_ref()).await;
            }
            if !is_time {
                continue;
            }
            waited = Duration::ZERO;
            outage.attempt(self.flush(writer.as_ref()), false).await;
        }
    }
}

impl std::fmt::Debug for LastUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LastUse").field("workers", &self.workers.len()).field("dropped", &self.dropped()).finish()
    }
}

/// Leaves the newest `most` notes; returns how many went.
fn drop_oldest(notes: &mut HashMap<KeyId, Timestamp>, most: usize) -> u64 {
    let excess = notes.len().saturating_sub(most);
    if excess == 0 {
        return 0;
    }
    let mut moments: Vec<Timestamp> = notes.values().copied().collect();
    let (_, border, _) = moments.select_nth_unstable(excess - 1);
    let border = *border;
    let before = notes.len();
    let mut at_border = excess - notes.values().filter(|at| **at < border).count();
    notes.retain(|_, at| match (*at).cmp(&border) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal if at_border > 0 => {
            at_border -= 1;
            false
        }
        std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => true,
    });
    (before - notes.len()) as u64
}

#[cfg(test)]
#[path = "last_use_tests.rs"]
mod tests;
