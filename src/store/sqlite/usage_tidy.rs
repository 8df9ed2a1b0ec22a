//! Keeping the book of usage small: hours become days, what is old goes, and what is too much.

use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior, params};

use super::fault::Fault;
use super::seat::Open;
use crate::domain::Timestamp;
use crate::store::columns::rows;
use crate::store::usage::{HOURS_KEPT, MAX_COUNTS, MAX_TIDIED_AT_ONCE, Span, Tidied};

/// One step; see [`crate::store::UsageBook::tidy_usage`].
pub(super) fn tidy(open: &mut Open, retention: Duration, now: Timestamp) -> Result<Tidied, Fault> {
    let transaction = open.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut left = MAX_TIDIED_AT_ONCE;
    let oldest = now.minus(retention);
    let mut dropped = drop_old_counts(&transaction, oldest, &mut left)?;
    let merged = merge(&transaction, Span::Day.holding(now.minus(HOURS_KEPT)), &mut left)?;
    let mut evicted = 0;
    // What looks at whole tables comes last, once, and not with every batch.
    if left > 0 {
        dropped += drop_old_rows(&transaction, oldest)?;
        evicted = evict(&transaction, left)?;
        forget_rules(&transaction)?;
    }
    transaction.commit()?;
    Ok(Tidied { merged, dropped, evicted })
}

/// Texts of rules are worth the search for those that are no longer used when there are more.
const MANY_RULES: i64 = 100_000;

/// The columns that name a count.
const COUNT: &str = "id, begins, span, rule, status, passage";

fn drop_old_counts(connection: &Connection, oldest: Timestamp, left: &mut usize) -> Result<usize, Fault> {
    let mut gone = 0;
    let sql = format!(
        "DELETE FROM counts WHERE ({COUNT}) IN \
         (SELECT {COUNT} FROM counts WHERE span = ?1 AND begins <= ?2 ORDER BY begins LIMIT ?3)"
    );
    for span in [Span::Day, Span::Hour] {
        let last = oldest.unix_seconds().div_euclid(3600) - span.hours();
        gone += connection.prepare_cached(&sql)?.execute(params![span.hours(), last, rows(*left - gone)])?;
    }
    *left -= gone;
    Ok(gone)
}

/// Everything else that is old.
fn drop_old_rows(connection: &Connection, oldest: Timestamp) -> Result<usize, Fault> {
    let mut gone = 0;
    let moment = oldest.unix_ms();
    for sql in [
        "DELETE FROM seen WHERE at < ?1",
        "DELETE FROM networks WHERE last < ?1",
        "DELETE FROM events WHERE at < ?1",
        "DELETE FROM findings WHERE last < ?1",
    ] {
        gone += connection.prepare_cached(sql)?.execute([moment])?;
    }
    Ok(gone)
}

/// Hours that begin before `border` become days.
fn merge(connection: &Connection, border: i64, left: &mut usize) -> Result<usize, Fault> {
    let mut select = connection.prepare_cached(
        "SELECT id, begins, rule, status, passage, requests FROM counts WHERE span = 1 AND begins < ?1 \
         ORDER BY begins LIMIT ?2",
    )?;
    let mut add = connection.prepare_cached(
        "INSERT INTO counts (id, begins, span, rule, status, passage, requests) VALUES (?1, ?2, 24, ?3, ?4, ?5, ?6) \
         ON CONFLICT DO UPDATE SET requests = requests + excluded.requests",
    )?;
    let mut remove = connection.prepare_cached(
        "DELETE FROM counts WHERE id = ?1 AND begins = ?2 AND span = 1 AND rule = ?3 AND status = ?4 AND passage = ?5",
    )?;
    type Hour = ([u8; 16], i64, i64, i64, i64, i64);
    let hours = select.query_map(params![border, rows(*left)], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
    })?;
    let hours: Vec<Hour> = hours.collect::<Result<_, _>>()?;
    for (id, begins, rule, status, passage, requests) in &hours {
        let day = begins - begins.rem_euclid(Span::Day.hours());
        add.execute(params![id, day, rule, status, passage, requests])?;
        remove.execute(params![id, begins, rule, status, passage])?;
    }
    *left -= hours.len();
    Ok(hours.len())
}

/// Drops at most `most` of the oldest counts beyond the bound. Days are older than hours.
fn evict(connection: &Connection, most: usize) -> Result<usize, Fault> {
    let counts: i64 = connection.query_row("SELECT count(*) FROM counts", [], |row| row.get(0))?;
    let excess = usize::try_from(counts).unwrap_or(usize::MAX).saturating_sub(MAX_COUNTS).min(most);
    let sql = format!(
        "DELETE FROM counts WHERE ({COUNT}) IN (SELECT {COUNT} FROM counts WHERE span = ?1 ORDER BY begins LIMIT ?2)"
    );
    let mut gone = 0;
    for span in [Span::Day, Span::Hour] {
        if gone < excess {
            gone += connection.prepare_cached(&sql)?.execute(params![span.hours(), rows(excess - gone)])?;
        }
    }
    Ok(gone)
}

/// Drops texts of rules that nothing names any more, where there are many.
fn forget_rules(connection: &Connection) -> Result<(), Fault> {
    let texts: i64 = connection.query_row("SELECT count(*) FROM rules", [], |row| row.get(0))?;
    if texts > MANY_RULES {
        let sql = "DELETE FROM rules WHERE rule NOT IN (SELECT rule FROM counts UNION SELECT rule FROM findings)";
        connection.execute(sql, [])?;
    }
    Ok(())
}
