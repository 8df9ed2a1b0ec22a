//! Handing everything out, and putting everything back.

use std::collections::HashMap;

use tokio::sync::mpsc;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::commands::{Write, read_key};
use super::fault::Fault;
use super::insert;
use super::lookups;
use super::rows::{self, Names, get, owners, records};
use super::session::{Session, Sql};
use super::trail;
use crate::domain::{KeyHash, KeyRecord, Revision};
use crate::store::api::Removed;
use crate::store::archive::{Held, Piece, Restoration, Stand, Survivors, Trail, TrailFate, difference};
use crate::store::audit::Action;
use crate::store::columns::{rows as row_bound, unsigned};
use crate::store::command::{AUDIT_SUBJECT, Effect, STORE_SUBJECT, draw_token};
use crate::store::error::StoreError;

/// Rows handed over, or written, at a time.
const BATCH: usize = 1_000;
/// Rows that one statement takes away.
const TAKEN_AT_ONCE: usize = 50_000;

/// Sends everything as it is at one moment; ends early when nobody listens any more.
pub(super) async fn copy_all(session: &mut Session, pieces: mpsc::Sender<Piece>) -> Result<(), Fault> {
    const HEAD: Sql = Sql::new("SELECT revision, token FROM portcullis.head", &[]);
    session.begin_snapshot().await?;
    let revision = rows::read_head(&session.only(&HEAD, &[]).await?)?.revision;
    let stand = Stand { revision, anchor: trail::read_anchor(session).await? };
    let heard = pieces.send(Piece::Stand(stand)).await.is_ok()
        && send_owners(session, &pieces).await?
        && send_keys(session, &pieces).await?;
    if heard {
        send_entries(session, &pieces).await?;
    }
    session.roll_back().await
}

async fn send_owners(session: &mut Session, pieces: &mpsc::Sender<Piece>) -> Result<bool, Fault> {
    session.run(concat!("DECLARE every_owner NO SCROLL CURSOR FOR ", owners!(), "ORDER BY id")).await?;
    loop {
        let found = fetch(session, "every_owner").await?;
        let owners = found.iter().map(rows::read_owner).collect::<Result<_, _>>()?;
        if pieces.send(Piece::Owners(owners)).await.is_err() {
            return Ok(false);
        }
        if found.len() < BATCH {
            return Ok(true);
        }
    }
}

async fn send_keys(session: &mut Session, pieces: &mpsc::Sender<Piece>) -> Result<bool, Fault> {
    session.run(concat!("DECLARE every_key NO SCROLL CURSOR FOR ", records!(), "ORDER BY k.id")).await?;
    let mut names = Names::default();
    loop {
        let found = fetch(session, "every_key").await?;
        names.learn(session, &found).await?;
        let keys = found.iter().map(|row| rows::read_record(row, &names)).collect::<Result<_, _>>()?;
        if pieces.send(Piece::Keys(keys)).await.is_err() {
            return Ok(false);
        }
        if found.len() < BATCH {
            return Ok(true);
        }
    }
}

async fn send_entries(session: &mut Session, pieces: &mpsc::Sender<Piece>) -> Result<(), Fault> {
    session.run(trail::DECLARE_WALK).await?;
    loop {
        let found = fetch(session, "walk").await?;
        let entries = found.iter().map(trail::read_entry).collect::<Result<_, _>>()?;
        if pieces.send(Piece::Entries(entries)).await.is_err() || found.len() < BATCH {
            return Ok(());
        }
    }
}

async fn fetch(session: &mut Session, cursor: &str) -> Result<Vec<Row>, Fault> {
    session.rows_once(&format!("FETCH {BATCH} FROM {cursor}")).await
}

