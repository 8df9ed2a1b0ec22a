//! What is looked up for people: keys and owners, one, many or a page.

use std::collections::HashMap;

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::commands::kind_column;
use super::fault::Fault;
use super::rows::{self, bytes32, get, owner_uuid, owners, records, uuid};
use super::session::{Session, Sql};
use crate::domain::{KeyHash, KeyId, KeyRecord, OwnerId, OwnerRecord, Revision, Timestamp};
use crate::store::api::{Holding, KeyQuery, Page, RepeatName, Repeatable, Taken};
use crate::store::columns::{rows as row_bound, state_number};

/// Ids or hashes in one question.
const AT_ONCE: usize = 5_000;

/// See [`crate::store::KeyReader::find_taken`].
pub(super) async fn taken(session: &mut Session, ids: Vec<KeyId>, hashes: Vec<KeyHash>) -> Result<Taken, Fault> {
    const IDS: Sql = Sql::new("SELECT id FROM portcullis.keys WHERE id = ANY ($1)", &[Type::UUID_ARRAY]);
    const HASHES: Sql = Sql::new("SELECT hash, id FROM portcullis.keys WHERE hash = ANY ($1)", &[Type::BYTEA_ARRAY]);
    let mut taken = Taken::default();
    for some in ids.chunks(AT_ONCE) {
        let some: Vec<Uuid> = some.iter().copied().map(uuid).collect();
        for row in session.rows(&IDS, &[&some]).await? {
            taken.ids.insert(rows::key_id(&row, 0)?);
        }
    }
    for some in hashes.chunks(AT_ONCE) {
        let some: Vec<&[u8]> = some.iter().map(|hash| hash.as_bytes().as_slice()).collect();
        for row in session.rows(&HASHES, &[&some]).await? {
            taken.hashes.insert(KeyHash::from_bytes(bytes32(&row, 0)?), rows::key_id(&row, 1)?);
        }
    }
    Ok(taken)
}

/// See [`crate::store::KeyReader::find_holdings`].
pub(super) async fn holdings(session: &mut Session, ids: Vec<OwnerId>) -> Result<Vec<Holding>, Fault> {
    const OWNERS: Sql = Sql::new(concat!(owners!(), "WHERE id = ANY ($1)"), &[Type::UUID_ARRAY]);
    const KEYS: Sql = Sql::new(
        "SELECT o.id, (SELECT count(*) FROM (SELECT 1 FROM portcullis.keys k WHERE k.owner = o.id \
         AND k.revoked_at IS NULL LIMIT o.most) found) FROM unnest($1::uuid[], $2::bigint[]) AS o (id, most)",
        &[Type::UUID_ARRAY, Type::INT8_ARRAY],
    );
    let mut found = Vec::new();
    for some in ids.chunks(AT_ONCE) {
        let some: Vec<Uuid> = some.iter().copied().map(owner_uuid).collect();
        let owners = session.rows(&OWNERS, &[&some]).await?;
        let owners: Vec<OwnerRecord> = owners.iter().map(rows::read_owner).collect::<Result<_, _>>()?;
        let bounds = owners.iter().filter_map(|owner| Some((owner_uuid(owner.id), i64::from(owner.max_keys?))));
        let (bounded, most): (Vec<Uuid>, Vec<i64>) = bounds.unzip();
        let mut keys: HashMap<Uuid, u32> = HashMap::new();
        if !bounded.is_empty() {
            for row in session.rows(&KEYS, &[&bounded, &most]).await? {
                keys.insert(get(&row, 0)?, u32::try_from(get::<i64>(&row, 1)?).unwrap_or(u32::MAX));
            }
        }
        found.extend(owners.into_iter().map(|owner| {
            let keys = keys.get(&owner_uuid(owner.id)).copied().unwrap_or_default();
            Holding { owner, keys }
        }));
    }
    Ok(found)
}

