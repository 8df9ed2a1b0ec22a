//! What a request leaves in the worker's tally.

use std::net::IpAddr;
use std::sync::Arc;

use super::told::Told;
use crate::authn::Rejection;
use crate::cache::KeySlot;
use crate::domain::{Known, Timestamp, network_of};
use crate::gate::{Caller, Denial, RequestHead, Verdict};
use crate::store::{FoundCaller, Passage};
use crate::usage::{Counted, Found, RuleNumbers, Tally, Visitor};

/// One worker's place to note usage.
pub(crate) struct WorkerTally {
    /// Of all workers.
    pub(crate) shared: Arc<Tally>,
    /// Which of them.
    pub(crate) worker: usize,
}

/// Where somebody with a key came from.
#[derive(Clone, Copy)]
pub(super) struct Came<'a> {
    /// The client's address; none over a Unix socket.
    pub(super) client: Option<IpAddr>,
    /// Its `User-Agent`.
    pub(super) agent: Option<&'a [u8]>,
    /// Whether it was a browser with a secret key.
    pub(super) is_browser_leak: bool,
    /// Whether the key was accepted.
    pub(super) is_accepted: bool,
    /// When.
    pub(super) at: Timestamp,
}

impl WorkerTally {
    /// Counts a request that was answered.
    pub(super) fn count(&self, counted: Counted) {
        self.shared.count(self.worker, counted, 1);
    }

    /// Notes that somebody came with this key.
    pub(super) fn visit(&self, slot: &KeySlot, came: Came<'_>) {
        let Came { client: address, agent, is_browser_leak, is_accepted, at } = came;
        let visitor = Visitor { key: slot.id, kind: slot.kind, address, agent, is_browser_leak, is_accepted, at };
        self.shared.visit(self.worker, &visitor);
    }

    /// Notes that somebody came with a key that nobody has.
    pub(super) fn visit_of_nobody(&self, came: Came<'_>) {
        self.shared.visit_of_nobody(self.worker, came.client, came.agent, came.at);
    }

    /// Notes who came and what report mode let pass, of a request that goes on. Answers what it is counted by once its
    /// status is known: a request that met a rule with a key that is known.
    pub(super) fn note(
        &self,
        numbers: &RuleNumbers,
        head: &RequestHead<'_>,
        verdict: &Verdict<'_>,
        told: &Told<'_>,
        now: Timestamp,
    ) -> Option<Counted> {
        let rule = numbers.of(verdict.rule?);
        let (passage, denial) = (told.passage(), told.denial);
        let slot = verdict.caller.slot();
        if let (Passage::Reported, Some(denial)) = (passage, denial) {
            let caller = match (slot, head.client) {
                (Some(slot), _) => FoundCaller::Key(slot.id),
                (None, Some(client)) => FoundCaller::Network(network_of(client)),
                (None, None) => FoundCaller::Local,
            };
            let missing = match denial {
                Denial::InsufficientScope { missing, .. } => missing.as_slice(),
                _ => &[],
            };
            self.shared.find(self.worker, &Found { rule, reason: denial.reason(), caller, missing }, now);
        }
        let is_browser_leak = matches!(denial, Some(Denial::SecretKeyInBrowser));
        let is_accepted = passage == Passage::Allowed && matches!(verdict.caller, Caller::Key(_));
        let agent = head.fields.first(Known::UserAgent);
        let came = Came { client: head.client, agent, is_browser_leak, is_accepted, at: now };
        let Some(slot) = slot else {
            if let Some(Denial::InvalidKey(Rejection::Unknown)) = denial {
                self.visit_of_nobody(came);
            }
            return None;
        };
        self.visit(slot, came);
        if passage == Passage::Allowed {
            // Rules for other readings of the path let the key in as well: without their scopes it would be refused.
            for also in &verdict.also {
                self.shared.count(self.worker, Counted::new(slot.id, numbers.of(*also), passage, now), 0);
            }
        }
        Some(Counted::new(slot.id, rule, passage, now))
    }
}
