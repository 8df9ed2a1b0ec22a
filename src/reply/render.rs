//! One refusal as one HTTP answer.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use super::challenge;
use super::facts::{Facts, Refusal};
use crate::credential::Place;
use crate::gate::Denial;

/// Shape of error bodies (`errors.profile`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorProfile {
    /// `application/problem+json` (RFC 9457).
    Standard,
    /// `{"success":false,"error":{"code","message"}}`.
    Success,
}

/// Who asked, and how they want to be answered.
#[derive(Clone, Copy, Debug)]
pub struct Audience<'a> {
    /// The request's id.
    pub request_id: &'a str,
    /// Shape of the body.
    pub profile: ErrorProfile,
    /// What the `type` of a problem begins with; the code follows.
    pub type_base: &'a str,
    /// `realm` of challenges.
    pub realm: &'a str,
    /// Where the route takes credentials.
    pub accept: &'a [Place],
    /// Whether a browser asks.
    pub is_browser: bool,
    /// Whether the request is gRPC, by its content type.
    pub is_grpc: bool,
}

/// The field that carries the request's id on every answer.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The answer to a refused request. The body of an answer to HEAD is for the caller to leave out.
pub fn render(refusal: Refusal<'_>, audience: &Audience<'_>) -> Response<Bytes> {
    let facts = refusal.facts();
    let mut answer = if audience.is_grpc { grpc(&facts) } else { with_body(&facts, audience) };
    let headers = answer.headers_mut();
    if let Ok(id) = HeaderValue::from_str(audience.request_id) {
        headers.insert(REQUEST_ID, id);
    }
    challenge::add(headers, &facts, audience);
    if matches!(facts.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if let Some(seconds) = facts.retry_after_seconds {
        headers.insert(RETRY_AFTER, seconds.into());
    }
    if let Refusal::Denied(Denial::MethodNotAllowed { allow }) = refusal {
        let names: Vec<&str> = allow.iter().map(http::Method::as_str).collect();
        if let Ok(value) = HeaderValue::from_str(&names.join(", ")) {
            headers.insert(ALLOW, value);
        }
    }
    answer
}

/// The same as bytes of an HTTP/1.1 message that closes its connection, for refusals below the HTTP library.
pub fn render_h1(refusal: Refusal<'_>, audience: &Audience<'_>) -> Bytes {
    let answer = render(refusal, audience);
    let status = answer.status();
    let mut head = format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or("Error"));
    head.push_str("connection: close\r\n");
    let mut message = head.into_bytes();
    for (name, value) in answer.headers() {
        message.extend_from_slice(name.as_str().as_bytes());
        message.extend_from_slice(b": ");
        message.extend_from_slice(value.as_bytes());
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b"\r\n");
    message.extend_from_slice(answer.body());
    message.into()
}

fn with_body(facts: &Facts<'_>, audience: &Audience<'_>) -> Response<Bytes> {
    let (content_type, body) = match audience.profile {
        ErrorProfile::Standard => ("application/problem+json", problem(facts, audience)),
        ErrorProfile::Success => ("application/json", success(facts, audience)),
    };
    let body = Bytes::from(body);
    let mut answer = Response::new(body);
    *answer.status_mut() = facts.status;
    let length = answer.body().len();
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(CONTENT_LENGTH, length.into());
    answer
}

/// RFC 9457 §3.
fn problem(facts: &Facts<'_>, audience: &Audience<'_>) -> String {
    let mut body = String::with_capacity(320);
    body.push_str("{\"type\":");
    push_json(&mut body, &format!("{}{}", audience.type_base, facts.code));
    body.push_str(",\"title\":");
    push_json(&mut body, facts.title);
    // Writing to a String cannot fail.
    let _infallible = write!(body, ",\"status\":{}", facts.status.as_u16());
    body.push_str(",\"detail\":");
    push_json(&mut body, facts.detail);
    body.push_str(",\"code\":");
    push_json(&mut body, facts.code);
    body.push_str(",\"request_id\":");
    push_json(&mut body, audience.request_id);
    if facts.code == "insufficient_scope" {
        for (member, scopes) in [("required_scopes", facts.required), ("missing_scopes", facts.missing)] {
            let _infallible = write!(body, ",\"{member}\":[");
            for (i, scope) in scopes.iter().enumerate() {
                if i > 0 {
                    body.push(',');
                }
                push_json(&mut body, scope.as_str());
            }
            body.push(']');
        }
    }
    body.push_str("}\n");
    body
}

fn success(facts: &Facts<'_>, audience: &Audience<'_>) -> String {
    let mut body = String::from("{\"success\":false,\"error\":{\"code\":");
    push_json(&mut body, facts.code);
    body.push_str(",\"message\":");
    push_json(&mut body, facts.detail);
    body.push_str("},\"request_id\":");
    push_json(&mut body, audience.request_id);
    body.push_str("}\n");
    body
}

fn push_json(body: &mut String, text: &str) {
    match serde_json::to_string(text) {
        Ok(quoted) => body.push_str(&quoted),
        Err(_) => body.push_str("\"\""),
    }
}

/// A Trailers-Only answer (gRPC over HTTP/2, "Responses"): the HTTP status is always 200.
fn grpc(facts: &Facts<'_>) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static(grpc_status(facts.status)));
    let message = format!("{}: {}", facts.code, facts.detail);
    // Every detail of ours is printable ASCII; only `%` must be escaped (gRPC "Status-Message").
    if let Ok(value) = HeaderValue::from_str(&message.replace('%', "%25")) {
        headers.insert(HeaderName::from_static("grpc-message"), value);
    }
    answer
}

fn grpc_status(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "16",
        403 => "7",
        404 | 405 => "12",
        413 | 414 | 429 | 431 => "8",
        502..=504 => "14",
        500 => "13",
        _ => "3",
    }
}
