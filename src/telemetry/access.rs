//! The access line: what is said about each request (contract: one line, these fields, this order).
//!
//! Owns the field names and both renderings. Must not know where lines go, nor how a request was decided.
//! Start at [`AccessLine`].

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use http::Version;
use uuid::Uuid;

use super::line::{push_json_string, push_ms, push_number, push_text_value, push_three_digits};
use super::metrics::DecisionMode;
use super::visible::mask_address;
use crate::domain::{KeyId, OwnerId, Timestamp};

/// Shape of a log line, once it is known what it is written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line (RFC 8259).
    Json,
}

/// What is known about one request once its answer ended. Absent values are `null` in JSON and left out in text.
///
/// There is no place for a credential, a query, a cookie or a body. A path with a query loses it here.
#[derive(Debug, Clone, Copy)]
pub struct AccessLine<'a> {
    /// When the request's head was complete.
    pub ts: Timestamp,
    /// The id the client was told in `X-Request-Id`.
    pub request_id: &'a str,
    /// The id an untrusted client brought along.
    pub client_request_id: Option<&'a str>,
    /// Name of the listener.
    pub listener: &'a str,
    /// HTTP version between client and gateway.
    pub protocol: Version,
    /// As sent; none when the head could not be read.
    pub method: Option<&'a str>,
    /// `Host` or `:authority` as sent.
    pub host: Option<&'a str>,
    /// As sent; everything from `?` on is not written.
    pub path: Option<&'a str>,
    /// The route's label; none when no route matched.
    pub route: Option<&'a str>,
    /// The upstream that was asked; none when none was.
    pub upstream: Option<&'a str>,
    /// HTTP status the client was sent.
    pub status: u16,
    /// The code in our own error body; none when the answer is the upstream's.
    pub code: Option<&'a str>,
    /// Why the request was refused, in full truth.
    pub reason: Option<&'a str>,
    /// Scopes the caller would have needed.
    pub missing_scopes: &'a [&'a str],
    /// Whether the route enforces or reports; none when no route matched.
    pub mode: Option<DecisionMode>,
    /// From the request's head to the last byte of the answer.
    pub duration: Duration,
    /// From sending the request to the head of the upstream's answer.
    pub upstream_duration: Option<Duration>,
    /// The key that was presented and known.
    pub key_id: Option<KeyId>,
    /// The public beginning of the key's text.
    pub key_prefix: Option<&'a str>,
    /// The account the key belongs to.
    pub owner: Option<OwnerId>,
    /// The key's environment.
    pub environment: Option<&'a str>,
    /// The client's address, trusted proxies taken into account; none on a unix socket.
    pub client_ip: Option<IpAddr>,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
}

/// A field's name with the punctuation around it.
#[derive(Clone, Copy)]
struct FieldName {
    json: &'static str,
    text: &'static str,
}

macro_rules! name {
    ($name:literal) => {
        FieldName { json: concat!(",\"", $name, "\":"), text: concat!(" ", $name, "=") }
    };
}

/// Whether client addresses are written in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// As they are.
    Full,
    /// See [`mask_address`].
    Masked,
}

