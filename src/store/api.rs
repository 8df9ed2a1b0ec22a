//! What any store can do. Times are arguments; every mutation names its actor.
//!
//! Owns the traits of keys and the types that cross them. Must not know where records live, nor who asks.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::archive::Piece;
use super::command::{Command, Effect, Note, Order, Origin};
use super::error::StoreError;
use super::usage::AdditionId;
use crate::domain::{
    Bounds, GrantedScope, KeyHash, KeyId, KeyKind, KeyRecord, KeyState, OwnerId, OwnerRecord, Quota, QuotaTerm,
    RateLimit, Revision, StoreHead, Timestamp,
};

/// The answer of a store, some time later. Nothing happens before it is first polled; dropping it afterwards
/// does not undo a write that was already queued.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Who changes something, and from where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Actor {
    /// `local:<user>` for the command line, `gateway:<task>` for the gateway itself, a key id for the management API.
    pub name: String,
    /// The client's address, where it came over the network.
    pub address: Option<IpAddr>,
}

impl Actor {
    /// Somebody on this machine, or the gateway itself.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), address: None }
    }

    /// Whether the guards of the management API hold for them: not for who can write to the store itself.
    pub(super) fn is_guarded(&self) -> bool {
        !self.name.starts_with("local:") && !self.name.starts_with("gateway:")
    }
}

/// Reads records. Used by people's tools, never on the request path.
pub trait KeyReader: Send + Sync {
    /// The key with this id, if there is one.
    fn find_key(&self, id: KeyId) -> Answer<'_, Option<KeyRecord>>;
    /// A page of keys in order of id.
    fn list_keys(&self, query: KeyQuery) -> Answer<'_, Page<KeyRecord>>;
    /// All owners in order of id.
    fn list_owners(&self) -> Answer<'_, Vec<OwnerRecord>>;
    /// The owner with this id, if there is one.
    fn find_owner(&self, id: OwnerId) -> Answer<'_, Option<OwnerRecord>>;
    /// Which of these ids and hashes a key has. Costs what was asked for, whatever the store holds.
    fn find_taken(&self, ids: Vec<KeyId>, hashes: Vec<KeyHash>) -> Answer<'_, Taken>;
    /// Those of these owners that there are, and how many keys each has.
    fn find_holdings(&self, owners: Vec<OwnerId>) -> Answer<'_, Vec<Holding>>;
    /// Everything as it is at one moment, handed over in pieces as it is read, until the sink says that it wants no more.
    fn copy_all<'a>(&'a self, sink: PieceSink<'a>) -> Answer<'a, ()>;
    /// What was answered to a request that may be repeated, as long as it is kept, and the revision it was done in.
    fn find_repeatable(&self, name: RepeatName, now: Timestamp) -> Answer<'_, Option<(Repeatable, Revision)>>;
}

/// Who takes the pieces of a store; says whether there is any use in going on.
pub type PieceSink<'a> = &'a mut (dyn FnMut(Piece) -> bool + Send);

