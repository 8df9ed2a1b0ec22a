//! What each order does to the tables, its audit row included. Runs inside the writer's transaction.

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::fault::{Fault, is_duplicate};
use super::lookups;
use super::restore;
use super::rows::{self, Names};
use super::trail;
use super::writer::{number, revision_of};
use crate::domain::{Bounds, KeyId, KeyKind, KeyRecord, KeyState, OwnerId, OwnerRecord, Revision, Timestamp};
use crate::store::api::{MAX_FORGOTTEN_AT_ONCE, MAX_FORGOTTEN_ENTRIES_AT_ONCE, RepeatName, Repeatable};
use crate::store::audit::{Action, Difference, Draft, Dropped};
use crate::store::columns::{Terms, kind_number, list_to_json, metadata_to_json, to_json};
use crate::store::command::{AUDIT_SUBJECT, Command, Effect, Note, Order, Origin};
use crate::store::error::StoreError;
use crate::store::seal::{AuditHead, AuditSeal};

/// Inserting this many needs more of the indexes at hand than the usual cache holds.
const MANY: usize = 1_000;

/// Whether an order is so large that it should have a transaction of its own.
pub(super) fn goes_alone(order: &Order) -> bool {
    match &order.command {
        Command::InsertKeys { records, .. } => records.len() >= MANY,
        Command::Restore { .. } => true,
        Command::ReplaceKey { .. }
        | Command::Rotate { .. }
        | Command::EndGrace { .. }
        | Command::SetActive { .. }
        | Command::Revoke { .. }
        | Command::InsertOwner { .. }
        | Command::ReplaceOwner { .. }
        | Command::SetSuspended { .. }
        | Command::Forget { .. }
        | Command::ForgetAudit { .. }
        | Command::Note { .. } => false,
    }
}

/// Applies `order`; whatever changes is stamped with `next`. `newest` is the revision before this transaction.
pub(super) fn apply(
    connection: &Connection,
    order: &Order,
    newest: Revision,
    next: Revision,
    seal: &AuditSeal,
) -> Result<Effect, Fault> {
    let write = Write { connection, order, next, seal, trail: Cell::new(None) };
    if let Some((name, repeatable)) = &order.repeatable {
        write.keep(name, repeatable)?;
    }
    match &order.command {
        Command::InsertKeys { records, .. } if records.is_empty() => Ok(Effect::Unchanged(newest)),
        Command::InsertKeys { records, origin } => write.insert_keys(records, *origin),
        Command::ReplaceKey { record } => write.replace_key(record),
        Command::Rotate { successor, seen, grace_until } => write.rotate(successor, *seen, *grace_until),
        Command::EndGrace { id } => write.end_grace(*id),
        Command::SetActive { id, active } => write.set_active(*id, *active),
        Command::Revoke { id } => write.revoke(*id),
        Command::InsertOwner { record } => write.insert_owner(record),
        Command::ReplaceOwner { record } => write.replace_owner(record),
        Command::SetSuspended { id, suspended } => write.set_suspended(*id, *suspended),
        Command::Forget { before } => write.forget(*before, newest),
        Command::ForgetAudit { retention } => write.forget_audit(*retention, newest),
        Command::Restore { restoration } => write.with_a_large_cache(|| restore::restore(&write, restoration, newest)),
        Command::Note { note } => write.note_elsewhere(note),
    }
}

/// An order under way.
pub(super) struct Write<'a> {
    pub(super) connection: &'a Connection,
    pub(super) order: &'a Order,
    pub(super) next: Revision,
    seal: &'a AuditSeal,
    /// Where the audit trail ends, once this order has looked. Nobody else writes meanwhile: the transaction is ours.
    trail: Cell<Option<AuditHead>>,
}

