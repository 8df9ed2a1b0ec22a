//! The task that follows the store: the one writer of the key set.
//!
//! It begins with what the snapshot on disk holds, or loads everything once, then asks for the newest revision: when this process committed something, and at every poll.
//! When the store is away it keeps what it has and asks again, less and less often; how old the set may grow is for
//! the gate to say.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;

use super::apply::{LoadReason, Replica};
use super::directory::Directory;
use super::key_set::{KeySet, Moment};
use super::snapshot::{Found, Keeper, Record, SnapshotClaim, SnapshotStatus};
use crate::domain::{KeyId, Revision, StoreHead, Timestamp};
use crate::store::{ChangeFeed, Changes, StoreError, SyncSettings};

/// How long a gateway that has its keys from a snapshot waits for the store before it serves by them.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

/// Shortest and longest pause between two attempts to reach a store that is away.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Most keys that one line of the log names.
const HELD_NAMED: usize = 100;

/// What others derive from the key set, told by the sync task. Called on the control runtime; must not block.
pub trait Publish: Send + Sync {
    /// Names were added or an owner was suspended or resumed. Called *before* any key that refers to new names becomes
    /// visible: when it returns, tables beside the directory must cover all of it.
    fn directory_changed(&self, directory: &Arc<Directory>);

    /// A key that this node accepted is refused from now on, so long after its revocation was committed.
    fn revoked(&self, _after: Duration) {}
}

/// How following goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SyncStatus {
    /// Whether the last attempt to reach the store succeeded.
    pub store_up: bool,
    /// When the store last answered.
    pub last_success: Option<Timestamp>,
    /// How often everything was loaded.
    pub loads: u64,
    /// Whether the set began as the snapshot on disk had it.
    pub restored: bool,
    /// How many attempts failed.
    pub failures: u64,
    /// Keys and replaced secrets that stay refused although the store, having lost commits, has them working or not at all.
    pub held_revocations: usize,
}

impl SyncStatus {
    /// How long ago the store last answered; `None` when it never did.
    pub fn lag(&self, now: Timestamp) -> Option<Duration> {
        self.last_success.map(|moment| now.since(moment))
    }
}

/// The sync task has ended, so nothing will be applied any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SyncStopped;

impl fmt::Display for SyncStopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the key set no longer follows the store: the gateway is shutting down")
    }
}

impl std::error::Error for SyncStopped {}

/// Watches the sync task from outside.
#[derive(Clone, Debug)]
pub struct SyncHandle {
    applied: watch::Receiver<Option<StoreHead>>,
    status: watch::Receiver<SyncStatus>,
    snapshot: watch::Receiver<SnapshotStatus>,
}

impl SyncHandle {
    /// How following goes.
    pub fn status(&self) -> SyncStatus {
        *self.status.borrow()
    }

    /// How the snapshot on disk is; all zero where none is kept.
    pub fn snapshot(&self) -> SnapshotStatus {
        *self.snapshot.borrow()
    }

    /// Returns once this node has keys to decide by: from the store, or from the snapshot when the store does not answer at
    /// once. Put a timeout around it. Cancel safe.
    ///
    /// # Errors
    /// [`SyncStopped`] when the task has ended.
    pub async fn loaded(&mut self) -> Result<(), SyncStopped> {
        let has_keys = |status: &SyncStatus| status.loads > 0 || status.restored;
        let restored = self.status.wait_for(has_keys).await.map_err(|_| SyncStopped)?.loads == 0;
        if restored {
            let asked = self.status.wait_for(|status| status.store_up || status.failures > 0);
            let _ = tokio::time::timeout(STORE_PATIENCE, asked).await;
        }
        Ok(())
    }

    /// The revision that this node decides by, and would still decide by after a restart without its store; `None` before
    /// the first load.
    pub fn applied(&self) -> Option<Revision> {
        self.applied_head().map(|head| head.revision)
    }

    /// The same with its token: where in which history this node stands.
    pub fn applied_head(&self) -> Option<StoreHead> {
        *self.applied.borrow()
    }

    /// Returns when this node decides by another revision than at the last return. Cancel safe.
    ///
    /// # Errors
    /// [`SyncStopped`] when the task has ended.
    pub async fn moved(&mut self) -> Result<(), SyncStopped> {
        self.applied.changed().await.map_err(|_| SyncStopped)
    }

