//! The whole key set in memory, and the one task that keeps it like the store.
//!
//! Owns what a request reads ([`KeySet`]: [`KeyMap`] and [`Directory`]) and the writer of it ([`SyncTask`]). A copy on disk
//! (`snapshot`) lets a gateway start without its store. Must not know routes, scopes that routes demand, or HTTP.
//! A request never waits here: no lock is held while it reads, but for the few nanoseconds of copying one slot.

mod apply;
mod chunked;
mod directory;
mod key_map;
mod key_set;
mod slot;
mod snapshot;
mod sync;

#[cfg(test)]
mod apply_tests;
#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod sync_tests;

pub use crate::store::Profile;
pub use chunked::ChunkedTable;
pub use directory::{Directory, EnvIx, OwnerIx, OwnerState, ProfileId};
pub use key_map::KeyMap;
pub use key_set::{Census, KeySet};
pub use slot::KeySlot;
pub use snapshot::{Farewell, SnapshotClaim, SnapshotSeal, SnapshotStatus, holds_snapshot};
pub use sync::{Publish, SyncHandle, SyncStatus, SyncStopped, SyncTask};
