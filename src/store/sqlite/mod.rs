//! The embedded store: one SQLite file, and one more for last use, the counts of quotas, what requests leave behind and
//! the gateways that run.
//!
//! Owns the files, their threads and their schema. One thread writes (`writer`), one follows changes (`feed`), two read
//! for people, one notes what requests did (`usage`); each has a connection of its own (`seat`). Other processes may use the
//! same files at the same time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, named_params, params};
use tokio::sync::{mpsc, watch};

use super::SharedSeal;
use super::api::{
    Answer, ChangeFeed, Changes, Holding, KeyQuery, KeyReader, LoadBatch, Page, PieceSink, QuotaBook, RepeatName,
    Repeatable, Taken,
};
use super::archive::Piece;
use super::columns::{kind_number, state_number};
use super::command::{Commands, Effect, Order};
use super::error::StoreError;
use super::memory::wait_for_commit;
use super::seal::AuditHead;
use super::trail::{AuditEntry, AuditExtent, AuditQuery, AuditReader};
use super::usage::{AdditionId, UsageBook};
use super::verify::Verification;
use super::{MigrationStep, OpenMode};
use crate::domain::{KeyHash, KeyId, KeyRecord, OwnerId, OwnerRecord, QuotaTerm, Revision, StoreHead, Timestamp};

mod commands;
mod connect;
mod fault;
mod feed;
mod forget;
mod insert;
mod interned;
mod lookups;
mod migrate;
mod nodes;
mod restore;
mod rows;
mod seat;
mod trail;
mod usage;
mod usage_book;
mod usage_findings;
mod usage_tidy;
mod writer;

#[cfg(test)]
mod sqlite_tests;
#[cfg(test)]
mod trail_tests;

use connect::Role;
use fault::Fault;
use rows::{Names, OWNER, RECORD};
use seat::{Open, Readers, Seat};

/// Batches of a load that may wait to be taken.
const LOAD_AHEAD: usize = 4;

/// See the module.
pub(super) struct SqliteStore {
    committed: watch::Sender<StoreHead>,
    writer: writer::Writer,
    feed: Readers,
    readers: Readers,
    usage: Arc<usage::Usage>,
    seal: SharedSeal,
    path: PathBuf,
}

impl SqliteStore {
    /// Opens the file and starts the threads.
    ///
    /// # Errors
    /// As [`super::open`].
    pub(super) fn open(path: &Path, mode: OpenMode, seal: SharedSeal) -> Result<Self, StoreError> {
        let first = connect::open_first(path, mode)?;
        let writer = Seat::with_connection(path.to_owned(), Role::Writer, first);
        let reader = || Seat::new(path.to_owned(), Role::Reader);
        let committed = watch::Sender::new(StoreHead::default());
        Ok(Self {
            writer: writer::Writer::start(writer, committed.clone(), seal.clone())?,
            feed: Readers::start("store-feed", [reader()])?,
            readers: Readers::start("store-reader", [reader(), reader()])?,
            usage: Arc::new(usage::Usage::start(path)?),
            committed,
            seal,
            path: path.to_owned(),
        })
    }

    /// What requests leave behind; it lies in the file of last use.
    pub(super) fn usage_book(&self) -> Arc<dyn UsageBook> {
        Arc::clone(&self.usage) as _
    }
}

/// Every step of the schema, and when the file took it. Changes nothing.
///
/// # Errors
/// As [`super::open`].
pub(super) fn migrations(path: &Path) -> Result<Vec<MigrationStep>, StoreError> {
    let connection = connect::open_to_look(path)?;
    migrate::list(connection.as_ref(), &migrate::KEYS).map_err(|fault| fault.tell("looking at the store", path))
}

/// Takes the steps that are missing; returns how many.
///
/// # Errors
/// As [`super::open`].
pub(super) fn bring_up_to_date(path: &Path) -> Result<usize, StoreError> {
    let missing = migrations(path)?.iter().filter(|step| step.applied_at.is_none()).count();
    connect::open_first(path, OpenMode::Create).map(|_| missing)
}

impl Commands for SqliteStore {
    fn apply_order(&self, order: Order) -> Answer<'_, Effect> {
        Box::pin(self.writer.submit(order))
    }

    fn note_uses(&self, uses: Vec<(KeyId, Timestamp)>) -> Answer<'_, ()> {
        Box::pin(self.usage.note(uses))
    }
}

impl QuotaBook for SqliteStore {
    fn count_requests(&self, _: AdditionId, counts: Vec<(QuotaTerm, u64)>) -> Answer<'_, Vec<(QuotaTerm, u64)>> {
        Box::pin(self.usage.count(counts))
    }

    fn current_counts(&self, now: Timestamp) -> Answer<'_, Vec<(QuotaTerm, u64)>> {
        Box::pin(self.usage.current_counts(now))
    }
}

