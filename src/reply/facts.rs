//! What each refusal is to a client: status, code, words, challenge. No `_` arm: a new refusal does not compile
//! until it is said here.

use http::StatusCode;

use super::failure::Failure;
use crate::domain::Scope;
use crate::gate::Denial;

/// Anything that is answered by us instead of the upstream.
#[derive(Clone, Copy, Debug)]
pub enum Refusal<'a> {
    /// The decision said no.
    Denied(&'a Denial),
    /// Something around the decision went wrong.
    Failed(Failure),
}

/// The error attribute of a challenge (RFC 6750 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ChallengeError {
    /// No challenge at all.
    NoChallenge,
    /// A challenge without error: nothing was presented.
    None,
    /// `invalid_request`.
    InvalidRequest,
    /// `invalid_token`.
    InvalidToken,
    /// `insufficient_scope`.
    InsufficientScope,
}

/// What a client is told about a refusal.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The HTTP status.
    pub status: StatusCode,
    /// The contract's code.
    pub code: &'static str,
    /// One short sentence that is the same every time.
    pub title: &'static str,
    /// What to do next.
    pub detail: &'static str,
    /// Scopes the rule demands; empty unless the refusal is about scopes.
    pub required: &'a [Scope],
    /// Scopes the key lacks.
    pub missing: &'a [Scope],
    /// Seconds for `Retry-After`.
    pub retry_after_seconds: Option<u32>,
    /// Whether `detail` is worded in this file, where every text is one that JSON need not escape.
    pub(super) is_worded_here: bool,
    pub(super) challenge: ChallengeError,
}

impl<'a> Refusal<'a> {
    /// The truth in one word, for logs and metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Denied(denial) => denial.reason(),
            Self::Failed(failure) => failure.code(),
        }
    }

    /// What the client is told.
    pub fn facts(self) -> Facts<'a> {
        match self {
            Self::Denied(denial) => of_denial(denial),
            Self::Failed(failure) => of_failure(failure),
        }
    }
}

fn plain<'a>(status: StatusCode, code: &'static str, title: &'static str, detail: &'static str) -> Facts<'a> {
    Facts {
        status,
        code,
        title,
        detail,
        required: &[],
        missing: &[],
        retry_after_seconds: None,
        is_worded_here: true,
        challenge: ChallengeError::NoChallenge,
    }
}

/// The same with a detail that whoever refuses has worded.
fn worded<'a>(status: StatusCode, code: &'static str, title: &'static str, detail: &'static str) -> Facts<'a> {
    Facts { is_worded_here: false, ..plain(status, code, title, detail) }
}

fn of_denial(denial: &Denial) -> Facts<'_> {
    use ChallengeError as C;
    use StatusCode as S;
    match denial {
        Denial::BadPath { detail } => worded(S::BAD_REQUEST, "bad_path", "The path has no single meaning", detail),
        Denial::NoRoute => plain(S::NOT_FOUND, "no_route", "No such route", "Nothing is published at this address."),
        Denial::MethodNotAllowed { .. } => plain(
            S::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "Method not allowed",
            "This address does not answer this method; see the Allow header.",
        ),
        Denial::MissingCredential => Facts {
            challenge: C::None,
            ..plain(S::UNAUTHORIZED, "missing_credential", "A credential is required", "Send your API key.")
        },
        Denial::InvalidRequest(malformed) => Facts {
            challenge: C::InvalidRequest,
            ..worded(S::BAD_REQUEST, "invalid_request", "The credential is malformed", malformed.detail())
        },
        // Unknown, revoked, disabled, expired, suspended: one answer, to the byte.
        Denial::InvalidKey(_) => invalid_key(),
        Denial::KindNotAllowed => plain(
            S::FORBIDDEN,
            "kind_not_allowed",
            "Wrong kind of key",
            "Keys of this kind cannot do this here: management keys are for the management API alone, which takes no \
             others, and publishable keys for methods that change nothing.",
        ),
        Denial::EnvironmentNotAllowed => plain(
            S::FORBIDDEN,
            "environment_not_allowed",
            "Wrong environment",
            "Keys of this environment are not served at this address.",
        ),
        Denial::IpNotAllowed => {
            plain(S::FORBIDDEN, "ip_not_allowed", "Address not allowed", "Your network is not allowed here.")
        }
        Denial::OriginNotAllowed => plain(
            S::FORBIDDEN,
            "origin_not_allowed",
            "Origin not allowed",
            "The key is for certain pages, and the request comes from none of them.",
        ),
        Denial::SecretKeyInBrowser => plain(
            S::FORBIDDEN,
            "secret_key_in_browser",
            "A secret key was sent by a browser",
            "Secret keys belong on servers: a key in a web page is public. Revoke it, and use a publishable key.",
        ),
        Denial::InsufficientScope { required, missing } => Facts {
            challenge: C::InsufficientScope,
            required,
            missing,
            ..plain(
                S::FORBIDDEN,
                "insufficient_scope",
                "The key lacks a scope",
                "The key is valid but does not hold the scopes in missing_scopes.",
            )
        },
        Denial::RateLimited { retry_after_seconds, .. } => Facts {
            retry_after_seconds: Some(*retry_after_seconds),
            ..plain(
                S::TOO_MANY_REQUESTS,
                "rate_limited",
                "Too many requests",
                "Wait as long as Retry-After says, and spread requests out.",
            )
        },
        Denial::QuotaExceeded { retry_after_seconds, .. } => Facts {
            retry_after_seconds: Some(*retry_after_seconds),
            ..plain(
                S::TOO_MANY_REQUESTS,
                "quota_exceeded",
                "The quota is used up",
                "The allowance of the day or month is used up. Retry-After says when it begins anew.",
            )
        },
        Denial::TooManyFailures { retry_after_seconds } => Facts {
            retry_after_seconds: Some(*retry_after_seconds),
            ..plain(
                S::TOO_MANY_REQUESTS,
                "too_many_failures",
                "Too many wrong keys",
                "Too many keys that are not valid came from this address. A valid key is accepted at any time.",
            )
        },
        Denial::AuthUnavailable => Facts {
            retry_after_seconds: Some(1),
            ..plain(
                S::SERVICE_UNAVAILABLE,
                "auth_unavailable",
                "Keys cannot be checked right now",
                "Try again; your key is not at fault.",
            )
        },
        Denial::LimitsUnavailable => Facts {
            retry_after_seconds: Some(1),
            ..plain(
                S::SERVICE_UNAVAILABLE,
                "limits_unavailable",
                "Limits cannot be checked right now",
                "Try again; neither your key nor your use of it is at fault.",
            )
        },
    }
}

