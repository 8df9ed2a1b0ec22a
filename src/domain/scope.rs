//! Scopes: opaque names of permissions, what a key was granted, and whether the one covers the other.
//!
//! A *required* scope is one exact name. A *granted* scope may end in `*` at a segment border and then covers
//! every name that begins with what stands before the star. Scopes of the gateway itself begin with
//! [`Scope::RESERVED_PREFIX`], and no wildcard covers them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::limits::MAX_SCOPE_BYTES;

/// Why a text is not a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAScope {
    /// The text is empty.
    Empty,
    /// The text is longer than [`MAX_SCOPE_BYTES`].
    TooLong,
    /// A character outside `scope-token` of RFC 6749 §3.3; a space separates scopes.
    Character(char),
    /// A `*` where only an exact name is possible.
    Wildcard,
    /// A `*` that is not the last character after a segment border (`:`, `.` or `/`).
    WildcardPlace,
}

impl fmt::Display for NotAScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a scope cannot be empty"),
            Self::TooLong => write!(f, "a scope has at most {MAX_SCOPE_BYTES} bytes"),
            Self::Character(' ') => f.write_str("a space separates scopes (RFC 6749 §3.3)"),
            Self::Character(c) => write!(f, "{c:?} is not allowed in a scope (RFC 6749 §3.3)"),
            Self::Wildcard => f.write_str("a required scope is one exact name, without `*`"),
            Self::WildcardPlace => {
                f.write_str("`*` stands alone or last, right after `:`, `.` or `/`, as in `orders:*`")
            }
        }
    }
}

impl std::error::Error for NotAScope {}

/// `scope-token = 1*( %x21 / %x23-5B / %x5D-7E )`, RFC 6749 §3.3.
fn check_characters(text: &str) -> Result<(), NotAScope> {
    if text.is_empty() {
        return Err(NotAScope::Empty);
    }
    if text.len() > MAX_SCOPE_BYTES {
        return Err(NotAScope::TooLong);
    }
    let foreign = |c: &char| !matches!(c, '\x21' | '\x23'..='\x5b' | '\x5d'..='\x7e');
    text.chars().find(foreign).map_or(Ok(()), |c| Err(NotAScope::Character(c)))
}

/// One exact scope name, as a route requires it. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(Arc<str>);

impl Scope {
    /// Scopes that begin with this are the gateway's own.
    pub const RESERVED_PREFIX: &'static str = "portcullis:";

    /// Leave to manage keys; includes leave to read them.
    pub const MANAGE_KEYS: &'static str = "portcullis:keys";

    /// Every scope of the gateway itself: what management keys may hold (contract §6).
    pub const RESERVED: [&'static str; 6] = [
        "portcullis:keys:read",
        "portcullis:keys",
        "portcullis:verify",
        "portcullis:usage",
        "portcullis:audit",
        "portcullis:config",
    ];

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name belongs to the gateway itself.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(Self::RESERVED_PREFIX)
    }
}

impl FromStr for Scope {
    type Err = NotAScope;

    fn from_str(text: &str) -> Result<Self, NotAScope> {
        check_characters(text)?;
        if text.contains('*') {
            return Err(NotAScope::Wildcard);
        }
        Ok(Self(text.into()))
    }
}

/// What a key was granted: an exact scope, or every scope below a segment border.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantedScope(Arc<str>);

impl GrantedScope {
    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is one of the gateway's own scopes.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(Scope::RESERVED_PREFIX)
    }

    /// Whether it ends in `*`.
    pub fn is_wildcard(&self) -> bool {
        self.0.ends_with('*')
    }

    /// Whether holding this satisfies a demand for `required`. Allocates nothing.
    pub fn covers(&self, required: &Scope) -> bool {
        match self.0.strip_suffix('*') {
            None => *self.0 == *required.0,
            Some(stem) => self.may_cover(required.is_reserved()) && required.0.starts_with(stem),
        }
    }

    /// Whether everything that `other` covers is covered by this too: a partial order.
    pub fn includes(&self, other: &Self) -> bool {
        match (self.0.strip_suffix('*'), other.0.strip_suffix('*')) {
            (None, _) => self == other,
            (Some(stem), None) => {
                self.may_cover(other.0.starts_with(Scope::RESERVED_PREFIX)) && other.0.starts_with(stem)
            }
            (Some(stem), Some(other_stem)) => other_stem.starts_with(stem),
        }
    }

    /// No wildcard reaches the gateway's own scopes (contract §2).
    fn may_cover(&self, required_is_reserved: bool) -> bool {
        !required_is_reserved
    }
}

