//! When keys were last used, on its way to the store.
//!
//! It is bounded. Where there is more than fits, the oldest goes first: last use is for people who clean up keys, and no
//! request waits for it.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::domain::{KeyId, Timestamp};
use crate::store::{KeyWriter, StoreError};

/// What is not written yet.
pub(super) struct LastUse {
    pub(super) writer: Arc<dyn KeyWriter>,
    pending: HashMap<KeyId, Timestamp>,
}

impl LastUse {
    pub(super) fn new(writer: Arc<dyn KeyWriter>) -> Self {
        Self { writer, pending: HashMap::new() }
    }

    /// Takes note of a use. The last one counts.
    pub(super) fn add(&mut self, key: KeyId, at: Timestamp) {
        let moment = self.pending.entry(key).or_insert(at);
        *moment = at.max(*moment);
    }

    /// Whether a use of this key is not written yet.
    pub(super) fn holds(&self, key: &KeyId) -> bool {
        self.pending.contains_key(key)
    }

    /// Keeps the newest `most`; answers how many went.
    pub(super) fn keep(&mut self, most: usize) -> u64 {
        drop_oldest(&mut self.pending, most)
    }

    /// Writes what there is; keeps it when the store is away.
    ///
    /// # Errors
    /// As any write. Cancelling it keeps what was not acknowledged.
    pub(super) async fn flush(&mut self) -> Result<(), StoreError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.writer.mark_used(self.pending.iter().map(|(key, at)| (*key, *at)).collect()).await?;
        self.pending = HashMap::new();
        Ok(())
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
