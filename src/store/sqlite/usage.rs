//! When keys were last used: a file of its own, so that noting it never delays a revocation.
//!
//! What it holds is welcome, not needed: a broken file is set aside and begun anew.

use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension, TransactionBehavior, params};

use super::connect::{Role, usage_path};
use super::fault::Fault;
use super::seat::{Open, Readers, Seat};
use crate::domain::{KeyId, KeyRecord, Timestamp};
use crate::store::error::StoreError;

/// The file beside the store, opened when it is first needed.
pub(super) struct Usage {
    thread: Readers,
    path: PathBuf,
}

impl Usage {
    pub(super) fn start(store: &Path) -> Result<Self, StoreError> {
        let path = usage_path(store);
        let thread = Readers::start("store-usage", [Seat::new(path.clone(), Role::Usage)])?;
        Ok(Self { thread, path })
    }

    /// Notes uses in one transaction; an earlier moment never replaces a later one.
    pub(super) async fn note(&self, mut uses: Vec<(KeyId, Timestamp)>) -> Result<(), StoreError> {
        const DOING: &str = "noting last use";
        // In order of the table, so that neighbouring rows are on pages at hand.
        uses.sort_unstable();
        let job = move |seat: &mut Seat| match seat.run(DOING, |open| write(open, &uses)) {
            Err(StoreError::Damaged { found }) => {
                set_aside(seat.path(), &found)?;
                seat.run(DOING, |open| write(open, &uses))
            }
            result => result,
        };
        self.thread.ask_seat(DOING, job).await
    }

    /// Fills in when these keys were last used. What cannot be read stays unknown: the records matter more.
    pub(super) async fn fill_in(&self, records: &mut [KeyRecord]) {
        if records.is_empty() || !self.path.exists() {
            return;
        }
        let ids: Vec<KeyId> = records.iter().map(|record| record.id).collect();
        match self.thread.ask("reading last use", move |open| read(open, &ids)).await {
            Ok(moments) => {
                for (record, moment) in records.iter_mut().zip(moments) {
                    record.last_used_at = moment;
                }
            }
            Err(error) => tracing::warn!(%error, "last use cannot be read"),
        }
    }
}

fn write(open: &mut Open, uses: &[(KeyId, Timestamp)]) -> Result<(), Fault> {
    let transaction = open.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut upsert = transaction.prepare_cached(
            "INSERT INTO last_used (id, at) VALUES (?1, ?2) \
             ON CONFLICT (id) DO UPDATE SET at = excluded.at WHERE excluded.at > at",
        )?;
        for (id, at) in uses {
            upsert.execute(params![id.to_bytes(), at.unix_ms()])?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn read(open: &mut Open, ids: &[KeyId]) -> Result<Vec<Option<Timestamp>>, Fault> {
    let mut find = open.connection.prepare_cached("SELECT at FROM last_used WHERE id = ?1")?;
    let mut moments = Vec::with_capacity(ids.len());
    for id in ids {
        let moment: Option<i64> = find.query_row([id.to_bytes()], |row| row.get(0)).optional()?;
        moments.push(moment.map(Timestamp::from_unix_ms));
    }
    Ok(moments)
}

/// Renames a broken file, so that it can be looked at, and removes what belongs to it.
fn set_aside(path: &Path, found: &str) -> Result<(), StoreError> {
    let aside = path.with_extension("db.broken");
    tracing::warn!(%found, file = %path.display(), kept_as = %aside.display(), "last use is noted in a new file");
    for suffix in ["-wal", "-shm"] {
        let mut companion = path.as_os_str().to_owned();
        companion.push(suffix);
        if let Err(error) = std::fs::remove_file(&companion)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(StoreError::unavailable("setting a broken file aside", error));
        }
    }
    std::fs::rename(path, &aside).map_err(|source| StoreError::unavailable("setting a broken file aside", source))
}
