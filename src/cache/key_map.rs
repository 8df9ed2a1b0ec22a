//! The keys by hash. No method returns a guard or clones a reference count.
//!
//! Tables lead from bits of the hash to the number of a slot; slots lie side by side in chunks that never move. So a request
//! hardly ever waits for memory more than twice, once for each. That takes 77 to 83 bytes a key: places in the tables are small,
//! and so the empty ones are.

use std::hash::BuildHasher;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::ops::ControlFlow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};

use super::directory::Full;
use super::slot::{KeySlot, StoredSlot};
use crate::domain::{KeyHash, KeyId};
use crate::table::{Entry, Table};

/// Parts of the map with a lock of their own, so that readers on different threads seldom meet.
const PARTS: usize = 128;
/// Slots in a chunk: 256 KiB.
const CHUNK: usize = 4_096;
/// Most chunks, and so 16.7 million keys.
const MAX_CHUNKS: usize = 4_096;
/// Chunks that are visited at a stretch: some 0.2 ms.
const STRETCH: usize = 4;
const FULL: Full = Full { what: "keys", most: CHUNK * MAX_CHUNKS };

const _: () = assert!(PARTS.is_power_of_two() && PARTS < 256, "a byte says which");

/// What leads to slots, on cache lines of its own, so that readers of two of them do not slow each other down.
#[repr(align(128))]
struct Part(RwLock<Table<Lead, LEADS>>);

/// Places that are looked at together: a cache line.
const LEADS: usize = 8;

const _: () = assert!(size_of::<Option<Lead>>() * LEADS == 64);

/// The way to a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Lead {
    /// Of its key's hash: of the few places that are looked at, hardly ever two have the same.
    tag: u32,
    number: SlotNumber,
}

/// From one, so that a free place takes no room of its own.
type SlotNumber = NonZeroU32;

impl Entry for Lead {
    fn bits(&self) -> u32 {
        self.tag
    }
}

/// Every key of the store by its hash.
pub struct KeyMap {
    mixer: Mixer,
    /// Slots are read and written under the lock of the part that leads to them.
    parts: Box<[Part]>,
    slots: Slots,
    /// Under a hash that is no key's.
    of_nobody: StoredSlot,
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
        let mean = keys.div_ceil(PARTS);
        // Keys do not spread evenly. The fullest of 128 parts hardly ever gets more than this; then it grows.
        let most = if keys == 0 { 0 } else { mean + 4 * mean.isqrt() };
        Self {
            mixer,
            parts: (0..PARTS).map(|_| Part(RwLock::new(Table::with_room(most)))).collect(),
            slots: Slots::default(),
            of_nobody: StoredSlot::of(&KeyHash::from_bytes([0; 32]), &KeySlot::of_nobody()),
            lineages: DashMap::new(),
            ends_on_use: DashMap::new(),
            len: AtomicUsize::new(0),
        }
    }

    /// The key with this hash, whatever its state. Waits for nothing but a writer in the same part, who copies one slot, or
    /// now and then gives the part more room; the hash is confirmed whole, in constant time.
    pub fn get(&self, hash: &KeyHash) -> Option<KeySlot> {
        let mark = self.mixer.mark(hash);
        let part = self.parts[usize::from(mark.part)].0.read();
        let found = self.found(&part, mark, hash).and_then(|(_, stored)| stored.read());
        drop(part);
        if found.is_none() {
            // To compare a slot and to read it takes a moment, which shall not tell that there was one.
            let _no_slot = black_box((self.of_nobody.holds(hash), self.of_nobody.read()));
        }
        found
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
        let mark = self.mixer.mark(hash);
        let part = &self.parts[usize::from(mark.part)].0;
        let known = part.write();
        if let Some((_, stored)) = self.found(&known, mark, hash) {
            let old = stored.read();
            stored.write(hash, &slot);
            return Ok(old);
        }
        // Only this writer could add the key meanwhile. Nobody can be led to the slot before its number is in the table.
        drop(known);
        let number = self.slots.write_new(hash, &slot)?;
        part.write().insert(Lead { tag: mark.tag, number });
        self.len.fetch_add(1, Ordering::Relaxed);
        Ok(None)
    }

    /// Adds about so many keys to a map that nobody reads yet and none was taken out of, faster than one by one: they are found
    /// in it once that is finished.
    pub(super) fn fill(&self, keys: usize) -> Filling<'_> {
        Filling { map: self, placed: Vec::with_capacity(keys) }
    }

    /// Takes a key out, unless the hash leads to another key by now.
    pub(super) fn remove(&self, hash: &KeyHash, id: KeyId) -> bool {
        let is_it = |slot: &KeySlot| slot.id == id;
        // One that was not revoked is known under another hash by now: its secret was replaced.
        if self.get(hash).filter(is_it).is_some_and(|slot| slot.revoked) {
            self.lineages.remove(&id);
            self.ends_on_use.remove(&id);
        }
        let mark = self.mixer.mark(hash);
        let mut part = self.parts[usize::from(mark.part)].0.write();
        let found = self.found(&part, mark, hash).filter(|(_, stored)| stored.read().as_ref().is_some_and(is_it));
        let Some((lead, _)) = found else { return false };
        part.remove(mark.tag, |other| *other == lead);
        self.slots.give_back(lead.number);
        self.len.fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// Visits every key, at memory speed. Exact for the one writer; beside a writer, a key that is being changed may be
    /// seen half changed, which is good enough for counting.
    pub(super) fn for_each(&self, mut visit: impl FnMut(&KeyHash, &KeySlot)) {
        for stored in self.slots.chunks().flatten() {
            if let Some(slot) = stored.read() {
                visit(&stored.hash(), &slot);
            }
        }
    }

    /// Visits keys as [`Self::for_each`] does until `visit` breaks, and gives way to other threads every [`STRETCH`] chunks.
    /// Nice as it is, a thread that computes may keep its processor until the scheduler's next tick, some milliseconds, from a
    /// worker that has become ready. Where workers want all of the processor, each giving way costs some milliseconds: for
    /// those who may take their time, on threads where nothing urgent waits for them.
    pub(super) fn for_each_giving_way<B>(
        &self,
        mut visit: impl FnMut(&KeyHash, &KeySlot) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        for (number, chunk) in self.slots.chunks().enumerate() {
            for stored in chunk {
                if let Some(slot) = stored.read() {
                    visit(&stored.hash(), &slot)?;
                }
            }
            if number % STRETCH == STRETCH - 1 {
                std::thread::yield_now();
            }
        }
        ControlFlow::Continue(())
    }

    /// The slot of the key with this hash, and what leads to it.
    fn found(&self, part: &Table<Lead, LEADS>, mark: Mark, hash: &KeyHash) -> Option<(Lead, &StoredSlot)> {
        let stored = |lead: &Lead| self.slots.at(lead.number).filter(|stored| stored.holds(hash));
        let lead = part.find(mark.tag, |lead| lead.tag == mark.tag && stored(lead).is_some())?;
        Some((*lead, self.slots.at(lead.number)?))
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
    placed: Vec<(Mark, SlotNumber)>,
}

impl Filling<'_> {
    /// Gives a key its place.
    pub(super) fn put(&mut self, hash: &KeyHash, slot: &KeySlot) -> Result<(), Full> {
        let number = self.map.slots.write_new(hash, slot)?;
        self.placed.push((self.map.mixer.mark(hash), number));
        Ok(())
    }

    /// Leads to all of them, in the order of the tables: side by side in memory, not here and there.
    pub(super) fn finish(self) -> Result<(), Full> {
        let Self { map, mut placed } = self;
        placed.sort_unstable_by_key(|(mark, number)| (mark.part, mark.tag, *number));
        for (mark, number) in placed {
            let Some(stored) = map.slots.at(number) else { continue };
            let mut part = map.parts[usize::from(mark.part)].0.write();
            // Another key has the same tag once in hundreds of thousands of times: only then slots are looked at.
            let is_taken = part.find(mark.tag, |lead| lead.tag == mark.tag).is_some();
            let known = is_taken.then(|| stored.hash()).and_then(|hash| map.found(&part, mark, &hash));
            match known {
                None => {
                    part.insert(Lead { tag: mark.tag, number });
                    map.len.fetch_add(1, Ordering::Relaxed);
                }
                // The same key once more.
                Some((_, known)) => {
                    if let Some(slot) = stored.read() {
                        known.write(&stored.hash(), &slot);
                    }
                    map.slots.give_back(number);
                }
            }
        }
        Ok(())
    }
}