/// Changes records. When an answer arrives, the change is durable.
///
/// A change that finds things already as it wants them commits nothing and answers the revision that made them so.
pub trait KeyWriter: Send + Sync {
    /// Applies one change in a transaction of its own: all of it or nothing.
    fn submit(&self, order: Order) -> Answer<'_, Effect>;
    /// Adds keys in one transaction: all or none. A hash or id that exists already is [`StoreError::Duplicate`].
    fn insert_keys(&self, records: Vec<KeyRecord>, by: Actor, now: Timestamp) -> Answer<'_, Revision> {
        inserted(self.submit(Order::new(Command::InsertKeys { records, origin: Origin::Minted }, by, now)))
    }

    /// As [`Self::insert_keys`], for keys that were made elsewhere: the audit trail calls it `key.import`.
    fn import_keys(&self, records: Vec<KeyRecord>, by: Actor, now: Timestamp) -> Answer<'_, Revision> {
        inserted(self.submit(Order::new(Command::InsertKeys { records, origin: Origin::Imported }, by, now)))
    }

    /// Switches a key on or off, reversibly. `None` when there is no such key; a revoked key is [`StoreError::Revoked`].
    fn set_active(&self, id: KeyId, active: bool, by: Actor, now: Timestamp) -> Answer<'_, Option<Revision>> {
        switched(self.submit(Order::new(Command::SetActive { id, active }, by, now)))
    }

    /// Switches a key off for good; doing it again changes nothing. `None` when there is no such key.
    fn revoke(&self, id: KeyId, by: Actor, now: Timestamp) -> Answer<'_, Option<Revision>> {
        switched(self.submit(Order::new(Command::Revoke { id }, by, now)))
    }

    /// Adds an owner. An id that exists already is [`StoreError::Duplicate`].
    fn insert_owner(&self, record: OwnerRecord, by: Actor, now: Timestamp) -> Answer<'_, Revision> {
        inserted(self.submit(Order::new(Command::InsertOwner { record }, by, now)))
    }

    /// Refuses, or accepts again, all keys of an owner at once. `None` when there is no such owner.
    fn set_owner_suspended(
        &self,
        id: OwnerId,
        suspended: bool,
        by: Actor,
        now: Timestamp,
    ) -> Answer<'_, Option<Revision>> {
        switched(self.submit(Order::new(Command::SetSuspended { id, suspended }, by, now)))
    }

    /// Drops rows of keys revoked before `before`, and the memory of changes made before it; returns how many rows
    /// went. At most [`MAX_FORGOTTEN_AT_ONCE`] rows go in one call: call again until it
    /// answers 0.
    fn forget(&self, before: Timestamp, by: Actor, now: Timestamp) -> Answer<'_, u64> {
        let answer = self.submit(Order::new(Command::Forget { before }, by, now));
        Box::pin(async move { answer.await.map(Effect::rows) })
    }

    /// Drops entries of the audit trail that are older than `retention` from its front, and says so in it; returns how
    /// many went. At most [`MAX_FORGOTTEN_ENTRIES_AT_ONCE`] go in one call: call again until it answers 0.
    fn forget_audit(&self, retention: Duration, by: Actor, now: Timestamp) -> Answer<'_, u64> {
        let answer = self.submit(Order::new(Command::ForgetAudit { retention }, by, now));
        Box::pin(async move { answer.await.map(Effect::rows) })
    }

    /// Writes into the audit trail what happened elsewhere.
    fn note(&self, note: Note, by: Actor, now: Timestamp) -> Answer<'_, Revision> {
        inserted(self.submit(Order::new(Command::Note { note }, by, now)))
    }

    /// Notes when keys were last used; an earlier moment never replaces a later one. Touches no revision and never
    /// delays a revocation.
    fn mark_used(&self, uses: Vec<(KeyId, Timestamp)>) -> Answer<'_, ()>;
}

/// Keeps what quotas have counted, so that a restart refills none.
///
/// Like last use it touches no revision and never delays a revocation. What it holds may lose the last moments before a
/// power cut, but nothing to a process that ends.
pub trait QuotaBook: Send + Sync {
    /// Adds requests to terms, once ([`AdditionId`]), and answers how many each of these has now, by whomever they were
    /// added.
    fn count_requests(&self, id: AdditionId, counts: Vec<(QuotaTerm, u64)>) -> Answer<'_, Vec<(QuotaTerm, u64)>>;
    /// The terms that may not be over at `now`, with their requests. Those that are over for certain, as none of their sort
    /// lasts so long, are dropped.
    fn current_counts(&self, now: Timestamp) -> Answer<'_, Vec<(QuotaTerm, u64)>>;
}

