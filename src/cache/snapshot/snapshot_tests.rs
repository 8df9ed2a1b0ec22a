//! What a node knows after a restart without its store, against what it acknowledged before.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::place::{Place, holds_snapshot};
use super::{Farewell, SnapshotClaim, SnapshotSeal};
use crate::cache::apply_tests::{Seen, record, see_all};
use crate::cache::fixtures::{Nobody, memory_store};
use crate::cache::{KeySet, SyncHandle, SyncTask};
use crate::domain::{KeyRecord, NodeId, Revision, StoreHead, time};
use crate::store::fixtures::{NOW, by, hash, key, key_id, owner, owner_id};
use crate::store::{Answer, ChangeFeed, Changes, LoadBatch, Store, StoreError, SyncSettings};

/// Long enough that only a hang meets it.
const HANG: Duration = Duration::from_secs(30);

/// A store that does not answer.
struct Away;

impl Away {
    fn error() -> StoreError {
        StoreError::Damaged { found: "nothing at all".to_owned() }
    }
}

impl ChangeFeed for Away {
    fn head(&self) -> Answer<'_, StoreHead> {
        Box::pin(async { Err(Self::error()) })
    }

    fn load_all<'a>(&'a self, _: &'a mut (dyn FnMut(LoadBatch) + Send)) -> Answer<'a, StoreHead> {
        Box::pin(async { Err(Self::error()) })
    }

    fn changes_since(&self, _: StoreHead) -> Answer<'_, Changes> {
        Box::pin(async { Err(Self::error()) })
    }

    fn wait_for_change(&self, _: StoreHead, _: Duration) -> Answer<'_, ()> {
        Box::pin(async { Err(Self::error()) })
    }
}

