//! Keeping the book of usage small: hours become days, what is old goes, and what is too much.

use std::time::Duration;

use tokio_postgres::types::Type;

use super::fault::Fault;
use super::rows::get;
use super::session::{Session, Sql};
use super::usage_book::begin_adding;
use crate::domain::Timestamp;
use crate::store::columns::rows as row_bound;
use crate::store::usage::{HOURS_KEPT, MAX_COUNTS, MAX_TIDIED_AT_ONCE, Span, Tidied};

/// Texts of rules are worth the search for those that are no longer used when there are more.
const MANY_RULES: i64 = 100_000;

/// One step; see [`crate::store::UsageBook::tidy_usage`].
pub(super) async fn tidy(session: &mut Session, retention: Duration, now: Timestamp) -> Result<Tidied, Fault> {
    begin_adding(session).await?;
    let mut left = MAX_TIDIED_AT_ONCE;
    let oldest = now.minus(retention);
    let mut dropped = drop_old_counts(session, oldest, &mut left).await?;
    let merged = merge(session, Span::Day.holding(now.minus(HOURS_KEPT)), &mut left).await?;
    let mut evicted = 0;
    // What looks at whole tables comes last, once, and not with every batch.
    if left > 0 {
        dropped += drop_old_rows(session, oldest).await?;
        evicted = evict(session, left).await?;
        forget_rules(session).await?;
    }
    session.commit().await?;
    Ok(Tidied { merged, dropped, evicted })
}

async fn drop_old_counts(session: &mut Session, oldest: Timestamp, left: &mut usize) -> Result<usize, Fault> {
    const DROP: Sql = Sql::new(
        "DELETE FROM portcullis.counts WHERE ctid = ANY (ARRAY \
         (SELECT ctid FROM portcullis.counts WHERE span = $1 AND begins <= $2 ORDER BY begins LIMIT $3))",
        &[Type::INT8, Type::INT8, Type::INT8],
    );
    let mut gone = 0;
    for span in [Span::Day, Span::Hour] {
        let last = oldest.unix_seconds().div_euclid(3600) - span.hours();
        gone += changed(session.execute(&DROP, &[&span.hours(), &last, &row_bound(*left - gone)]).await?);
    }
    *left -= gone;
    Ok(gone)
}

/// Everything else that is old.
async fn drop_old_rows(session: &mut Session, oldest: Timestamp) -> Result<usize, Fault> {
    const OLD: [Sql; 4] = [
        Sql::new("DELETE FROM portcullis.seen WHERE at < $1", &[Type::INT8]),
        Sql::new("DELETE FROM portcullis.networks WHERE last < $1", &[Type::INT8]),
        Sql::new("DELETE FROM portcullis.events WHERE at < $1", &[Type::INT8]),
        Sql::new("DELETE FROM portcullis.findings WHERE last < $1", &[Type::INT8]),
    ];
    let mut gone = 0;
    for sql in &OLD {
        gone += changed(session.execute(sql, &[&oldest.unix_ms()]).await?);
    }
    // No process that is without an answer for so long has anything left to say.
    session
        .run("DELETE FROM portcullis.writers WHERE at < (extract(epoch FROM now() - interval '35 days') * 1000)")
        .await?;
    Ok(gone)
}

/// Hours that begin before `border` become days.
async fn merge(session: &mut Session, border: i64, left: &mut usize) -> Result<usize, Fault> {
    const MERGE: Sql = Sql::new(
        "WITH hours AS (DELETE FROM portcullis.counts WHERE ctid = ANY (ARRAY \
             (SELECT ctid FROM portcullis.counts WHERE span = 1 AND begins < $1 ORDER BY begins LIMIT $2)) \
             RETURNING id, begins - begins % 24 AS day, rule, status, passage, requests), \
         days AS (INSERT INTO portcullis.counts AS known (id, begins, span, rule, status, passage, requests) \
             SELECT id, day, 24, rule, status, passage, sum(requests)::bigint FROM hours \
             GROUP BY id, day, rule, status, passage \
             ON CONFLICT (id, begins, span, rule, status, passage) \
             DO UPDATE SET requests = known.requests + excluded.requests) \
         SELECT count(*) FROM hours",
        &[Type::INT8, Type::INT8],
    );
    let merged: i64 = get(&session.only(&MERGE, &[&border, &row_bound(*left)]).await?, 0)?;
    let merged = usize::try_from(merged).unwrap_or_default();
    *left -= merged.min(*left);
    Ok(merged)
}

/// Drops at most `most` of the oldest counts beyond the bound. Days are older than hours.
async fn evict(session: &mut Session, most: usize) -> Result<usize, Fault> {
    const COUNT: Sql = Sql::new("SELECT count(*) FROM portcullis.counts", &[]);
    const EVICT: Sql = Sql::new(
        "DELETE FROM portcullis.counts WHERE ctid = ANY (ARRAY \
         (SELECT ctid FROM portcullis.counts WHERE span = $1 ORDER BY begins LIMIT $2))",
        &[Type::INT8, Type::INT8],
    );
    let counts: i64 = get(&session.only(&COUNT, &[]).await?, 0)?;
    let excess = usize::try_from(counts).unwrap_or(usize::MAX).saturating_sub(MAX_COUNTS).min(most);
    let mut gone = 0;
    for span in [Span::Day, Span::Hour] {
        if gone < excess {
            gone += changed(session.execute(&EVICT, &[&span.hours(), &row_bound(excess - gone)]).await?);
        }
    }
    Ok(gone)
}

/// Drops texts of rules that nothing names any more, where there are many.
async fn forget_rules(session: &mut Session) -> Result<(), Fault> {
    const COUNT: Sql = Sql::new("SELECT count(*) FROM portcullis.rules", &[]);
    const FORGET: Sql = Sql::new(
        "DELETE FROM portcullis.rules r WHERE NOT EXISTS (SELECT 1 FROM portcullis.counts c WHERE c.rule = r.rule) \
         AND NOT EXISTS (SELECT 1 FROM portcullis.findings f WHERE f.rule = r.rule)",
        &[],
    );
    let texts: i64 = get(&session.only(&COUNT, &[]).await?, 0)?;
    if texts > MANY_RULES {
        session.execute(&FORGET, &[]).await?;
    }
    Ok(())
}

fn changed(rows: u64) -> usize {
    usize::try_from(rows).unwrap_or(usize::MAX)
}
