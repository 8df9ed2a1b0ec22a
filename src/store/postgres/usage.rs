//! When keys were last used, and what quotas counted. Touches no revision, and waits for nobody who changes keys.
//!
//! Several gateways write the same rows at the same time: each goes through them in the same order, so that none waits for
//! one that waits for it.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::fault::Fault;
use super::rows::{get, uuid};
use super::session::{Session, Sql};
use crate::domain::{KeyId, QuotaPeriod, QuotaTerm, Timestamp};
use crate::store::columns::{holder_columns, holder_of, period_number, period_of, signed, unsigned};
use crate::store::usage::AdditionId;

/// Rows in one statement.
const AT_ONCE: usize = 5_000;

/// Notes uses; an earlier moment never replaces a later one.
pub(super) async fn mark_used(session: &mut Session, uses: &[(KeyId, Timestamp)]) -> Result<(), Fault> {
    const UPSERT: Sql = Sql::new(
        "INSERT INTO portcullis.last_used AS known (id, at) \
         SELECT * FROM unnest($1::uuid[], $2::bigint[]) ON CONFLICT (id) DO UPDATE SET at = excluded.at \
         WHERE excluded.at > known.at",
        &[Type::UUID_ARRAY, Type::INT8_ARRAY],
    );
    let mut latest: BTreeMap<KeyId, Timestamp> = BTreeMap::new();
    for (id, at) in uses {
        let known = latest.entry(*id).or_insert(*at);
        *known = (*known).max(*at);
    }
    let (ids, moments): (Vec<Uuid>, Vec<i64>) = latest.into_iter().map(|(id, at)| (uuid(id), at.unix_ms())).unzip();
    for (ids, moments) in ids.chunks(AT_ONCE).zip(moments.chunks(AT_ONCE)) {
        session.execute(&UPSERT, &[&ids, &moments]).await?;
    }
    Ok(())
}

/// Within a transaction that adds something: whether that is done for the first time, as far as is known of its writer.
pub(super) async fn is_first(session: &mut Session, id: AdditionId) -> Result<bool, Fault> {
    // A transaction of which nobody knows whether it is over is waited for.
    const NOTE: Sql = Sql::new(
        "INSERT INTO portcullis.writers AS known (writer, last, at) \
         VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) \
         ON CONFLICT (writer) DO UPDATE SET last = excluded.last, at = excluded.at WHERE excluded.last > known.last",
        &[Type::UUID, Type::INT8],
    );
    Ok(session.execute(&NOTE, &[&id.writer, &id.number]).await? > 0)
}

/// Adds requests to the counts of quotas in one transaction; answers how many each has now.
pub(super) async fn count_requests(
    session: &mut Session,
    id: AdditionId,
    counts: &[(QuotaTerm, u64)],
) -> Result<Vec<(QuotaTerm, u64)>, Fault> {
    const UPSERT: Sql = Sql::new(
        "INSERT INTO portcullis.quota_counts AS known (holder, id, period, begins, requests) \
         SELECT * FROM unnest($1::smallint[], $2::uuid[], $3::smallint[], $4::bigint[], $5::bigint[]) \
         ON CONFLICT (holder, id, period, begins) DO UPDATE SET requests = known.requests + excluded.requests \
         RETURNING holder, id, period, begins, requests",
        &[Type::INT2_ARRAY, Type::UUID_ARRAY, Type::INT2_ARRAY, Type::INT8_ARRAY, Type::INT8_ARRAY],
    );
    let mut more: BTreeMap<QuotaTerm, u64> = BTreeMap::new();
    for (term, requests) in counts {
        let total = more.entry(*term).or_default();
        *total = total.saturating_add(*requests);
    }
    let more: Vec<(QuotaTerm, u64)> = more.into_iter().collect();
    let mut totals = Vec::with_capacity(more.len());
    session.begin().await?;
    let is_first = is_first(session, id).await?;
    for some in more.chunks(AT_ONCE) {
        let holder = |term: &QuotaTerm| holder_columns(term.holder);
        let holders: Vec<i16> = some.iter().map(|(term, _)| small(holder(term).0)).collect();
        let ids: Vec<Uuid> = some.iter().map(|(term, _)| Uuid::from_bytes(holder(term).1)).collect();
        let periods: Vec<i16> = some.iter().map(|(term, _)| small(period_number(term.period))).collect();
        let begins: Vec<i64> = some.iter().map(|(term, _)| term.begins.unix_ms()).collect();
        let requests: Vec<i64> =
            some.iter().map(|(_, requests)| if is_first { signed(*requests) } else { 0 }).collect();
        for row in session.rows(&UPSERT, &[&holders, &ids, &periods, &begins, &requests]).await? {
            totals.push(read_count(&row)?);
        }
    }
    session.commit().await?;
    Ok(totals)
}

/// The counts of days and months that are not over; forgets the others.
pub(super) async fn current_counts(session: &mut Session, now: Timestamp) -> Result<Vec<(QuotaTerm, u64)>, Fault> {
    const FORGET: Sql =
        Sql::new("DELETE FROM portcullis.quota_counts WHERE period = $1 AND begins <= $2", &[Type::INT2, Type::INT8]);
    const SELECT: Sql = Sql::new("SELECT holder, id, period, begins, requests FROM portcullis.quota_counts", &[]);
    for period in QuotaPeriod::ALL {
        let oldest = now.minus(period.longest()).unix_ms();
        session.execute(&FORGET, &[&small(period_number(period)), &oldest]).await?;
    }
    session.rows(&SELECT, &[]).await?.iter().map(read_count).collect()
}

fn read_count(row: &tokio_postgres::Row) -> Result<(QuotaTerm, u64), Fault> {
    let (holder, id, period): (i16, Uuid, i16) = (get(row, 0)?, get(row, 1)?, get(row, 2)?);
    let term = QuotaTerm {
        holder: holder_of(holder.into(), id.into_bytes()),
        period: period_of(period.into()),
        begins: Timestamp::from_unix_ms(get(row, 3)?),
    };
    Ok((term, unsigned(get(row, 4)?)))
}

/// The numbers that stand for words are small.
pub(super) fn small(number: i64) -> i16 {
    i16::try_from(number).unwrap_or_default()
}
