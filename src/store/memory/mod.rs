//! A store that lives as long as the process: for trials and tests. Same promises as the others, but for durability.

mod commands;
mod nodes;
mod reading;
mod usage;

pub(in crate::store) use usage::MemoryUsage;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::domain::{
    KeyHash, KeyId, KeyRecord, NodeId, OwnerId, OwnerRecord, QuotaTerm, Revision, RevisionToken, StoreHead, Timestamp,
};
use crate::store::SharedSeal;
use crate::store::api::{Actor, Answer, QuotaBook, Removed, RepeatName, Repeatable};
use crate::store::command::{Commands, Effect, Order, draw_token};
use crate::store::error::StoreError;
use crate::store::nodes::NodeReport;
use crate::store::seal::{AuditHead, AuditSeal};
use crate::store::trail::{Anchor, AuditEntry};
use crate::store::usage::AdditionId;

/// See the module.
pub(super) struct MemoryStore {
    state: Mutex<State>,
    committed: watch::Sender<StoreHead>,
    seal: SharedSeal,
    counts: Mutex<HashMap<QuotaTerm, u64>>,
    pub(super) nodes: Mutex<BTreeMap<NodeId, (NodeReport, Timestamp)>>,
}

/// What is remembered of commits, for as long as it is looked at.
pub(super) struct History<'a>(MutexGuard<'a, State>);

impl History<'_> {
    /// Whether the store was ever there.
    pub(super) fn holds(&self, head: StoreHead) -> bool {
        self.0.revisions.get(&head.revision).is_some_and(|(token, _)| *token == head.token)
    }

    /// The newest revision.
    pub(super) fn newest(&self) -> Revision {
        self.0.head.revision
    }

    /// When a revision was made, or the oldest younger one.
    pub(super) fn noted(&self, revision: Revision) -> Option<Timestamp> {
        self.0.revisions.range(revision..).next().map(|(_, (_, at))| *at)
    }
}

#[cfg_attr(test, derive(Clone))]
struct State {
    keys: BTreeMap<KeyId, KeyRecord>,
    by_hash: HashMap<KeyHash, KeyId>,
    by_revision: BTreeSet<(Revision, KeyId)>,
    owners: BTreeMap<OwnerId, OwnerRecord>,
    repeatable: HashMap<RepeatName, Kept>,
    trail: VecDeque<AuditEntry>,
    anchor: Option<Anchor>,
    removed: BTreeMap<Revision, Vec<Removed>>,
    /// What is remembered of the past; the last entry is the head.
    revisions: BTreeMap<Revision, (RevisionToken, Timestamp)>,
    head: StoreHead,
}

/// Who does something when, what it is stamped with, and how its audit row is sealed.
#[derive(Clone, Copy)]
struct Act<'a> {
    by: &'a Actor,
    now: Timestamp,
    next: Revision,
    seal: &'a AuditSeal,
}

#[cfg_attr(test, derive(Clone))]
struct Kept {
    repeatable: Repeatable,
    at: Timestamp,
    revision: Revision,
}

impl MemoryStore {
    /// An empty store.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the operating system gives no random bytes.
    pub(super) fn new(seal: SharedSeal) -> Result<Self, StoreError> {
        let head = StoreHead { revision: Revision::ZERO, token: draw_token()? };
        let state = State {
            keys: BTreeMap::new(),
            by_hash: HashMap::new(),
            by_revision: BTreeSet::new(),
            owners: BTreeMap::new(),
            repeatable: HashMap::new(),
            trail: VecDeque::new(),
            anchor: None,
            removed: BTreeMap::new(),
            revisions: BTreeMap::from([(head.revision, (head.token, Timestamp::default()))]),
            head,
        };
        Ok(Self {
            state: Mutex::new(state),
            committed: watch::Sender::new(head),
            seal,
            counts: Mutex::default(),
            nodes: Mutex::default(),
        })
    }

    /// What is remembered of commits. Nothing is changed meanwhile.
    pub(super) fn history(&self) -> History<'_> {
        History(self.state.lock())
    }

    fn apply(&self, order: Order) -> Result<Effect, StoreError> {
        let token = draw_token()?;
        let mut state = self.state.lock();
        let effect = state.apply(order, token, &self.seal.load())?;
        if effect.is_change() {
            self.committed.send_replace(state.head);
        }
        Ok(effect)
    }
}

/// What a standby holds that lags behind.
#[cfg(test)]
pub(super) struct Past {
    state: State,
    nodes: BTreeMap<NodeId, (NodeReport, Timestamp)>,
}

#[cfg(test)]
impl MemoryStore {
    /// Records, history and nodes, as they are now.
    pub(super) fn remember(&self) -> Past {
        Past { state: self.state.lock().clone(), nodes: self.nodes.lock().clone() }
    }

    /// Becomes what it was: the standby has taken over, and what was committed since is lost.
    pub(super) fn go_back(&self, Past { state, nodes }: Past) {
        *self.state.lock() = state;
        *self.nodes.lock() = nodes;
    }
}

impl Commands for MemoryStore {
    fn apply_order(&self, order: Order) -> Answer<'_, Effect> {
        Box::pin(async move { self.apply(order) })
    }

    fn note_uses(&self, uses: Vec<(KeyId, Timestamp)>) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut state = self.state.lock();
            for (id, at) in uses {
                if let Some(record) = state.keys.get_mut(&id) {
                    record.last_used_at = record.last_used_at.max(Some(at));
                }
            }
            Ok(())
        })
    }
}

impl QuotaBook for MemoryStore {
    fn count_requests(&self, _: AdditionId, counts: Vec<(QuotaTerm, u64)>) -> Answer<'_, Vec<(QuotaTerm, u64)>> {
        Box::pin(async move {
            let mut kept = self.counts.lock();
            let add = |(term, more): (QuotaTerm, u64)| {
                let total = kept.entry(term).or_default();
                *total = total.saturating_add(more);
                (term, *total)
            };
            Ok(counts.into_iter().map(add).collect())
        })
    }

    fn current_counts(&self, now: Timestamp) -> Answer<'_, Vec<(QuotaTerm, u64)>> {
        Box::pin(async move {
            let mut kept = self.counts.lock();
            kept.retain(|term, _| now < term.begins.plus(term.period.longest()));
            Ok(kept.iter().map(|(term, total)| (*term, *total)).collect())
        })
    }
}

impl State {
    fn trail_head(&self) -> AuditHead {
        let dropped = || self.anchor.map(|anchor| anchor.last).unwrap_or_default();
        self.trail.back().map_or_else(dropped, AuditEntry::head)
    }
}

/// Waits until this process commits something after `seen`, at most for `patience`.
pub(super) async fn wait_for_commit(
    mut committed: watch::Receiver<StoreHead>,
    seen: StoreHead,
    patience: Duration,
) -> Result<(), StoreError> {
    let newer = committed.wait_for(|head| head.revision > seen.revision);
    // Running out of patience, and a writer that is gone, both mean: ask the store itself.
    drop(tokio::time::timeout(patience, newer).await);
    Ok(())
}
