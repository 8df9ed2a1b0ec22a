//! What a worker notes of each key in use. One table, one note for each key: with many keys in use every place that a
//! request has to look at is in no cache, and waiting for it is most of what noting costs.

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};

use super::tally::Row;
use super::visit::{Agent, Visit, Visitor};
use crate::domain::{KeyId, Timestamp};

/// Who comes with a key that nobody has. What is noted of it is thrown away.
pub(super) const NOBODY: KeyId = KeyId::from_bytes([0; 16]);

/// So many notes take less than a megabyte: they stay in the cache that a core has to itself.
const FEW: usize = 4_096;

/// The notes of many keys.
#[derive(Default)]
pub(super) struct KeyNotes {
    by_key: HashMap<KeyId, KeyNote>,
    agents: HashSet<Agent>,
    /// Those of nobody, so that strangers do not take the room of the others.
    agents_of_nobody: HashSet<Agent>,
}

/// What is noted of one key.
#[derive(Default)]
pub(super) struct KeyNote {
    /// Who came with it, and from where. None where it was used at the management API alone, or where only a count came
    /// since notes were last taken.
    pub(super) visit: Option<Visit>,
    /// The beginning of time where it was not accepted.
    used_at: Timestamp,
    /// Requests of the first kind that was counted. Those of others stand in a table of their own.
    pub(super) counted: Option<(Row, u32)>,
}

const _: () = assert!(size_of::<(KeyId, KeyNote)>() <= 96, "a note of each key in use");

impl KeyNotes {
    pub(super) fn with_capacity(keys: usize) -> Self {
        Self { by_key: HashMap::with_capacity(keys), ..Self::default() }
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Makes a note of each of these keys while there is room, and fetches those that are there. Where there are few keys, their
    /// notes are near.
    pub(super) fn reach(&mut self, keys: impl Iterator<Item = KeyId>, most: usize) {
        if self.by_key.len() >= FEW {
            keys.for_each(|key| {
                note_of(&mut self.by_key, key, most);
            });
        }
    }

    /// Notes who came with a key; false where there is no room for another of `most` keys.
    pub(super) fn visit(&mut self, visitor: &Visitor<'_>, most: usize) -> bool {
        let Self { by_key, agents, agents_of_nobody } = self;
        let agents = if visitor.key == NOBODY { agents_of_nobody } else { agents };
        note_of(by_key, visitor.key, most).map(|note| note.visit(visitor, agents)).is_some()
    }

    /// Notes that a key was accepted; false where there is no room for another of `most` keys.
    pub(super) fn mark(&mut self, key: KeyId, at: Timestamp, most: usize) -> bool {
        note_of(&mut self.by_key, key, most).map(|note| note.use_at(at)).is_some()
    }

    /// Counts requests of one kind; false where the key has counted another or four billion of it, and
    /// where there is no room.
    pub(super) fn count(&mut self, key: KeyId, row: Row, requests: u32, most: usize) -> bool {
        note_of(&mut self.by_key, key, most).is_some_and(|note| note.count(row, requests))
    }

    /// Whether a key was accepted.
    pub(super) fn was_used(&self, key: &KeyId) -> bool {
        self.by_key.get(key).is_some_and(|note| note.used_at().is_some())
    }

    /// Forgets what is noted of nobody.
    pub(super) fn forget_nobody(&mut self) {
        self.by_key.remove(&NOBODY);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&KeyId, &KeyNote)> + Clone {
        self.by_key.iter()
    }
}

impl IntoIterator for KeyNotes {
    type Item = (KeyId, KeyNote);
    type IntoIter = hashbrown::hash_map::IntoIter<KeyId, KeyNote>;

    fn into_iter(self) -> Self::IntoIter {
        self.by_key.into_iter()
    }
}

fn note_of(by_key: &mut HashMap<KeyId, KeyNote>, key: KeyId, most: usize) -> Option<&mut KeyNote> {
    let is_full = by_key.len() >= most;
    match by_key.entry(key) {
        Entry::Occupied(known) => Some(known.into_mut()),
        Entry::Vacant(_) if is_full => None,
        Entry::Vacant(free) => Some(free.insert(KeyNote::default())),
    }
}

impl KeyNote {
    /// When it was accepted last.
    pub(super) fn used_at(&self) -> Option<Timestamp> {
        (self.used_at > Timestamp::default()).then_some(self.used_at)
    }

    /// The same, to be kept elsewhere from now on.
    pub(super) fn take_used_at(&mut self) -> Option<Timestamp> {
        let used_at = self.used_at();
        self.used_at = Timestamp::default();
        used_at
    }

    /// Adds what another worker noted, or the same one later. Answers a count that finds no place here.
    pub(super) fn add(&mut self, other: Self) -> Option<(Row, u32)> {
        let Self { visit, used_at, counted } = other;
        match (&mut self.visit, visit) {
            (Some(known), Some(visit)) => known.add(visit),
            (known @ None, visit) => *known = visit,
            (Some(_), None) => {}
        }
        self.use_at(used_at);
        counted.filter(|(row, requests)| !self.count(*row, *requests))
    }

    fn use_at(&mut self, at: Timestamp) {
        self.used_at = self.used_at.max(at);
    }

    fn visit(&mut self, visitor: &Visitor<'_>, agents: &mut HashSet<Agent>) {
        match &mut self.visit {
            Some(visit) => visit.note(visitor, agents),
            None => self.visit = Some(Visit::first(visitor, agents)),
        }
        if visitor.is_accepted {
            self.use_at(visitor.at);
        }
    }

    fn count(&mut self, row: Row, requests: u32) -> bool {
        match &mut self.counted {
            Some((known, count)) if *known == row => match count.checked_add(requests) {
                Some(sum) => *count = sum,
                None => return false,
            },
            // What is not counted, but seen, leaves the place to what is.
            None if requests > 0 => self.counted = Some((row, requests)),
            Some(_) | None => return false,
        }
        true
    }
}

#[cfg(test)]
#[path = "key_notes_tests.rs"]
mod tests;
