//! The key set on disk, so that a gateway starts without its store, and never takes back what it acknowledged.
//!
//! Owns the files: a *base* (`keys.base`) that holds the whole set as it was at one revision, *journals* (`journal.1`,
//! `journal.2`, …) that hold every change since, and a note of when the store last confirmed all that (`as-of`). A thread
//! of its own ([`Keeper`]) writes them; requests and the sync task never wait for a disk. A revision counts as applied
//! once the journal holds it, or once there is nothing on the disk that a restart could go back to.
//!
//! Everything is sealed by HMAC-SHA-256 (RFC 2104) with a key made from the pepper; without one it is a checksum.
//! What a reader cannot vouch for to the last byte it does not use, save for the end of the last journal, which a power
//! cut may have torn and which was then never acknowledged. Must not know who asks for a revision, nor HTTP.

mod base;
mod claim;
mod journal;
mod keeper;
mod place;
mod record;
mod restore;
mod seal;
mod writer;

#[cfg(test)]
mod snapshot_tests;

pub(super) use base::{Base, Unreadable};
pub use claim::{Farewell, SnapshotClaim};
pub use keeper::SnapshotStatus;
pub(super) use keeper::{Found, Keeper};
pub use place::holds_snapshot;
pub(super) use record::Record;
pub use seal::SnapshotSeal;