/// A process that follows a store and keeps a snapshot.
struct Node {
    set: Arc<KeySet>,
    handle: SyncHandle,
    task: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Node {
    fn start(directory: &Path, feed: Arc<dyn ChangeFeed>, seal: SnapshotSeal) -> Self {
        let set = KeySet::new();
        let settings = SyncSettings { poll_interval: Duration::from_millis(5), last_used_flush: HANG };
        let seal = Arc::new(ArcSwap::from_pointee(seal));
        let snapshot = SnapshotClaim::take(directory.to_owned(), seal);
        let (task, handle) = SyncTask::new(feed, set.clone(), Arc::new(Nobody), &settings, Some(snapshot));
        Self { set, handle, task: tokio::spawn(task.run()) }
    }

    fn following(directory: &Path, store: &Store) -> Self {
        Self::start(directory, store.feed().clone(), SnapshotSeal::default())
    }

    async fn reach(&mut self, revision: Revision) {
        tokio::time::timeout(HANG, self.handle.reach(revision)).await.expect("it is acknowledged").unwrap();
    }

    /// Returns once a restart would find everything that was acknowledged.
    async fn until_current(&self) {
        self.until("the snapshot is current", |node| node.handle.snapshot().is_current).await;
    }

    async fn until(&self, what: &str, fact: impl Fn(&Self) -> bool) {
        let look = async {
            while !fact(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(HANG, look).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    /// Ends as a process does, and waits until another one can have its directory.
    async fn leave(mut self, directory: &Path) {
        self.task.abort();
        drop((&mut self.task).await);
        let place = Place::new(directory.to_owned());
        tokio::time::timeout(HANG, async {
            while place.claim().unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .expect("the directory is let go");
    }
}

/// What a node knows that starts without its store; `None` when it knows nothing.
async fn restarted(directory: &Path, seal: SnapshotSeal) -> Option<(BTreeMap<u32, Seen>, Revision)> {
    let mut node = Node::start(directory, Arc::new(Away), seal);
    let loaded = tokio::time::timeout(Duration::from_millis(300), node.handle.loaded()).await;
    let known = loaded.is_ok().then(|| (see_all(&node.set), node.set.revision()));
    node.leave(directory).await;
    known
}

fn pepper(name: &'static str) -> SnapshotSeal {
    SnapshotSeal::new([(name, Zeroizing::new([7; 32]))])
}

/// Leaves a snapshot of a store behind.
async fn keep(directory: &Path, store: &Store) {
    let node = Node::following(directory, store);
    node.until_current().await;
    node.leave(directory).await;
}

async fn store_with_owners() -> Arc<Store> {
    let store = memory_store();
    for number in 0..3 {
        store.writer().insert_owner(owner(number), by(), NOW).await.unwrap();
    }
    store
}

async fn insert(store: &Store, records: Vec<KeyRecord>) -> Revision {
    store.writer().insert_keys(records, by(), NOW).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_without_its_store_knows_what_it_knew() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("deep/snapshot");
    let store = store_with_owners().await;
    insert(&store, (0..6).map(|number| record(number, number, number * 11)).collect()).await;
    let mut node = Node::following(&place, &store);
    node.until("loaded", |node| node.set.is_loaded()).await;
    node.until_current().await;
    store.writer().set_owner_suspended(owner_id(0), true, by(), NOW).await.unwrap();
    let revoked = store.writer().revoke(key_id(3), by(), NOW).await.unwrap().unwrap();
    node.reach(revoked).await;
    let known = (see_all(&node.set), node.set.revision());
    assert_eq!(known.0.len(), 6);
    assert!(known.0[&3].revoked);
    node.leave(&place).await;

    assert_eq!(restarted(&place, SnapshotSeal::default()).await, Some(known));
    for entry in fs::read_dir(&place).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", entry.path().display());
    }
    assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_while_a_node_was_gone_is_all_it_asks_for() {
    let directory = tempfile::tempdir().unwrap();
    let store = memory_store();
    insert(&store, vec![key(1), key(2)]).await;
    keep(directory.path(), &store).await;
    let revoked = store.writer().revoke(key_id(1), by(), NOW).await.unwrap().unwrap();

    let mut node = Node::following(directory.path(), &store);
    tokio::time::timeout(HANG, node.handle.loaded()).await.unwrap().unwrap();
    assert!(node.set.find(&hash(1)).unwrap().revoked, "the store was asked before serving");
    node.reach(revoked).await;
    let status = node.handle.status();
    assert_eq!((status.restored, status.loads), (true, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_left_its_fleet_decides_by_its_snapshot_once_the_store_has_confirmed_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = memory_store();
    insert(&store, vec![key(1)]).await;
    keep(directory.path(), &store).await;
    let claim = SnapshotClaim::take(directory.path().to_owned(), Arc::default());
    claim.farewell().note().unwrap();
    drop(claim);

    let a_century = Duration::from_secs(50 * 365 * 86_400);
    let mut node = Node::start(directory.path(), Arc::new(Away), SnapshotSeal::default());
    node.handle.loaded().await.unwrap();
    assert!(node.set.age(time::monotonic_now()).unwrap() > a_century, "nobody waits for it");
    node.leave(directory.path()).await;
    let node = Node::following(directory.path(), &store);
    node.until("the store confirms it", |node| node.set.age(time::monotonic_now()).is_some_and(|age| age < HANG)).await;
    node.until("it is back", |_| !directory.path().join("left").exists()).await;
    node.leave(directory.path()).await;
    let mut node = Node::start(directory.path(), Arc::new(Away), SnapshotSeal::default());
    node.handle.loaded().await.unwrap();
    assert!(node.set.age(time::monotonic_now()).unwrap() < HANG);
}

#[test]
fn a_directory_belongs_to_one_node_whatever_process_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let take = || SnapshotClaim::take(directory.path().join("s"), Arc::default());
    let claim = take();
    let id = claim.node_id();
    assert_eq!(claim.node_id(), id);
    assert_ne!(take().node_id(), id, "two processes at one time are two nodes");
    drop(claim);
    assert_eq!(take().node_id(), id);
    fs::write(directory.path().join("s/node"), "not an id").unwrap();
    let claim = take();
    assert_eq!(claim.node_id(), {
        drop(claim);
        take().node_id()
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_as_old_as_the_store_was_last_heard_of() {
    let directory = tempfile::tempdir().unwrap();
    let store = memory_store();
    insert(&store, vec![key(1)]).await;
    let node = Node::following(directory.path(), &store);
    node.until_current().await;
    let began = time::now();
    node.until("noted", |_| {
        let note = fs::read(directory.path().join("as-of")).unwrap_or_default();
        note.get(16..24).is_some_and(|ms| i64::from_le_bytes(ms.try_into().unwrap()) > began.unix_ms())
    })
    .await;
    node.leave(directory.path()).await;
    tokio::time::sleep(Duration::from_millis(250)).await;

    let mut node = Node::start(directory.path(), Arc::new(Away), SnapshotSeal::default());
    node.handle.loaded().await.unwrap();
    let age = node.set.age(time::monotonic_now()).unwrap();
    assert!(age >= Duration::from_millis(250) && age < HANG, "{age:?}");
    assert!(node.set.as_of().unwrap() > began);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(node.set.age(time::monotonic_now()).unwrap() >= age + Duration::from_millis(50), "it goes on ageing");
}

#[test]
fn a_clock_that_was_set_back_makes_a_snapshot_old_not_young() {
    let set = KeySet::new();
    let mut now = crate::cache::key_set::Moment::now();
    let as_of = now.wall;
    now.wall = as_of.minus(Duration::from_secs(86_400));
    set.confirm_as_of(as_of, now);
    assert!(set.age(now.monotonic).unwrap() >= Duration::from_secs(86_400));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_byte_changed_in_a_base_is_noticed_and_the_base_set_aside() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_with_owners().await;
    insert(&store, vec![record(1, 1, 8), record(2, 2, 19)]).await;
    keep(directory.path(), &store).await;
    let base = directory.path().join("keys.base");
    let whole = fs::read(&base).unwrap();
    let mut places: Vec<usize> = (0..whole.len()).step_by(37).collect();
    places.extend([0, 15, 16, 17, 20, whole.len() - 1, whole.len() - 32]);
    let place = Place::new(directory.path().to_owned());
    for at in places {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        fs::write(&base, &changed).unwrap();
        let mut replica = crate::cache::apply::Replica::new(KeySet::new(), Arc::new(Nobody));
        let read = super::restore::restore(&place, &SnapshotSeal::default(), &mut replica);
        assert!(read.is_err(), "byte {at} of {} was changed", whole.len());
        assert!(replica.set().is_empty());
    }
    for len in [0, 1, 16, 40, whole.len() - 33, whole.len() - 1] {
        fs::write(&base, &whole[..len]).unwrap();
        let mut replica = crate::cache::apply::Replica::new(KeySet::new(), Arc::new(Nobody));
        assert!(super::restore::restore(&place, &SnapshotSeal::default(), &mut replica).is_err(), "{len} bytes");
    }
    assert_eq!(restarted(directory.path(), SnapshotSeal::default()).await, None);
    assert!(!holds_snapshot(directory.path()), "what cannot be read is not tried again");
    assert!(directory.path().join("keys.base.unreadable").exists(), "it is kept for people");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_read_under_its_own_pepper_alone() {
    let directory = tempfile::tempdir().unwrap();
    let store = memory_store();
    insert(&store, vec![key(1)]).await;
    for (written, read, is_read) in [
        (pepper("a"), pepper("a"), true),
        (pepper("a"), pepper("b"), false),
        (pepper("a"), SnapshotSeal::default(), false),
        (SnapshotSeal::default(), pepper("a"), false),
    ] {
        let node = Node::start(directory.path(), store.feed().clone(), written.clone());
        node.until_current().await;
        node.leave(directory.path()).await;
        let known = restarted(directory.path(), read.clone()).await;
        assert_eq!(known.is_some(), is_read, "written under {written:?}, read under {read:?}");
        drop(fs::remove_file(directory.path().join("keys.base")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_pepper_seals_the_snapshot_anew() {
    let directory = tempfile::tempdir().unwrap();
    let store = memory_store();
    insert(&store, vec![key(1)]).await;
    let seal = Arc::new(ArcSwap::from_pointee(pepper("old")));
    let settings = SyncSettings { poll_interval: Duration::from_millis(5), last_used_flush: HANG };
    let snapshot = SnapshotClaim::take(directory.path().to_owned(), Arc::clone(&seal));
    let set = KeySet::new();
    let (task, handle) = SyncTask::new(store.feed().clone(), set.clone(), Arc::new(Nobody), &settings, Some(snapshot));
    let node = Node { set, handle, task: tokio::spawn(task.run()) };
    node.until_current().await;
    let both = [("new", Zeroizing::new([8; 32])), ("old", Zeroizing::new([7; 32]))];
    seal.store(Arc::new(SnapshotSeal::new(both)));
    let base = directory.path().join("keys.base");
    node.until("sealed anew", |_| {
        fs::read(&base).is_ok_and(|base| base.windows(9).any(|some| some == br#"key":"new"#.as_slice()))
    })
    .await;
    node.leave(directory.path()).await;
    let known = restarted(directory.path(), SnapshotSeal::new([("new", Zeroizing::new([8; 32]))])).await;
    assert_eq!(known.unwrap().0.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_others_may_write_are_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let store = memory_store();
    insert(&store, vec![key(1)]).await;
    keep(directory.path(), &store).await;
    fs::set_permissions(directory.path().join("keys.base"), fs::Permissions::from_mode(0o620)).unwrap();
    assert_eq!(restarted(directory.path(), SnapshotSeal::default()).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_never_write_one_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let store = memory_store();
    insert(&store, vec![key(1)]).await;
    let first = Node::following(directory.path(), &store);
    first.until_current().await;
    let mut second = Node::following(directory.path(), &store);
    let revision = insert(&store, vec![key(2)]).await;
    second.reach(revision).await;
    assert!(!second.handle.snapshot().is_current, "the first one has it");
    let known_as = fs::read(directory.path().join("node")).unwrap();
    let left = directory.path().join("left");
    let place = Place::new(directory.path().to_owned());
    Farewell { place: place.clone(), id: NodeId::generate() }.note().unwrap();
    assert!(!left.exists(), "a process that has no snapshot notes nothing in another's");
    let id = String::from_utf8(known_as.clone()).unwrap().trim_end().parse().unwrap();
    Farewell { place, id }.note().unwrap();
    assert!(left.exists());
    first.task.abort();
    second.until_current().await;
    assert_ne!(fs::read(directory.path().join("node")).unwrap(), known_as, "it is another node's now");
    second.until("which has not left", |_| !left.exists()).await;
    let known = see_all(&second.set);
    second.leave(directory.path()).await;
    assert_eq!(restarted(directory.path(), SnapshotSeal::default()).await.unwrap().0, known);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocations_that_a_store_lost_stay_revoked_across_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let store = memory_store();
    insert(&store, vec![key(1), key(2)]).await;
    let mut node = Node::following(directory.path(), &store);
    node.until_current().await;
    let revoked = store.writer().revoke(key_id(1), by(), NOW).await.unwrap().unwrap();
    node.reach(revoked).await;
    node.leave(directory.path()).await;

    // A backup from before the revocation, in which things go on.
    let restored = memory_store();
    insert(&restored, vec![key(1), key(2)]).await;
    let mut node = Node::following(directory.path(), &restored);
    node.until("it saw that commits were lost", |node| node.handle.status().held_revocations == 1).await;
    assert!(node.set.find(&hash(1)).unwrap().revoked);
    node.until_current().await;
    let later = insert(&restored, vec![key(3)]).await;
    node.reach(later).await;
    node.leave(directory.path()).await;
    let known = restarted(directory.path(), SnapshotSeal::default()).await.unwrap().0;
    assert_eq!((known[&1].revoked, known[&2].revoked, known[&3].revoked), (true, false, false));

    // And once more with the store.
    let node = Node::following(directory.path(), &restored);
    node.until("confirmed", |node| node.handle.status().store_up).await;
    assert!(node.set.find(&hash(1)).unwrap().revoked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_written_while_keys_change_loses_none_of_the_changes() {
    let directory = tempfile::tempdir().unwrap();
    let store = memory_store();
    insert(&store, (1_000..2_000).map(key).collect()).await;
    let mut node = Node::following(directory.path(), &store);
    node.until_current().await;
    // Each change is some 300 bytes, so that the journal grows beyond what a new base is written for, again and again.
    for round in 0..300 {
        let revision = insert(&store, vec![key(round)]).await;
        if round % 3 == 0 {
            store.writer().revoke(key_id(round), by(), NOW).await.unwrap();
        }
        if round % 10 == 0 {
            node.reach(revision).await;
        }
    }
    let head = store.feed().head().await.unwrap();
    node.reach(head.revision).await;
    let known: Vec<_> = (0..300).map(|number| node.set.find(&hash(number)).unwrap().revoked).collect();
    let len = node.set.len();
    node.leave(directory.path()).await;
    let numbers = Place::new(directory.path().to_owned()).journals().unwrap();
    assert!(numbers.iter().all(|number| *number > 1), "no new base was written: {numbers:?}");

    let mut again = Node::start(directory.path(), Arc::new(Away), SnapshotSeal::default());
    again.handle.loaded().await.unwrap();
    assert_eq!(again.set.len(), len);
    let knows: Vec<_> = (0..300).map(|number| again.set.find(&hash(number)).unwrap().revoked).collect();
    assert_eq!(knows, known);
    assert_eq!(again.set.revision(), head.revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_takes_no_more_costs_the_snapshot_and_not_what_is_acknowledged() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("snapshot");
    let store = memory_store();
    insert(&store, vec![key(1)]).await;
    let mut node = Node::following(&directory, &store);
    node.until_current().await;
    // The journal that is open can be written, but no new one, and no new base.
    fs::rename(&directory, parent.path().join("away")).unwrap();
    fs::write(&directory, "a file").unwrap();
    let mut revision = Revision::ZERO;
    for number in 100..160 {
        revision = insert(&store, (number * 10..number * 10 + 10).map(key).collect()).await;
        node.reach(revision).await;
    }
    node.until("it gave up", |node| !node.handle.snapshot().is_current).await;
    let revoked = store.writer().revoke(key_id(1), by(), NOW).await.unwrap().unwrap();
    assert!(revoked > revision);
    node.reach(revoked).await;

    fs::remove_file(&directory).unwrap();
    node.until_current().await;
    let known = see_all(&node.set);
    assert!(known[&1].revoked);
    node.leave(&directory).await;
    assert_eq!(restarted(&directory, SnapshotSeal::default()).await.unwrap().0, known);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_base_that_was_never_finished_is_as_if_it_had_not_been_begun() {
    let directory = tempfile::tempdir().unwrap();
    let store = memory_store();
    insert(&store, vec![key(1)]).await;
    let node = Node::following(directory.path(), &store);
    node.until_current().await;
    let known = (see_all(&node.set), node.set.revision());
    // The store lost commits, and before the base of what it has now is whole, the power goes.
    let later = memory_store();
    insert(&later, vec![key(1), key(2)]).await;
    node.leave(directory.path()).await;
    let place = Place::new(directory.path().to_owned());
    let before: Vec<_> = ["keys.base", "as-of"].map(|name| fs::read(directory.path().join(name)).unwrap()).into();
    let journals = place.journals().unwrap();
    let kept: Vec<_> = journals.iter().map(|number| (*number, fs::read(place.journal(*number)).unwrap())).collect();
    let mut node = Node::following(directory.path(), &later);
    node.until("loaded anew", |node| node.handle.status().loads == 1).await;
    node.until_current().await;
    for number in 3..6 {
        let revision = insert(&later, vec![key(number)]).await;
        node.reach(revision).await;
    }
    node.leave(directory.path()).await;
    let begun = place.journals().unwrap().into_iter().max().unwrap();
    assert!(fs::read(place.journal(begun)).unwrap().len() > 600, "it holds several records");
    fs::write(place.base(), &before[0]).unwrap();
    fs::write(place.as_of(), &before[1]).unwrap();
    kept.iter().for_each(|(number, bytes)| fs::write(place.journal(*number), bytes).unwrap());
    assert_eq!(restarted(directory.path(), SnapshotSeal::default()).await, Some(known));
}
