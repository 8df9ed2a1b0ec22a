//! Who may do what to which key, and who may hand out what.
//!
//! A caller needs no power of its own to provision: what it may grant is its scopes and its `may_grant`, together. Every
//! call that reveals a secret or widens a key must keep the whole result within that, and within the owner's ceiling.

use super::fault::Refused;
use crate::domain::{GrantedScope, KeyId, KeyKind, KeyRecord, OwnerId, OwnerRecord};
use crate::gate::GateSettings;
use crate::store::{Actor, KeyQuery};

/// On whose behalf something is done.
#[derive(Clone, Debug)]
pub enum Authority {
    /// Nobody: sees nothing and changes nothing.
    Nobody,
    /// Somebody who can write to the store itself: limited by what bounds owners alone.
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

impl Caller {
    /// The only environment whose keys it manages at the door of the API behind the gateway; none: any. Keys of `live`
    /// manage those of every environment, and no test key gets hold of a live one.
    pub(super) fn confined_to_environment(&self) -> Option<&str> {
        (self.kind != KeyKind::Management && self.environment != LIVE).then_some(self.environment.as_str())
    }
}

/// The environment that is meant where none is named.
pub(super) const LIVE: &str = "live";

/// Which records somebody sees. What is not seen does not exist as far as they can tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sight<'a> {
    /// None.
    Nothing,
    /// All.
    Everything,
    /// An owner and all its keys.
    Owner(OwnerId),
    /// What a key of the API behind the gateway sees at a route of that API.
    AtDataDoor {
        /// The owner, and of keys only its; none: keys that have none either, which are those of the application's own
        /// servers.
        owner: Option<OwnerId>,
        /// Only keys of this environment; none: of any. Management keys never.
        environment: Option<&'a str>,
    },
}

impl Sight<'_> {
    /// Whether it takes in a key.
    pub fn sees_key(self, key: &KeyRecord) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Owner(owner) => key.owner == Some(owner),
            Self::AtDataDoor { owner, environment } => {
                key.owner == owner
                    && key.kind != KeyKind::Management
                    && environment.is_none_or(|environment| key.environment == environment)
            }
        }
    }

    /// Whether it takes in an owner.
    pub fn sees_owner(self, id: OwnerId) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Owner(owner) => owner == id,
            Self::AtDataDoor { owner, .. } => owner == Some(id),
        }
    }

    /// Asks a store for keys that it takes in, of those that are asked for already; false when there can be none.
    pub fn narrow(self, query: &mut KeyQuery) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Owner(owner) => *query.owner.get_or_insert(owner) == owner,
            Self::AtDataDoor { owner, environment } => {
                query.no_management = true;
                query.unowned = owner.is_none();
                let is_of_owner = match owner {
                    Some(owner) => *query.owner.get_or_insert(owner) == owner,
                    None => query.owner.is_none(),
                };
                let is_there = match (environment, &query.environment) {
                    (Some(own), Some(asked)) => asked == own,
                    (Some(own), None) => {
                        query.environment = Some(own.to_owned());
                        true
                    }
                    (None, _) => true,
                };
                is_of_owner && is_there
            }
        }
    }

    /// The one owner whose keys it takes in; none: of no owner, or of all.
    pub fn owner(self) -> Option<OwnerId> {
        match self {
            Self::Nothing | Self::Everything => None,
            Self::Owner(owner) => Some(owner),
            Self::AtDataDoor { owner, .. } => owner,
        }
    }
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

    /// What it sees.
    pub fn sight(&self) -> Sight<'_> {
        match self {
            Self::Nobody => Sight::Nothing,
            Self::Local(_) => Sight::Everything,
            Self::Caller(caller) if caller.kind != KeyKind::Management => {
                Sight::AtDataDoor { owner: caller.owner, environment: caller.confined_to_environment() }
            }
            Self::Caller(caller) => caller.owner.map_or(Sight::Everything, Sight::Owner),
        }
    }

    /// Whether it is a key of the API behind the gateway, which manages keys through a route of that API.
    pub fn is_at_data_door(&self) -> bool {
        matches!(self, Self::Caller(caller) if caller.kind != KeyKind::Management)
    }

    /// Whether it is an operator, or somebody who can write to the store itself.
    pub fn is_operator(&self) -> bool {
        matches!(self.sight(), Sight::Everything)
    }

    /// Refuses everybody but operators: what bounds them is not theirs to change.
    ///
    /// # Errors
    /// [`Refused::OperatorsOnly`].
    pub fn check_operator(&self, what: &'static str) -> Result<(), Refused> {
        if self.is_operator() { Ok(()) } else { Err(Refused::OperatorsOnly { what }) }
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
        let grants: Option<(&[GrantedScope], &[GrantedScope])> = match self {
            Self::Local(_) => None,
            Self::Nobody => Some((&[], &[])),
            Self::Caller(caller) => Some((&caller.holds, &caller.may_grant)),
        };
        let needed = spelled_out(&result.scopes, &result.roles, settings).chain(&result.may_grant);
        if let Some((holds, may_grant)) = grants {
            let missing = uncovered(needed.clone(), || holds.iter().chain(may_grant));
            if !missing.is_empty() {
                return Err(Refused::Exceeds { missing, by_ceiling: false });
            }
        }
        // What bounds an owner's keys does so whoever makes them; who may write to the store may lift it, and then says so.
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