fn invalid_key() -> Facts<'static> {
    Facts {
        challenge: ChallengeError::InvalidToken,
        ..plain(
            StatusCode::UNAUTHORIZED,
            "invalid_key",
            "The key is not valid",
            "The key is unknown, expired, disabled or revoked. Check it, or ask its issuer for a new one.",
        )
    }
}

fn of_failure(failure: Failure) -> Facts<'static> {
    use StatusCode as S;
    let code = failure.code();
    match failure {
        Failure::BadRequest { detail } => worded(S::BAD_REQUEST, code, "The request has no single meaning", detail),
        Failure::TargetTooLong => {
            plain(S::URI_TOO_LONG, code, "The request target is too long", "Shorten the path or the query.")
        }
        Failure::HeadersTooLarge => plain(
            S::REQUEST_HEADER_FIELDS_TOO_LARGE,
            code,
            "The request head is too large",
            "Send fewer or smaller header fields.",
        ),
        Failure::RequestTimeout => plain(
            S::REQUEST_TIMEOUT,
            code,
            "The request did not arrive in time",
            "Send the request again, without pauses.",
        ),
        Failure::BodyTooLarge => {
            plain(S::PAYLOAD_TOO_LARGE, code, "The request body is too large", "Send a smaller body.")
        }
        Failure::ExpectationFailed => plain(
            S::EXPECTATION_FAILED,
            code,
            "Unknown expectation",
            "The only expectation understood here is 100-continue.",
        ),
        Failure::KeyGone => invalid_key(),
        Failure::UpstreamUnreachable => plain(
            S::BAD_GATEWAY,
            code,
            "The service did not answer properly",
            "The service behind this address could not be reached or broke off. Try again later.",
        ),
        Failure::UpstreamTimeout => plain(
            S::GATEWAY_TIMEOUT,
            code,
            "The service did not answer in time",
            "The service behind this address took too long. Try again later.",
        ),
        Failure::UpstreamBusy => Facts {
            retry_after_seconds: Some(1),
            ..plain(
                S::SERVICE_UNAVAILABLE,
                code,
                "The service is busy",
                "All connections to the service behind this address are in use. Try again.",
            )
        },
        Failure::Overloaded => Facts {
            retry_after_seconds: Some(1),
            ..plain(
                S::SERVICE_UNAVAILABLE,
                code,
                "There is too much to do",
                "More is under way than there is room for. Try again.",
            )
        },
        Failure::Internal => plain(
            S::INTERNAL_SERVER_ERROR,
            code,
            "Something went wrong here",
            "This is a fault of the gateway. Report it with the request id.",
        ),
    }
}
