//! A store that lives as long as the process: for trials and tests. Same promises as the others, but for durability.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::SharedSeal;
use super::api::{
    Actor, Answer, ChangeFeed, Changes, Holding, KeyFacts, KeyQuery, KeyReader, LoadBatch, MAX_CHANGED_KEYS,
    MAX_FORGOTTEN_AT_ONCE, MAX_FORGOTTEN_ENTRIES_AT_ONCE, OwnerFacts, Page, PieceSink, Profile, QuotaBook, Removed,
    RepeatName, Repeatable, Taken,
};
use super::archive::{Held, Piece, Restoration, Stand, Survivors, TakenTrail, Trail, TrailFate, difference};
use super::audit::{Action, Difference, Draft, Dropped};
use super::command::{AUDIT_SUBJECT, Command, Commands, Effect, Note, Order, Origin, STORE_SUBJECT, draw_token};
use super::error::StoreError;
use super::nodes::NodeReport;
use super::seal::{AuditHead, AuditSeal};
use super::trail::{Anchor, AuditEntry, AuditExtent, AuditOrder, AuditQuery, AuditReader};
use super::verify::{Verification, Verifier, Walk};
use crate::domain::{
    KeyHash, KeyId, KeyRecord, KeyState, NodeId, OwnerId, OwnerRecord, QuotaTerm, Revision, RevisionToken, StoreHead,
    Timestamp,
};

