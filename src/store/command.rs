//! What a write asks for, as a value: all stores apply the same commands, in a transaction or under a lock.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::api::{Actor, Answer, RepeatName, Repeatable};
use super::archive::Restoration;
use super::audit::{Action, Difference};
use super::error::StoreError;
use crate::domain::{KeyId, KeyRecord, NodeId, OwnerId, OwnerRecord, Revision, RevisionToken, Timestamp};

/// One write.
#[derive(Clone, Debug)]
pub enum Command {
    /// Add keys, all or none. Too many of one owner are [`StoreError::TooManyKeys`].
    InsertKeys {
        /// The keys.
        records: Vec<KeyRecord>,
        /// Where they come from.
        origin: Origin,
    },
    /// Put a changed record in place of the one that was read. [`StoreError::Stale`] when it changed meanwhile,
    /// [`StoreError::Revoked`] when it is revoked. A new hash takes the place of the old one.
    ReplaceKey {
        /// The record as it shall be; its `revision` is the one that was read.
        record: Box<KeyRecord>,
    },
    /// Add a successor and let the key it replaces live until `grace_until`, in one step. The errors are those of
    /// adding and of replacing a key; the successor does not count against its owner's `max_keys`.
    Rotate {
        /// The new key; `replaces` names the old one.
        successor: Box<KeyRecord>,
        /// The revision of the old key that was read.
        seen: Revision,
        /// Until when the old key is accepted.
        grace_until: Timestamp,
    },
    /// End the grace that its successor left a key, because the successor is used.
    EndGrace {
        /// The key that was replaced.
        id: KeyId,
    },
    /// The reversible switch.
    SetActive {
        /// The key.
        id: KeyId,
        /// On or off.
        active: bool,
    },
    /// The final one.
    Revoke {
        /// The key.
        id: KeyId,
    },
    /// Add an owner.
    InsertOwner {
        /// The owner.
        record: OwnerRecord,
    },
    /// Put a changed record in place of the one that was read. [`StoreError::Stale`] when it changed meanwhile.
    ReplaceOwner {
        /// The record as it shall be; its `revision` is the one that was read.
        record: OwnerRecord,
    },
    /// The owner's switch.
    SetSuspended {
        /// The owner.
        id: OwnerId,
        /// Refuse all its keys, or accept them again.
        suspended: bool,
    },
    /// Drop what is old.
    Forget {
        /// Older than this.
        before: Timestamp,
    },
    /// Drop the oldest entries of the audit trail, and say so in it.
    ForgetAudit {
        /// Only those older than this; an older one behind a younger one stays with it.
        retention: Duration,
    },
    /// Put what a backup holds in place of everything. [`StoreError::NotEmpty`] where something would be lost that may not
    /// be. What was revoked stays revoked, and every gateway takes it for another history.
    Restore {
        /// What, and whether it may take the place of what is there.
        restoration: Arc<Restoration>,
    },
    /// Note in the audit trail what happened elsewhere.
    Note {
        /// What happened.
        note: Note,
    },
}

impl Command {
    /// The revision that the command makes behind this one.
    pub(super) fn revision_behind(&self, newest: Revision) -> Revision {
        match self {
            // Entries of a trail that is taken over are not from the future.
            Self::Restore { restoration } => newest.max(restoration.archive.stand.revision).next(),
            Self::InsertKeys { .. }
            | Self::ReplaceKey { .. }
            | Self::Rotate { .. }
            | Self::EndGrace { .. }
            | Self::SetActive { .. }
            | Self::Revoke { .. }
            | Self::InsertOwner { .. }
            | Self::ReplaceOwner { .. }
            | Self::SetSuspended { .. }
            | Self::Forget { .. }
            | Self::ForgetAudit { .. }
            | Self::Note { .. } => newest.next(),
        }
    }
}

/// Something that changed no record.
#[derive(Clone, Debug)]
pub enum Note {
    /// The configuration was read again. Digests of its files, never what stands in them.
    ConfigReload {
        /// As they were.
        before: Value,
        /// As they are since.
        after: Value,
    },
    /// A gateway was taken out of the book of nodes by somebody who says that it serves no more.
    NodeForget {
        /// Which one.
        id: NodeId,
        /// As it stood there.
        was: Value,
    },
}

impl Note {
    pub(super) fn action(&self) -> Action {
        match self {
            Self::ConfigReload { .. } => Action::ConfigReload,
            Self::NodeForget { .. } => Action::NodeForget,
        }
    }

    pub(super) fn subject(&self) -> String {
        match self {
            Self::ConfigReload { .. } => "config".to_owned(),
            Self::NodeForget { id, .. } => id.to_string(),
        }
    }

    pub(super) fn difference(self) -> Difference {
        match self {
            Self::ConfigReload { before, after } => Difference { before: Some(before), after: Some(after) },
            Self::NodeForget { was, .. } => Difference { before: Some(was), after: None },
        }
    }
}

/// The subject of what is done to the trail itself.
pub(super) const AUDIT_SUBJECT: &str = "audit";
/// The subject of what is done to all of it.
pub(super) const STORE_SUBJECT: &str = "store";

/// Where inserted keys come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Made here.
    Minted,
    /// Made elsewhere.
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
#[derive(Clone, Debug)]
pub struct Order {
    /// What is to be done.
    pub command: Command,
    /// Who wants it.
    pub by: Actor,
    /// When.
    pub now: Timestamp,
    /// What to keep in case the same is asked again; [`StoreError::Repeated`] when something is kept under the name.
    pub repeatable: Option<(RepeatName, Repeatable)>,
}

impl Order {
    /// An order that is not kept for repetition.
    pub const fn new(command: Command, by: Actor, now: Timestamp) -> Self {
        Self { command, by, now, repeatable: None }
    }
}

/// What a command did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
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

    /// The revision that things are as wanted since; `None` when there was nothing of that id.
    pub fn revision(self) -> Option<Revision> {
        match self {
            Self::NotFound => None,
            Self::Unchanged(revision) | Self::Changed(revision, _) => Some(revision),
        }
    }

    pub(super) fn rows(self) -> u64 {
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
    fn apply_order(&self, order: Order) -> Answer<'_, Effect>;
    /// See [`super::KeyWriter::mark_used`].
    fn note_uses(&self, uses: Vec<(KeyId, Timestamp)>) -> Answer<'_, ()>;
}

impl<S: Commands> super::KeyWriter for S {
    fn submit(&self, order: Order) -> Answer<'_, Effect> {
        self.apply_order(order)
    }

    fn mark_used(&self, uses: Vec<(KeyId, Timestamp)>) -> Answer<'_, ()> {
        self.note_uses(uses)
    }
}
