//! What is looked up for many keys at once: by index, a few hundred at a time, so that nobody waits long for a reader.

use rusqlite::{Connection, OptionalExtension, params};

use super::fault::Fault;
use super::find_owner;
use super::seat::{Open, Readers};
use crate::domain::{KeyHash, KeyId, OwnerId};
use crate::store::api::{Holding, Taken};
use crate::store::error::StoreError;

/// Ids or hashes that are looked up before others have their turn at the reader.
const KEYS_AT_ONCE: usize = 500;
/// The same for owners, whose keys may have to be counted.
const OWNERS_AT_ONCE: usize = 50;

/// See [`super::KeyReader::find_taken`]. Not one snapshot: others may write in between, as they may afterwards.
pub(super) async fn find_taken(readers: &Readers, ids: Vec<KeyId>, hashes: Vec<KeyHash>) -> Result<Taken, StoreError> {
    let mut taken = Taken::default();
    for some in ids.chunks(KEYS_AT_ONCE) {
        let some = some.to_vec();
        taken.ids.extend(readers.ask("looking up ids", move |open| taken_ids(open, some)).await?);
    }
    for some in hashes.chunks(KEYS_AT_ONCE) {
        let some = some.to_vec();
        taken.hashes.extend(readers.ask("looking up keys", move |open| taken_hashes(open, some)).await?);
    }
    Ok(taken)
}

fn taken_ids(open: &mut Open, ids: Vec<KeyId>) -> Result<Vec<KeyId>, Fault> {
    let snapshot = open.connection.transaction()?;
    let mut select = snapshot.prepare_cached("SELECT 1 FROM keys WHERE id = ?1")?;
    let mut taken = Vec::new();
    for id in ids {
        if select.exists([id.to_bytes()])? {
            taken.push(id);
        }
    }
    Ok(taken)
}

fn taken_hashes(open: &mut Open, hashes: Vec<KeyHash>) -> Result<Vec<(KeyHash, KeyId)>, Fault> {
    let snapshot = open.connection.transaction()?;
    let mut select = snapshot.prepare_cached("SELECT id FROM keys WHERE hash = ?1")?;
    let mut taken = Vec::new();
    for hash in hashes {
        let id = select.query_row([hash.as_bytes()], |row| row.get(0)).optional()?;
        taken.extend(id.map(|id| (hash, KeyId::from_bytes(id))));
    }
    Ok(taken)
}

/// See [`super::KeyReader::find_holdings`]. Not one snapshot either.
pub(super) async fn find_holdings(readers: &Readers, owners: Vec<OwnerId>) -> Result<Vec<Holding>, StoreError> {
    let mut found = Vec::new();
    for some in owners.chunks(OWNERS_AT_ONCE) {
        let some = some.to_vec();
        found.extend(readers.ask("looking up owners", move |open| holdings(open, some)).await?);
    }
    Ok(found)
}

fn holdings(open: &mut Open, owners: Vec<OwnerId>) -> Result<Vec<Holding>, Fault> {
    let snapshot = open.connection.transaction()?;
    let mut found = Vec::new();
    for id in owners {
        let Some(owner) = find_owner(&snapshot, id)? else { continue };
        let keys = match owner.max_keys {
            None => 0,
            Some(most) => count_keys(&snapshot, id, most)?,
        };
        found.push(Holding { owner, keys });
    }
    Ok(found)
}

/// How many keys an owner has that are not revoked; counting ends at `most`.
pub(super) fn count_keys(connection: &Connection, owner: OwnerId, most: u32) -> Result<u32, Fault> {
    let mut count = connection.prepare_cached(
        "SELECT count(*) FROM (SELECT 1 FROM keys WHERE owner = (SELECT owner FROM owners WHERE id = ?1)
         AND revoked_at IS NULL LIMIT ?2)",
    )?;
    Ok(count.query_row(params![owner.to_bytes(), most], |row| row.get(0))?)
}
