//! Chance that is the same for the same seed (SplitMix64), in as many streams as there are things that draw: what one of
//! them draws never depends on how often another did.

/// One stream.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn of(seed: u64, stream: u64) -> Self {
        let mut of_seed = Self(seed);
        Self(of_seed.next() ^ Self(stream).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    /// A number from the one to the other.
    pub(super) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.next() % (most - least + 1)
    }

    /// Whether something happens that does so once in so often.
    pub(super) fn once_in(&mut self, often: u64) -> bool {
        self.next().is_multiple_of(often)
    }

    /// One of them.
    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { of.get(self.below(of.len())) }
    }
}
