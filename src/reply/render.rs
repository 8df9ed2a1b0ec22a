//! One refusal as one HTTP answer.

use bytes::Bytes;
use http::StatusCode;

use super::challenge;
use super::facts::{Facts, Refusal};
use crate::credential::Place;
use crate::domain::{FieldLines, Scope};
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

/// A refusal as it is said over any version of HTTP: without what frames it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The status.
    pub status: StatusCode,
    /// The fields, save `Content-Length`.
    pub lines: FieldLines,
    /// The body; whoever answers a HEAD leaves it out.
    pub body: Vec<u8>,
}

/// The answer to a refused request.
pub fn render(refusal: Refusal<'_>, audience: &Audience<'_>) -> Rendered {
    render_in([Vec::with_capacity(512), Vec::with_capacity(512)], refusal, audience)
}

/// The same in memory that is at hand, empty, for fields and body: whoever guesses keys gets many of these.
pub fn render_in([lines, mut body]: [Vec<u8>; 2], refusal: Refusal<'_>, audience: &Audience<'_>) -> Rendered {
    let facts = refusal.facts();
    let mut lines = FieldLines::continuing(lines);
    let status = if audience.is_grpc {
        grpc(&facts, &mut lines);
        StatusCode::OK
    } else {
        add_body(&facts, audience, &mut lines, &mut body);
        facts.status
    };
    lines.push(b"x-request-id", audience.request_id.as_bytes());
    challenge::add(&mut lines, &facts, audience);
    if matches!(facts.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        lines.push_line(b"cache-control: no-store\r\n");
    }
    if let Some(seconds) = facts.retry_after_seconds {
        lines.push_number(b"retry-after", u64::from(seconds));
    }
    if let Refusal::Denied(Denial::MethodNotAllowed { allow }) = refusal {
        let names: Vec<&str> = allow.iter().map(http::Method::as_str).collect();
        lines.push(b"allow", names.join(", ").as_bytes());
    }
    Rendered { status, lines, body }
}

/// The same as bytes of an HTTP/1.1 message that closes its connection, for a client whose request could not be read.
pub fn render_h1(refusal: Refusal<'_>, audience: &Audience<'_>) -> Bytes {
    let Rendered { status, mut lines, body } = render(refusal, audience);
    lines.push_number(b"content-length", body.len() as u64);
    let line = format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or("Error"));
    [line.as_bytes(), b"connection: close\r\n", lines.as_bytes(), b"\r\n", &body].concat().into()
}

fn add_body(facts: &Facts<'_>, audience: &Audience<'_>, lines: &mut FieldLines, body: &mut Vec<u8>) {
    match audience.profile {
        ErrorProfile::Standard => {
            lines.push_line(b"content-type: application/problem+json\r\n");
            problem(facts, audience, body);
        }
        ErrorProfile::Success => {
            lines.push_line(b"content-type: application/json\r\n");
            success(facts, audience, body);
        }
    }
}

/// RFC 9457 §3.
fn problem(facts: &Facts<'_>, audience: &Audience<'_>, body: &mut Vec<u8>) {
    body.extend_from_slice(b"{\"type\":");
    push_json(body, &[audience.type_base, facts.code]);
    push_ours(body, b",\"title\":\"", facts.title);
    body.extend_from_slice(b"\",\"status\":");
    body.extend_from_slice(facts.status.as_str().as_bytes());
    body.extend_from_slice(b",\"detail\":");
    push_detail(body, facts);
    push_ours(body, b",\"code\":\"", facts.code);
    body.extend_from_slice(b"\",\"request_id\":");
    push_json(body, &[audience.request_id]);
    if facts.code == "insufficient_scope" {
        for (member, scopes) in [("required_scopes", facts.required), ("missing_scopes", facts.missing)] {
            body.push(b',');
            push_json(body, &[member]);
            body.extend_from_slice(b":[");
            for (i, scope) in scopes.iter().enumerate() {
                if i > 0 {
                    body.push(b',');
                }
                push_json(body, &[scope.as_str()]);
            }
            body.push(b']');
        }
    }
    body.extend_from_slice(b"}\n");
}

