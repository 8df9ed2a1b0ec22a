//! Where a store, and a reader of it, stands in the order of all changes.

use std::fmt;

/// Position in the store-wide order of commits. Grows by one with each committing transaction; 0 is the empty store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Revision(u64);

impl Revision {
    /// Before the first change.
    pub const ZERO: Self = Self(0);

    /// The revision with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The revision a transaction that begins at this one commits as.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A random word drawn with each revision.
///
/// Two histories that reach the same revision number after a failover or a restored backup differ in it,
/// so a reader can tell that commits were lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct RevisionToken(pub u64);

/// The newest committed revision of a store together with its token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreHead {
    /// The newest committed revision.
    pub revision: Revision,
    /// The token drawn with it.
    pub token: RevisionToken,
}