impl AccessLine<'_> {
    /// Appends the line, with its line end, to `out`. Allocates only when `out` grows.
    pub fn write(&self, out: &mut String, format: LineFormat, addresses: Addresses, clock: &mut ClockText) {
        match format {
            LineFormat::Json => {
                out.push_str("{\"ts\":\"");
                clock.push(out, self.ts);
                out.push('"');
                self.fields(addresses, &mut JsonFields { out });
                out.push_str("}\n");
            }
            LineFormat::Text => {
                clock.push(out, self.ts);
                out.push(' ');
                push_number(out, u64::from(self.status));
                out.push(' ');
                push_text_value(out, self.method.unwrap_or("-"));
                out.push(' ');
                push_text_value(out, self.path.map_or("-", without_query));
                out.push(' ');
                push_ms(out, self.duration);
                out.push_str("ms");
                self.fields(addresses, &mut TextFields { out });
                out.push('\n');
            }
        }
    }

    /// Every field after `ts`, in the order of the contract.
    fn fields(&self, addresses: Addresses, to: &mut impl FieldWriter) {
        to.text(name!("request_id"), Some(self.request_id));
        to.text(name!("client_request_id"), self.client_request_id);
        to.text(name!("listener"), Some(self.listener));
        to.text(name!("protocol"), Some(protocol_name(self.protocol)));
        to.in_head_text(name!("method"), self.method);
        to.text(name!("host"), self.host);
        to.in_head_text(name!("path"), self.path.map(without_query));
        to.text(name!("route"), self.route);
        to.text(name!("upstream"), self.upstream);
        to.in_head_number(name!("status"), u64::from(self.status));
        to.text(name!("code"), self.code);
        to.text(name!("reason"), self.reason);
        to.list(name!("missing_scopes"), self.missing_scopes);
        to.text(name!("mode"), self.mode.map(DecisionMode::text));
        to.in_head_ms(name!("duration_ms"), self.duration);
        to.ms(name!("upstream_ms"), self.upstream_duration);
        to.id(name!("key_id"), KeyId::PREFIX, self.key_id.map(KeyId::to_bytes));
        to.text(name!("key_prefix"), self.key_prefix);
        to.id(name!("owner"), OwnerId::PREFIX, self.owner.map(OwnerId::to_bytes));
        to.text(name!("environment"), self.environment);
        let address = self.client_ip.map(|address| match addresses {
            Addresses::Full => address.to_canonical(),
            Addresses::Masked => mask_address(address),
        });
        to.address(name!("client_ip"), address);
        to.number(name!("bytes_in"), self.bytes_in);
        to.number(name!("bytes_out"), self.bytes_out);
    }
}

/// `target` up to its query or fragment.
fn without_query(target: &str) -> &str {
    target.split(['?', '#']).next().unwrap_or_default()
}

/// The version's name in log lines.
pub(super) fn protocol_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        // The only other one there is.
        _ => "HTTP/1.1",
    }
}

/// One rendering of fields. Those `in_head` stand at the head of a text line already.
trait FieldWriter {
    fn text(&mut self, name: FieldName, value: Option<&str>);
    fn number(&mut self, name: FieldName, value: u64);
    fn ms(&mut self, name: FieldName, value: Option<Duration>);
    fn list(&mut self, name: FieldName, values: &[&str]);
    fn id(&mut self, name: FieldName, prefix: &str, value: Option<[u8; 16]>);
    fn address(&mut self, name: FieldName, value: Option<IpAddr>);
    fn in_head_text(&mut self, name: FieldName, value: Option<&str>);
    fn in_head_number(&mut self, name: FieldName, value: u64);
    fn in_head_ms(&mut self, name: FieldName, value: Duration);
}

struct JsonFields<'a> {
    out: &'a mut String,
}

impl JsonFields<'_> {
    /// Appends the name and either the value or `null`.
    fn optional<T>(&mut self, name: FieldName, value: Option<T>, push: impl FnOnce(&mut String, T)) {
        self.out.push_str(name.json);
        match value {
            Some(value) => push(self.out, value),
            None => self.out.push_str("null"),
        }
    }
}

