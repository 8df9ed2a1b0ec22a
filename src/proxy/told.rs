//! The outcome of a decision, in the words of those who count and note it.

use crate::gate::{Admission, Denial, Identity, Outcome, Verdict};
use crate::limit::Policy;
use crate::store::Passage;
use crate::telemetry::{DecisionResult, LimitLabel};

/// What became of a request, in the words of metrics and logs.
#[derive(Clone, Copy)]
pub(super) struct Told<'a> {
    pub(super) result: DecisionResult,
    pub(super) reason: &'static str,
    /// Why it was, or would have been, refused.
    pub(super) denial: Option<&'a Denial>,
}

impl<'a> Told<'a> {
    const ANONYMOUS: Self = Self::allowed("anonymous");
    const KEY: Self = Self::allowed("key");
    const PREFLIGHT: Self = Self::allowed("preflight");

    /// In the words of usage.
    pub(super) const fn passage(&self) -> Passage {
        match self.result {
            DecisionResult::Allowed => Passage::Allowed,
            DecisionResult::Refused => Passage::Refused,
            DecisionResult::Reported => Passage::Reported,
        }
    }

    const fn allowed(reason: &'static str) -> Self {
        Self { result: DecisionResult::Allowed, reason, denial: None }
    }

    const fn denied(result: DecisionResult, denial: &'a Denial) -> Self {
        Self { result, reason: denial.reason(), denial: Some(denial) }
    }

    /// Whether it is answered by us because of the decision.
    pub(super) const fn is_refused(&self) -> bool {
        matches!(self.result, DecisionResult::Refused)
    }

    /// Whether it is a preflight.
    pub(super) fn is_preflight(&self) -> bool {
        self.reason == Self::PREFLIGHT.reason
    }

    /// Of a request that is answered before anything was taken from a meter.
    pub(super) const fn of_outcome(verdict: &'a Verdict<'_>) -> Self {
        match &verdict.outcome {
            Outcome::Pass(_) if verdict.caller.slot().is_some() => Self::KEY,
            Outcome::Pass(_) => Self::ANONYMOUS,
            Outcome::Preflight => Self::PREFLIGHT,
            Outcome::Deny(denial) => Self::denied(DecisionResult::Refused, denial),
            Outcome::Report(denial) => Self::denied(DecisionResult::Reported, denial),
        }
    }

    /// Of any other.
    pub(super) const fn of_admission(admission: &'a Admission) -> Self {
        match admission {
            Admission::Refuse(denial) => Self::denied(DecisionResult::Refused, denial),
            Admission::Preflight => Self::PREFLIGHT,
            Admission::Forward(admitted) => match admitted.identity() {
                Identity::Key(_) => Self::KEY,
                Identity::Anonymous => Self::ANONYMOUS,
                Identity::Reported { denial, .. } => Self::denied(DecisionResult::Reported, denial),
            },
        }
    }
}

/// The limit that a request ran into, if it did.
pub(super) const fn limited_by(denial: &Denial) -> Option<Policy> {
    match denial {
        Denial::RateLimited { policy, .. } | Denial::QuotaExceeded { policy, .. } => Some(*policy),
        Denial::TooManyFailures { .. } => Some(Policy::Failures),
        _ => None,
    }
}

/// The word for a limit.
pub(super) const fn limit_label(policy: Policy) -> LimitLabel {
    match policy {
        Policy::Key => LimitLabel::Key,
        Policy::Owner => LimitLabel::Owner,
        Policy::Route => LimitLabel::Route,
        Policy::Failures => LimitLabel::Failures,
        Policy::KeyDay => LimitLabel::KeyDay,
        Policy::KeyMonth => LimitLabel::KeyMonth,
        Policy::OwnerDay => LimitLabel::OwnerDay,
        Policy::OwnerMonth => LimitLabel::OwnerMonth,
    }
}