/// Keys handed over at a time.
const BATCH: usize = 4_096;

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
    fn count_requests(&self, counts: Vec<(QuotaTerm, u64)>) -> Answer<'_, Vec<(QuotaTerm, u64)>> {
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
    fn apply(&mut self, order: Order, token: RevisionToken, seal: &AuditSeal) -> Result<Effect, StoreError> {
        let Order { command, now, by, repeatable } = order;
        self.repeatable.retain(|_, kept| now.since(kept.at) < Repeatable::KEPT);
        if repeatable.as_ref().is_some_and(|(name, _)| self.repeatable.contains_key(name)) {
            return Err(StoreError::Repeated);
        }
        let next = command.revision_behind(self.head.revision);
        let act = Act { by: &by, now, next, seal };
        let effect = match command {
            Command::InsertKeys { records, origin } => self.insert_keys(records, origin, act)?,
            Command::ReplaceKey { record } => self.replace_key(*record, act)?,
            Command::Rotate { successor, seen, grace_until } => self.rotate(*successor, seen, grace_until, act)?,
            Command::EndGrace { id } => self.end_grace(id, act),
            Command::SetActive { id, active } => self.set_active(id, active, act)?,
            Command::Revoke { id } => self.revoke(id, act)?,
            Command::InsertOwner { record } => self.insert_owner(record, act)?,
            Command::ReplaceOwner { record } => self.replace_owner(record, act)?,
            Command::SetSuspended { id, suspended } => self.set_suspended(id, suspended, act),
            Command::Forget { before } => self.forget(before, act),
            Command::ForgetAudit { retention } => self.forget_audit(retention, act),
            Command::Restore { restoration } => self.restore(&restoration, act)?,
            Command::Note { note } => self.note_elsewhere(note, act),
        };
        if let Some((name, repeatable)) = repeatable {
            self.repeatable.insert(name, Kept { repeatable, at: now, revision: next });
        }
        if effect.is_change() {
            self.head = StoreHead { revision: next, token };
            self.revisions.insert(next, (token, now));
        }
        Ok(effect)
    }

    fn insert_keys(&mut self, records: Vec<KeyRecord>, origin: Origin, act: Act<'_>) -> Result<Effect, StoreError> {
        if records.is_empty() {
            return Ok(Effect::Unchanged(self.head.revision));
        }
        let mut hashes = HashSet::with_capacity(records.len());
        let mut ids = HashSet::with_capacity(records.len());
        for (index, record) in records.iter().enumerate() {
            let known = self.by_hash.contains_key(&record.hash) || self.keys.contains_key(&record.id);
            if known || !hashes.insert(record.hash) || !ids.insert(record.id) {
                return Err(StoreError::Duplicate { index });
            }
            if let Some(id) = record.owner {
                let owner = self.owners.get(&id).ok_or(StoreError::UnknownOwner { index })?;
                let counts = |record: &&KeyRecord| record.owner == Some(id) && record.revoked_at.is_none();
                let with = records[..=index].iter().filter(counts).count();
                if let Some(most) = owner.max_keys.filter(|_| record.revoked_at.is_none())
                    && self.keys.values().filter(counts).count() + with > most as usize
                {
                    return Err(StoreError::TooManyKeys { index, most });
                }
            }
        }
        let rows = records.len() as u64;
        for record in records {
            self.note(origin.action(), &record.id.to_string(), &Difference::new_key(&record), act);
            self.put_key(record, act.next);
        }
        Ok(Effect::Changed(act.next, rows))
    }

    /// Adds a key or takes the place of what it was; returns that.
    fn put_key(&mut self, mut record: KeyRecord, next: Revision) -> Option<KeyRecord> {
        record.revision = next;
        self.by_hash.insert(record.hash, record.id);
        self.by_revision.insert((next, record.id));
        let before = self.keys.insert(record.id, record);
        if let Some(before) = &before {
            self.by_revision.remove(&(before.revision, before.id));
        }
        before
    }

    fn find_unchanged(&self, id: KeyId, seen: Revision) -> Result<Option<KeyRecord>, StoreError> {
        match self.keys.get(&id) {
            None => Ok(None),
            Some(found) if found.revoked_at.is_some() => Err(StoreError::Revoked),
            Some(found) if found.revision != seen => Err(StoreError::Stale { now_at: found.revision }),
            Some(found) => Ok(Some(found.clone())),
        }
    }

    fn replace_key(&mut self, record: KeyRecord, act: Act<'_>) -> Result<Effect, StoreError> {
        let Some(before) = self.find_unchanged(record.id, record.revision)? else { return Ok(Effect::NotFound) };
        let record = KeyRecord { last_used_at: before.last_used_at, ..record };
        if before == record {
            return Ok(Effect::Unchanged(before.revision));
        }
        if self.by_hash.get(&record.hash).is_some_and(|holder| *holder != record.id) {
            return Err(StoreError::Duplicate { index: 0 });
        }
        if record.owner.is_some_and(|owner| !self.owners.contains_key(&owner)) {
            return Err(StoreError::UnknownOwner { index: 0 });
        }
        self.keep_an_operator(&before, Some(&record), act)?;
        let action = Action::of_change(&before, &record);
        self.note(action, &record.id.to_string(), &Difference::of_keys(&before, &record), act);
        if before.hash != record.hash {
            self.by_hash.remove(&before.hash);
            self.removed.entry(act.next).or_default().push(Removed { id: before.id, hash: before.hash });
        }
        self.put_key(record, act.next);
        Ok(Effect::Changed(act.next, 1))
    }

    fn rotate(
        &mut self,
        successor: KeyRecord,
        seen: Revision,
        grace_until: Timestamp,
        act: Act<'_>,
    ) -> Result<Effect, StoreError> {
        let Some(old) = successor.replaces else { return Ok(Effect::NotFound) };
        let Some(before) = self.find_unchanged(old, seen)? else { return Ok(Effect::NotFound) };
        if self.by_hash.contains_key(&successor.hash) || self.keys.contains_key(&successor.id) {
            return Err(StoreError::Duplicate { index: 0 });
        }
        if successor.owner.is_some_and(|owner| !self.owners.contains_key(&owner)) {
            return Err(StoreError::UnknownOwner { index: 0 });
        }
        self.keep_an_operator(&before, Some(&successor), act)?;
        let after = KeyRecord { grace_until: Some(grace_until), ..before.clone() };
        self.note(Action::KeyCreate, &successor.id.to_string(), &Difference::new_key(&successor), act);
        self.note(Action::KeyRotate, &old.to_string(), &Difference::of_keys(&before, &after), act);
        self.put_key(successor, act.next);
        self.put_key(after, act.next);
        Ok(Effect::Changed(act.next, 2))
    }

    fn end_grace(&mut self, id: KeyId, act: Act<'_>) -> Effect {
        let Some(before) = self.keys.get(&id).cloned() else { return Effect::NotFound };
        if before.revoked_at.is_some() || before.grace_until.is_none_or(|grace| grace <= act.now) {
            return Effect::Unchanged(before.revision);
        }
        let after = KeyRecord { grace_until: Some(act.now), ..before.clone() };
        self.note(Action::KeyEndGrace, &id.to_string(), &Difference::of_keys(&before, &after), act);
        self.put_key(after, act.next);
        Effect::Changed(act.next, 1)
    }

    /// Before `before` becomes `after`: refuses it when that is an operator key and none that works would be left.
    fn keep_an_operator(&self, before: &KeyRecord, after: Option<&KeyRecord>, act: Act<'_>) -> Result<(), StoreError> {
        let Act { by, now, .. } = act;
        let operates = |record: &KeyRecord| record.is_operator() && record.state(now) == KeyState::Active;
        if !by.is_guarded() || !operates(before) {
            return Ok(());
        }
        let stays = |record: &KeyRecord| record.operates_like(before, now);
        let others = self.keys.values().filter(|record| record.id != before.id);
        if others.chain(after).any(stays) { Ok(()) } else { Err(StoreError::LastOperator) }
    }

    fn replace_owner(&mut self, mut record: OwnerRecord, act: Act<'_>) -> Result<Effect, StoreError> {
        let Some(before) = self.owners.get(&record.id) else { return Ok(Effect::NotFound) };
        if before.revision != record.revision {
            return Err(StoreError::Stale { now_at: before.revision });
        }
        if *before == record {
            return Ok(Effect::Unchanged(before.revision));
        }
        let difference = Difference::of_owners(before, &record);
        self.note(Action::OwnerUpdate, &record.id.to_string(), &difference, act);
        record.revision = act.next;
        self.owners.insert(record.id, record);
        Ok(Effect::Changed(act.next, 1))
    }

    fn set_active(&mut self, id: KeyId, active: bool, act: Act<'_>) -> Result<Effect, StoreError> {
        let Some(before) = self.keys.get(&id) else { return Ok(Effect::NotFound) };
        if before.revoked_at.is_some() {
            return Err(StoreError::Revoked);
        }
        if before.active == active {
            return Ok(Effect::Unchanged(before.revision));
        }
        let after = KeyRecord { active, ..before.clone() };
        self.keep_an_operator(before, Some(&after), act)?;
        let action = if active { Action::KeyEnable } else { Action::KeyDisable };
        self.note(action, &id.to_string(), &Difference::switch("active", active), act);
        self.put_key(after, act.next);
        Ok(Effect::Changed(act.next, 1))
    }

    fn revoke(&mut self, id: KeyId, act: Act<'_>) -> Result<Effect, StoreError> {
        let Some(before) = self.keys.get(&id) else { return Ok(Effect::NotFound) };
        if before.revoked_at.is_some() {
            return Ok(Effect::Unchanged(before.revision));
        }
        self.keep_an_operator(before, None, act)?;
        let after = KeyRecord { revoked_at: Some(act.now), ..before.clone() };
        self.note(Action::KeyRevoke, &id.to_string(), &Difference::revoked(act.now), act);
        self.put_key(after, act.next);
        Ok(Effect::Changed(act.next, 1))
    }

    fn insert_owner(&mut self, mut record: OwnerRecord, act: Act<'_>) -> Result<Effect, StoreError> {
        if self.owners.contains_key(&record.id) {
            return Err(StoreError::Duplicate { index: 0 });
        }
        self.note(Action::OwnerCreate, &record.id.to_string(), &Difference::new_owner(&record), act);
        record.revision = act.next;
        self.owners.insert(record.id, record);
        Ok(Effect::Changed(act.next, 1))
    }

    fn set_suspended(&mut self, id: OwnerId, suspended: bool, act: Act<'_>) -> Effect {
        let Some(owner) = self.owners.get_mut(&id) else { return Effect::NotFound };
        if owner.suspended == suspended {
            return Effect::Unchanged(owner.revision);
        }
        owner.suspended = suspended;
        owner.revision = act.next;
        let action = if suspended { Action::OwnerSuspend } else { Action::OwnerResume };
        self.note(action, &id.to_string(), &Difference::switch("suspended", suspended), act);
        Effect::Changed(act.next, 1)
    }

    fn forget(&mut self, before: Timestamp, act: Act<'_>) -> Effect {
        // The newest revision older than `before` stays: readers that have it are not behind by as much as that.
        let oldest = self.revisions.iter().rev().find(|(_, (_, at))| *at < before).map(|(revision, _)| *revision);
        if let Some(oldest) = oldest {
            self.revisions.retain(|revision, _| *revision >= oldest);
            self.removed.retain(|revision, _| *revision > oldest);
        }
        let old = |record: &&KeyRecord| record.revoked_at.is_some_and(|at| at < before);
        let gone: Vec<KeyRecord> = self.keys.values().filter(old).take(MAX_FORGOTTEN_AT_ONCE).cloned().collect();
        for record in &gone {
            self.keys.remove(&record.id);
            self.by_hash.remove(&record.hash);
            self.by_revision.remove(&(record.revision, record.id));
            self.removed.entry(act.next).or_default().push(Removed { id: record.id, hash: record.hash });
            self.note(Action::KeyForget, &record.id.to_string(), &Difference::forgotten(record.revoked_at), act);
        }
        match gone.len() {
            0 => Effect::Unchanged(self.head.revision),
            rows => Effect::Changed(act.next, rows as u64),
        }
    }

    fn forget_audit(&mut self, retention: Duration, act: Act<'_>) -> Effect {
        let before = act.now.minus(retention);
        let old = self.trail.iter().take(MAX_FORGOTTEN_ENTRIES_AT_ONCE).take_while(|entry| entry.at < before);
        let rows = old.count();
        let Some(last) = rows.checked_sub(1).and_then(|last| self.trail.get(last)) else {
            return Effect::Unchanged(self.head.revision);
        };
        let dropped = Dropped { last: last.head(), last_at: last.at, retention };
        self.note(Action::AuditForget, AUDIT_SUBJECT, &dropped.difference(), act);
        self.trail.drain(..rows);
        self.anchor = Some(dropped.anchor());
        Effect::Changed(act.next, rows as u64)
    }

    fn restore(&mut self, restoration: &Restoration, act: Act<'_>) -> Result<Effect, StoreError> {
        let Restoration { archive, replace } = restoration;
        let (keys, owners) = (self.keys.len() as u64, self.owners.len() as u64);
        let held = Held { revision: self.head.revision, keys, owners };
        let end = archive.trail_head().entry;
        let at_the_backups_end = self.trail.iter().find(|entry| entry.entry == end).map(|entry| entry.head().mac);
        let trail = Trail { head: self.trail_head(), anchor: self.anchor, at_the_backups_end };
        if !replace && !held.is_nothing(&trail) {
            return Err(StoreError::NotEmpty { keys, owners });
        }
        let revocation = |entry: &AuditEntry| Some((entry.subject.parse().ok()?, entry.at));
        let revocations = self.trail.iter().filter(|entry| entry.action == Action::KeyRevoke.name());
        let mut survivors = Survivors::new(
            self.keys.values().filter(|record| record.revoked_at.is_some()).cloned().collect(),
            revocations.filter_map(revocation),
            self.removed.values().flatten().copied(),
            act.now,
        );
        for id in survivors.asked_for(archive) {
            self.keys.get(&id).into_iter().for_each(|record| survivors.learn(record.clone()));
        }
        let missing = survivors.owners_missing_in(archive);
        let missing: Vec<OwnerRecord> = missing.iter().filter_map(|id| self.owners.get(id).cloned()).collect();
        let strange = draw_token()?;
        self.revisions.values_mut().for_each(|(token, _)| *token = strange);
        self.repeatable.clear();
        self.keys.clear();
        self.by_hash.clear();
        self.by_revision.clear();
        self.owners.clear();
        for owner in archive.owners.iter().chain(&missing) {
            self.owners.insert(owner.id, OwnerRecord { revision: act.next, ..owner.clone() });
        }
        for record in &archive.keys {
            if let Some(record) = survivors.settle(record) {
                self.put_key(record, act.next);
            }
        }
        for record in survivors.revoked() {
            self.put_key(record.clone(), act.next);
        }
        let fate = TrailFate::of(&trail, archive);
        match fate {
            TrailFate::Kept => {}
            TrailFate::Taken | TrailFate::Replaced => self.take_trail(&archive.taken_trail(), act),
        }
        let told = difference(restoration, held, &trail, fate, &survivors);
        self.note(Action::StoreRestore, STORE_SUBJECT, &told, act);
        Ok(Effect::Changed(act.next, archive.keys.len() as u64))
    }

    fn take_trail(&mut self, taken: &TakenTrail<'_>, act: Act<'_>) {
        self.anchor = taken.anchor;
        self.trail = taken.entries.iter().cloned().collect();
        if let Some(dropped) = taken.dropped {
            self.note(Action::AuditForget, AUDIT_SUBJECT, &dropped.difference(), act);
        }
    }

    fn note_elsewhere(&mut self, note: Note, act: Act<'_>) -> Effect {
        let (action, subject) = (note.action(), note.subject());
        self.note(action, &subject, &note.difference(), act);
        Effect::Changed(act.next, 0)
    }

    /// Writes the audit row of what is done.
    fn note(&mut self, action: Action, subject: &str, difference: &Difference, act: Act<'_>) {
        let Act { by, now, next, seal } = act;
        let draft = Draft { revision: next, at: now, by, action, subject: subject.to_owned(), difference };
        let entry = draft.seal_behind(self.trail_head(), seal);
        self.trail.push_back(entry);
    }

    fn trail_head(&self) -> AuditHead {
        let dropped = || self.anchor.map(|anchor| anchor.last).unwrap_or_default();
        self.trail.back().map_or_else(dropped, AuditEntry::head)
    }

    fn changes_since(&self, since: StoreHead) -> Changes {
        match self.revisions.get(&since.revision) {
            Some((token, _)) if *token == since.token => {}
            Some(_) => return Changes::OtherHistory,
            None if since.revision > self.head.revision => return Changes::OtherHistory,
            None => return Changes::TooOld,
        }
        let after = (Bound::Excluded(since.revision), Bound::Unbounded);
        let first = (since.revision.next(), KeyId::from_bytes([0; 16]));
        let changed: Vec<&KeyRecord> = self
            .by_revision
            .range(first..)
            .take(MAX_CHANGED_KEYS + 1)
            .filter_map(|(_, id)| self.keys.get(id))
            .collect();
        if changed.len() > MAX_CHANGED_KEYS {
            return Changes::TooOld;
        }
        let mut facts = FactsOf::default();
        let mut keys: Vec<(Revision, KeyFacts)> =
            changed.into_iter().map(|record| (record.revision, facts.of(record))).collect();
        keys.sort_by_key(|(revision, key)| (*revision, key.is_off()));
        Changes::Since {
            owners: self.owners.values().filter(|o| o.revision > since.revision).map(OwnerFacts::of).collect(),
            keys: keys.into_iter().map(|(_, key)| key).collect(),
            removed: self.removed.range(after).flat_map(|(_, gone)| gone.iter().copied()).collect(),
            head: self.head,
        }
    }
}