/// The owner with this id, if there is one.
pub(super) async fn find_owner(session: &mut Session, id: OwnerId) -> Result<Option<OwnerRecord>, Fault> {
    const FIND: Sql = Sql::new(concat!(owners!(), "WHERE id = $1"), &[Type::UUID]);
    session.row(&FIND, &[&owner_uuid(id)]).await?.as_ref().map(rows::read_owner).transpose()
}

/// All owners in order of id.
pub(super) async fn list_owners(session: &mut Session) -> Result<Vec<OwnerRecord>, Fault> {
    const LIST: Sql = Sql::new(concat!(owners!(), "ORDER BY id"), &[]);
    session.rows(&LIST, &[]).await?.iter().map(rows::read_owner).collect()
}

/// See [`crate::store::KeyReader::find_repeatable`].
pub(super) async fn find_repeatable(
    session: &mut Session,
    name: RepeatName,
    now: Timestamp,
) -> Result<Option<(Repeatable, Revision)>, Fault> {
    const FIND: Sql = Sql::new(
        "SELECT request, sealed, revision FROM portcullis.repeatable WHERE name = $1 AND at > $2",
        &[Type::BYTEA, Type::INT8],
    );
    let oldest = now.minus(Repeatable::KEPT).unix_ms();
    let found = session.row(&FIND, &[&name.as_slice(), &oldest]).await?;
    found
        .map(|row| Ok((Repeatable { request: bytes32(&row, 0)?, sealed: get(&row, 1)? }, rows::revision(&row, 2)?)))
        .transpose()
}

macro_rules! list {
    ($of_owner:literal) => {
        Sql::new(
            concat!(
                records!(),
                "WHERE k.id > $1 AND ",
                $of_owner,
                " AND (NOT $3 OR k.owner IS NULL) AND (NOT $4 OR k.kind <> 3) \
                 AND ($5 IS NULL OR k.environment = $5) AND ($6 IS NULL OR k.kind = $6) \
                 AND ($7 IS NULL OR k.name = $7) AND ($8 IS NULL OR starts_with(k.prefix, $8)) \
                 AND ($9 IS NULL OR $9 = CASE WHEN k.revoked_at IS NOT NULL THEN 3 \
                 WHEN k.expires_at <= $10 OR k.grace_until <= $10 THEN 2 WHEN k.active THEN 0 ELSE 1 END) \
                 ORDER BY k.id LIMIT $11"
            ),
            &[
                Type::UUID,
                Type::UUID,
                Type::BOOL,
                Type::BOOL,
                Type::TEXT,
                Type::INT2,
                Type::TEXT,
                Type::TEXT,
                Type::INT8,
                Type::INT8,
                Type::INT8,
            ],
        )
    };
}

/// Walks the keys in order of id; filters cost a look at each row.
pub(super) async fn list_keys(session: &mut Session, query: &KeyQuery) -> Result<Page<KeyRecord>, Fault> {
    // Said plainly where it is asked for, so that the index of owners is used; the other form binds the same value.
    const ANY: Sql = list!("$2::uuid IS NULL");
    const OF_OWNER: Sql = list!("k.owner = $2");
    if [&query.environment, &query.name, &query.prefix].into_iter().flatten().any(|text| text.contains('\0')) {
        return Ok(Page { items: Vec::new(), more: false });
    }
    let size = query.page_size();
    let sql = if query.owner.is_some() { &OF_OWNER } else { &ANY };
    let after = query.after.map_or(Uuid::nil(), uuid);
    let owner = query.owner.map(owner_uuid);
    let kind = query.kind.map(kind_column);
    let state = query.state.map(|(state, _)| state_number(state));
    let now = query.state.map(|(_, now)| now.unix_ms());
    let limit = row_bound(size).saturating_add(1);
    session.begin_snapshot().await?;
    let found = session
        .rows(
            sql,
            &[
                &after,
                &owner,
                &query.unowned,
                &query.no_management,
                &query.environment,
                &kind,
                &query.name,
                &query.prefix,
                &state,
                &now,
                &limit,
            ],
        )
        .await?;
    let items = rows::read_records(session, &found[..found.len().min(size)]).await?;
    session.roll_back().await?;
    Ok(Page { items, more: found.len() > size })
}