/// Inserts always change something or fail, so their revision exists.
fn inserted(answer: Answer<'_, Effect>) -> Answer<'_, Revision> {
    Box::pin(async move { answer.await.map(|effect| effect.revision().unwrap_or_default()) })
}

fn switched(answer: Answer<'_, Effect>) -> Answer<'_, Option<Revision>> {
    Box::pin(async move { answer.await.map(Effect::revision) })
}

/// Most rows that one [`Command::Forget`] drops, so that it never holds up a revocation for long.
pub const MAX_FORGOTTEN_AT_ONCE: usize = 1_000;

/// Most entries that one [`Command::ForgetAudit`] drops.
// Fewer in tests, which would otherwise spend their time filling a store.
pub const MAX_FORGOTTEN_ENTRIES_AT_ONCE: usize = if cfg!(test) { 100 } else { 10_000 };

/// Follows changes. Used by the sync task alone.
pub trait ChangeFeed: Send + Sync {
    /// The newest committed revision. Cheap when nothing changed: this is what a poll asks.
    fn head(&self) -> Answer<'_, StoreHead>;
    /// The whole set in one consistent snapshot, handed over in batches as it is read.
    fn load_all<'a>(&'a self, sink: &'a mut (dyn FnMut(LoadBatch) + Send)) -> Answer<'a, StoreHead>;
    /// What changed after `since`, in one consistent snapshot.
    fn changes_since(&self, since: StoreHead) -> Answer<'_, Changes>;
    /// Returns at once when this process committed something after `seen`, else when it does, at the latest after
    /// `patience`. A hint: false alarms are fine, and other processes' commits are only seen by [`Self::head`].
    fn wait_for_change(&self, seen: StoreHead, patience: Duration) -> Answer<'_, ()>;
}

/// A piece of the whole set.
#[derive(Debug)]
pub enum LoadBatch {
    /// How many keys will follow; comes first, once.
    Expect {
        /// To reserve room by.
        keys: usize,
    },
    /// Owners; all of them come before the first key.
    Owners(Vec<OwnerFacts>),
    /// Keys, reduced to what the decision needs.
    Keys(Vec<KeyFacts>),
}

/// Names a request that may be repeated: a digest of who asks, what they ask and the `Idempotency-Key` they gave.
pub type RepeatName = [u8; 32];

/// The answer to a request that may be repeated: kept in the transaction that does what was asked, for
/// [`Repeatable::KEPT`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Repeatable {
    /// A digest of the whole request: under the same name another request is refused.
    pub request: [u8; 32],
    /// The answer, sealed so that only who asked can read it.
    pub sealed: Vec<u8>,
}

impl Repeatable {
    /// How long it is kept.
    pub const KEPT: Duration = Duration::from_secs(15 * 60);
}

/// What a key may use: one value shared by every key that holds the same.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Profile {
    /// Granted scopes, as the record lists them.
    pub scopes: Vec<GrantedScope>,
    /// Roles, as the record lists them.
    pub roles: Vec<String>,
    /// What narrows its use.
    pub bounds: Bounds,
}

impl Profile {
    /// That of a key.
    pub fn of(record: &KeyRecord) -> Self {
        Self { scopes: record.scopes.clone(), roles: record.roles.clone(), bounds: record.bounds.clone() }
    }
}

/// What the decision needs to know of an owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnerFacts {
    /// Its id.
    pub id: OwnerId,
    /// While true, all its keys are refused.
    pub suspended: bool,
    /// What its keys may ask for together.
    pub rate_limit: Option<RateLimit>,
    /// What its keys may ask for together in a day or a month.
    pub quota: Option<Quota>,
}

impl OwnerFacts {
    /// Those of an owner.
    pub fn of(record: &OwnerRecord) -> Self {
        let OwnerRecord { id, suspended, rate_limit, quota, .. } = *record;
        Self { id, suspended, rate_limit, quota }
    }
}

