//! From a request target to the rule that answers it.
//!
//! Owns what a path means, which patterns there are and which of them wins. Pure: no I/O, no clock, no keys.
//! Must not know what a rule demands of a caller beyond carrying [`Access`], or how a request is forwarded.
//! Start at [`NormalizedPath::parse`] and [`RouteTable::find`].

mod access;
mod bad_path;

mod bytes;
mod compiled;
mod host;
mod idle;
mod matching;
mod method;
mod path;
mod pattern;
mod readings;
mod rules;
#[cfg(test)]
mod samples;
mod table;
mod trie;

pub use access::Access;
pub use bad_path::{BadPath, Reading};
pub use host::HostPattern;
pub use idle::Idle;
pub use method::{ALL_METHODS, Allow, MethodError, MethodSelector};
pub use path::NormalizedPath;
pub use pattern::{MAX_PATTERN_BYTES, PathPattern, PatternError};
pub use rules::{EmptySegments, EncodedSlash, Normalize, PathRules, ReadsPaths, TrailingSlash};
pub use table::{Conflict, Found, Lookup, RouteEntry, RouteIx, RouteTable, RuleRef};
