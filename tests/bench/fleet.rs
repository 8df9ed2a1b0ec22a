//! Keys that are computed instead of kept: a change feed of a million of them needs no store.

use std::sync::Arc;
use std::time::Duration;

use portcullis::domain::key_text::{BASE62, Brand, RANDOM_CHARS, checksum, fixed_part};
use portcullis::domain::{KeyHash, KeyId, KeyKind, PresentedKey, Revision, RevisionToken, StoreHead, Timestamp};
use portcullis::store::{Answer, ChangeFeed, Changes, KeyFacts, LoadBatch, Profile, Removed};
use tokio::sync::watch;

use crate::Numbers;

/// Keys handed over at a time, as the stores do.
const BATCH: u64 = 4_096;
/// Keys that one commit changes: half of them are written again, a quarter is added and as many are removed.
pub(crate) const CHANGES_PER_COMMIT: u64 = 100;
const ADDED: u64 = CHANGES_PER_COMMIT / 4;
/// How many commits a key that was added lives.
const LIFE: u64 = 16;
/// From here on numbers are those of keys that no store has.
pub const UNKNOWN: u64 = 1 << 40;
/// When every key was made; a decision's `now` lies after it.
const MADE_AT: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);

/// The text of the key with this number: in our format, with the right checksum.
pub fn key_text(number: u64) -> String {
    let mut text = fixed_part(&Brand::default(), "live", KeyKind::Secret);
    let mut numbers = Numbers::seeded(number ^ 0x6b65_7973);
    text.extend((0..RANDOM_CHARS).map(|_| char::from(BASE62[numbers.below(62) as usize])));
    let sum = checksum(text.as_bytes());
    text.extend(sum.map(char::from));
    text
}

/// A store with keys `0..keys`. Every fiftieth may also write; none dies.
pub struct Fleet {
    keys: u64,
    environment: Arc<str>,
    reads: Arc<Profile>,
    writes: Arc<Profile>,
    committed: watch::Sender<u64>,
}

impl Fleet {
    /// A fleet of this many keys.
    pub fn new(keys: u64) -> Self {
        let profile = |scopes: &[&str]| {
            let scopes = scopes.iter().map(|scope| scope.parse().expect("these are scopes")).collect();
            Arc::new(Profile { scopes, ..Profile::default() })
        };
        Self {
            keys,
            environment: "live".into(),
            reads: profile(&["read"]),
            writes: profile(&["read", "write"]),
            committed: watch::Sender::new(0),
        }
    }

    /// Whether the key with this number may write.
    pub const fn may_write(number: u64) -> bool {
        number.is_multiple_of(50)
    }

    /// What the key with this number hashes to.
    pub fn hash(number: u64) -> KeyHash {
        let text = key_text(number);
        KeyHash::sha256(&PresentedKey::new(&text).expect("key texts are credentials"))
    }

    /// How many keys there are, those that commits add and remove not counted.
    pub const fn len(&self) -> u64 {
        self.keys
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// Commits a hundred changes, and says as which revision.
    pub fn commit(&self) -> Revision {
        self.committed.send_modify(|revision| *revision += 1);
        Revision::new(*self.committed.borrow())
    }

    /// The numbers of the keys that a revision writes again, or adds.
    pub fn written_by(&self, revision: u64) -> impl Iterator<Item = u64> {
        let mut numbers = Numbers::seeded(revision);
        let keys = self.keys;
        let again = (0..CHANGES_PER_COMMIT / 2).map(move |_| numbers.below(keys));
        again.chain(self.added_by(revision))
    }

    /// The numbers of the keys that a revision removes.
    pub fn removed_by(&self, revision: u64) -> impl Iterator<Item = u64> + use<> {
        revision.checked_sub(LIFE).filter(|born| *born > 0).map(|born| self.added_by(born)).into_iter().flatten()
    }

    fn added_by(&self, revision: u64) -> impl Iterator<Item = u64> + use<> {
        let first = self.keys + revision * ADDED;
        first..first + ADDED
    }

    fn facts(&self, number: u64) -> KeyFacts {
        let profile = if Self::may_write(number) { &self.writes } else { &self.reads };
        KeyFacts {
            id: id(number),
            hash: Self::hash(number),
            owner: None,
            environment: Arc::clone(&self.environment),
            kind: KeyKind::Secret,
            profile: Arc::clone(profile),
            active: true,
            revoked_at: None,
            dies_at: None,
            created_at: MADE_AT,
            lineage: id(number),
            ends_on_use: None,
        }
    }

    fn at(&self) -> StoreHead {
        StoreHead { revision: Revision::new(*self.committed.borrow()), token: RevisionToken(1) }
    }
}

fn id(number: u64) -> KeyId {
    KeyId::from_bytes(u128::from(number).to_be_bytes())
}

impl ChangeFeed for Fleet {
    fn head(&self) -> Answer<'_, StoreHead> {
        Box::pin(async { Ok(self.at()) })
    }

    fn load_all<'a>(&'a self, sink: &'a mut (dyn FnMut(LoadBatch) + Send)) -> Answer<'a, StoreHead> {
        Box::pin(async {
            sink(LoadBatch::Expect { keys: self.keys as usize });
            for first in (0..self.keys).step_by(BATCH as usize) {
                let batch = first..(first + BATCH).min(self.keys);
                sink(LoadBatch::Keys(batch.map(|number| self.facts(number)).collect()));
            }
            Ok(self.at())
        })
    }

    fn changes_since(&self, since: StoreHead) -> Answer<'_, Changes> {
        Box::pin(async move {
            let head = self.at();
            let revisions = || since.revision.number() + 1..=head.revision.number();
            let removed = revisions().flat_map(|revision| self.removed_by(revision));
            Ok(Changes::Since {
                owners: Vec::new(),
                keys: revisions().flat_map(|revision| self.written_by(revision)).map(|it| self.facts(it)).collect(),
                removed: removed.map(|number| Removed { id: id(number), hash: Self::hash(number) }).collect(),
                head,
            })
        })
    }

    fn wait_for_change(&self, seen: StoreHead, patience: Duration) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut committed = self.committed.subscribe();
            let newer = committed.wait_for(|revision| *revision > seen.revision.number());
            // Running out of patience means: ask.
            drop(tokio::time::timeout(patience, newer).await);
            Ok(())
        })
    }
}
