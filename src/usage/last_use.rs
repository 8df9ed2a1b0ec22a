//! When keys were last used, on its way to the store.
//!
//! It is bounded. Where there is more than fits, the oldest goes first: last use is for people who clean up keys, and no
//! request waits for it.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::domain::{KeyId, Timestamp};
use crate::store::{KeyWriter, Outage, StoreError};

/// What is not written yet.
pub struct LastUse {
    writer: Arc<dyn KeyWriter>,
    pending: Mutex<HashMap<KeyId, Timestamp>>,
    more: Notify,
}

impl LastUse {
    /// Nothing yet; what comes goes to `writer`.
    pub fn new(writer: Arc<dyn KeyWriter>) -> Arc<Self> {
        Arc::new(Self { writer, pending: Mutex::default(), more: Notify::new() })
    }

    /// Takes over uses, of each key the last one, and has them written. At most `most` are kept, the newest; answers how
    /// many went.
    pub(super) fn add(&self, uses: impl Iterator<Item = (KeyId, Timestamp)>, most: usize) -> u64 {
        let mut pending = self.pending.lock();
        keep_latest(&mut pending, uses);
        self.more.notify_one();
        drop_oldest(&mut pending, most)
    }

    /// Writes what there is; keeps it when the store is away. To be called once more when the gateway stops.
    ///
    /// # Errors
    /// As any write. Cancelling it keeps what was not acknowledged.
    pub async fn flush(&self) -> Result<(), StoreError> {
        let mut under_way = UnderWay { of: self, uses: std::mem::take(&mut *self.pending.lock()) };
        if under_way.uses.is_empty() {
            return Ok(());
        }
        self.writer.mark_used(under_way.uses.iter().map(|(key, at)| (*key, *at)).collect()).await?;
        under_way.uses.clear();
        Ok(())
    }

    /// Writes whenever there is more, for ever. Says once when the store goes away, and when it is back.
    pub async fn run(self: Arc<Self>) {
        let mut outage = Outage::of("last use");
        loop {
            self.more.notified().await;
            outage.attempt(self.flush(), false).await;
        }
    }
}

/// Uses on their way to the store. What is left of them when they are dropped did not arrive.
struct UnderWay<'a> {
    of: &'a LastUse,
    uses: HashMap<KeyId, Timestamp>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        keep_latest(&mut self.of.pending.lock(), self.uses.drain());
    }
}

fn keep_latest(pending: &mut HashMap<KeyId, Timestamp>, uses: impl Iterator<Item = (KeyId, Timestamp)>) {
    for (key, at) in uses {
        let moment = pending.entry(key).or_insert(at);
        *moment = at.max(*moment);
    }
}

impl std::fmt::Debug for LastUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LastUse").field("pending", &self.pending.lock().len()).finish_non_exhaustive()
    }
}

/// Leaves the newest `most` uses; returns how many went.
fn drop_oldest(uses: &mut HashMap<KeyId, Timestamp>, most: usize) -> u64 {
    let excess = uses.len().saturating_sub(most);
    if excess == 0 {
        return 0;
    }
    let mut moments: Vec<Timestamp> = uses.values().copied().collect();
    let (_, border, _) = moments.select_nth_unstable(excess - 1);
    let border = *border;
    let before = uses.len();
    let mut at_border = excess - uses.values().filter(|at| **at < border).count();
    uses.retain(|_, at| match (*at).cmp(&border) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal if at_border > 0 => {
            at_border -= 1;
            false
        }
        std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => true,
    });
    (before - uses.len()) as u64
}

#[cfg(test)]
#[path = "last_use_tests.rs"]
mod tests;
