//! Records as rows: the columns, and the way back.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use rusqlite::{Connection, Row};

use super::fault::Fault;
use super::writer::revision_of;
use crate::domain::{Bounds, KeyHash, KeyId, KeyRecord, OwnerId, OwnerRecord, Timestamp};
use crate::store::api::{KeyFacts, OwnerFacts, Profile};
use crate::store::columns::{Terms, from_json, from_json_or_empty, kind_of};

/// All columns of a key, in the order that `commands` binds them.
pub(super) const INSERT_KEY: &str = "INSERT INTO keys (id, hash, profile, owner, environment, kind, active, \
     revoked_at, expires_at, grace_until, created_at, revision, name, description, prefix, last4, pepper, may_grant, \
     created_by, replaces, metadata, bound, lineage, paired, ends_on_use) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, \
     ?24, ?25)";

/// The same columns, in place of what a key had; its id, `?1`, stays.
pub(super) const UPDATE_KEY: &str = "UPDATE keys SET hash = ?2, profile = ?3, owner = ?4, environment = ?5, kind = ?6, \
     active = ?7, revoked_at = ?8, expires_at = ?9, grace_until = ?10, created_at = ?11, revision = ?12, name = ?13, \
     description = ?14, prefix = ?15, last4 = ?16, pepper = ?17, may_grant = ?18, created_by = ?19, replaces = ?20, \
     metadata = ?21, bound = ?22, lineage = ?23, paired = ?24, ends_on_use = ?25 WHERE id = ?1";

/// The columns of [`read_record`].
pub(super) const RECORD: &str = "id, hash, profile, owner, environment, kind, active, revoked_at, expires_at, \
     grace_until, created_at, revision, name, description, prefix, last4, pepper, may_grant, created_by, replaces, \
     metadata, bound, lineage, paired, ends_on_use";

/// The columns of [`read_facts`].
pub(super) const FACTS: &str = "id, hash, profile, owner, environment, kind, active, revoked_at, expires_at, \
     grace_until, created_at, bound, lineage, ends_on_use, replaces";

/// The columns of [`read_owner`].
pub(super) const OWNER: &str = "id, name, suspended, created_at, metadata, revision, terms";

/// Shared values by row number, read when first met. Good for one read transaction.
pub(super) struct Names<'a> {
    connection: &'a Connection,
    /// By the numbers of scopes with roles, and of bounds.
    profiles: HashMap<(i64, Option<i64>), Arc<Profile>>,
    environments: HashMap<i64, Arc<str>>,
    owners: HashMap<i64, OwnerId>,
}

impl<'a> Names<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self { connection, profiles: HashMap::new(), environments: HashMap::new(), owners: HashMap::new() }
    }

    /// Notes an owner that was read anyway.
    pub(super) fn learn_owner(&mut self, number: i64, id: OwnerId) {
        self.owners.insert(number, id);
    }

    fn profile(&mut self, number: i64, bound: Option<i64>) -> Result<Arc<Profile>, Fault> {
        if let Some(known) = self.profiles.get(&(number, bound)) {
            return Ok(known.clone());
        }
        let (scopes, roles): (String, String) = self
            .connection
            .prepare_cached("SELECT scopes, roles FROM profiles WHERE profile = ?1")?
            .query_row([number], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let profile = Arc::new(Profile {
            scopes: from_json(&scopes, || format!("scopes of profile {number}"))?,
            roles: from_json(&roles, || format!("roles of profile {number}"))?,
            bounds: bound.map(|bound| self.bounds(bound)).transpose()?.unwrap_or_default(),
        });
        self.profiles.insert((number, bound), profile.clone());
        Ok(profile)
    }

    fn bounds(&self, number: i64) -> Result<Bounds, Fault> {
        let text: String = self
            .connection
            .prepare_cached("SELECT text FROM bounds WHERE bound = ?1")?
            .query_row([number], |row| row.get(0))?;
        Ok(from_json(&text, || format!("bounds {number}"))?)
    }

    fn environment(&mut self, number: i64) -> Result<Arc<str>, Fault> {
        if let Some(known) = self.environments.get(&number) {
            return Ok(known.clone());
        }
        let name: Arc<str> = self
            .connection
            .prepare_cached("SELECT name FROM environments WHERE environment = ?1")?
            .query_row([number], |row| row.get(0))?;
        self.environments.insert(number, name.clone());
        Ok(name)
    }

    fn owner(&mut self, number: Option<i64>) -> Result<Option<OwnerId>, Fault> {
        let Some(number) = number else { return Ok(None) };
        if let Some(known) = self.owners.get(&number) {
            return Ok(Some(*known));
        }
        let id = self
            .connection
            .prepare_cached("SELECT id FROM owners WHERE owner = ?1")?
            .query_row([number], |row| row.get(0).map(OwnerId::from_bytes))?;
        self.owners.insert(number, id);
        Ok(Some(id))
    }
}

