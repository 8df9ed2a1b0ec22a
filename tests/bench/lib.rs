//! What the measurements are made on: key sets of any size, routes of any number, and requests to them.
//!
//! Owns the scene, made the way the gateway makes it: configuration text becomes rules, and a change feed is followed by
//! the sync task into the key set. Must not know what is measured, nor read a clock for it.
//! Start at [`Keys`] and [`Gate`]. What the library says about requests, and may say differently one day, is used in
//! [`Request`] and [`HeadReader`] alone.

mod fleet;
mod gate;
mod head_reader;
mod keys;
mod request;
mod sharded;

pub use fleet::{Fleet, UNKNOWN, key_text};
pub use gate::{DEMANDS_READ, DEMANDS_WRITE, Gate, KeyMeters, Limited};
pub use head_reader::{HeadReader, request_head};
pub use keys::Keys;
pub use request::Request;
pub use sharded::{ShardedTable, Slot};

/// Numbers that look random and are the same in every run (SplitMix64).
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// A sequence of its own for each `seed`.
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, below `bound`, which is not zero. Uniform but for a bias of `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound);
        (wide >> 64) as u64
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}
