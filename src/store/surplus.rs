//! Who goes when room runs out: those that take most of it.

use std::collections::BTreeMap;

/// How many of each kind have to go so that few enough stay. Room is shared evenly, and what a kind leaves of its share is
/// the others': many of one kind drive out none of another that is within its share.
pub struct Surplus<K>(BTreeMap<K, usize>);

impl<K: Ord> Surplus<K> {
    /// What goes of these, so that `most` stay.
    pub fn of(rows: impl IntoIterator<Item = (K, usize)>, most: usize) -> Self {
        let mut by_kind: BTreeMap<K, usize> = BTreeMap::new();
        for (kind, rows) in rows {
            *by_kind.entry(kind).or_default() += rows;
        }
        let mut few_first: Vec<&mut usize> = by_kind.values_mut().collect();
        few_first.sort_unstable();
        let (mut room, mut kinds) = (most, few_first.len());
        for rows in few_first {
            let kept = (room / kinds).min(*rows);
            room -= kept;
            kinds -= 1;
            *rows -= kept;
        }
        Self(by_kind)
    }

    /// Whether one of this kind goes; asked once for each, beginning with those that go first.
    pub fn takes(&mut self, kind: &K) -> bool {
        let left = self.0.get_mut(kind).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    }

    /// Each kind, and how many of it go.
    pub fn into_kinds(self) -> impl Iterator<Item = (K, usize)> {
        self.0.into_iter().filter(|(_, rows)| *rows > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_shared_and_what_one_leaves_is_the_others() {
        for (rows, most, gone) in [
            (vec![('a', 3), ('b', 3)], 6, vec![]),
            (vec![('a', 100), ('b', 2), ('c', 5)], 10, vec![('a', 96), ('c', 1)]),
            (vec![('a', 100), ('b', 100)], 11, vec![('a', 95), ('b', 94)]),
            (vec![('a', 4), ('b', 1), ('a', 4)], 3, vec![('a', 6)]),
            (vec![], 3, vec![]),
        ] {
            assert_eq!(Surplus::of(rows, most).into_kinds().collect::<Vec<_>>(), gone);
        }
        let mut surplus = Surplus::of([('a', 3), ('b', 1)], 2);
        assert_eq!(['a', 'b', 'a', 'a'].map(|kind| surplus.takes(&kind)), [true, false, true, false]);
    }
}
