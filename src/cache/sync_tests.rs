//! The task against stores that change, go away, come back and lose commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::JoinHandle;

use super::fixtures::{Nobody, memory_store};
use super::sync::{first_pause, longer};
use super::{KeySet, SyncHandle, SyncStopped, SyncTask};
use crate::domain::{KeyRecord, Revision, StoreHead, time};
use crate::store::fixtures::{NOW, by, hash, key, key_id, keys, owner, owner_id};
use crate::store::{
    Answer, ChangeFeed, Changes, LoadBatch, MAX_CHANGED_KEYS, OpenMode, Store, StoreError, StoreSettings, SyncSettings,
};

/// The contract's bound from the return of a command to its effect, times the machine's slowness.
fn effect_bound() -> Duration {
    let patience = std::env::var("PORTCULLIS_TEST_PATIENCE").ok().and_then(|text| text.parse::<f64>().ok());
    Duration::from_millis(250).mul_f64(patience.unwrap_or(1.0).max(1.0))
}

/// Long enough that only a hang meets it.
const HANG: Duration = Duration::from_secs(30);

struct Following {
    set: Arc<KeySet>,
    handle: SyncHandle,
    task: JoinHandle<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn follow(feed: Arc<dyn ChangeFeed>, poll_interval: Duration) -> Following {
    let set = KeySet::new();
    let settings = SyncSettings { poll_interval, last_used_flush: Duration::from_secs(5) };
    let (task, handle) = SyncTask::new(feed, set.clone(), Arc::new(Nobody), &settings, None);
    Following { set, handle, task: tokio::spawn(task.run()) }
}

const POLL: Duration = Duration::from_millis(100);
/// A poll that never comes in a test's time.
const NO_POLL: Duration = Duration::from_secs(3_600);

impl Following {
    async fn reach(&mut self, revision: Revision) {
        tokio::time::timeout(HANG, self.handle.reach(revision)).await.expect("the change is applied").unwrap();
    }

