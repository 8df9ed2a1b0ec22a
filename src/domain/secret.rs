//! The only types that ever hold a plaintext credential, and the hashes that stand for it everywhere else.
//!
//! Neither [`PresentedKey`] nor [`MintedKey`] can be printed, cloned or serialised; both wipe their memory.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::id::KeyId;
use super::key::KeyKind;
use super::key_text::{self, BASE62, Brand, PREFIX_CHARS, RANDOM_CHARS};
use super::limits::MAX_CREDENTIAL_BYTES;

/// A credential as a client presented it, borrowed from the request where it stands.
///
/// Borrowing keeps the request path free of copies; the memory belongs to the header it came from.
pub struct PresentedKey<'a>(&'a str);

impl<'a> PresentedKey<'a> {
    /// Takes the text of one well-formed credential; `None` when it is empty, too long, or not visible ASCII.
    pub fn new(text: &'a str) -> Option<Self> {
        let is_odd = || text.bytes().fold(false, |odd, byte| odd | !byte.is_ascii_graphic());
        let well_formed = !text.is_empty() && text.len() <= MAX_CREDENTIAL_BYTES && !is_odd();
        well_formed.then_some(Self(text))
    }

    /// What the text says about itself.
    pub fn form(&self, brand: &Brand) -> key_text::KeyTextForm<'a> {
        key_text::inspect(self.0, brand)
    }

    /// What the text says about itself where it may be a pair: what its secret says.
    pub fn form_of_pair(&self, brand: &Brand) -> key_text::KeyTextForm<'a> {
        key_text::inspect(secret_of_pair(self.0), brand)
    }

    /// A key of its own that only who knows this credential can make, for one purpose: HMAC-SHA-256 of the purpose.
    pub fn derive(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        #[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104 §2)")]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.bytes()).expect("HMAC takes any key");
        mac.update(purpose.as_bytes());
        Zeroizing::new(mac.finalize().into_bytes().into())
    }

    fn bytes(&self) -> &'a [u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for PresentedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresentedKey(…)")
    }
}

/// A key at the moment of its creation: the one time its text exists on our side.
pub struct MintedKey {
    text: Zeroizing<String>,
    fixed_len: usize,
}

/// The operating system gave no random bytes.
#[derive(Debug)]
pub struct NoEntropy(getrandom::Error);

impl fmt::Display for NoEntropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the operating system's random source failed: {}", self.0)
    }
}

impl std::error::Error for NoEntropy {}

impl MintedKey {
    /// Draws a new key.
    ///
    /// # Errors
    /// [`NoEntropy`] when the operating system's random source fails.
    pub fn mint(brand: &Brand, environment_word: &str, kind: KeyKind) -> Result<Self, NoEntropy> {
        let fixed = key_text::fixed_part(brand, environment_word, kind);
        let mut text = Zeroizing::new(String::with_capacity(fixed.len() + RANDOM_CHARS + key_text::CHECKSUM_CHARS));
        text.push_str(&fixed);
        push_random_base62(&mut text, RANDOM_CHARS)?;
        let sum = key_text::checksum(text.as_bytes());
        text.extend(sum.iter().map(|b| char::from(*b)));
        Ok(Self { text, fixed_len: fixed.len() })
    }

    /// The text, for the one answer that shows it.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// The public beginning: fixed part and first [`PREFIX_CHARS`] random characters.
    pub fn prefix(&self) -> &str {
        &self.text[..self.fixed_len + PREFIX_CHARS]
    }

    /// The last four characters.
    pub fn last4(&self) -> &str {
        &self.text[self.text.len() - 4..]
    }

    /// Shows `see` the credential of the pair that this secret makes with an id: id, colon, secret (RFC 7617 §2).
    pub fn with_pair<T>(&self, id: KeyId, see: impl FnOnce(&PresentedKey<'_>) -> T) -> T {
        let pair = Zeroizing::new(format!("{id}:{}", &*self.text));
        see(&PresentedKey(&pair))
    }

    /// The same text as a client would present it.
    pub fn as_presented(&self) -> PresentedKey<'_> {
        PresentedKey(&self.text)
    }
}

impl fmt::Debug for MintedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MintedKey({}…)", self.prefix())
    }
}

/// Appends `count` characters drawn uniformly: bytes of 248 and above are rejected (248 = 4 × 62).
fn push_random_base62(text: &mut String, count: usize) -> Result<(), NoEntropy> {
    let mut pool = [0u8; 64];
    let mut missing = count;
    while missing > 0 {
        getrandom::fill(&mut pool).map_err(NoEntropy)?;
        for byte in pool.iter().filter(|byte| **byte < 248).take(missing) {
            text.push(char::from(BASE62[usize::from(byte % 62)]));
            missing -= 1;
        }
    }
    pool.zeroize();
    Ok(())
}

/// The hash under which a key is stored and found: SHA-256 of the whole text, or HMAC-SHA-256 with a pepper.
///
/// Equality is constant-time. Never shown to clients or written to logs.
#[derive(Clone, Copy, Eq)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Plain SHA-256 of a credential: what `sha256sum` prints for the key text without a line end.
    pub fn sha256(key: &PresentedKey<'_>) -> Self {
        Self(Sha256::digest(key.bytes()).into())
    }
}

