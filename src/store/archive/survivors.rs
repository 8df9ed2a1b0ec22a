//! What outlives a restore: a backup is older than the store that it is put into, and brings nothing back that was taken away
//! for good.
//!
//! A key that the store, its audit trail, or its memory of hashes without a key knows to be revoked stays revoked, whatever
//! the backup says, and stays in the store, so that it is still known when another backup follows. A secret that was replaced
//! stays replaced. The trail is never shortened: where it goes on from the backup's, it stays and goes on.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::{Archive, Restoration};
use crate::domain::{KeyHash, KeyId, KeyRecord, OwnerId, Revision, Timestamp};
use crate::store::api::Removed;
use crate::store::audit::{Difference, Dropped};
use crate::store::seal::{AuditHead, AuditMac};
use crate::store::trail::{Anchor, AuditEntry};

/// What a store knows of keys that must not come back. Asked within the transaction that restores.
#[derive(Debug)]
pub(in crate::store) struct Survivors {
    revoked: Vec<KeyRecord>,
    ids: HashSet<KeyId>,
    hashes: HashSet<KeyHash>,
    /// When the trail says that keys were revoked.
    revocations: HashMap<KeyId, Timestamp>,
    removed: HashSet<KeyHash>,
    /// Keys that have another secret than the backup says.
    renewed: HashMap<KeyId, KeyRecord>,
    now: Timestamp,
    kept: u64,
    secrets_kept: u64,
}

impl Survivors {
    /// Those of a store with these revoked keys, with what its trail says of revocations, and these hashes that no longer
    /// lead to a key.
    pub(in crate::store) fn new(
        revoked: Vec<KeyRecord>,
        revocations: impl IntoIterator<Item = (KeyId, Timestamp)>,
        removed: impl IntoIterator<Item = Removed>,
        now: Timestamp,
    ) -> Self {
        let ids = revoked.iter().map(|record| record.id).collect();
        let hashes = revoked.iter().map(|record| record.hash).collect();
        Self {
            revoked,
            ids,
            hashes,
            revocations: revocations.into_iter().collect(),
            removed: removed.into_iter().map(|removed| removed.hash).collect(),
            renewed: HashMap::new(),
            now,
            kept: 0,
            secrets_kept: 0,
        }
    }

    /// Keys of the backup of which the store is to say what they are now ([`Self::learn`]).
    pub(in crate::store) fn asked_for(&self, archive: &Archive) -> Vec<KeyId> {
        archive.keys.iter().filter(|record| self.removed.contains(&record.hash)).map(|record| record.id).collect()
    }

    /// What the store has of one of these.
    pub(in crate::store) fn learn(&mut self, record: KeyRecord) {
        self.renewed.insert(record.id, record);
    }

    /// A key of the backup as it is to be; none where the store's own stands for it.
    pub(in crate::store) fn settle(&mut self, record: &KeyRecord) -> Option<KeyRecord> {
        let was_live = u64::from(record.revoked_at.is_none());
        if self.ids.contains(&record.id) || self.hashes.contains(&record.hash) {
            self.kept += was_live;
            return None;
        }
        let mut record = record.clone();
        if was_live == 0 {
            return Some(record);
        }
        if let Some(at) = self.revocations.get(&record.id) {
            record.revoked_at = Some(*at);
            self.kept += 1;
        } else if self.removed.contains(&record.hash) {
            match self.renewed.remove(&record.id) {
                Some(KeyRecord { hash, prefix, last4, pepper, paired, .. }) => {
                    record = KeyRecord { hash, prefix, last4, pepper, paired, ..record };
                    self.secrets_kept += 1;
                }
                // It was revoked so long ago that its row is gone.
                None => {
                    record.revoked_at = Some(self.now);
                    self.kept += 1;
                }
            }
        }
        Some(record)
    }

    /// The revoked keys that stay.
    pub(in crate::store) fn revoked(&self) -> &[KeyRecord] {
        &self.revoked
    }

    /// Owners that these need and the backup does not have.
    pub(in crate::store) fn owners_missing_in(&self, archive: &Archive) -> Vec<OwnerId> {
        let known: HashSet<OwnerId> = archive.owners.iter().map(|owner| owner.id).collect();
        let needed: HashSet<OwnerId> = self.revoked.iter().filter_map(|record| record.owner).collect();
        needed.into_iter().filter(|owner| !known.contains(owner)).collect()
    }
}

