//! Brings the tables up to what this binary knows, and refuses those that are not ours.

use sha2::{Digest, Sha256};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use super::address::PostgresAddress;
use super::fault::Fault;
use super::session::{Session, Sql};
use crate::domain::Timestamp;
use crate::store::error::StoreError;
use crate::store::{MigrationStep, OpenMode};

/// One step from a schema to the next. Never edited once released: its checksum is in every store.
pub(super) struct Migration {
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
}

/// All steps: the first makes version 1.
pub(super) const STEPS: &[Migration] = &[
    Migration { name: "keys", sql: include_str!("../migrations/postgres/0001_keys.sql") },
    Migration { name: "usage", sql: include_str!("../migrations/postgres/0002_usage.sql") },
    Migration { name: "nodes", sql: include_str!("../migrations/postgres/0003_nodes.sql") },
    Migration { name: "writers", sql: include_str!("../migrations/postgres/0004_writers.sql") },
];

/// Held while the tables are made or changed, so that of several processes one does it.
const LOCK: i64 = i64::from_be_bytes(*b"pcmigrat");

/// How long making or changing tables may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(3600);

/// What there is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing of ours.
    Absent,
    /// What this binary knows.
    Known,
    /// Less.
    Older(u32),
    /// More.
    Newer(u32),
    /// Something else.
    Odd(String),
}

impl State {
    /// Why it cannot be used.
    pub(super) fn refusal(self, address: &PostgresAddress) -> StoreError {
        let known = known();
        match self {
            Self::Older(found) => StoreError::Older { found, known },
            Self::Newer(found) => StoreError::Newer { found, known },
            Self::Odd(found) => StoreError::Damaged { found: format!("{}: {found}", address.place()) },
            Self::Known | Self::Absent => StoreError::unavailable(
                format!("opening the store in {}", address.place()),
                "there are no tables yet; `portcullis migrate up`, or the first verb that writes, makes them",
            ),
        }
    }
}

/// The version of [`STEPS`].
pub(super) fn known() -> u32 {
    version(STEPS.len())
}

fn version(steps: usize) -> u32 {
    u32::try_from(steps).unwrap_or(u32::MAX)
}

/// Looks at what there is. Changes nothing.
pub(super) async fn look(session: &mut Session, steps: &[Migration]) -> Result<State, Fault> {
    Ok(match applied(session).await? {
        None => State::Absent,
        Some(applied) => judge(&applied, steps),
    })
}

/// A step that was taken: its version, checksum and moment.
type Applied = (i64, String, Timestamp);

/// The steps that were taken; `None` where there is no table of them.
async fn applied(session: &mut Session) -> Result<Option<Vec<Applied>>, Fault> {
    let select = "SELECT version, checksum, applied_at FROM portcullis.migrations ORDER BY version";
    let rows = match session.rows_once(select).await {
        Ok(rows) => rows,
        Err(fault) if fault.code().is_some_and(|code| *code == SqlState::UNDEFINED_TABLE) => return Ok(None),
        Err(fault) => return Err(fault),
    };
    let read = |row: &tokio_postgres::Row| -> Result<Applied, tokio_postgres::Error> {
        Ok((row.try_get(0)?, row.try_get(1)?, Timestamp::from_unix_ms(row.try_get(2)?)))
    };
    Ok(Some(rows.iter().map(read).collect::<Result<_, _>>()?))
}

fn judge(applied: &[Applied], steps: &[Migration]) -> State {
    for (index, (number, found, _)) in applied.iter().enumerate() {
        if *number != i64::from(version(index + 1)) {
            return State::Odd(format!("step {} of its schema is missing", index + 1));
        }
        if let Some(step) = steps.get(index)
            && checksum(step) != *found
        {
            return State::Odd(format!(
                "step {number} of its schema (`{}`) is not the one that this portcullis knows",
                step.name
            ));
        }
    }
    match applied.len().cmp(&steps.len()) {
        std::cmp::Ordering::Less => State::Older(version(applied.len())),
        std::cmp::Ordering::Equal => State::Known,
        std::cmp::Ordering::Greater => State::Newer(version(applied.len())),
    }
}

