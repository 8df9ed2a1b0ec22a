//! The one table.

/// What stands in a [`Table`].
pub trait Entry: Copy {
    /// 32 evenly spread bits that lead to it, always the same ones. Nobody outside may know what has which.
    fn bits(&self) -> u32;
}

/// Entries in groups of `N`. Several may have the same bits, and even be equal.
///
/// An entry stands in the group that its bits lead to, or in the first behind it that was not full.
#[derive(Debug)]
pub struct Table<E, const N: usize> {
    /// None, or so many that three of eight places are free.
    groups: Vec<Group<E, N>>,
    len: usize,
}

/// The free places are the last ones.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Group<E, const N: usize>([Option<E>; N]);

/// An entry's place: which group, and where in it.
#[derive(Clone, Copy)]
struct Place {
    group: usize,
    at: usize,
}

impl<E, const N: usize> Default for Table<E, N> {
    fn default() -> Self {
        Self { groups: Vec::new(), len: 0 }
    }
}

impl<E: Entry, const N: usize> Table<E, N> {
    /// One that takes so many entries without growing.
    pub fn with_room(entries: usize) -> Self {
        let groups = match entries {
            0 => 0,
            // Fuller, and one looks at more groups for an entry that is not there.
            _ => (entries * 8).div_ceil(N * 5),
        };
        Self { groups: vec![Group::FREE; groups], len: 0 }
    }

    /// How many entries there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many entries there may be before it grows.
    pub const fn room(&self) -> usize {
        self.groups.len() * N * 5 / 8
    }

    /// The first entry with these bits that is the one looked for. Others may be asked about, too.
    pub fn find(&self, bits: u32, is_it: impl FnMut(&E) -> bool) -> Option<&E> {
        let Place { group, at } = self.place(bits, is_it)?;
        self.groups[group].0[at].as_ref()
    }

    /// The same, to be changed. Its bits must stay what they are.
    pub fn find_mut(&mut self, bits: u32, is_it: impl FnMut(&E) -> bool) -> Option<&mut E> {
        let Place { group, at } = self.place(bits, is_it)?;
        self.groups[group].0[at].as_mut()
    }

    /// Adds an entry, whatever is there.
    pub fn insert(&mut self, entry: E) {
        if self.len >= self.room() {
            self.resize((self.len + 1).max(self.len / 2 * 3));
        }
        self.push(entry);
    }

    /// Takes out the entry that [`Self::find`] would find.
    pub fn remove(&mut self, bits: u32, is_it: impl FnMut(&E) -> bool) -> Option<E> {
        let Place { group, at } = self.place(bits, is_it)?;
        self.len -= 1;
        let was_full = self.groups[group].is_full();
        let removed = self.groups[group].take(at);
        if was_full {
            self.close_gap(group);
        }
        removed
    }

    /// Keeps only what is asked for. Each is asked about once. Gives memory back where there is much more than was needed since
    /// the last time.
    pub fn retain(&mut self, mut keep: impl FnMut(&E) -> bool) {
        let before = self.len;
        // Where places become free, entries that stand behind them may no longer be found.
        let mut displaced = Vec::new();
        for group in 0..self.groups.len() {
            let mut at = 0;
            while let Some(entry) = self.groups[group].0.get(at).copied().flatten() {
                let is_kept = keep(&entry);
                if is_kept && self.home(entry.bits()) == group {
                    at += 1;
                    continue;
                }
                self.groups[group].take(at);
                self.len -= 1;
                displaced.extend(is_kept.then_some(entry));
            }
        }
        displaced.into_iter().for_each(|entry| self.push(entry));
        if before < self.room() / 8 {
            self.resize(before * 2);
        }
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &E> {
        self.groups.iter().flat_map(|group| group.0.iter().map_while(Option::as_ref))
    }

    /// Gives all of them a place among others.
    fn resize(&mut self, entries: usize) {
        let before = std::mem::replace(self, Self::with_room(entries));
        before.iter().for_each(|entry| self.push(*entry));
    }

    /// Puts an entry where it will be found. There has to be room.
    fn push(&mut self, entry: E) {
        debug_assert!(self.len < self.room(), "room was made");
        let mut group = self.home(entry.bits());
        while !self.groups[group].push(entry) {
            group = self.next(group);
        }
        self.len += 1;
    }

    fn place(&self, bits: u32, mut is_it: impl FnMut(&E) -> bool) -> Option<Place> {
        if self.is_empty() {
            return None;
        }
        let mut group = self.home(bits);
        loop {
            for (at, entry) in self.groups[group].0.iter().enumerate() {
                if is_it(entry.as_ref()?) {
                    return Some(Place { group, at });
                }
            }
            group = self.next(group);
        }
    }

    /// Fills the place that has become free in a full group, with an entry that stands behind it because there was none; then
    /// the place of that one, and so on.
    fn close_gap(&mut self, mut hole: usize) {
        let mut group = self.next(hole);
        while group != hole {
            let was_full = self.groups[group].is_full();
            let is_displaced = |entry: &E| self.distance(self.home(entry.bits()), group) >= self.distance(hole, group);
            if let Some(at) = self.groups[group].0.iter().flatten().position(is_displaced) {
                if let Some(entry) = self.groups[group].take(at) {
                    self.groups[hole].push(entry);
                }
                hole = group;
            }
            if !was_full {
                return;
            }
            group = self.next(group);
        }
    }

    /// The group that bits lead to, where there are groups.
    fn home(&self, bits: u32) -> usize {
        // The bits are a fraction of the table. That needs no power of two.
        ((u64::from(bits) * self.groups.len() as u64) >> u32::BITS) as usize
    }

    fn next(&self, group: usize) -> usize {
        if group + 1 < self.groups.len() { group + 1 } else { 0 }
    }

    /// How many groups further on `to` is.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.groups.len() - from }
    }
}

impl<E: Entry, const N: usize> Group<E, N> {
    const FREE: Self = Self([None; N]);

    fn is_full(&self) -> bool {
        self.0.last().is_some_and(Option::is_some)
    }

    /// False where there is no free place.
    fn push(&mut self, entry: E) -> bool {
        let free = self.0.iter_mut().find(|place| place.is_none());
        free.map(|place| *place = Some(entry)).is_some()
    }

    /// Takes one out; the last one takes its place.
    fn take(&mut self, at: usize) -> Option<E> {
        let last = self.0.iter().rposition(Option::is_some)?;
        self.0.swap(at, last);
        self.0[last].take()
    }
}

#[cfg(test)]
#[path = "groups_tests.rs"]
mod tests;
