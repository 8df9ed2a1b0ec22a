//! What a key is: the record that the store keeps and the lists show. Never the key itself.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;

use super::id::{KeyId, OwnerId};

use super::rate::{Quota, RateLimit};
use super::revision::Revision;
use super::scope::{GrantedScope, Scope};
use super::secret::KeyHash;
use super::time::Timestamp;

/// What a key may be used for. The word stands in the key's text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyKind {
    /// `sk`: server to server; refused when a browser sends it.
    Secret,
    /// `pk`: may stand in a web page; safe methods only.
    Publishable,
    /// `mk`: speaks to the management API, never to an upstream.
    Management,
}

impl KeyKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Secret, Self::Publishable, Self::Management];

    /// The word in the key's text.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Secret => "sk",
            Self::Publishable => "pk",
            Self::Management => "mk",
        }
    }

    /// The kind with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// The name in records and options: `secret`, `publishable`, `management`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Publishable => "publishable",
            Self::Management => "management",
        }
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a key is accepted, and if not, why: derived from a record and the time, never stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyState {
    /// Accepted.
    Active,
    /// Switched off, reversibly.
    Disabled,
    /// Past its `expires_at`, or past the grace its successor left it.
    Expired,
    /// Switched off for good.
    Revoked,
}

impl KeyState {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Active, Self::Disabled, Self::Expired, Self::Revoked];

    /// The word in records, options and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// What narrows the use of a key beyond its scopes. Nothing is bounded by default.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bounds {
    /// Networks that its requests come from; empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_ips: Vec<IpNet>,
    /// Origins (RFC 6454 §6.2) of the pages that may use it; empty: any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_origins: Vec<String>,
    /// Its own rate limit, instead of its environment's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
    /// Its own quota, instead of its environment's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<Quota>,
}

impl Bounds {
    /// Whether nothing is bounded.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Everything the store keeps about one key.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyRecord {
    /// Its public name for ever.
    pub id: KeyId,
    /// A label; not unique.
    pub name: String,
    /// Free text.
    pub description: String,
    /// The account it belongs to; none for an operator's key.
    pub owner: Option<OwnerId>,
    /// The name of its environment.
    pub environment: String,
    /// What it may be used for.
    pub kind: KeyKind,
    /// The public beginning of its text; empty for a key imported by hash without one.
    pub prefix: String,
    /// The last four characters of its text; empty for a key imported by hash without them.
    pub last4: String,
    /// Whether it is a pair: its credential is its id, a colon and a secret that can be replaced.
    pub paired: bool,
    /// What a presented credential hashes to.
    pub hash: KeyHash,
    /// The pepper that `hash` was made with; none for plain SHA-256.
    pub pepper: Option<String>,
    /// What it may use.
    pub scopes: Vec<GrantedScope>,
    /// Named bundles of scopes it holds too.
    pub roles: Vec<String>,
    /// What it may hand out to other keys.
    pub may_grant: Vec<GrantedScope>,
    /// What narrows its use.
    pub bounds: Bounds,
    /// The reversible switch.
    pub active: bool,
    /// From then on it is refused.
    pub expires_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it: a key id, or `local:<user>`.
    pub created_by: String,
    /// When a request last presented it; written in batches, some seconds behind.
    pub last_used_at: Option<Timestamp>,
    /// When it was switched off for good.
    pub revoked_at: Option<Timestamp>,
    /// The key it succeeded by rotation.
    pub replaces: Option<KeyId>,
    /// The first key of its line of rotations; its own id where it succeeded none. Meters go by it.
    pub lineage: KeyId,
    /// Whether its first use ends the grace of the key that it succeeded.
    pub ends_on_use: bool,
    /// Until when it is still accepted after its successor was made.
    pub grace_until: Option<Timestamp>,
    /// The operator's own notes.
    pub metadata: BTreeMap<String, serde_json::Value>,
    /// The store-wide revision that last changed it.
    pub revision: Revision,
}

impl KeyRecord {
    /// The moment from which it is refused by time alone: the earlier of expiry and end of grace.
    pub fn dies_at(&self) -> Option<Timestamp> {
        match (self.expires_at, self.grace_until) {
            (Some(expiry), Some(grace)) => Some(expiry.min(grace)),
            (expiry, grace) => expiry.or(grace),
        }
    }

    /// Whether it may manage every key by itself: a management key without owner that holds `portcullis:keys`. What its
    /// roles hold depends on the configuration and is not looked at.
    pub fn is_operator(&self) -> bool {
        self.kind == KeyKind::Management
            && self.owner.is_none()
            && self.scopes.iter().any(|scope| scope.as_str() == Scope::MANAGE_KEYS)
    }

    /// Whether it can take the place of an operator key: it is one that works, as long and from as many networks at least,
    /// and not only until the end of a grace.
    pub fn operates_like(&self, other: &Self, now: Timestamp) -> bool {
        let (own, theirs) = (&self.bounds.allowed_ips, &other.bounds.allowed_ips);
        let lives_as_long = match (self.expires_at, other.expires_at) {
            (None, _) => true,
            (Some(own), Some(theirs)) => own >= theirs,
            (Some(_), None) => false,
        };
        self.is_operator()
            && self.state(now) == KeyState::Active
            && self.grace_until.is_none()
            && lives_as_long
            && (own.is_empty()
                || (!theirs.is_empty() && theirs.iter().all(|net| own.iter().any(|own| own.contains(net)))))
    }

    /// Whether it is accepted at `now`, and if not, why. Its owner's suspension is not looked at.
    pub fn state(&self, now: Timestamp) -> KeyState {
        if self.revoked_at.is_some() {
            KeyState::Revoked
        } else if self.dies_at().is_some_and(|moment| moment <= now) {
            KeyState::Expired
        } else if self.active {
            KeyState::Active
        } else {
            KeyState::Disabled
        }
    }
}

/// An account that keys belong to.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnerRecord {
    /// Its public name for ever.
    pub id: OwnerId,
    /// A label; not unique.
    pub name: String,
    /// While true, all its keys are refused.
    pub suspended: bool,
    /// What its keys may ask for together.
    pub rate_limit: Option<RateLimit>,
    /// What its keys may ask for together in a day or a month.
    pub quota: Option<Quota>,
    /// How many keys it may have that are not revoked.
    pub max_keys: Option<u32>,
    /// The ceiling of what may be granted to its keys; none: no ceiling.
    pub may_grant: Option<Vec<GrantedScope>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// The operator's own notes.
    pub metadata: BTreeMap<String, serde_json::Value>,
    /// The store-wide revision that last changed it.
    pub revision: Revision,
}
