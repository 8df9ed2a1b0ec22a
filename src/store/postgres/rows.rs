//! Records as rows: the columns, and the way back.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};
use uuid::Uuid;

use super::fault::Fault;
use super::session::{Session, Sql};
use crate::domain::{
    Bounds, KeyHash, KeyId, KeyRecord, OwnerId, OwnerRecord, Revision, RevisionToken, StoreHead, Timestamp,
};
use crate::store::api::{KeyFacts, OwnerFacts, Profile};
use crate::store::columns::{Terms, from_json, from_json_or_empty, kind_of};

/// The columns of [`read_facts`].
macro_rules! facts {
    () => {
        "k.id, k.hash, k.profile, k.owner, k.environment, k.kind, k.active, k.revoked_at, k.expires_at, k.grace_until, \
         k.created_at, k.lineage, k.ends_on_use, k.replaces"
    };
}
pub(super) use facts;

/// The columns of [`read_record`], and where they come from.
macro_rules! records {
    () => {
        concat!(
            "SELECT ",
            $crate::store::postgres::rows::facts!(),
            ", k.revision, k.name, k.description, k.prefix, k.last4, k.pepper, k.may_grant, k.created_by, k.metadata, \
             k.paired, u.at FROM portcullis.keys k LEFT JOIN portcullis.last_used u ON u.id = k.id "
        )
    };
}
pub(super) use records;

/// The columns of [`read_owner`], and where they come from.
macro_rules! owners {
    () => {
        "SELECT id, name, suspended, created_at, metadata, revision, terms FROM portcullis.owners "
    };
}
pub(super) use owners;

/// A value of a column.
pub(super) fn get<'r, T: FromSql<'r>>(row: &'r Row, column: usize) -> Result<T, Fault> {
    Ok(row.try_get(column)?)
}

/// A moment, or none.
pub(super) fn moment(row: &Row, column: usize) -> Result<Option<Timestamp>, Fault> {
    Ok(get::<Option<i64>>(row, column)?.map(Timestamp::from_unix_ms))
}

/// A key's id.
pub(super) fn key_id(row: &Row, column: usize) -> Result<KeyId, Fault> {
    Ok(KeyId::from_bytes(get::<Uuid>(row, column)?.into_bytes()))
}

fn key_id_or_none(row: &Row, column: usize) -> Result<Option<KeyId>, Fault> {
    Ok(get::<Option<Uuid>>(row, column)?.map(|id| KeyId::from_bytes(id.into_bytes())))
}

/// A digest.
pub(super) fn bytes32(row: &Row, column: usize) -> Result<[u8; 32], Fault> {
    let bytes: &[u8] = get(row, column)?;
    bytes.try_into().map_err(|_| Fault::Odd(format!("{} bytes stand where 32 belong", bytes.len())))
}

/// The id as a column has it.
pub(super) fn uuid(id: KeyId) -> Uuid {
    Uuid::from_bytes(id.to_bytes())
}

/// The id as a column has it.
pub(super) fn owner_uuid(id: OwnerId) -> Uuid {
    Uuid::from_bytes(id.to_bytes())
}

/// A revision as a column has it.
pub(super) fn number(revision: Revision) -> i64 {
    revision.number().cast_signed()
}

/// The way back.
pub(super) fn revision(row: &Row, column: usize) -> Result<Revision, Fault> {
    Ok(Revision::new(get::<i64>(row, column)?.cast_unsigned()))
}

/// A row of `revision, token`.
pub(super) fn read_head(row: &Row) -> Result<StoreHead, Fault> {
    let token: i64 = get(row, 1)?;
    Ok(StoreHead { revision: revision(row, 0)?, token: RevisionToken(token.cast_unsigned()) })
}

/// Profiles by number, read when first met, and names that many rows share. Good for one snapshot.
#[derive(Default)]
pub(super) struct Names {
    profiles: HashMap<i64, Arc<Profile>>,
    environments: HashMap<String, Arc<str>>,
}

