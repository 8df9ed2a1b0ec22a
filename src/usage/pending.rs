//! What workers noted on its way to the store: taken together by key, and handed on in the order of the store's tables.

use std::iter::Peekable;
use std::vec::IntoIter;

use super::key_notes::KeyNote;
use super::ordered::Ordered;
use super::tally::Counted;
use super::visit::Visit;
use crate::domain::{KeyId, Timestamp};

/// Notes that are not written yet.
#[derive(Default)]
pub(super) struct Pending {
    /// When keys were used. By itself, as it is written by itself.
    uses: Ordered<KeyId, Timestamp>,
    keys: Ordered<KeyId, KeyNote>,
    /// What keys asked for besides what stands in their notes.
    counts: Ordered<Counted, u64>,
}

/// Some notes.
#[derive(Default)]
pub(super) struct Batch {
    /// A key may be there several times.
    pub(super) keys: Vec<(KeyId, KeyNote)>,
    /// What stands in none of its key's notes.
    pub(super) counts: Vec<(Counted, u64)>,
}

impl Batch {
    pub(super) const fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.counts.is_empty()
    }
}

/// How many notes found no room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Dropped {
    pub(super) notes: u64,
    pub(super) marks: u64,
}

impl Pending {
    /// Adds notes, as long as there are at most so many keys and as many counts besides. Those of the youngest keys are refused.
    pub(super) fn add(&mut self, more: Batch, most: usize) -> Dropped {
        let Batch { mut keys, mut counts } = more;
        let mut dropped = Dropped::default();
        let uses = keys.iter_mut().filter_map(|(key, note)| Some((*key, note.take_used_at()?)));
        dropped.marks += self.add_uses(uses.collect(), most);
        keys.retain(|(_, note)| note.visit.is_some() || note.counted.is_some());
        let refused = self.keys.add(keys, most, |key, known, more| {
            counts.extend(known.add(more).map(|(row, requests)| (Counted { key, row }, requests.into())));
        });
        for (_, note) in refused {
            dropped.notes += u64::from(note.visit.is_some()) + u64::from(note.counted.is_some());
        }
        dropped.notes += self.counts.add(counts, most, |_, known, more| *known += more).len() as u64;
        dropped
    }

    /// Adds uses; answers how many found no room.
    pub(super) fn add_uses(&mut self, uses: Vec<(KeyId, Timestamp)>, most: usize) -> u64 {
        self.uses.add(uses, most, |_, known, more| *known = more.max(*known)).len() as u64
    }

    /// How much of its room the fullest part takes.
    pub(super) fn len(&self) -> usize {
        self.keys.len().max(self.counts.len()).max(self.uses.len())
    }

    /// Who came with a key last.
    pub(super) fn visit(&self, key: &KeyId) -> Option<&Visit> {
        self.keys.get(key)?.visit.as_ref()
    }

    /// Takes out when keys were used.
    pub(super) fn take_uses(&mut self) -> IntoIter<(KeyId, Timestamp)> {
        std::mem::take(&mut self.uses).into_iter()
    }

    /// Takes out everything else.
    pub(super) fn take(&mut self) -> Queue {
        let (keys, counts) = (std::mem::take(&mut self.keys), std::mem::take(&mut self.counts));
        Queue { keys: keys.into_iter(), counts: counts.into_iter().peekable() }
    }
}

/// Notes that are being written, in order of their keys. A batch of keys from everywhere would write every page of a large
/// table, and the next one again.
pub(super) struct Queue {
    keys: IntoIter<(KeyId, KeyNote)>,
    counts: Peekable<IntoIter<(Counted, u64)>>,
}

impl Default for Queue {
    fn default() -> Self {
        Pending::default().take()
    }
}

impl Queue {
    /// All that is left.
    pub(super) fn rest(self) -> Batch {
        Batch { keys: self.keys.collect(), counts: self.counts.collect() }
    }

    /// The notes of the next keys, and what else those keys asked for; at most `most` keys and about as many counts.
    pub(super) fn next(&mut self, most: usize) -> Batch {
        let keys: Vec<_> = self.keys.by_ref().take(most).collect();
        let last = keys.last().map(|(key, _)| *key).filter(|_| self.keys.len() > 0);
        let is_of_them = |(counted, _): &(Counted, u64)| last.is_none_or(|last| counted.key <= last);
        let most = most - keys.iter().filter(|(_, note)| note.counted.is_some()).count().min(most / 2);
        let counts = std::iter::from_fn(|| self.counts.next_if(is_of_them)).take(most).collect();
        Batch { keys, counts }
    }
}

#[cfg(test)]
#[path = "pending_tests.rs"]
mod tests;
