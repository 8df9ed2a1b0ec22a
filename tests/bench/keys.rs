//! A key set that follows a fleet, by the sync task that the gateway has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portcullis::cache::{Directory, KeySet, Publish, SyncHandle, SyncTask};
use portcullis::domain::Revision;
use portcullis::store::{ChangeFeed, SyncSettings};
use tokio::runtime::Runtime;

use crate::Fleet;
use crate::fleet::CHANGES_PER_COMMIT;

/// A loaded key set. It stands still unless it is told to [`follow`](Self::follow).
pub struct Keys {
    fleet: Arc<Fleet>,
    set: Arc<KeySet>,
    sync: SyncHandle,
    /// The sync task lives in it, and gets on while somebody waits here.
    runtime: Runtime,
}

/// Nobody derives anything from the set.
struct Nobody;

impl Publish for Nobody {
    fn directory_changed(&self, _: &Arc<Directory>) {}
}

impl Keys {
    /// The set of this many keys, loaded.
    pub fn load(keys: u64) -> Self {
        let fleet = Arc::new(Fleet::new(keys));
        let set = KeySet::new();
        let settings =
            SyncSettings { poll_interval: Duration::from_millis(100), last_used_flush: Duration::from_secs(5) };
        let feed = Arc::clone(&fleet) as Arc<dyn ChangeFeed>;
        let (task, sync) = SyncTask::new(feed, Arc::clone(&set), Arc::new(Nobody), &settings, None);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
        runtime.spawn(task.run());
        let mut all = Self { fleet, set, sync, runtime };
        all.reach(Revision::ZERO);
        assert_eq!(all.set.len() as u64, keys, "every key was loaded");
        all
    }

    /// What requests read.
    pub fn set(&self) -> &Arc<KeySet> {
        &self.set
    }

    /// Commits every `pause`, and applies what was committed, until told to stop. Returns how many changes that were.
    pub fn follow(&mut self, pause: Duration, stop: &AtomicBool) -> u64 {
        let mut changes = 0;
        while !stop.load(Ordering::Relaxed) {
            let revision = self.fleet.commit();
            self.reach(revision);
            changes += CHANGES_PER_COMMIT;
            self.runtime.block_on(async { tokio::time::sleep(pause).await });
        }
        changes
    }

    fn reach(&mut self, revision: Revision) {
        self.runtime.block_on(self.sync.reach(revision)).expect("the sync task lives as long as its runtime");
    }
}