impl KeyReader for SqliteStore {
    fn find_key(&self, id: KeyId) -> Answer<'_, Option<KeyRecord>> {
        Box::pin(async move {
            let found = self.readers.ask("reading a key", move |open| find_key(open, id)).await?;
            let mut records: Vec<KeyRecord> = found.into_iter().collect();
            self.usage.fill_in(&mut records).await;
            Ok(records.pop())
        })
    }

    fn list_keys(&self, query: KeyQuery) -> Answer<'_, Page<KeyRecord>> {
        Box::pin(async move {
            let mut page = self.readers.ask("listing keys", move |open| list_keys(open, &query)).await?;
            self.usage.fill_in(&mut page.items).await;
            Ok(page)
        })
    }

    fn list_owners(&self) -> Answer<'_, Vec<OwnerRecord>> {
        Box::pin(self.readers.ask("listing owners", list_owners))
    }

    fn find_owner(&self, id: OwnerId) -> Answer<'_, Option<OwnerRecord>> {
        Box::pin(self.readers.ask("reading an owner", move |open| find_owner(&open.connection, id)))
    }

    fn find_taken(&self, ids: Vec<KeyId>, hashes: Vec<KeyHash>) -> Answer<'_, Taken> {
        Box::pin(lookups::find_taken(&self.readers, ids, hashes))
    }

    fn find_holdings(&self, owners: Vec<OwnerId>) -> Answer<'_, Vec<Holding>> {
        Box::pin(lookups::find_holdings(&self.readers, owners))
    }

    fn copy_all<'a>(&'a self, sink: PieceSink<'a>) -> Answer<'a, ()> {
        Box::pin(async move {
            let (pieces, mut arriving) = mpsc::channel(LOAD_AHEAD);
            let copy = self.readers.ask("copying the store", move |open| restore::copy_all(open, &pieces));
            let hand_over = async move {
                while let Some(mut piece) = arriving.recv().await {
                    if let Piece::Keys(records) = &mut piece {
                        self.usage.fill_in(records).await;
                    }
                    if !sink(piece) {
                        return;
                    }
                }
            };
            let (copied, ()) = tokio::join!(copy, hand_over);
            copied
        })
    }

    fn find_repeatable(&self, name: RepeatName, now: Timestamp) -> Answer<'_, Option<(Repeatable, Revision)>> {
        Box::pin(self.readers.ask("reading an answer", move |open| find_repeatable(&open.connection, &name, now)))
    }
}

impl AuditReader for SqliteStore {
    fn list_audit(&self, query: AuditQuery) -> Answer<'_, Page<AuditEntry>> {
        Box::pin(self.readers.ask("listing the audit trail", move |open| trail::list(&open.connection, &query)))
    }

    fn audit_extent(&self) -> Answer<'_, AuditExtent> {
        Box::pin(self.readers.ask("reading the audit trail", trail::extent))
    }

    fn verify_audit(&self, head: Option<AuditHead>) -> Answer<'_, Verification> {
        let seal = self.seal.load_full();
        Box::pin(self.readers.ask("verifying the audit trail", move |open| trail::verify(open, &seal, head)))
    }
}

impl ChangeFeed for SqliteStore {
    fn head(&self) -> Answer<'_, StoreHead> {
        Box::pin(self.feed.ask("asking for the newest change", feed::head))
    }

    fn load_all<'a>(&'a self, sink: &'a mut (dyn FnMut(LoadBatch) + Send)) -> Answer<'a, StoreHead> {
        Box::pin(async move {
            let (batches, mut arriving) = mpsc::channel(LOAD_AHEAD);
            let load = self.feed.ask("loading all keys", move |open| feed::load_all(open, &batches));
            let hand_over = async {
                while let Some(batch) = arriving.recv().await {
                    sink(batch);
                }
            };
            let (head, ()) = tokio::join!(load, hand_over);
            head
        })
    }

    fn changes_since(&self, since: StoreHead) -> Answer<'_, Changes> {
        Box::pin(self.feed.ask("reading changes", move |open| feed::changes_since(open, since)))
    }

    fn wait_for_change(&self, seen: StoreHead, patience: Duration) -> Answer<'_, ()> {
        Box::pin(wait_for_commit(self.committed.subscribe(), seen, patience))
    }
}

fn find_key(open: &mut Open, id: KeyId) -> Result<Option<KeyRecord>, Fault> {
    let snapshot = open.connection.transaction()?;
    let mut names = Names::new(&snapshot);
    read_key(&snapshot, &mut names, id)
}

