//! The replica against a fresh load, whatever came in between, and what must hold at every moment on the way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;

use super::apply::{LoadReason, Replica};
use super::fixtures::{Nobody, key_set, load, memory_store, now};
use super::snapshot::Record;
use super::{Census, Directory, KeySet, Publish};
use crate::domain::{KeyId, KeyKind, KeyRecord, OwnerId, OwnerRecord, StoreHead, Timestamp};
use crate::store::fixtures::{NOW, by, hash, key, key_id, owner, owner_id};
use crate::store::{ChangeFeed, Changes, Command, Order, Profile, Store};

/// What a request would learn about a key, by name.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Seen {
    pub(super) id: KeyId,
    pub(super) profile: Profile,
    pub(super) owner: Option<(OwnerId, bool)>,
    pub(super) environment: String,
    pub(super) kind: KeyKind,
    pub(super) active: bool,
    pub(super) revoked: bool,
    pub(super) dies_at: Option<Timestamp>,
    pub(super) created_at: Timestamp,
}

fn see(set: &KeySet, number: u32) -> Option<Seen> {
    let slot = set.find(&hash(number))?;
    let directory = set.directory();
    Some(Seen {
        id: slot.id,
        profile: directory.profile(slot.profile).expect("a visible key's profile is known").as_ref().clone(),
        owner: slot.owner.map(|ix| {
            let owner = directory.owner(ix).expect("a visible key's owner is known");
            (owner.id, owner.suspended)
        }),
        environment: directory.environment(slot.environment).expect("a visible key's environment").to_string(),
        kind: slot.kind,
        active: slot.active,
        revoked: slot.revoked,
        dies_at: slot.dies_at(),
        created_at: slot.created_at(),
    })
}

pub(super) fn see_all(set: &KeySet) -> BTreeMap<u32, Seen> {
    (0..HASHES).filter_map(|number| Some((number, see(set, number)?))).collect()
}

fn replica() -> Replica {
    Replica::new(KeySet::new(), Arc::new(Nobody))
}

/// Follows a store from `since` and returns the new head.
fn follow(replica: &mut Replica, feed: &dyn ChangeFeed, since: StoreHead) -> StoreHead {
    match now(feed.changes_since(since)).unwrap() {
        Changes::Since { owners, keys, removed, head } => {
            replica.apply(&Record { head, as_of: NOW, owners, keys, removed }, NOW);
            head
        }
        Changes::TooOld => {
            load(replica, feed, LoadReason::Behind);
            now(feed.head()).unwrap()
        }
        Changes::OtherHistory => panic!("this store loses nothing"),
    }
}

/// Few hashes, so that keys come back under the hash of others that are gone.
const HASHES: u32 = 6;

#[derive(Clone, Debug)]
enum Step {
    Insert {
        hash: u32,
        look: u32,
    },
    SetActive {
        nth: usize,
        active: bool,
    },
    Revoke {
        nth: usize,
    },
    AddOwner {
        owner: u32,
    },
    Suspend {
        owner: u32,
        suspended: bool,
    },
    Forget,
    /// Follow from this many heads ago: what was applied already comes again.
    Follow {
        heads_ago: usize,
    },
    LoadAnew,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..HASHES, 0..64u32).prop_map(|(hash, look)| Step::Insert { hash, look }),
        4 => (0..20usize, any::<bool>()).prop_map(|(nth, active)| Step::SetActive { nth, active }),
        4 => (0..20usize).prop_map(|nth| Step::Revoke { nth }),
        2 => (0..3u32).prop_map(|owner| Step::AddOwner { owner }),
        3 => (0..3u32, any::<bool>()).prop_map(|(owner, suspended)| Step::Suspend { owner, suspended }),
        2 => Just(Step::Forget),
        6 => (0..6usize).prop_map(|heads_ago| Step::Follow { heads_ago }),
        1 => Just(Step::LoadAnew),
    ];
    prop::collection::vec(step, 1..80)
}

