//! A store as a whole: how it is handed out, what it is written down as, and what outlives putting it back.
//!
//! Owns the form of backups ([`back_up`], [`read_archive`]), which is the same for every store, and the rule of what a
//! restored store must not forget ([`Survivors`]). Must not know where records live: each store hands out its pieces, and
//! applies a [`Restoration`] as any other command, in one transaction.

mod lines;
mod reader;
mod survivors;
mod writer;

#[cfg(test)]
mod archive_tests;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

pub use reader::{NotRead, Proof, read_archive};
pub use writer::Written;

use writer::ArchiveWriter;

pub(super) use survivors::{Held, Survivors, TakenTrail, Trail, TrailFate, difference};

use super::Store;
use super::api::Actor;
use super::command::{Command, Order};
use super::error::StoreError;
use super::seal::AuditHead;
use super::trail::{Anchor, AuditEntry};
use super::usage::AdditionId;
use crate::domain::{KeyId, KeyRecord, OwnerRecord, QuotaTerm, Revision, Timestamp};

/// A part of what a store held at one moment, in the order in which they come.
#[derive(Debug)]
pub enum Piece {
    /// Where it stood; comes first, once.
    Stand(Stand),
    /// Owners; all of them come before the first key.
    Owners(Vec<OwnerRecord>),
    /// Keys, with their hashes.
    Keys(Vec<KeyRecord>),
    /// Entries of the audit trail, the oldest first.
    Entries(Vec<AuditEntry>),
}

/// Where a store stood when it was handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stand {
    /// Its newest revision.
    pub revision: Revision,
    /// What it remembered of entries that were dropped from the front of its trail.
    pub(super) anchor: Option<Anchor>,
}

/// Everything that a backup holds.
#[derive(Clone, PartialEq, Debug)]
pub struct Archive {
    /// When it was made.
    pub made_at: Timestamp,
    /// SHA-256 of what was written, 64 hexadecimal digits.
    pub digest: String,
    /// Where the store stood.
    pub stand: Stand,
    /// Every owner.
    pub owners: Vec<OwnerRecord>,
    /// Every key, with its hash and its last use.
    pub keys: Vec<KeyRecord>,
    /// The audit trail, the oldest entry first.
    pub entries: Vec<AuditEntry>,
    /// What quotas had counted.
    pub quotas: Vec<(QuotaTerm, u64)>,
}

impl Archive {
    /// Where its trail ends.
    pub(super) fn trail_head(&self) -> AuditHead {
        let dropped = || self.stand.anchor.map(|anchor| anchor.last).unwrap_or_default();
        self.entries.last().map_or_else(dropped, AuditEntry::head)
    }
}

/// What a store shall hold, in place of what it holds.
#[derive(Clone, PartialEq)]
pub struct Restoration {
    /// What.
    pub archive: Archive,
    /// Whether what the store holds may go.
    pub replace: bool,
}

impl fmt::Debug for Restoration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { archive, replace } = self;
        f.debug_struct("Restoration").field("digest", &archive.digest).field("replace", replace).finish_non_exhaustive()
    }
}

/// Uses that are noted at a time.
const USES_AT_ONCE: usize = 10_000;

/// Why a backup was not made.
#[derive(Debug)]
pub enum NotMade {
    /// The store's trouble.
    Store(StoreError),
    /// The output's.
    Io(io::Error),
}

impl From<StoreError> for NotMade {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<io::Error> for NotMade {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Writes everything that a store holds at one moment down, while it is used; sealed as its trail is. What quotas have
/// counted, and when keys were last used, is as of some moments later.
///
/// # Errors
/// The store's and the output's. What was written until then is no backup.
pub async fn back_up(store: &Store, out: &mut (dyn Write + Send), now: Timestamp) -> Result<Written, NotMade> {
    let mut writer = ArchiveWriter::new(out, now);
    let mut trouble = None;
    let mut write = |piece| match writer.write(piece) {
        Ok(()) => true,
        Err(error) => {
            trouble = Some(error);
            false
        }
    };
    let copied = store.reader().copy_all(&mut write).await;
    // Nobody listened any more: that is why the copy ended.
    trouble.map_or(Ok(()), Err)?;
    copied?;
    writer.write_quotas(store.quotas().current_counts(now).await?)?;
    Ok(writer.finish(&store.seal.load())?)
}

/// Puts what a backup holds in place of what the store holds, while it is used; answers the revision that this made. What
/// lies beside the records is for [`put_beside`].
///
/// # Errors
/// The store's; [`StoreError::NotEmpty`] where something would be lost that may not be. Then nothing is changed.
pub async fn put_back(
    store: &Store,
    restoration: &Arc<Restoration>,
    by: Actor,
    now: Timestamp,
) -> Result<Revision, StoreError> {
    let command = Command::Restore { restoration: Arc::clone(restoration) };
    let effect = store.writer().submit(Order::new(command, by, now)).await?;
    Ok(effect.revision().unwrap_or_default())
}

/// Raises last uses and counts of quotas to those of a backup; never lowers one.
///
/// # Errors
/// The store's. Doing it again does no harm.
pub async fn put_beside(store: &Store, archive: &Archive, now: Timestamp) -> Result<(), StoreError> {
    let uses = archive.keys.iter().filter_map(|record| Some((record.id, record.last_used_at?)));
    let uses: Vec<(KeyId, Timestamp)> = uses.collect();
    for some in uses.chunks(USES_AT_ONCE) {
        store.writer().mark_used(some.to_vec()).await?;
    }
    let counted: HashMap<QuotaTerm, u64> = store.quotas().current_counts(now).await?.into_iter().collect();
    let more = |(term, requests): &(QuotaTerm, u64)| {
        let more = requests.saturating_sub(counted.get(term).copied().unwrap_or_default());
        (more > 0).then_some((*term, more))
    };
    let more: Vec<(QuotaTerm, u64)> = archive.quotas.iter().filter_map(more).collect();
    if !more.is_empty() {
        let _totals = store.quotas().count_requests(AdditionId::first(), more).await?;
    }
    Ok(())
}
