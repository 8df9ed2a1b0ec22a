//! Request heads: what is checked in one, and what it says (RFC 9112 §3, RFC 9110 §7).

use std::ops::Range;

use super::body::Body;
use super::fault::Fault;
use super::field::{BodyFields, ConnectionFields, Version};
use super::head::{Facts, Head, HeadLimits};
use super::octets::{is_authority, is_path_and_query, is_token, token_len};
use crate::domain::fields::{FieldTable, Known};

/// Bounds of a request head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Largest head in bytes; beyond: [`Fault::HeadTooLarge`].
    pub head_bytes: usize,
    /// Most fields; beyond: [`Fault::TooManyFields`].
    pub head_fields: usize,
    /// Longest target in bytes; beyond: [`Fault::TargetTooLong`]. Never above 65,534, the bound of `http::Uri`.
    pub target_bytes: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self { head_bytes: 32 * 1024, head_fields: 100, target_bytes: 8 * 1024 }
    }
}

/// What a request line may hold beside the target: a long method, two spaces, the version, CR LF.
const REQUEST_LINE_REST: usize = 256;
const MAX_TARGET_BYTES: usize = 65_534;

/// A request head that was read whole. All places are offsets from its first byte.
#[derive(Debug)]
pub struct RequestRead {
    /// Its length in bytes, the empty line included.
    pub len: usize,
    /// Where the method stands.
    pub method: Range<usize>,
    /// Where the request target stands.
    pub target: Range<usize>,
    /// Its version.
    pub version: Version,
    /// The body that follows.
    pub body: Body,
    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
    /// Whether what follows it is either the next request or the beginning of a tunnel (RFC 9110 §7.8).
    pub may_become_tunnel: bool,
    /// Whether the client goes on using the connection (RFC 9112 §9.3).
    pub persists: bool,
    /// Whether it asked for that in so many words: an HTTP/1.0 client wants to hear it back.
    pub says_keep_alive: bool,
}

/// Reads the request heads of one connection, one after the other.
///
/// Pure: the bytes come from whoever owns the connection, and so does the place where fields are noted.
#[derive(Debug)]
pub struct RequestHeads {
    head: Head<RequestFacts>,
    limits: HeadLimits,
    target_bytes: usize,
}

impl RequestHeads {
    /// Reads heads within `limits`.
    pub fn new(limits: RequestLimits) -> Self {
        let target_bytes = limits.target_bytes.min(MAX_TARGET_BYTES);
        let start_line = (target_bytes + REQUEST_LINE_REST, Fault::TargetTooLong);
        let head = HeadLimits { bytes: limits.head_bytes, fields: limits.head_fields, start_line };
        Self { head: Head::default(), limits: head, target_bytes }
    }

    /// The next request, once its head is whole; none while it is not.
    ///
    /// `arrived` begins with the head's first byte and holds everything that came of it. `table` is cleared when a head
    /// begins, and holds its fields when it is whole.
    ///
    /// # Errors
    /// Why the head has no single reading or is too large. Nothing behind it can be believed.
    pub fn read(&mut self, arrived: &[u8], table: &mut FieldTable) -> Result<Option<RequestRead>, Fault> {
        if self.head.is_untouched() {
            table.clear();
        }
        let Some(len) = self.head.advance(arrived, &self.limits, table)? else { return Ok(None) };
        let facts = std::mem::take(&mut self.head).facts;
        facts.close(&arrived[..len], self.target_bytes).map(Some)
    }
}

/// Methods that change what a head may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Method {
    Get,
    Options,
    Connect,
    #[default]
    Other,
}

/// A part of the head: offset and length.
type Part = (usize, usize);

/// What the lines of a request head said.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RequestFacts {
    method: Method,
    version: Version,
    line_at: usize,
    method_len: usize,
    target_len: usize,
    authority: Option<Part>,
    host: Option<Part>,
    body: BodyFields,
    connection: ConnectionFields,
    expects: bool,
}

impl Facts for RequestFacts {
    const EMPTY_LINES: u8 = 1;

    fn may_begin_with(byte: u8) -> bool {
        is_token(byte)
    }

    fn broken_start_line(begin: &[u8]) -> Fault {
        match begin.split_at(token_len(begin)) {
            ([_, ..], [b' ', target @ ..]) if !target.contains(&b' ') => Fault::Target,
            _ => Fault::RequestLine,
        }
    }

