//! One of every refusal there is, for claims about all of them.

use super::{Failure, Refusal};
use crate::authn::Rejection;
use crate::credential::Malformed;
use crate::gate::Denial;
use crate::limit::Policy;

/// What another room may say is wrong.
pub(super) const ODD: &str = "It is no \"path\", or has a \\ or an ü in it.";

/// Shows every refusal, each detail from elsewhere an odd one.
pub(crate) fn every_refusal(mut look: impl FnMut(Refusal<'_>)) {
    let denials = [
        Denial::BadPath { detail: ODD },
        Denial::NoRoute,
        Denial::MethodNotAllowed { allow: Vec::new() },
        Denial::MissingCredential,
        Denial::InvalidRequest(Malformed::BadBasic),
        Denial::InvalidKey(Rejection::Unknown),
        Denial::KindNotAllowed,
        Denial::EnvironmentNotAllowed,
        Denial::IpNotAllowed,
        Denial::OriginNotAllowed,
        Denial::SecretKeyInBrowser,
        Denial::InsufficientScope { required: Vec::new(), missing: Vec::new() },
        Denial::RateLimited { policy: Policy::Key, retry_after_seconds: 1 },
        Denial::QuotaExceeded { policy: Policy::KeyDay, retry_after_seconds: 1 },
        Denial::TooManyFailures { retry_after_seconds: 1 },
        Denial::AuthUnavailable,
        Denial::LimitsUnavailable,
    ];
    let failures = [
        Failure::BadRequest { detail: ODD },
        Failure::TargetTooLong,
        Failure::HeadersTooLarge,
        Failure::RequestTimeout,
        Failure::BodyTooLarge,
        Failure::ExpectationFailed,
        Failure::KeyGone,
        Failure::UpstreamUnreachable,
        Failure::UpstreamTimeout,
        Failure::UpstreamBusy,
        Failure::Overloaded,
        Failure::Internal,
    ];
    denials.iter().map(Refusal::Denied).for_each(&mut look);
    failures.into_iter().map(Refusal::Failed).for_each(&mut look);
}
