//! Why something was not done.

use std::fmt;

use crate::domain::{GrantedScope, KeyId, OwnerId};
use crate::store::StoreError;

/// What is wrong with one field of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Flaw {
    /// Its name.
    pub field: &'static str,
    /// What is wrong, and how to mend it.
    pub problem: String,
}

impl Flaw {
    /// A flaw.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }
}

/// Why something was not done.
#[derive(Debug)]
pub enum Refused {
    /// The request says something that cannot be.
    Flawed(Flaw),
    /// There is no such key, or it is not the caller's to see.
    NoSuchKey(KeyId),
    /// There is no such owner, or it is not the caller's to see.
    NoSuchOwner(OwnerId),
    /// The result would hold more than the caller, or the owner, may grant.
    Exceeds {
        /// What of it is not covered.
        missing: Vec<GrantedScope>,
        /// Whether it is the owner's ceiling that does not cover it.
        by_ceiling: bool,
    },
    /// Only operators may do this.
    OperatorsOnly {
        /// What it is about.
        what: &'static str,
    },
    /// The key is in no state for it.
    Conflict(&'static str),
    /// The record is not the one that the caller read.
    Changed,
    /// The store did not do it.
    Store(StoreError),
    /// The operating system gave no random bytes.
    NoEntropy(String),
}

impl Refused {
    /// A field that cannot be as it is.
    pub fn flawed(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Flawed(Flaw::new(field, problem))
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Stale { .. } => Self::Changed,
            StoreError::UnknownOwner { .. } => Self::flawed("owner", "there is no such owner"),
            error => Self::Store(error),
        }
    }
}

impl From<Flaw> for Refused {
    fn from(flaw: Flaw) -> Self {
        Self::Flawed(flaw)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flawed(Flaw { field, problem }) => write!(f, "`{field}`: {problem}"),
            Self::NoSuchKey(id) => write!(f, "there is no key {id}"),
            Self::NoSuchOwner(id) => write!(f, "there is no owner {id}"),
            Self::Exceeds { missing, by_ceiling } => {
                let missing: Vec<&str> = missing.iter().map(GrantedScope::as_str).collect();
                let whose = if *by_ceiling { "the owner's ceiling does" } else { "the scopes you may grant do" };
                write!(f, "{whose} not cover {}", missing.join(" "))
            }
            Self::OperatorsOnly { what } => write!(f, "only operators may change {what}"),
            Self::Conflict(why) => f.write_str(why),
            Self::Changed => f.write_str("the record changed since it was read; read it again and repeat the change"),
            Self::Store(error) => error.fmt(f),
            Self::NoEntropy(error) => f.write_str(error),
        }
    }
}

impl std::error::Error for Refused {}
