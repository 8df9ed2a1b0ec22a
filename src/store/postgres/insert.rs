//! Writing keys, many at a time: what is wrong with any of them is found before the first is written, and each statement
//! carries a thousand.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::commands::{Write, kind_column};
use super::fault::Fault;
use super::lookups;
use super::rows::{get, number, owner_uuid, uuid};
use super::session::Sql;
use crate::domain::{KeyHash, KeyId, KeyRecord, OwnerId, Timestamp};
use crate::store::api::{Holding, Profile};
use crate::store::audit::{Action, Difference};
use crate::store::columns::{list_to_json, metadata_to_json, to_json};
use crate::store::error::StoreError;

/// Keys in one statement.
const AT_ONCE: usize = 1_000;

/// Adds keys, all or none. Nobody else writes meanwhile, so what is looked up holds until they are written.
pub(super) async fn insert_keys(write: &mut Write<'_>, records: &[KeyRecord], action: Action) -> Result<(), Fault> {
    let mut seen = Seen::default();
    let holdings = lookups::holdings(write.session, owners_of(records)).await?;
    let mut rooms: HashMap<OwnerId, Option<(u32, u32)>> = holdings.iter().map(room).collect();
    for (number, some) in records.chunks(AT_ONCE).enumerate() {
        let (ids, hashes) = some.iter().map(|record| (record.id, record.hash)).unzip();
        let taken = lookups::taken(write.session, ids, hashes).await?;
        for (offset, record) in some.iter().enumerate() {
            let index = number * AT_ONCE + offset;
            if let Some(owner) = record.owner {
                take_room(&mut rooms, owner, record, index)?;
            }
            let exists = taken.ids.contains(&record.id) || taken.hashes.contains_key(&record.hash);
            if exists || !seen.add(record) {
                return Err(StoreError::Duplicate { index }.into());
            }
        }
    }
    let mut profiles = HashMap::new();
    for some in records.chunks(AT_ONCE) {
        insert_some(write, some, &mut profiles).await?;
        for record in some {
            write.note(action, &record.id.to_string(), &Difference::new_key(record)).await?;
        }
    }
    Ok(())
}

/// Adds the key that takes the place of another; it needs no room at its owner.
pub(super) async fn insert_successor(write: &mut Write<'_>, record: &KeyRecord) -> Result<(), Fault> {
    check_owner(write, record).await?;
    let taken = lookups::taken(write.session, vec![record.id], vec![record.hash]).await?;
    if !taken.ids.is_empty() || !taken.hashes.is_empty() {
        return Err(StoreError::Duplicate { index: 0 }.into());
    }
    insert_some(write, std::slice::from_ref(record), &mut HashMap::new()).await
}

async fn check_owner(write: &mut Write<'_>, record: &KeyRecord) -> Result<(), Fault> {
    if let Some(owner) = record.owner
        && lookups::find_owner(write.session, owner).await?.is_none()
    {
        return Err(StoreError::UnknownOwner { index: 0 }.into());
    }
    Ok(())
}

/// Ids and hashes within one order.
#[derive(Default)]
struct Seen {
    ids: HashSet<KeyId>,
    hashes: HashSet<KeyHash>,
}

impl Seen {
    fn add(&mut self, record: &KeyRecord) -> bool {
        self.ids.insert(record.id) && self.hashes.insert(record.hash)
    }
}

fn owners_of(records: &[KeyRecord]) -> Vec<OwnerId> {
    let owners: HashSet<OwnerId> = records.iter().filter_map(|record| record.owner).collect();
    owners.into_iter().collect()
}

/// How many more keys an owner may have, and how many at all; `None` when there is no bound.
fn room(holding: &Holding) -> (OwnerId, Option<(u32, u32)>) {
    let most = holding.owner.max_keys;
    (holding.owner.id, most.map(|most| (most.saturating_sub(holding.keys), most)))
}

/// Refuses a key for which its owner has no room.
fn take_room(
    rooms: &mut HashMap<OwnerId, Option<(u32, u32)>>,
    owner: OwnerId,
    record: &KeyRecord,
    index: usize,
) -> Result<(), Fault> {
    match rooms.get_mut(&owner) {
        None => Err(StoreError::UnknownOwner { index }.into()),
        Some(Some((0, most))) if record.revoked_at.is_none() => {
            Err(StoreError::TooManyKeys { index, most: *most }.into())
        }
        Some(Some((left, _))) if record.revoked_at.is_none() => {
            *left -= 1;
            Ok(())
        }
        Some(_) => Ok(()),
    }
}

