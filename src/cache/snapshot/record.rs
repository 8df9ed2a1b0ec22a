//! What a journal holds: one set of changes, as JSON.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::domain::{
    KeyHash, KeyId, KeyKind, OwnerId, Quota, RateLimit, Revision, RevisionToken, StoreHead, Timestamp,
};
use crate::store::{KeyFacts, OwnerFacts, Profile, Removed};

/// One set of changes, and where it leads.
#[derive(Debug, PartialEq)]
pub(crate) struct Record {
    /// Where the store stood once all of it had happened.
    pub(crate) head: StoreHead,
    /// When the store was asked.
    pub(crate) as_of: Timestamp,
    /// As in [`Changes::Since`](crate::store::Changes::Since).
    pub(crate) owners: Vec<OwnerFacts>,
    /// As there.
    pub(crate) keys: Vec<KeyFacts>,
    /// As there.
    pub(crate) removed: Vec<Removed>,
}

impl Record {
    pub(super) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&WrittenRecord {
            head: WrittenHead::of(self.head),
            as_of: self.as_of.unix_ms(),
            owners: self.owners.iter().copied().map(WrittenOwner::of).collect(),
            keys: self.keys.iter().map(WrittenKey::of).collect(),
            removed: self.removed.iter().map(|Removed { id, hash }| (*id, WrittenHash(*hash))).collect(),
        })
    }

    pub(super) fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        let WrittenRecord { head, as_of, owners, keys, removed } = serde_json::from_slice(text)?;
        Ok(Self {
            head: head.head(),
            as_of: Timestamp::from_unix_ms(as_of),
            owners: owners.into_iter().map(WrittenOwner::facts).collect(),
            keys: keys.into_iter().map(WrittenKey::facts).collect(),
            removed: removed.into_iter().map(|(id, WrittenHash(hash))| Removed { id, hash }).collect(),
        })
    }
}

/// A head in files.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct WrittenHead {
    revision: Revision,
    token: u64,
}

impl WrittenHead {
    pub(super) const fn of(head: StoreHead) -> Self {
        Self { revision: head.revision, token: head.token.0 }
    }

    pub(super) const fn head(self) -> StoreHead {
        StoreHead { revision: self.revision, token: RevisionToken(self.token) }
    }
}

/// An owner in files.
#[derive(Serialize, Deserialize)]
pub(super) struct WrittenOwner {
    id: OwnerId,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    suspended: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate_limit: Option<RateLimit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quota: Option<Quota>,
}

impl WrittenOwner {
    pub(super) const fn of(OwnerFacts { id, suspended, rate_limit, quota }: OwnerFacts) -> Self {
        Self { id, suspended, rate_limit, quota }
    }

    pub(super) const fn facts(self) -> OwnerFacts {
        let Self { id, suspended, rate_limit, quota } = self;
        OwnerFacts { id, suspended, rate_limit, quota }
    }
}

#[derive(Serialize, Deserialize)]
struct WrittenRecord {
    head: WrittenHead,
    as_of: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    owners: Vec<WrittenOwner>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keys: Vec<WrittenKey>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    removed: Vec<(KeyId, WrittenHash)>,
}

#[derive(Serialize, Deserialize)]
struct WrittenKey {
    id: KeyId,
    hash: WrittenHash,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<OwnerId>,
    environment: Arc<str>,
    kind: KeyKind,
    profile: Arc<Profile>,
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dies_at: Option<i64>,
    created_at: i64,
    lineage: KeyId,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_on_use: Option<KeyId>,
}

impl WrittenKey {
    fn of(facts: &KeyFacts) -> Self {
        Self {
            id: facts.id,
            hash: WrittenHash(facts.hash),
            owner: facts.owner,
            environment: Arc::clone(&facts.environment),
            kind: facts.kind,
            profile: Arc::clone(&facts.profile),
            active: facts.active,
            revoked_at: facts.revoked_at.map(Timestamp::unix_ms),
            dies_at: facts.dies_at.map(Timestamp::unix_ms),
            created_at: facts.created_at.unix_ms(),
            lineage: facts.lineage,
            ends_on_use: facts.ends_on_use,
        }
    }

    fn facts(self) -> KeyFacts {
        KeyFacts {
            id: self.id,
            hash: self.hash.0,
            owner: self.owner,
            environment: self.environment,
            kind: self.kind,
            profile: self.profile,
            active: self.active,
            revoked_at: self.revoked_at.map(Timestamp::from_unix_ms),
            dies_at: self.dies_at.map(Timestamp::from_unix_ms),
            created_at: Timestamp::from_unix_ms(self.created_at),
            lineage: self.lineage,
            ends_on_use: self.ends_on_use,
        }
    }
}

/// A hash in files: as people import it.
struct WrittenHash(KeyHash);

impl Serialize for WrittenHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits: String = self.0.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.collect_str(&format_args!("sha256:{digits}"))
    }
}

impl<'de> Deserialize<'de> for WrittenHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(serde::de::Error::custom)
    }
}
