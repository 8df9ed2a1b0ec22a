//! Brings a file's schema up to what this binary knows, and refuses files that are not ours.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use sha2::{Digest, Sha256};

use super::fault::Fault;
use crate::domain::Timestamp;
use crate::store::MigrationStep;
use crate::store::error::StoreError;

/// One step from a schema to the next. Never edited once released: its checksum is in every store.
pub(super) struct Migration {
    pub(super) version: u32,
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
}

/// A kind of file: how it is recognised and which steps lead to its newest schema.
pub(super) struct Schema {
    /// SQLite's `application_id`.
    pub(super) application_id: i32,
    /// In order of version, from 1, without gaps.
    pub(super) migrations: &'static [Migration],
}

/// The store itself.
pub(super) const KEYS: Schema = Schema {
    application_id: i32::from_be_bytes(*b"PcKs"),
    migrations: &[
        Migration { version: 1, name: "keys", sql: include_str!("../migrations/sqlite/0001_keys.sql") },
        Migration { version: 2, name: "life", sql: include_str!("../migrations/sqlite/0002_life.sql") },
        Migration { version: 3, name: "chain", sql: include_str!("../migrations/sqlite/0003_chain.sql") },
    ],
};

/// The file beside it that notes last use, what quotas count and what requests leave behind.
pub(super) const USAGE: Schema = Schema {
    application_id: i32::from_be_bytes(*b"PcUs"),
    migrations: &[
        Migration {
            version: 1,
            name: "last_used",
            sql: "CREATE TABLE last_used (id BLOB PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;",
        },
        Migration {
            version: 2,
            name: "quota_counts",
            sql: "CREATE TABLE quota_counts (
                      holder INTEGER NOT NULL,
                      id BLOB NOT NULL,
                      period INTEGER NOT NULL,
                      begins INTEGER NOT NULL,
                      requests INTEGER NOT NULL,
                      PRIMARY KEY (holder, id, period, begins)
                  ) STRICT, WITHOUT ROWID;",
        },
        Migration { version: 3, name: "usage", sql: include_str!("../migrations/sqlite/usage_0003.sql") },
        Migration { version: 4, name: "nodes", sql: include_str!("../migrations/sqlite/usage_0004.sql") },
    ],
};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS migrations (
    version    INTEGER PRIMARY KEY,
    name       TEXT NOT NULL,
    checksum   TEXT NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT";

/// Whether the file is new, or one of this kind.
///
/// # Errors
/// [`StoreError::Damaged`] when it is a database of something else. Changes nothing.
pub(super) fn recognise(connection: &Connection, schema: &Schema) -> Result<(), Fault> {
    // One snapshot: between two looks another process may have made the store.
    let snapshot = connection.unchecked_transaction()?;
    let id: i32 = snapshot.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let things: i64 = snapshot.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    snapshot.finish()?;
    if id == schema.application_id {
        return Ok(());
    }
    if id == 0 && things == 0 {
        return Ok(());
    }
    Err(Fault::Odd("the file is an SQLite database of another application; choose another `store.path`".to_owned()))
}

/// Applies what is missing, each step in the same transaction as its note.
///
/// # Errors
/// [`StoreError::Newer`] when the file knows steps that this binary does not, [`StoreError::Damaged`] when a step
/// it took is not the one this binary knows.
pub(super) fn migrate(connection: &mut Connection, schema: &Schema) -> Result<(), Fault> {
    if applied(connection, schema)? == schema.migrations.len() {
        return Ok(());
    }
    // Another process may do the same: look again once the write lock is held.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let done = applied(&transaction, schema)?;
    transaction.execute_batch(TABLE)?;
    transaction.pragma_update(None, "application_id", schema.application_id)?;
    for step in schema.migrations.iter().skip(done) {
        transaction.execute_batch(step.sql)?;
        transaction.execute(
            "INSERT INTO migrations (version, name, checksum, applied_at) VALUES (?1, ?2, ?3, unixepoch() * 1000)",
            params![step.version, step.name, checksum(step.sql)],
        )?;
    }
    transaction.commit()?;
    Ok(())
}

/// How many steps the file has taken, after checking that they are ours.
fn applied(connection: &Connection, schema: &Schema) -> Result<usize, Fault> {
    if !applied_table(connection)? {
        return Ok(0);
    }
    let mut taken = connection.prepare("SELECT version, checksum FROM migrations ORDER BY version")?;
    let mut rows = taken.query([])?;
    let mut done = 0;
    let mut strangers = Vec::new();
    while let Some(row) = rows.next()? {
        let (version, sum): (u32, String) = (row.get(0)?, row.get(1)?);
        match schema.migrations.get(done) {
            None => strangers.push(version),
            Some(step) if step.version == version && checksum(step.sql) == sum => done += 1,
            Some(_) => {
                return Err(Fault::Odd(format!(
                    "its migration {version} is not the one this portcullis knows; use the portcullis that made it"
                )));
            }
        }
    }
    let known = schema.migrations.last().map_or(0, |step| step.version);
    strangers.last().map_or(Ok(done), |found| Err(StoreError::Newer { found: *found, known }.into()))
}

/// Every step, and when the file took it, for people.
pub(super) fn list(connection: Option<&Connection>, schema: &Schema) -> Result<Vec<MigrationStep>, Fault> {
    let mut taken = Vec::new();
    if let Some(connection) = connection
        && applied_table(connection)?
    {
        let mut select = connection.prepare("SELECT version, name, applied_at FROM migrations ORDER BY version")?;
        let found = select.query_map([], |row| {
            let at = Some(Timestamp::from_unix_ms(row.get(2)?));
            Ok(MigrationStep { version: row.get(0)?, name: row.get(1)?, applied_at: at })
        })?;
        taken = found.collect::<Result<Vec<_>, _>>()?;
    }
    let missing = schema.migrations.iter().skip(taken.len());
    taken.extend(missing.map(|step| MigrationStep {
        version: step.version,
        name: step.name.to_owned(),
        applied_at: None,
    }));
    Ok(taken)
}

fn applied_table(connection: &Connection) -> Result<bool, Fault> {
    let table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'migrations'";
    Ok(connection.query_row(table, [], |_| Ok(())).optional()?.is_some())
}

fn checksum(sql: &str) -> String {
    use std::fmt::Write;
    Sha256::digest(sql).iter().fold(String::with_capacity(64), |mut text, byte| {
        let written = write!(text, "{byte:02x}");
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
        text
    })
}