impl Names {
    /// Reads the profiles that these rows name. Needed before they are read.
    pub(super) async fn learn(&mut self, session: &mut Session, rows: &[Row]) -> Result<(), Fault> {
        const SELECT: Sql = Sql::new(
            "SELECT profile, scopes, roles, bounds FROM portcullis.profiles WHERE profile = ANY ($1)",
            &[Type::INT8_ARRAY],
        );
        let mut unknown = Vec::new();
        for row in rows {
            let profile: i64 = get(row, PROFILE)?;
            if !self.profiles.contains_key(&profile) {
                unknown.push(profile);
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        unknown.sort_unstable();
        unknown.dedup();
        for row in session.rows(&SELECT, &[&unknown]).await? {
            let number: i64 = get(&row, 0)?;
            let profile = Profile {
                scopes: from_json(get(&row, 1)?, || format!("scopes of profile {number}"))?,
                roles: from_json(get(&row, 2)?, || format!("roles of profile {number}"))?,
                bounds: from_json_or_empty::<Bounds>(get(&row, 3)?, || format!("bounds of profile {number}"))?,
            };
            self.profiles.insert(number, Arc::new(profile));
        }
        Ok(())
    }

    fn profile(&self, number: i64) -> Result<&Arc<Profile>, Fault> {
        self.profiles.get(&number).ok_or_else(|| Fault::Odd(format!("there is no profile {number}")))
    }

    fn environment(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.environments.get(name) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = name.into();
        self.environments.insert(name.to_owned(), Arc::clone(&shared));
        shared
    }
}

const PROFILE: usize = 2;

/// A row that begins with the columns of `facts!`.
pub(super) fn read_facts(row: &Row, names: &mut Names) -> Result<KeyFacts, Fault> {
    let id = key_id(row, 0)?;
    let (expires_at, grace_until) = (moment(row, 8)?, moment(row, 9)?);
    let ends_on_use: bool = get(row, 12)?;
    Ok(KeyFacts {
        id,
        hash: KeyHash::from_bytes(bytes32(row, 1)?),
        profile: Arc::clone(names.profile(get(row, PROFILE)?)?),
        owner: owner_id(row, 3)?,
        environment: names.environment(get(row, 4)?),
        kind: kind_of(get::<i16>(row, 5)?.into())?,
        active: get(row, 6)?,
        revoked_at: moment(row, 7)?,
        dies_at: expires_at.into_iter().chain(grace_until).min(),
        created_at: Timestamp::from_unix_ms(get(row, 10)?),
        lineage: key_id_or_none(row, 11)?.unwrap_or(id),
        ends_on_use: if ends_on_use { key_id_or_none(row, 13)? } else { None },
    })
}

fn owner_id(row: &Row, column: usize) -> Result<Option<OwnerId>, Fault> {
    Ok(get::<Option<Uuid>>(row, column)?.map(|id| OwnerId::from_bytes(id.into_bytes())))
}

/// A row of `records!`.
pub(super) fn read_record(row: &Row, names: &Names) -> Result<KeyRecord, Fault> {
    let id = key_id(row, 0)?;
    let profile = names.profile(get(row, PROFILE)?)?;
    Ok(KeyRecord {
        id,
        hash: KeyHash::from_bytes(bytes32(row, 1)?),
        scopes: profile.scopes.clone(),
        roles: profile.roles.clone(),
        bounds: profile.bounds.clone(),
        owner: owner_id(row, 3)?,
        environment: get(row, 4)?,
        kind: kind_of(get::<i16>(row, 5)?.into())?,
        active: get(row, 6)?,
        revoked_at: moment(row, 7)?,
        expires_at: moment(row, 8)?,
        grace_until: moment(row, 9)?,
        created_at: Timestamp::from_unix_ms(get(row, 10)?),
        lineage: key_id_or_none(row, 11)?.unwrap_or(id),
        ends_on_use: get(row, 12)?,
        replaces: key_id_or_none(row, 13)?,
        revision: revision(row, 14)?,
        name: get(row, 15)?,
        description: get::<Option<String>>(row, 16)?.unwrap_or_default(),
        prefix: get(row, 17)?,
        last4: get(row, 18)?,
        pepper: get(row, 19)?,
        may_grant: from_json_or_empty(get(row, 20)?, || format!("may_grant of {id}"))?,
        created_by: get(row, 21)?,
        metadata: from_json_or_empty(get(row, 22)?, || format!("metadata of {id}"))?,
        paired: get(row, 23)?,
        last_used_at: moment(row, 24)?,
    })
}

/// Rows of `records!`, with the profiles they name.
pub(super) async fn read_records(session: &mut Session, rows: &[Row]) -> Result<Vec<KeyRecord>, Fault> {
    let mut names = Names::default();
    names.learn(session, rows).await?;
    rows.iter().map(|row| read_record(row, &names)).collect()
}

/// A row of `id, suspended, terms`.
pub(super) fn read_owner_facts(row: &Row) -> Result<OwnerFacts, Fault> {
    let id = OwnerId::from_bytes(get::<Uuid>(row, 0)?.into_bytes());
    let Terms { rate_limit, quota, .. } = Terms::read(get(row, 2)?, id)?;
    Ok(OwnerFacts { id, suspended: get(row, 1)?, rate_limit, quota })
}

/// A row of `owners!`.
pub(super) fn read_owner(row: &Row) -> Result<OwnerRecord, Fault> {
    let id = OwnerId::from_bytes(get::<Uuid>(row, 0)?.into_bytes());
    let Terms { rate_limit, quota, max_keys, may_grant } = Terms::read(get(row, 6)?, id)?;
    Ok(OwnerRecord {
        rate_limit,
        quota,
        max_keys,
        may_grant,
        id,
        name: get(row, 1)?,
        suspended: get(row, 2)?,
        created_at: Timestamp::from_unix_ms(get(row, 3)?),
        metadata: from_json_or_empty(get(row, 4)?, || format!("metadata of {id}"))?,
        revision: revision(row, 5)?,
    })
}
