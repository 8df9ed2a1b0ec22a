//! What each order does to the tables, its audit row included. Runs inside the writer's transaction.

use std::cell::Cell;

use rusqlite::{Connection, OptionalExtension, params};

use super::fault::{Fault, is_duplicate};
use super::interned::Interned;
use super::restore;
use super::rows::{self, Names};
use super::trail;
use super::writer::{number, revision_of};
use crate::domain::{KeyId, KeyKind, KeyRecord, KeyState, OwnerId, OwnerRecord, Revision, Timestamp};
use crate::store::api::{RepeatName, Repeatable};
use crate::store::audit::{Action, Difference, Draft};
use crate::store::columns::{Terms, kind_number, metadata_to_json};
use crate::store::command::{Command, Effect, Note, Order};
use crate::store::error::StoreError;
use crate::store::seal::{AuditHead, AuditSeal};

/// Inserting this many needs more of the indexes at hand than the usual cache holds.
pub(super) const MANY: usize = 1_000;

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

    pub(super) fn owner_number(&self, id: OwnerId) -> Result<Option<i64>, Fault> {
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
