//! `auth`: who is believed, and where a key may travel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE};
use ipnet::IpNet;

use super::super::diagnostic::{Code, Findings, Problem};
use super::super::file::routes::PlaceFile;
use super::super::file::{AuthFile, Catalogue, File};
use super::super::shape::{At, Listed};
use super::catalogue;
use super::forward::is_framing;
use super::{HOUR, Marks, SECOND, flag, span, staleness};
use crate::credential::{Place, Scheme};
use crate::domain::key_text::Brand;
use crate::domain::secret::{MAX_PEPPERS, MIN_PEPPER_BYTES};
use crate::domain::{KeyHasher, Pepper};
use crate::gate::{Environment, Staleness};

/// The settings of `auth` and `environments`.
pub(super) struct AuthParts {
    pub(super) brand: Brand,
    pub(super) hasher: Arc<KeyHasher>,
    pub(super) realm: String,
    pub(super) trusted_proxies: Vec<IpNet>,
    pub(super) hide_routes: bool,
    pub(super) browser_guard: bool,
    pub(super) open_catalogue: bool,
    pub(super) recheck_interval: Duration,
    pub(super) staleness: Staleness,
    pub(super) accept: Vec<Place>,
    pub(super) environments: BTreeMap<String, Environment>,
}

impl AuthParts {
    pub(super) fn read(file: &File, marks: &mut Marks, findings: &mut Findings) -> Self {
        let auth = file.auth.0.as_ref();
        let accept = auth.and_then(|auth| auth.accept.as_ref());
        let trusted = auth.and_then(|auth| auth.trusted_proxies.as_ref());
        for net in trusted.into_iter().flat_map(Listed::iter).filter(|net| net.value.prefix_len() == 0) {
            marks.weakened.push((net.at, "every client is a trusted proxy and may claim any address".to_owned()));
        }
        Self {
            brand: auth.and_then(|auth| auth.brand.clone()).unwrap_or_default(),
            hasher: Arc::new(hasher(auth, findings)),
            staleness: staleness(file.sync.0.as_ref(), marks, findings),
            realm: realm(auth, findings),
            trusted_proxies: trusted.into_iter().flat_map(Listed::iter).map(|net| net.value).collect(),
            hide_routes: auth.and_then(|auth| auth.hide_routes).unwrap_or(false),
            browser_guard: flag(auth.and_then(|auth| auth.browser_guard.as_ref()), true, |at| {
                marks.weakened.push((at, "secret keys that leak into web pages keep working there".to_owned()));
            }),
            open_catalogue: auth
                .and_then(|auth| auth.catalogue.as_ref())
                .is_some_and(|catalogue| catalogue.value == Catalogue::Open),
            recheck_interval: span(
                auth.and_then(|auth| auth.recheck_interval.as_ref()),
                10 * SECOND,
                SECOND..=HOUR,
                findings,
            ),
            accept: accept.map_or_else(Place::defaults, |accept| places(&accept.value, Query::Refused, findings)),
            environments: catalogue::environments(file, findings),
        }
    }
}

fn realm(auth: Option<&AuthFile>, findings: &mut Findings) -> String {
    let Some(realm) = auth.and_then(|auth| auth.realm.as_ref()) else { return "portcullis".to_owned() };
    let text = &realm.value.0;
    if text.is_empty() || !text.bytes().all(|b| (b == b' ' || b.is_ascii_graphic()) && !b"\"\\".contains(&b)) {
        let problem = Problem::new(
            Code::BadValue,
            realm.at,
            format!("{:?} cannot stand in a challenge", findings.written(realm.at)),
        );
        findings.note(problem.fix("Use visible ASCII without quotes and backslashes"));
    }
    text.clone()
}

