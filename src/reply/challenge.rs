//! `WWW-Authenticate` (RFC 9110 §11.6.1, RFC 6750 §3).

use http::HeaderValue;
use http::header::{HeaderMap, WWW_AUTHENTICATE};

use super::facts::{ChallengeError, Facts};
use super::render::Audience;
use crate::credential::{Place, Scheme};

/// Adds one challenge for each scheme that the route accepts, and one of our own where it accepts none that has any.
pub(super) fn add(headers: &mut HeaderMap, facts: &Facts<'_>, audience: &Audience<'_>) {
    if facts.challenge == ChallengeError::NoChallenge {
        return;
    }
    let realm = quoted(audience.realm);
    let mut added = false;
    for place in audience.accept {
        let Place::Header { scheme: Some(scheme), .. } = place else { continue };
        let challenge = match scheme {
            Scheme::Bearer => bearer(&realm, facts),
            // A browser would ask its user for a password.
            Scheme::Basic if audience.is_browser => continue,
            Scheme::Basic => format!("Basic realm={realm}, charset=\"UTF-8\""),
            Scheme::Named(name) => format!("{name} realm={realm}"),
        };
        added |= append(headers, &challenge);
    }
    if !added {
        append(headers, &format!("ApiKey realm={realm}"));
    }
}

fn bearer(realm: &str, facts: &Facts<'_>) -> String {
    let error = match facts.challenge {
        ChallengeError::NoChallenge | ChallengeError::None => return format!("Bearer realm={realm}"),
        ChallengeError::InvalidRequest => "invalid_request",
        ChallengeError::InvalidToken => "invalid_token",
        ChallengeError::InsufficientScope => "insufficient_scope",
    };
    let mut challenge = format!("Bearer realm={realm}, error=\"{error}\"");
    if !facts.required.is_empty() {
        let scopes: Vec<&str> = facts.required.iter().map(|scope| scope.as_str()).collect();
        challenge.push_str(&format!(", scope=\"{}\"", scopes.join(" ")));
    }
    challenge
}

fn append(headers: &mut HeaderMap, challenge: &str) -> bool {
    HeaderValue::from_str(challenge).map(|value| headers.append(WWW_AUTHENTICATE, value)).is_ok()
}

/// A quoted-string (RFC 9110 §5.6.4).
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}
