//! What a request learns about a key: small, copied out, and packed into 64 bytes beside its hash.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use subtle::ConstantTimeEq;

use super::directory::{EnvIx, OwnerIx, ProfileId};
use crate::domain::{KeyHash, KeyId, KeyKind, KeyState, Timestamp};

/// A key as the decision sees it. Names stand in the [`Directory`](super::Directory) under the numbers given here.
///
/// Keys that are switched off, revoked or past their time stay in the set, so that a log can tell why they are refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeySlot {
    /// Its id.
    pub id: KeyId,
    /// Its scopes and roles.
    pub profile: ProfileId,
    /// The account it belongs to. Whether that is suspended says the directory.
    pub owner: Option<OwnerIx>,
    /// Its environment.
    pub environment: EnvIx,
    /// What it may be used for.
    pub kind: KeyKind,
    /// The reversible switch.
    pub active: bool,
    /// The final one.
    pub revoked: bool,
    /// Whether it succeeded another key by rotation: its meters go by the first of that line
    /// ([`KeySet::lineage`](super::KeySet::lineage)).
    pub succeeds: bool,
    dies_at: DiesAt,
    created_at: u32,
}

/// Seconds since 1970; 0 means never.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct DiesAt(u32);

impl KeySlot {
    /// A slot for a key that is on. Times are kept in whole seconds, rounded down, so that nothing lives longer than its
    /// record says; times after 2106 become that year.
    pub fn new(
        id: KeyId,
        profile: ProfileId,
        owner: Option<OwnerIx>,
        environment: EnvIx,
        kind: KeyKind,
        dies_at: Option<Timestamp>,
        created_at: Timestamp,
    ) -> Self {
        let dies_at = DiesAt(dies_at.map_or(0, |moment| seconds(moment).max(1)));
        let created_at = seconds(created_at);
        Self {
            id,
            profile,
            owner,
            environment,
            kind,
            active: true,
            revoked: false,
            succeeds: false,
            dies_at,
            created_at,
        }
    }

    /// A slot that is in no set, of a key that has expired, for whoever does with it what they would do with one that is.
    pub fn of_nobody() -> Self {
        let (profile, owner, environment) = (ProfileId::from_bits(0), Some(OwnerIx::FIRST), EnvIx::from_bits(0));
        let (id, long_ago) = (KeyId::from_bytes([0; 16]), Timestamp::default());
        Self::new(id, profile, owner, environment, KeyKind::Secret, Some(long_ago), long_ago)
    }

    /// Whether it is accepted at `now`, and if not, why. Its owner's suspension is not looked at.
    pub fn state(&self, now: Timestamp) -> KeyState {
        if self.revoked {
            KeyState::Revoked
        } else if self.is_past_its_time(now) {
            KeyState::Expired
        } else if self.active {
            KeyState::Active
        } else {
            KeyState::Disabled
        }
    }

    /// Whether it is refused at `now` by expiry or end of grace.
    pub fn is_past_its_time(&self, now: Timestamp) -> bool {
        self.dies_at().is_some_and(|moment| moment <= now)
    }

    /// From then on it is refused, by expiry or end of grace; up to a second before what its record says.
    pub fn dies_at(&self) -> Option<Timestamp> {
        (self.dies_at.0 != 0).then(|| Timestamp::from_unix_seconds(i64::from(self.dies_at.0)))
    }

    /// When it was made; up to a second before what its record says.
    pub fn created_at(&self) -> Timestamp {
        Timestamp::from_unix_seconds(i64::from(self.created_at))
    }
}

fn seconds(moment: Timestamp) -> u32 {
    u32::try_from(moment.unix_seconds().max(0)).unwrap_or(u32::MAX)
}

/// A hash and its slot in 64 bytes, one cache line.
///
/// The words are atomic so that they can be written in shared memory without `unsafe`; that a reader never meets a half
/// written slot is the lock's doing that [`KeyMap`](super::KeyMap) holds around every access.
#[derive(Default)]
#[repr(align(64))]
pub(super) struct StoredSlot {
    hash: [AtomicU64; 4],
    id: [AtomicU64; 2],
    /// From the lowest bit: kind 2 (0: vacant), active 1, revoked 1, environment 11, succeeds 1, profile 24,
    /// owner 24 (0: none).
    names: AtomicU64,
    /// Low half: dies at; high half: created at.
    times: AtomicU64,
}

const _: () = assert!(size_of::<StoredSlot>() == STORED_SLOT, "a slot is one cache line");

/// Bytes of a [`StoredSlot`], in memory and in files.
pub(super) const STORED_SLOT: usize = 64;