fn hasher(auth: Option<&AuthFile>, findings: &mut Findings) -> KeyHasher {
    let Some(list) = auth.and_then(|auth| auth.peppers.as_ref()) else { return KeyHasher::default() };
    if list.value.0.len() > MAX_PEPPERS {
        let message = format!("more than {MAX_PEPPERS} peppers");
        let fix = "Keep the current one and the one it replaces; keys made with others have to be rotated first";
        findings.note(Problem::new(Code::BadValue, list.at, message).fix(fix));
        return KeyHasher::default();
    }
    let mut peppers = Vec::new();
    for (index, At { value: pepper, .. }) in list.value.0.iter().enumerate() {
        if let Some(first) = list.value.0[..index].iter().find(|first| first.value.id.value == pepper.id.value) {
            let problem = Problem::new(
                Code::Duplicate,
                pepper.id.at,
                format!("two peppers are called `{}`", findings.written(pepper.id.at)),
            );
            findings.note(problem.label(first.value.id.at, "the first one").fix("Give each its own id"));
        }
        match Pepper::new(pepper.id.value.0.clone(), pepper.secret.value.0.clone().into_bytes()) {
            Some(pepper) => peppers.push(pepper),
            None => {
                let message = format!("this secret is shorter than {MIN_PEPPER_BYTES} bytes");
                let problem = Problem::new(Code::BadValue, pepper.secret.at, message);
                findings.note(problem.fix("Make one with `openssl rand -hex 32`, and refer to it as ${file:PATH}"));
            }
        }
    }
    KeyHasher::new(peppers).unwrap_or_default()
}

/// Whether a key may travel in a query parameter here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Query {
    /// On a route, where someone chose it for one API.
    Allowed,
    /// For all routes at once: URLs end up in logs and histories.
    Refused,
}

/// An `accept` list.
pub(super) fn places(list: &Listed<PlaceFile>, query: Query, findings: &mut Findings) -> Vec<Place> {
    let mut places: Vec<(Place, super::super::place::PlaceId)> = Vec::new();
    for At { value, at } in list.iter() {
        let Some(place) = place(value, *at, query, findings) else { continue };
        if let Some((first, first_at)) = places.iter().find(|(first, _)| overlap(first, &place)) {
            let message = if *first == place {
                "this place stands twice"
            } else {
                "the same field with and without a scheme has two readings"
            };
            findings
                .note(Problem::new(Code::Conflict, *at, message).label(*first_at, "the first one").fix("Remove one"));
            continue;
        }
        places.push((place, *at));
    }
    places.into_iter().map(|(place, _)| place).collect()
}

fn overlap(first: &Place, second: &Place) -> bool {
    match (first, second) {
        (Place::Header { name: a, scheme: one }, Place::Header { name: b, scheme: other }) => {
            let same = |one: &Scheme, other: &Scheme| one.name().eq_ignore_ascii_case(other.name());
            a == b && one.as_ref().zip(other.as_ref()).is_none_or(|(one, other)| same(one, other))
        }
        (Place::Pair { id, secret }, Place::Header { name, .. })
        | (Place::Header { name, .. }, Place::Pair { id, secret }) => name == id || name == secret,
        (Place::Pair { id: a, secret: b }, Place::Pair { id: c, secret: d }) => a == c || a == d || b == c || b == d,
        (Place::Cookie { name: a }, Place::Cookie { name: b })
        | (Place::Query { name: a }, Place::Query { name: b }) => a == b,
        (Place::Header { .. } | Place::Pair { .. } | Place::Cookie { .. } | Place::Query { .. }, _) => false,
    }
}

