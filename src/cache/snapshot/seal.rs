//! What the files are sealed with.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The link from one piece of a file to everything before it: HMAC-SHA-256 (RFC 2104).
pub(super) type Link = [u8; 32];

/// Without a pepper the seal finds damage, but not malice.
const UNKEYED: &[u8] = b"portcullis snapshot without a pepper";

/// The keys of the accepted peppers by their names, the current one first.
#[derive(Clone, Default)]
pub struct SnapshotSeal {
    keys: Vec<(String, Hmac<Sha256>)>,
}

impl SnapshotSeal {
    /// A seal with these keys.
    pub fn new<'a>(keys: impl IntoIterator<Item = (&'a str, Zeroizing<[u8; 32]>)>) -> Self {
        let keyed = |(name, key): (&str, Zeroizing<[u8; 32]>)| {
            // Every length is a key (RFC 2104 §2).
            Hmac::<Sha256>::new_from_slice(&*key).ok().map(|state| (name.to_owned(), state))
        };
        Self { keys: keys.into_iter().filter_map(keyed).collect() }
    }

    /// What new files are sealed with.
    pub(super) fn current(&self) -> SealKey {
        self.all().next().unwrap_or_else(SealKey::unkeyed)
    }

    /// Whatever is accepted.
    pub(super) fn all(&self) -> impl Iterator<Item = SealKey> + '_ {
        let keyed =
            self.keys.iter().map(|(name, state)| SealKey { name: Some(name.clone()), state: Some(state.clone()) });
        keyed.chain(self.keys.is_empty().then(SealKey::unkeyed))
    }

    /// What a file says it is sealed with; `None` where that is not accepted. Once there is a pepper, a file that was sealed
    /// without one is not: whoever can write to the disk could have made it.
    pub(super) fn named(&self, name: Option<&str>) -> Option<SealKey> {
        self.all().find(|key| key.name() == name)
    }
}

impl fmt::Debug for SnapshotSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(name, _)| name)).finish()
    }
}

/// One key of a [`SnapshotSeal`].
#[derive(Clone)]
pub(super) struct SealKey {
    name: Option<String>,
    state: Option<Hmac<Sha256>>,
}

impl SealKey {
    fn unkeyed() -> Self {
        Self { name: None, state: Hmac::new_from_slice(UNKEYED).ok() }
    }

    /// What files call it.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Begins a seal.
    pub(super) fn begin(&self) -> Sealing {
        Sealing(self.state.clone())
    }

    /// The link behind `before` over `parts`.
    pub(super) fn link(&self, before: &Link, parts: &[&[u8]]) -> Link {
        let mut sealing = self.begin();
        sealing.cover(before);
        parts.iter().for_each(|part| sealing.cover(part));
        sealing.end()
    }
}

/// A seal on its way over a file.
pub(super) struct Sealing(Option<Hmac<Sha256>>);

impl Sealing {
    pub(super) fn cover(&mut self, bytes: &[u8]) {
        if let Some(state) = &mut self.0 {
            state.update(bytes);
        }
    }

    pub(super) fn end(self) -> Link {
        self.0.map_or([0; 32], |state| state.finalize().into_bytes().into())
    }
}
