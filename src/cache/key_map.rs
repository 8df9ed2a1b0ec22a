//! The keys by hash. No method returns a guard or clones a reference count.
//!
//! A concurrent map leads from a fingerprint of the hash to the number of a slot; slots lie side by side in chunks that
//! never move. With a million keys that takes 92 bytes a key, where slots inside the map take 142 at the same speed: a
//! table of a power of two is half empty right after it has grown, and empty places are better small.

use std::hash::{BuildHasher, Hash, Hasher};
use std::hint::black_box;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};

use super::directory::Full;
use super::slot::{KeySlot, StoredSlot};
use crate::domain::{KeyHash, KeyId};

/// Parts of the map with a lock of their own, so that readers on different threads seldom meet.
const SHARDS: usize = 128;
/// Slots in a chunk: 256 KiB.
const CHUNK: usize = 4_096;
/// Most chunks, and so 16.7 million keys.
const MAX_CHUNKS: usize = 4_096;

/// Every key of the store by its hash.
pub struct KeyMap {
    mixer: Mixer,
    /// Fingerprint to slot number. Slots are read and written under the lock of the shard that leads to them.
    index: DashMap<Fingerprint, u32, AsItIs>,
    slots: Slots,
    /// Under a hash that is no key's.
    of_nobody: StoredSlot,
    /// Keys whose fingerprint was taken by another key's when they came. Practically always empty.
    collided: RwLock<HashMap<KeyHash, KeySlot>>,
    any_collided: AtomicBool,
    /// Of each key that succeeded another: the first of its line of rotations.
    lineages: DashMap<KeyId, KeyId>,
    /// Of each key whose first use ends the grace of another: that one.
    ends_on_use: DashMap<KeyId, KeyId>,
    len: AtomicUsize,
}

impl KeyMap {
    /// An empty map with room for `keys` without growing.
    pub fn with_capacity(keys: usize) -> Self {
        Self::with_mixer(keys, Mixer::seeded())
    }

    fn with_mixer(keys: usize, mixer: Mixer) -> Self {
        Self {
            mixer,
            index: DashMap::with_capacity_and_hasher_and_shard_amount(keys, AsItIs, SHARDS),
            slots: Slots::default(),
            of_nobody: StoredSlot::of(&KeyHash::from_bytes([0; 32]), &KeySlot::of_nobody()),
            collided: RwLock::default(),
            any_collided: AtomicBool::new(false),
            lineages: DashMap::new(),
            ends_on_use: DashMap::new(),
            len: AtomicUsize::new(0),
        }
    }

    /// The key with this hash, whatever its state. Waits for nothing but a writer copying one slot of the same shard;
    /// the hash is confirmed whole, in constant time.
    pub fn get(&self, hash: &KeyHash) -> Option<KeySlot> {
        let fingerprint = self.mixer.fingerprint(hash);
        let found = self.index.view(&fingerprint, |_, number| {
            let slot = self.slots.at(*number)?;
            if slot.holds(hash) { slot.read() } else { None }
        });
        if found.is_none() {
            // To compare a slot and to read it takes a moment, which shall not tell that there was one.
            let _no_slot = black_box((self.of_nobody.holds(hash), self.of_nobody.read()));
        }
        found.flatten().or_else(|| self.get_collided(hash))
    }

    /// The first of a key's line of rotations; `None` when it succeeded none.
    pub fn lineage(&self, id: KeyId) -> Option<KeyId> {
        self.lineages.get(&id).map(|first| *first)
    }

    /// Keys that succeeded another, and the first of the line of each.
    pub(super) fn lineages(&self) -> Vec<(KeyId, KeyId)> {
        self.lineages.iter().map(|entry| (*entry.key(), *entry.value())).collect()
    }

    /// Keys whose first use ends the grace of another, and that other.
    pub(super) fn ends_on_use(&self) -> Vec<(KeyId, KeyId)> {
        self.ends_on_use.iter().map(|entry| (*entry.key(), *entry.value())).collect()
    }

    /// The grace that the first use of this key ends has ended.
    pub(super) fn note_ended(&self, id: KeyId) {
        self.ends_on_use.remove(&id);
    }

