//! The audit trail as a table: rows appended at its end, read, walked, and dropped from its front.

use rusqlite::{Connection, OptionalExtension, Row, named_params, params};

use super::fault::{Fault, is_conversion};
use super::seat::Open;
use super::writer::{number, revision_of};
use crate::domain::{KeyId, Timestamp};
use crate::store::api::Page;
use crate::store::audit::Action;
use crate::store::seal::{AuditHead, AuditMac, AuditSeal, Sealed};
use crate::store::trail::{Anchor, AuditEntry, AuditExtent, AuditOrder, AuditQuery};
use crate::store::verify::{Verification, Verifier, Walk};

/// The columns of [`read_entry`].
pub(super) const COLUMNS: &str =
    "entry, revision, at, actor, address, action, subject, before, after, mac, sealed_with";

/// Appends a row; returns where the trail ends now.
pub(super) fn insert(connection: &Connection, row: &AuditEntry) -> Result<AuditHead, Fault> {
    let mac = row.sealed.as_ref().map(|sealed| sealed.mac);
    let mut insert = connection.prepare_cached(
        "INSERT INTO audit (entry, revision, at, actor, address, action, subject, before, after, mac, sealed_with) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?;
    insert.execute(params![
        row.entry.cast_signed(),
        number(row.revision),
        row.at.unix_ms(),
        row.actor,
        row.address,
        row.action,
        row.subject,
        row.before,
        row.after,
        mac.map(|mac| *mac.as_bytes()),
        row.sealed.as_ref().and_then(|sealed| sealed.key.as_deref()),
    ])?;
    Ok(AuditHead { entry: row.entry, mac: mac.unwrap_or_default() })
}

/// Where the trail ends.
pub(super) fn read_head(connection: &Connection) -> Result<AuditHead, Fault> {
    let mut newest = connection.prepare_cached("SELECT entry, mac FROM audit ORDER BY entry DESC LIMIT 1")?;
    match newest.query_row([], |row| read_link(row, 1)).optional()? {
        Some(head) => Ok(head),
        None => Ok(read_anchor(connection)?.map(|anchor| anchor.last).unwrap_or_default()),
    }
}

/// The number in the first column, and the mac in this one.
fn read_link(row: &Row<'_>, mac: usize) -> rusqlite::Result<AuditHead> {
    Ok(AuditHead { entry: read_number(row)?, mac: mac_in(row, mac)?.unwrap_or_default() })
}

/// The number of an entry, in the first column.
fn read_number(row: &Row<'_>) -> rusqlite::Result<u64> {
    let entry: i64 = row.get(0)?;
    u64::try_from(entry).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, entry))
}

fn mac_in(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<AuditMac>> {
    Ok(row.get::<_, Option<[u8; 32]>>(column)?.map(AuditMac::from_bytes))
}

/// What is remembered of entries that were dropped.
pub(super) fn read_anchor(connection: &Connection) -> Result<Option<Anchor>, Fault> {
    let mut find = connection.prepare_cached("SELECT entry, at, mac FROM audit_anchor")?;
    let found =
        find.query_row([], |row| Ok(Anchor { last: read_link(row, 2)?, at: Timestamp::from_unix_ms(row.get(1)?) }));
    Ok(found.optional()?)
}

/// A row of [`COLUMNS`].
pub(super) fn read_entry(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    let key: Option<String> = row.get(10)?;
    Ok(AuditEntry {
        entry: read_number(row)?,
        revision: revision_of(row.get(1)?),
        at: Timestamp::from_unix_ms(row.get(2)?),
        actor: row.get(3)?,
        address: row.get(4)?,
        action: row.get(5)?,
        subject: row.get(6)?,
        before: row.get(7)?,
        after: row.get(8)?,
        sealed: mac_in(row, 9)?.map(|mac| Sealed { mac, key }),
    })
}

/// The mac of the entry with this number, zeros where it has none; nothing where there is no such entry.
pub(super) fn read_mac(connection: &Connection, entry: u64) -> Result<Option<AuditMac>, Fault> {
    let mut find = connection.prepare_cached("SELECT entry, mac FROM audit WHERE entry = ?1")?;
    Ok(find.query_row([entry.cast_signed()], |row| read_link(row, 1)).optional()?.map(|head| head.mac))
}

/// When each key was revoked, as far as the trail reaches.
pub(super) fn read_revocations(connection: &Connection) -> Result<Vec<(KeyId, Timestamp)>, Fault> {
    let mut select = connection.prepare("SELECT subject, at FROM audit WHERE action = ?1")?;
    let found = select.query_map([Action::KeyRevoke.name()], |row| {
        Ok((row.get::<_, String>(0)?, Timestamp::from_unix_ms(row.get(1)?)))
    })?;
    let mut revocations = Vec::new();
    for row in found {
        let (subject, at) = row?;
        // What names no key revokes none.
        revocations.extend(subject.parse().ok().map(|id: KeyId| (id, at)));
    }
    Ok(revocations)
}

/// A page of the trail.
pub(super) fn list(connection: &Connection, query: &AuditQuery) -> Result<Page<AuditEntry>, Fault> {
    let size = query.page_size();
    let (behind, direction) = match query.order {
        AuditOrder::NewestFirst => ("<", "DESC"),
        AuditOrder::OldestFirst => (">", "ASC"),
    };
    let mut select = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM audit WHERE (:after IS NULL OR entry {behind} :after)
           AND (:since IS NULL OR at >= :since)
           AND (:until IS NULL OR at < :until)
           AND (:actor IS NULL OR actor = :actor)
           AND (:subject IS NULL OR subject = :subject)
           AND (:action IS NULL OR action = :action)
           AND (:actions IS NULL OR substr(action, 1, length(:actions)) = :actions)
         ORDER BY entry {direction} LIMIT :limit"
    ))?;
    let actions = query.action.as_deref().and_then(|action| action.strip_suffix('*'));
    let mut found = select.query(named_params! {
        ":after": query.after.map(u64::cast_signed),
        ":since": query.since.map(Timestamp::unix_ms),
        ":until": query.until.map(Timestamp::unix_ms),
        ":actor": query.actor,
        ":subject": query.subject,
        ":action": query.action.as_deref().filter(|_| actions.is_none()),
        ":actions": actions,
        ":limit": i64::try_from(size).unwrap_or(i64::MAX) + 1,
    })?;
    let mut items = Vec::new();
    while let Some(row) = found.next()? {
        if items.len() == size {
            return Ok(Page { items, more: true });
        }
        items.push(read_entry(row)?);
    }
    Ok(Page { items, more: false })
}

