//! Who may do what to which key, and who may hand out what.
//!
//! A caller needs no power of its own to provision: what it may grant is its scopes and its `may_grant`, together. Every
//! call that reveals a secret or widens a key must keep the whole result within that, and within the owner's ceiling.

use super::fault::Refused;
use crate::domain::{GrantedScope, KeyId, KeyKind, KeyRecord, OwnerId, OwnerRecord};
use crate::gate::GateSettings;
use crate::store::Actor;

/// On whose behalf something is done.
#[derive(Clone, Debug)]
pub enum Authority {
    /// Nobody: sees nothing and changes nothing.
    Nobody,
    /// Somebody who can write to the store itself: not limited.
    Local(Actor),
    /// A key.
    Caller(Box<Caller>),
}

/// A key that calls the management API.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The key, and where it calls from.
    pub actor: Actor,
    /// Its id.
    pub key: KeyId,
    /// The account it belongs to; an operator has none.
    pub owner: Option<OwnerId>,
    /// What kind it is.
    pub kind: KeyKind,
    /// Where it lives.
    pub environment: String,
    /// Its scopes, those of its roles included.
    pub holds: Vec<GrantedScope>,
    /// What it may hand out beyond those.
    pub may_grant: Vec<GrantedScope>,
}

impl Authority {
    /// Who is written into the audit trail.
    pub fn actor(&self) -> Actor {
        match self {
            Self::Nobody => Actor::named("nobody"),
            Self::Local(actor) => actor.clone(),
            Self::Caller(caller) => caller.actor.clone(),
        }
    }

    /// The only owner whose records it sees; none: all.
    pub fn confined_to(&self) -> Option<OwnerId> {
        match self {
            // An id that is never given out.
            Self::Nobody => Some(OwnerId::from_bytes([0; 16])),
            Self::Local(_) => None,
            Self::Caller(caller) => caller.owner,
        }
    }

    /// Whether it sees what belongs to `owner`.
    pub fn sees(&self, owner: Option<OwnerId>) -> bool {
        self.confined_to().is_none_or(|own| owner == Some(own))
    }

    /// Refuses callers with an owner: what bounds them is not theirs to change.
    ///
    /// # Errors
    /// [`Refused::OperatorsOnly`].
    pub fn check_operator(&self, what: &'static str) -> Result<(), Refused> {
        match self.confined_to() {
            None => Ok(()),
            Some(_) => Err(Refused::OperatorsOnly { what }),
        }
    }

    /// Whether `result` is within what may be handed out to its owner.
    ///
    /// # Errors
    /// [`Refused::Exceeds`] with what is not covered.
    pub fn check_grant(
        &self,
        result: &KeyRecord,
        owner: Option<&OwnerRecord>,
        settings: &GateSettings,
    ) -> Result<(), Refused> {
        let (holds, may_grant): (&[GrantedScope], &[GrantedScope]) = match self {
            Self::Local(_) => return Ok(()),
            Self::Nobody => (&[], &[]),
            Self::Caller(caller) => (&caller.holds, &caller.may_grant),
        };
        let needed = spelled_out(&result.scopes, &result.roles, settings).chain(&result.may_grant);
        let grants = || holds.iter().chain(may_grant);
        let missing = uncovered(needed.clone(), grants);
        if !missing.is_empty() {
            return Err(Refused::Exceeds { missing, by_ceiling: false });
        }
        if let Some(ceiling) = owner.and_then(|owner| owner.may_grant.as_ref()) {
            let missing = uncovered(needed, || ceiling.iter());
            if !missing.is_empty() {
                return Err(Refused::Exceeds { missing, by_ceiling: true });
            }
        }
        Ok(())
    }
}

/// Scopes, and those of roles.
pub(super) fn spelled_out<'a>(
    scopes: &'a [GrantedScope],
    roles: &'a [String],
    settings: &'a GateSettings,
) -> impl Iterator<Item = &'a GrantedScope> + Clone {
    scopes.iter().chain(roles.iter().filter_map(|role| settings.roles.get(role)).flatten())
}

fn uncovered<'a, I: Iterator<Item = &'a GrantedScope>>(
    needed: impl Iterator<Item = &'a GrantedScope>,
    grants: impl Fn() -> I,
) -> Vec<GrantedScope> {
    let mut missing: Vec<GrantedScope> =
        needed.filter(|scope| !grants().any(|grant| grant.includes(scope))).cloned().collect();
    missing.sort();
    missing.dedup();
    missing
}
