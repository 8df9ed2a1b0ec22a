//! Records for tests of this room and of those above it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Actor, AuditSeal, OpenMode, Store, StoreSettings};
use crate::domain::{Bounds, KeyHash, KeyId, KeyKind, KeyRecord, OwnerId, OwnerRecord, Revision, Timestamp};

/// The moment at which tests happen unless they say otherwise.
pub(crate) const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_123);

/// Who acts in tests.
pub(crate) fn by() -> Actor {
    Actor::named("local:tester")
}

/// The hash of [`key`] with the same number.
pub(crate) fn hash(number: u32) -> KeyHash {
    use sha2::Digest;
    KeyHash::from_bytes(sha2::Sha256::digest(number.to_le_bytes()).into())
}

/// Ids in order of their numbers.
pub(crate) fn key_id(number: u32) -> KeyId {
    KeyId::from_bytes(ordered_bytes(number))
}

/// Ids in order of their numbers.
pub(crate) fn owner_id(number: u32) -> OwnerId {
    OwnerId::from_bytes(ordered_bytes(number))
}

fn ordered_bytes(number: u32) -> [u8; 16] {
    let mut bytes = [0x0a; 16];
    bytes[1..5].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// A plain live key without owner.
pub(crate) fn key(number: u32) -> KeyRecord {
    KeyRecord {
        id: key_id(number),
        name: format!("key {number}"),
        description: String::new(),
        owner: None,
        environment: "live".to_owned(),
        kind: KeyKind::Secret,
        prefix: "pc_live_sk_abcdefgh".to_owned(),
        last4: "wxyz".to_owned(),
        paired: false,
        hash: hash(number),
        pepper: None,
        scopes: vec!["read:orders".parse().unwrap()],
        roles: Vec::new(),
        may_grant: Vec::new(),
        bounds: Bounds::default(),
        active: true,
        expires_at: None,
        created_at: NOW,
        created_by: "local:tester".to_owned(),
        last_used_at: None,
        revoked_at: None,
        replaces: None,
        lineage: key_id(number),
        ends_on_use: false,
        grace_until: None,
        metadata: BTreeMap::new(),
        revision: Revision::ZERO,
    }
}

/// Plain live keys with these numbers.
pub(crate) fn keys(numbers: impl IntoIterator<Item = u32>) -> Vec<KeyRecord> {
    numbers.into_iter().map(key).collect()
}

/// An owner that is not suspended.
pub(crate) fn owner(number: u32) -> OwnerRecord {
    OwnerRecord {
        id: owner_id(number),
        name: format!("owner {number}"),
        suspended: false,
        rate_limit: None,
        quota: None,
        max_keys: None,
        may_grant: None,
        created_at: NOW,
        metadata: BTreeMap::new(),
        revision: Revision::ZERO,
    }
}

/// Opens the same store any number of times; a memory store only once.
pub(super) struct Place {
    pub(super) settings: StoreSettings,
    _directory: tempfile::TempDir,
}

impl Place {
    pub(super) fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { settings: StoreSettings::Sqlite { path: directory.path().join("portcullis.db") }, _directory: directory }
    }

    pub(super) fn memory() -> Self {
        Self { settings: StoreSettings::Memory, _directory: tempfile::tempdir().unwrap() }
    }

    pub(super) fn open(&self) -> Arc<Store> {
        super::open(&self.settings, OpenMode::Create, AuditSeal::default()).unwrap()
    }
}

/// A test of each claim for each store: a claim is a function that takes a [`Place`].
macro_rules! held_to_every_store {
    ($($claim:ident),* $(,)?) => {
        held_to_every_store!(@ sqlite, $($claim),*);
        held_to_every_store!(@ memory, $($claim),*);
    };
    (@ $store:ident, $($claim:ident),*) => {
        mod $store {
            $(#[tokio::test]
            async fn $claim() {
                super::$claim(super::Place::$store()).await;
            })*
        }
    };
}
pub(super) use held_to_every_store;
