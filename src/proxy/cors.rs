//! Cross-origin answers (Fetch standard, "CORS protocol"): preflights, and the fields that let a page read an answer.

use bytes::Bytes;
use http::header;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};

use super::live::Current;
use crate::domain::{FieldLines, Fields, KeyKind, Known};
use crate::gate::{Caller, Cors, MethodSelector, Outcome, RouteSettings, Snapshot, Verdict};
use crate::route::RouteIx;

const WILDCARD_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What a page may read for the sake of a publishable key that names it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PageOfKey {
    /// Nothing: no such key names it, or none may ask for this.
    Nothing,
    /// Refusals of ours.
    Refusals,
    /// Whatever is answered: such a key has asked.
    Everything,
}

impl PageOfKey {
    /// For the page that sent a request with this `Origin`. What a secret key gets is for no page; and what an upstream
    /// answers to anybody but a proven publishable key, in report mode for instance, is the upstream's own to share.
    pub(super) fn of(origin: Option<&[u8]>, verdict: &Verdict<'_>, gate: &Snapshot, method: &Method) -> Self {
        let (Some(origin), Some(rule)) = (origin, verdict.rule) else { return Self::Nothing };
        if let Outcome::Preflight = verdict.outcome {
            // It was looked at when the preflight was found to be one.
            return Self::Refusals;
        }
        // Why its key may not do something, the page may read all the same.
        let may_ask = |method| gate.page_may_ask(origin, rule, method);
        if !may_ask(method) && !may_ask(&Method::GET) {
            return Self::Nothing;
        }
        // A key that is not accepted is like one that nobody has, whatever it was.
        let is_publishable = match &verdict.caller {
            Caller::Key(authenticated) => Some(authenticated.slot().kind == KeyKind::Publishable),
            Caller::Refused(_) | Caller::Anonymous => None,
        };
        match (&verdict.outcome, is_publishable) {
            (_, Some(false)) => Self::Nothing,
            (Outcome::Pass(_), Some(true)) => Self::Everything,
            (_, Some(true) | None) => Self::Refusals,
        }
    }

    /// Whether the page may read an answer, ours or an upstream's.
    pub(super) const fn shares(self, is_ours: bool) -> bool {
        match self {
            Self::Nothing => false,
            Self::Refusals => is_ours,
            Self::Everything => true,
        }
    }
}

/// Lets a page of `origin` read this answer, ours or the upstream's, where the route shares it with that origin, or a
/// publishable key does. What the upstream said of it is replaced.
pub(super) fn expose(lines: &mut FieldLines, rules: Option<&Cors>, of_a_key: bool, origin: &[u8]) {
    if rules.is_none() && !of_a_key {
        return;
    }
    lines.remove("access-control-allow-origin");
    if !rules.is_some_and(|rules| rules.allows(origin)) {
        // What goes with cookies is between the upstream and pages that it trusts itself.
        lines.remove("access-control-allow-credentials");
    }
    if !lines.all("vary").any(|vary| vary.eq_ignore_ascii_case(b"origin")) {
        lines.push(b"vary", b"Origin");
    }
    if rules.is_some_and(|rules| rules.origins.iter().any(|allowed| allowed == "*")) {
        lines.push(b"access-control-allow-origin", b"*");
    } else if of_a_key && rules.is_none() {
        lines.push(b"access-control-allow-origin", origin);
        lines.push(b"access-control-expose-headers", b"X-Request-Id, Retry-After, RateLimit, RateLimit-Policy");
    } else if of_a_key || rules.is_some_and(|rules| rules.allows(origin)) {
        lines.push(b"access-control-allow-origin", origin);
    }
}

/// Answers a preflight. An origin that is not allowed gets an answer without permission, which the browser enforces.
///
/// `of_a_key`: a publishable key names the page, and the announced request is one that such keys may send.
pub(super) fn preflight(
    current: &Current,
    route: Option<RouteIx>,
    of_a_key: bool,
    fields: Fields<'_>,
) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let Some(route) = route.map(|route| &current.gate.rules.route(route).settings) else { return answer };
    let Some(origin) = fields.first(Known::Origin) else { return answer };
    let fields = match &route.cors {
        Some(rules) if rules.allows(origin) => of_route(route, rules),
        _ if of_a_key => of_key(fields),
        Some(_) | None => return answer,
    };
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

type Permission = [(HeaderName, String); 3];

fn of_route(route: &RouteSettings, rules: &Cors) -> Permission {
    let methods = if rules.methods.is_empty() {
        methods_of(route.methods.iter().map(|method| &method.selector))
    } else {
        rules.methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
    };
    let names: Vec<&str> = rules.headers.iter().map(HeaderName::as_str).collect();
    [
        (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, names.join(", ")),
        (header::ACCESS_CONTROL_MAX_AGE, rules.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default()),
    ]
}

/// What is announced may be sent: key, page and method are judged when it comes.
fn of_key(fields: Fields<'_>) -> Permission {
    let announced = |known| {
        let value = fields.first(known).and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default();
        let is_list = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.,! #$%&'*+^`|~".contains(&byte);
        if value.len() <= MAX_ANNOUNCED && value.bytes().all(is_list) { value.to_owned() } else { String::new() }
    };
    [
        (header::ACCESS_CONTROL_ALLOW_METHODS, announced(Known::AccessControlRequestMethod)),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, announced(Known::AccessControlRequestHeaders)),
        (header::ACCESS_CONTROL_MAX_AGE, "600".to_owned()),
    ]
}

/// Longest list of announced fields that is repeated, in bytes.
const MAX_ANNOUNCED: usize = 1024;

fn methods_of<'a>(selectors: impl Iterator<Item = &'a MethodSelector>) -> String {
    let mut names = Vec::new();
    for selector in selectors {
        match selector {
            MethodSelector::All => return WILDCARD_METHODS.to_owned(),
            MethodSelector::Named(method) => names.push(method.as_str()),
        }
    }
    names.join(", ")
}
