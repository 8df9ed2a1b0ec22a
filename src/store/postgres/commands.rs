//! What each order does to the tables, its audit row included. Runs inside one transaction that holds the head.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::fault::Fault;
use super::insert;
use super::lookups::find_owner;
use super::restore;
use super::rows::{self, bytes32, get, number, owner_uuid, records, uuid};
use super::session::{Session, Sql};
use super::trail;
use crate::domain::{KeyId, KeyKind, KeyRecord, KeyState, OwnerId, OwnerRecord, Revision, Timestamp};
use crate::store::api::{MAX_FORGOTTEN_AT_ONCE, MAX_FORGOTTEN_ENTRIES_AT_ONCE, RepeatName, Repeatable};
use crate::store::audit::{Action, Difference, Draft, Dropped};
use crate::store::columns::{Terms, kind_number, metadata_to_json, rows as row_bound};
use crate::store::command::{AUDIT_SUBJECT, Command, Effect, Note, Order};
use crate::store::error::StoreError;
use crate::store::seal::{AuditHead, AuditSeal};
use crate::store::trail::AuditEntry;

/// Applies `order`; whatever changes is stamped with `next`. `newest` is the revision before this transaction.
pub(super) async fn apply(
    session: &mut Session,
    order: &Order,
    newest: Revision,
    next: Revision,
    seal: &AuditSeal,
) -> Result<Effect, Fault> {
    let mut write = Write { session, order, next, seal, trail: None, entries: Vec::new() };
    if let Some((name, repeatable)) = &order.repeatable {
        write.keep(name, repeatable).await?;
    }
    let effect = match &order.command {
        Command::InsertKeys { records, .. } if records.is_empty() => Effect::Unchanged(newest),
        Command::InsertKeys { records, origin } => {
            insert::insert_keys(&mut write, records, origin.action()).await?;
            Effect::Changed(next, records.len() as u64)
        }
        Command::ReplaceKey { record } => write.replace_key(record).await?,
        Command::Rotate { successor, seen, grace_until } => write.rotate(successor, *seen, *grace_until).await?,
        Command::EndGrace { id } => write.end_grace(*id).await?,
        Command::SetActive { id, active } => write.set_active(*id, *active).await?,
        Command::Revoke { id } => write.revoke(*id).await?,
        Command::InsertOwner { record } => write.insert_owner(record).await?,
        Command::ReplaceOwner { record } => write.replace_owner(record).await?,
        Command::SetSuspended { id, suspended } => write.set_suspended(*id, *suspended).await?,
        Command::Forget { before } => write.forget(*before, newest).await?,
        Command::ForgetAudit { retention } => write.forget_audit(*retention, newest).await?,
        Command::Restore { restoration } => restore::restore(&mut write, restoration, newest).await?,
        Command::Note { note } => write.note_elsewhere(note).await?,
    };
    write.flush_entries().await?;
    Ok(effect)
}

/// An order under way.
pub(super) struct Write<'a> {
    pub(super) session: &'a mut Session,
    pub(super) order: &'a Order,
    pub(super) next: Revision,
    seal: &'a AuditSeal,
    /// Where the audit trail ends, once this order has looked. Nobody else writes meanwhile: the head is ours.
    trail: Option<AuditHead>,
    /// Sealed, and not written yet.
    entries: Vec<AuditEntry>,
}

