//! Notes of many keys in order of the keys: a table of the store lies in that order too, so neighbours are written together.
//!
//! What is added goes through them once, from one end to the other. A hash table of a million keys would be waited for at each.

/// Pairs in order of their names, each name once.
#[derive(Debug)]
pub(super) struct Ordered<K, V>(Vec<(K, V)>);

impl<K, V> Default for Ordered<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord + Copy, V: Default> Ordered<K, V> {
    /// Adds pairs, in any order. Where a name is there already, `join` has what is known of it and what comes. Answers those
    /// for which there is no room, as there are to be at most `most`.
    pub(super) fn add(
        &mut self,
        mut more: Vec<(K, V)>,
        most: usize,
        mut join: impl FnMut(K, &mut V, V),
    ) -> Vec<(K, V)> {
        if more.is_empty() {
            return more;
        }
        more.sort_unstable_by_key(|(name, _)| *name);
        more.dedup_by(|(name, value), (before, known)| {
            let is_same = name == before;
            if is_same {
                join(*name, known, std::mem::take(value));
            }
            is_same
        });
        let mut at = 0;
        more.retain_mut(|(name, value)| {
            at += first_from(&self.0[at..], name);
            match self.0.get_mut(at) {
                Some((known, kept)) if known == name => join(*name, kept, std::mem::take(value)),
                Some(_) | None => return true,
            }
            false
        });
        let refused = more.split_off(most.saturating_sub(self.0.len()).min(more.len()));
        self.insert(more);
        refused
    }

    /// Takes in pairs that are in order, and of which none is there: from the end, so that each is moved once.
    fn insert(&mut self, mut more: Vec<(K, V)>) {
        if self.0.is_empty() {
            self.0 = more;
            return;
        }
        let Some((filler, _)) = more.first() else { return };
        let filler = *filler;
        let mut from = self.0.len();
        let mut to = from + more.len();
        self.0.reserve_exact(more.len());
        self.0.resize_with(to, || (filler, V::default()));
        while let Some(pair) = more.pop() {
            while from > 0 && self.0[from - 1].0 > pair.0 {
                from -= 1;
                to -= 1;
                self.0.swap(from, to);
            }
            to -= 1;
            self.0[to] = pair;
        }
    }

    pub(super) fn get(&self, name: &K) -> Option<&V> {
        self.0.binary_search_by_key(name, |(known, _)| *known).ok().map(|at| &self.0[at].1)
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }
}

impl<K, V> IntoIterator for Ordered<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// How many come before this name. Where it is near, few are looked at.
fn first_from<K: Ord, V>(pairs: &[(K, V)], name: &K) -> usize {
    let mut reach = 1;
    while reach < pairs.len() && pairs[reach - 1].0 < *name {
        reach *= 2;
    }
    let (from, to) = (reach / 2, reach.min(pairs.len()));
    from + pairs[from..to].partition_point(|(known, _)| known < name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(to: &[u32], more: &[u32], most: usize) -> (Vec<(u32, u64)>, Vec<u32>) {
        let mut kept = Ordered::default();
        let once = |names: &[u32]| names.iter().map(|name| (*name, 1)).collect();
        let add = |_, known: &mut u64, more| *known += more;
        assert!(kept.add(once(to), usize::MAX, add).is_empty());
        let refused = kept.add(once(more), most, add);
        (kept.into_iter().collect(), refused.into_iter().map(|(name, _)| name).collect())
    }

    #[test]
    fn what_comes_takes_its_place() {
        assert_eq!(added(&[], &[], 9), (vec![], vec![]));
        assert_eq!(added(&[], &[3, 1, 3], 9).0, [(1, 1), (3, 2)]);
        assert_eq!(added(&[5, 7], &[8, 1, 6], 9).0, [(1, 1), (5, 1), (6, 1), (7, 1), (8, 1)]);
        assert_eq!(added(&[5, 7], &[7, 7, 5, 6], 9).0, [(5, 2), (6, 1), (7, 3)]);
        assert_eq!(added(&[1, 2, 3], &[], 9).0, [(1, 1), (2, 1), (3, 1)]);
    }

    #[test]
    fn what_is_there_is_added_to_although_there_is_no_room() {
        assert_eq!(added(&[5, 7], &[7, 6, 9], 3), (vec![(5, 1), (6, 1), (7, 2)], vec![9]));
        assert_eq!(added(&[5, 7], &[7, 6], 1), (vec![(5, 1), (7, 2)], vec![6]));
    }

    #[test]
    fn it_agrees_with_a_map() {
        let mut kept = Ordered::<u32, u64>::default();
        let mut map = std::collections::BTreeMap::<u32, u64>::new();
        let mut number = 1_u32;
        for size in [0, 1, 100, 7, 1_000, 3, 0, 500] {
            let more: Vec<(u32, u64)> = (0..size)
                .map(|_| {
                    number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (number >> 22, u64::from(number & 15))
                })
                .collect();
            more.iter().for_each(|(name, value)| *map.entry(*name).or_default() += value);
            assert!(kept.add(more, usize::MAX, |_, known, more| *known += more).is_empty());
            assert!(map.iter().all(|(name, value)| kept.get(name) == Some(value)) && kept.get(&1_024).is_none());
        }
        assert_eq!(kept.into_iter().collect::<Vec<_>>(), map.into_iter().collect::<Vec<_>>());
    }
}
