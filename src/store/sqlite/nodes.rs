//! The gateways that enforce keys, in the file of last use: writing it holds no change of a key up.
//!
//! All who share a file are on one machine, so its clock is the store's.

use rusqlite::{Connection, OptionalExtension, params};

use super::SqliteStore;
use super::fault::Fault;
use super::seat::Open;
use super::writer::{number, read_head};
use crate::domain::{NodeId, Revision, RevisionToken, StoreHead, Timestamp, time};
use crate::store::api::Answer;
use crate::store::error::StoreError;
use crate::store::nodes::{self, Node, NodeBook, NodeReport, Roll, SLOWEST_COMMIT, milliseconds, span};

/// What a node reported, and when.
type Reported = (NodeReport, Timestamp);

impl NodeBook for SqliteStore {
    fn report_node(&self, report: NodeReport) -> Answer<'_, ()> {
        Box::pin(async move {
            // No book is begun beside a store that is elsewhere for a while.
            if !self.path.exists() {
                return Err(StoreError::unavailable("reporting to the store", "its file is not there"));
            }
            self.usage.insist("reporting to the store", move |open| write(&open.connection, &report)).await
        })
    }

    fn strike_node(&self, id: NodeId) -> Answer<'_, bool> {
        Box::pin(async move {
            let strike = move |open: &mut Open| {
                Ok(open.connection.execute("DELETE FROM nodes WHERE node = ?1", [id.to_bytes()])? > 0)
            };
            if self.usage.exists() { self.usage.insist("striking a node out", strike).await } else { Ok(false) }
        })
    }

    fn list_nodes(&self) -> Answer<'_, Roll> {
        Box::pin(async move {
            let reported = match self.usage.exists() {
                true => self.usage.insist("listing nodes", |open| read(&open.connection)).await?,
                false => Vec::new(),
            };
            self.readers.ask("listing nodes", move |open| join(open, reported)).await
        })
    }

    fn committed_by(&self, revision: Revision) -> Answer<'_, Option<Timestamp>> {
        let find = move |open: &mut Open| {
            let mut noted = open
                .connection
                .prepare_cached("SELECT at FROM revisions WHERE revision >= ?1 ORDER BY revision LIMIT 1")?;
            let at: Option<i64> = noted.query_row([number(revision)], |row| row.get(0)).optional()?;
            Ok(at.map(|at| Timestamp::from_unix_ms(at).plus(SLOWEST_COMMIT)))
        };
        Box::pin(self.readers.ask("looking for a change", find))
    }

    fn tidy_nodes(&self) -> Answer<'_, u64> {
        Box::pin(async move {
            let Roll { now, nodes, .. } = self.list_nodes().await?;
            let surplus = nodes::surplus(nodes, now);
            if surplus.is_empty() {
                return Ok(0);
            }
            let drop_them = move |open: &mut Open| {
                let transaction = open.connection.transaction()?;
                let mut dropped = 0;
                for id in &surplus {
                    // One that reported meanwhile stays.
                    let sql = "DELETE FROM nodes WHERE node = ?1 AND seen <= ?2";
                    dropped += transaction.execute(sql, params![id.to_bytes(), now.unix_ms()])? as u64;
                }
                transaction.commit()?;
                Ok(dropped)
            };
            self.usage.insist("striking nodes out", drop_them).await
        })
    }
}

fn write(connection: &Connection, report: &NodeReport) -> Result<(), Fault> {
    let mut upsert = connection.prepare_cached(
        "INSERT INTO nodes (node, name, version, started_at, revision, token, confirmed_ago, max_staleness, seen) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (node) DO UPDATE SET name = excluded.name, \
         version = excluded.version, started_at = excluded.started_at, revision = excluded.revision, \
         token = excluded.token, confirmed_ago = excluded.confirmed_ago, max_staleness = excluded.max_staleness, \
         seen = excluded.seen",
    )?;
    let NodeReport { id, name, version, started_at, applied, confirmed_ago, max_staleness } = report;
    upsert.execute(params![
        id.to_bytes(),
        name,
        version,
        started_at.unix_ms(),
        applied.map(|head| number(head.revision)),
        applied.map(|head| head.token.0.cast_signed()),
        milliseconds(*confirmed_ago),
        milliseconds(*max_staleness),
        time::now().unix_ms(),
    ])?;
    Ok(())
}

fn read(connection: &Connection) -> Result<Vec<Reported>, Fault> {
    let mut select = connection.prepare_cached(
        "SELECT node, name, version, started_at, revision, token, confirmed_ago, max_staleness, seen FROM nodes \
         ORDER BY started_at, node",
    )?;
    let mut rows = select.query([])?;
    let mut reported = Vec::new();
    while let Some(row) = rows.next()? {
        let (at, token): (Option<i64>, Option<i64>) = (row.get(4)?, row.get(5)?);
        let applied = at.map(|at| StoreHead {
            revision: Revision::new(at.cast_unsigned()),
            token: RevisionToken(token.unwrap_or_default().cast_unsigned()),
        });
        let report = NodeReport {
            id: NodeId::from_bytes(row.get(0)?),
            name: row.get(1)?,
            version: row.get(2)?,
            started_at: Timestamp::from_unix_ms(row.get(3)?),
            applied,
            confirmed_ago: span(row.get(6)?),
            max_staleness: span(row.get(7)?),
        };
        reported.push((report, Timestamp::from_unix_ms(row.get(8)?)));
    }
    Ok(reported)
}

/// What was reported, beside the history of the store as it is.
fn join(open: &mut Open, reported: Vec<Reported>) -> Result<Roll, Fault> {
    let snapshot = open.connection.transaction()?;
    let newest = read_head(&snapshot)?.revision;
    let mut known = snapshot.prepare_cached("SELECT 1 FROM revisions WHERE revision = ?1 AND token = ?2")?;
    let mut nodes = Vec::with_capacity(reported.len());
    for (report, seen) in reported {
        let is_known = match report.applied {
            None => false,
            Some(head) => known.exists(params![number(head.revision), head.token.0.cast_signed()])?,
        };
        nodes.push(Node::of(report, seen, |_| is_known));
    }
    Ok(Roll { now: time::now(), newest, nodes })
}