/// A record that looks different for different numbers.
pub(super) fn record(made: u32, hash_number: u32, look: u32) -> KeyRecord {
    let scope = ["read:orders", "write:orders", "orders:*"][look as usize % 3];
    KeyRecord {
        hash: hash(hash_number),
        scopes: vec![scope.parse().unwrap()],
        environment: if look & 1 == 0 { "live" } else { "test" }.to_owned(),
        kind: KeyKind::ALL[look as usize / 2 % 3],
        owner: (look & 8 != 0).then(|| owner_id(look % 3)),
        expires_at: (look & 16 != 0).then(|| Timestamp::from_unix_ms(i64::from(look) * 1_001)),
        active: look & 32 == 0,
        ..key(made)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn after_any_changes_in_any_portions_it_is_like_a_fresh_load(steps in steps()) {
        let store = memory_store();
        let (writer, feed) = (store.writer(), store.feed().as_ref());
        let mut replica = replica();
        load(&mut replica, feed, LoadReason::Behind);
        let mut heads = vec![now(feed.head()).unwrap()];
        let mut made = 0;
        for (time, step) in (1..).zip(steps) {
            let at = Timestamp::from_unix_ms(NOW.unix_ms() + time);
            // What the store refuses changes nothing, and that is as good a case as any.
            match step {
                Step::Insert { hash, look } => {
                    made += 1;
                    drop(now(writer.insert_keys(vec![record(made, hash, look)], by(), at)));
                }
                Step::SetActive { nth, active } => {
                    drop(now(writer.set_active(nth_key(&store, nth), active, by(), at)));
                }
                Step::Revoke { nth } => drop(now(writer.revoke(nth_key(&store, nth), by(), at))),
                Step::AddOwner { owner: number } => drop(now(writer.insert_owner(owner(number), by(), at))),
                Step::Suspend { owner, suspended } => {
                    drop(now(writer.set_owner_suspended(owner_id(owner), suspended, by(), at)));
                }
                Step::Forget => drop(now(writer.forget(at, by(), at))),
                Step::Follow { heads_ago } => {
                    let since = heads[heads.len().saturating_sub(1 + heads_ago)];
                    heads.push(follow(&mut replica, feed, since));
                }
                Step::LoadAnew => {
                    load(&mut replica, feed, LoadReason::Behind);
                    heads.push(now(feed.head()).unwrap());
                }
            }
        }
        follow(&mut replica, feed, *heads.last().unwrap());

        let mut fresh = self::replica();
        load(&mut fresh, feed, LoadReason::Behind);
        prop_assert_eq!(see_all(replica.set()), see_all(fresh.set()));
        prop_assert_eq!(replica.set().len(), fresh.set().len());
        prop_assert_eq!(replica.set().revision(), fresh.set().revision());
    }
}

fn nth_key(store: &Store, nth: usize) -> KeyId {
    let keys = now(store.reader().list_keys(crate::store::KeyQuery::default())).unwrap().items;
    keys.get(nth % keys.len().max(1)).map_or(key_id(u32::MAX), |record| record.id)
}

/// Notes what is visible at the moment names are published.
#[derive(Default)]
struct Watching {
    set: Mutex<Option<Arc<KeySet>>>,
    seen: Mutex<Vec<(usize, usize, bool)>>,
    revoked_after: Mutex<Vec<Duration>>,
}

impl Publish for Watching {
    fn directory_changed(&self, directory: &Arc<Directory>) {
        let set = self.set.lock();
        let set = set.as_ref().unwrap();
        let visible = set.find(&hash(2)).is_some();
        self.seen.lock().push((set.directory().profiles().len(), directory.profiles().len(), visible));
    }

    fn revoked(&self, after: Duration) {
        self.revoked_after.lock().push(after);
    }
}

#[test]
fn names_are_published_before_the_first_key_that_needs_them() {
    let watching = Arc::new(Watching::default());
    let set = KeySet::new();
    *watching.set.lock() = Some(set.clone());
    let mut replica = Replica::new(set.clone(), watching.clone());
    let store = memory_store();
    let feed = store.feed().as_ref();
    now(store.writer().insert_keys(vec![key(1)], by(), NOW)).unwrap();
    load(&mut replica, feed, LoadReason::Behind);
    let loaded = now(feed.head()).unwrap();

    let other_scopes = KeyRecord { scopes: vec!["write:orders".parse().unwrap()], ..key(2) };
    now(store.writer().insert_keys(vec![other_scopes], by(), NOW)).unwrap();
    let head = follow(&mut replica, feed, loaded);
    assert!(set.find(&hash(2)).is_some());
    now(store.writer().set_active(key_id(2), false, by(), NOW)).unwrap();
    follow(&mut replica, feed, head);

    let expected = [(0, 1, false), (1, 2, false)];
    assert_eq!(*watching.seen.lock(), expected, "twice, before key 2 was visible, and not without need");
}

#[test]
fn suspending_an_owner_is_one_change_of_the_directory_and_none_of_the_keys() {
    let store = memory_store();
    let feed = store.feed().as_ref();
    now(store.writer().insert_owner(owner(1), by(), NOW)).unwrap();
    let records = (1..4).map(|n| KeyRecord { owner: Some(owner_id(1)), ..key(n) }).collect();
    now(store.writer().insert_keys(records, by(), NOW)).unwrap();
    let mut replica = replica();
    load(&mut replica, feed, LoadReason::Behind);
    let head = now(feed.head()).unwrap();
    let slots = || [1, 2, 3].map(|n| replica.set().find(&hash(n)).unwrap());
    let before = slots();

    now(store.writer().set_owner_suspended(owner_id(1), true, by(), NOW)).unwrap();
    match now(feed.changes_since(head)).unwrap() {
        Changes::Since { owners, keys, .. } => assert_eq!((owners.len(), keys.len()), (1, 0)),
        other => panic!("{other:?}"),
    }
    follow(&mut replica, feed, head);
    let set = replica.set();
    assert_eq!([1, 2, 3].map(|n| set.find(&hash(n)).unwrap()), before);
    let directory = set.directory();
    assert!(before.iter().all(|slot| directory.owner(slot.owner.unwrap()).unwrap().suspended));
}

#[test]
fn a_revocation_is_timed_once_from_its_commit() {
    let watching = Arc::new(Watching::default());
    let set = KeySet::new();
    *watching.set.lock() = Some(set.clone());
    let mut replica = Replica::new(set, watching.clone());
    let store = memory_store();
    now(store.writer().insert_keys(vec![key(1), KeyRecord { revoked_at: Some(NOW), ..key(2) }], by(), NOW)).unwrap();
    let feed = store.feed().as_ref();
    load(&mut replica, feed, LoadReason::Behind);
    let loaded = now(feed.head()).unwrap();
    now(store.writer().revoke(key_id(1), by(), NOW.minus(Duration::from_millis(7)))).unwrap();
    follow(&mut replica, feed, loaded);
    follow(&mut replica, feed, loaded);
    assert_eq!(*watching.revoked_after.lock(), [Duration::from_millis(7)]);
}

/// A store with these keys, as a backup taken at some moment would be.
fn backup(records: Vec<KeyRecord>) -> Arc<Store> {
    let store = memory_store();
    now(store.writer().insert_keys(records, by(), NOW)).unwrap();
    store
}

#[test]
fn lost_commits_never_revive_a_revoked_key() {
    let revoked = |number| KeyRecord { revoked_at: Some(NOW), ..key(number) };
    let mut replica = replica();
    load(&mut replica, backup(vec![revoked(1), revoked(2), key(3), key(4)]).feed().as_ref(), LoadReason::Behind);
    let set = replica.set().clone();
    let refused = |number| set.find(&hash(number)).map(|slot| slot.revoked);

    // Before the revocations, and before key 2 was made.
    let restored = backup(vec![key(1), revoked(3), key(5)]);
    assert_eq!(load(&mut replica, restored.feed().as_ref(), LoadReason::OtherHistory), 2);
    assert_eq!([1, 2, 3, 4, 5].map(refused), [Some(true), Some(true), Some(true), None, Some(false)]);

    // A later change to such a key does not let it through either.
    let head = now(restored.feed().head()).unwrap();
    now(restored.writer().set_active(key_id(1), false, by(), NOW)).unwrap();
    let head = follow(&mut replica, restored.feed().as_ref(), head);
    now(restored.writer().set_active(key_id(1), true, by(), NOW)).unwrap();
    follow(&mut replica, restored.feed().as_ref(), head);
    assert_eq!(refused(1), Some(true));

    // Nor does loading everything again, nor another backup in which the key exists and works, under another id even.
    load(&mut replica, restored.feed().as_ref(), LoadReason::Behind);
    let again = backup(vec![key(1), KeyRecord { id: key_id(22), ..key(2) }, key(4)]);
    load(&mut replica, again.feed().as_ref(), LoadReason::OtherHistory);
    assert_eq!([1, 2, 3, 4, 5].map(refused), [Some(true), Some(true), Some(true), Some(false), None]);
}

#[test]
fn lost_commits_never_bring_back_a_secret_that_was_replaced() {
    let store = backup(vec![key(1), key(2), key(3)]);
    let mut replica = replica();
    load(&mut replica, store.feed().as_ref(), LoadReason::Behind);
    let set = replica.set().clone();
    let refused = |number| set.find(&hash(number)).map(|slot| slot.revoked);
    let replace = |number, other| {
        let before = now(store.reader().find_key(key_id(number))).unwrap().unwrap();
        let record = Box::new(KeyRecord { hash: hash(other), ..before });
        now(store.writer().submit(Order::new(Command::ReplaceKey { record }, by(), NOW))).unwrap();
    };

    // Of the one it is told as a change, of the other by loading everything.
    let head = now(store.feed().head()).unwrap();
    replace(1, 11);
    follow(&mut replica, store.feed().as_ref(), head);
    replace(2, 12);
    load(&mut replica, store.feed().as_ref(), LoadReason::Behind);
    assert_eq!([1, 2, 3, 11, 12].map(refused), [None, None, Some(false), Some(false), Some(false)]);

    let restored = backup(vec![key(1), key(2), key(3)]);
    assert_eq!(load(&mut replica, restored.feed().as_ref(), LoadReason::OtherHistory), 2);
    assert_eq!([1, 2, 3, 11, 12].map(refused), [Some(true), Some(true), Some(false), None, None]);
}

#[test]
fn a_secret_that_is_given_back_counts_again() {
    let store = backup(vec![key(1)]);
    let mut replica = replica();
    load(&mut replica, store.feed().as_ref(), LoadReason::Behind);
    for other in [9, 1] {
        let before = now(store.reader().find_key(key_id(1))).unwrap().unwrap();
        let record = Box::new(KeyRecord { hash: hash(other), ..before });
        let head = now(store.feed().head()).unwrap();
        now(store.writer().submit(Order::new(Command::ReplaceKey { record }, by(), NOW))).unwrap();
        follow(&mut replica, store.feed().as_ref(), head);
    }
    let restored = backup(vec![key(1)]);
    load(&mut replica, restored.feed().as_ref(), LoadReason::OtherHistory);
    assert!(!replica.set().find(&hash(1)).unwrap().revoked);
}

#[test]
fn within_one_history_a_hash_is_free_again_once_its_key_is_gone() {
    let mut replica = replica();
    load(&mut replica, backup(vec![KeyRecord { revoked_at: Some(NOW), ..key(1) }]).feed().as_ref(), LoadReason::Behind);
    let later = backup(vec![KeyRecord { id: key_id(9), ..key(1) }]);
    assert_eq!(load(&mut replica, later.feed().as_ref(), LoadReason::Behind), 0);
    assert!(!replica.set().find(&hash(1)).unwrap().revoked);
}

#[test]
fn a_key_whose_owner_the_store_never_told_of_is_refused() {
    let mut replica = replica();
    let store = memory_store();
    now(store.writer().insert_owner(owner(1), by(), NOW)).unwrap();
    now(store.writer().insert_keys(vec![KeyRecord { owner: Some(owner_id(1)), ..key(1) }], by(), NOW)).unwrap();
    let mut load = replica.begin_load();
    let head = now(store.feed().load_all(&mut |batch| {
        if !matches!(batch, crate::store::LoadBatch::Owners(_)) {
            load.take(&batch);
        }
    }))
    .unwrap();
    load.finish(LoadReason::Behind, head.revision);
    assert_eq!(see(replica.set(), 1).unwrap().owner, Some((owner_id(1), true)));
}

#[test]
fn the_census_counts_by_environment_and_state() {
    let test = |record: KeyRecord| KeyRecord { environment: "test".to_owned(), ..record };
    let set = key_set(
        vec![OwnerRecord { suspended: true, ..owner(1) }],
        vec![
            KeyRecord { owner: Some(owner_id(1)), ..key(1) },
            key(2),
            KeyRecord { active: false, ..key(3) },
            test(KeyRecord { expires_at: Some(NOW), ..key(4) }),
            test(KeyRecord { revoked_at: Some(NOW), ..key(5) }),
        ],
    );
    let mut census = set.census(NOW);
    census.sort_by(|a, b| a.environment.cmp(&b.environment));
    let live = Census { environment: "live".into(), active: 2, disabled: 1, expired: 0, revoked: 0 };
    let test = Census { environment: "test".into(), active: 0, disabled: 0, expired: 1, revoked: 1 };
    assert_eq!(census, [live, test]);
    assert_eq!(set.len(), 5);
    assert!(set.is_loaded());
}

#[test]
fn a_replaced_map_is_freed_by_the_replica_and_not_by_who_reads_it_last() {
    let store = memory_store();
    let mut replica = Replica::new(KeySet::new(), Arc::new(Nobody));
    load(&mut replica, store.feed().as_ref(), LoadReason::Behind);
    let read = replica.set().map();
    let freed = Arc::downgrade(&read);
    load(&mut replica, store.feed().as_ref(), LoadReason::Behind);
    drop(read);
    assert_eq!(freed.strong_count(), 1, "the reader freed it");
    replica.free_replaced();
    assert_eq!(freed.strong_count(), 0, "the replica kept it");

    let unread = Arc::downgrade(&replica.set().map());
    load(&mut replica, store.feed().as_ref(), LoadReason::Behind);
    assert_eq!(unread.strong_count(), 0, "what nobody reads goes at once");
}