impl FieldWriter for JsonFields<'_> {
    fn text(&mut self, name: FieldName, value: Option<&str>) {
        self.optional(name, value, push_json_string);
    }

    fn number(&mut self, name: FieldName, value: u64) {
        self.optional(name, Some(value), push_number);
    }

    fn ms(&mut self, name: FieldName, value: Option<Duration>) {
        self.optional(name, value, push_ms);
    }

    fn list(&mut self, name: FieldName, values: &[&str]) {
        self.out.push_str(name.json);
        self.out.push('[');
        for (at, value) in values.iter().enumerate() {
            if at > 0 {
                self.out.push(',');
            }
            push_json_string(self.out, value);
        }
        self.out.push(']');
    }

    fn id(&mut self, name: FieldName, prefix: &str, value: Option<[u8; 16]>) {
        self.optional(name, value, |out, bytes| {
            out.push('"');
            push_id(out, prefix, bytes);
            out.push('"');
        });
    }

    fn address(&mut self, name: FieldName, value: Option<IpAddr>) {
        self.optional(name, value, |out, address| {
            out.push('"');
            push_address(out, address);
            out.push('"');
        });
    }

    fn in_head_text(&mut self, name: FieldName, value: Option<&str>) {
        self.text(name, value);
    }

    fn in_head_number(&mut self, name: FieldName, value: u64) {
        self.number(name, value);
    }

    fn in_head_ms(&mut self, name: FieldName, value: Duration) {
        self.ms(name, Some(value));
    }
}

struct TextFields<'a> {
    out: &'a mut String,
}

impl TextFields<'_> {
    fn optional<T>(&mut self, name: FieldName, value: Option<T>, push: impl FnOnce(&mut String, T)) {
        if let Some(value) = value {
            self.out.push_str(name.text);
            push(self.out, value);
        }
    }
}

impl FieldWriter for TextFields<'_> {
    fn text(&mut self, name: FieldName, value: Option<&str>) {
        self.optional(name, value, push_text_value);
    }

    fn number(&mut self, name: FieldName, value: u64) {
        self.optional(name, Some(value), push_number);
    }

    fn ms(&mut self, name: FieldName, value: Option<Duration>) {
        self.optional(name, value, push_ms);
    }

    fn list(&mut self, name: FieldName, values: &[&str]) {
        if !values.is_empty() {
            self.optional(name, Some(values.join(",").as_str()), push_text_value);
        }
    }

    fn id(&mut self, name: FieldName, prefix: &str, value: Option<[u8; 16]>) {
        self.optional(name, value, |out, bytes| push_id(out, prefix, bytes));
    }

    fn address(&mut self, name: FieldName, value: Option<IpAddr>) {
        self.optional(name, value, push_address);
    }

    fn in_head_text(&mut self, _: FieldName, _: Option<&str>) {}

    fn in_head_number(&mut self, _: FieldName, _: u64) {}

    fn in_head_ms(&mut self, _: FieldName, _: Duration) {}
}

fn push_id(out: &mut String, prefix: &str, bytes: [u8; 16]) {
    let mut hex = [0u8; 32];
    out.push_str(prefix);
    out.push_str(Uuid::from_bytes(bytes).as_simple().encode_lower(&mut hex));
}

fn push_address(out: &mut String, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            for (at, octet) in v4.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push('.');
                }
                push_number(out, u64::from(octet));
            }
        }
        // Writing to a String cannot fail.
        IpAddr::V6(v6) => {
            let _ = write!(out, "{v6}");
        }
    }
}

/// RFC 3339 text of moments, with the calendar worked out once a second.
#[derive(Debug)]
pub struct ClockText {
    second: i64,
    /// `2026-01-15T12:00:00.` of `second`; empty when it has no such form.
    text: String,
}

impl Default for ClockText {
    fn default() -> Self {
        Self { second: i64::MIN, text: String::new() }
    }
}

impl ClockText {
    /// Appends `moment` in UTC with milliseconds, as its `Display` does.
    pub fn push(&mut self, out: &mut String, moment: Timestamp) {
        let second = moment.unix_seconds();
        if self.second != second {
            self.text.clear();
            // Writing to a String cannot fail.
            let _ = write!(self.text, "{}", Timestamp::from_unix_seconds(second));
            // A moment that has no RFC 3339 form has no such end, and is not cut into.
            let whole = self.text.strip_suffix("000Z").map_or(0, str::len);
            self.text.truncate(whole);
            self.second = second;
        }
        if self.text.is_empty() {
            let _ = write!(out, "{moment}");
            return;
        }
        out.push_str(&self.text);
        push_three_digits(out, moment.unix_ms().rem_euclid(1000).unsigned_abs());
        out.push('Z');
    }
}