/// The record of a key, in the transaction that `names` was made for.
fn read_key(connection: &Connection, names: &mut Names<'_>, id: KeyId) -> Result<Option<KeyRecord>, Fault> {
    let mut select = connection.prepare_cached(&format!("SELECT {RECORD} FROM keys WHERE id = ?1"))?;
    let mut found = select.query([id.to_bytes()])?;
    found.next()?.map(|row| rows::read_record(row, names)).transpose()
}

fn find_owner(connection: &Connection, id: OwnerId) -> Result<Option<OwnerRecord>, Fault> {
    let mut select = connection.prepare_cached(&format!("SELECT {OWNER} FROM owners WHERE id = ?1"))?;
    let mut found = select.query([id.to_bytes()])?;
    found.next()?.map(rows::read_owner).transpose()
}

fn find_repeatable(
    connection: &Connection,
    name: &RepeatName,
    now: Timestamp,
) -> Result<Option<(Repeatable, Revision)>, Fault> {
    let mut select =
        connection.prepare_cached("SELECT request, sealed, revision FROM repeatable WHERE name = ?1 AND at > ?2")?;
    let oldest = now.minus(Repeatable::KEPT).unix_ms();
    let found = select.query_row(params![name, oldest], |row| {
        Ok((Repeatable { request: row.get(0)?, sealed: row.get(1)? }, writer::revision_of(row.get(2)?)))
    });
    Ok(found.optional()?)
}

/// Walks the keys in order of id; filters cost a look at each row.
fn list_keys(open: &mut Open, query: &KeyQuery) -> Result<Page<KeyRecord>, Fault> {
    let snapshot = open.connection.transaction()?;
    let number_of = |sql: &str, value: &dyn rusqlite::ToSql| -> Result<Option<i64>, Fault> {
        Ok(snapshot.prepare_cached(sql)?.query_row([value], |row| row.get(0)).optional()?)
    };
    // A name that no row has ever had becomes 0, which is no row's number.
    let owner = match query.owner {
        None => None,
        Some(id) => Some(number_of("SELECT owner FROM owners WHERE id = ?1", &id.to_bytes())?.unwrap_or(0)),
    };
    let environment = match &query.environment {
        None => None,
        Some(name) => Some(number_of("SELECT environment FROM environments WHERE name = ?1", name)?.unwrap_or(0)),
    };
    // Said plainly where it is asked for, so that the index of owners is used; the other form binds the same value.
    let of_owner = if owner.is_some() { "owner = :owner" } else { ":owner IS NULL" };
    let size = query.page_size();
    let mut names = Names::new(&snapshot);
    let mut select = snapshot.prepare_cached(&format!(
        "SELECT {RECORD} FROM keys WHERE id > :after
           AND {of_owner}
           AND (NOT :unowned OR owner IS NULL)
           AND (NOT :no_management OR kind <> 3)
           AND (:environment IS NULL OR environment = :environment)
           AND (:kind IS NULL OR kind = :kind)
           AND (:name IS NULL OR name = :name)
           AND (:prefix IS NULL OR substr(prefix, 1, length(:prefix)) = :prefix)
           AND (:state IS NULL OR :state = CASE
                WHEN revoked_at IS NOT NULL THEN 3
                WHEN expires_at <= :now OR grace_until <= :now THEN 2
                WHEN active THEN 0
                ELSE 1 END)
         ORDER BY id LIMIT :limit"
    ))?;
    let mut found = select.query(named_params! {
        ":after": query.after.map_or([0; 16], KeyId::to_bytes),
        ":owner": owner,
        ":unowned": query.unowned,
        ":no_management": query.no_management,
        ":environment": environment,
        ":kind": query.kind.map(kind_number),
        ":name": query.name,
        ":prefix": query.prefix,
        ":state": query.state.map(|(state, _)| state_number(state)),
        ":now": query.state.map(|(_, now)| now.unix_ms()),
        ":limit": i64::try_from(size).unwrap_or(i64::MAX) + 1,
    })?;
    let mut items = Vec::new();
    while let Some(row) = found.next()? {
        if items.len() == size {
            return Ok(Page { items, more: true });
        }
        items.push(rows::read_record(row, &mut names)?);
    }
    Ok(Page { items, more: false })
}

fn list_owners(open: &mut Open) -> Result<Vec<OwnerRecord>, Fault> {
    let mut select = open.connection.prepare_cached(&format!("SELECT {OWNER} FROM owners ORDER BY id"))?;
    let mut found = select.query([])?;
    let mut owners = Vec::new();
    while let Some(row) = found.next()? {
        owners.push(rows::read_owner(row)?);
    }
    Ok(owners)
}
