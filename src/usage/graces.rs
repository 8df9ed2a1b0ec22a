//! Graces that end as soon as the successor of a rotated key is used, where that is what its rotation asked for.

use std::sync::Arc;

use crate::cache::KeySet;
use crate::domain::{KeyId, time};
use crate::store::{Actor, Command, KeyWriter, Order, StoreError};

/// Ends them.
pub(super) struct Graces {
    keys: Arc<KeySet>,
    writer: Arc<dyn KeyWriter>,
}

impl Graces {
    /// Of these keys.
    pub(super) fn new(keys: Arc<KeySet>, writer: Arc<dyn KeyWriter>) -> Self {
        Self { keys, writer }
    }

    /// Ends the graces of keys whose successors were used. To be called before it is forgotten which were.
    ///
    /// # Errors
    /// When the store is away: the next time is as good. A grace that cannot be ended for reasons of its own keeps none of
    /// the others.
    pub(super) async fn end(&self, was_used: impl Fn(&KeyId) -> bool) -> Result<(), StoreError> {
        for (successor, predecessor) in self.keys.ends_on_use() {
            if !was_used(&successor) {
                continue;
            }
            let by = Actor::named("gateway:first-use");
            match self.writer.submit(Order::new(Command::EndGrace { id: predecessor }, by, time::now())).await {
                Ok(_) => self.keys.note_ended(successor),
                Err(error @ StoreError::Unavailable { .. }) => return Err(error),
                Err(error) => tracing::debug!(%error, key_id = %predecessor, "a grace is not ended yet"),
            }
        }
        Ok(())
    }
}