/// A row of [`FACTS`].
pub(super) fn read_facts(row: &Row<'_>, names: &mut Names<'_>) -> Result<KeyFacts, Fault> {
    let (expires_at, grace_until) = (moment(row, 8)?, moment(row, 9)?);
    let id = KeyId::from_bytes(row.get(0)?);
    let ends_on_use: bool = row.get(13)?;
    Ok(KeyFacts {
        id,
        hash: KeyHash::from_bytes(row.get(1)?),
        profile: names.profile(row.get(2)?, row.get(11)?)?,
        owner: names.owner(row.get(3)?)?,
        environment: names.environment(row.get(4)?)?,
        kind: kind_of(row.get(5)?)?,
        active: row.get(6)?,
        revoked_at: moment(row, 7)?,
        dies_at: expires_at.into_iter().chain(grace_until).min(),
        created_at: Timestamp::from_unix_ms(row.get(10)?),
        lineage: key_id(row, 12)?.unwrap_or(id),
        ends_on_use: if ends_on_use { key_id(row, 14)? } else { None },
    })
}

/// A row of [`RECORD`], without last use, which lives elsewhere.
pub(super) fn read_record(row: &Row<'_>, names: &mut Names<'_>) -> Result<KeyRecord, Fault> {
    let id = KeyId::from_bytes(row.get(0)?);
    let profile = names.profile(row.get(2)?, row.get(21)?)?;
    let may_grant: Option<String> = row.get(17)?;
    Ok(KeyRecord {
        id,
        hash: KeyHash::from_bytes(row.get(1)?),
        scopes: profile.scopes.clone(),
        roles: profile.roles.clone(),
        bounds: profile.bounds.clone(),
        owner: names.owner(row.get(3)?)?,
        environment: names.environment(row.get(4)?)?.as_ref().to_owned(),
        kind: kind_of(row.get(5)?)?,
        active: row.get(6)?,
        revoked_at: moment(row, 7)?,
        expires_at: moment(row, 8)?,
        grace_until: moment(row, 9)?,
        created_at: Timestamp::from_unix_ms(row.get(10)?),
        revision: revision_of(row.get(11)?),
        name: row.get(12)?,
        description: row.get::<_, Option<String>>(13)?.unwrap_or_default(),
        prefix: row.get(14)?,
        last4: row.get(15)?,
        pepper: row.get(16)?,
        may_grant: from_json_or_empty(may_grant.as_deref(), || format!("may_grant of {id}"))?,
        created_by: row.get(18)?,
        replaces: key_id(row, 19)?,
        lineage: key_id(row, 22)?.unwrap_or(id),
        paired: row.get(23)?,
        ends_on_use: row.get(24)?,
        metadata: read_metadata(row, 20, || format!("metadata of {id}"))?,
        last_used_at: None,
    })
}

fn read_terms(row: &Row<'_>, column: usize, id: OwnerId) -> Result<Terms, Fault> {
    let text: Option<String> = row.get(column)?;
    Ok(Terms::read(text.as_deref(), id)?)
}

/// A row of `id, suspended, terms`, from this column on.
pub(super) fn read_owner_facts(row: &Row<'_>, first: usize) -> Result<OwnerFacts, Fault> {
    let id = OwnerId::from_bytes(row.get(first)?);
    let Terms { rate_limit, quota, .. } = read_terms(row, first + 2, id)?;
    Ok(OwnerFacts { id, suspended: row.get(first + 1)?, rate_limit, quota })
}

/// A row of [`OWNER`].
pub(super) fn read_owner(row: &Row<'_>) -> Result<OwnerRecord, Fault> {
    let id = OwnerId::from_bytes(row.get(0)?);
    let Terms { rate_limit, quota, max_keys, may_grant } = read_terms(row, 6, id)?;
    Ok(OwnerRecord {
        rate_limit,
        quota,
        max_keys,
        may_grant,
        id,
        name: row.get(1)?,
        suspended: row.get(2)?,
        created_at: Timestamp::from_unix_ms(row.get(3)?),
        metadata: read_metadata(row, 4, || format!("metadata of {id}"))?,
        revision: revision_of(row.get(5)?),
    })
}

fn key_id(row: &Row<'_>, column: usize) -> Result<Option<KeyId>, Fault> {
    Ok(row.get::<_, Option<[u8; 16]>>(column)?.map(KeyId::from_bytes))
}

fn moment(row: &Row<'_>, column: usize) -> Result<Option<Timestamp>, Fault> {
    Ok(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_unix_ms))
}

fn read_metadata(
    row: &Row<'_>,
    column: usize,
    what: impl Fn() -> String,
) -> Result<BTreeMap<String, serde_json::Value>, Fault> {
    let text: Option<String> = row.get(column)?;
    Ok(from_json_or_empty(text.as_deref(), what)?)
}