fn success(facts: &Facts<'_>, audience: &Audience<'_>, body: &mut Vec<u8>) {
    push_ours(body, b"{\"success\":false,\"error\":{\"code\":\"", facts.code);
    body.extend_from_slice(b"\",\"message\":");
    if facts.missing.is_empty() {
        push_detail(body, facts);
    } else {
        // There is no member for them here.
        let missing: Vec<&str> = facts.missing.iter().map(Scope::as_str).collect();
        push_json(body, &["The key is valid but does not hold: ", &missing.join(" "), "."]);
    }
    body.extend_from_slice(b"},\"request_id\":");
    push_json(body, &[audience.request_id]);
    body.extend_from_slice(b"}\n");
}

fn push_detail(body: &mut Vec<u8>, facts: &Facts<'_>) {
    if facts.is_worded_here {
        push_ours(body, b"\"", facts.detail);
        body.push(b'"');
    } else {
        push_json(body, &[facts.detail]);
    }
}

/// Words of [`super::facts`] behind what stands before them: every byte of them stands for itself in a JSON string.
fn push_ours(body: &mut Vec<u8>, before: &'static [u8], words: &'static str) {
    debug_assert!(is_plain(words.as_bytes()), "{words:?} has to be escaped");
    body.extend_from_slice(before);
    body.extend_from_slice(words.as_bytes());
}

/// Pieces of text as one JSON string. Nearly all of them are plain, and go in as they are.
pub(super) fn push_json(body: &mut Vec<u8>, pieces: &[&str]) {
    if pieces.iter().all(|piece| is_plain(piece.as_bytes())) {
        body.push(b'"');
        pieces.iter().for_each(|piece| body.extend_from_slice(piece.as_bytes()));
        body.push(b'"');
        return;
    }
    match serde_json::to_vec(&pieces.concat()) {
        Ok(quoted) => body.extend_from_slice(&quoted),
        Err(_) => body.extend_from_slice(b"\"\""),
    }
}

/// Whether every byte stands for itself in a JSON string (RFC 8259 §7), and is ASCII. Eight bytes at a time.
fn is_plain(text: &[u8]) -> bool {
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    // Of seven bits, taking one from zero sets the eighth, and whatever that takes from the next is of no more interest.
    let is = |word: u64, byte: u8| (word ^ each(byte)).wrapping_sub(each(1));
    let other = |word: u64| word | word.wrapping_sub(each(b' ')) | is(word, b'"') | is(word, b'\\') | is(word, 0x7f);
    let (words, rest) = text.as_chunks::<8>();
    let mut last = [b' '; 8];
    last[..rest.len()].copy_from_slice(rest);
    words.iter().chain([&last]).fold(0, |all, word| all | other(u64::from_ne_bytes(*word))) & each(0x80) == 0
}

/// A Trailers-Only answer (gRPC over HTTP/2, "Responses"): the HTTP status is always 200.
fn grpc(facts: &Facts<'_>, lines: &mut FieldLines) {
    lines.push(b"content-type", b"application/grpc");
    lines.push(b"grpc-status", grpc_status(facts.status).as_bytes());
    push_grpc_message(lines, &format!("{}: {}", facts.code, facts.detail));
}

/// Everything but printable ASCII, and the percent sign, as the escapes of its bytes (gRPC over HTTP/2, "Status-Message").
fn push_grpc_message(lines: &mut FieldLines, message: &str) {
    let mut escaped = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b'%' | ..b' ' | 0x7f.. => {
                escaped.push_str(&format!("%{byte:02X}"));
            }
            plain => escaped.push(char::from(plain)),
        }
    }
    lines.push(b"grpc-message", escaped.as_bytes());
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
