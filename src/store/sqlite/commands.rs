//! What each order does to the tables, its audit row included. Runs inside the writer's transaction.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::fault::{Fault, is_duplicate};
use super::rows;
use super::writer::{number, revision_of};
use crate::domain::{KeyId, KeyRecord, OwnerId, OwnerRecord, Revision, Timestamp};
use crate::store::api::MAX_FORGOTTEN_AT_ONCE;
use crate::store::audit::{Action, Difference};
use crate::store::command::{Command, Effect, Order, Origin};
use crate::store::error::StoreError;

/// Inserting this many needs more of the indexes at hand than the usual cache holds.
const MANY: usize = 1_000;

/// Applies `order`; whatever changes is stamped with `next`. `newest` is the revision before this transaction.
pub(super) fn apply(connection: &Connection, order: &Order, newest: Revision, next: Revision) -> Result<Effect, Fault> {
    let write = Write { connection, order, next };
    match &order.command {
        Command::InsertKeys { records, .. } if records.is_empty() => Ok(Effect::Unchanged(newest)),
        Command::InsertKeys { records, origin } => write.insert_keys(records, *origin),
        Command::SetActive { id, active } => write.set_active(*id, *active),
        Command::Revoke { id } => write.revoke(*id),
        Command::InsertOwner { record } => write.insert_owner(record),
        Command::SetSuspended { id, suspended } => write.set_suspended(*id, *suspended),
        Command::Forget { before } => write.forget(*before, newest),
    }
}

struct Write<'a> {
    connection: &'a Connection,
    order: &'a Order,
    next: Revision,
}

impl Write<'_> {
    fn insert_keys(&self, records: &[KeyRecord], origin: Origin) -> Result<Effect, Fault> {
        let many = records.len() >= MANY;
        if many {
            self.connection.execute_batch("PRAGMA cache_size = -65536")?;
        }
        let inserted = self.insert_each(records, origin);
        if many {
            self.connection.execute_batch("PRAGMA cache_size = -2000; PRAGMA shrink_memory")?;
        }
        inserted.map(|()| Effect::Changed(self.next, records.len() as u64))
    }

    fn insert_each(&self, records: &[KeyRecord], origin: Origin) -> Result<(), Fault> {
        let mut interned =
            Interned { connection: self.connection, profiles: HashMap::new(), environments: HashMap::new() };
        let mut insert = self.connection.prepare_cached(rows::INSERT_KEY)?;
        for (index, record) in records.iter().enumerate() {
            let owner = match record.owner {
                None => None,
                Some(owner) => Some(self.owner_number(owner)?.ok_or(StoreError::UnknownOwner { index })?),
            };
            let inserted = insert.execute(params![
                record.id.to_bytes(),
                record.hash.as_bytes(),
                interned.profile(record)?,
                owner,
                interned.environment(&record.environment)?,
                rows::kind_number(record.kind),
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
                rows::list_to_json(&record.may_grant)?,
                record.created_by,
                record.replaces.map(KeyId::to_bytes),
                rows::metadata_to_json(&record.metadata)?,
            ]);
            match inserted {
                Ok(_) => self.note(origin.action(), &record.id.to_string(), &Difference::new_key(record))?,
                Err(error) if is_duplicate(&error) => return Err(StoreError::Duplicate { index }.into()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn owner_number(&self, id: OwnerId) -> Result<Option<i64>, Fault> {
        let mut find = self.connection.prepare_cached("SELECT owner FROM owners WHERE id = ?1")?;
        Ok(find.query_row([id.to_bytes()], |row| row.get(0)).optional()?)
    }

    fn set_active(&self, id: KeyId, active: bool) -> Result<Effect, Fault> {
        let Some(found) = self.find_switches(id)? else { return Ok(Effect::NotFound) };
        if found.revoked {
            return Err(StoreError::Revoked.into());
        }
        if found.active == active {
            return Ok(Effect::Unchanged(found.revision));
        }
        let mut update = self.connection.prepare_cached("UPDATE keys SET active = ?2, revision = ?3 WHERE id = ?1")?;
        update.execute(params![id.to_bytes(), active, number(self.next)])?;
        let action = if active { Action::KeyEnable } else { Action::KeyDisable };
        self.note(action, &id.to_string(), &Difference::switch("active", active))?;
        Ok(Effect::Changed(self.next, 1))
    }

    fn revoke(&self, id: KeyId) -> Result<Effect, Fault> {
        let Some(found) = self.find_switches(id)? else { return Ok(Effect::NotFound) };
        if found.revoked {
            return Ok(Effect::Unchanged(found.revision));
        }
        let mut update =
            self.connection.prepare_cached("UPDATE keys SET revoked_at = ?2, revision = ?3 WHERE id = ?1")?;
        update.execute(params![id.to_bytes(), self.order.now.unix_ms(), number(self.next)])?;
        self.note(Action::KeyRevoke, &id.to_string(), &Difference::revoked(self.order.now))?;
        Ok(Effect::Changed(self.next, 1))
    }

    fn find_switches(&self, id: KeyId) -> Result<Option<Switches>, Fault> {
        let mut find = self
            .connection
            .prepare_cached("SELECT active, revoked_at IS NOT NULL, revision FROM keys WHERE id = ?1")?;
        let found = find.query_row([id.to_bytes()], |row| {
            Ok(Switches { active: row.get(0)?, revoked: row.get(1)?, revision: revision_of(row.get(2)?) })
        });
        Ok(found.optional()?)
    }

    fn insert_owner(&self, record: &OwnerRecord) -> Result<Effect, Fault> {
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO owners (id, name, suspended, created_at, metadata, revision) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        let inserted = insert.execute(params![
            record.id.to_bytes(),
            record.name,
            record.suspended,
            record.created_at.unix_ms(),
            rows::metadata_to_json(&record.metadata)?,
            number(self.next),
        ]);
        match inserted {
            Ok(_) => self.note(Action::OwnerCreate, &record.id.to_string(), &Difference::new_owner(record))?,
            Err(error) if is_duplicate(&error) => return Err(StoreError::Duplicate { index: 0 }.into()),
            Err(error) => return Err(error.into()),
        }
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
            self.connection
                .prepare_cached("INSERT INTO removed (revision, id, hash) VALUES (?1, ?2, ?3)")?
                .execute(params![number(self.next), id, hash])?;
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

    /// Writes the audit row of what was just done.
    fn note(&self, action: Action, subject: &str, difference: &Difference) -> Result<(), Fault> {
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO audit (revision, at, actor, action, subject, before, after) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        insert.execute(params![
            number(self.next),
            self.order.now.unix_ms(),
            self.order.by.0,
            action.name(),
            subject,
            difference.before.as_ref().map(ToString::to_string),
            difference.after.as_ref().map(ToString::to_string),
        ])?;
        Ok(())
    }
}

type Forgettable = (i64, [u8; 16], [u8; 32], i64);

struct Switches {
    active: bool,
    revoked: bool,
    revision: Revision,
}

/// Row numbers of shared values, found or made once for each command.
struct Interned<'a> {
    connection: &'a Connection,
    profiles: HashMap<(String, String), i64>,
    environments: HashMap<String, i64>,
}

impl Interned<'_> {
    fn profile(&mut self, record: &KeyRecord) -> Result<i64, Fault> {
        let texts = (rows::to_json(&record.scopes)?, rows::to_json(&record.roles)?);
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
