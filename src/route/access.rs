//! What a rule demands of whoever calls it, compiled.
//!
//! Owns the three kinds of demand. Must not know keys, callers or how a demand is met.

use crate::domain::ScopeSet;

/// What one rule demands. There is no default: absence never grants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Access {
    /// Anyone, with or without a credential.
    Public,
    /// A valid key, whatever its scopes.
    AnyKey,
    /// A valid key that holds all of `all` and, unless `any` is empty, at least one of `any`.
    ///
    /// Never both empty: an empty list in a configuration is an error, not a grant.
    Scopes {
        /// Every one of these.
        all: ScopeSet,
        /// At least one of these, unless there are none.
        any: ScopeSet,
    },
}
