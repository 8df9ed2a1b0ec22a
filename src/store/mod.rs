//! Where key records live.
//!
//! Four traits, so that everyone is given only what they need: [`KeyReader`], [`KeyWriter`], [`ChangeFeed`] and
//! [`QuotaBook`]. [`open`] is the one door. Must not know who asks, nor how requests are decided.
//! Start at `api`; `sqlite` and `memory` are the stores, and `contract_tests` holds both to the same promises.

use std::sync::Arc;

mod api;
mod audit;
mod command;
mod error;
mod memory;
mod retention;
mod settings;
mod sqlite;

#[cfg(test)]
mod contract_tests;
#[cfg(test)]
pub(crate) mod fixtures;

pub use api::*;
pub use command::{Command, Effect, Order, Origin};
pub use error::StoreError;
pub use retention::{RETENTION, forget_what_is_old};
pub use settings::*;

/// Whether a store that does not exist is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// Make it, with its directory: verbs that write.
    Create,
    /// Refuse: verbs that only look.
    Existing,
}

/// An open store. Dropping the last handle waits for writes that were queued, and closes the files.
pub struct Store {
    reader: Arc<dyn KeyReader>,
    writer: Arc<dyn KeyWriter>,
    feed: Arc<dyn ChangeFeed>,
    quotas: Arc<dyn QuotaBook>,
}

impl Store {
    fn over<S: KeyReader + KeyWriter + ChangeFeed + QuotaBook + 'static>(store: S) -> Arc<Self> {
        let store = Arc::new(store);
        Arc::new(Self { reader: store.clone(), writer: store.clone(), feed: store.clone(), quotas: store })
    }

    /// What reads records.
    pub fn reader(&self) -> &Arc<dyn KeyReader> {
        &self.reader
    }

    /// What changes records.
    pub fn writer(&self) -> &Arc<dyn KeyWriter> {
        &self.writer
    }

    /// What follows changes.
    pub fn feed(&self) -> &Arc<dyn ChangeFeed> {
        &self.feed
    }

    /// What keeps the counts of quotas.
    pub fn quotas(&self) -> &Arc<dyn QuotaBook> {
        &self.quotas
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

/// Opens the store that the settings name, bringing an older schema up to date. Blocks on files.
///
/// # Errors
/// [`StoreError::Unavailable`] when it cannot be reached, read or (with [`OpenMode::Existing`]) does not exist,
/// [`StoreError::Damaged`] when it is not a store of ours or is broken, [`StoreError::Newer`] when a newer
/// portcullis has written it.
pub fn open(settings: &StoreSettings, mode: OpenMode) -> Result<Arc<Store>, StoreError> {
    match settings {
        StoreSettings::Memory => Ok(Store::over(memory::MemoryStore::new()?)),
        StoreSettings::Sqlite { path } => Ok(Store::over(sqlite::SqliteStore::open(path, mode)?)),
    }
}
