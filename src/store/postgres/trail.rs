//! The audit trail as a table: rows appended at its end, read, walked, and dropped from its front.

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::fault::{Fault, is_conversion};
use super::rows::{bytes32, get, number, revision};
use super::session::{Session, Sql};
use crate::domain::{KeyId, Timestamp};
use crate::store::api::Page;
use crate::store::audit::Action;
use crate::store::columns::rows as row_bound;
use crate::store::seal::{AuditHead, AuditMac, AuditSeal, Sealed};
use crate::store::trail::{Anchor, AuditEntry, AuditExtent, AuditOrder, AuditQuery};
use crate::store::verify::{Verification, Verifier, Walk};

/// The columns of [`read_entry`].
macro_rules! columns {
    () => {
        "entry, revision, at, actor, address, action, subject, before, after, mac, sealed_with"
    };
}

/// Declares the cursor `walk` over all entries, the oldest first.
pub(super) const DECLARE_WALK: &str =
    concat!("DECLARE walk NO SCROLL CURSOR FOR SELECT ", columns!(), " FROM portcullis.audit ORDER BY entry");

/// Rows that are written, or walked along, at a time.
pub(super) const AT_ONCE: usize = 1_000;

/// Appends rows, at most [`AT_ONCE`].
pub(super) async fn insert(session: &mut Session, entries: &[AuditEntry]) -> Result<(), Fault> {
    const INSERT: Sql = Sql::new(
        concat!(
            "INSERT INTO portcullis.audit (",
            columns!(),
            ") SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], \
             $7::text[], $8::text[], $9::text[], $10::bytea[], $11::text[])"
        ),
        &[
            Type::INT8_ARRAY,
            Type::INT8_ARRAY,
            Type::INT8_ARRAY,
            Type::TEXT_ARRAY,
            Type::TEXT_ARRAY,
            Type::TEXT_ARRAY,
            Type::TEXT_ARRAY,
            Type::TEXT_ARRAY,
            Type::TEXT_ARRAY,
            Type::BYTEA_ARRAY,
            Type::TEXT_ARRAY,
        ],
    );
    if entries.is_empty() {
        return Ok(());
    }
    fn column<'e, T>(entries: &'e [AuditEntry], of: impl Fn(&'e AuditEntry) -> T) -> Vec<T> {
        entries.iter().map(of).collect()
    }
    session
        .execute(
            &INSERT,
            &[
                &column(entries, |row| row.entry.cast_signed()),
                &column(entries, |row| number(row.revision)),
                &column(entries, |row| row.at.unix_ms()),
                &column(entries, |row| row.actor.as_str()),
                &column(entries, |row| row.address.as_deref()),
                &column(entries, |row| row.action.as_str()),
                &column(entries, |row| row.subject.as_str()),
                &column(entries, |row| row.before.as_deref()),
                &column(entries, |row| row.after.as_deref()),
                &column(entries, |row| row.sealed.as_ref().map(|sealed| sealed.mac.as_bytes().as_slice())),
                &column(entries, |row| row.sealed.as_ref().and_then(|sealed| sealed.key.as_deref())),
            ],
        )
        .await?;
    Ok(())
}

/// Where the trail ends.
pub(super) async fn read_head(session: &mut Session) -> Result<AuditHead, Fault> {
    const NEWEST: Sql = Sql::new("SELECT entry, mac FROM portcullis.audit ORDER BY entry DESC LIMIT 1", &[]);
    match session.row(&NEWEST, &[]).await? {
        Some(row) => read_link(&row, 1),
        None => Ok(read_anchor(session).await?.map(|anchor| anchor.last).unwrap_or_default()),
    }
}

/// The number in the first column, and the mac in this one.
fn read_link(row: &Row, mac: usize) -> Result<AuditHead, Fault> {
    Ok(AuditHead { entry: read_number(row)?, mac: AuditMac::from_bytes(bytes32(row, mac)?) })
}