impl AuditReader for MemoryStore {
    fn list_audit(&self, query: AuditQuery) -> Answer<'_, Page<AuditEntry>> {
        Box::pin(async move {
            let state = self.state.lock();
            let in_order: Box<dyn Iterator<Item = &AuditEntry> + Send> = match query.order {
                AuditOrder::NewestFirst => Box::new(state.trail.iter().rev()),
                AuditOrder::OldestFirst => Box::new(state.trail.iter()),
            };
            let is_behind = |entry: &&AuditEntry| match (query.after, query.order) {
                (None, _) => true,
                (Some(after), AuditOrder::NewestFirst) => entry.entry < after,
                (Some(after), AuditOrder::OldestFirst) => entry.entry > after,
            };
            let mut found = in_order.filter(is_behind).filter(|entry| query.wants(entry));
            let items = found.by_ref().take(query.page_size()).cloned().collect();
            Ok(Page { items, more: found.next().is_some() })
        })
    }

    fn audit_extent(&self) -> Answer<'_, AuditExtent> {
        Box::pin(async move {
            let state = self.state.lock();
            Ok(AuditExtent { head: state.trail_head(), entries: state.trail.len() as u64 })
        })
    }

    fn verify_audit(&self, head: Option<AuditHead>) -> Answer<'_, Verification> {
        Box::pin(async move {
            let seal = self.seal.load_full();
            let state = self.state.lock();
            let mut verifier = Verifier::new(&seal, state.anchor, head);
            for entry in &state.trail {
                if verifier.take(entry) == Walk::Stop {
                    break;
                }
            }
            Ok(verifier.conclude())
        })
    }
}

