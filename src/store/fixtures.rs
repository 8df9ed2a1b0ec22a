//! Records for tests of this room and of those above it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use portcullis_testkit::{Database, PostgresServer};

use super::memory::{MemoryStore, MemoryUsage, Past};
use super::{
    Actor, AuditSeal, ChangeFeed, Changes, KeyFacts, NodeBook, OpenMode, OwnerFacts, Pooler, PostgresAddress,
    PostgresSettings, Removed, Store, StoreSettings,
};
use crate::domain::{Bounds, KeyHash, KeyId, KeyKind, KeyRecord, OwnerId, OwnerRecord, Revision, StoreHead, Timestamp};

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

/// A memory store that can lose commits, as by a failover to a standby that lags.
pub(crate) struct Primary {
    memory: Arc<MemoryStore>,
    store: Arc<Store>,
}

/// What the standby has.
pub(crate) struct Standby(Past);

impl Primary {
    pub(crate) fn new() -> Self {
        let seal = Arc::new(arc_swap::ArcSwap::from_pointee(AuditSeal::default()));
        let memory = Arc::new(MemoryStore::new(Arc::clone(&seal)).unwrap());
        let store = Store::over(Arc::clone(&memory), Arc::new(MemoryUsage::default()), seal);
        Self { memory, store }
    }

    pub(crate) const fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The same store, reached by another way.
    pub(crate) fn reached_by(&self, feed: Arc<dyn ChangeFeed>, nodes: Arc<dyn NodeBook>) -> Store {
        let Store { reader, writer, audit, seal, quotas, usage, .. } = &*self.store;
        Store {
            reader: Arc::clone(reader),
            writer: Arc::clone(writer),
            feed,
            audit: Arc::clone(audit),
            seal: Arc::clone(seal),
            quotas: Arc::clone(quotas),
            usage: Arc::clone(usage),
            nodes,
        }
    }

    /// What a standby has that is as far as this by now.
    pub(crate) fn standby(&self) -> Standby {
        Standby(self.memory.remember())
    }

    /// The standby takes over.
    pub(crate) fn fail_over(&self, Standby(past): Standby) {
        self.memory.go_back(past);
    }
}

/// Opens the same store any number of times; a memory store only once.
pub(super) struct Place {
    pub(super) settings: StoreSettings,
    _directory: Option<tempfile::TempDir>,
    database: Option<Database>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(database) = self.database.take() else { return };
        if let Some(server) = PostgresServer::shared() {
            server.recycle(database);
        }
    }
}

impl Place {
    pub(super) fn sqlite() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = StoreSettings::Sqlite { path: directory.path().join("portcullis.db") };
        Self { settings, _directory: Some(directory), database: None }
    }

    pub(super) fn memory() -> Self {
        Self { settings: StoreSettings::Memory, _directory: None, database: None }
    }

    /// A database of its own; none where PostgreSQL is not installed.
    pub(super) fn postgres() -> Option<Self> {
        Self::in_postgres(Pooler::None)
    }

    /// The same, spoken to as through a pooler that gives each transaction another connection.
    pub(super) fn pooled() -> Option<Self> {
        Self::in_postgres(Pooler::Transaction)
    }

    fn in_postgres(pooler: Pooler) -> Option<Self> {
        let database = portcullis_testkit::postgres_or_left_out()?.database();
        let settings = postgres_settings(&database.url(), pooler);
        Some(Self { settings, _directory: None, database: Some(database) })
    }

    pub(super) fn open(&self) -> Arc<Store> {
        super::open(&self.settings, OpenMode::Create, AuditSeal::default()).unwrap()
    }

    /// A store of the same sort with nothing in it.
    pub(super) fn another(&self) -> Self {
        match &self.settings {
            StoreSettings::Memory => Self::memory(),
            StoreSettings::Sqlite { .. } => Self::sqlite(),
            StoreSettings::Postgres(settings) => Self::in_postgres(settings.pooler).unwrap(),
        }
    }
}

/// Settings of a store at a URL, with usual bounds.
pub(super) fn postgres_settings(url: &str, pooler: Pooler) -> StoreSettings {
    StoreSettings::Postgres(Box::new(PostgresSettings {
        address: PostgresAddress::parse(url, std::path::Path::new("/")).unwrap(),
        pooler,
        connections: 5,
        connect_timeout: Duration::from_secs(5),
        statement_timeout: Duration::from_secs(30),
    }))
}

/// A test of each claim for each store: a claim is a function that takes a [`Place`]. Stores that are not installed are
/// left out, where they may be.
macro_rules! held_to_every_store {
    ($($claim:ident),* $(,)?) => {
        held_to_every_store!(@ sqlite, $($claim),*);
        held_to_every_store!(@ memory, $($claim),*);
        held_to_every_store!(@ postgres, $($claim),*);
        held_to_every_store!(@ pooled, $($claim),*);
    };
    (@ $store:ident, $($claim:ident),*) => {
        mod $store {
            $(#[tokio::test]
            async fn $claim() {
                let place: Option<super::Place> = super::Place::$store().into();
                if let Some(place) = place {
                    super::$claim(place).await;
                }
            })*
        }
    };
}
pub(super) use held_to_every_store;

/// The newest revision.
pub(super) async fn head(store: &Store) -> StoreHead {
    store.feed().head().await.unwrap()
}

/// Adds keys, as [`by`] at [`NOW`].
pub(super) async fn insert(store: &Store, records: Vec<KeyRecord>) -> Revision {
    store.writer().insert_keys(records, by(), NOW).await.unwrap()
}

/// A key that there is.
pub(super) async fn find(store: &Store, number: u32) -> KeyRecord {
    store.reader().find_key(key_id(number)).await.unwrap().expect("the key exists")
}

/// So long after [`NOW`].
pub(super) fn later(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

/// Owners, changed keys, removed ids and the head.
pub(super) async fn since(store: &Store, head: StoreHead) -> (Vec<OwnerFacts>, Vec<KeyFacts>, Vec<Removed>, StoreHead) {
    match store.feed().changes_since(head).await.unwrap() {
        Changes::Since { owners, keys, removed, head } => (owners, keys, removed, head),
        other => panic!("expected changes, got {other:?}"),
    }
}
