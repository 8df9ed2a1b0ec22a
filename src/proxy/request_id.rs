//! Request ids: 128 bits as 32 hexadecimal digits, unique, cheap, and no secret.

use std::cell::Cell;

use http::HeaderValue;

/// One worker's generator (xoshiro-like mixing of a counter with a random seed, "splitmix64").
pub(super) struct RequestIds {
    high: u64,
    state: Cell<u64>,
}

const HEX: &[u8; 16] = b"0123456789abcdef";

impl RequestIds {
    /// A generator with a random beginning, so that workers and restarts do not repeat each other.
    pub(super) fn seeded() -> Self {
        let mut seed = [0u8; 16];
        if getrandom::fill(&mut seed).is_err() {
            // Without entropy ids are merely predictable; the clock keeps restarts apart.
            seed[..8].copy_from_slice(&crate::domain::time::now().unix_ms().to_le_bytes());
        }
        let (high, low) = seed.split_at(8);
        let word = |bytes: &[u8]| bytes.iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        Self { high: word(high), state: Cell::new(word(low)) }
    }

    /// The next id.
    pub(super) fn next(&self) -> HeaderValue {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let low = mix(state);
        // The high half changes too, so that ids of one worker share no visible prefix.
        let high = mix(self.high ^ low.rotate_left(32));
        let mut text = [0u8; 32];
        for (half, word) in [high, low].into_iter().enumerate() {
            for digit in 0..16 {
                text[half * 16 + digit] = HEX[(word >> (60 - 4 * digit) & 0xf) as usize];
            }
        }
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

/// The output function of splitmix64: a bijection on 64-bit words.
const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_32_hexadecimal_digits_and_do_not_repeat() {
        let ids = RequestIds::seeded();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10_000 {
            let id = ids.next();
            let text = id.to_str().unwrap().to_owned();
            assert!(text.len() == 32 && text.bytes().all(|b| HEX.contains(&b)));
            assert!(seen.insert(text));
        }
    }
}
