//! The only effect of the decision, and the only mint of [`Admitted`].

use super::denial::Denial;
use super::judge::{Caller, Outcome, Verdict};
use crate::authn::Authenticated;
use crate::cache::KeySlot;

/// Leave to forward one request. Without it nothing is forwarded; only [`admit`] makes one.
#[derive(Debug)]
pub struct Admitted {
    how: How,
}

#[derive(Debug)]
enum How {
    Anonymous,
    Key(Authenticated),
    Reported(Denial, Option<KeySlot>),
}

/// In which capacity a request is forwarded.
#[derive(Clone, Copy, Debug)]
pub enum Identity<'a> {
    /// A public rule: no credential was looked at.
    Anonymous,
    /// A proven key.
    Key(&'a Authenticated),
    /// Report mode: it would have been refused. It carries no identity, and its credential stays.
    Reported {
        /// Why it would have been refused.
        denial: &'a Denial,
        /// The key, when one is known, for the log alone.
        slot: Option<&'a KeySlot>,
    },
}

impl Admitted {
    /// In which capacity.
    pub const fn identity(&self) -> Identity<'_> {
        match &self.how {
            How::Anonymous => Identity::Anonymous,
            How::Key(authenticated) => Identity::Key(authenticated),
            How::Reported(denial, slot) => Identity::Reported { denial, slot: slot.as_ref() },
        }
    }
}

/// What a verdict becomes.
#[derive(Debug)]
pub enum Admission {
    /// Forward it.
    Forward(Admitted),
    /// Answer the preflight.
    Preflight,
    /// Refuse it.
    Refuse(Denial),
}

/// Turns a decision into leave to forward, taking from every meter that applies.
pub fn admit(outcome: Outcome, caller: &Caller) -> Admission {
    match (outcome, caller) {
        (Outcome::Deny(denial), _) => Admission::Refuse(denial),
        (Outcome::Preflight, _) => Admission::Preflight,
        (Outcome::Report(denial), caller) => {
            Admission::Forward(Admitted { how: How::Reported(denial, caller.slot().copied()) })
        }
        (Outcome::Pass(_), Caller::Key(authenticated)) => {
            Admission::Forward(Admitted { how: How::Key(*authenticated) })
        }
        (Outcome::Pass(_), Caller::Anonymous | Caller::Refused(_)) => {
            Admission::Forward(Admitted { how: How::Anonymous })
        }
    }
}

impl Verdict<'_> {
    /// [`admit`] for a verdict whose other parts are still needed: leaves a refusal in its place.
    pub fn take_admission(&mut self) -> Admission {
        let outcome = std::mem::replace(&mut self.outcome, Outcome::Deny(Denial::AuthUnavailable));
        admit(outcome, &self.caller)
    }
}
