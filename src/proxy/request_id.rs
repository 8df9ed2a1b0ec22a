//! Request ids: 128 bits as 32 hexadecimal digits, unique, cheap, and no secret.

use std::cell::Cell;

/// The id of one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum RequestId {
    /// One of ours.
    Ours(Digits),
    /// One that a trusted proxy brought along.
    Kept(Box<str>),
}

/// Thirty-two hexadecimal digits. Aligned, so that whoever wants text of them finds out with a few words that they are.
#[derive(Clone, PartialEq, Eq, Debug)]
#[repr(align(16))]
pub(crate) struct Digits(pub(super) [u8; 32]);

impl RequestId {
    /// What is kept from a trusted proxy: visible ASCII up to 128 bytes.
    pub(super) fn kept(value: &[u8]) -> Option<Self> {
        let fits = (1..=128).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
        fits.then(|| String::from_utf8_lossy(value).into_owned().into_boxed_str()).map(Self::Kept)
    }

    /// Its text.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            // Hexadecimal digits are text.
            Self::Ours(Digits(digits)) => std::str::from_utf8(digits).unwrap_or_default(),
            Self::Kept(text) => text,
        }
    }

    /// Its text as bytes.
    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Ours(Digits(digits)) => digits,
            Self::Kept(text) => text.as_bytes(),
        }
    }

    /// Its digits where it can name a trace (Trace Context §3.2.2.3): 32 hexadecimal digits in lower case.
    pub(super) fn trace_id(&self) -> Option<&[u8]> {
        let is_digit = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
        match self {
            Self::Ours(Digits(digits)) => Some(digits),
            Self::Kept(text) => (text.len() == 32 && text.bytes().all(|b| is_digit(&b))).then_some(text.as_bytes()),
        }
    }
}

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
    pub(super) fn next(&self) -> RequestId {
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
        RequestId::Ours(Digits(text))
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
            let text = id.as_str().to_owned();
            assert!(text.len() == 32 && text.bytes().all(|b| HEX.contains(&b)));
            assert_eq!(id.trace_id(), Some(text.as_bytes()));
            assert!(seen.insert(text));
        }
    }

    #[test]
    fn what_a_proxy_brings_is_kept_when_it_is_visible_and_short() {
        assert_eq!(RequestId::kept(b"abc-1").unwrap().as_str(), "abc-1");
        assert!(RequestId::kept(b"").is_none() && RequestId::kept(b"a b").is_none());
        assert!(RequestId::kept(&[b'a'; 129]).is_none() && RequestId::kept(&[b'a'; 128]).is_some());
        assert_eq!(RequestId::kept(b"abc").unwrap().trace_id(), None);
        assert!(RequestId::kept(&[b'A'; 32]).unwrap().trace_id().is_none());
    }
}