    fn start_line(&mut self, line: &[u8], at: usize) -> Result<(), Fault> {
        let method_len = token_len(line);
        let (method, rest) = line.split_at(method_len);
        // No space within a target, so the last one of the line ends it.
        let Some((b' ', rest)) = rest.split_first().map(|(&space, rest)| (space, rest)) else {
            return Err(Fault::RequestLine);
        };
        let Some(space) = memchr::memchr(b' ', rest) else { return Err(Fault::RequestLine) };
        let (target, version) = (&rest[..space], &rest[space + 1..]);
        if method.is_empty() || target.is_empty() {
            return Err(Fault::RequestLine);
        }
        self.version = Version::parse(version).ok_or(Fault::RequestLine)?;
        self.method = match method {
            b"GET" => Method::Get,
            b"OPTIONS" => Method::Options,
            b"CONNECT" => Method::Connect,
            _ => Method::Other,
        };
        self.line_at = at;
        self.method_len = method_len;
        self.target_len = target.len();
        self.authority = check_target(self.method, target)?.map(|(from, len)| (at + method_len + 1 + from, len));
        Ok(())
    }

    #[inline]
    fn field(&mut self, name: Known, value: &[u8], at: usize) -> Result<(), Fault> {
        match name {
            Known::Host => {
                if self.host.is_some() {
                    return Err(Fault::HostRepeated);
                }
                if !is_authority(value) {
                    return Err(Fault::HostMalformed);
                }
                self.host = Some((at, value.len()));
            }
            Known::Expect => {
                if self.expects || !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Fault::Expect);
                }
                self.expects = true;
            }
            Known::Upgrade => self.connection.note_upgrade(value),
            Known::Connection => self.connection.note_connection(value),
            Known::ContentLength => self.body.note_content_length(value)?,
            Known::TransferEncoding => self.body.note_transfer_encoding(value, self.version)?,
            _ => {}
        }
        Ok(())
    }
}

impl RequestFacts {
    /// What the head says, now that it is whole.
    fn close(self, head: &[u8], target_bytes: usize) -> Result<RequestRead, Fault> {
        if self.target_len > target_bytes {
            return Err(Fault::TargetTooLong);
        }
        if self.host.is_none() && self.version == Version::Http11 {
            return Err(Fault::HostMissing);
        }
        if let (Some((from, len)), Some((host, host_len))) = (self.authority, self.host) {
            // RFC 9112 §3.2.2 has proxies believe the target; servers behind us may not all be that good.
            if !head[from..from + len].eq_ignore_ascii_case(&head[host..host + host_len]) {
                return Err(Fault::HostDiffers);
            }
        }
        let body = self.body.of_request();
        let is_handshake = self.method == Method::Get
            && self.version == Version::Http11
            && self.connection.is_nominated
            && self.connection.is_present;
        let has_body = !body.is_finished();
        if has_body && (self.method == Method::Connect || is_handshake && self.connection.is_websocket) {
            return Err(Fault::UnexpectedBody);
        }
        let target = self.line_at + self.method_len + 1;
        Ok(RequestRead {
            len: head.len(),
            method: self.line_at..self.line_at + self.method_len,
            target: target..target + self.target_len,
            version: self.version,
            body,
            // HTTP/1.0 has no 100 Continue (RFC 9110 §10.1.1).
            expects_continue: self.expects && has_body && self.version == Version::Http11,
            may_become_tunnel: is_handshake && !has_body,
            persists: self.connection.persists(self.version),
            says_keep_alive: self.connection.says_keep_alive,
        })
    }
}

/// Where the authority of `target` is, if it has one (RFC 9112 §3.2).
fn check_target(method: Method, target: &[u8]) -> Result<Option<Part>, Fault> {
    match (method, target) {
        (Method::Connect, _) => match is_authority(target) && memchr::memrchr(b':', target).is_some() {
            true => Ok(Some((0, target.len()))),
            false => Err(Fault::Target),
        },
        (_, [b'/', ..]) => match is_path_and_query(target) {
            true => Ok(None),
            false => Err(Fault::Target),
        },
        (Method::Options, b"*") => Ok(None),
        _ => check_absolute(target).map(Some),
    }
}

fn check_absolute(target: &[u8]) -> Result<Part, Fault> {
    let scheme = memchr::memchr(b':', target).ok_or(Fault::Target)?;
    if !target[..scheme].eq_ignore_ascii_case(b"http") && !target[..scheme].eq_ignore_ascii_case(b"https") {
        return Err(Fault::Target);
    }
    let rest = target[scheme + 1..].strip_prefix(b"//").ok_or(Fault::Target)?;
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    if !is_path_and_query(&rest[end..]) {
        return Err(Fault::Target);
    }
    if !is_authority(&rest[..end]) {
        return Err(Fault::HostMalformed);
    }
    Ok((scheme + 3, end))
}