/// The number of an entry, in the first column.
fn read_number(row: &Row) -> Result<u64, Fault> {
    let entry: i64 = get(row, 0)?;
    u64::try_from(entry).map_err(|_| Fault::Odd(format!("{entry} is no number of an entry")))
}

/// What is remembered of entries that were dropped.
pub(super) async fn read_anchor(session: &mut Session) -> Result<Option<Anchor>, Fault> {
    const FIND: Sql = Sql::new("SELECT entry, at, mac FROM portcullis.audit_anchor", &[]);
    let row = session.row(&FIND, &[]).await?;
    row.map(|row| Ok(Anchor { last: read_link(&row, 2)?, at: Timestamp::from_unix_ms(get(&row, 1)?) })).transpose()
}

/// A row of `columns!`.
pub(super) fn read_entry(row: &Row) -> Result<AuditEntry, Fault> {
    Ok(AuditEntry {
        entry: read_number(row)?,
        revision: revision(row, 1)?,
        at: Timestamp::from_unix_ms(get(row, 2)?),
        actor: get(row, 3)?,
        address: get(row, 4)?,
        action: get(row, 5)?,
        subject: get(row, 6)?,
        before: get(row, 7)?,
        after: get(row, 8)?,
        sealed: Some(Sealed { mac: AuditMac::from_bytes(bytes32(row, 9)?), key: get(row, 10)? }),
    })
}

/// The mac of the entry with this number; nothing where there is no such entry.
pub(super) async fn read_mac(session: &mut Session, entry: u64) -> Result<Option<AuditMac>, Fault> {
    const FIND: Sql = Sql::new("SELECT mac FROM portcullis.audit WHERE entry = $1", &[Type::INT8]);
    let row = session.row(&FIND, &[&entry.cast_signed()]).await?;
    row.map(|row| bytes32(&row, 0).map(AuditMac::from_bytes)).transpose()
}

/// When each key was revoked, as far as the trail reaches.
pub(super) async fn read_revocations(session: &mut Session) -> Result<Vec<(KeyId, Timestamp)>, Fault> {
    const FIND: Sql = Sql::new("SELECT subject, at FROM portcullis.audit WHERE action = $1", &[Type::TEXT]);
    let mut revocations = Vec::new();
    for row in session.rows(&FIND, &[&Action::KeyRevoke.name()]).await? {
        let at = Timestamp::from_unix_ms(get(&row, 1)?);
        // What names no key revokes none.
        revocations.extend(get::<&str>(&row, 0)?.parse().ok().map(|id: KeyId| (id, at)));
    }
    Ok(revocations)
}

macro_rules! list {
    ($behind:literal, $direction:literal) => {
        Sql::new(
            concat!(
                "SELECT ",
                columns!(),
                " FROM portcullis.audit WHERE ($1 IS NULL OR entry ",
                $behind,
                " $1) AND ($2 IS NULL OR at >= $2) AND ($3 IS NULL OR at < $3) AND ($4 IS NULL OR actor = $4) \
                 AND ($5 IS NULL OR subject = $5) AND ($6 IS NULL OR action = $6) \
                 AND ($7 IS NULL OR starts_with(action, $7)) ORDER BY entry ",
                $direction,
                " LIMIT $8"
            ),
            &[Type::INT8, Type::INT8, Type::INT8, Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::INT8],
        )
    };
}

/// A page of the trail.
pub(super) async fn list(session: &mut Session, query: &AuditQuery) -> Result<Page<AuditEntry>, Fault> {
    const NEWEST_FIRST: Sql = list!("<", "DESC");
    const OLDEST_FIRST: Sql = list!(">", "ASC");
    let nothing = Page { items: Vec::new(), more: false };
    if [&query.actor, &query.subject, &query.action].into_iter().flatten().any(|text| text.contains('\0')) {
        return Ok(nothing);
    }
    let sql = match query.order {
        AuditOrder::NewestFirst => &NEWEST_FIRST,
        AuditOrder::OldestFirst => &OLDEST_FIRST,
    };
    let size = query.page_size();
    let actions = query.action.as_deref().and_then(|action| action.strip_suffix('*'));
    let after = query.after.map(u64::cast_signed);
    let (since, until) = (query.since.map(Timestamp::unix_ms), query.until.map(Timestamp::unix_ms));
    let action = query.action.as_deref().filter(|_| actions.is_none());
    let limit = row_bound(size).saturating_add(1);
    let found =
        session.rows(sql, &[&after, &since, &until, &query.actor, &query.subject, &action, &actions, &limit]).await?;
    let items = found.iter().take(size).map(read_entry).collect::<Result<_, _>>()?;
    Ok(Page { items, more: found.len() > size })
}

