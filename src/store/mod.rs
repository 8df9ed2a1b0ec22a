//! Where key records live.
//!
//! Seven traits, so that each is given only what it needs: [`KeyReader`], [`KeyWriter`], [`ChangeFeed`], [`AuditReader`],
//! [`QuotaBook`], [`UsageBook`], [`NodeBook`]. [`open`] is the one door. Must not know who asks, nor how requests are decided.
//! Start at `api`; `sqlite`, `postgres` and `memory` are the stores, and `contract_tests` holds them to the same promises.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::domain::Timestamp;

mod api;
mod archive;
mod audit;
mod columns;
mod command;
mod deferred;
mod error;
mod memory;
mod nodes;
mod outage;
mod postgres;
mod retention;
mod seal;
mod secrets;
mod settings;
mod sqlite;
mod surplus;
mod trail;
mod usage;
mod verify;

#[cfg(test)]
mod archive_contract_tests;
#[cfg(test)]
mod contract_tests;
#[cfg(test)]
mod feed_contract_tests;
#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod lookup_contract_tests;
#[cfg(test)]
mod node_contract_tests;
#[cfg(test)]
mod trail_contract_tests;
#[cfg(test)]
mod usage_contract_tests;

pub use api::*;
pub use archive::{
    Archive, NotMade, NotRead, Piece, Proof, Restoration, Stand, Written, back_up, put_back, put_beside, read_archive,
};
pub use command::{Command, Effect, Note, Order, Origin};
pub use deferred::Opening;
pub use error::StoreError;
pub use nodes::*;
pub use outage::Outage;
pub use postgres::{AddressFlaw, PostgresAddress};
pub use retention::{RETENTION, forget_old_entries, forget_what_is_old, tidy_usage};
pub use seal::{AuditHead, AuditMac, AuditSeal, NotAHead, Sealed};
pub use secrets::OtherSecret;
pub use settings::*;
pub use surplus::Surplus;
pub use trail::{AuditEntry, AuditExtent, AuditOrder, AuditQuery, AuditReader};
pub use usage::*;
pub use verify::{Breach, DroppedEntries, Verification};

/// Whether a store that does not exist is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// Make it, with its directory: verbs that write.
    Create,
    /// Refuse: verbs that only look.
    Existing,
}

/// A step of a store's schema.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MigrationStep {
    /// The version of the schema that it leads to.
    pub version: u32,
    /// What it is called.
    pub name: String,
    /// When this store took it; none: not yet.
    pub applied_at: Option<Timestamp>,
}

/// An open store. Dropping the last handle waits for writes that were queued, and closes the files.
pub struct Store {
    reader: Arc<dyn KeyReader>,
    writer: Arc<dyn KeyWriter>,
    feed: Arc<dyn ChangeFeed>,
    audit: Arc<dyn AuditReader>,
    seal: SharedSeal,
    quotas: Arc<dyn QuotaBook>,
    usage: Arc<dyn UsageBook>,
    nodes: Arc<dyn NodeBook>,
}

/// The seal in use, replaced when the configuration is read again.
type SharedSeal = Arc<ArcSwap<AuditSeal>>;

impl Store {
    fn over<S>(store: Arc<S>, usage: Arc<dyn UsageBook>, seal: SharedSeal) -> Arc<Self>
    where
        S: KeyReader + KeyWriter + ChangeFeed + AuditReader + QuotaBook + NodeBook + 'static,
    {
        Arc::new(Self {
            reader: store.clone(),
            writer: store.clone(),
            feed: store.clone(),
            audit: store.clone(),
            quotas: store.clone(),
            nodes: store,
            usage,
            seal,
        })
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

    /// What reads the audit trail.
    pub fn audit(&self) -> &Arc<dyn AuditReader> {
        &self.audit
    }

    /// From the next transaction on, entries of the audit trail are sealed with this.
    pub fn seal_with(&self, seal: AuditSeal) {
        self.seal.store(Arc::new(seal));
    }

    /// What keeps the counts of quotas.
    pub fn quotas(&self) -> &Arc<dyn QuotaBook> {
        &self.quotas
    }

    /// What keeps what requests leave behind.
    pub fn usage(&self) -> &Arc<dyn UsageBook> {
        &self.usage
    }

    /// What knows the gateways that enforce these keys.
    pub fn nodes(&self) -> &Arc<dyn NodeBook> {
        &self.nodes
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

/// Opens the store that the settings name, bringing an older schema up to date; entries of its audit trail are sealed
/// with `seal`. Blocks on files.
///
/// # Errors
/// [`StoreError::Unavailable`] when it cannot be reached, read or (with [`OpenMode::Existing`]) does not exist,
/// [`StoreError::Damaged`] when it is not a store of ours or is broken, [`StoreError::Newer`] when a newer
/// portcullis has written it.
pub fn open(settings: &StoreSettings, mode: OpenMode, seal: AuditSeal) -> Result<Arc<Store>, StoreError> {
    open_sealed(settings, mode, Arc::new(ArcSwap::from_pointee(seal)))
}

/// A store that is not there yet, and what opens it: until then it answers as one that is away.
pub fn open_later(settings: StoreSettings, seal: AuditSeal, why: StoreError) -> (Arc<Store>, Opening) {
    deferred::open_later(settings, Arc::new(ArcSwap::from_pointee(seal)), why)
}

fn open_sealed(settings: &StoreSettings, mode: OpenMode, seal: SharedSeal) -> Result<Arc<Store>, StoreError> {
    match settings {
        StoreSettings::Memory => {
            let usage = Arc::new(memory::MemoryUsage::default());
            Ok(Store::over(Arc::new(memory::MemoryStore::new(seal.clone())?), usage, seal))
        }
        StoreSettings::Postgres(settings) => {
            let store = Arc::new(postgres::PostgresStore::open(settings, mode, seal.clone())?);
            Ok(Store::over(Arc::clone(&store), store, seal))
        }
        StoreSettings::Sqlite { path } => {
            let store = sqlite::SqliteStore::open(path, mode, seal.clone())?;
            let usage = store.usage_book();
            Ok(Store::over(Arc::new(store), usage, seal))
        }
    }
}

/// The steps that lead to the newest schema of the store that the settings name, in their order; changes nothing. Blocks.
///
/// # Errors
/// As [`open`], save that any schema may be looked at.
pub fn migrations(settings: &StoreSettings) -> Result<Vec<MigrationStep>, StoreError> {
    match settings {
        StoreSettings::Memory => Ok(Vec::new()),
        StoreSettings::Sqlite { path } => sqlite::migrations(path),
        StoreSettings::Postgres(settings) => postgres::migrations(settings),
    }
}

/// Brings the schema of the store that the settings name up to date, making it where there is none; returns how many steps
/// it took. Blocks.
///
/// # Errors
/// As [`open`].
pub fn migrate(settings: &StoreSettings) -> Result<usize, StoreError> {
    match settings {
        StoreSettings::Memory => Ok(0),
        StoreSettings::Sqlite { path } => sqlite::bring_up_to_date(path),
        StoreSettings::Postgres(settings) => postgres::migrate(settings),
    }
}
