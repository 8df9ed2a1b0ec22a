//! One of every refusal there is, for claims about all of them.

use std::collections::BTreeSet;

use super::{Failure, Refusal};
use crate::authn::Rejection;
use crate::credential::Malformed;
use crate::domain::Scope;
use crate::gate::Denial;
use crate::limit::Policy;

/// What another room may say is wrong with a path or a message.
pub(super) const ODD: &str = "It is no \"path\", or has a \\ or an ü in it.";

/// Shows every refusal.
pub(crate) fn every_refusal(mut look: impl FnMut(Refusal<'_>)) {
    let scopes: Vec<Scope> = ["read:orders", "x"].map(|scope| scope.parse().unwrap()).into();
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
        Denial::InsufficientScope { required: scopes.clone(), missing: scopes[1..].to_vec() },
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
    let missing = |(all, seen): (usize, BTreeSet<usize>)| (0..all).find(|number| !seen.contains(number));
    assert_eq!(missing((DENIALS, denials.iter().map(number_of_denial).collect())), None);
    assert_eq!(missing((FAILURES, failures.iter().map(number_of_failure).collect())), None);
    denials.iter().map(Refusal::Denied).for_each(&mut look);
    failures.into_iter().map(Refusal::Failed).for_each(&mut look);
    for malformed in Malformed::ALL {
        look(Refusal::Denied(&Denial::InvalidRequest(malformed)));
    }
}

const DENIALS: usize = 17;

/// A new refusal does not compile until it has a number here, and fails until it is shown.
const fn number_of_denial(denial: &Denial) -> usize {
    match denial {
        Denial::BadPath { .. } => 0,
        Denial::NoRoute => 1,
        Denial::MethodNotAllowed { .. } => 2,
        Denial::MissingCredential => 3,
        Denial::InvalidRequest(_) => 4,
        Denial::InvalidKey(_) => 5,
        Denial::KindNotAllowed => 6,
        Denial::EnvironmentNotAllowed => 7,
        Denial::IpNotAllowed => 8,
        Denial::OriginNotAllowed => 9,
        Denial::SecretKeyInBrowser => 10,
        Denial::InsufficientScope { .. } => 11,
        Denial::RateLimited { .. } => 12,
        Denial::QuotaExceeded { .. } => 13,
        Denial::TooManyFailures { .. } => 14,
        Denial::AuthUnavailable => 15,
        Denial::LimitsUnavailable => DENIALS - 1,
    }
}

const FAILURES: usize = 12;

const fn number_of_failure(failure: &Failure) -> usize {
    match failure {
        Failure::BadRequest { .. } => 0,
        Failure::TargetTooLong => 1,
        Failure::HeadersTooLarge => 2,
        Failure::RequestTimeout => 3,
        Failure::BodyTooLarge => 4,
        Failure::ExpectationFailed => 5,
        Failure::KeyGone => 6,
        Failure::UpstreamUnreachable => 7,
        Failure::UpstreamTimeout => 8,
        Failure::UpstreamBusy => 9,
        Failure::Overloaded => 10,
        Failure::Internal => FAILURES - 1,
    }
}
