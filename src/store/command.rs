//! What a write asks for, as a value: both stores apply the same commands, one in a transaction, one under a lock.

use super::api::{Actor, Answer};
use super::audit::Action;
use super::error::StoreError;
use crate::domain::{KeyId, KeyRecord, OwnerId, OwnerRecord, Revision, RevisionToken, Timestamp};

/// One write.
#[derive(Debug)]
pub(super) enum Command {
    /// Add keys, all or none.
    InsertKeys { records: Vec<KeyRecord>, origin: Origin },
    /// The reversible switch.
    SetActive { id: KeyId, active: bool },
    /// The final one.
    Revoke { id: KeyId },
    /// Add an owner.
    InsertOwner { record: OwnerRecord },
    /// The owner's switch.
    SetSuspended { id: OwnerId, suspended: bool },
    /// Drop what is old.
    Forget { before: Timestamp },
}

/// Where inserted keys come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    Minted,
    Imported,
}

impl Origin {
    pub(super) fn action(self) -> Action {
        match self {
            Self::Minted => Action::KeyCreate,
            Self::Imported => Action::KeyImport,
        }
    }
}

/// A command with who gives it and when.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) command: Command,
    pub(super) by: Actor,
    pub(super) now: Timestamp,
}

/// What a command did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// There was nothing of that id.
    NotFound,
    /// Things were already as wanted, since this revision.
    Unchanged(Revision),
    /// Changed, as of this revision; with the number of rows.
    Changed(Revision, u64),
}

impl Effect {
    pub(super) fn is_change(self) -> bool {
        match self {
            Self::Changed(..) => true,
            Self::NotFound | Self::Unchanged(_) => false,
        }
    }

    fn revision(self) -> Option<Revision> {
        match self {
            Self::NotFound => None,
            Self::Unchanged(revision) | Self::Changed(revision, _) => Some(revision),
        }
    }

    fn rows(self) -> u64 {
        match self {
            Self::NotFound | Self::Unchanged(_) => 0,
            Self::Changed(_, rows) => rows,
        }
    }
}

/// A token for the next revision.
///
/// # Errors
/// [`StoreError::Unavailable`] when the operating system gives no random bytes.
pub(super) fn draw_token() -> Result<RevisionToken, StoreError> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|source| StoreError::unavailable("drawing a revision token", source.to_string()))?;
    Ok(RevisionToken(u64::from_le_bytes(bytes)))
}

/// A store that applies commands; everything [`super::KeyWriter`] promises beyond that is the same for all.
pub(super) trait Commands: Send + Sync {
    /// Applies one order durably.
    fn submit(&self, order: Order) -> Answer<'_, Effect>;
    /// See [`super::KeyWriter::mark_used`].
    fn note_uses(&self, uses: Vec<(KeyId, Timestamp)>) -> Answer<'_, ()>;
}

/// Inserts always change something or fail, so their revision exists.
fn inserted(effect: Effect) -> Revision {
    effect.revision().unwrap_or_default()
}

impl<S: Commands> super::KeyWriter for S {
    fn insert_keys(&self, records: Vec<KeyRecord>, by: Actor, now: Timestamp) -> Answer<'_, Revision> {
        let order = Order { command: Command::InsertKeys { records, origin: Origin::Minted }, by, now };
        Box::pin(async move { self.submit(order).await.map(inserted) })
    }

    fn import_keys(&self, records: Vec<KeyRecord>, by: Actor, now: Timestamp) -> Answer<'_, Revision> {
        let order = Order { command: Command::InsertKeys { records, origin: Origin::Imported }, by, now };
        Box::pin(async move { self.submit(order).await.map(inserted) })
    }

    fn set_active(&self, id: KeyId, active: bool, by: Actor, now: Timestamp) -> Answer<'_, Option<Revision>> {
        let order = Order { command: Command::SetActive { id, active }, by, now };
        Box::pin(async move { self.submit(order).await.map(Effect::revision) })
    }

    fn revoke(&self, id: KeyId, by: Actor, now: Timestamp) -> Answer<'_, Option<Revision>> {
        let order = Order { command: Command::Revoke { id }, by, now };
        Box::pin(async move { self.submit(order).await.map(Effect::revision) })
    }

    fn insert_owner(&self, record: OwnerRecord, by: Actor, now: Timestamp) -> Answer<'_, Revision> {
        let order = Order { command: Command::InsertOwner { record }, by, now };
        Box::pin(async move { self.submit(order).await.map(inserted) })
    }

    fn set_owner_suspended(
        &self,
        id: OwnerId,
        suspended: bool,
        by: Actor,
        now: Timestamp,
    ) -> Answer<'_, Option<Revision>> {
        let order = Order { command: Command::SetSuspended { id, suspended }, by, now };
        Box::pin(async move { self.submit(order).await.map(Effect::revision) })
    }

    fn mark_used(&self, uses: Vec<(KeyId, Timestamp)>) -> Answer<'_, ()> {
        self.note_uses(uses)
    }

    fn forget(&self, before: Timestamp, by: Actor, now: Timestamp) -> Answer<'_, u64> {
        let order = Order { command: Command::Forget { before }, by, now };
        Box::pin(async move { self.submit(order).await.map(Effect::rows) })
    }
}
