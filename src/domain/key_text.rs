//! The text of a key: `<brand>_<environment>_<kind>_<32 base62 characters><6 checksum characters>`.
//!
//! The checksum is CRC-32 (ISO-HDLC) of everything before it in base62, left-padded with `0`. It rejects typing
//! errors and junk before any lookup and makes secret scanners exact. It is no security.

use std::fmt;

use super::key::KeyKind;

/// The alphabet of the random part and of the checksum.
pub const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Characters drawn from the operating system's random source: 62^32, about 190 bits.
pub const RANDOM_CHARS: usize = 32;
/// Characters of the checksum: 62^6 holds every 32-bit value.
pub const CHECKSUM_CHARS: usize = 6;
/// Characters of the random part that stay visible in a record's `prefix`.
pub const PREFIX_CHARS: usize = 8;

/// The word every key of this installation begins with, `pc` unless configured.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct Brand(String);

/// Why a text cannot be a brand or an environment's word in key texts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAKeyWord;

impl fmt::Display for NotAKeyWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected 1 to 20 of a-z, 0-9, beginning with a letter")
    }
}

impl std::error::Error for NotAKeyWord {}

/// Checks that `text` can stand between underscores in a key text.
///
/// # Errors
/// When it is not 1 to 20 characters of `a-z` and `0-9` that begin with a letter.
pub fn check_key_word(text: &str) -> Result<(), NotAKeyWord> {
    let fits = (1..=20).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && text.as_bytes()[0].is_ascii_lowercase();
    if fits { Ok(()) } else { Err(NotAKeyWord) }
}

impl Brand {
    /// A brand from its text.
    ///
    /// # Errors
    /// As [`check_key_word`].
    pub fn new(text: &str) -> Result<Self, NotAKeyWord> {
        check_key_word(text)?;
        Ok(Self(text.to_owned()))
    }

    /// The word.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Brand {
    fn default() -> Self {
        Self("pc".to_owned())
    }
}

/// What the text of a presented credential says about itself, before any lookup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyTextForm<'a> {
    /// A key in our format whose checksum is right.
    Ours {
        /// The word between the first and second underscore.
        environment: &'a str,
        /// What the third part says.
        kind: KeyKind,
        /// The fixed part and the first [`PREFIX_CHARS`] random characters: public, safe to log.
        prefix: &'a str,
    },
    /// Our format with a wrong checksum: a typing error or junk; it is refused without a lookup.
    BadChecksum,
    /// Any other text: looked up, because imported keys keep their own form.
    Foreign,
}

impl KeyTextForm<'_> {
    /// The word in answers: `ours`, `bad_checksum` or `foreign`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours { .. } => "ours",
            Self::BadChecksum => "bad_checksum",
            Self::Foreign => "foreign",
        }
    }
}

/// Reads the form of `text`. O(length), allocates nothing.
pub fn inspect<'a>(text: &'a str, brand: &Brand) -> KeyTextForm<'a> {
    split(text, brand).map_or(KeyTextForm::Foreign, |parts| {
        let body = &text.as_bytes()[..text.len() - CHECKSUM_CHARS];
        let sum = &text.as_bytes()[text.len() - CHECKSUM_CHARS..];
        if checksum(body) == *sum {
            KeyTextForm::Ours {
                environment: parts.environment,
                kind: parts.kind,
                prefix: &text[..parts.fixed_len + PREFIX_CHARS],
            }
        } else {
            KeyTextForm::BadChecksum
        }
    })
}

struct Parts<'a> {
    environment: &'a str,
    kind: KeyKind,
    fixed_len: usize,
}

fn split<'a>(text: &'a str, brand: &Brand) -> Option<Parts<'a>> {
    let rest = text.strip_prefix(brand.as_str())?.strip_prefix('_')?;
    let (fixed, tail) = rest.split_at_checked(rest.len().checked_sub(RANDOM_CHARS + CHECKSUM_CHARS)?)?;
    let (environment, kind) = fixed.strip_suffix('_')?.rsplit_once('_')?;
    let kind = KeyKind::from_word(kind)?;
    check_key_word(environment).ok()?;
    // Without a branch for each byte, so that many are looked at together.
    let is_odd = tail.bytes().fold(0, |odd, b| odd | u8::from(!b.is_ascii_alphanumeric())) != 0;
    (!is_odd).then(|| Parts { environment, kind, fixed_len: text.len() - tail.len() })
}

/// CRC-32 (ISO-HDLC) of `body` in base62, left-padded with `0`.
pub fn checksum(body: &[u8]) -> [u8; CHECKSUM_CHARS] {
    let mut rest = crc32fast::hash(body);
    let mut text = [b'0'; CHECKSUM_CHARS];
    for place in text.iter_mut().rev() {
        *place = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    text
}

/// The fixed part of a new key's text, up to and including the last underscore.
pub fn fixed_part(brand: &Brand, environment_word: &str, kind: KeyKind) -> String {
    format!("{}_{environment_word}_{}_", brand.as_str(), kind.word())
}
