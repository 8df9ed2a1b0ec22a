//! Requests as a stream of bytes: which of them may pass, and where the first fault is.
//!
//! Pure: bytes in, a number out. The socket is the business of `request_guard.rs`.

use super::chunked::{Chunked, Followed};
use super::fault::Fault;
use super::field::{BodyFields, UpgradeFields, Version};
use super::head::{Facts, Head, HeadLimits};
use super::octets::{is_authority, is_path_and_query, is_token, token_len, trim};

/// Bounds of a request head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Largest head in bytes; beyond: [`Fault::HeadTooLarge`]. hyper's buffer must be at least as large.
    pub head_bytes: usize,
    /// Most fields; beyond: [`Fault::TooManyFields`]. hyper's `max_headers` must be at least as many.
    pub head_fields: usize,
    /// Longest target in bytes; beyond: [`Fault::TargetTooLong`]. Never above 65,534, which is hyper's bound.
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

/// Where the reading of a client's bytes stands.
#[derive(Debug, Clone)]
pub(super) enum Stand {
    /// Between two requests, or within a head.
    Head(Head<RequestFacts>),
    /// Within a body of known length.
    Counted(u64),
    /// Within a chunked body.
    Chunked(Chunked),
    /// Behind the head of an upgrade request: what follows is a request or a tunnel, which is not known yet.
    AwaitingUpgrade,
    /// HTTP is over.
    Tunnel,
    /// A request was refused before any byte of it passed.
    RefusedHead(Fault),
    /// A body broke the rules after its head had passed.
    BrokenBody(Fault),
}

/// The requests of one connection.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) stand: Stand,
    /// How many heads have passed.
    pub(super) heads: u64,
    limits: HeadLimits,
    target_bytes: usize,
}

impl Requests {
    pub(super) fn new(limits: RequestLimits) -> Self {
        let target_bytes = limits.target_bytes.min(MAX_TARGET_BYTES);
        let start_line = (target_bytes + REQUEST_LINE_REST, Fault::TargetTooLong);
        let head = HeadLimits { bytes: limits.head_bytes, fields: limits.head_fields, start_line };
        Self { stand: Stand::Head(Head::default()), heads: 0, limits: head, target_bytes }
    }

    /// How many of `bytes` may pass, from the first on.
    ///
    /// What may not is the beginning of a head (give it again with more behind it), is behind an upgrade request, or is
    /// at fault; [`Requests::stand`] tells which.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            match &mut self.stand {
                Stand::Head(head) => match head.advance(rest, &self.limits) {
                    Ok(None) => return at,
                    Ok(Some(len)) => match head.facts.close(&rest[..len], self.target_bytes) {
                        Ok(next) => {
                            at += len;
                            self.heads += 1;
                            self.stand = next;
                        }
                        Err(fault) => {
                            self.stand = Stand::RefusedHead(fault);
                            return at;
                        }
                    },
                    Err(fault) => {
                        self.stand = Stand::RefusedHead(fault);
                        return at;
                    }
                },
                Stand::Counted(left) => {
                    let taken = (*left).min(rest.len() as u64);
                    *left -= taken;
                    // At most the length of a slice.
                    at += taken as usize;
                    if *left > 0 {
                        return at;
                    }
                    self.stand = Stand::Head(Head::default());
                }
                Stand::Chunked(body) => {
                    let (taken, followed) = body.advance(rest);
                    at += taken;
                    match followed {
                        Followed::Unfinished => return at,
                        Followed::Finished => self.stand = Stand::Head(Head::default()),
                        Followed::Broken(fault) => {
                            self.stand = Stand::BrokenBody(fault);
                            return at;
                        }
                    }
                }
                Stand::Tunnel => return bytes.len(),
                Stand::AwaitingUpgrade | Stand::RefusedHead(_) | Stand::BrokenBody(_) => return at,
            }
        }
    }

    /// Whether a request's body is under way.
    pub(super) fn is_in_body(&self) -> bool {
        matches!(self.stand, Stand::Counted(_) | Stand::Chunked(_))
    }

    /// Ends the reading with a fault that is not in the bytes, such as their absence.
    pub(super) fn give_up(&mut self, fault: Fault) {
        match self.stand {
            Stand::Head(_) | Stand::AwaitingUpgrade => self.stand = Stand::RefusedHead(fault),
            Stand::Counted(_) | Stand::Chunked(_) => self.stand = Stand::BrokenBody(fault),
            Stand::Tunnel | Stand::RefusedHead(_) | Stand::BrokenBody(_) => {}
        }
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
    target_len: usize,
    authority: Option<Part>,
    host: Option<Part>,
    body: BodyFields,
    upgrade: UpgradeFields,
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
        self.target_len = target.len();
        self.authority = check_target(self.method, target)?.map(|(from, len)| (at + method_len + 1 + from, len));
        Ok(())
    }

    #[inline]
    fn field(&mut self, name: &[u8], value: &[u8], at: usize) -> Result<(), Fault> {
        // The length sorts out nearly all names before a byte is compared.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                if self.host.is_some() {
                    return Err(Fault::HostRepeated);
                }
                if !is_authority(trim(value)) {
                    return Err(Fault::HostMalformed);
                }
                self.host = Some((at, value.len()));
            }
            6 if name.eq_ignore_ascii_case(b"expect") => {
                if self.expects || !trim(value).eq_ignore_ascii_case(b"100-continue") {
                    return Err(Fault::Expect);
                }
                self.expects = true;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.upgrade.note_upgrade(value),
            10 if name.eq_ignore_ascii_case(b"connection") => self.upgrade.note_connection(value),
            14 if name.eq_ignore_ascii_case(b"content-length") => self.body.note_content_length(value)?,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.body.note_transfer_encoding(value, self.version)?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl RequestFacts {
    /// What follows the head, now that it is whole.
    fn close(&self, head: &[u8], target_bytes: usize) -> Result<Stand, Fault> {
        if self.target_len > target_bytes {
            return Err(Fault::TargetTooLong);
        }
        if self.host.is_none() && self.version == Version::Http11 {
            return Err(Fault::HostMissing);
        }
        if let (Some((from, len)), Some((host, host_len))) = (self.authority, self.host) {
            // RFC 9112 §3.2.2 has proxies believe the target; servers behind us may not all be that good.
            if !head[from..from + len].eq_ignore_ascii_case(trim(&head[host..host + host_len])) {
                return Err(Fault::HostDiffers);
            }
        }
        let next = match (self.body.is_chunked, self.body.content_length) {
            (true, _) => Some(Stand::Chunked(Chunked::default())),
            (false, Some(0) | None) => None,
            (false, Some(length)) => Some(Stand::Counted(length)),
        };
        let is_handshake = self.method == Method::Get
            && self.version == Version::Http11
            && self.upgrade.is_nominated
            && self.upgrade.is_present;
        match next {
            Some(_) if self.method == Method::Connect => Err(Fault::UnexpectedBody),
            Some(_) if is_handshake && self.upgrade.is_websocket => Err(Fault::UnexpectedBody),
            Some(body) => Ok(body),
            None if is_handshake => Ok(Stand::AwaitingUpgrade),
            None => Ok(Stand::Head(Head::default())),
        }
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
