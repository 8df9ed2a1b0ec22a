//! What commands do to records and to the trail.

use std::collections::HashSet;
use std::time::Duration;

use super::{Act, Kept, State};
use crate::domain::{KeyId, KeyRecord, KeyState, OwnerId, OwnerRecord, Revision, RevisionToken, StoreHead, Timestamp};
use crate::store::api::{MAX_FORGOTTEN_AT_ONCE, MAX_FORGOTTEN_ENTRIES_AT_ONCE, Removed, Repeatable};
use crate::store::archive::{Held, Restoration, Survivors, TakenTrail, Trail, TrailFate, difference};
use crate::store::audit::{Action, Difference, Draft, Dropped};
use crate::store::command::{AUDIT_SUBJECT, Command, Effect, Note, Order, Origin, STORE_SUBJECT, draw_token};
use crate::store::error::StoreError;
use crate::store::seal::AuditSeal;
use crate::store::trail::AuditEntry;

impl State {
    /// Carries an order out.
    pub(super) fn apply(&mut self, order: Order, token: RevisionToken, seal: &AuditSeal) -> Result<Effect, StoreError> {
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
}
