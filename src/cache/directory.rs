//! The names behind the numbers in a slot: profiles, owners and environments.
//!
//! Numbers are given once and never reused while the process lives, so a slot that was read before a change still means
//! the same after it. The writer's side ([`DirectoryWriter`]) is the sync task's alone; readers get copies.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use hashbrown::HashMap;

use super::chunked::ChunkedTable;
use crate::domain::{OwnerId, Quota, RateLimit};
use crate::store::{OwnerFacts, Profile};

/// Most profiles and most owners, by the bits they have in a slot.
const MAX_NUMBERED: usize = 1 << 24;
/// Most environments, by the bits they have in a slot.
const MAX_ENVIRONMENTS: usize = 1 << 11;

/// Number of a [`Profile`], from 0. Below 2^24.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProfileId(u32);

impl ProfileId {
    /// The number, for tables beside the directory.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The number as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    pub(super) const fn from_bits(bits: u64) -> Self {
        Self((bits & 0xff_ffff) as u32)
    }
}

/// Number of an owner. Below 2^24.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OwnerIx(NonZeroU32);

impl OwnerIx {
    /// The one with the lowest number, if there is any.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The number as an index, from 0.
    pub const fn index(self) -> usize {
        self.0.get() as usize - 1
    }

    /// Counted from 1, because 0 means none where numbers are packed.
    pub(super) const fn number_from_one(self) -> u32 {
        self.0.get()
    }

    pub(super) fn from_bits(bits: u64) -> Option<Self> {
        NonZeroU32::new((bits & 0xff_ffff) as u32).map(Self)
    }
}

/// Number of an environment, from 0. Below 2^11.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EnvIx(u16);

impl EnvIx {
    /// The number, for tables beside the directory.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The number as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    pub(super) const fn from_bits(bits: u64) -> Self {
        Self((bits & 0x7ff) as u16)
    }
}

/// What the decision needs to know of an owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnerState {
    /// Its id.
    pub id: OwnerId,
    /// While true, all its keys are refused.
    pub suspended: bool,
    /// What its keys may ask for together.
    pub rate_limit: Option<RateLimit>,
    /// What its keys may ask for together in a day or a month.
    pub quota: Option<Quota>,
}

impl OwnerState {
    fn of(facts: OwnerFacts) -> Self {
        let OwnerFacts { id, suspended, rate_limit, quota } = facts;
        Self { id, suspended, rate_limit, quota }
    }

    /// The way back.
    pub(super) const fn facts(&self) -> OwnerFacts {
        let Self { id, suspended, rate_limit, quota } = *self;
        OwnerFacts { id, suspended, rate_limit, quota }
    }
}

/// The names at one moment. Cheap to copy; never changes once published.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    profiles: ChunkedTable<Arc<Profile>>,
    owners: ChunkedTable<OwnerState>,
    environments: ChunkedTable<Arc<str>>,
}

impl Directory {
    /// The scopes and roles behind a number.
    pub fn profile(&self, id: ProfileId) -> Option<&Arc<Profile>> {
        self.profiles.get(id.index())
    }

    /// The numbers of all profiles, ascending.
    pub fn profile_ids(&self) -> impl Iterator<Item = ProfileId> + use<> {
        (0..u32::try_from(self.profiles.len()).unwrap_or(u32::MAX)).map(ProfileId)
    }

    /// The owner behind a number. `None` never grants: refuse.
    pub fn owner(&self, ix: OwnerIx) -> Option<&OwnerState> {
        self.owners.get(ix.index())
    }

    /// The name of an environment.
    pub fn environment(&self, ix: EnvIx) -> Option<&Arc<str>> {
        self.environments.get(ix.index())
    }

    /// All profiles in order of their numbers; only ever appended to.
    pub const fn profiles(&self) -> &ChunkedTable<Arc<Profile>> {
        &self.profiles
    }

    /// All owners in order of their numbers; appended to, and changed by suspension.
    pub const fn owners(&self) -> &ChunkedTable<OwnerState> {
        &self.owners
    }

    /// All environments in order of their numbers; only ever appended to.
    pub const fn environments(&self) -> &ChunkedTable<Arc<str>> {
        &self.environments
    }
}

/// There are more of something than a slot can number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full {
    /// Of what.
    pub(super) what: &'static str,
    /// How many there can be.
    pub(super) most: usize,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the store holds more {} than a gateway can keep ({}); split the store", self.what, self.most)
    }
}

impl std::error::Error for Full {}

/// The one side that gives numbers.
#[derive(Default)]
pub(super) struct DirectoryWriter {
    directory: Directory,
    profiles: HashMap<Arc<Profile>, ProfileId>,
    owners: HashMap<OwnerId, OwnerIx>,
    environments: HashMap<Arc<str>, EnvIx>,
    unpublished: bool,
}

impl DirectoryWriter {
    /// A copy to publish, when something changed since the last one was taken.
    pub(super) fn take_changed(&mut self) -> Option<Arc<Directory>> {
        std::mem::take(&mut self.unpublished).then(|| Arc::new(self.directory.clone()))
    }

    pub(super) fn profile(&mut self, profile: &Arc<Profile>) -> Result<ProfileId, Full> {
        if let Some(known) = self.profiles.get(profile) {
            return Ok(*known);
        }
        let number = next_number(&self.directory.profiles, MAX_NUMBERED, "profiles")?;
        self.unpublished = true;
        self.directory.profiles.push(profile.clone());
        let id = ProfileId::from_bits(number);
        self.profiles.insert(profile.clone(), id);
        Ok(id)
    }

    pub(super) fn environment(&mut self, name: &Arc<str>) -> Result<EnvIx, Full> {
        if let Some(known) = self.environments.get(name) {
            return Ok(*known);
        }
        let number = next_number(&self.directory.environments, MAX_ENVIRONMENTS, "environments")?;
        self.unpublished = true;
        self.directory.environments.push(name.clone());
        let ix = EnvIx::from_bits(number);
        self.environments.insert(name.clone(), ix);
        Ok(ix)
    }

    /// Adds an owner, or notes what changed about it.
    pub(super) fn owner(&mut self, facts: OwnerFacts) -> Result<OwnerIx, Full> {
        let state = OwnerState::of(facts);
        if let Some(ix) = self.owners.get(&state.id).copied() {
            if self.directory.owner(ix).is_some_and(|known| *known != state) {
                self.unpublished = true;
                self.directory.owners.update(ix.index(), |owner| *owner = state);
            }
            return Ok(ix);
        }
        // Counted from 1: the last number is one that 24 bits hold.
        let number = next_number(&self.directory.owners, MAX_NUMBERED - 1, "owners")? + 1;
        let ix = OwnerIx::from_bits(number).ok_or(Full { what: "owners", most: MAX_NUMBERED - 1 })?;
        self.unpublished = true;
        self.directory.owners.push(state);
        self.owners.insert(state.id, ix);
        Ok(ix)
    }

    /// The number of an owner that a key names. One that the store has not told of counts as suspended: absence never
    /// grants.
    pub(super) fn owner_of_key(&mut self, id: OwnerId) -> Result<OwnerIx, Full> {
        match self.owners.get(&id) {
            Some(known) => Ok(*known),
            None => self.owner(OwnerFacts { id, suspended: true, rate_limit: None, quota: None }),
        }
    }
}

fn next_number<T>(table: &ChunkedTable<T>, most: usize, what: &'static str) -> Result<u64, Full> {
    let number = table.len();
    if number < most { Ok(number as u64) } else { Err(Full { what, most }) }
}
