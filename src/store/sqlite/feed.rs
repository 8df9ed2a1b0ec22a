//! Following changes: the head, the whole set, and what happened since.

use rusqlite::{Connection, OptionalExtension};
use tokio::sync::mpsc;

use super::fault::Fault;
use super::rows::{self, FACTS, Names};
use super::seat::Open;
use super::writer::{number, read_head};
use crate::domain::{KeyHash, KeyId, StoreHead};
use crate::store::api::{Changes, KeyFacts, LoadBatch, MAX_CHANGED_KEYS, OwnerFacts, Removed};

/// Rows handed over at a time.
const BATCH: usize = 4_096;

/// The newest revision. Looks at the tables only when SQLite says that another connection committed.
pub(super) fn head(open: &mut Open) -> Result<StoreHead, Fault> {
    // Read first: a commit in between is then noticed the next time.
    let version: i64 = open.connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
    if let Some((_, head)) = open.known_head.filter(|(known, _)| *known == version) {
        return Ok(head);
    }
    let head = read_head(&open.connection)?;
    open.known_head = Some((version, head));
    Ok(head)
}

/// Sends the whole set in one snapshot; ends early when nobody listens any more.
pub(super) fn load_all(open: &mut Open, batches: &mpsc::Sender<LoadBatch>) -> Result<StoreHead, Fault> {
    let snapshot = open.connection.transaction()?;
    let head = read_head(&snapshot)?;
    let mut names = Names::new(&snapshot);
    let count: i64 = snapshot.query_row("SELECT count(*) FROM keys", [], |row| row.get(0))?;
    let expect = LoadBatch::Expect { keys: usize::try_from(count).unwrap_or(0) };
    let heard = batches.blocking_send(expect).is_ok()
        && send_owners(&snapshot, &mut names, batches)?
        && send_keys(&snapshot, &mut names, batches)?;
    snapshot.finish()?;
    // Loading fills the page cache, and nothing after it needs as much.
    open.connection.execute_batch("PRAGMA shrink_memory")?;
    if heard { Ok(head) } else { Ok(StoreHead::default()) }
}

fn send_owners(snapshot: &Connection, names: &mut Names<'_>, batches: &mpsc::Sender<LoadBatch>) -> Result<bool, Fault> {
    let mut select = snapshot.prepare("SELECT owner, id, suspended, terms FROM owners")?;
    let mut found = select.query([])?;
    let mut batch = Vec::with_capacity(BATCH);
    while let Some(row) = found.next()? {
        let owner = rows::read_owner_facts(row, 1)?;
        names.learn_owner(row.get(0)?, owner.id);
        batch.push(owner);
        if batch.len() == BATCH && batches.blocking_send(LoadBatch::Owners(take_batch(&mut batch))).is_err() {
            return Ok(false);
        }
    }
    Ok(batch.is_empty() || batches.blocking_send(LoadBatch::Owners(batch)).is_ok())
}

fn send_keys(snapshot: &Connection, names: &mut Names<'_>, batches: &mpsc::Sender<LoadBatch>) -> Result<bool, Fault> {
    let mut select = snapshot.prepare(&format!("SELECT {FACTS} FROM keys"))?;
    let mut found = select.query([])?;
    let mut batch = Vec::with_capacity(BATCH);
    while let Some(row) = found.next()? {
        batch.push(rows::read_facts(row, names)?);
        if batch.len() == BATCH && batches.blocking_send(LoadBatch::Keys(take_batch(&mut batch))).is_err() {
            return Ok(false);
        }
    }
    Ok(batch.is_empty() || batches.blocking_send(LoadBatch::Keys(batch)).is_ok())
}

fn take_batch<T>(batch: &mut Vec<T>) -> Vec<T> {
    std::mem::replace(batch, Vec::with_capacity(BATCH))
}

/// What changed after `since`, in one snapshot.
pub(super) fn changes_since(open: &mut Open, since: StoreHead) -> Result<Changes, Fault> {
    let snapshot = open.connection.transaction()?;
    let head = read_head(&snapshot)?;
    let token: Option<i64> = snapshot
        .prepare_cached("SELECT token FROM revisions WHERE revision = ?1")?
        .query_row([number(since.revision)], |row| row.get(0))
        .optional()?;
    match token {
        Some(token) if token.cast_unsigned() == since.token.0 => {}
        Some(_) => return Ok(Changes::OtherHistory),
        None if since.revision > head.revision => return Ok(Changes::OtherHistory),
        None => return Ok(Changes::TooOld),
    }
    let after = number(since.revision);
    let Some(keys) = changed_keys(&snapshot, after)? else { return Ok(Changes::TooOld) };
    let owners = changed_owners(&snapshot, after)?;
    let removed = snapshot
        .prepare_cached("SELECT id, hash FROM removed WHERE revision > ?1 ORDER BY revision")?
        .query_map([after], |row| {
            Ok(Removed { id: KeyId::from_bytes(row.get(0)?), hash: KeyHash::from_bytes(row.get(1)?) })
        })?
        .collect::<Result<_, _>>()?;
    Ok(Changes::Since { owners, keys, removed, head })
}

fn changed_owners(snapshot: &Connection, after: i64) -> Result<Vec<OwnerFacts>, Fault> {
    let mut select =
        snapshot.prepare_cached("SELECT id, suspended, terms FROM owners WHERE revision > ?1 ORDER BY revision")?;
    let mut found = select.query([after])?;
    let mut owners = Vec::new();
    while let Some(row) = found.next()? {
        owners.push(rows::read_owner_facts(row, 0)?);
    }
    Ok(owners)
}

/// `None` when there are more than one answer may hold.
fn changed_keys(snapshot: &Connection, after: i64) -> Result<Option<Vec<KeyFacts>>, Fault> {
    let mut names = Names::new(snapshot);
    let mut select = snapshot.prepare_cached(&format!(
        "SELECT {FACTS} FROM keys WHERE revision > ?1 ORDER BY revision, (revoked_at IS NOT NULL OR NOT active), key"
    ))?;
    let mut found = select.query([after])?;
    let mut keys = Vec::new();
    while let Some(row) = found.next()? {
        if keys.len() == MAX_CHANGED_KEYS {
            return Ok(None);
        }
        keys.push(rows::read_facts(row, &mut names)?);
    }
    Ok(Some(keys))
}