impl Write<'_> {
    pub(super) async fn read_key(&mut self, id: KeyId) -> Result<Option<KeyRecord>, Fault> {
        read_key(self.session, id).await
    }

    /// The key as it is, unless it is not as it was when it was read, or is revoked.
    async fn read_unchanged(&mut self, id: KeyId, seen: Revision) -> Result<Option<KeyRecord>, Fault> {
        let Some(found) = self.read_key(id).await? else { return Ok(None) };
        if found.revoked_at.is_some() {
            return Err(StoreError::Revoked.into());
        }
        if found.revision != seen {
            return Err(StoreError::Stale { now_at: found.revision }.into());
        }
        Ok(Some(found))
    }

    async fn replace_key(&mut self, record: &KeyRecord) -> Result<Effect, Fault> {
        let Some(before) = self.read_unchanged(record.id, record.revision).await? else { return Ok(Effect::NotFound) };
        let known_as = KeyRecord { last_used_at: record.last_used_at, ..before.clone() };
        if known_as == *record {
            return Ok(Effect::Unchanged(before.revision));
        }
        insert::update_key(self, record).await.map_err(|fault| as_duplicate(fault, 0))?;
        if before.hash != record.hash {
            self.note_removed(&[(uuid(record.id), before.hash.as_bytes().to_vec())]).await?;
        }
        let difference = Difference::of_keys(&before, record);
        self.note(Action::of_change(&before, record), &record.id.to_string(), &difference).await?;
        self.keep_an_operator(&before).await?;
        Ok(Effect::Changed(self.next, 1))
    }

    async fn rotate(&mut self, successor: &KeyRecord, seen: Revision, until: Timestamp) -> Result<Effect, Fault> {
        let Some(old) = successor.replaces else { return Ok(Effect::NotFound) };
        let Some(before) = self.read_unchanged(old, seen).await? else { return Ok(Effect::NotFound) };
        insert::insert_successor(self, successor).await?;
        let after = KeyRecord { grace_until: Some(until), ..before.clone() };
        self.set_grace(old, until).await?;
        self.note(Action::KeyCreate, &successor.id.to_string(), &Difference::new_key(successor)).await?;
        self.note(Action::KeyRotate, &old.to_string(), &Difference::of_keys(&before, &after)).await?;
        self.keep_an_operator(&before).await?;
        Ok(Effect::Changed(self.next, 2))
    }

    async fn end_grace(&mut self, id: KeyId) -> Result<Effect, Fault> {
        let Some(before) = self.read_key(id).await? else { return Ok(Effect::NotFound) };
        let ends = self.order.now;
        if before.revoked_at.is_some() || before.grace_until.is_none_or(|grace| grace <= ends) {
            return Ok(Effect::Unchanged(before.revision));
        }
        self.set_grace(id, ends).await?;
        let after = KeyRecord { grace_until: Some(ends), ..before.clone() };
        self.note(Action::KeyEndGrace, &id.to_string(), &Difference::of_keys(&before, &after)).await?;
        Ok(Effect::Changed(self.next, 1))
    }

    async fn set_grace(&mut self, id: KeyId, until: Timestamp) -> Result<(), Fault> {
        const UPDATE: Sql = Sql::new(
            "UPDATE portcullis.keys SET grace_until = $2, revision = $3 WHERE id = $1",
            &[Type::UUID, Type::INT8, Type::INT8],
        );
        self.session.execute(&UPDATE, &[&uuid(id), &until.unix_ms(), &number(self.next)]).await?;
        Ok(())
    }

    /// After a change of `before`: refuses it when that was an operator key and none that works is left. Who works on
    /// the store itself may do as they please.
    async fn keep_an_operator(&mut self, before: &KeyRecord) -> Result<(), Fault> {
        const SELECT: Sql = Sql::new(
            concat!(records!(), "WHERE k.owner IS NULL AND k.kind = $1 AND k.active AND k.revoked_at IS NULL"),
            &[Type::INT2],
        );
        let now = self.order.now;
        if !self.order.by.is_guarded() || !before.is_operator() || before.state(now) != KeyState::Active {
            return Ok(());
        }
        let found = self.session.rows(&SELECT, &[&kind_column(KeyKind::Management)]).await?;
        let records = rows::read_records(self.session, &found).await?;
        if records.iter().any(|record| record.operates_like(before, now)) {
            return Ok(());
        }
        Err(StoreError::LastOperator.into())
    }

    /// Keeps an answer for whoever asks the same again, and drops those that are too old.
    async fn keep(&mut self, name: &RepeatName, repeatable: &Repeatable) -> Result<(), Fault> {
        const INSERT: Sql = Sql::new(
            "INSERT INTO portcullis.repeatable (name, request, sealed, at, revision) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT DO NOTHING",
            &[Type::BYTEA, Type::BYTEA, Type::BYTEA, Type::INT8, Type::INT8],
        );
        let now = self.order.now;
        self.drop_old_answers().await?;
        let (name, request) = (name.as_slice(), repeatable.request.as_slice());
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&name, &request, &repeatable.sealed, &now.unix_ms(), &number(self.next)];
        match self.session.execute(&INSERT, &values).await? {
            0 => Err(StoreError::Repeated.into()),
            _ => Ok(()),
        }
    }

    async fn drop_old_answers(&mut self) -> Result<(), Fault> {
        const DROP: Sql = Sql::new("DELETE FROM portcullis.repeatable WHERE at <= $1", &[Type::INT8]);
        self.session.execute(&DROP, &[&self.order.now.minus(Repeatable::KEPT).unix_ms()]).await?;
        Ok(())
    }

    async fn set_active(&mut self, id: KeyId, active: bool) -> Result<Effect, Fault> {
        const UPDATE: Sql = Sql::new(
            "UPDATE portcullis.keys SET active = $2, revision = $3 WHERE id = $1",
            &[Type::UUID, Type::BOOL, Type::INT8],
        );
        let Some(before) = self.read_key(id).await? else { return Ok(Effect::NotFound) };
        if before.revoked_at.is_some() {
            return Err(StoreError::Revoked.into());
        }
        if before.active == active {
            return Ok(Effect::Unchanged(before.revision));
        }
        self.session.execute(&UPDATE, &[&uuid(id), &active, &number(self.next)]).await?;
        let action = if active { Action::KeyEnable } else { Action::KeyDisable };
        self.note(action, &id.to_string(), &Difference::switch("active", active)).await?;
        self.keep_an_operator(&before).await?;
        Ok(Effect::Changed(self.next, 1))
    }

    async fn revoke(&mut self, id: KeyId) -> Result<Effect, Fault> {
        const UPDATE: Sql = Sql::new(
            "UPDATE portcullis.keys SET revoked_at = $2, revision = $3 WHERE id = $1",
            &[Type::UUID, Type::INT8, Type::INT8],
        );
        let Some(before) = self.read_key(id).await? else { return Ok(Effect::NotFound) };
        if before.revoked_at.is_some() {
            return Ok(Effect::Unchanged(before.revision));
        }
        let now = self.order.now;
        self.session.execute(&UPDATE, &[&uuid(id), &now.unix_ms(), &number(self.next)]).await?;
        self.note(Action::KeyRevoke, &id.to_string(), &Difference::revoked(now)).await?;
        self.keep_an_operator(&before).await?;
        Ok(Effect::Changed(self.next, 1))
    }

    async fn insert_owner(&mut self, record: &OwnerRecord) -> Result<Effect, Fault> {
        self.write_owner(record).await?;
        self.note(Action::OwnerCreate, &record.id.to_string(), &Difference::new_owner(record)).await?;
        Ok(Effect::Changed(self.next, 1))
    }

    /// Adds an owner, stamped with the next revision.
    pub(super) async fn write_owner(&mut self, record: &OwnerRecord) -> Result<(), Fault> {
        const INSERT: Sql = Sql::new(
            "INSERT INTO portcullis.owners (id, name, suspended, created_at, metadata, revision, terms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
            &[Type::UUID, Type::TEXT, Type::BOOL, Type::INT8, Type::TEXT, Type::INT8, Type::TEXT],
        );
        let inserted = self
            .session
            .execute(
                &INSERT,
                &[
                    &owner_uuid(record.id),
                    &record.name,
                    &record.suspended,
                    &record.created_at.unix_ms(),
                    &metadata_to_json(&record.metadata)?,
                    &number(self.next),
                    &Terms::text_of(record)?,
                ],
            )
            .await?;
        if inserted == 0 {
            return Err(StoreError::Duplicate { index: 0 }.into());
        }
        Ok(())
    }

    async fn replace_owner(&mut self, record: &OwnerRecord) -> Result<Effect, Fault> {
        const UPDATE: Sql = Sql::new(
            "UPDATE portcullis.owners SET name = $2, suspended = $3, metadata = $4, revision = $5, terms = $6 \
             WHERE id = $1",
            &[Type::UUID, Type::TEXT, Type::BOOL, Type::TEXT, Type::INT8, Type::TEXT],
        );
        let Some(before) = find_owner(self.session, record.id).await? else { return Ok(Effect::NotFound) };
        if before.revision != record.revision {
            return Err(StoreError::Stale { now_at: before.revision }.into());
        }
        if before == *record {
            return Ok(Effect::Unchanged(before.revision));
        }
        self.session
            .execute(
                &UPDATE,
                &[
                    &owner_uuid(record.id),
                    &record.name,
                    &record.suspended,
                    &metadata_to_json(&record.metadata)?,
                    &number(self.next),
                    &Terms::text_of(record)?,
                ],
            )
            .await?;
        let difference = Difference::of_owners(&before, record);
        self.note(Action::OwnerUpdate, &record.id.to_string(), &difference).await?;
        Ok(Effect::Changed(self.next, 1))
    }

    async fn set_suspended(&mut self, id: OwnerId, suspended: bool) -> Result<Effect, Fault> {
        const UPDATE: Sql = Sql::new(
            "UPDATE portcullis.owners SET suspended = $2, revision = $3 WHERE id = $1",
            &[Type::UUID, Type::BOOL, Type::INT8],
        );
        match find_owner(self.session, id).await? {
            None => return Ok(Effect::NotFound),
            Some(before) if before.suspended == suspended => return Ok(Effect::Unchanged(before.revision)),
            Some(_) => {}
        }
        self.session.execute(&UPDATE, &[&owner_uuid(id), &suspended, &number(self.next)]).await?;
        let action = if suspended { Action::OwnerSuspend } else { Action::OwnerResume };
        self.note(action, &id.to_string(), &Difference::switch("suspended", suspended)).await?;
        Ok(Effect::Changed(self.next, 1))
    }

    async fn forget(&mut self, before: Timestamp, newest: Revision) -> Result<Effect, Fault> {
        const OLDEST: Sql = Sql::new("SELECT max(revision) FROM portcullis.revisions WHERE at < $1", &[Type::INT8]);
        const FORGET: Sql = Sql::new("DELETE FROM portcullis.revisions WHERE revision < $1", &[Type::INT8]);
        const FORGET_REMOVED: Sql = Sql::new("DELETE FROM portcullis.removed WHERE revision <= $1", &[Type::INT8]);
        const DROP: Sql = Sql::new(
            "DELETE FROM portcullis.keys WHERE id IN (SELECT id FROM portcullis.keys WHERE revoked_at < $1 LIMIT $2) \
             RETURNING id, hash, revoked_at",
            &[Type::INT8, Type::INT8],
        );
        self.drop_old_answers().await?;
        // The newest revision older than `before` stays: readers that have it are not behind by as much as that.
        let oldest: Option<i64> = get(&self.session.only(&OLDEST, &[&before.unix_ms()]).await?, 0)?;
        if let Some(oldest) = oldest {
            self.session.execute(&FORGET, &[&oldest]).await?;
            self.session.execute(&FORGET_REMOVED, &[&oldest]).await?;
        }
        let gone = self.session.rows(&DROP, &[&before.unix_ms(), &row_bound(MAX_FORGOTTEN_AT_ONCE)]).await?;
        if gone.is_empty() {
            return Ok(Effect::Unchanged(newest));
        }
        let mut removed = Vec::with_capacity(gone.len());
        for row in &gone {
            removed.push((get(row, 0)?, bytes32(row, 1)?.to_vec()));
            let difference = Difference::forgotten(rows::moment(row, 2)?);
            self.note(Action::KeyForget, &rows::key_id(row, 0)?.to_string(), &difference).await?;
        }
        self.note_removed(&removed).await?;
        Ok(Effect::Changed(self.next, gone.len() as u64))
    }

    /// Notes that hashes no longer lead to keys.
    async fn note_removed(&mut self, removed: &[(Uuid, Vec<u8>)]) -> Result<(), Fault> {
        const INSERT: Sql = Sql::new(
            "INSERT INTO portcullis.removed (revision, id, hash) SELECT $1, * FROM unnest($2::uuid[], $3::bytea[])",
            &[Type::INT8, Type::UUID_ARRAY, Type::BYTEA_ARRAY],
        );
        let (ids, hashes): (Vec<Uuid>, Vec<&[u8]>) = removed.iter().map(|(id, hash)| (*id, hash.as_slice())).unzip();
        self.session.execute(&INSERT, &[&number(self.next), &ids, &hashes]).await?;
        Ok(())
    }

    /// Drops the oldest rows of the audit trail, and writes that into it.
    async fn forget_audit(&mut self, retention: Duration, newest: Revision) -> Result<Effect, Fault> {
        let before = self.order.now.minus(retention);
        let most = MAX_FORGOTTEN_ENTRIES_AT_ONCE;
        let Some((last, rows)) = trail::find_forgettable(self.session, before, most).await? else {
            return Ok(Effect::Unchanged(newest));
        };
        let dropped = Dropped { last: last.last, last_at: last.at, retention };
        self.note(Action::AuditForget, AUDIT_SUBJECT, &dropped.difference()).await?;
        trail::drop_through(self.session, dropped.anchor()).await?;
        Ok(Effect::Changed(self.next, rows))
    }

    async fn note_elsewhere(&mut self, note: &Note) -> Result<Effect, Fault> {
        self.note(note.action(), &note.subject(), &note.clone().difference()).await?;
        Ok(Effect::Changed(self.next, 0))
    }

    /// Seals the audit row of what was just done; it is written with the next ones.
    pub(super) async fn note(&mut self, action: Action, subject: &str, difference: &Difference) -> Result<(), Fault> {
        let head = match self.trail {
            Some(head) => head,
            None => trail::read_head(self.session).await?,
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
        let mac = entry.sealed.as_ref().map(|sealed| sealed.mac).unwrap_or_default();
        self.trail = Some(AuditHead { entry: entry.entry, mac });
        self.entries.push(entry);
        if self.entries.len() >= trail::AT_ONCE {
            self.flush_entries().await?;
        }
        Ok(())
    }

    async fn flush_entries(&mut self) -> Result<(), Fault> {
        let entries = std::mem::take(&mut self.entries);
        trail::insert(self.session, &entries).await
    }
}

/// The record of a key.
pub(super) async fn read_key(session: &mut Session, id: KeyId) -> Result<Option<KeyRecord>, Fault> {
    const SELECT: Sql = Sql::new(concat!(records!(), "WHERE k.id = $1"), &[Type::UUID]);
    let found = session.rows(&SELECT, &[&uuid(id)]).await?;
    Ok(rows::read_records(session, &found).await?.pop())
}

/// A row that exists already.
pub(super) fn as_duplicate(fault: Fault, index: usize) -> Fault {
    if fault.code().is_some_and(|code| *code == SqlState::UNIQUE_VIOLATION) {
        StoreError::Duplicate { index }.into()
    } else {
        fault
    }
}

/// A kind as a column has it.
pub(super) fn kind_column(kind: KeyKind) -> i16 {
    i16::try_from(kind_number(kind)).unwrap_or_default()
}
