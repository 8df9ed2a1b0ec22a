//! A store that lives as long as the process: for trials and tests. Same promises as the others, but for durability
//! and for the audit trail, which nothing could read after the process that it tells of.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::api::{
    Actor, Answer, ChangeFeed, Changes, KeyFacts, KeyQuery, KeyReader, LoadBatch, MAX_CHANGED_KEYS,
    MAX_FORGOTTEN_AT_ONCE, OwnerFacts, Page, Profile, QuotaBook, Removed, RepeatName, Repeatable,
};
use super::command::{Command, Commands, Effect, Order, draw_token};
use super::error::StoreError;
use crate::domain::{
    KeyHash, KeyId, KeyRecord, KeyState, OwnerId, OwnerRecord, QuotaTerm, Revision, RevisionToken, StoreHead, Timestamp,
};

/// Keys handed over at a time.
const BATCH: usize = 4_096;

/// See the module.
pub(super) struct MemoryStore {
    state: Mutex<State>,
    committed: watch::Sender<StoreHead>,
    counts: Mutex<HashMap<QuotaTerm, u64>>,
}

struct State {
    keys: BTreeMap<KeyId, KeyRecord>,
    by_hash: HashMap<KeyHash, KeyId>,
    by_revision: BTreeSet<(Revision, KeyId)>,
    owners: BTreeMap<OwnerId, OwnerRecord>,
    repeatable: HashMap<RepeatName, Kept>,
    removed: BTreeMap<Revision, Vec<Removed>>,
    /// What is remembered of the past; the last entry is the head.
    revisions: BTreeMap<Revision, (RevisionToken, Timestamp)>,
    head: StoreHead,
}

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
    pub(super) fn new() -> Result<Self, StoreError> {
        let head = StoreHead { revision: Revision::ZERO, token: draw_token()? };
        let state = State {
            keys: BTreeMap::new(),
            by_hash: HashMap::new(),
            by_revision: BTreeSet::new(),
            owners: BTreeMap::new(),
            repeatable: HashMap::new(),
            removed: BTreeMap::new(),
            revisions: BTreeMap::from([(head.revision, (head.token, Timestamp::default()))]),
            head,
        };
        Ok(Self { state: Mutex::new(state), committed: watch::Sender::new(head), counts: Mutex::default() })
    }

    fn apply(&self, order: Order) -> Result<Effect, StoreError> {
        let token = draw_token()?;
        let mut state = self.state.lock();
        let effect = state.apply(order, token)?;
        if effect.is_change() {
            self.committed.send_replace(state.head);
        }
        Ok(effect)
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
    fn apply(&mut self, order: Order, token: RevisionToken) -> Result<Effect, StoreError> {
        let Order { command, now, by, repeatable } = order;
        self.repeatable.retain(|_, kept| now.since(kept.at) < Repeatable::KEPT);
        if repeatable.as_ref().is_some_and(|(name, _)| self.repeatable.contains_key(name)) {
            return Err(StoreError::Repeated);
        }
        let next = self.head.revision.next();
        let effect = match command {
            Command::InsertKeys { records, .. } => self.insert_keys(records, next)?,
            Command::ReplaceKey { record } => self.replace_key(*record, &by, now, next)?,
            Command::Rotate { successor, seen, grace_until } => {
                self.rotate(*successor, seen, grace_until, &by, now, next)?
            }
            Command::EndGrace { id } => self.end_grace(id, now, next),
            Command::SetActive { id, active } => self.set_active(id, active, &by, now, next)?,
            Command::Revoke { id } => self.revoke(id, &by, now, next)?,
            Command::InsertOwner { record } => self.insert_owner(record, next)?,
            Command::ReplaceOwner { record } => self.replace_owner(record, next)?,
            Command::SetSuspended { id, suspended } => self.set_suspended(id, suspended, next),
            Command::Forget { before } => self.forget(before, next),
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

    fn insert_keys(&mut self, records: Vec<KeyRecord>, next: Revision) -> Result<Effect, StoreError> {
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
            self.put_key(record, next);
        }
        Ok(Effect::Changed(next, rows))
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

    fn replace_key(
        &mut self,
        record: KeyRecord,
        by: &Actor,
        now: Timestamp,
        next: Revision,
    ) -> Result<Effect, StoreError> {
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
        self.keep_an_operator(&before, Some(&record), by, now)?;
        if before.hash != record.hash {
            self.by_hash.remove(&before.hash);
            self.removed.entry(next).or_default().push(Removed { id: before.id, hash: before.hash });
        }
        self.put_key(record, next);
        Ok(Effect::Changed(next, 1))
    }

    fn rotate(
        &mut self,
        successor: KeyRecord,
        seen: Revision,
        grace_until: Timestamp,
        by: &Actor,
        now: Timestamp,
        next: Revision,
    ) -> Result<Effect, StoreError> {
        let Some(old) = successor.replaces else { return Ok(Effect::NotFound) };
        let Some(before) = self.find_unchanged(old, seen)? else { return Ok(Effect::NotFound) };
        if self.by_hash.contains_key(&successor.hash) || self.keys.contains_key(&successor.id) {
            return Err(StoreError::Duplicate { index: 0 });
        }
        if successor.owner.is_some_and(|owner| !self.owners.contains_key(&owner)) {
            return Err(StoreError::UnknownOwner { index: 0 });
        }
        self.keep_an_operator(&before, Some(&successor), by, now)?;
        self.put_key(successor, next);
        self.put_key(KeyRecord { grace_until: Some(grace_until), ..before }, next);
        Ok(Effect::Changed(next, 2))
    }

    fn end_grace(&mut self, id: KeyId, now: Timestamp, next: Revision) -> Effect {
        let Some(record) = self.keys.get(&id) else { return Effect::NotFound };
        if record.revoked_at.is_some() || record.grace_until.is_none_or(|grace| grace <= now) {
            return Effect::Unchanged(record.revision);
        }
        self.put_key(KeyRecord { grace_until: Some(now), ..record.clone() }, next);
        Effect::Changed(next, 1)
    }

    /// Before `before` becomes `after`: refuses it when that is an operator key and none that works would be left.
    fn keep_an_operator(
        &self,
        before: &KeyRecord,
        after: Option<&KeyRecord>,
        by: &Actor,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let operates = |record: &KeyRecord| record.is_operator() && record.state(now) == KeyState::Active;
        if !by.is_guarded() || !operates(before) {
            return Ok(());
        }
        // One that lives on for a grace only is as good as gone.
        let stays = |record: &KeyRecord| operates(record) && record.grace_until.is_none();
        let others = self.keys.values().filter(|record| record.id != before.id);
        if others.chain(after).any(stays) { Ok(()) } else { Err(StoreError::LastOperator) }
    }

    fn replace_owner(&mut self, mut record: OwnerRecord, next: Revision) -> Result<Effect, StoreError> {
        let Some(before) = self.owners.get(&record.id) else { return Ok(Effect::NotFound) };
        if before.revision != record.revision {
            return Err(StoreError::Stale { now_at: before.revision });
        }
        if *before == record {
            return Ok(Effect::Unchanged(before.revision));
        }
        record.revision = next;
        self.owners.insert(record.id, record);
        Ok(Effect::Changed(next, 1))
    }

    fn set_active(
        &mut self,
        id: KeyId,
        active: bool,
        by: &Actor,
        now: Timestamp,
        next: Revision,
    ) -> Result<Effect, StoreError> {
        let Some(before) = self.keys.get(&id) else { return Ok(Effect::NotFound) };
        if before.revoked_at.is_some() {
            return Err(StoreError::Revoked);
        }
        if before.active == active {
            return Ok(Effect::Unchanged(before.revision));
        }
        let after = KeyRecord { active, ..before.clone() };
        self.keep_an_operator(before, Some(&after), by, now)?;
        self.put_key(after, next);
        Ok(Effect::Changed(next, 1))
    }

    fn revoke(&mut self, id: KeyId, by: &Actor, now: Timestamp, next: Revision) -> Result<Effect, StoreError> {
        let Some(before) = self.keys.get(&id) else { return Ok(Effect::NotFound) };
        if before.revoked_at.is_some() {
            return Ok(Effect::Unchanged(before.revision));
        }
        self.keep_an_operator(before, None, by, now)?;
        self.put_key(KeyRecord { revoked_at: Some(now), ..before.clone() }, next);
        Ok(Effect::Changed(next, 1))
    }

    fn insert_owner(&mut self, mut record: OwnerRecord, next: Revision) -> Result<Effect, StoreError> {
        if self.owners.contains_key(&record.id) {
            return Err(StoreError::Duplicate { index: 0 });
        }
        record.revision = next;
        self.owners.insert(record.id, record);
        Ok(Effect::Changed(next, 1))
    }

    fn set_suspended(&mut self, id: OwnerId, suspended: bool, next: Revision) -> Effect {
        let Some(owner) = self.owners.get_mut(&id) else { return Effect::NotFound };
        if owner.suspended == suspended {
            return Effect::Unchanged(owner.revision);
        }
        owner.suspended = suspended;
        owner.revision = next;
        Effect::Changed(next, 1)
    }

    fn forget(&mut self, before: Timestamp, next: Revision) -> Effect {
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
            self.removed.entry(next).or_default().push(Removed { id: record.id, hash: record.hash });
        }
        match gone.len() {
            0 => Effect::Unchanged(self.head.revision),
            rows => Effect::Changed(next, rows as u64),
        }
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
