//! What the data plane works by at this moment: rules, key profiles and upstreams of one generation, swapped whole.
//!
//! A generation that was replaced is freed by whoever makes generations and never by a worker: a table of thousands of
//! routes takes milliseconds to free, and requests would wait for them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::body::BodyPatience;
use super::headers::HeaderRules;
use super::target::Upstream;
use crate::cache::{Directory, KeySet, KeySlot, Publish};
use crate::domain::{KeyKind, KeyState, Timestamp};
use crate::gate::{Rules, Snapshot};
use crate::limit::LimitFields;
use crate::reply::ErrorProfile;
use crate::telemetry::RouteLabel;
use crate::usage::RuleNumbers;

/// The forwarding half of a generation.
pub(crate) struct Plan {
    /// By the numbers that [`Rules::compile`] was given.
    pub(crate) upstreams: Vec<Arc<Upstream>>,
    /// Field rules.
    pub(crate) headers: Arc<HeaderRules>,
    /// By route number: its label in metrics.
    pub(crate) labels: Vec<RouteLabel>,
    /// What its rules are called where usage is counted.
    pub(crate) rule_numbers: RuleNumbers,
    /// Shape of error bodies.
    pub(crate) errors: ErrorProfile,
    /// What the `type` of a problem begins with.
    pub(crate) error_type_base: String,
    /// What answers say about limits.
    pub(crate) limit_fields: LimitFields,
    /// What is expected of clients while a body is under way.
    pub(crate) patience: BodyPatience,
}

/// One generation.
pub(crate) struct Current {
    /// The decision's half.
    pub(crate) gate: Snapshot,
    /// The forwarding half.
    pub(crate) plan: Arc<Plan>,
}

/// The current generation, shared by all threads.
pub(crate) struct Live {
    current: ArcSwap<Current>,
    version: AtomicU64,
    /// Generations that were replaced and may still be read. As many as workers and requests under way hold, at most.
    ///
    /// Locked while one is made: reload and sync both do, and each builds on the other's last.
    replaced: Mutex<Vec<Arc<Current>>>,
    /// A worker let go of a generation.
    let_go: Notify,
    /// The key set that the data plane reads.
    pub(crate) keys: Arc<KeySet>,
}

impl Live {
    /// The first generation.
    pub(crate) fn new(rules: Arc<Rules>, plan: Arc<Plan>, keys: Arc<KeySet>) -> Self {
        let gate = Snapshot::join(rules, Arc::clone(&keys.directory()), None);
        Self {
            current: ArcSwap::from_pointee(Current { gate, plan }),
            version: AtomicU64::new(1),
            replaced: Mutex::default(),
            let_go: Notify::new(),
            keys,
        }
    }

    /// The current generation.
    pub(crate) fn current(&self) -> Arc<Current> {
        self.current.load_full()
    }

    /// Makes a new configuration the current one.
    pub(crate) fn replace(&self, rules: Arc<Rules>, plan: Arc<Plan>) {
        let mut replaced = self.replaced.lock();
        // Not the key set's directory: the sync task may have told us of a newer one that it is about to publish.
        let directory = Arc::clone(&self.current.load().gate.directory);
        let gate = Snapshot::join(rules, directory, None);
        self.swap(Current { gate, plan }, &mut replaced);
    }

    /// Frees generations as soon as no worker holds them, for ever. To be run on the control runtime.
    pub(crate) async fn free_replaced(self: Arc<Self>) {
        loop {
            self.let_go.notified().await;
            free_unread(&mut self.replaced.lock());
        }
    }

    /// The ids of at most `most` keys that are accepted at `now`, pass some rule and would not pass it under `next`.
    /// Management keys ask no route. Keys are looked through only where some profile loses access.
    pub(crate) fn losing_keys(&self, next: &Arc<Rules>, most: usize, now: Timestamp) -> Vec<String> {
        let losing = {
            let current = self.current();
            let after = Snapshot::join(Arc::clone(next), Arc::clone(&current.gate.directory), None);
            current.gate.profiles_losing_access(&after)
        };
        // It may have been replaced meanwhile, and wait to be freed.
        self.let_go.notify_one();
        if losing.is_empty() {
            return Vec::new();
        }
        let is_in_use = |slot: &KeySlot| slot.kind != KeyKind::Management && slot.state(now) == KeyState::Active;
        let ids = self.keys.ids_where(most, |slot| losing.contains(&slot.profile) && is_in_use(slot));
        ids.iter().map(ToString::to_string).collect()
    }

    fn swap(&self, next: Current, replaced: &mut Vec<Arc<Current>>) {
        replaced.push(self.current.swap(Arc::new(next)));
        self.version.fetch_add(1, Ordering::Release);
        free_unread(replaced);
    }
}

/// Frees what nobody else holds. Nobody can come to hold one again: what was replaced is found nowhere but here.
fn free_unread(replaced: &mut Vec<Arc<Current>>) {
    replaced.retain(|generation| Arc::strong_count(generation) > 1);
}

impl Publish for Live {
    fn directory_changed(&self, directory: &Arc<Directory>) {
        let mut replaced = self.replaced.lock();
        let before = self.current.load();
        let rules = Arc::clone(&before.gate.rules);
        let gate = Snapshot::join(rules, Arc::clone(directory), Some(&before.gate));
        let plan = Arc::clone(&before.plan);
        drop(before);
        self.swap(Current { gate, plan }, &mut replaced);
    }
}

/// One worker's hold on a generation: cloning it touches no memory that other threads touch.
#[derive(Clone)]
pub(crate) struct CurrentRef(Rc<Hold>);

struct Hold {
    current: Arc<Current>,
    /// Below `current`, because fields go in this order: it says that the hold is gone.
    _tells: TellsOnDrop,
}

struct TellsOnDrop(Arc<Live>);

impl Drop for TellsOnDrop {
    fn drop(&mut self) {
        self.0.let_go.notify_one();
    }
}

impl CurrentRef {
    fn new(live: &Arc<Live>) -> Self {
        Self(Rc::new(Hold { current: live.current(), _tells: TellsOnDrop(Arc::clone(live)) }))
    }
}

impl std::ops::Deref for CurrentRef {
    type Target = Current;

    fn deref(&self) -> &Current {
        &self.0.current
    }
}

/// One worker's handle on the current generation: a clone costs no shared reference count.
pub(crate) struct LiveReader {
    live: Arc<Live>,
    cached: RefCell<(u64, CurrentRef)>,
}

impl LiveReader {
    /// A reader of `live`.
    pub(crate) fn new(live: Arc<Live>) -> Self {
        let version = live.version.load(Ordering::Acquire);
        let cached = RefCell::new((version, CurrentRef::new(&live)));
        Self { live, cached }
    }

    /// The current generation. One atomic load that is shared, not contended.
    pub(crate) fn current(&self) -> CurrentRef {
        let version = self.live.version.load(Ordering::Acquire);
        let mut cached = self.cached.borrow_mut();
        if cached.0 != version {
            *cached = (version, CurrentRef::new(&self.live));
        }
        cached.1.clone()
    }

    /// The key set.
    pub(crate) fn keys(&self) -> &Arc<KeySet> {
        &self.live.keys
    }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;