/// The trail of a store that a backup is put into.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Trail {
    /// Where it ends.
    pub(in crate::store) head: AuditHead,
    /// What it remembers of entries that were dropped.
    pub(in crate::store) anchor: Option<Anchor>,
    /// The mac of its entry with the number of the backup's last one, where it has that entry.
    pub(in crate::store) at_the_backups_end: Option<AuditMac>,
}

/// What becomes of a trail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) enum TrailFate {
    /// There is none; the backup's is taken.
    Taken,
    /// It goes on from the backup's, and stays.
    Kept,
    /// It is another one; the backup's takes its place.
    Replaced,
}

impl TrailFate {
    /// What becomes of this one.
    pub(in crate::store) fn of(trail: &Trail, archive: &Archive) -> Self {
        let end = archive.trail_head();
        if trail.head == AuditHead::default() {
            return Self::Taken;
        }
        match trail.at_the_backups_end {
            Some(mac) if mac == end.mac => Self::Kept,
            Some(_) => Self::Replaced,
            // Nothing of the backup's trail could take its place, or it reaches back less far than the backup's end and
            // nobody can tell: then what is there counts for more.
            None if end.entry == 0 => Self::Kept,
            None if trail.anchor.is_some_and(|anchor| anchor.last.entry >= end.entry) => Self::Kept,
            None => Self::Replaced,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Kept => "kept",
            Self::Replaced => "replaced",
        }
    }
}

/// The trail of a backup as a store takes it over.
pub(in crate::store) struct TakenTrail<'a> {
    /// What comes before the first entry.
    pub(in crate::store) anchor: Option<Anchor>,
    /// The entries that are chained.
    pub(in crate::store) entries: &'a [AuditEntry],
    /// What is to be said of entries from before there was a chain: no store takes such entries any more.
    pub(in crate::store) dropped: Option<Dropped>,
}

impl Archive {
    /// Its trail, as a store takes it over.
    pub(in crate::store) fn taken_trail(&self) -> TakenTrail<'_> {
        let unsealed = self.entries.iter().take_while(|entry| entry.sealed.is_none()).count();
        let (front, entries) = self.entries.split_at(unsealed);
        match front.last() {
            None => TakenTrail { anchor: self.stand.anchor, entries, dropped: None },
            Some(last) => {
                let retention = std::time::Duration::ZERO;
                let dropped = Dropped { last: last.head(), last_at: last.at, retention };
                TakenTrail { anchor: Some(dropped.anchor()), entries, dropped: Some(dropped) }
            }
        }
    }
}

/// What a store held, as the trail tells of it.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Held {
    /// Its newest revision.
    pub(in crate::store) revision: Revision,
    /// How many keys.
    pub(in crate::store) keys: u64,
    /// How many owners.
    pub(in crate::store) owners: u64,
}

impl Held {
    /// Whether there is nothing that could be lost.
    pub(in crate::store) fn is_nothing(&self, trail: &Trail) -> bool {
        self.keys == 0 && self.owners == 0 && trail.head == AuditHead::default()
    }
}

/// What the trail says about a restore that is done.
pub(in crate::store) fn difference(
    restoration: &Restoration,
    held: Held,
    trail: &Trail,
    fate: TrailFate,
    survivors: &Survivors,
) -> Difference {
    let Archive { made_at, digest, stand, owners, keys, .. } = &restoration.archive;
    let text = |head: AuditHead| Some(head).filter(|head| *head != AuditHead::default()).map(|head| head.to_string());
    let before: Value = json!({
        "revision": held.revision,
        "keys": held.keys,
        "owners": held.owners,
        "head": text(trail.head),
    });
    let after: Value = json!({
        "backup": {
            "made_at": made_at,
            "revision": stand.revision,
            "sha256": digest,
            "head": text(restoration.archive.trail_head()),
        },
        "keys": keys.len(),
        "owners": owners.len(),
        "revocations_kept": survivors.kept,
        "secrets_kept": survivors.secrets_kept,
        "trail": fate.name(),
    });
    Difference { before: Some(before), after: Some(after) }
}