impl FromStr for GrantedScope {
    type Err = NotAScope;

    fn from_str(text: &str) -> Result<Self, NotAScope> {
        check_characters(text)?;
        if let Some(star) = text.find('*') {
            let stem = &text[..star];
            let at_border = stem.is_empty() || stem.ends_with([':', '.', '/']);
            let reserved = stem.starts_with(Scope::RESERVED_PREFIX);
            if star + 1 != text.len() || !at_border || reserved {
                return Err(NotAScope::WildcardPlace);
            }
        }
        Ok(Self(text.into()))
    }
}

impl From<Scope> for GrantedScope {
    fn from(scope: Scope) -> Self {
        Self(scope.0)
    }
}

macro_rules! scope_text_traits {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

scope_text_traits!(Scope);
scope_text_traits!(GrantedScope);

/// The scopes that the routes of one configuration require, numbered from 0 in order of first use.
///
/// A [`ScopeSet`] means something only beside the index it was made from.
#[derive(Clone, Debug, Default)]
pub struct ScopeIndex {
    names: Vec<Scope>,
}

impl ScopeIndex {
    /// The number of `scope`, assigning the next one at first sight. O(n); used while a configuration is compiled.
    pub fn intern(&mut self, scope: &Scope) -> usize {
        self.names.iter().position(|known| known == scope).unwrap_or_else(|| {
            self.names.push(scope.clone());
            self.names.len() - 1
        })
    }

    /// All names in order of their numbers.
    pub fn names(&self) -> &[Scope] {
        &self.names
    }

    /// The set of required scopes that `granted` covers. O(names × granted); used once per profile and configuration.
    pub fn covered_by<'a>(&self, granted: impl IntoIterator<Item = &'a GrantedScope> + Clone) -> ScopeSet {
        let mut set = ScopeSet::default();
        for (number, name) in self.names.iter().enumerate() {
            if granted.clone().into_iter().any(|grant| grant.covers(name)) {
                set.insert(number);
            }
        }
        set
    }

    /// The names in `set`, in order.
    pub fn names_of<'a>(&'a self, set: &'a ScopeSet) -> impl Iterator<Item = &'a Scope> {
        self.names.iter().enumerate().filter(|(number, _)| set.contains(*number)).map(|(_, name)| name)
    }
}

/// A set of required scopes by number. Up to 128 numbers live inline; more go to one allocation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ScopeSet {
    words: smallvec::SmallVec<[u64; 2]>,
}

impl ScopeSet {
    /// Adds `number`.
    pub fn insert(&mut self, number: usize) {
        let word = number / 64;
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (number % 64);
    }

    /// Whether `number` is in the set.
    pub fn contains(&self, number: usize) -> bool {
        self.words.get(number / 64).is_some_and(|word| word & (1 << (number % 64)) != 0)
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Whether every member of `other` is a member of this set.
    pub fn contains_all(&self, other: &Self) -> bool {
        other.words.iter().enumerate().all(|(i, word)| word & !self.words.get(i).copied().unwrap_or(0) == 0)
    }

    /// Whether this set and `other` share a member.
    pub fn intersects(&self, other: &Self) -> bool {
        self.words.iter().zip(&other.words).any(|(a, b)| a & b != 0)
    }

    /// The members of this set that are not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let words =
            self.words.iter().enumerate().map(|(i, word)| word & !other.words.get(i).copied().unwrap_or(0)).collect();
        Self { words }
    }

    /// The members of either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let len = self.words.len().max(other.words.len());
        let word = |set: &Self, i: usize| set.words.get(i).copied().unwrap_or(0);
        Self { words: (0..len).map(|i| word(self, i) | word(other, i)).collect() }
    }
}
