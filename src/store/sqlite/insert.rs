//! Writing keys: all columns of one, and many at a time.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rusqlite::params;

use super::commands::{MANY, Write};
use super::fault::{Fault, is_duplicate};
use super::interned::Interned;
use super::lookups;
use super::rows;
use super::writer::number;
use crate::domain::{KeyId, KeyRecord, OwnerId, Timestamp};
use crate::store::audit::Difference;
use crate::store::columns::{kind_number, list_to_json, metadata_to_json};
use crate::store::command::{Effect, Origin};
use crate::store::error::StoreError;

impl Write<'_> {
    /// Adds keys, all or none.
    pub(super) fn insert_keys(&self, records: &[KeyRecord], origin: Origin) -> Result<Effect, Fault> {
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
    pub(super) fn write_key(
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
}