/// All columns of keys, in the order of [`Columns::values`].
macro_rules! columns {
    () => {
        "id, hash, profile, owner, environment, kind, active, revoked_at, expires_at, grace_until, created_at, lineage, \
         ends_on_use, replaces, name, description, prefix, last4, pepper, may_grant, created_by, metadata, paired, revision"
    };
}

/// The columns of [`columns!`] but the revision, a list for each.
macro_rules! unnested {
    () => {
        "unnest($2::uuid[], $3::bytea[], $4::bigint[], $5::uuid[], $6::text[], $7::smallint[], $8::boolean[], \
         $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::uuid[], $14::boolean[], $15::uuid[], \
         $16::text[], $17::text[], $18::text[], $19::text[], $20::text[], $21::text[], $22::text[], $23::text[], \
         $24::boolean[])"
    };
}

const TYPES: &[Type] = &[
    Type::INT8,
    Type::UUID_ARRAY,
    Type::BYTEA_ARRAY,
    Type::INT8_ARRAY,
    Type::UUID_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT2_ARRAY,
    Type::BOOL_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::UUID_ARRAY,
    Type::BOOL_ARRAY,
    Type::UUID_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::BOOL_ARRAY,
];

/// Adds keys, stamped with the next revision; whether they may be there is not looked at.
pub(super) async fn insert_some(
    write: &mut Write<'_>,
    records: &[KeyRecord],
    profiles: &mut HashMap<Profile, i64>,
) -> Result<(), Fault> {
    const INSERT: Sql =
        Sql::new(concat!("INSERT INTO portcullis.keys (", columns!(), ") SELECT *, $1 FROM ", unnested!()), TYPES);
    let columns = Columns::of(write, records, profiles).await?;
    write.session.execute(&INSERT, &columns.values(&number(write.next))).await?;
    Ok(())
}

/// Writes all columns of a key that exists.
pub(super) async fn update_key(write: &mut Write<'_>, record: &KeyRecord) -> Result<(), Fault> {
    const UPDATE: Sql = Sql::new(
        concat!(
            "UPDATE portcullis.keys k SET (",
            columns!(),
            ") = (SELECT *, $1 FROM ",
            unnested!(),
            ") WHERE k.id = $2[1]"
        ),
        TYPES,
    );
    check_owner(write, record).await?;
    let columns = Columns::of(write, std::slice::from_ref(record), &mut HashMap::new()).await?;
    write.session.execute(&UPDATE, &columns.values(&number(write.next))).await?;
    Ok(())
}

/// Keys by column.
#[derive(Default)]
struct Columns<'r> {
    id: Vec<Uuid>,
    hash: Vec<&'r [u8]>,
    profile: Vec<i64>,
    owner: Vec<Option<Uuid>>,
    environment: Vec<&'r str>,
    kind: Vec<i16>,
    active: Vec<bool>,
    revoked_at: Vec<Option<i64>>,
    expires_at: Vec<Option<i64>>,
    grace_until: Vec<Option<i64>>,
    created_at: Vec<i64>,
    lineage: Vec<Option<Uuid>>,
    ends_on_use: Vec<bool>,
    replaces: Vec<Option<Uuid>>,
    name: Vec<&'r str>,
    description: Vec<Option<&'r str>>,
    prefix: Vec<&'r str>,
    last4: Vec<&'r str>,
    pepper: Vec<Option<&'r str>>,
    may_grant: Vec<Option<String>>,
    created_by: Vec<&'r str>,
    metadata: Vec<Option<String>>,
    paired: Vec<bool>,
}

impl<'r> Columns<'r> {
    async fn of(
        write: &mut Write<'_>,
        records: &'r [KeyRecord],
        profiles: &mut HashMap<Profile, i64>,
    ) -> Result<Self, Fault> {
        find_or_make_profiles(write, records, profiles).await?;
        let mut columns = Self::default();
        for record in records {
            let profile = profiles.get(&Profile::of(record)).copied();
            columns.profile.push(profile.ok_or_else(|| Fault::Odd("a profile was not kept".to_owned()))?);
            columns.push(record)?;
        }
        Ok(columns)
    }