    /// Returns once this node decides by `revision` or a later one. Put a timeout around it: a store that went away
    /// holds it up. Cancel safe.
    ///
    /// # Errors
    /// [`SyncStopped`] when the task has ended.
    pub async fn reach(&mut self, revision: Revision) -> Result<(), SyncStopped> {
        let reached = |applied: &Option<StoreHead>| applied.is_some_and(|head| head.revision >= revision);
        self.applied.wait_for(reached).await.map(drop).map_err(|_| SyncStopped)
    }
}

/// See the module. Runs until it is dropped; dropping it at any point leaves the set as it was or as it will be.
pub struct SyncTask {
    feed: Arc<dyn ChangeFeed>,
    replica: Replica,
    poll_interval: Duration,
    /// Where this node stands; `None` when everything must be loaded.
    at: Option<StoreHead>,
    reason: LoadReason,
    told: Told,
    status: watch::Sender<SyncStatus>,
}

/// Who tells which revision is applied.
enum Told {
    /// This task, when the set in memory is there.
    ByTask(watch::Sender<Option<StoreHead>>),
    /// Whoever keeps the snapshot, when that is there too.
    ByKeeper(Keeper),
}

impl SyncTask {
    /// A task that brings `set` to what `feed` tells, and keeps a snapshot of it where that is wanted.
    pub fn new(
        feed: Arc<dyn ChangeFeed>,
        set: Arc<KeySet>,
        publish: Arc<dyn Publish>,
        settings: &SyncSettings,
        snapshot: Option<SnapshotClaim>,
    ) -> (Self, SyncHandle) {
        let (applied, see_applied) = watch::channel(None);
        let (status, see_status) = watch::channel(SyncStatus::default());
        let (tell_snapshot, see_snapshot) = watch::channel(SnapshotStatus::default());
        let told = match snapshot {
            None => Told::ByTask(applied),
            Some(claim) => Told::ByKeeper(Keeper::new(claim, applied, tell_snapshot)),
        };
        let task = Self {
            feed,
            replica: Replica::new(set, publish),
            poll_interval: settings.poll_interval,
            at: None,
            reason: LoadReason::Behind,
            told,
            status,
        };
        (task, SyncHandle { applied: see_applied, status: see_status, snapshot: see_snapshot })
    }

    /// Follows the store for ever. A panic costs a whole load: nobody knows what it left half done.
    pub async fn run(mut self) {
        if matches!(self.told, Told::ByKeeper(_)) {
            let restored = tokio::task::spawn_blocking(move || {
                self.restore();
                self
            });
            match restored.await {
                Ok(task) => self = task,
                Err(error) => return tracing::error!(%error, "reading the snapshot was ended"),
            }
        }
        let first_pause = first_pause(self.poll_interval);
        let mut pause = first_pause;
        loop {
            match AssertUnwindSafe(self.step()).catch_unwind().await {
                Ok(Ok(())) => {
                    pause = first_pause;
                    continue;
                }
                Ok(Err(error)) => self.note_failure(&error),
                Err(_) => {
                    self.at = None;
                    self.note_failure(&"following it panicked; everything is loaded anew");
                }
            }
            tokio::time::sleep(pause).await;
            pause = longer(pause);
        }
    }

    /// Begins with what the snapshot holds. Blocks.
    fn restore(&mut self) {
        let Told::ByKeeper(keeper) = &mut self.told else { return };
        let began = Moment::now();
        let Some(Found { head, as_of, has_left }) = keeper.restore(&mut self.replica) else { return };
        let now = Moment::now();
        self.at = Some(head);
        if has_left {
            tracing::info!(
                "this gateway had left its fleet: it decides by the snapshot once the store has confirmed it"
            );
        }
        // Nobody waits for one that has left, so what it knows is as old as can be.
        let counts_as_of = if has_left { Timestamp::default() } else { as_of };
        self.replica.set().confirm_as_of(counts_as_of, now);
        let seconds = now.monotonic.saturating_duration_since(began.monotonic).as_secs_f64();
        let keys = self.replica.set().len();
        tracing::info!(keys, revision = %head.revision, %as_of, seconds, "key set read from the snapshot");
        self.status.send_modify(|status| {
            status.restored = true;
            status.last_success = Some(as_of);
        });
    }

