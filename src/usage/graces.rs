//! Graces that end as soon as the successor of a rotated key is used, where that is what its rotation asked for.

use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;

use super::tally::Tally;
use crate::cache::KeySet;
use crate::domain::{KeyId, time};
use crate::store::{Actor, Command, KeyWriter, Order, Outage, StoreError};

/// How often is looked which successors were used. Not more often: there may be many of them.
const EVERY: Duration = Duration::from_secs(1);

/// Ends them. A use that was seen is remembered until the store has the end of the grace.
pub struct Graces {
    keys: Arc<KeySet>,
    tally: Arc<Tally>,
    writer: Arc<dyn KeyWriter>,
    /// Successors that were used, as far as [`Tally`] no longer says so.
    used: Mutex<HashSet<KeyId>>,
}

impl Graces {
    /// Of these keys, by what is noted in `tally`.
    pub fn new(keys: Arc<KeySet>, tally: Arc<Tally>, writer: Arc<dyn KeyWriter>) -> Arc<Self> {
        Arc::new(Self { keys, tally, writer, used: Mutex::default() })
    }

    /// Ends graces every second, for ever. Says once when the store goes away, and when it is back.
    pub async fn run(self: Arc<Self>) {
        let mut outage = Outage::of("ends of graces");
        loop {
            tokio::time::sleep(EVERY).await;
            outage.attempt(self.end(), false).await;
        }
    }

    /// Which successors are waited for. To be asked before the tally forgets which keys were used.
    pub(super) fn awaited(&self) -> HashSet<KeyId> {
        self.keys.ends_on_use().into_iter().map(|(successor, _)| successor).collect()
    }

    /// Remembers that a successor was used.
    pub(super) fn remember(&self, successor: KeyId) {
        self.used.lock().insert(successor);
    }

    /// Ends the graces of keys whose successors were used. To be called once more when the gateway stops.
    ///
    /// # Errors
    /// When the store is in trouble: it is asked again the next time. A grace that cannot be ended for a reason of its own
    /// keeps none of the others.
    pub async fn end(&self) -> Result<(), StoreError> {
        let awaited: HashMap<KeyId, KeyId> = self.keys.ends_on_use().into_iter().collect();
        // Graces that ended otherwise.
        self.used.lock().retain(|successor| awaited.contains_key(successor));
        let mut trouble = Ok(());
        for (successor, predecessor) in awaited {
            if !self.used.lock().contains(&successor) && !self.tally.was_used(&successor) {
                continue;
            }
            self.remember(successor);
            let by = Actor::named("gateway:first-use");
            match self.writer.submit(Order::new(Command::EndGrace { id: predecessor }, by, time::now())).await {
                Err(error @ StoreError::Unavailable { .. }) => return Err(error),
                Err(error) if error.is_trouble() => {
                    trouble = trouble.and(Err(error));
                    continue;
                }
                Err(error) => tracing::debug!(%error, key_id = %predecessor, "there is no grace to end"),
                Ok(_) => {}
            }
            self.keys.note_ended(successor);
            self.used.lock().remove(&successor);
        }
        trouble
    }
}

#[cfg(test)]
impl Graces {
    pub(super) fn remembers(&self, successor: KeyId) -> bool {
        self.used.lock().contains(&successor)
    }
}

impl std::fmt::Debug for Graces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graces").field("used", &self.used.lock().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "graces_tests.rs"]
mod tests;
