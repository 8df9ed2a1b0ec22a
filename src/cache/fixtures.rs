//! Key sets for tests of this room and of those above it.

use std::sync::Arc;

use futures_util::FutureExt;

use super::apply::{LoadReason, Replica};
use super::key_set::{KeySet, Moment};
use super::{Directory, Publish};
use crate::domain::{KeyRecord, OwnerRecord};
use crate::store::fixtures::{NOW, by};
use crate::store::{ChangeFeed, OpenMode, Store, StoreSettings};

/// Nobody derives anything from the set.
pub(crate) struct Nobody;

impl Publish for Nobody {
    fn directory_changed(&self, _: &Arc<Directory>) {}
}

/// An empty store that answers at once.
pub(crate) fn memory_store() -> Arc<Store> {
    crate::store::open(&StoreSettings::Memory, OpenMode::Create, crate::store::AuditSeal::default()).unwrap()
}

/// What a memory store answers.
pub(crate) fn now<T>(answer: crate::store::Answer<'_, T>) -> Result<T, crate::store::StoreError> {
    answer.now_or_never().expect("a memory store answers at once")
}

/// A loaded set of these owners and keys.
pub(crate) fn key_set(owners: Vec<OwnerRecord>, keys: Vec<KeyRecord>) -> Arc<KeySet> {
    let store = memory_store();
    for owner in owners {
        now(store.writer().insert_owner(owner, by(), NOW)).unwrap();
    }
    now(store.writer().insert_keys(keys, by(), NOW)).unwrap();
    let set = KeySet::new();
    load_into(&set, &store);
    set
}

/// Loads everything that a memory store holds.
pub(crate) fn load_into(set: &Arc<KeySet>, store: &Store) {
    load(&mut Replica::new(set.clone(), Arc::new(Nobody)), store.feed().as_ref(), LoadReason::Behind);
}

/// Loads everything that a memory store holds; returns how many revocations were held.
pub(super) fn load(replica: &mut Replica, feed: &dyn ChangeFeed, reason: LoadReason) -> usize {
    let mut load = replica.begin_load();
    let head = now(feed.load_all(&mut |batch| load.take(&batch))).unwrap();
    let held = load.finish(reason, head.revision).len();
    replica.set().confirm(Moment::now());
    held
}
