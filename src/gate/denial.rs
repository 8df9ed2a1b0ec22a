//! Every way the decision can say no. Closed: whoever renders, counts or documents refusals names each one.

use http::Method;

use crate::authn::Rejection;
use crate::credential::Malformed;
use crate::domain::Scope;
use crate::limit::{Exceeded, Policy};

/// Why a request is not admitted (contract §4), with what the client may be told about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Denial {
    /// The path is ambiguous or malformed.
    BadPath {
        /// What is wrong with it, for the client.
        detail: &'static str,
    },
    /// No route covers host and path.
    NoRoute,
    /// A route covers host and path, but not the method.
    MethodNotAllowed {
        /// What the route answers to, for `Allow`.
        allow: Vec<Method>,
    },
    /// None of the accepted places holds a credential.
    MissingCredential,
    /// The accepted places hold something that is no single credential.
    InvalidRequest(Malformed),
    /// A well-formed credential that is not accepted. All causes look alike outside.
    InvalidKey(Rejection),
    /// The key's kind is not served here.
    KindNotAllowed,
    /// The route does not serve the key's environment.
    EnvironmentNotAllowed,
    /// The route does not serve the client's address, or the key is bound to other networks.
    IpNotAllowed,
    /// The key is bound to other pages than the one that sends it.
    OriginNotAllowed,
    /// A browser sent a secret key.
    SecretKeyInBrowser,
    /// The key is valid and lacks scopes.
    InsufficientScope {
        /// Everything the rule demands, for `scope="…"` and `required_scopes`.
        required: Vec<Scope>,
        /// What of it the key lacks; of an `any` demand, every alternative.
        missing: Vec<Scope>,
    },
    /// Too many requests in a short time.
    RateLimited {
        /// The limit that is in the way.
        policy: Policy,
        /// Seconds until a request is let through, at least 1.
        retry_after_seconds: u32,
    },
    /// The allowance of the day or month is used up.
    QuotaExceeded {
        /// The quota that is used up.
        policy: Policy,
        /// Seconds until it begins anew, at least 1.
        retry_after_seconds: u32,
    },
    /// Too many wrong credentials came from this address. No valid key ever meets it.
    TooManyFailures {
        /// Seconds until the next wrong one is answered with what is wrong with it, at least 1.
        retry_after_seconds: u32,
    },
    /// The key set is not loaded, or older than allowed. Our own trouble, never a 401.
    AuthUnavailable,
    /// The limits that a fleet shares cannot be asked, and the operator said that nothing is let through then.
    LimitsUnavailable,
}

impl From<&Exceeded> for Denial {
    fn from(exceeded: &Exceeded) -> Self {
        let Exceeded { policy, retry_after_seconds, .. } = *exceeded;
        if policy.is_quota() {
            Self::QuotaExceeded { policy, retry_after_seconds }
        } else {
            Self::RateLimited { policy, retry_after_seconds }
        }
    }
}

impl Denial {
    /// The truth in one word: log field, metric label and audit code. Never shown to clients.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::BadPath { .. } => "bad_path",
            Self::NoRoute => "no_route",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::MissingCredential => "missing_credential",
            Self::InvalidRequest(_) => "invalid_request",
            Self::InvalidKey(rejection) => rejection.reason(),
            Self::KindNotAllowed => "kind_not_allowed",
            Self::EnvironmentNotAllowed => "environment_not_allowed",
            Self::IpNotAllowed => "ip_not_allowed",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::SecretKeyInBrowser => "secret_key_in_browser",
            Self::InsufficientScope { .. } => "insufficient_scope",
            Self::RateLimited { .. } => "rate_limited",
            Self::QuotaExceeded { .. } => "quota_exceeded",
            Self::TooManyFailures { .. } => "too_many_failures",
            Self::AuthUnavailable => "auth_unavailable",
            Self::LimitsUnavailable => "limits_unavailable",
        }
    }

    /// Whether it says something about the credential, or its absence, and nothing about an accepted key.
    pub const fn concerns_credential(&self) -> bool {
        match self {
            Self::MissingCredential | Self::InvalidKey(_) | Self::InvalidRequest(_) | Self::TooManyFailures { .. } => {
                true
            }
            Self::BadPath { .. }
            | Self::NoRoute
            | Self::MethodNotAllowed { .. }
            | Self::KindNotAllowed
            | Self::EnvironmentNotAllowed
            | Self::IpNotAllowed
            | Self::OriginNotAllowed
            | Self::SecretKeyInBrowser
            | Self::InsufficientScope { .. }
            | Self::RateLimited { .. }
            | Self::QuotaExceeded { .. }
            | Self::AuthUnavailable
            | Self::LimitsUnavailable => false,
        }
    }

    /// Whether report mode lets the request go on: what 401, 403 or 429 would have refused.
    ///
    /// A key known to be bad goes on only where the operator said so (`report.known_bad`).
    pub const fn is_reportable(&self, known_bad: bool) -> bool {
        match self {
            Self::MissingCredential
            | Self::KindNotAllowed
            | Self::EnvironmentNotAllowed
            | Self::IpNotAllowed
            | Self::OriginNotAllowed
            | Self::SecretKeyInBrowser
            | Self::InsufficientScope { .. }
            | Self::RateLimited { .. }
            | Self::QuotaExceeded { .. } => true,
            Self::InvalidKey(rejection) => known_bad || !rejection.is_known_bad(),
            Self::BadPath { .. }
            | Self::NoRoute
            | Self::MethodNotAllowed { .. }
            | Self::InvalidRequest(_)
            | Self::TooManyFailures { .. }
            | Self::AuthUnavailable
            | Self::LimitsUnavailable => false,
        }
    }
}