    /// Notes where a key comes from, before it is visible.
    pub(super) fn note_line(&self, id: KeyId, lineage: KeyId, ends_on_use: Option<KeyId>) {
        if lineage != id {
            self.lineages.insert(id, lineage);
        }
        if let Some(predecessor) = ends_on_use {
            self.ends_on_use.insert(id, predecessor);
        }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a key or replaces what was known under its hash, which is returned.
    pub(super) fn insert(&self, hash: &KeyHash, slot: KeySlot) -> Result<Option<KeySlot>, Full> {
        if self.get_collided(hash).is_some() {
            return Ok(self.collided.write().insert(*hash, slot));
        }
        match self.index.entry(self.mixer.fingerprint(hash)) {
            Entry::Occupied(taken) => match self.slots.at(*taken.get()) {
                Some(stored) if stored.holds(hash) => {
                    let old = stored.read();
                    stored.write(hash, &slot);
                    return Ok(old);
                }
                _ => {}
            },
            Entry::Vacant(vacant) => {
                // Nobody can be led to the slot before its number is in the map.
                let number = self.slots.write_new(hash, &slot)?;
                vacant.insert(number);
                self.len.fetch_add(1, Ordering::Relaxed);
                return Ok(None);
            }
        }
        self.collided.write().insert(*hash, slot);
        self.any_collided.store(true, Ordering::Release);
        self.len.fetch_add(1, Ordering::Relaxed);
        Ok(None)
    }

    /// Adds many keys to a map that nobody reads yet, three times as fast as one by one: they are found in it once that is
    /// finished.
    pub(super) fn fill(&self) -> Filling<'_> {
        Filling { map: self, placed: Vec::new() }
    }

    /// Takes a key out, unless the hash leads to another key by now.
    pub(super) fn remove(&self, hash: &KeyHash, id: KeyId) -> bool {
        let is_it = |slot: &KeySlot| slot.id == id;
        // One that was not revoked is known under another hash by now: its secret was replaced.
        if self.get(hash).filter(is_it).is_some_and(|slot| slot.revoked) {
            self.lineages.remove(&id);
            self.ends_on_use.remove(&id);
        }
        let collided = self.get_collided(hash).filter(is_it).and_then(|_| self.collided.write().remove(hash));
        let found = collided.is_some()
            || self
                .index
                .remove_if(&self.mixer.fingerprint(hash), |_, number| {
                    self.slots
                        .at(*number)
                        .is_some_and(|stored| stored.holds(hash) && stored.read().as_ref().is_some_and(is_it))
                })
                .map(|(_, number)| self.slots.give_back(number))
                .is_some();
        if found {
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
        found
    }

    /// Visits every key, at memory speed. Exact for the one writer; beside a writer, a key that is being changed may be
    /// seen half changed, which is good enough for counting.
    pub(super) fn for_each(&self, mut visit: impl FnMut(&KeyHash, &KeySlot)) {
        self.slots.for_each(&mut visit);
        for (hash, slot) in self.collided.read().iter() {
            visit(hash, slot);
        }
    }

    fn get_collided(&self, hash: &KeyHash) -> Option<KeySlot> {
        if !self.any_collided.load(Ordering::Acquire) {
            return None;
        }
        self.collided.read().get(hash).copied()
    }
}

impl std::fmt::Debug for KeyMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyMap").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Keys that have their places, and are not led to yet: see [`KeyMap::fill`].
pub(super) struct Filling<'a> {
    map: &'a KeyMap,
    placed: Vec<(Fingerprint, u32)>,
}