/// How far the trail reaches.
pub(super) fn extent(open: &mut Open) -> Result<AuditExtent, Fault> {
    let snapshot = open.connection.transaction()?;
    let head = read_head(&snapshot)?;
    let first: Option<i64> = snapshot.query_row("SELECT min(entry) FROM audit", [], |row| row.get(0))?;
    let entries = first.map_or(0, |first| (head.entry + 1).saturating_sub(first.cast_unsigned()));
    Ok(AuditExtent { head, entries })
}

/// Walks the trail as it is at this moment.
pub(super) fn verify(open: &mut Open, seal: &AuditSeal, noted: Option<AuditHead>) -> Result<Verification, Fault> {
    let snapshot = open.connection.transaction()?;
    walk(&snapshot, seal, noted)
}

pub(super) fn walk(connection: &Connection, seal: &AuditSeal, noted: Option<AuditHead>) -> Result<Verification, Fault> {
    let mut verifier = Verifier::new(seal, read_anchor(connection)?, noted);
    let mut select = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM audit ORDER BY entry"))?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let walk = match read_entry(row) {
            Ok(entry) => verifier.take(&entry),
            Err(odd) if is_conversion(&odd) => verifier.take_unreadable(odd.to_string()),
            Err(error) => return Err(error.into()),
        };
        if walk == Walk::Stop {
            break;
        }
    }
    Ok(verifier.conclude())
}

/// The last of the first `most` rows that are all older than `before`, and how many they are.
pub(super) fn find_forgettable(
    connection: &Connection,
    before: Timestamp,
    most: usize,
) -> Result<Option<(Anchor, u64)>, Fault> {
    let mut select = connection.prepare_cached("SELECT entry, at, mac FROM audit ORDER BY entry LIMIT ?1")?;
    let mut rows = select.query([i64::try_from(most).unwrap_or(i64::MAX)])?;
    let mut found = None;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let at = Timestamp::from_unix_ms(row.get(1)?);
        if at >= before {
            break;
        }
        count += 1;
        found = Some(Anchor { last: read_link(row, 2)?, at });
    }
    Ok(found.map(|last| (last, count)))
}

/// Drops all rows up to the anchor, and keeps that.
pub(super) fn drop_through(connection: &Connection, anchor: Anchor) -> Result<(), Fault> {
    let Anchor { last, at } = anchor;
    connection.prepare_cached("DELETE FROM audit WHERE entry <= ?1")?.execute([last.entry.cast_signed()])?;
    let mac = Some(last.mac).filter(|mac| *mac != AuditMac::default());
    let mut keep = connection
        .prepare_cached("INSERT OR REPLACE INTO audit_anchor (anchor, entry, at, mac) VALUES (1, ?1, ?2, ?3)")?;
    keep.execute(params![last.entry.cast_signed(), at.unix_ms(), mac.map(|mac| *mac.as_bytes())])?;
    Ok(())
}