/// How far the trail reaches.
pub(super) async fn extent(session: &mut Session) -> Result<AuditExtent, Fault> {
    const FIRST: Sql = Sql::new("SELECT min(entry) FROM portcullis.audit", &[]);
    session.begin_snapshot().await?;
    let head = read_head(session).await?;
    let first: Option<i64> = get(&session.only(&FIRST, &[]).await?, 0)?;
    session.roll_back().await?;
    let entries = first.map_or(0, |first| (head.entry + 1).saturating_sub(first.cast_unsigned()));
    Ok(AuditExtent { head, entries })
}

/// Walks the trail as it is at this moment.
pub(super) async fn verify(
    session: &mut Session,
    seal: &AuditSeal,
    noted: Option<AuditHead>,
) -> Result<Verification, Fault> {
    session.begin_snapshot().await?;
    let mut verifier = Verifier::new(seal, read_anchor(session).await?, noted);
    session.run(DECLARE_WALK).await?;
    'walk: loop {
        let rows = session.rows_once(&format!("FETCH {AT_ONCE} FROM walk")).await?;
        for row in &rows {
            let walk = match read_entry(row) {
                Ok(entry) => verifier.take(&entry),
                Err(Fault::Odd(found)) => verifier.take_unreadable(found),
                Err(Fault::Server(error)) if is_conversion(&error) => verifier.take_unreadable(error.to_string()),
                Err(fault) => return Err(fault),
            };
            if walk == Walk::Stop {
                break 'walk;
            }
        }
        if rows.len() < AT_ONCE {
            break;
        }
        // Others have their turn on this thread.
        tokio::task::yield_now().await;
    }
    session.roll_back().await?;
    Ok(verifier.conclude())
}

/// The last of the first `most` rows that are all older than `before`, and how many they are.
pub(super) async fn find_forgettable(
    session: &mut Session,
    before: Timestamp,
    most: usize,
) -> Result<Option<(Anchor, u64)>, Fault> {
    const FIRST: Sql = Sql::new("SELECT entry, at, mac FROM portcullis.audit ORDER BY entry LIMIT $1", &[Type::INT8]);
    let mut found = None;
    let mut count = 0;
    for row in session.rows(&FIRST, &[&row_bound(most)]).await? {
        let at = Timestamp::from_unix_ms(get(&row, 1)?);
        if at >= before {
            break;
        }
        count += 1;
        found = Some(Anchor { last: read_link(&row, 2)?, at });
    }
    Ok(found.map(|last| (last, count)))
}

/// Drops all rows up to the anchor, and keeps that.
pub(super) async fn drop_through(session: &mut Session, anchor: Anchor) -> Result<(), Fault> {
    const DROP: Sql = Sql::new("DELETE FROM portcullis.audit WHERE entry <= $1", &[Type::INT8]);
    const KEEP: Sql = Sql::new(
        "INSERT INTO portcullis.audit_anchor (entry, at, mac) VALUES ($1, $2, $3) ON CONFLICT (anchor) DO UPDATE \
         SET entry = excluded.entry, at = excluded.at, mac = excluded.mac",
        &[Type::INT8, Type::INT8, Type::BYTEA],
    );
    let entry = anchor.last.entry.cast_signed();
    session.execute(&DROP, &[&entry]).await?;
    session.execute(&KEEP, &[&entry, &anchor.at.unix_ms(), &anchor.last.mac.as_bytes().as_slice()]).await?;
    Ok(())
}
