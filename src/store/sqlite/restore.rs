//! Handing everything out, and putting everything back.

use rusqlite::Connection;
use tokio::sync::mpsc;

use super::commands::Write;
use super::fault::Fault;
use super::interned::Interned;
use super::rows::{self, Names, OWNER, RECORD};
use super::seat::Open;
use super::trail;
use super::writer::read_head;
use crate::domain::{KeyHash, KeyId, KeyRecord, Revision};
use crate::store::api::Removed;
use crate::store::archive::{Held, Piece, Restoration, Stand, Survivors, Trail, TrailFate, difference};
use crate::store::audit::Action;
use crate::store::command::{AUDIT_SUBJECT, Effect, STORE_SUBJECT, draw_token};
use crate::store::error::StoreError;

/// Rows handed over at a time.
const BATCH: usize = 1_000;

/// Sends everything as it is at one moment; ends early when nobody listens any more.
pub(super) fn copy_all(open: &mut Open, pieces: &mpsc::Sender<Piece>) -> Result<(), Fault> {
    let snapshot = open.connection.transaction()?;
    let stand = Stand { revision: read_head(&snapshot)?.revision, anchor: trail::read_anchor(&snapshot)? };
    let mut names = Names::new(&snapshot);
    let owners = format!("SELECT {OWNER} FROM owners ORDER BY id");
    let keys = format!("SELECT {RECORD} FROM keys ORDER BY id");
    let entries = format!("SELECT {} FROM audit ORDER BY entry", trail::COLUMNS);
    let heard = pieces.blocking_send(Piece::Stand(stand)).is_ok()
        && send(&snapshot, &owners, pieces, rows::read_owner, Piece::Owners)?
        && send(&snapshot, &keys, pieces, |row| rows::read_record(row, &mut names), Piece::Keys)?;
    if heard {
        send(&snapshot, &entries, pieces, |row| Ok(trail::read_entry(row)?), Piece::Entries)?;
    }
    Ok(())
}

/// Sends rows in batches; false when nobody listens.
fn send<T>(
    snapshot: &Connection,
    select: &str,
    pieces: &mpsc::Sender<Piece>,
    mut read: impl FnMut(&rusqlite::Row<'_>) -> Result<T, Fault>,
    piece: impl Fn(Vec<T>) -> Piece,
) -> Result<bool, Fault> {
    let mut select = snapshot.prepare(select)?;
    let mut found = select.query([])?;
    let mut batch = Vec::with_capacity(BATCH);
    while let Some(row) = found.next()? {
        batch.push(read(row)?);
        if batch.len() == BATCH {
            let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
            if pieces.blocking_send(piece(full)).is_err() {
                return Ok(false);
            }
        }
    }
    Ok(batch.is_empty() || pieces.blocking_send(piece(batch)).is_ok())
}

/// See [`crate::store::Command::Restore`].
pub(super) fn restore(write: &Write<'_>, restoration: &Restoration, newest: Revision) -> Result<Effect, Fault> {
    let Restoration { archive, replace } = restoration;
    let connection = write.connection;
    let held = Held { revision: newest, keys: count(connection, "keys")?, owners: count(connection, "owners")? };
    let trail = Trail {
        head: trail::read_head(connection)?,
        anchor: trail::read_anchor(connection)?,
        at_the_backups_end: trail::read_mac(connection, archive.trail_head().entry)?,
    };
    if !replace && !held.is_nothing(&trail) {
        return Err(StoreError::NotEmpty { keys: held.keys, owners: held.owners }.into());
    }
    let mut survivors = Survivors::new(
        read_revoked(connection)?,
        trail::read_revocations(connection)?,
        read_removed(connection)?,
        write.order.now,
    );
    for id in survivors.asked_for(archive) {
        write.read_key(id)?.into_iter().for_each(|record| survivors.learn(record));
    }
    let mut missing = Vec::new();
    for id in survivors.owners_missing_in(archive) {
        missing.extend(super::find_owner(connection, id)?);
    }
    // No gateway knows any of these: whatever it stands at, it loads everything and lets go of no revocation.
    connection.execute("UPDATE revisions SET token = ?1", [draw_token()?.0.cast_signed()])?;
    connection.execute_batch("DELETE FROM repeatable; DELETE FROM keys; DELETE FROM owners")?;
    for owner in archive.owners.iter().chain(&missing) {
        write.write_owner(owner)?;
    }
    let mut interned = Interned::new(connection);
    for (index, record) in archive.keys.iter().enumerate() {
        if let Some(record) = survivors.settle(record) {
            write.insert_key(&record, index, &mut interned)?;
        }
    }
    for record in survivors.revoked() {
        write.insert_key(record, archive.keys.len(), &mut interned)?;
    }
    let fate = TrailFate::of(&trail, archive);
    match fate {
        TrailFate::Kept => {}
        TrailFate::Taken | TrailFate::Replaced => take_trail(write, restoration)?,
    }
    let told = difference(restoration, held, &trail, fate, &survivors);
    write.note(Action::StoreRestore, STORE_SUBJECT, &told)?;
    Ok(Effect::Changed(write.next, archive.keys.len() as u64))
}

/// Puts the trail of a backup in the place of what there is.
fn take_trail(write: &Write<'_>, restoration: &Restoration) -> Result<(), Fault> {
    let taken = restoration.archive.taken_trail();
    write.connection.execute_batch("DELETE FROM audit; DELETE FROM audit_anchor")?;
    if let Some(anchor) = taken.anchor {
        trail::drop_through(write.connection, anchor)?;
    }
    for entry in taken.entries {
        let _head = trail::insert(write.connection, entry)?;
    }
    if let Some(dropped) = taken.dropped {
        write.note(Action::AuditForget, AUDIT_SUBJECT, &dropped.difference())?;
    }
    Ok(())
}

fn count(connection: &Connection, table: &str) -> Result<u64, Fault> {
    let count: i64 = connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
    Ok(count.cast_unsigned())
}

fn read_revoked(connection: &Connection) -> Result<Vec<KeyRecord>, Fault> {
    let mut names = Names::new(connection);
    let mut select = connection.prepare(&format!("SELECT {RECORD} FROM keys WHERE revoked_at IS NOT NULL"))?;
    let mut found = select.query([])?;
    let mut revoked = Vec::new();
    while let Some(row) = found.next()? {
        revoked.push(rows::read_record(row, &mut names)?);
    }
    Ok(revoked)
}

fn read_removed(connection: &Connection) -> Result<Vec<Removed>, Fault> {
    let mut select = connection.prepare("SELECT id, hash FROM removed")?;
    let removed = select.query_map([], |row| {
        Ok(Removed { id: KeyId::from_bytes(row.get(0)?), hash: KeyHash::from_bytes(row.get(1)?) })
    })?;
    Ok(removed.collect::<Result<_, _>>()?)
}