/// Reduces records to facts, sharing equal profiles and names.
#[derive(Default)]
struct FactsOf {
    profiles: HashMap<Profile, Arc<Profile>>,
    environments: HashMap<String, Arc<str>>,
}

impl FactsOf {
    fn of(&mut self, record: &KeyRecord) -> KeyFacts {
        let shared = self.profiles.entry(Profile::of(record)).or_insert_with_key(|profile| Arc::new(profile.clone()));
        let environment = self.environments.entry(record.environment.clone());
        KeyFacts {
            id: record.id,
            hash: record.hash,
            owner: record.owner,
            environment: environment.or_insert_with_key(|name| name.as_str().into()).clone(),
            kind: record.kind,
            profile: shared.clone(),
            active: record.active,
            revoked_at: record.revoked_at,
            dies_at: record.dies_at(),
            created_at: record.created_at,
            lineage: record.lineage,
            ends_on_use: record.replaces.filter(|_| record.ends_on_use),
        }
    }
}

impl KeyReader for MemoryStore {
    fn find_key(&self, id: KeyId) -> Answer<'_, Option<KeyRecord>> {
        Box::pin(async move { Ok(self.state.lock().keys.get(&id).cloned()) })
    }

    fn list_keys(&self, query: KeyQuery) -> Answer<'_, Page<KeyRecord>> {
        Box::pin(async move {
            let state = self.state.lock();
            let after = query.after.map_or(Bound::Unbounded, Bound::Excluded);
            let wanted = |record: &&KeyRecord| is_wanted(&query, record);
            let mut found = state.keys.range((after, Bound::Unbounded)).map(|(_, record)| record).filter(wanted);
            let items = found.by_ref().take(query.page_size()).cloned().collect();
            Ok(Page { items, more: found.next().is_some() })
        })
    }

    fn list_owners(&self) -> Answer<'_, Vec<OwnerRecord>> {
        Box::pin(async move { Ok(self.state.lock().owners.values().cloned().collect()) })
    }

    fn find_owner(&self, id: OwnerId) -> Answer<'_, Option<OwnerRecord>> {
        Box::pin(async move { Ok(self.state.lock().owners.get(&id).cloned()) })
    }

    fn find_taken(&self, ids: Vec<KeyId>, hashes: Vec<KeyHash>) -> Answer<'_, Taken> {
        Box::pin(async move {
            let state = self.state.lock();
            let by_hash = |hash| state.by_hash.get(&hash).map(|id| (hash, *id));
            Ok(Taken {
                ids: ids.into_iter().filter(|id| state.keys.contains_key(id)).collect(),
                hashes: hashes.into_iter().filter_map(by_hash).collect(),
            })
        })
    }

    fn find_holdings(&self, owners: Vec<OwnerId>) -> Answer<'_, Vec<Holding>> {
        Box::pin(async move {
            let state = self.state.lock();
            let mut counts: HashMap<OwnerId, u32> = HashMap::new();
            for owner in state.keys.values().filter(|key| key.revoked_at.is_none()).filter_map(|key| key.owner) {
                *counts.entry(owner).or_default() += 1;
            }
            let holding = |owner: &OwnerRecord| {
                let keys =
                    owner.max_keys.map_or(0, |most| counts.get(&owner.id).copied().unwrap_or_default().min(most));
                Holding { owner: owner.clone(), keys }
            };
            Ok(owners.iter().filter_map(|id| state.owners.get(id)).map(holding).collect())
        })
    }

    fn copy_all<'a>(&'a self, sink: PieceSink<'a>) -> Answer<'a, ()> {
        Box::pin(async move {
            let state = self.state.lock();
            let stand = Stand { revision: state.head.revision, anchor: state.anchor };
            let _wanted = sink(Piece::Stand(stand))
                && sink(Piece::Owners(state.owners.values().cloned().collect()))
                && sink(Piece::Keys(state.keys.values().cloned().collect()))
                && sink(Piece::Entries(state.trail.iter().cloned().collect()));
            Ok(())
        })
    }

    fn find_repeatable(&self, name: RepeatName, now: Timestamp) -> Answer<'_, Option<(Repeatable, Revision)>> {
        Box::pin(async move {
            let state = self.state.lock();
            let kept = state.repeatable.get(&name).filter(|kept| now.since(kept.at) < Repeatable::KEPT);
            Ok(kept.map(|kept| (kept.repeatable.clone(), kept.revision)))
        })
    }
}

