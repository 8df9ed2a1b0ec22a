//! What is written down of a refusal, once its answer is out and others had their turn.
//!
//! Counters, names and tables depend on the key that was shown, and to look them up takes time that the one who shows it
//! can measure. So what is noted before the answer is the same for every key, and all else waits for the end of its
//! [`Exchange`], which comes when the worker has nothing more urgent to do: a client that sends several requests in one
//! piece gets all answers first. What is taken along for then is copied, as the request is gone by that time.

use std::cell::RefCell;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use smallvec::SmallVec;
use tokio::sync::Notify;

use super::live::Current;
use super::noting::{Came, WorkerTally};
use super::observed::Exchange;
use super::shelf::{Shelf, Shelved};
use super::told::{Told, limited_by};
use crate::authn::Rejection;
use crate::cache::KeySlot;
use crate::domain::{KeyId, Known, OwnerId, Timestamp};
use crate::gate::{Denial, RequestHead, Snapshot, Verdict};
use crate::limit::Policy;
use crate::store::Passage;
use crate::usage::{Counted, MAX_AGENT_BYTES, RuleName};

/// Refusals of one worker whose answers are out. There are no more than it can answer in one turn.
#[derive(Default)]
pub(crate) struct Afterwards {
    waiting: RefCell<Vec<Shelved<Exchange>>>,
    exchanges: Shelf<Exchange>,
    some: Notify,
}

impl Afterwards {
    /// Takes an observation that goes on with an answer.
    pub(super) fn hold(&self, exchange: Exchange) -> Shelved<Exchange> {
        self.exchanges.boxed(exchange)
    }

    /// Ends the observation of a refusal whose answer is out, or on its way, when there is time.
    pub(crate) fn end(&self, mut shelved: Shelved<Exchange>) {
        if let Some(exchange) = shelved.value() {
            exchange.is_answered();
        }
        let mut waiting = self.waiting.borrow_mut();
        waiting.push(shelved);
        if waiting.len() == 1 {
            self.some.notify_one();
        }
    }

    /// Ends what waits whenever all who are ready have had their turn. For ever.
    pub(crate) async fn run(&self) {
        loop {
            self.some.notified().await;
            // HTTP/2 answers are written by their connection, in a turn of its own.
            tokio::task::yield_now().await;
            self.end_all();
        }
    }

    /// Ends what waits now.
    pub(crate) fn end_all(&self) {
        for exchange in self.waiting.borrow_mut().drain(..) {
            // A panic costs what is written down of this one.
            let _ended = std::panic::catch_unwind(AssertUnwindSafe(|| self.exchanges.end(exchange)));
        }
    }
}

/// A refusal that is not written down yet.
pub(super) struct Aftermath {
    /// The key, if it is known.
    slot: Option<KeySlot>,
    rule: Option<RuleName>,
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
        current: &Current,
        head: &RequestHead<'_>,
        verdict: &Verdict<'_>,
        told: Told<'_>,
        at: Timestamp,
    ) -> Self {
        let agent = head.fields.first(Known::UserAgent);
        Self {
            slot: verdict.caller.slot().copied(),
            rule: verdict.rule.map(|rule| current.plan.rule_numbers.of(rule)),
            is_of_nobody: matches!(told.denial, Some(Denial::InvalidKey(Rejection::Unknown))),
            is_browser_leak: matches!(told.denial, Some(Denial::SecretKeyInBrowser)),
            client: head.client,
            agent: agent.map(|agent| SmallVec::from_slice(&agent[..agent.len().min(MAX_AGENT_BYTES)])),
            at,
            reason: told.reason,
            limit: told.denial.and_then(limited_by),
        }
    }

    /// The names of the key, if it is known, where they are looked up when it is written down: no generation of the
    /// configuration lives for as long as a refusal is on its way to somebody slow. Numbers mean the same in all of them.
    pub(super) fn caller<'a>(&self, gate: &'a Snapshot) -> Option<RefusedCaller<'a>> {
        let slot = self.slot.as_ref()?;
        Some(RefusedCaller {
            key_id: slot.id,
            owner: slot.owner.and_then(|owner| gate.directory.owner(owner)).map(|owner| owner.id),
            environment: gate.environment(slot.environment).map(|environment| &environment.name),
        })
    }

    /// Notes who came. Answers what the request is counted by: one that met a rule with a key that is known.
    pub(super) fn note_in(&self, tally: &WorkerTally) -> Option<Counted> {
        let rule = self.rule?;
        let came = Came {
            client: self.client,
            agent: self.agent.as_deref(),
            is_browser_leak: self.is_browser_leak,
            is_accepted: false,
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
