//! When keys were last used, what quotas counted and what requests left behind (`usage_book`): a file of its own, so that
//! noting it never delays a revocation.
//!
//! What it holds is welcome, not needed: a broken file is set aside and begun anew.

use std::path::{Path, PathBuf};

use rusqlite::{OptionalExtension, TransactionBehavior, params};

use super::connect::{Role, usage_path};
use super::fault::Fault;
use super::seat::{Open, Readers, Seat};
use crate::domain::{KeyId, KeyRecord, QuotaPeriod, QuotaTerm, Timestamp};
use crate::store::columns::{holder_columns, holder_of, period_number, period_of, signed, unsigned};
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
        self.insist(DOING, move |open| write(open, &uses)).await
    }

    /// Adds requests to the counts of quotas in one transaction; answers how many each has now.
    pub(super) async fn count(&self, mut counts: Vec<(QuotaTerm, u64)>) -> Result<Vec<(QuotaTerm, u64)>, StoreError> {
        counts.sort_unstable();
        self.insist("counting requests of quotas", move |open| add_counts(open, &counts)).await
    }

    /// The counts of days and months that are not over; forgets the others.
    pub(super) async fn current_counts(&self, now: Timestamp) -> Result<Vec<(QuotaTerm, u64)>, StoreError> {
        if !self.exists() {
            return Ok(Vec::new());
        }
        self.insist("reading counts of quotas", move |open| read_counts(open, now)).await
    }

    /// Whether there is a file already.
    pub(super) fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Does a job, in a new file where the old one is broken.
    pub(super) async fn insist<T: Send + 'static>(
        &self,
        doing: &'static str,
        job: impl Fn(&mut Open) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let job = move |seat: &mut Seat| match seat.run(doing, &job) {
            Err(StoreError::Damaged { found }) => {
                set_aside(seat.path(), &found)?;
                seat.run(doing, &job)
            }
            result => result,
        };
        self.thread.ask_seat(doing, job).await
    }

    /// Fills in when these keys were last used. What cannot be read stays unknown: the records matter more.
    pub(super) async fn fill_in(&self, records: &mut [KeyRecord]) {
        if records.is_empty() || !self.exists() {
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

fn add_counts(open: &mut Open, counts: &[(QuotaTerm, u64)]) -> Result<Vec<(QuotaTerm, u64)>, Fault> {
    let transaction = open.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut totals = Vec::with_capacity(counts.len());
    {
        let mut upsert = transaction.prepare_cached(
            "INSERT INTO quota_counts (holder, id, period, begins, requests) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT DO UPDATE SET requests = requests + excluded.requests RETURNING requests",
        )?;
        for (term, more) in counts {
            let (holder, id) = holder_columns(term.holder);
            let more = signed(*more);
            let row = params![holder, id, period_number(term.period), term.begins.unix_ms(), more];
            let total: i64 = upsert.query_row(row, |row| row.get(0))?;
            totals.push((*term, unsigned(total)));
        }
    }
    transaction.commit()?;
    Ok(totals)
}

fn read_counts(open: &mut Open, now: Timestamp) -> Result<Vec<(QuotaTerm, u64)>, Fault> {
    for period in QuotaPeriod::ALL {
        let oldest = now.minus(period.longest()).unix_ms();
        let mut forget =
            open.connection.prepare_cached("DELETE FROM quota_counts WHERE period = ?1 AND begins <= ?2")?;
        forget.execute(params![period_number(period), oldest])?;
    }
    let mut select = open.connection.prepare_cached("SELECT holder, id, period, begins, requests FROM quota_counts")?;
    let mut rows = select.query([])?;
    let mut counts = Vec::new();
    while let Some(row) = rows.next()? {
        let (holder, id, period): (i64, [u8; 16], i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (holder, period) = (holder_of(holder, id), period_of(period));
        let begins = Timestamp::from_unix_ms(row.get(3)?);
        let total: i64 = row.get(4)?;
        counts.push((QuotaTerm { holder, period, begins }, unsigned(total)));
    }
    Ok(counts)
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
    tracing::warn!(%found, file = %path.display(), kept_as = %aside.display(), "last use, counts of quotas and usage begin anew in a new file");
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