    fn push(&mut self, record: &'r KeyRecord) -> Result<(), Fault> {
        let moment = |at: Option<Timestamp>| at.map(Timestamp::unix_ms);
        self.id.push(uuid(record.id));
        self.hash.push(record.hash.as_bytes());
        self.owner.push(record.owner.map(owner_uuid));
        self.environment.push(&record.environment);
        self.kind.push(kind_column(record.kind));
        self.active.push(record.active);
        self.revoked_at.push(moment(record.revoked_at));
        self.expires_at.push(moment(record.expires_at));
        self.grace_until.push(moment(record.grace_until));
        self.created_at.push(record.created_at.unix_ms());
        self.lineage.push(Some(record.lineage).filter(|lineage| *lineage != record.id).map(uuid));
        self.ends_on_use.push(record.ends_on_use);
        self.replaces.push(record.replaces.map(uuid));
        self.name.push(&record.name);
        self.description.push(Some(record.description.as_str()).filter(|text| !text.is_empty()));
        self.prefix.push(&record.prefix);
        self.last4.push(&record.last4);
        self.pepper.push(record.pepper.as_deref());
        self.may_grant.push(list_to_json(&record.may_grant)?);
        self.created_by.push(&record.created_by);
        self.metadata.push(metadata_to_json(&record.metadata)?);
        self.paired.push(record.paired);
        Ok(())
    }

    fn values<'v>(&'v self, revision: &'v i64) -> [&'v (dyn ToSql + Sync); 24] {
        [
            revision,
            &self.id,
            &self.hash,
            &self.profile,
            &self.owner,
            &self.environment,
            &self.kind,
            &self.active,
            &self.revoked_at,
            &self.expires_at,
            &self.grace_until,
            &self.created_at,
            &self.lineage,
            &self.ends_on_use,
            &self.replaces,
            &self.name,
            &self.description,
            &self.prefix,
            &self.last4,
            &self.pepper,
            &self.may_grant,
            &self.created_by,
            &self.metadata,
            &self.paired,
        ]
    }
}

/// The numbers of what these keys may be used for, given where there is none yet.
async fn find_or_make_profiles(
    write: &mut Write<'_>,
    records: &[KeyRecord],
    known: &mut HashMap<Profile, i64>,
) -> Result<(), Fault> {
    const FIND: Sql =
        Sql::new("SELECT profile, digest FROM portcullis.profiles WHERE digest = ANY ($1)", &[Type::BYTEA_ARRAY]);
    const MAKE: Sql = Sql::new(
        "INSERT INTO portcullis.profiles (digest, scopes, roles, bounds) \
         SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[]) RETURNING profile, digest",
        &[Type::BYTEA_ARRAY, Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::TEXT_ARRAY],
    );
    let mut wanted: HashMap<Vec<u8>, Worded> = HashMap::new();
    for record in records {
        let profile = Profile::of(record);
        if !known.contains_key(&profile) {
            let worded = Worded::of(profile)?;
            wanted.insert(worded.digest(), worded);
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let digests: Vec<&[u8]> = wanted.keys().map(Vec::as_slice).collect();
    let mut found = write.session.rows(&FIND, &[&digests]).await?;
    let mut missing: HashMap<&[u8], &Worded> =
        wanted.iter().map(|(digest, worded)| (digest.as_slice(), worded)).collect();
    for row in &found {
        missing.remove(get::<&[u8]>(row, 1)?);
    }
    if !missing.is_empty() {
        let digests: Vec<&[u8]> = missing.keys().copied().collect();
        let scopes: Vec<&str> = missing.values().map(|worded| worded.scopes.as_str()).collect();
        let roles: Vec<&str> = missing.values().map(|worded| worded.roles.as_str()).collect();
        let bounds: Vec<Option<&str>> = missing.values().map(|worded| worded.bounds.as_deref()).collect();
        found.extend(write.session.rows(&MAKE, &[&digests, &scopes, &roles, &bounds]).await?);
    }
    for row in &found {
        if let Some(worded) = wanted.remove(get::<&[u8]>(row, 1)?) {
            known.insert(worded.profile, get(row, 0)?);
        }
    }
    Ok(())
}

/// A profile as its columns.
struct Worded {
    profile: Profile,
    scopes: String,
    roles: String,
    bounds: Option<String>,
}

impl Worded {
    fn of(profile: Profile) -> Result<Self, Fault> {
        let bounds = if profile.bounds.is_empty() { None } else { Some(to_json(&profile.bounds)?) };
        Ok(Self { scopes: to_json(&profile.scopes)?, roles: to_json(&profile.roles)?, bounds, profile })
    }

    /// An index holds no texts as long as these may be.
    fn digest(&self) -> Vec<u8> {
        let mut digest = Sha256::new();
        // JSON holds no line ends outside its texts, and these escape them.
        for part in [self.scopes.as_str(), "\n", &self.roles, "\n", self.bounds.as_deref().unwrap_or_default()] {
            digest.update(part);
        }
        digest.finalize().to_vec()
    }
}
