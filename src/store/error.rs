//! Why a store did not do what it was asked.

use std::error::Error;
use std::fmt;

use crate::domain::Revision;

/// Why a store did not do what it was asked.
#[derive(Debug)]
pub enum StoreError {
    /// It cannot be reached, read or written right now.
    Unavailable {
        /// What was tried, on what.
        doing: String,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The way to it broke in the very moment of a commit: whether the change was made is not known.
    Uncertain {
        /// What was tried, on what.
        doing: String,
    },
    /// The file is not a store of ours, or is damaged.
    Damaged {
        /// What was found.
        found: String,
    },
    /// Its schema is newer than this binary.
    Newer {
        /// The store's schema version.
        found: u32,
        /// The newest this binary knows.
        known: u32,
    },
    /// Its schema is older than this binary, and is not brought up to date by itself.
    Older {
        /// The store's schema version.
        found: u32,
        /// The one this binary needs.
        known: u32,
    },
    /// A key with the same hash, or a record with the same id, exists.
    Duplicate {
        /// Index in the records that were to be inserted.
        index: usize,
    },
    /// A key names an owner that does not exist.
    UnknownOwner {
        /// Index in the records that were to be inserted.
        index: usize,
    },
    /// The key was revoked, which is final.
    Revoked,
    /// The record changed since it was read.
    Stale {
        /// Its revision now.
        now_at: Revision,
    },
    /// The owner has as many keys as it may have.
    TooManyKeys {
        /// Index in the records that were to be inserted.
        index: usize,
        /// How many it may have.
        most: u32,
    },
    /// Nobody could manage keys any more.
    LastOperator,
    /// The same was asked for before, and what was answered is kept.
    Repeated,
    /// Something would be lost that may not be.
    NotEmpty {
        /// How many keys.
        keys: u64,
        /// How many owners.
        owners: u64,
    },
}

impl StoreError {
    /// Whether the store itself is in trouble, rather than the request it refused.
    pub fn is_trouble(&self) -> bool {
        match self {
            Self::Unavailable { .. }
            | Self::Uncertain { .. }
            | Self::Damaged { .. }
            | Self::Newer { .. }
            | Self::Older { .. } => true,
            Self::Duplicate { .. }
            | Self::UnknownOwner { .. }
            | Self::Revoked
            | Self::Stale { .. }
            | Self::TooManyKeys { .. }
            | Self::LastOperator
            | Self::Repeated
            | Self::NotEmpty { .. } => false,
        }
    }

    pub(super) fn unavailable(doing: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable { doing: doing.into(), source: source.into() }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable { doing, source } => write!(f, "{doing}: {source}"),
            Self::Uncertain { doing } => write!(
                f,
                "{doing}: the connection broke while the change was committed: look whether it was made before you \
                 repeat it"
            ),
            Self::Damaged { found } => write!(f, "the store is damaged: {found}"),
            Self::Newer { found, known } => write!(
                f,
                "the store has schema {found}, this portcullis knows up to {known}; install a newer portcullis"
            ),
            Self::Older { found, known } => write!(
                f,
                "the store has schema {found}, this portcullis needs {known}; bring it up to date with:\n  portcullis \
                 migrate up"
            ),
            Self::Duplicate { .. } => {
                f.write_str("a key with the same hash, or a record with the same id, exists already")
            }
            Self::UnknownOwner { .. } => f.write_str("there is no such owner"),
            Self::Revoked => f.write_str("the key is revoked, which is final; create a new one"),
            Self::Stale { now_at } => {
                write!(f, "the record changed meanwhile, in revision {now_at}; read it again and repeat the change")
            }
            Self::TooManyKeys { most, .. } => {
                write!(f, "the owner may have {most} keys and has as many; revoke one, or raise its `max_keys`")
            }
            Self::LastOperator => f.write_str(
                "no other operator key (without owner, with the scope portcullis:keys) would be left; create one first",
            ),
            Self::Repeated => f.write_str("the same request was carried out before"),
            Self::NotEmpty { keys, owners } => write!(
                f,
                "the store is not empty: it has {keys} keys, {owners} owners and a trail of what was done to them. Nothing \
                 was changed. `portcullis store backup FILE` keeps what it has; --replace puts the backup in its place"
            ),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unavailable { source, .. } => Some(source.as_ref()),
            Self::Uncertain { .. }
            | Self::Damaged { .. }
            | Self::Newer { .. }
            | Self::Older { .. }
            | Self::Duplicate { .. }
            | Self::UnknownOwner { .. }
            | Self::Revoked
            | Self::Stale { .. }
            | Self::TooManyKeys { .. }
            | Self::LastOperator
            | Self::Repeated
            | Self::NotEmpty { .. } => None,
        }
    }
}