/// Where a hash stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    part: u8,
    /// Which of those of its part it may be.
    tag: u32,
}

/// Makes marks with a secret of this process: what fills one part, or has the same tag, cannot be searched for outside.
struct Mixer {
    seeds: [u64; 4],
    #[cfg(test)]
    mask: u64,
}

impl Mixer {
    fn seeded() -> Self {
        let random = std::collections::hash_map::RandomState::new();
        Self {
            seeds: [1, 2, 3, 4].map(|number| random.hash_one(number)),
            #[cfg(test)]
            mask: u64::MAX,
        }
    }

    fn mark(&self, hash: &KeyHash) -> Mark {
        let (words, _) = hash.as_bytes().as_chunks::<8>();
        let word = |i: usize| u64::from_le_bytes(words[i]) ^ self.seeds[i];
        let folded = |wide: u128| wide as u64 ^ (wide >> 64) as u64;
        let product = |i: usize| folded(u128::from(word(i)) * u128::from(word(i + 1)));
        // All of the hash: what is imported may be no hash at all, and alike for the most part.
        let mixed = product(0) ^ product(2).rotate_left(32);
        #[cfg(test)]
        let mixed = mixed & self.mask;
        Mark { part: (mixed >> 32) as u8 % PARTS as u8, tag: mixed as u32 }
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
    /// How many numbers were ever given out.
    given_out: u32,
    given_back: Vec<SlotNumber>,
}

impl Default for Slots {
    fn default() -> Self {
        Self { chunks: (0..MAX_CHUNKS).map(|_| OnceLock::new()).collect(), spare: Mutex::default() }
    }
}

impl Slots {
    fn at(&self, number: SlotNumber) -> Option<&StoredSlot> {
        let index = number.get() as usize - 1;
        self.chunks.get(index / CHUNK)?.get()?.get(index % CHUNK)
    }

    fn write_new(&self, hash: &KeyHash, slot: &KeySlot) -> Result<SlotNumber, Full> {
        let mut spare = self.spare.lock();
        let number = match spare.given_back.pop() {
            Some(number) => number,
            None => {
                let chunk = self.chunks.get(spare.given_out as usize / CHUNK).ok_or(FULL)?;
                chunk.get_or_init(|| (0..CHUNK).map(|_| StoredSlot::default()).collect());
                spare.given_out += 1;
                SlotNumber::new(spare.given_out).ok_or(FULL)?
            }
        };
        self.at(number).ok_or(FULL)?.write(hash, slot);
        Ok(number)
    }

    fn give_back(&self, number: SlotNumber) {
        if let Some(slot) = self.at(number) {
            slot.vacate();
            self.spare.lock().given_back.push(number);
        }
    }

    fn chunks(&self) -> impl Iterator<Item = &[StoredSlot]> {
        self.chunks.iter().map_while(OnceLock::get).map(AsRef::as_ref)
    }
}

#[cfg(test)]
#[path = "key_map_tests.rs"]
mod tests;
