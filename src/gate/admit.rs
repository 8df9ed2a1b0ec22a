//! The only effect of the decision, and the only mint of [`Admitted`].

use std::net::IpAddr;

use super::denial::Denial;
use super::judge::{Caller, Outcome, Verdict};
use super::snapshot::Snapshot;
use crate::authn::Authenticated;
use crate::cache::{KeySet, KeySlot};
use crate::limit::{Awaited, Charge, Meters, Moment, Patience, Standings, Withheld};

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

/// A verdict, held against the meters.
#[derive(Debug)]
pub struct Decided {
    /// What becomes of the request.
    pub admission: Admission,
    /// Where its caller stands with every limit that applies; empty where none does.
    pub standings: Standings,
}

/// Turns a decision into leave to forward: takes from every meter that applies, or from none. What is refused, or would
/// be in report mode, takes nothing.
///
/// Leaves a refusal in the verdict's place; its other parts are as they were. Never waits: where a fleet shares its meters,
/// those of this node decide, and the others hear of it.
pub fn admit(
    verdict: &mut Verdict<'_>,
    snapshot: &Snapshot,
    keys: &KeySet,
    client: Option<IpAddr>,
    meters: &Meters,
    now: Moment,
) -> Decided {
    admit_with(Patience::Credit, verdict, snapshot, keys, client, meters, now).unwrap_or_else(|_| Decided {
        admission: Admission::Refuse(Denial::LimitsUnavailable),
        standings: Standings::new(),
    })
}

/// As [`admit`], for a request that may wait for what other nodes have to say of its limits.
///
/// # Errors
/// When it has to wait: nothing was taken, and it is to be judged again.
pub fn admit_with(
    patience: Patience,
    verdict: &mut Verdict<'_>,
    snapshot: &Snapshot,
    keys: &KeySet,
    client: Option<IpAddr>,
    meters: &Meters,
    now: Moment,
) -> Result<Decided, Awaited> {
    let untouched = |admission| Decided { admission, standings: Standings::new() };
    Ok(match std::mem::replace(&mut verdict.outcome, Outcome::Deny(Denial::AuthUnavailable)) {
        Outcome::Deny(denial) => untouched(Admission::Refuse(snapshot.shielded(denial, client, meters, now))),
        Outcome::Preflight => untouched(Admission::Preflight),
        Outcome::Report(denial) => untouched(Admission::Forward(reported(denial, &verdict.caller))),
        Outcome::Pass(_) => {
            let charges = snapshot.charges(verdict, keys, client);
            if charges.is_empty() {
                untouched(admitted(&verdict.caller))
            } else {
                metered(verdict, &charges, meters, now, patience)?
            }
        }
    })
}

fn metered(
    verdict: &Verdict<'_>,
    charges: &[Charge],
    meters: &Meters,
    now: Moment,
    patience: Patience,
) -> Result<Decided, Awaited> {
    Ok(match meters.draw(charges, now, patience) {
        Ok(standings) => Decided { admission: admitted(&verdict.caller), standings },
        Err(Withheld::Awaited(awaited)) => return Err(awaited),
        Err(Withheld::Unavailable) => {
            Decided { admission: Admission::Refuse(Denial::LimitsUnavailable), standings: Standings::new() }
        }
        Err(Withheld::Exceeded(exceeded)) => {
            let denial = Denial::from(&exceeded);
            let admission = if verdict.reports {
                Admission::Forward(reported(denial, &verdict.caller))
            } else {
                Admission::Refuse(denial)
            };
            Decided { admission, standings: exceeded.standings }
        }
    })
}

fn admitted(caller: &Caller) -> Admission {
    let how = match caller {
        Caller::Key(authenticated) => How::Key(*authenticated),
        Caller::Anonymous | Caller::Refused(_) => How::Anonymous,
    };
    Admission::Forward(Admitted { how })
}

fn reported(denial: Denial, caller: &Caller) -> Admitted {
    Admitted { how: How::Reported(denial, caller.slot().copied()) }
}
