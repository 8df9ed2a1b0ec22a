//! Whose turn it is to import: one import is worked on at any time, however many are asked for.
//!
//! Owns how many may wait and how long. A few of those with an owner wait at most, so that an operator never waits behind
//! many of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Imports by operators that are worked on or wait.
const OPERATORS: usize = 16;
/// The same by management keys with an owner.
const OWNERS: usize = 2;
/// How long one waits.
// Less in tests, which would otherwise spend their time waiting.
const PATIENCE: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(30) };

/// See the module.
pub(super) struct Turns {
    work: Arc<Semaphore>,
    operators: Arc<Semaphore>,
    owners: Arc<Semaphore>,
}

/// A turn, until it is dropped.
pub(super) struct Turn {
    _work: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self { work: places(1), operators: places(OPERATORS), owners: places(OWNERS) }
    }
}

impl Turns {
    /// Waits for a turn. `None` where too many wait already, or it takes too long. May be dropped at any time.
    pub(super) async fn take(&self, is_operator: bool) -> Option<Turn> {
        let places = if is_operator { &self.operators } else { &self.owners };
        let place = Arc::clone(places).try_acquire_owned().ok()?;
        let work = tokio::time::timeout(PATIENCE, Arc::clone(&self.work).acquire_owned()).await.ok()?.ok()?;
        Some(Turn { _work: work, _place: place })
    }
}

#[cfg(test)]
#[path = "turns_tests.rs"]
mod tests;
