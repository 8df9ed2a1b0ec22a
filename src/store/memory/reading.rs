//! Answers about records, about the trail, and about what changed.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::{MemoryStore, State, wait_for_commit};
use crate::domain::{KeyHash, KeyId, KeyRecord, OwnerId, OwnerRecord, Revision, StoreHead, Timestamp};
use crate::store::api::{
    Answer, ChangeFeed, Changes, Holding, KeyFacts, KeyQuery, KeyReader, LoadBatch, MAX_CHANGED_KEYS, OwnerFacts, Page,
    PieceSink, Profile, RepeatName, Repeatable, Taken,
};
use crate::store::archive::{Piece, Stand};
use crate::store::seal::AuditHead;
use crate::store::trail::{AuditEntry, AuditExtent, AuditOrder, AuditQuery, AuditReader};
use crate::store::verify::{Verification, Verifier, Walk};

/// Keys handed over at a time.
const BATCH: usize = 4_096;

impl State {
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
