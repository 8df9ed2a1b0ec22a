//! Tier 0: the words everything else is said in. No I/O, no tokio, no hyper.
//!
//! Owns identifiers, key text, secrets and their hashes, scopes, key and owner records, header fields,
//! revisions and time.
//! Must not know how any of it is stored, matched, transported or configured.
//! Start at [`key`] for what a key is and [`secret`] for where plaintext may exist.

pub mod clock;
pub mod field_lines;
pub mod fields;
pub mod id;
pub mod key;
pub mod key_text;
pub mod limits;
pub mod network;
pub mod percent;
pub mod rate;
pub mod redact;
pub mod revision;
pub mod scope;
pub mod secret;
#[cfg(test)]
pub(crate) mod simulated;
pub mod time;
pub mod words;

pub use field_lines::FieldLines;
pub use fields::{Fields, Known, OwnedFields};
pub use id::{KeyId, NodeId, OwnerId};
pub use key::{Bounds, KeyKind, KeyRecord, KeyState, OwnerRecord};
pub use network::network_of;
pub use percent::{NotEncoded, percent_decoded, percent_encoded};
pub use rate::{Quota, QuotaHolder, QuotaPeriod, QuotaTerm, RateLimit};
pub use redact::without_keys;
pub use revision::{Revision, RevisionToken, StoreHead};
pub use scope::{GrantedScope, Scope, ScopeIndex, ScopeSet};
pub use secret::{KeyHash, KeyHasher, MintedKey, Pepper, PresentedKey, secret_of_pair};
pub use time::Timestamp;
pub use words::{did_you_mean, is_misspelt};