impl StoredSlot {
    /// One that holds this.
    pub(super) fn of(hash: &KeyHash, slot: &KeySlot) -> Self {
        let stored = Self::default();
        stored.write(hash, slot);
        stored
    }

    /// Its words, the least significant byte first.
    pub(super) fn to_bytes(&self) -> [u8; STORED_SLOT] {
        let words = [self.names.load(Relaxed), self.times.load(Relaxed)];
        let mut bytes = [0; STORED_SLOT];
        bytes[..32].copy_from_slice(&load_words::<4, 32>(&self.hash));
        bytes[32..48].copy_from_slice(&load_words::<2, 16>(&self.id));
        for (chunk, word) in bytes[48..].as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *chunk = word.to_le_bytes();
        }
        bytes
    }

    /// The way back.
    pub(super) fn from_bytes(bytes: &[u8; STORED_SLOT]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let word = |number: usize| AtomicU64::new(u64::from_le_bytes(words[number]));
        Self {
            hash: std::array::from_fn(word),
            id: std::array::from_fn(|number| word(4 + number)),
            names: word(6),
            times: word(7),
        }
    }

    pub(super) fn write(&self, hash: &KeyHash, slot: &KeySlot) {
        store_words(&self.hash, hash.as_bytes());
        store_words(&self.id, &slot.id.to_bytes());
        let names = kind_bits(slot.kind)
            | u64::from(slot.active) << 2
            | u64::from(slot.revoked) << 3
            | u64::from(slot.environment.number()) << 4
            | u64::from(slot.succeeds) << 15
            | u64::from(slot.profile.number()) << 16
            | u64::from(slot.owner.map_or(0, OwnerIx::number_from_one)) << 40;
        self.names.store(names, Relaxed);
        self.times.store(u64::from(slot.dies_at.0) | u64::from(slot.created_at) << 32, Relaxed);
    }

    /// Marks the slot as holding nothing.
    pub(super) fn vacate(&self) {
        self.names.store(0, Relaxed);
    }

    /// Whether it holds this hash. Takes the same time wherever they differ: all differences are gathered first, a word
    /// at a time, which costs a fifth of comparing byte by byte.
    pub(super) fn holds(&self, hash: &KeyHash) -> bool {
        let (words, _) = hash.as_bytes().as_chunks::<8>();
        let gather =
            |all, (ours, theirs): (&AtomicU64, &[u8; 8])| all | ours.load(Relaxed) ^ u64::from_le_bytes(*theirs);
        self.hash.iter().zip(words).fold(0, gather).ct_eq(&0).into()
    }

    pub(super) fn hash(&self) -> KeyHash {
        KeyHash::from_bytes(load_words(&self.hash))
    }

    /// What it holds; `None` when vacant.
    pub(super) fn read(&self) -> Option<KeySlot> {
        let names = self.names.load(Relaxed);
        let times = self.times.load(Relaxed);
        Some(KeySlot {
            kind: kind_from_bits(names)?,
            active: names & 1 << 2 != 0,
            revoked: names & 1 << 3 != 0,
            succeeds: names & 1 << 15 != 0,
            environment: EnvIx::from_bits(names >> 4),
            profile: ProfileId::from_bits(names >> 16),
            owner: OwnerIx::from_bits(names >> 40),
            id: KeyId::from_bytes(load_words(&self.id)),
            dies_at: DiesAt(low_half(times)),
            created_at: low_half(times >> 32),
        })
    }
}

fn store_words<const WORDS: usize, const BYTES: usize>(words: &[AtomicU64; WORDS], bytes: &[u8; BYTES]) {
    const { assert!(WORDS * 8 == BYTES) };
    for (word, chunk) in words.iter().zip(bytes.as_chunks::<8>().0) {
        word.store(u64::from_le_bytes(*chunk), Relaxed);
    }
}

fn load_words<const WORDS: usize, const BYTES: usize>(words: &[AtomicU64; WORDS]) -> [u8; BYTES] {
    const { assert!(WORDS * 8 == BYTES) };
    let mut bytes = [0; BYTES];
    for (word, chunk) in words.iter().zip(bytes.as_chunks_mut::<8>().0) {
        *chunk = word.load(Relaxed).to_le_bytes();
    }
    bytes
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
const fn low_half(word: u64) -> u32 {
    word as u32
}

const fn kind_bits(kind: KeyKind) -> u64 {
    match kind {
        KeyKind::Secret => 1,
        KeyKind::Publishable => 2,
        KeyKind::Management => 3,
    }
}

const fn kind_from_bits(names: u64) -> Option<KeyKind> {
    match names & 0b11 {
        1 => Some(KeyKind::Secret),
        2 => Some(KeyKind::Publishable),
        3 => Some(KeyKind::Management),
        _ => None,
    }
}

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;
