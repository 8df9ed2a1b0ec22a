//! Cross-origin answers (Fetch standard, "CORS protocol"): preflights, and the fields that let a page read an answer.

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::{HeaderValue, Method, Response, StatusCode};

use super::live::Current;
use crate::gate::{Cors, MethodSelector};
use crate::route::RouteIx;

const WILDCARD_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The value of `Access-Control-Allow-Origin` for `origin`; none when the route does not allow it.
fn allowed_origin(rules: &Cors, origin: &HeaderValue) -> Option<HeaderValue> {
    if rules.origins.iter().any(|allowed| allowed == "*") {
        return Some(HeaderValue::from_static("*"));
    }
    rules.allows(origin).then(|| origin.clone())
}

/// Lets a page of `origin` read this answer, ours or the upstream's. What the upstream said of it is replaced.
pub(super) fn expose(headers: &mut HeaderMap, rules: &Cors, origin: &HeaderValue) {
    headers.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
    if !headers.get_all(header::VARY).iter().any(|vary| vary.as_bytes().eq_ignore_ascii_case(b"origin")) {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    if let Some(allowed) = allowed_origin(rules, origin) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    }
}

/// Answers a preflight. An origin that is not allowed gets an answer without permission, which the browser enforces.
pub(super) fn preflight(current: &Current, route: Option<RouteIx>, request: &HeaderMap) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let Some(route) = route.map(|route| &current.gate.rules.route(route).settings) else { return answer };
    let (Some(rules), Some(origin)) = (&route.cors, request.get(header::ORIGIN)) else { return answer };
    let headers = answer.headers_mut();
    expose(headers, rules, origin);
    if !headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
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
            headers.insert(name, value);
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