/// See [`crate::store::Command::Restore`].
pub(super) async fn restore(
    write: &mut Write<'_>,
    restoration: &Restoration,
    newest: Revision,
) -> Result<Effect, Fault> {
    const KEYS: Sql = Sql::new("SELECT count(*) FROM portcullis.keys", &[]);
    const OWNERS: Sql = Sql::new("SELECT count(*) FROM portcullis.owners", &[]);
    const TOKENS: Sql = Sql::new("UPDATE portcullis.revisions SET token = $1", &[Type::INT8]);
    let Restoration { archive, replace } = restoration;
    let (keys, owners) = (count(write.session, &KEYS).await?, count(write.session, &OWNERS).await?);
    let held = Held { revision: newest, keys, owners };
    let trail = Trail {
        head: trail::read_head(write.session).await?,
        anchor: trail::read_anchor(write.session).await?,
        at_the_backups_end: trail::read_mac(write.session, archive.trail_head().entry).await?,
    };
    if !replace && !held.is_nothing(&trail) {
        return Err(StoreError::NotEmpty { keys, owners }.into());
    }
    let mut survivors = Survivors::new(
        read_revoked(write.session).await?,
        trail::read_revocations(write.session).await?,
        read_removed(write.session).await?,
        write.order.now,
    );
    for id in survivors.asked_for(archive) {
        read_key(write.session, id).await?.into_iter().for_each(|record| survivors.learn(record));
    }
    let missing = lookups::holdings(write.session, survivors.owners_missing_in(archive)).await?;
    // No gateway knows any of these: whatever it stands at, it loads everything and lets go of no revocation.
    write.session.execute(&TOKENS, &[&draw_token()?.0.cast_signed()]).await?;
    empty_tables(write.session).await?;
    for owner in archive.owners.iter().chain(missing.iter().map(|holding| &holding.owner)) {
        write.write_owner(owner).await?;
    }
    let mut profiles = HashMap::new();
    for some in archive.keys.chunks(BATCH) {
        let some: Vec<KeyRecord> = some.iter().filter_map(|record| survivors.settle(record)).collect();
        insert::insert_some(write, &some, &mut profiles).await?;
    }
    for some in survivors.revoked().chunks(BATCH) {
        insert::insert_some(write, some, &mut profiles).await?;
    }
    let fate = TrailFate::of(&trail, archive);
    match fate {
        TrailFate::Kept => {}
        TrailFate::Taken | TrailFate::Replaced => take_trail(write, restoration).await?,
    }
    let told = difference(restoration, held, &trail, fate, &survivors);
    write.note(Action::StoreRestore, STORE_SUBJECT, &told).await?;
    Ok(Effect::Changed(write.next, archive.keys.len() as u64))
}

/// Takes all keys and owners away, a part at a time: a statement has a bound.
async fn empty_tables(session: &mut Session) -> Result<(), Fault> {
    const ANSWERS: Sql = Sql::new("DELETE FROM portcullis.repeatable", &[]);
    const KEYS: Sql =
        Sql::new("DELETE FROM portcullis.keys WHERE id IN (SELECT id FROM portcullis.keys LIMIT $1)", &[Type::INT8]);
    const OWNERS: Sql = Sql::new(
        "DELETE FROM portcullis.owners WHERE id IN (SELECT id FROM portcullis.owners LIMIT $1)",
        &[Type::INT8],
    );
    session.execute(&ANSWERS, &[]).await?;
    take_away(session, &KEYS).await?;
    take_away(session, &OWNERS).await
}

async fn take_away(session: &mut Session, some: &Sql) -> Result<(), Fault> {
    while session.execute(some, &[&row_bound(TAKEN_AT_ONCE)]).await? > 0 {}
    Ok(())
}

/// Puts the trail of a backup in the place of what there is.
async fn take_trail(write: &mut Write<'_>, restoration: &Restoration) -> Result<(), Fault> {
    const ENTRIES: Sql = Sql::new(
        "DELETE FROM portcullis.audit WHERE entry IN (SELECT entry FROM portcullis.audit LIMIT $1)",
        &[Type::INT8],
    );
    const ANCHOR: Sql = Sql::new("DELETE FROM portcullis.audit_anchor", &[]);
    let taken = restoration.archive.taken_trail();
    take_away(write.session, &ENTRIES).await?;
    write.session.execute(&ANCHOR, &[]).await?;
    if let Some(anchor) = taken.anchor {
        trail::drop_through(write.session, anchor).await?;
    }
    for some in taken.entries.chunks(trail::AT_ONCE) {
        trail::insert(write.session, some).await?;
    }
    if let Some(dropped) = taken.dropped {
        write.note(Action::AuditForget, AUDIT_SUBJECT, &dropped.difference()).await?;
    }
    Ok(())
}

async fn count(session: &mut Session, sql: &Sql) -> Result<u64, Fault> {
    Ok(unsigned(get(&session.only(sql, &[]).await?, 0)?))
}

async fn read_revoked(session: &mut Session) -> Result<Vec<KeyRecord>, Fault> {
    const SELECT: Sql = Sql::new(concat!(records!(), "WHERE k.revoked_at IS NOT NULL"), &[]);
    let found = session.rows(&SELECT, &[]).await?;
    rows::read_records(session, &found).await
}

async fn read_removed(session: &mut Session) -> Result<Vec<Removed>, Fault> {
    const SELECT: Sql = Sql::new("SELECT id, hash FROM portcullis.removed", &[]);
    let removal = |row| -> Result<Removed, Fault> {
        Ok(Removed { id: rows::key_id(row, 0)?, hash: KeyHash::from_bytes(rows::bytes32(row, 1)?) })
    };
    session.rows(&SELECT, &[]).await?.iter().map(removal).collect()
}
