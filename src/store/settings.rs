//! Which store, and where.

use std::path::PathBuf;
use std::time::Duration;

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
    /// How often last use and usage are written, sooner when very many keys are used. Default 30 s, 1 s to 1 h.
    pub last_used_flush: Duration,
}
