//! Cross-origin answers (Fetch standard, "CORS protocol"): preflights, and the fields that let a page read an answer.

use bytes::Bytes;
use http::header;
use http::{HeaderValue, Method, Response, StatusCode};

use super::live::Current;
use crate::domain::{FieldLines, Fields, Known};
use crate::gate::{Cors, MethodSelector};
use crate::route::RouteIx;

const WILDCARD_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Lets a page of `origin` read this answer, ours or the upstream's. What the upstream said of it is replaced.
pub(super) fn expose(lines: &mut FieldLines, rules: &Cors, origin: &[u8]) {
    lines.remove("access-control-allow-origin");
    if !lines.all("vary").any(|vary| vary.eq_ignore_ascii_case(b"origin")) {
        lines.push(b"vary", b"Origin");
    }
    if rules.origins.iter().any(|allowed| allowed == "*") {
        lines.push(b"access-control-allow-origin", b"*");
    } else if rules.allows(origin) {
        lines.push(b"access-control-allow-origin", origin);
    }
}

/// Answers a preflight. An origin that is not allowed gets an answer without permission, which the browser enforces.
pub(super) fn preflight(current: &Current, route: Option<RouteIx>, fields: Fields<'_>) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let Some(route) = route.map(|route| &current.gate.rules.route(route).settings) else { return answer };
    let (Some(rules), Some(origin)) = (&route.cors, fields.first(Known::Origin)) else { return answer };
    if !rules.allows(origin) {
        return answer;
    }
    let methods = if rules.methods.is_empty() {
        methods_of(route.methods.iter().map(|method| &method.selector))
    } else {
        rules.methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")
    };
    let names: Vec<&str> = rules.headers.iter().map(http::HeaderName::as_str).collect();
    let fields = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, names.join(", ")),
        (header::ACCESS_CONTROL_MAX_AGE, rules.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default()),
    ];
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

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
