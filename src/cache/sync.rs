//! The task that follows the store: the one writer of the key set.
//!
//! It loads everything once, then asks for the newest revision: when this process committed something, and at every poll.
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
use crate::domain::{Revision, StoreHead, Timestamp};
use crate::store::{ChangeFeed, Changes, StoreError, SyncSettings};

/// Longest pause between two attempts to reach a store that is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

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
    /// How many attempts failed.
    pub failures: u64,
    /// Keys that stay refused although the store, having lost commits, has them working or not at all.
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
    applied: watch::Receiver<Option<Revision>>,
    status: watch::Receiver<SyncStatus>,
}

impl SyncHandle {
    /// How following goes.
    pub fn status(&self) -> SyncStatus {
        *self.status.borrow()
    }

    /// The revision that this node decides by; `None` before the first load.
    pub fn applied(&self) -> Option<Revision> {
        *self.applied.borrow()
    }

    /// Returns once this node decides by `revision` or a later one. Put a timeout around it: a store that went away
    /// holds it up. Cancel safe.
    ///
    /// # Errors
    /// [`SyncStopped`] when the task has ended.
    pub async fn reach(&mut self, revision: Revision) -> Result<(), SyncStopped> {
        let reached = |applied: &Option<Revision>| applied.is_some_and(|applied| applied >= revision);
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
    applied: watch::Sender<Option<Revision>>,
    status: watch::Sender<SyncStatus>,
}

impl SyncTask {
    /// A task that brings `set` to what `feed` tells.
    pub fn new(
        feed: Arc<dyn ChangeFeed>,
        set: Arc<KeySet>,
        publish: Arc<dyn Publish>,
        settings: &SyncSettings,
    ) -> (Self, SyncHandle) {
        let (applied, see_applied) = watch::channel(None);
        let (status, see_status) = watch::channel(SyncStatus::default());
        let task = Self {
            feed,
            replica: Replica::new(set, publish),
            poll_interval: settings.poll_interval,
            at: None,
            reason: LoadReason::Behind,
            applied,
            status,
        };
        (task, SyncHandle { applied: see_applied, status: see_status })
    }

    /// Follows the store for ever. A panic costs a whole load: nobody knows what it left half done.
    pub async fn run(mut self) {
        let mut pause = self.poll_interval;
        loop {
            match AssertUnwindSafe(self.step()).catch_unwind().await {
                Ok(Ok(())) => {
                    pause = self.poll_interval;
                    continue;
                }
                Ok(Err(error)) => self.note_failure(&error),
                Err(_) => {
                    self.at = None;
                    self.note_failure(&"following it panicked; everything is loaded anew");
                }
            }
            tokio::time::sleep(pause).await;
            pause = longer(pause, self.poll_interval);
        }
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
                    self.replica.apply(&owners, &keys, &removed, head.revision, Moment::now().wall);
                    self.arrive(head);
                }
                Changes::TooOld => return self.load_because(LoadReason::Behind).await,
                Changes::OtherHistory => return self.load_because(LoadReason::OtherHistory).await,
            }
        }
        self.note_success(asked);
        Ok(())
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
        let held = load.finish(self.reason, head.revision);
        let seconds = Moment::now().monotonic.saturating_duration_since(asked.monotonic).as_secs_f64();
        let keys = self.replica.set().len();
        match self.reason {
            LoadReason::Behind => tracing::info!(keys, revision = %head.revision, seconds, "key set loaded"),
            LoadReason::OtherHistory => tracing::warn!(
                keys, revision = %head.revision, seconds, held_revocations = held,
                "the store lost commits (a restored backup or a failover): key set loaded anew; \
                 keys that were seen revoked stay refused until this gateway is restarted"
            ),
        }
        self.reason = LoadReason::Behind;
        self.status.send_modify(|status| {
            status.loads += 1;
            status.held_revocations = status.held_revocations.max(held);
        });
        self.arrive(head);
        self.note_success(asked);
        Ok(())
    }

    fn arrive(&mut self, head: StoreHead) {
        self.at = Some(head);
        self.applied.send_replace(Some(head.revision));
    }

    fn note_success(&self, asked: Moment) {
        self.replica.set().confirm(asked);
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

/// The pause after another failure.
pub(super) fn longer(pause: Duration, poll_interval: Duration) -> Duration {
    (pause * 2).min(LONGEST_PAUSE.max(poll_interval))
}
