//! Taking the credential out of every accepted place, so that no upstream ever sees it.

use http::header::{COOKIE, Entry, HeaderMap};
use http::{HeaderName, HeaderValue};

use super::locate::{after_scheme, cookies, is_named, parameters};
use super::location::{Place, Scheme};

/// Empties the accepted places of `headers`. Values of schemes that are not accepted stay.
pub fn strip_headers(headers: &mut HeaderMap, accept: &[Place]) {
    for place in accept {
        match place {
            Place::Header { name, scheme: None } => {
                headers.remove(name);
            }
            Place::Header { name, scheme: Some(scheme) } => strip_scheme(headers, name, scheme),
            Place::Cookie { name } => strip_cookie(headers, name),
            Place::Query { .. } => {}
        }
    }
}

/// `query` without the accepted parameters; `None` when it holds none of them. The rest stays byte for byte.
pub fn strip_query(query: &str, accept: &[Place]) -> Option<String> {
    let is_credential = |parameter: &str| {
        accept.iter().any(|place| match place {
            Place::Query { name } => is_named(parameter, name),
            Place::Header { .. } | Place::Cookie { .. } => false,
        })
    };
    parameters(query).any(is_credential).then(|| {
        let kept: Vec<&str> = query.split('&').filter(|piece| !is_credential(piece)).collect();
        kept.join("&")
    })
}

fn strip_scheme(headers: &mut HeaderMap, name: &HeaderName, scheme: &Scheme) {
    let speaks_it = |value: &HeaderValue| value.is_empty() || after_scheme(value.as_bytes(), scheme).is_some();
    let Entry::Occupied(entry) = headers.entry(name) else { return };
    if entry.iter().all(speaks_it) {
        entry.remove_entry_mult();
        return;
    }
    let kept: Vec<HeaderValue> = entry.iter().filter(|value| !speaks_it(value)).cloned().collect();
    entry.remove_entry_mult();
    for value in kept {
        headers.append(name, value);
    }
}

fn strip_cookie(headers: &mut HeaderMap, name: &str) {
    if !cookies(headers).any(|(cookie, _)| cookie == name.as_bytes()) {
        return;
    }
    let mut kept = Vec::new();
    for (cookie, value) in cookies(headers).filter(|(cookie, _)| *cookie != name.as_bytes()) {
        if !kept.is_empty() {
            kept.extend_from_slice(b"; ");
        }
        if !cookie.is_empty() {
            kept.extend_from_slice(cookie);
            kept.push(b'=');
        }
        kept.extend_from_slice(value);
    }
    headers.remove(COOKIE);
    if !kept.is_empty()
        && let Ok(value) = HeaderValue::from_bytes(&kept)
    {
        headers.insert(COOKIE, value);
    }
}