    async fn until(&self, what: &str, fact: impl Fn(&Self) -> bool) {
        let look = async {
            while !fact(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(HANG, look).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    fn is_refused(&self, number: u32) -> Option<bool> {
        self.set.find(&hash(number)).map(|slot| slot.revoked || !slot.active)
    }
}

#[tokio::test]
async fn nobody_is_unknown_before_the_first_load() {
    let store = memory_store();
    store.writer().insert_keys(keys([1]), by(), NOW).await.unwrap();
    let mut following = follow(store.feed().clone(), POLL);
    assert!(!following.set.is_loaded());
    assert_eq!((following.set.as_of(), following.set.age(time::monotonic_now())), (None, None));
    assert_eq!(following.handle.applied(), None);
    following.reach(Revision::new(1)).await;
    following.until("loaded", |f| f.set.is_loaded()).await;
    assert_eq!(following.is_refused(1), Some(false));
    assert!(following.set.age(time::monotonic_now()).unwrap() < HANG);
    let status = following.handle.status();
    assert!(status.store_up && status.loads == 1, "{status:?}");
}

#[tokio::test]
async fn a_change_of_this_process_is_applied_without_waiting_for_a_poll() {
    let store = memory_store();
    let mut following = follow(store.feed().clone(), NO_POLL);
    following.reach(Revision::ZERO).await;
    let created = store.writer().insert_keys(keys([1]), by(), NOW).await.unwrap();
    following.reach(created).await;
    assert_eq!(following.is_refused(1), Some(false));
    let revoked = store.writer().revoke(key_id(1), by(), NOW).await.unwrap().unwrap();
    following.reach(revoked).await;
    assert_eq!(following.is_refused(1), Some(true));
    assert_eq!(following.set.revision(), revoked);
}

#[tokio::test]
async fn a_change_of_another_process_takes_effect_within_the_bound() {
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings::Sqlite { path: directory.path().join("keys.db") };
    let ours = crate::store::open(&settings, OpenMode::Create, crate::store::AuditSeal::default()).unwrap();
    let theirs = crate::store::open(&settings, OpenMode::Existing, crate::store::AuditSeal::default()).unwrap();
    theirs.writer().insert_owner(owner(1), by(), NOW).await.unwrap();
    theirs.writer().insert_keys(vec![KeyRecord { owner: Some(owner_id(1)), ..key(0) }], by(), NOW).await.unwrap();
    let mut following = follow(ours.feed().clone(), POLL);
    following.reach(Revision::new(2)).await;

    for number in 1..4 {
        theirs.writer().insert_keys(keys([number]), by(), NOW).await.unwrap();
        took_effect(&following, "a created key is accepted", |f| f.is_refused(number) == Some(false)).await;
        theirs.writer().revoke(key_id(number), by(), NOW).await.unwrap();
        took_effect(&following, "a revoked key is refused", |f| f.is_refused(number) == Some(true)).await;
    }
    theirs.writer().set_owner_suspended(owner_id(1), true, by(), NOW).await.unwrap();
    let is_suspended = |f: &Following| {
        let ix = f.set.find(&hash(0)).and_then(|slot| slot.owner);
        ix.is_some_and(|ix| f.set.directory().owner(ix).is_some_and(|owner| owner.suspended))
    };
    took_effect(&following, "an owner is suspended", is_suspended).await;
}

async fn took_effect(following: &Following, what: &str, fact: impl Fn(&Following) -> bool) {
    let returned = time::monotonic_now();
    following.until(what, fact).await;
    let after = time::monotonic_now().saturating_duration_since(returned);
    assert!(after <= effect_bound(), "{what} only after {after:?}");
}

#[tokio::test]
async fn too_many_changes_are_loaded_instead() {
    let store = memory_store();
    let mut following = follow(store.feed().clone(), NO_POLL);
    following.reach(Revision::ZERO).await;
    let many = u32::try_from(MAX_CHANGED_KEYS).unwrap() + 1;
    let revision = store.writer().insert_keys(keys(0..many), by(), NOW).await.unwrap();
    following.reach(revision).await;
    assert_eq!((following.set.len(), following.handle.status().loads), (many as usize, 2));
}

#[tokio::test]
async fn whoever_waits_learns_that_the_task_has_ended() {
    let store = memory_store();
    let mut following = follow(store.feed().clone(), POLL);
    following.reach(Revision::ZERO).await;
    let mut handle = following.handle.clone();
    let waiting = tokio::spawn(async move { handle.reach(Revision::new(99)).await });
    following.task.abort();
    assert_eq!(waiting.await.unwrap(), Err(SyncStopped));
    assert_eq!(following.handle.reach(Revision::ZERO).await, Ok(()), "what was reached stays reached");
}

/// A feed that can be cut, or led to another store, as after a failover.
struct Wire {
    store: ArcSwap<Store>,
    is_cut: AtomicBool,
    panics_once: AtomicBool,
}

impl Wire {
    fn to(store: Arc<Store>) -> Arc<Self> {
        Arc::new(Self {
            store: ArcSwap::new(store),
            is_cut: AtomicBool::new(false),
            panics_once: AtomicBool::new(false),
        })
    }

    fn far(&self) -> Result<Arc<dyn ChangeFeed>, StoreError> {
        assert!(!self.panics_once.swap(false, Ordering::Relaxed), "as told");
        if self.is_cut.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable { doing: "asking".to_owned(), source: "the wire is cut".into() });
        }
        Ok(self.store.load().feed().clone())
    }
}

impl ChangeFeed for Wire {
    fn head(&self) -> Answer<'_, StoreHead> {
        Box::pin(async { self.far()?.head().await })
    }

    fn load_all<'a>(&'a self, sink: &'a mut (dyn FnMut(LoadBatch) + Send)) -> Answer<'a, StoreHead> {
        Box::pin(async move {
            // Half of it arrives before the wire is found cut.
            let mut batches = Vec::new();
            let head = self.store.load_full().feed().load_all(&mut |batch| batches.push(batch)).await?;
            let is_cut = self.far().is_err();
            let arriving = if is_cut { batches.len() / 2 } else { batches.len() };
            batches.into_iter().take(arriving).for_each(sink);
            self.far()?;
            Ok(head)
        })
    }

    fn changes_since(&self, since: StoreHead) -> Answer<'_, Changes> {
        Box::pin(async move { self.far()?.changes_since(since).await })
    }

    fn wait_for_change(&self, seen: StoreHead, patience: Duration) -> Answer<'_, ()> {
        Box::pin(async move { self.far()?.wait_for_change(seen, patience).await })
    }
}

const QUICK: Duration = Duration::from_millis(10);