impl PartialEq for KeyHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl std::hash::Hash for KeyHash {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

/// Why a text is not an importable hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAHash;

impl fmt::Display for NotAHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected `sha256:` followed by 64 hexadecimal digits")
    }
}

impl std::error::Error for NotAHash {}

impl FromStr for KeyHash {
    type Err = NotAHash;

    /// Reads `sha256:<64 hexadecimal digits>` in either case.
    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let digits = text.strip_prefix("sha256:").ok_or(NotAHash)?.as_bytes();
        if digits.len() != 64 {
            return Err(NotAHash);
        }
        let value = |digit: u8| char::from(digit).to_digit(16).ok_or(NotAHash);
        let mut bytes = [0u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::try_from(value(pair[0])? * 16 + value(pair[1])?).map_err(|_| NotAHash)?;
        }
        Ok(Self(bytes))
    }
}

/// A secret kept outside the store that makes stolen hashes useless. Named, so that a record can say which it needs.
pub struct Pepper {
    id: String,
    secret: Zeroizing<Vec<u8>>,
}

/// Fewest bytes a pepper may have.
pub const MIN_PEPPER_BYTES: usize = 16;

impl Pepper {
    /// A pepper from its name and secret; `None` when the secret is shorter than [`MIN_PEPPER_BYTES`].
    pub fn new(id: impl Into<String>, secret: Vec<u8>) -> Option<Self> {
        let secret = Zeroizing::new(secret);
        (secret.len() >= MIN_PEPPER_BYTES).then(|| Self { id: id.into(), secret })
    }

    /// The name stored beside hashes made with it.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pepper").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Makes hashes of credentials: with the first pepper for new keys, and in every accepted way for lookups.
#[derive(Default)]
pub struct KeyHasher {
    /// Keyed states are prepared once; cloning one is cheaper than keying it anew for each request.
    peppers: Vec<(Pepper, Hmac<Sha256>)>,
}

/// Most peppers accepted at one time: the current one and the one being rotated out.
pub const MAX_PEPPERS: usize = 2;

impl KeyHasher {
    /// A hasher with these peppers, the current one first; `None` when there are more than [`MAX_PEPPERS`].
    pub fn new(peppers: Vec<Pepper>) -> Option<Self> {
        if peppers.len() > MAX_PEPPERS {
            return None;
        }
        let keyed = peppers
            .into_iter()
            .map(|pepper| {
                let state = Hmac::<Sha256>::new_from_slice(&pepper.secret).ok()?;
                Some((pepper, state))
            })
            .collect::<Option<Vec<_>>>()?;
        Some(Self { peppers: keyed })
    }

    /// The hash a new key is stored under, and the id of the pepper it needs, if one is configured.
    pub fn hash_new(&self, key: &PresentedKey<'_>) -> (KeyHash, Option<&str>) {
        match self.peppers.first() {
            Some((pepper, state)) => (Self::keyed(state, key), Some(pepper.id())),
            None => (KeyHash::sha256(key), None),
        }
    }

    /// Every hash `key` may be stored under, the likeliest first: each pepper's, then plain SHA-256
    /// (keys imported by hash, and keys from before a pepper was configured).
    pub fn candidates<'a>(&'a self, key: &'a PresentedKey<'_>) -> impl Iterator<Item = KeyHash> + 'a {
        self.peppers
            .iter()
            .map(|(_, state)| Self::keyed(state, key))
            .chain(std::iter::once_with(|| KeyHash::sha256(key)))
    }

    /// A key for another purpose from each accepted pepper, with the pepper's id, the current one first:
    /// HMAC-SHA-256 of the purpose. A purpose holds a space, so that it is no credential and its key nobody's hash.
    pub fn keys_for(&self, purpose: &'static str) -> impl Iterator<Item = (&str, Zeroizing<[u8; 32]>)> {
        debug_assert!(purpose.contains(' '), "a credential holds visible characters only");
        self.peppers.iter().map(move |(pepper, state)| {
            let key = state.clone().chain_update(purpose).finalize().into_bytes();
            (pepper.id(), Zeroizing::new(key.into()))
        })
    }

    /// The ids of the accepted peppers, the current one first.
    pub fn pepper_ids(&self) -> impl Iterator<Item = &str> {
        self.peppers.iter().map(|(pepper, _)| pepper.id())
    }

    fn keyed(state: &Hmac<Sha256>, key: &PresentedKey<'_>) -> KeyHash {
        KeyHash(state.clone().chain_update(key.bytes()).finalize().into_bytes().into())
    }
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pepper_ids()).finish()
    }
}

/// The secret of a pair, which stands behind its id and a colon; the whole text where there is no id.
pub fn secret_of_pair(text: &str) -> &str {
    let pair = text.split_once(':').filter(|(id, _)| id.parse::<KeyId>().is_ok());
    pair.map_or(text, |(_, secret)| secret)
}