/// What the decision needs to know of a key.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyFacts {
    /// Its id.
    pub id: KeyId,
    /// What a credential hashes to.
    pub hash: KeyHash,
    /// The account it belongs to.
    pub owner: Option<OwnerId>,
    /// The name of its environment.
    pub environment: Arc<str>,
    /// What it may be used for.
    pub kind: KeyKind,
    /// Granted scopes and roles.
    pub profile: Arc<Profile>,
    /// The reversible switch.
    pub active: bool,
    /// When it was switched off for good.
    pub revoked_at: Option<Timestamp>,
    /// From then on it is refused, by expiry or end of grace.
    pub dies_at: Option<Timestamp>,
    /// When it was made, for the maximum age of its environment.
    pub created_at: Timestamp,
    /// The first key of its line of rotations.
    pub lineage: KeyId,
    /// The key whose grace its first use ends.
    pub ends_on_use: Option<KeyId>,
}

impl KeyFacts {
    /// Whether it is switched off, for good or not.
    pub fn is_off(&self) -> bool {
        self.revoked_at.is_some() || !self.active
    }
}

/// A hash that no longer leads to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The key it led to. When another key holds the hash by now, that one stays.
    pub id: KeyId,
    /// The hash.
    pub hash: KeyHash,
}

/// What changed between two revisions.
#[derive(Debug)]
pub enum Changes {
    /// All of it.
    Since {
        /// Owners that were added or changed.
        owners: Vec<OwnerFacts>,
        /// Keys that were added or changed, in order of revision; within one, those that work come before those that
        /// are switched off, so that a rotation has no gap.
        keys: Vec<KeyFacts>,
        /// What is gone altogether. To be applied after `keys`.
        removed: Vec<Removed>,
        /// The head at that moment.
        head: StoreHead,
    },
    /// The store no longer knows what happened since, or it is too much for one answer; load everything.
    TooOld,
    /// The store never had that head: commits were lost by a failover or a restored backup. Load everything, and
    /// do not let go of revocations that were seen.
    OtherHistory,
}

/// Most keys in one [`Changes::Since`]; more are [`Changes::TooOld`], because loading streams and this does not.
// Fewer in tests, which would otherwise spend their time filling a store.
pub const MAX_CHANGED_KEYS: usize = if cfg!(test) { 500 } else { 100_000 };

/// What keys have already, of what was asked about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Taken {
    /// These ids.
    pub ids: HashSet<KeyId>,
    /// These hashes, and which key has each.
    pub hashes: HashMap<KeyHash, KeyId>,
}

/// An owner, and what it has.
#[derive(Clone, PartialEq, Debug)]
pub struct Holding {
    /// The owner.
    pub owner: OwnerRecord,
    /// How many keys it has that are not revoked. Counting ends at its `max_keys`; without one nothing is counted.
    pub keys: u32,
}

/// Which keys a list shows.
#[derive(Clone, Debug, Default)]
pub struct KeyQuery {
    /// Only after this id.
    pub after: Option<KeyId>,
    /// At most this many; 0 means 100, at most 1000.
    pub limit: usize,
    /// Only of this owner.
    pub owner: Option<OwnerId>,
    /// Only without an owner.
    pub unowned: bool,
    /// No management keys.
    pub no_management: bool,
    /// Only of this environment.
    pub environment: Option<String>,
    /// Only of this kind.
    pub kind: Option<KeyKind>,
    /// Only in this state at `now`.
    pub state: Option<(KeyState, Timestamp)>,
    /// Only with this exact name.
    pub name: Option<String>,
    /// Only whose prefix begins with this.
    pub prefix: Option<String>,
}

impl KeyQuery {
    /// How many records a page holds: `limit` with its default and bound applied.
    pub fn page_size(&self) -> usize {
        match self.limit {
            0 => 100,
            limit => limit.min(1_000),
        }
    }
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The records.
    pub items: Vec<T>,
    /// Whether more follow after the last one.
    pub more: bool,
}