fn checksum(step: &Migration) -> String {
    Sha256::digest(step.sql).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// For a store that is opened: makes the tables where there are none, and with [`OpenMode::Existing`] not even that.
pub(super) async fn prepare(
    session: &mut Session,
    mode: OpenMode,
    address: &PostgresAddress,
    now: Timestamp,
) -> Result<(), Fault> {
    match (look(session, STEPS).await?, mode) {
        (State::Known, _) => Ok(()),
        (State::Absent, OpenMode::Create) => migrate(session, STEPS, address, now).await.map(drop),
        (other, _) => Err(other.refusal(address).into()),
    }
}

/// Takes the steps that are missing, all or none; returns how many. Others who do the same wait.
///
/// # Errors
/// [`StoreError::Newer`] and [`StoreError::Damaged`] as [`State`] says.
pub(super) async fn migrate(
    session: &mut Session,
    steps: &[Migration],
    address: &PostgresAddress,
    now: Timestamp,
) -> Result<usize, Fault> {
    const NOTE: Sql = Sql::new(
        "INSERT INTO portcullis.migrations (version, name, checksum, applied_at) VALUES ($1, $2, $3, $4)",
        &[Type::INT8, Type::TEXT, Type::TEXT, Type::INT8],
    );
    session.expect_within(PATIENCE);
    session.begin().await?;
    session.run("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0").await?;
    session.rows_once(&format!("SELECT pg_advisory_xact_lock({LOCK})")).await?;
    // Only now it is known what is missing: another process may have been at it.
    let from = match make_room(session).await? {
        Room::New => 0,
        Room::Ours => match look(session, steps).await? {
            State::Older(version) => {
                // Whoever is about to write sees the new schema, or is done before it.
                let found = session.rows_once("SELECT to_regclass('portcullis.head') IS NOT NULL").await?;
                if found.first().is_some_and(|row| row.try_get(0).unwrap_or(false)) {
                    session.rows_once("SELECT revision FROM portcullis.head FOR UPDATE").await?;
                }
                version as usize
            }
            State::Known => steps.len(),
            other => return Err(other.refusal(address).into()),
        },
        Room::Foreign => {
            return Err(Fault::Odd(
                "its schema `portcullis` holds tables that are not portcullis's; use another database".to_owned(),
            ));
        }
    };
    for (index, step) in steps.iter().enumerate().skip(from) {
        session.run(step.sql).await?;
        let number = i64::from(version(index + 1));
        session.execute(&NOTE, &[&number, &step.name, &checksum(step), &now.unix_ms()]).await?;
    }
    session.commit().await?;
    Ok(steps.len() - from)
}

enum Room {
    New,
    Ours,
    Foreign,
}

/// Makes the schema and the table of steps where there are none.
async fn make_room(session: &mut Session) -> Result<Room, Fault> {
    let row = session
        .rows_once(
            "SELECT to_regnamespace('portcullis') IS NOT NULL, to_regclass('portcullis.migrations') IS NOT NULL, \
             EXISTS (SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = 'portcullis')",
        )
        .await?;
    let Some(row) = row.first() else { return Ok(Room::Foreign) };
    let (has_schema, has_steps, has_anything): (bool, bool, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    if has_steps {
        return Ok(Room::Ours);
    }
    if has_anything {
        return Ok(Room::Foreign);
    }
    if !has_schema {
        session.run("CREATE SCHEMA portcullis").await?;
    }
    session
        .run(
            "CREATE TABLE portcullis.migrations (version bigint PRIMARY KEY, name text NOT NULL, \
             checksum text NOT NULL, applied_at bigint NOT NULL)",
        )
        .await?;
    Ok(Room::New)
}

/// Every step, and when it was taken, for people.
pub(super) async fn list(session: &mut Session) -> Result<Vec<MigrationStep>, Fault> {
    let applied = applied(session).await?.unwrap_or_default();
    let known = STEPS.iter().enumerate().map(|(index, step)| MigrationStep {
        version: version(index + 1),
        name: step.name.to_owned(),
        applied_at: applied.get(index).map(|(_, _, at)| *at),
    });
    let unknown = applied.iter().enumerate().skip(STEPS.len()).map(|(index, (_, _, at))| MigrationStep {
        version: version(index + 1),
        name: "of a newer portcullis".to_owned(),
        applied_at: Some(*at),
    });
    Ok(known.chain(unknown).collect())
}

#[cfg(test)]
#[path = "migrate_tests.rs"]
mod tests;
