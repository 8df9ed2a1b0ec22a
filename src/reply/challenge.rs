//! `WWW-Authenticate` (RFC 9110 §11.6.1, RFC 6750 §3).

use std::borrow::Cow;

use super::facts::{ChallengeError, Facts};
use super::render::Audience;
use crate::credential::{Place, Scheme};
use crate::domain::FieldLines;

/// Adds one challenge for each scheme that the route accepts, and one of our own where it accepts none that has any.
pub(super) fn add(lines: &mut FieldLines, facts: &Facts<'_>, audience: &Audience<'_>) {
    if facts.challenge == ChallengeError::NoChallenge {
        return;
    }
    let realm = escaped(audience.realm);
    let mut challenge = |pieces: &[&[u8]]| lines.push_pieces(b"www-authenticate", pieces);
    let mut added = false;
    for place in audience.accept {
        let Place::Header { scheme: Some(scheme), .. } = place else { continue };
        match scheme {
            Scheme::Bearer => bearer(&realm, facts, &mut challenge),
            // A browser would ask its user for a password.
            Scheme::Basic if audience.is_browser => continue,
            Scheme::Basic => challenge(&[b"Basic realm=\"", realm.as_bytes(), b"\", charset=\"UTF-8\""]),
            Scheme::Named(name) => challenge(&[name.as_bytes(), b" realm=\"", realm.as_bytes(), b"\""]),
        }
        added = true;
    }
    if !added {
        challenge(&[b"ApiKey realm=\"", realm.as_bytes(), b"\""]);
    }
}

fn bearer(realm: &str, facts: &Facts<'_>, challenge: &mut impl FnMut(&[&[u8]])) {
    let error: &[u8] = match facts.challenge {
        ChallengeError::NoChallenge | ChallengeError::None => {
            return challenge(&[b"Bearer realm=\"", realm.as_bytes(), b"\""]);
        }
        ChallengeError::InvalidRequest => b"invalid_request",
        ChallengeError::InvalidToken => b"invalid_token",
        ChallengeError::InsufficientScope => b"insufficient_scope",
    };
    let realm = realm.as_bytes();
    if facts.required.is_empty() {
        return challenge(&[b"Bearer realm=\"", realm, b"\", error=\"", error, b"\""]);
    }
    let scopes: Vec<&str> = facts.required.iter().map(|scope| scope.as_str()).collect();
    let scopes = scopes.join(" ");
    challenge(&[b"Bearer realm=\"", realm, b"\", error=\"", error, b"\", scope=\"", scopes.as_bytes(), b"\""]);
}

/// What stands for a text within a quoted-string (RFC 9110 §5.6.4). Nearly every realm stands for itself.
fn escaped(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| !c.is_control() && !matches!(c, '"' | '\\');
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 2);
    for c in text.chars().filter(|c| !c.is_control()) {
        if !is_plain(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    Cow::Owned(escaped)
}