fn is_wanted(query: &KeyQuery, record: &KeyRecord) -> bool {
    query.owner.is_none_or(|owner| record.owner == Some(owner))
        && (!query.unowned || record.owner.is_none())
        && (!query.no_management || record.kind != crate::domain::KeyKind::Management)
        && query.environment.as_ref().is_none_or(|name| record.environment == *name)
        && query.kind.is_none_or(|kind| record.kind == kind)
        && query.state.is_none_or(|(state, now)| record.state(now) == state)
        && query.name.as_ref().is_none_or(|name| record.name == *name)
        && query.prefix.as_ref().is_none_or(|prefix| record.prefix.starts_with(prefix.as_str()))
}

impl ChangeFeed for MemoryStore {
    fn head(&self) -> Answer<'_, StoreHead> {
        Box::pin(async move { Ok(self.state.lock().head) })
    }

    fn load_all<'a>(&'a self, sink: &'a mut (dyn FnMut(LoadBatch) + Send)) -> Answer<'a, StoreHead> {
        Box::pin(async move {
            let state = self.state.lock();
            sink(LoadBatch::Expect { keys: state.keys.len() });
            sink(LoadBatch::Owners(state.owners.values().map(OwnerFacts::of).collect()));
            let mut facts = FactsOf::default();
            let mut records = state.keys.values();
            loop {
                let batch: Vec<KeyFacts> = records.by_ref().take(BATCH).map(|record| facts.of(record)).collect();
                if batch.is_empty() {
                    return Ok(state.head);
                }
                sink(LoadBatch::Keys(batch));
            }
        })
    }

    fn changes_since(&self, since: StoreHead) -> Answer<'_, Changes> {
        Box::pin(async move { Ok(self.state.lock().changes_since(since)) })
    }

    fn wait_for_change(&self, seen: StoreHead, patience: Duration) -> Answer<'_, ()> {
        Box::pin(wait_for_commit(self.committed.subscribe(), seen, patience))
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