    /// Waits for a change, or a poll's length, and applies what there is.
    async fn step(&mut self) -> Result<(), StoreError> {
        self.replica.free_replaced();
        let Some(at) = self.at else { return self.load().await };
        // After trouble the pause was waiting enough.
        if self.status.borrow().store_up {
            self.feed.wait_for_change(at, self.poll_interval).await?;
        }
        // Before asking: what is committed while the answer travels counts as not yet seen.
        let asked = Moment::now();
        let head = self.feed.head().await?;
        if head != at {
            match self.feed.changes_since(at).await? {
                Changes::Since { owners, keys, removed, head } => {
                    self.apply(Record { head, as_of: asked.wall, owners, keys, removed });
                }
                Changes::TooOld => return self.load_because(LoadReason::Behind).await,
                Changes::OtherHistory => return self.load_because(LoadReason::OtherHistory).await,
            }
        }
        self.note_success(asked);
        Ok(())
    }

    fn apply(&mut self, record: Record) {
        let (head, now) = (record.head, Moment::now().wall);
        match &self.told {
            Told::ByTask(applied) => {
                self.replica.apply(&record, now);
                applied.send_replace(Some(head));
            }
            Told::ByKeeper(keeper) => {
                let change = keeper.begin();
                self.replica.apply(&record, now);
                change.applied(record);
            }
        }
        self.at = Some(head);
    }

    async fn load_because(&mut self, reason: LoadReason) -> Result<(), StoreError> {
        self.at = None;
        self.reason = reason;
        self.load().await
    }

    async fn load(&mut self) -> Result<(), StoreError> {
        let asked = Moment::now();
        let mut load = self.replica.begin_load();
        let head = self.feed.load_all(&mut |batch| load.take(&batch)).await?;
        let held = match &self.told {
            Told::ByTask(_) => load.finish(self.reason, head.revision),
            Told::ByKeeper(keeper) => {
                let change = keeper.begin();
                let held = load.finish(self.reason, head.revision);
                self.replica.set().confirm(asked);
                change.loaded(head, asked.wall, self.replica.has_diverged());
                held
            }
        };
        let seconds = Moment::now().monotonic.saturating_duration_since(asked.monotonic).as_secs_f64();
        let keys = self.replica.set().len();
        match self.reason {
            LoadReason::Behind => tracing::info!(keys, revision = %head.revision, seconds, "key set loaded"),
            LoadReason::OtherHistory => tracing::warn!(
                keys, revision = %head.revision, seconds, held_revocations = held.len(),
                "the store lost commits (a restored backup or a failover): key set loaded anew; \
                 keys that were seen revoked stay refused"
            ),
        }
        if !held.is_empty() {
            let named: Vec<String> = held.iter().take(HELD_NAMED).map(KeyId::to_string).collect();
            tracing::warn!(
                held_revocations = held.len(),
                key_ids = named.join(" "),
                "keys that this gateway saw revoked, or whose secrets it saw replaced, are not so in what the store holds now: it \
                 refuses them, and gateways that saw none of it do not; revoke again those that the store has"
            );
        }
        self.reason = LoadReason::Behind;
        self.status.send_modify(|status| {
            status.loads += 1;
            status.held_revocations = status.held_revocations.max(held.len());
        });
        self.at = Some(head);
        if let Told::ByTask(applied) = &self.told {
            applied.send_replace(Some(head));
        }
        self.note_success(asked);
        Ok(())
    }

    fn note_success(&self, asked: Moment) {
        self.replica.set().confirm(asked);
        if let Told::ByKeeper(keeper) = &self.told {
            keeper.begin().confirmed(asked.wall);
        }
        self.status.send_modify(|status| {
            if !status.store_up && status.failures > 0 {
                tracing::info!("the store answers again");
            }
            status.store_up = true;
            status.last_success = Some(asked.wall);
        });
    }

    fn note_failure(&self, error: &dyn fmt::Display) {
        self.status.send_modify(|status| {
            if status.store_up || status.failures == 0 {
                tracing::error!(%error, "the store does not answer; requests are decided by the key set as it is");
            }
            status.store_up = false;
            status.failures += 1;
        });
    }
}

/// The pause after a first failure.
pub(super) fn first_pause(poll_interval: Duration) -> Duration {
    poll_interval.min(FIRST_PAUSE)
}

/// The pause after another failure.
pub(super) fn longer(pause: Duration) -> Duration {
    (pause * 2).min(LONGEST_PAUSE)
}