#[tokio::test]
async fn known_keys_outlive_the_store_and_age_while_it_is_away() {
    let store = memory_store();
    store.writer().insert_keys(keys([1]), by(), NOW).await.unwrap();
    let wire = Wire::to(store.clone());
    let mut following = follow(wire.clone(), QUICK);
    following.reach(Revision::new(1)).await;

    wire.is_cut.store(true, Ordering::Relaxed);
    following.until("the store is found away", |f| !f.handle.status().store_up).await;
    let frozen = following.set.as_of();
    let revoked = store.writer().revoke(key_id(1), by(), NOW).await.unwrap().unwrap();
    let failures = following.handle.status().failures;
    following.until("it tries again", |f| f.handle.status().failures > failures + 1).await;
    assert_eq!(following.is_refused(1), Some(false));
    assert_eq!(following.set.as_of(), frozen, "an unanswered poll confirms nothing");

    wire.is_cut.store(false, Ordering::Relaxed);
    following.reach(revoked).await;
    assert_eq!(following.is_refused(1), Some(true));
    following.until("the store is up", |f| f.handle.status().store_up).await;
    assert_eq!(following.handle.status().loads, 1, "what changed meanwhile came as changes");
}

#[tokio::test]
async fn a_panic_does_not_end_following() {
    let store = memory_store();
    store.writer().insert_keys(keys([1]), by(), NOW).await.unwrap();
    let wire = Wire::to(store.clone());
    let mut following = follow(wire.clone(), QUICK);
    following.reach(Revision::new(1)).await;
    wire.panics_once.store(true, Ordering::Relaxed);
    following.until("the panic is noticed", |f| f.handle.status().failures == 1).await;
    let revoked = store.writer().revoke(key_id(1), by(), NOW).await.unwrap().unwrap();
    following.reach(revoked).await;
    assert_eq!(following.is_refused(1), Some(true));
    following.until("the store is believed again", |f| f.handle.status().store_up).await;
    assert_eq!(following.handle.status().loads, 2, "nobody knows what a panic left half done");
}

#[test]
fn a_store_that_is_away_is_asked_less_and_less_often_but_never_given_up() {
    let pauses = |poll_interval| -> Vec<u128> {
        let pauses = std::iter::successors(Some(first_pause(poll_interval)), |pause| Some(longer(*pause)));
        pauses.take(8).map(|pause| pause.as_millis()).collect()
    };
    assert_eq!(pauses(Duration::from_millis(20)), [20, 40, 80, 160, 320, 640, 1_000, 1_000]);
    assert_eq!(
        pauses(Duration::from_secs(10)),
        [100, 200, 400, 800, 1_000, 1_000, 1_000, 1_000],
        "however seldom it polls"
    );
}

#[tokio::test]
async fn a_load_that_breaks_off_leaves_nothing_behind() {
    let store = memory_store();
    store.writer().insert_keys(keys(0..5_000), by(), NOW).await.unwrap();
    let wire = Wire::to(store.clone());
    wire.is_cut.store(true, Ordering::Relaxed);
    let mut following = follow(wire.clone(), QUICK);
    following.until("a load broke off", |f| f.handle.status().failures > 1).await;
    assert_eq!((following.set.len(), following.set.is_loaded()), (0, false));
    wire.is_cut.store(false, Ordering::Relaxed);
    following.reach(Revision::new(1)).await;
    assert_eq!(following.set.len(), 5_000);
}

#[tokio::test]
async fn a_restored_backup_is_loaded_but_revives_nothing() {
    let store = memory_store();
    store.writer().insert_keys(keys([1, 2]), by(), NOW).await.unwrap();
    store.writer().revoke(key_id(1), by(), NOW).await.unwrap();
    let wire = Wire::to(store);
    let mut following = follow(wire.clone(), QUICK);
    following.reach(Revision::new(2)).await;

    // The same revision number, but another history: key 1 works there, key 2 does not exist, key 3 is new.
    let backup = memory_store();
    backup.writer().insert_keys(keys([1]), by(), NOW).await.unwrap();
    backup.writer().insert_keys(keys([3]), by(), NOW).await.unwrap();
    wire.store.store(backup.clone());
    following.until("the backup is loaded", |f| f.handle.status().loads == 2).await;
    assert_eq!([1, 2, 3].map(|n| following.is_refused(n)), [Some(true), None, Some(false)]);
    assert_eq!(following.handle.status().held_revocations, 1);

    // From here on changes come as changes.
    let revision = backup.writer().revoke(key_id(3), by(), NOW).await.unwrap().unwrap();
    following.reach(revision).await;
    assert_eq!([1, 3].map(|n| following.is_refused(n)), [Some(true), Some(true)]);
    assert_eq!(following.handle.status().loads, 2);
}
