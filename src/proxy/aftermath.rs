//! What is written down of a refusal, behind its answer.
//!
//! Counters, names and tables depend on the key that was shown, and to look them up takes time that the one who shows it
//! can measure. So what is noted before the answer is the same for every key, and all else waits for [`Exchange`]'s end.
//! What is taken along for then is copied, as the request is gone by that time.
//!
//! [`Exchange`]: super::observe::Exchange

use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::live::CurrentRef;
use super::noting::{Came, WorkerTally};
use super::told::{Told, limited_by};
use crate::authn::Rejection;
use crate::cache::KeySlot;
use crate::domain::{KeyId, Known, OwnerId, Timestamp};
use crate::gate::{Denial, RequestHead, Verdict};
use crate::limit::Policy;
use crate::route::RuleRef;
use crate::store::Passage;
use crate::usage::{Counted, MAX_AGENT_BYTES};

/// A refusal that is not written down yet.
pub(super) struct Aftermath {
    /// What the key's names are looked up in.
    current: CurrentRef,
    /// The key, if it is known.
    slot: Option<KeySlot>,
    rule: Option<RuleRef>,
    is_of_nobody: bool,
    is_browser_leak: bool,
    client: Option<IpAddr>,
    /// The `User-Agent`, as far as it is kept.
    agent: Option<SmallVec<[u8; 96]>>,
    at: Timestamp,
    /// Why, in the words of metrics.
    pub(super) reason: &'static str,
    /// The limit it ran into.
    pub(super) limit: Option<Policy>,
}

/// The names of a key that was refused.
pub(super) struct RefusedCaller<'a> {
    /// The key.
    pub(super) key_id: KeyId,
    /// The account it belongs to.
    pub(super) owner: Option<OwnerId>,
    /// Its environment.
    pub(super) environment: Option<&'a Arc<str>>,
}

impl Aftermath {
    /// Of a verdict by which a request is refused.
    pub(super) fn of(
        current: &CurrentRef,
        head: &RequestHead<'_>,
        verdict: &Verdict<'_>,
        told: Told<'_>,
        at: Timestamp,
    ) -> Self {
        let agent = head.fields.first(Known::UserAgent);
        Self {
            current: current.clone(),
            slot: verdict.caller.slot().copied(),
            rule: verdict.rule,
            is_of_nobody: matches!(told.denial, Some(Denial::InvalidKey(Rejection::Unknown))),
            is_browser_leak: matches!(told.denial, Some(Denial::SecretKeyInBrowser)),
            client: head.client,
            agent: agent.map(|agent| SmallVec::from_slice(&agent[..agent.len().min(MAX_AGENT_BYTES)])),
            at,
            reason: told.reason,
            limit: told.denial.and_then(limited_by),
        }
    }

    /// The names of the key, if it is known.
    pub(super) fn caller(&self) -> Option<RefusedCaller<'_>> {
        let slot = self.slot.as_ref()?;
        let gate = &self.current.gate;
        Some(RefusedCaller {
            key_id: slot.id,
            owner: slot.owner.and_then(|owner| gate.directory.owner(owner)).map(|owner| owner.id),
            environment: gate.environment(slot.environment).map(|environment| &environment.name),
        })
    }

    /// Notes who came. Answers what the request is counted by: one that met a rule with a key that is known.
    pub(super) fn note_in(&self, tally: &WorkerTally) -> Option<Counted> {
        let rule = self.current.plan.rule_numbers.of(self.rule?);
        let came = Came {
            client: self.client,
            agent: self.agent.as_deref(),
            is_browser_leak: self.is_browser_leak,
            at: self.at,
        };
        match &self.slot {
            Some(slot) => {
                tally.visit(slot, came);
                Some(Counted::new(slot.id, rule, Passage::Refused, self.at))
            }
            None => {
                if self.is_of_nobody {
                    tally.visit_of_nobody(came);
                }
                None
            }
        }
    }
}