fn place(file: &PlaceFile, at: super::super::place::PlaceId, query: Query, findings: &mut Findings) -> Option<Place> {
    let PlaceFile { header, scheme, secret, cookie, query: parameter } = file;
    if let (Some(scheme), None) = (scheme, header) {
        let problem = Problem::new(Code::Conflict, scheme.at, "only a header field has a scheme");
        findings.note(problem.fix("Add `header: Authorization`, or remove `scheme`"));
        return None;
    }
    if let Some(secret) = secret {
        let (Some(header), None) = (header, scheme) else {
            let problem = Problem::new(Code::Conflict, secret.at, "a secret travels beside the id in a `header`");
            findings.note(problem.fix("Write { header: X-API-Key, secret: X-API-Secret }"));
            return None;
        };
        let (id, secret) = (header_place(header, None, findings)?, header_place(secret, None, findings)?);
        return match (id, secret) {
            (Place::Header { name: id, .. }, Place::Header { name: secret, .. }) if id != secret => {
                Some(Place::Pair { id, secret })
            }
            _ => {
                let problem = Problem::new(Code::Conflict, at, "id and secret need a field each");
                findings.note(problem.fix("Write { header: X-API-Key, secret: X-API-Secret }"));
                None
            }
        };
    }
    match (header, cookie, parameter) {
        (Some(header), None, None) => header_place(header, scheme.as_ref(), findings),
        (None, Some(name), None) => {
            if name.value.is_empty() || !name.value.bytes().all(is_token) {
                let message = format!("{:?} is no name of a cookie (RFC 6265 §4.1.1)", findings.written(name.at));
                findings.note(Problem::new(Code::BadValue, name.at, message).fix("Use letters, digits, `-` and `_`"));
                return None;
            }
            Some(Place::Cookie { name: name.value.clone() })
        }
        (None, None, Some(name)) => {
            if query == Query::Refused {
                let message = "a key in the query is accepted on single routes only: URLs end up in logs and histories";
                let problem = Problem::new(Code::Conflict, name.at, message);
                findings.note(problem.fix("Move it to `accept` of the routes that need it"));
                return None;
            }
            if name.value.is_empty() || name.value.chars().any(char::is_control) {
                let message = "this is no name of a query parameter";
                findings.note(Problem::new(Code::BadValue, name.at, message).fix("Write one such as api_key"));
                return None;
            }
            Some(Place::Query { name: name.value.clone() })
        }
        (None, None, None) => {
            let problem = Problem::new(Code::MissingField, at, "this entry names no place");
            findings.note(problem.fix("Write { header: N }, { cookie: N } or, on a route, { query: N }"));
            None
        }
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
            let problem = Problem::new(Code::Conflict, at, "this entry names several places");
            findings.note(problem.fix("Write one entry for each"));
            None
        }
    }
}

fn header_place(header: &At<HeaderName>, scheme: Option<&At<String>>, findings: &mut Findings) -> Option<Place> {
    let name = &header.value;
    if name == COOKIE {
        let problem = Problem::new(Code::BadValue, header.at, "the Cookie field holds many cookies");
        findings.note(problem.fix("Write { cookie: N } with the name of one"));
        return None;
    }
    if is_framing(name) || name.as_str().starts_with("x-portcullis-") {
        let message = format!(
            "`{}` cannot carry a key: it belongs to the connection or to the gateway",
            findings.written(header.at)
        );
        findings.note(Problem::new(Code::BadValue, header.at, message).fix("Use Authorization or X-API-Key"));
        return None;
    }
    if let Some(scheme) = scheme
        && (scheme.value.is_empty() || !scheme.value.bytes().all(is_token))
    {
        let message = format!("{:?} is no scheme (RFC 9110 §11.1)", findings.written(scheme.at));
        findings
            .note(Problem::new(Code::BadValue, scheme.at, message).fix("Write Bearer, Basic or another single word"));
        return None;
    }
    let scheme = scheme.map(|scheme| Scheme::from_name(&scheme.value));
    if name == AUTHORIZATION && scheme.is_none() {
        let problem = Problem::new(Code::BadValue, header.at, "Authorization begins with a scheme (RFC 9110 §11.6.2)");
        findings.note(problem.fix("Add `scheme: Bearer`"));
        return None;
    }
    Some(Place::Header { name: name.clone(), scheme })
}

/// `tchar`, RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
