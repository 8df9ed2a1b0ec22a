//! When refusals are many: of each key that was refused, the requests of the last hour.

use std::time::Duration;

use hashbrown::HashMap;

use crate::domain::{KeyId, Timestamp};
use crate::store::Passage;

/// A key is told of when it was refused so often within an hour,
pub(super) const MANY: u64 = 100;
/// which is looked at in pieces of so long.
const PIECE: Duration = Duration::from_secs(600);
const PIECES: usize = 6;
/// Most keys that are watched; those that were refused longest ago go first.
const MAX_WATCHED: usize = 65_536;

/// Keys that were refused within the last hour.
#[derive(Default)]
pub(super) struct Refusals {
    watched: HashMap<KeyId, Watched>,
}

#[derive(Clone, Copy, Default)]
struct Watched {
    /// Requests and refusals by piece of the hour.
    pieces: [(u64, u64); PIECES],
    /// The number of the newest piece, since 1970.
    newest: i64,
    refused_at: Timestamp,
}

impl Watched {
    fn turn_to(&mut self, piece: i64) {
        let passed = usize::try_from(piece - self.newest).unwrap_or(0).min(PIECES);
        self.pieces.rotate_right(passed);
        self.pieces[..passed].fill((0, 0));
        self.newest = self.newest.max(piece);
    }

    fn sum(&self) -> (u64, u64) {
        self.pieces.iter().fold((0, 0), |sum, piece| (sum.0 + piece.0, sum.1 + piece.1))
    }
}

impl Refusals {
    /// Requests and refusals of the keys that were refused, or are watched because they were before.
    pub(super) fn sums(
        &self,
        counts: impl Iterator<Item = (KeyId, Passage, u64)> + Clone,
    ) -> HashMap<KeyId, (u64, u64)> {
        let refused = counts.clone().filter(|(_, passage, _)| *passage == Passage::Refused);
        let mut sums: HashMap<KeyId, (u64, u64)> = refused.map(|(key, ..)| (key, (0, 0))).collect();
        if sums.is_empty() && self.watched.is_empty() {
            return sums;
        }
        for (key, passage, requests) in counts {
            if sums.contains_key(&key) || self.watched.contains_key(&key) {
                let (of_key, refused) = sums.entry(key).or_default();
                *of_key += requests;
                *refused += if passage == Passage::Refused { requests } else { 0 };
            }
        }
        sums
    }

    /// Adds requests of a key, some of which were refused. Answers requests and refusals of the last hour when the refusals
    /// are many and more than half.
    pub(super) fn add(&mut self, key: KeyId, requests: u64, refused: u64, now: Timestamp) -> Option<(u64, u64)> {
        if refused == 0 && !self.watched.contains_key(&key) {
            return None;
        }
        self.make_room(key);
        let piece = now.unix_ms().div_euclid(i64::try_from(PIECE.as_millis()).unwrap_or(i64::MAX));
        let watched = self.watched.entry(key).or_insert_with(|| Watched { newest: piece, ..Watched::default() });
        watched.turn_to(piece);
        watched.pieces[0].0 += requests;
        watched.pieces[0].1 += refused;
        if refused == 0 {
            return None;
        }
        watched.refused_at = now;
        let (requests, refused) = watched.sum();
        (refused >= MANY && refused * 2 > requests).then_some((requests, refused))
    }

    /// Forgets keys that were not refused for an hour.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        let hour = now.minus(PIECE * 6);
        self.watched.retain(|_, watched| watched.refused_at > hour);
    }

    fn make_room(&mut self, key: KeyId) {
        if self.watched.len() < MAX_WATCHED || self.watched.contains_key(&key) {
            return;
        }
        let mut moments: Vec<Timestamp> = self.watched.values().map(|watched| watched.refused_at).collect();
        let (_, median, _) = moments.select_nth_unstable(MAX_WATCHED / 8);
        let border = *median;
        self.watched.retain(|_, watched| watched.refused_at > border);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_123);

    fn key(number: u8) -> KeyId {
        KeyId::from_bytes([number; 16])
    }

    #[test]
    fn many_refusals_that_are_more_than_half_are_told() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.add(key(1), 99, 99, NOW), None);
        assert_eq!(refusals.add(key(2), 200, 100, NOW), None, "half is not more than half");
        assert_eq!(refusals.add(key(1), 1, 0, NOW), None);
        assert_eq!(refusals.add(key(1), 1, 1, NOW), Some((101, 100)));
        assert_eq!(refusals.add(key(1), 500, 0, NOW), None);
        assert_eq!(refusals.add(key(1), 1, 1, NOW), None);
    }

    #[test]
    fn only_keys_that_were_refused_are_summed_up() {
        let (allowed, refused) = (Passage::Allowed, Passage::Refused);
        let counts = [(key(1), allowed, 5), (key(2), allowed, 7), (key(1), refused, 2), (key(1), refused, 1)];
        let mut refusals = Refusals::default();
        assert_eq!(refusals.sums(counts.into_iter()), HashMap::from([(key(1), (8, 3))]));
        assert!(refusals.sums(counts[..2].iter().copied()).is_empty());
        refusals.add(key(2), 1, 1, NOW);
        assert_eq!(refusals.sums(counts.into_iter()), HashMap::from([(key(1), (8, 3)), (key(2), (7, 0))]));
    }

    #[test]
    fn what_is_an_hour_old_does_not_count() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.add(key(1), 60, 60, NOW), None);
        assert_eq!(refusals.add(key(1), 39, 39, NOW.plus(PIECE * 5)), None);
        assert_eq!(refusals.add(key(1), 1, 1, NOW.plus(PIECE * 5)), Some((100, 100)));
        assert_eq!(refusals.add(key(1), 59, 59, NOW.plus(PIECE * 6)), None, "the first sixty are too old");
        refusals.sweep(NOW.plus(PIECE * 13));
        assert!(refusals.watched.is_empty());
    }
}
