//! Whose snapshot it is: the one process that writes it, and the node that it goes on as.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::SnapshotSeal;
use super::place::{Place, open_own};
use crate::domain::NodeId;

/// A process's claim on the directory of a snapshot.
pub struct SnapshotClaim {
    pub(super) place: Place,
    pub(super) seal: Arc<ArcSwap<SnapshotSeal>>,
    /// Held by the one process that writes.
    pub(super) lock: Option<File>,
    /// The node that this process is.
    pub(super) id: NodeId,
}

impl SnapshotClaim {
    /// Claims a directory, made where it is missing; what it is sealed with may be replaced later. Where another process has
    /// it, or it cannot be made, that is logged and claimed later. Blocks.
    pub fn take(directory: PathBuf, seal: Arc<ArcSwap<SnapshotSeal>>) -> Self {
        let place = Place::new(directory);
        let lock = match place.claim() {
            Ok(Some(lock)) => Some(lock),
            Ok(None) => {
                let path = place.path().display();
                tracing::warn!("another gateway keeps its snapshot in {path}; waiting for it to leave");
                None
            }
            Err(error) => {
                tracing::warn!(
                    %error,
                    "no snapshot can be kept in {}: a gateway that starts without its store will not find one",
                    place.path().display()
                );
                None
            }
        };
        let id = lock.as_ref().and_then(|_| known_id(&place)).unwrap_or_else(|| {
            let id = NodeId::generate();
            if lock.is_some() {
                keep_id(&place, id);
            }
            id
        });
        Self { place, seal, lock, id }
    }

    /// The id of the node that the directory belongs to: whoever has the claim is its only process, so one that was killed
    /// is known to be gone when the next one reports under its id. A new one where there is no claim.
    pub const fn node_id(&self) -> NodeId {
        self.id
    }

    /// What notes that this node has left.
    pub fn farewell(&self) -> Farewell {
        Farewell { place: self.place.clone(), id: self.id }
    }
}

/// Notes that a node has left a fleet.
#[derive(Clone, Debug)]
pub struct Farewell {
    pub(super) place: Place,
    pub(super) id: NodeId,
}

impl Farewell {
    /// From now on nobody waits for this node any more, so a process that starts from its snapshot must ask the store before
    /// it decides by it. Where the snapshot is that of another node there is none of this one. Blocks.
    ///
    /// # Errors
    /// When that cannot be noted: then the node has to stay among those that are waited for.
    pub fn note(&self) -> io::Result<()> {
        match known_id(&self.place) {
            Some(owner) if owner != self.id => Ok(()),
            Some(_) | None => write_whole(&self.place, self.place.left(), ""),
        }
    }
}

/// The node that a directory belongs to, if that was ever kept.
fn known_id(place: &Place) -> Option<NodeId> {
    fs::read_to_string(place.node()).ok()?.trim_end().parse().ok()
}

/// From now on the directory belongs to this node.
pub(super) fn keep_id(place: &Place, id: NodeId) {
    if let Err(error) = write_whole(place, place.node(), &format!("{id}\n")) {
        tracing::debug!(%error, "the id of this node cannot be kept");
    }
}

/// Writes a small file; returns once it is on the disk. Where there is no directory there is nothing to note.
fn write_whole(place: &Place, path: PathBuf, text: &str) -> io::Result<()> {
    if !place.path().is_dir() {
        return Ok(());
    }
    let mut file = open_own(OpenOptions::new().write(true).create(true).truncate(true), &path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    place.sync()
}