impl Write<'_> {
    fn insert_keys(&self, records: &[KeyRecord], origin: Origin) -> Result<Effect, Fault> {
        if records.len() >= MANY {
            self.with_a_large_cache(|| self.insert_each(records, origin))?;
        } else {
            self.insert_each(records, origin)?;
        }
        Ok(Effect::Changed(self.next, records.len() as u64))
    }

    /// Does something for which the usual cache is too small.
    pub(super) fn with_a_large_cache<T>(&self, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        self.connection.execute_batch("PRAGMA cache_size = -65536")?;
        let done = work();
        self.connection.execute_batch("PRAGMA cache_size = -2000; PRAGMA shrink_memory")?;
        done
    }

    fn insert_each(&self, records: &[KeyRecord], origin: Origin) -> Result<(), Fault> {
        let mut interned = Interned::new(self.connection);
        let mut room = HashMap::new();
        for (index, record) in records.iter().enumerate() {
            if let Some(owner) = record.owner {
                self.take_room(&mut room, owner, record, index)?;
            }
            self.insert_key(record, index, &mut interned)?;
            self.note(origin.action(), &record.id.to_string(), &Difference::new_key(record))?;
        }
        Ok(())
    }

    /// Refuses a key for which its owner has no room. `room` holds how many more each owner may have.
    fn take_room(
        &self,
        room: &mut HashMap<OwnerId, Option<(u32, u32)>>,
        owner: OwnerId,
        record: &KeyRecord,
        index: usize,
    ) -> Result<(), Fault> {
        let left = match room.entry(owner) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(self.room_of(owner, index)?),
        };
        match left {
            Some((0, most)) if record.revoked_at.is_none() => {
                Err(StoreError::TooManyKeys { index, most: *most }.into())
            }
            Some((left, _)) if record.revoked_at.is_none() => {
                *left -= 1;
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// How many more keys an owner may have, and how many at all; `None` when there is no bound.
    fn room_of(&self, owner: OwnerId, index: usize) -> Result<Option<(u32, u32)>, Fault> {
        let record = super::find_owner(self.connection, owner)?.ok_or(StoreError::UnknownOwner { index })?;
        let Some(most) = record.max_keys else { return Ok(None) };
        let has = lookups::count_keys(self.connection, owner, most)?;
        Ok(Some((most.saturating_sub(has), most)))
    }

    /// Adds a key, stamped with the next revision.
    pub(super) fn insert_key(
        &self,
        record: &KeyRecord,
        index: usize,
        interned: &mut Interned<'_>,
    ) -> Result<(), Fault> {
        match self.write_key(rows::INSERT_KEY, record, index, interned) {
            Err(Fault::Sqlite(error)) if is_duplicate(&error) => Err(StoreError::Duplicate { index }.into()),
            result => result,
        }
    }

    /// Binds all columns of a key to a statement, stamped with the next revision.
    fn write_key(
        &self,
        statement: &str,
        record: &KeyRecord,
        index: usize,
        interned: &mut Interned<'_>,
    ) -> Result<(), Fault> {
        let owner = match record.owner {
            None => None,
            Some(owner) => Some(self.owner_number(owner)?.ok_or(StoreError::UnknownOwner { index })?),
        };
        self.connection.prepare_cached(statement)?.execute(params![
            record.id.to_bytes(),
            record.hash.as_bytes(),
            interned.profile(record)?,
            owner,
            interned.environment(&record.environment)?,
            kind_number(record.kind),
            record.active,
            record.revoked_at.map(Timestamp::unix_ms),
            record.expires_at.map(Timestamp::unix_ms),
            record.grace_until.map(Timestamp::unix_ms),
            record.created_at.unix_ms(),
            number(self.next),
            record.name,
            Some(&record.description).filter(|text| !text.is_empty()),
            record.prefix,
            record.last4,
            record.pepper,
            list_to_json(&record.may_grant)?,
            record.created_by,
            record.replaces.map(KeyId::to_bytes),
            metadata_to_json(&record.metadata)?,
            interned.bounds(&record.bounds)?,
            Some(record.lineage).filter(|lineage| *lineage != record.id).map(KeyId::to_bytes),
            record.paired,
            record.ends_on_use,
        ])?;
        Ok(())
    }

    pub(super) fn read_key(&self, id: KeyId) -> Result<Option<KeyRecord>, Fault> {
        super::read_key(self.connection, &mut Names::new(self.connection), id)
    }

    /// The key as it is, unless it is not as it was when it was read, or is revoked.
    fn read_unchanged(&self, id: KeyId, seen: Revision) -> Result<Option<KeyRecord>, Fault> {
        let Some(found) = self.read_key(id)? else { return Ok(None) };
        if found.revoked_at.is_some() {
            return Err(StoreError::Revoked.into());
        }
        if found.revision != seen {
            return Err(StoreError::Stale { now_at: found.revision }.into());
        }
        Ok(Some(found))
    }

    fn replace_key(&self, record: &KeyRecord) -> Result<Effect, Fault> {
        let Some(before) = self.read_unchanged(record.id, record.revision)? else { return Ok(Effect::NotFound) };
        let known_as = KeyRecord { last_used_at: record.last_used_at, ..before.clone() };
        if known_as == *record {
            return Ok(Effect::Unchanged(before.revision));
        }
        match self.write_key(rows::UPDATE_KEY, record, 0, &mut Interned::new(self.connection)) {
            Err(Fault::Sqlite(error)) if is_duplicate(&error) => {
                return Err(StoreError::Duplicate { index: 0 }.into());
            }
            result => result?,
        }
        let action = Action::of_change(&before, record);
        if before.hash != record.hash {
            self.note_removed(&record.id.to_bytes(), before.hash.as_bytes())?;
        }
        self.note(action, &record.id.to_string(), &Difference::of_keys(&before, record))?;
        self.keep_an_operator(&before)?;
        Ok(Effect::Changed(self.next, 1))
    }

    fn rotate(&self, successor: &KeyRecord, seen: Revision, grace_until: Timestamp) -> Result<Effect, Fault> {
        let Some(old) = successor.replaces else { return Ok(Effect::NotFound) };
        let Some(before) = self.read_unchanged(old, seen)? else { return Ok(Effect::NotFound) };
        self.insert_key(successor, 0, &mut Interned::new(self.connection))?;
        let after = KeyRecord { grace_until: Some(grace_until), ..before.clone() };
        self.set_grace(old, grace_until)?;
        self.note(Action::KeyCreate, &successor.id.to_string(), &Difference::new_key(successor))?;
        self.note(Action::KeyRotate, &old.to_string(), &Difference::of_keys(&before, &after))?;
        self.keep_an_operator(&before)?;
        Ok(Effect::Changed(self.next, 2))
    }

    fn end_grace(&self, id: KeyId) -> Result<Effect, Fault> {
        let Some(before) = self.read_key(id)? else { return Ok(Effect::NotFound) };
        let ends = self.order.now;
        if before.revoked_at.is_some() || before.grace_until.is_none_or(|grace| grace <= ends) {
            return Ok(Effect::Unchanged(before.revision));
        }
        self.set_grace(id, ends)?;
        let after = KeyRecord { grace_until: Some(ends), ..before.clone() };
        self.note(Action::KeyEndGrace, &id.to_string(), &Difference::of_keys(&before, &after))?;
        Ok(Effect::Changed(self.next, 1))
    }

    fn set_grace(&self, id: KeyId, until: Timestamp) -> Result<(), Fault> {
        let mut update =
            self.connection.prepare_cached("UPDATE keys SET grace_until = ?2, revision = ?3 WHERE id = ?1")?;
        update.execute(params![id.to_bytes(), until.unix_ms(), number(self.next)])?;
        Ok(())
    }

    /// After a change of `before`: refuses it when that was an operator key and none that works is left. Who works on
    /// the store itself may do as they please.
    fn keep_an_operator(&self, before: &KeyRecord) -> Result<(), Fault> {
        let now = self.order.now;
        if !self.order.by.is_guarded() || !before.is_operator() || before.state(now) != KeyState::Active {
            return Ok(());
        }
        let mut names = Names::new(self.connection);
        let mut select = self.connection.prepare_cached(&format!(
            "SELECT {} FROM keys WHERE owner IS NULL AND kind = ?1 AND active AND revoked_at IS NULL",
            rows::RECORD
        ))?;
        let mut found = select.query([kind_number(KeyKind::Management)])?;
        while let Some(row) = found.next()? {
            let record = rows::read_record(row, &mut names)?;
            if record.operates_like(before, now) {
                return Ok(());
            }
        }
        Err(StoreError::LastOperator.into())
    }

    /// Keeps an answer for whoever asks the same again, and drops those that are too old.
    fn keep(&self, name: &RepeatName, repeatable: &Repeatable) -> Result<(), Fault> {
        let now = self.order.now;
        self.connection
            .prepare_cached("DELETE FROM repeatable WHERE at <= ?1")?
            .execute([now.minus(Repeatable::KEPT).unix_ms()])?;
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO repeatable (name, request, sealed, at, revision) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        match insert.execute(params![name, repeatable.request, repeatable.sealed, now.unix_ms(), number(self.next)]) {
            Ok(_) => Ok(()),
            Err(error) if is_duplicate(&error) => Err(StoreError::Repeated.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn owner_number(&self, id: OwnerId) -> Result<Option<i64>, Fault> {
        let mut find = self.connection.prepare_cached("SELECT owner FROM owners WHERE id = ?1")?;
        Ok(find.query_row([id.to_bytes()], |row| row.get(0)).optional()?)
    }

    fn set_active(&self, id: KeyId, active: bool) -> Result<Effect, Fault> {
        let Some(before) = self.read_key(id)? else { return Ok(Effect::NotFound) };
        if before.revoked_at.is_some() {
            return Err(StoreError::Revoked.into());
        }
        if before.active == active {
            return Ok(Effect::Unchanged(before.revision));
        }
        let mut update = self.connection.prepare_cached("UPDATE keys SET active = ?2, revision = ?3 WHERE id = ?1")?;
        update.execute(params![id.to_bytes(), active, number(self.next)])?;
        let action = if active { Action::KeyEnable } else { Action::KeyDisable };
        self.note(action, &id.to_string(), &Difference::switch("active", active))?;
        self.keep_an_operator(&before)?;
        Ok(Effect::Changed(self.next, 1))
    }

    fn revoke(&self, id: KeyId) -> Result<Effect, Fault> {
        let Some(before) = self.read_key(id)? else { return Ok(Effect::NotFound) };
        if before.revoked_at.is_some() {
            return Ok(Effect::Unchanged(before.revision));
        }
        let mut update =
            self.connection.prepare_cached("UPDATE keys SET revoked_at = ?2, revision = ?3 WHERE id = ?1")?;
        update.execute(params![id.to_bytes(), self.order.now.unix_ms(), number(self.next)])?;
        self.note(Action::KeyRevoke, &id.to_string(), &Difference::revoked(self.order.now))?;
        self.keep_an_operator(&before)?;
        Ok(Effect::Changed(self.next, 1))
    }

    fn insert_owner(&self, record: &OwnerRecord) -> Result<Effect, Fault> {
        self.write_owner(record)?;
        self.note(Action::OwnerCreate, &record.id.to_string(), &Difference::new_owner(record))?;
        Ok(Effect::Changed(self.next, 1))
    }

    /// Adds an owner, stamped with the next revision.
    pub(super) fn write_owner(&self, record: &OwnerRecord) -> Result<(), Fault> {
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO owners (id, name, suspended, created_at, metadata, revision, terms) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        let inserted = insert.execute(params![
            record.id.to_bytes(),
            record.name,
            record.suspended,
            record.created_at.unix_ms(),
            metadata_to_json(&record.metadata)?,
            number(self.next),
            Terms::text_of(record)?,
        ]);
        match inserted {
            Ok(_) => Ok(()),
            Err(error) if is_duplicate(&error) => Err(StoreError::Duplicate { index: 0 }.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn replace_owner(&self, record: &OwnerRecord) -> Result<Effect, Fault> {
        let Some(before) = super::find_owner(self.connection, record.id)? else { return Ok(Effect::NotFound) };
        if before.revision != record.revision {
            return Err(StoreError::Stale { now_at: before.revision }.into());
        }
        if before == *record {
            return Ok(Effect::Unchanged(before.revision));
        }
        let mut update = self.connection.prepare_cached(
            "UPDATE owners SET name = ?2, suspended = ?3, metadata = ?4, revision = ?5, terms = ?6 WHERE id = ?1",
        )?;
        update.execute(params![
            record.id.to_bytes(),
            record.name,
            record.suspended,
            metadata_to_json(&record.metadata)?,
            number(self.next),
            Terms::text_of(record)?,
        ])?;
        self.note(Action::OwnerUpdate, &record.id.to_string(), &Difference::of_owners(&before, record))?;
        Ok(Effect::Changed(self.next, 1))
    }

    fn set_suspended(&self, id: OwnerId, suspended: bool) -> Result<Effect, Fault> {
        let mut find = self.connection.prepare_cached("SELECT suspended, revision FROM owners WHERE id = ?1")?;
        let found: Option<(bool, i64)> =
            find.query_row([id.to_bytes()], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        match found {
            None => return Ok(Effect::NotFound),
            Some((already, revision)) if already == suspended => return Ok(Effect::Unchanged(revision_of(revision))),
            Some(_) => {}
        }
        let mut update =
            self.connection.prepare_cached("UPDATE owners SET suspended = ?2, revision = ?3 WHERE id = ?1")?;
        update.execute(params![id.to_bytes(), suspended, number(self.next)])?;
        let action = if suspended { Action::OwnerSuspend } else { Action::OwnerResume };
        self.note(action, &id.to_string(), &Difference::switch("suspended", suspended))?;
        Ok(Effect::Changed(self.next, 1))
    }

    fn forget(&self, before: Timestamp, newest: Revision) -> Result<Effect, Fault> {
        let oldest_answer = self.order.now.minus(Repeatable::KEPT).unix_ms();
        self.connection.execute("DELETE FROM repeatable WHERE at <= ?1", [oldest_answer])?;
        // The newest revision older than `before` stays: readers that have it are not behind by as much as that.
        let oldest: Option<i64> = self.connection.query_row(
            "SELECT max(revision) FROM revisions WHERE at < ?1",
            [before.unix_ms()],
            |row| row.get(0),
        )?;
        if let Some(oldest) = oldest {
            self.connection.execute("DELETE FROM revisions WHERE revision < ?1", [oldest])?;
            self.connection.execute("DELETE FROM removed WHERE revision <= ?1", [oldest])?;
        }
        let gone = self.find_forgettable(before)?;
        for (key, id, hash, revoked_at) in &gone {
            self.connection.prepare_cached("DELETE FROM keys WHERE key = ?1")?.execute([key])?;
            self.note_removed(id, hash)?;
            let difference = Difference::forgotten(Some(Timestamp::from_unix_ms(*revoked_at)));
            self.note(Action::KeyForget, &KeyId::from_bytes(*id).to_string(), &difference)?;
        }
        match gone.len() {
            0 => Ok(Effect::Unchanged(newest)),
            rows => Ok(Effect::Changed(self.next, rows as u64)),
        }
    }

    fn find_forgettable(&self, before: Timestamp) -> Result<Vec<Forgettable>, Fault> {
        let mut find = self.connection.prepare_cached(
            "SELECT key, id, hash, revoked_at FROM keys WHERE revoked_at IS NOT NULL AND revoked_at < ?1 LIMIT ?2",
        )?;
        let limit = i64::try_from(MAX_FORGOTTEN_AT_ONCE).unwrap_or(i64::MAX);
        let found =
            find.query_map([before.unix_ms(), limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// Notes that a hash no longer leads to a key.
    fn note_removed(&self, id: &[u8; 16], hash: &[u8; 32]) -> Result<(), Fault> {
        let mut insert =
            self.connection.prepare_cached("INSERT INTO removed (revision, id, hash) VALUES (?1, ?2, ?3)")?;
        insert.execute(params![number(self.next), id, hash])?;
        Ok(())
    }

    /// Drops the oldest rows of the audit trail, and writes that into it.
    fn forget_audit(&self, retention: Duration, newest: Revision) -> Result<Effect, Fault> {
        let before = self.order.now.minus(retention);
        let Some((last, rows)) = trail::find_forgettable(self.connection, before, MAX_FORGOTTEN_ENTRIES_AT_ONCE)?
        else {
            return Ok(Effect::Unchanged(newest));
        };
        let dropped = Dropped { last: last.last, last_at: last.at, retention };
        self.note(Action::AuditForget, AUDIT_SUBJECT, &dropped.difference())?;
        trail::drop_through(self.connection, dropped.anchor())?;
        Ok(Effect::Changed(self.next, rows))
    }

    fn note_elsewhere(&self, note: &Note) -> Result<Effect, Fault> {
        self.note(note.action(), &note.subject(), &note.clone().difference())?;
        Ok(Effect::Changed(self.next, 0))
    }

    /// Writes the audit row of what was just done.
    pub(super) fn note(&self, action: Action, subject: &str, difference: &Difference) -> Result<(), Fault> {
        let head = match self.trail.get() {
            Some(head) => head,
            None => trail::read_head(self.connection)?,
        };
        let draft = Draft {
            revision: self.next,
            at: self.order.now,
            by: &self.order.by,
            action,
            subject: subject.to_owned(),
            difference,
        };
        let entry = draft.seal_behind(head, self.seal);
        self.trail.set(Some(trail::insert(self.connection, &entry)?));
        Ok(())
    }
}

type Forgettable = (i64, [u8; 16], [u8; 32], i64);

/// Row numbers of shared values, found or made once for each command.
pub(super) struct Interned<'a> {
    connection: &'a Connection,
    profiles: HashMap<(String, String), i64>,
    environments: HashMap<String, i64>,
    bounds: HashMap<Bounds, i64>,
}

impl<'a> Interned<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self { connection, profiles: HashMap::new(), environments: HashMap::new(), bounds: HashMap::new() }
    }

    /// Nothing for a key that nothing bounds.
    fn bounds(&mut self, bounds: &Bounds) -> Result<Option<i64>, Fault> {
        if bounds.is_empty() {
            return Ok(None);
        }
        if let Some(known) = self.bounds.get(bounds) {
            return Ok(Some(*known));
        }
        let text = to_json(bounds)?;
        let found = find_or_make(
            self.connection,
            "SELECT bound FROM bounds WHERE text = ?1",
            "INSERT INTO bounds (text) VALUES (?1)",
            [&text],
        )?;
        self.bounds.insert(bounds.clone(), found);
        Ok(Some(found))
    }

    fn profile(&mut self, record: &KeyRecord) -> Result<i64, Fault> {
        let texts = (to_json(&record.scopes)?, to_json(&record.roles)?);
        if let Some(known) = self.profiles.get(&texts) {
            return Ok(*known);
        }
        let found = find_or_make(
            self.connection,
            "SELECT profile FROM profiles WHERE scopes = ?1 AND roles = ?2",
            "INSERT INTO profiles (scopes, roles) VALUES (?1, ?2)",
            [&texts.0, &texts.1],
        )?;
        self.profiles.insert(texts, found);
        Ok(found)
    }

    fn environment(&mut self, name: &str) -> Result<i64, Fault> {
        if let Some(known) = self.environments.get(name) {
            return Ok(*known);
        }
        let found = find_or_make(
            self.connection,
            "SELECT environment FROM environments WHERE name = ?1",
            "INSERT INTO environments (name) VALUES (?1)",
            [name],
        )?;
        self.environments.insert(name.to_owned(), found);
        Ok(found)
    }
}

fn find_or_make<const N: usize, T: rusqlite::ToSql>(
    connection: &Connection,
    find: &str,
    make: &str,
    values: [T; N],
) -> Result<i64, Fault>
where
    [T; N]: rusqlite::Params + Copy,
{
    let found = connection.prepare_cached(find)?.query_row(values, |row| row.get(0)).optional()?;
    if let Some(found) = found {
        return Ok(found);
    }
    Ok(connection.prepare_cached(make)?.insert(values)?)
}
