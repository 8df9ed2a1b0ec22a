//! The gateways that enforce keys, as they report themselves. Every moment is the server's.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::fault::Fault;
use super::rows::{get, moment, number, revision};
use super::session::{Session, Sql};
use crate::domain::{NodeId, Revision, RevisionToken, StoreHead, Timestamp};
use crate::store::nodes::{self, Node, NodeReport, Roll, SLOWEST_COMMIT, milliseconds, span};

/// The server's clock, in milliseconds since 1970.
macro_rules! clock {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    };
}

/// Writes how a node stands. Nobody waits until it is on disk, here or on a replica, as it is said again within seconds: save
/// for that it is there at all, and for how long it may decide by what it knows. A node that is cut off says that to nobody
/// who could wait for it.
pub(super) async fn report(session: &mut Session, report: &NodeReport) -> Result<(), Fault> {
    const UPSERT: Sql = Sql::new(
        concat!(
            "INSERT INTO portcullis.nodes (node, name, version, started_at, revision, token, confirmed_ago, \
             max_staleness, seen) SELECT $1, $2, $3, $4, $5, $6, $7, $8, ",
            clock!(),
            " FROM (SELECT set_config('synchronous_commit', CASE WHEN EXISTS (SELECT FROM portcullis.nodes WHERE \
             node = $1 AND max_staleness IS NOT DISTINCT FROM $8) THEN 'off' \
             ELSE current_setting('synchronous_commit') END, true) AS now_is) AS durably WHERE now_is <> '' \
             ON CONFLICT (node) DO UPDATE SET name = excluded.name, version = excluded.version, \
             started_at = excluded.started_at, revision = excluded.revision, token = excluded.token, \
             confirmed_ago = excluded.confirmed_ago, max_staleness = excluded.max_staleness, seen = excluded.seen"
        ),
        &[Type::UUID, Type::TEXT, Type::TEXT, Type::INT8, Type::INT8, Type::INT8, Type::INT8, Type::INT8],
    );
    let NodeReport { id, name, version, started_at, applied, confirmed_ago, max_staleness } = report;
    let at = applied.map(|head| number(head.revision));
    let token = applied.map(|head| head.token.0.cast_signed());
    let (confirmed, staleness) = (milliseconds(*confirmed_ago), milliseconds(*max_staleness));
    session
        .execute(&UPSERT, &[&uuid(*id), name, version, &started_at.unix_ms(), &at, &token, &confirmed, &staleness])
        .await?;
    Ok(())
}

/// Takes a node out.
pub(super) async fn strike(session: &mut Session, id: NodeId) -> Result<bool, Fault> {
    const DELETE: Sql = Sql::new("DELETE FROM portcullis.nodes WHERE node = $1", &[Type::UUID]);
    Ok(session.execute(&DELETE, &[&uuid(id)]).await? > 0)
}

/// All nodes, in one look.
pub(super) async fn list(session: &mut Session) -> Result<Roll, Fault> {
    const LIST: Sql = Sql::new(
        concat!(
            "SELECT ",
            clock!(),
            ", h.revision, n.node, n.name, n.version, n.started_at, n.revision, n.token, n.confirmed_ago, \
             n.max_staleness, n.seen, r.revision IS NOT NULL FROM portcullis.head h LEFT JOIN portcullis.nodes n ON true \
             LEFT JOIN portcullis.revisions r ON r.revision = n.revision AND r.token = n.token \
             ORDER BY n.started_at, n.node"
        ),
        &[],
    );
    let rows = session.rows(&LIST, &[]).await?;
    let first = rows.first().ok_or_else(|| Fault::Odd("a row that is always there is missing".to_owned()))?;
    let (now, newest) = (Timestamp::from_unix_ms(get(first, 0)?), revision(first, 1)?);
    let nodes = rows.iter().filter_map(|row| read(row).transpose()).collect::<Result<_, _>>()?;
    Ok(Roll { now, newest, nodes })
}

/// A node, where there is any.
fn read(row: &Row) -> Result<Option<Node>, Fault> {
    let Some(id) = get::<Option<Uuid>>(row, 2)? else { return Ok(None) };
    let at: Option<i64> = get(row, 6)?;
    let token = get::<Option<i64>>(row, 7)?.unwrap_or_default();
    let applied = at.map(|at| StoreHead {
        revision: Revision::new(at.cast_unsigned()),
        token: RevisionToken(token.cast_unsigned()),
    });
    let report = NodeReport {
        id: NodeId::from_bytes(id.into_bytes()),
        name: get(row, 3)?,
        version: get(row, 4)?,
        started_at: Timestamp::from_unix_ms(get(row, 5)?),
        applied,
        confirmed_ago: span(get(row, 8)?),
        max_staleness: span(get(row, 9)?),
    };
    let (seen, is_known): (i64, bool) = (get(row, 10)?, get(row, 11)?);
    Ok(Some(Node::of(report, Timestamp::from_unix_ms(seen), |_| is_known)))
}

/// When a change was visible to everybody. Whoever sees it knows that it is now: that is noted, so that all who ask later are
/// told the same moment.
pub(super) async fn committed_by(session: &mut Session, since: Revision) -> Result<Option<Timestamp>, Fault> {
    const NOTED: Sql = Sql::new(
        concat!(
            "WITH found AS (SELECT revision, coalesce(noted_at, at) AS noted FROM portcullis.revisions \
             WHERE revision >= $1 ORDER BY revision LIMIT 1), \
             seen AS MATERIALIZED (SELECT revision, noted, ",
            clock!(),
            " - $2 AS latest FROM found), \
             settled AS (UPDATE portcullis.revisions r SET noted_at = seen.latest FROM seen \
             WHERE r.revision = seen.revision AND seen.noted > seen.latest RETURNING r.noted_at) \
             SELECT coalesce((SELECT noted_at FROM settled), noted) FROM seen"
        ),
        &[Type::INT8, Type::INT8],
    );
    const READ: Sql = Sql::new(
        "SELECT coalesce(noted_at, at) FROM portcullis.revisions WHERE revision >= $1 ORDER BY revision LIMIT 1",
        &[Type::INT8],
    );
    let slowest = i64::try_from(SLOWEST_COMMIT.as_millis()).unwrap_or(i64::MAX);
    let row = match session.row(&NOTED, &[&number(since), &slowest]).await {
        // Who may only read is told what is noted so far.
        Err(fault) if fault.refusal().is_some() => session.row(&READ, &[&number(since)]).await?,
        row => row?,
    };
    let noted = row.map(|row| moment(&row, 0)).transpose()?.flatten();
    Ok(noted.map(|noted| noted.plus(SLOWEST_COMMIT)))
}

/// Drops nodes that have been silent for too long.
pub(super) async fn tidy(session: &mut Session) -> Result<u64, Fault> {
    // One that reported meanwhile stays.
    const DELETE: Sql =
        Sql::new("DELETE FROM portcullis.nodes WHERE node = ANY ($1) AND seen <= $2", &[Type::UUID_ARRAY, Type::INT8]);
    let Roll { now, nodes, .. } = list(session).await?;
    let ids: Vec<Uuid> = nodes::surplus(nodes, now).into_iter().map(uuid).collect();
    if ids.is_empty() {
        return Ok(0);
    }
    session.execute(&DELETE, &[&ids, &now.unix_ms()]).await
}

fn uuid(id: NodeId) -> Uuid {
    Uuid::from_bytes(id.to_bytes())
}
