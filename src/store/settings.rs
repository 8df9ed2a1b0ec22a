//! Which store, and where.

use std::path::PathBuf;
use std::time::Duration;

use super::postgres::PostgresAddress;

/// `store`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreSettings {
    /// Keys live as long as the process; for trials and tests.
    Memory,
    /// One file, created with its directory when a verb first writes.
    Sqlite {
        /// The database file.
        path: PathBuf,
    },
    /// A database that the gateways of a fleet share.
    Postgres(Box<PostgresSettings>),
}

/// `store` with `driver: postgres`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// Where it is and who asks.
    pub address: PostgresAddress,
    /// What stands in between.
    pub pooler: Pooler,
    /// Most connections of this process, besides the one that listens for changes. Default 8, 4 to 200.
    pub connections: usize,
    /// How long reaching the server and identifying may take. Default 5 s, 100 ms to 1 min.
    pub connect_timeout: Duration,
    /// How long one statement may take. Default 30 s, 1 s to 1 h.
    pub statement_timeout: Duration,
}

/// `store.pooler`: what hands connections of its own to ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooler {
    /// Nothing, or something that gives each of our connections one to itself.
    None,
    /// A pooler that gives one for each transaction: no statement is prepared, and changes are found by polling.
    Transaction,
}

/// `audit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditSettings {
    /// How long entries of the audit trail are kept. Default 400 days, one day to a hundred years.
    pub retention: Duration,
}

/// `sync`: how the key set follows the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncSettings {
    /// How often the store is asked whether another process changed it. Default 100 ms, 10 ms to 10 s.
    pub poll_interval: Duration,
    /// How often last use and usage are written, more seldom where that takes long. Default 30 s, 1 s to 1 h.
    pub last_used_flush: Duration,
}
