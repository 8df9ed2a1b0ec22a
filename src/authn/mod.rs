//! Who calls: from one credential to a proven key, or to why it proves nothing.
//!
//! Owns [`Authenticated`], which only this room can make. Must not know what the key may do.

use std::hint::black_box;
use std::time::Duration;

use crate::cache::{Directory, KeySet, KeySlot, OwnerIx};
use crate::credential::{Credential, Located, Malformed};
use crate::domain::key_text::{Brand, KeyTextForm};
use crate::domain::{KeyHash, KeyHasher, PresentedKey, Timestamp};

/// Why a well-formed credential is not accepted. Outside they all look alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rejection {
    /// Our format with a wrong checksum; it was not looked up.
    Checksum,
    /// No key hashes to it.
    Unknown,
    /// Switched off for good.
    Revoked,
    /// Switched off.
    Disabled,
    /// Past its expiry, its grace, or the maximum age of its environment.
    Expired,
    /// Its owner is suspended.
    OwnerSuspended,
}

impl Rejection {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Checksum, Self::Unknown, Self::Revoked, Self::Disabled, Self::Expired, Self::OwnerSuspended];

    /// The word in logs and metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Checksum => "bad_checksum",
            Self::Unknown => "unknown_key",
            Self::Revoked => "key_revoked",
            Self::Disabled => "key_disabled",
            Self::Expired => "key_expired",
            Self::OwnerSuspended => "owner_suspended",
        }
    }

    /// Whether the key is known and somebody or something switched it off.
    pub const fn is_known_bad(self) -> bool {
        match self {
            Self::Checksum | Self::Unknown => false,
            Self::Revoked | Self::Disabled | Self::Expired | Self::OwnerSuspended => true,
        }
    }
}

/// Proof that a credential belongs to a key that is accepted now.
#[derive(Clone, Copy, Debug)]
pub struct Authenticated {
    slot: KeySlot,
    hash: KeyHash,
}

impl Authenticated {
    /// What the key set knows of the key.
    pub const fn slot(&self) -> &KeySlot {
        &self.slot
    }

    /// What the credential hashes to, for asking again later.
    pub const fn hash(&self) -> &KeyHash {
        &self.hash
    }
}

/// What came of trying to authenticate.
#[derive(Debug)]
pub enum Attempt {
    /// The request carries no credential.
    NotPresented,
    /// It carries something that is none.
    Malformed(Malformed),
    /// The key is accepted.
    Verified(Authenticated),
    /// It is not; the key's slot when it is known, for the log.
    Rejected(Rejection, Option<KeySlot>),
}

/// Everything a verification looks at, apart from the credential and the time.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// How our key texts begin.
    pub brand: &'a Brand,
    /// How credentials are hashed.
    pub hasher: &'a KeyHasher,
    /// The key set.
    pub keys: &'a KeySet,
    /// Owners.
    pub directory: &'a Directory,
    /// How old keys may become.
    pub ages: &'a dyn MaxAge,
}

/// How old keys may become.
pub trait MaxAge {
    /// The oldest age of keys like this one; none: they do not age.
    fn max_age(&self, slot: &KeySlot) -> Option<Duration>;
}

/// Tries the located credential. One to three lookups, no allocation, no clock.
///
/// Every key goes through the same checks in the same order whatever its state, and in place of one that nobody has
/// another does, so that the time of a refusal says nothing about which one it was.
pub fn attempt(located: &Located<'_>, evidence: Evidence<'_>, now: Timestamp) -> Attempt {
    match located {
        Located::None => Attempt::NotPresented,
        Located::Malformed(why) => Attempt::Malformed(*why),
        Located::One(credential) => verify(credential, evidence, now),
    }
}

fn verify(credential: &Credential<'_>, evidence: Evidence<'_>, now: Timestamp) -> Attempt {
    examine(&credential.key(), evidence, now)
}

/// What a key is, and whether it is accepted, whoever shows it.
pub fn examine(key: &PresentedKey<'_>, evidence: Evidence<'_>, now: Timestamp) -> Attempt {
    match key.form(evidence.brand) {
        KeyTextForm::BadChecksum => return Attempt::Rejected(Rejection::Checksum, None),
        KeyTextForm::Ours { .. } | KeyTextForm::Foreign => {}
    }
    let mut candidates = evidence.hasher.candidates(key);
    let found = candidates.find_map(|hash| evidence.keys.find(&hash).map(|slot| (hash, slot)));
    let slot = found.map_or_else(KeySlot::of_nobody, |(_, slot)| slot);
    // The compiler would leave out what nobody asks for.
    match (found, black_box(rejection_of(&slot, evidence, now))) {
        (Some((hash, slot)), None) => Attempt::Verified(Authenticated { slot, hash }),
        (found, rejection) => {
            // A key that nobody has was looked for under every hash.
            for hash in candidates {
                let _looked_for = black_box(evidence.keys.find(&hash));
            }
            match (found, rejection) {
                (Some((_, slot)), Some(rejection)) => Attempt::Rejected(rejection, Some(slot)),
                (None, _) | (_, None) => Attempt::Rejected(Rejection::Unknown, None),
            }
        }
    }
}

/// Whether a key that was accepted still is.
pub fn still_holds(authenticated: &Authenticated, evidence: Evidence<'_>, now: Timestamp) -> bool {
    evidence.keys.find(&authenticated.hash).is_some_and(|slot| rejection_of(&slot, evidence, now).is_none())
}

fn rejection_of(slot: &KeySlot, evidence: Evidence<'_>, now: Timestamp) -> Option<Rejection> {
    let too_old = evidence.ages.max_age(slot).is_some_and(|age| slot.created_at().plus(age) <= now);
    let expired = slot.is_past_its_time(now) || too_old;
    // An owner that the directory does not know never grants. Who has none is looked up all the same.
    let owner = black_box(evidence.directory.owner(slot.owner.unwrap_or(OwnerIx::FIRST)));
    let suspended = slot.owner.is_some() && owner.is_none_or(|known| known.suspended);
    Blemishes { revoked: slot.revoked, disabled: !slot.active, expired, owner_suspended: suspended }.rejection()
}

/// What speaks against a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blemishes {
    /// It was switched off for good.
    pub revoked: bool,
    /// It is switched off.
    pub disabled: bool,
    /// It is past its expiry, its grace, or the maximum age of its environment.
    pub expired: bool,
    /// Its owner is suspended.
    pub owner_suspended: bool,
}

impl Blemishes {
    /// Why a key with these is not accepted: the most lasting reason.
    pub const fn rejection(self) -> Option<Rejection> {
        let Self { revoked, disabled, expired, owner_suspended } = self;
        match (revoked, disabled, expired, owner_suspended) {
            (true, ..) => Some(Rejection::Revoked),
            (_, true, ..) => Some(Rejection::Disabled),
            (_, _, true, _) => Some(Rejection::Expired),
            (_, _, _, true) => Some(Rejection::OwnerSuspended),
            (false, false, false, false) => None,
        }
    }
}
