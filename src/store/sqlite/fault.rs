//! What goes wrong inside SQLite, and how it is told to people.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::store::columns::Odd;
use crate::store::error::StoreError;

/// Trouble on the way to an answer. The first two still lack a place.
#[derive(Debug)]
pub(super) enum Fault {
    /// SQLite's own.
    Sqlite(rusqlite::Error),
    /// The file holds what no version of this program writes.
    Odd(String),
    /// An error that is worded already.
    Told(StoreError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Odd> for Fault {
    fn from(Odd(found): Odd) -> Self {
        Self::Odd(found)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Told(error)
    }
}

impl Fault {
    /// The error for the caller, with what was tried on which file.
    pub(super) fn tell(self, doing: &str, path: &Path) -> StoreError {
        let path = path.display();
        let error = match self {
            Self::Told(error) => return error,
            Self::Odd(found) => return StoreError::Damaged { found: format!("`{path}`: {found}") },
            Self::Sqlite(error) => error,
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => StoreError::Damaged {
                found: format!("`{path}` is not an SQLite database; choose another `store.path`"),
            },
            Some(ErrorCode::DatabaseCorrupt) => StoreError::Damaged {
                found: format!("`{path}` is broken ({error}); restore it from a backup, it is not repaired in place"),
            },
            Some(ErrorCode::DiskFull) => {
                StoreError::unavailable(format!("{doing} in `{path}`"), "the disk is full; free some space")
            }
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::unavailable(
                format!("{doing} in `{path}`"),
                "another process has been writing for too long; try again, or see who holds the file open",
            ),
            _ if is_conversion(&error) => StoreError::Damaged { found: format!("`{path}` while {doing}: {error}") },
            _ => StoreError::unavailable(format!("{doing} in `{path}`"), error),
        }
    }
}

/// A value of a type that the schema does not allow.
pub(super) fn is_conversion(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
    )
}

/// Whether a row was refused because one like it exists.
pub(super) fn is_duplicate(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE};
    matches!(error, rusqlite::Error::SqliteFailure(cause, _)
        if matches!(cause.extended_code, SQLITE_CONSTRAINT_UNIQUE | SQLITE_CONSTRAINT_PRIMARYKEY))
}