impl Filling<'_> {
    /// Gives a key its place.
    pub(super) fn put(&mut self, hash: &KeyHash, slot: &KeySlot) -> Result<(), Full> {
        let number = self.map.slots.write_new(hash, slot)?;
        self.placed.push((self.map.mixer.fingerprint(hash), number));
        Ok(())
    }

    /// Leads to all of them. One shard after the other, as a shard fits into the cache of a processor and the map does not.
    pub(super) fn finish(mut self) -> Result<(), Full> {
        let index = &self.map.index;
        // The map takes its shards from behind the first seven bits. Were it otherwise, this would be slower and as right.
        self.placed.sort_unstable_by_key(|(fingerprint, number)| (index.hash_usize(fingerprint) << 7, *number));
        for (fingerprint, number) in self.placed {
            match index.entry(fingerprint) {
                Entry::Vacant(vacant) => {
                    vacant.insert(number);
                    self.map.len.fetch_add(1, Ordering::Relaxed);
                }
                // Another key's, or the same key's once more.
                Entry::Occupied(taken) => {
                    drop(taken);
                    let Some(stored) = self.map.slots.at(number) else { continue };
                    let again = stored.read().map(|slot| (stored.hash(), slot));
                    self.map.slots.give_back(number);
                    if let Some((hash, slot)) = again {
                        self.map.insert(&hash, slot)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// 64 bits that stand for a hash in the map. In two halves, so that an entry takes 12 bytes and not 16.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Fingerprint([u32; 2]);

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.0[0]) << 32 | u64::from(self.0[1]));
    }
}

/// Makes fingerprints with a secret of this process: what fills one shard, or collides, cannot be searched for outside.
struct Mixer {
    seeds: [u64; 2],
    #[cfg(test)]
    mask: u64,
}

impl Mixer {
    fn seeded() -> Self {
        let random = std::collections::hash_map::RandomState::new();
        Self {
            seeds: [random.hash_one(1), random.hash_one(2)],
            #[cfg(test)]
            mask: u64::MAX,
        }
    }

    fn fingerprint(&self, hash: &KeyHash) -> Fingerprint {
        let (words, _) = hash.as_bytes().as_chunks::<8>();
        let word = |i: usize| u64::from_le_bytes(words[i]) ^ self.seeds[i];
        let wide = u128::from(word(0)) * u128::from(word(1));
        let [low, high] = [wide as u64, (wide >> 64) as u64];
        let mixed = low ^ high;
        #[cfg(test)]
        let mixed = mixed & self.mask;
        Fingerprint([(mixed >> 32) as u32, mixed as u32])
    }
}

/// Fingerprints are mixed already.
#[derive(Clone, Copy)]
struct AsItIs;

impl BuildHasher for AsItIs {
    type Hasher = Taken;

    fn build_hasher(&self) -> Taken {
        Taken(0)
    }
}

struct Taken(u64);

impl Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
}

/// Slots by number, in chunks that never move.
struct Slots {
    chunks: Box<[OnceLock<Box<[StoredSlot]>>]>,
    spare: Mutex<Spare>,
}

/// Numbers to give out.
#[derive(Default)]
struct Spare {
    next: u32,
    given_back: Vec<u32>,
}

impl Default for Slots {
    fn default() -> Self {
        Self { chunks: (0..MAX_CHUNKS).map(|_| OnceLock::new()).collect(), spare: Mutex::default() }
    }
}

impl Slots {
    fn at(&self, number: u32) -> Option<&StoredSlot> {
        let number = number as usize;
        self.chunks.get(number / CHUNK)?.get()?.get(number % CHUNK)
    }

    fn write_new(&self, hash: &KeyHash, slot: &KeySlot) -> Result<u32, Full> {
        let full = Full { what: "keys", most: CHUNK * MAX_CHUNKS };
        let mut spare = self.spare.lock();
        let number = match spare.given_back.pop() {
            Some(number) => number,
            None => {
                let number = spare.next;
                let chunk = self.chunks.get(number as usize / CHUNK).ok_or(full)?;
                chunk.get_or_init(|| (0..CHUNK).map(|_| StoredSlot::default()).collect());
                spare.next += 1;
                number
            }
        };
        self.at(number).ok_or(full)?.write(hash, slot);
        Ok(number)
    }

    fn give_back(&self, number: u32) {
        if let Some(slot) = self.at(number) {
            slot.vacate();
            self.spare.lock().given_back.push(number);
        }
    }

    fn for_each(&self, visit: &mut impl FnMut(&KeyHash, &KeySlot)) {
        for stored in self.chunks.iter().map_while(OnceLock::get).flat_map(|chunk| chunk.iter()) {
            if let Some(slot) = stored.read() {
                visit(&stored.hash(), &slot);
            }
        }
    }
}

#[cfg(test)]
#[path = "key_map_tests.rs"]
mod tests;
