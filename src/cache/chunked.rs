//! A table that only grows, cheap to copy: what is published is a copy that later writes do not touch.

use std::sync::Arc;

/// Entries that are copied at most when one is written after a copy was taken.
const CHUNK: usize = 1_024;

/// Numbered entries in chunks that copies share.
///
/// Copying costs one reference count for each 1024 entries; appending and replacing cost O(1), or a copy of one chunk
/// when the chunk is shared. Reading costs two bounds checks.
#[derive(Clone, Debug)]
pub struct ChunkedTable<T> {
    chunks: Vec<Arc<Vec<T>>>,
}

impl<T> Default for ChunkedTable<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<T> ChunkedTable<T> {
    /// The entry with this number.
    pub fn get(&self, number: usize) -> Option<&T> {
        self.chunks.get(number / CHUNK)?.get(number % CHUNK)
    }

    /// How many entries there are; also the number of the next one.
    pub fn len(&self) -> usize {
        match self.chunks.split_last() {
            None => 0,
            Some((last, full)) => full.len() * CHUNK + last.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// All entries in order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// All entries from `first` on, in order. What was appended since a table had `first` entries.
    pub fn iter_from(&self, first: usize) -> impl Iterator<Item = &T> {
        let chunks = self.chunks.get(first / CHUNK..).unwrap_or_default();
        chunks.iter().flat_map(|chunk| chunk.iter()).skip(first % CHUNK)
    }
}

impl<T: Clone> ChunkedTable<T> {
    /// Appends an entry and returns its number.
    pub fn push(&mut self, entry: T) -> usize {
        let number = self.len();
        match self.chunks.last_mut().filter(|chunk| chunk.len() < CHUNK) {
            Some(chunk) => Arc::make_mut(chunk).push(entry),
            None => self.chunks.push(Arc::new(vec![entry])),
        }
        number
    }

    /// Changes the entry with this number; nothing happens when there is none.
    pub(super) fn update(&mut self, number: usize, change: impl FnOnce(&mut T)) {
        if let Some(entry) =
            self.chunks.get_mut(number / CHUNK).and_then(|chunk| Arc::make_mut(chunk).get_mut(number % CHUNK))
        {
            change(entry);
        }
    }
}

#[cfg(test)]
#[path = "chunked_tests.rs"]
mod tests;
