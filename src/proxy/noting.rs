//! What a request leaves in the worker's tally.

use std::sync::Arc;

use super::told::Told;
use crate::authn::Rejection;
use crate::domain::{Known, Timestamp, network_of};
use crate::gate::{Denial, RequestHead, Verdict};
use crate::store::{FoundCaller, Passage};
use crate::usage::{Counted, Found, RuleNumbers, Tally, Visitor};

/// One worker's place to note usage.
pub(crate) struct WorkerTally {
    /// Of all workers.
    pub(crate) shared: Arc<Tally>,
    /// Which of them.
    pub(crate) worker: usize,
}

impl WorkerTally {
    /// Counts a request that was answered.
    pub(super) fn count(&self, counted: Counted) {
        self.shared.count(self.worker, counted, 1);
    }

    /// Notes who came and what report mode let pass. Answers what the request is counted by once its status is known: a
    /// request that met a rule with a key that is known.
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
        let agent = head.fields.first(Known::UserAgent);
        let Some(slot) = slot else {
            if let Some(Denial::InvalidKey(Rejection::Unknown)) = denial {
                self.shared.visit_of_nobody(self.worker, head.client, agent, now);
            }
            return None;
        };
        let visitor = Visitor {
            key: slot.id,
            kind: slot.kind,
            address: head.client,
            agent,
            is_browser_leak: matches!(denial, Some(Denial::SecretKeyInBrowser)),
            at: now,
        };
        self.shared.visit(self.worker, &visitor);
        if passage == Passage::Allowed {
            // Rules for other readings of the path let the key in as well: without their scopes it would be refused.
            for also in &verdict.also {
                self.shared.count(self.worker, Counted::new(slot.id, numbers.of(*also), passage, now), 0);
            }
        }
        Some(Counted::new(slot.id, rule, passage, now))
    }
}
