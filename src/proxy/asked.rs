//! A request as it came, whichever version of HTTP it came in.

use std::rc::Rc;

use http::{HeaderMap, Method, Request, Version};
use hyper::body::{Body, Incoming};

use crate::domain::{Fields, Known};
use crate::framing::{self, RequestRead};
use crate::reply::Failure;
use crate::wire::{ClientWire, Held};

/// A request whose head was read. Everything but the body is borrowed from where it arrived.
pub(crate) struct Asked<'a> {
    /// Its method.
    pub(crate) method: Method,
    /// The version it came in.
    pub(crate) version: Version,
    /// The authority of its target, where that has one.
    pub(crate) authority: Option<&'a str>,
    /// The path as it came; `*` for the asterisk form.
    pub(crate) path: &'a str,
    /// The query as it came.
    pub(crate) query: Option<&'a str>,
    /// Its fields.
    pub(crate) fields: Fields<'a>,
    /// Its body, not read yet.
    pub(crate) body: ClientBody,
}

/// A request body where it arrives.
pub(crate) enum ClientBody {
    /// There is none.
    None,
    /// On an HTTP/1 connection; how long it is, when that is known.
    H1(Rc<ClientWire>, Option<u64>),
    /// On a stream of an HTTP/2 connection; with what its window may come to hold.
    H2(Incoming, Held),
}

impl ClientBody {
    /// The body of an HTTP/2 stream; `hold` says what it may hold.
    pub(crate) fn h2(incoming: Incoming, hold: impl FnOnce() -> Held) -> Self {
        if incoming.is_end_stream() { Self::None } else { Self::H2(incoming, hold()) }
    }

    /// Whether there is one.
    pub(crate) const fn is_some(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Its length in bytes, when that is known.
    pub(crate) fn exact_len(&self) -> Option<u64> {
        match self {
            Self::None => Some(0),
            Self::H1(_, len) => *len,
            Self::H2(incoming, _) => incoming.size_hint().exact(),
        }
    }
}

impl<'a> Asked<'a> {
    /// A request that was read from an HTTP/1 connection; `head` begins with its first byte.
    ///
    /// # Errors
    /// When its parts are no text, which the framing has ruled out.
    pub(crate) fn h1(
        head: &'a [u8],
        fields: Fields<'a>,
        read: &RequestRead,
        wire: &Rc<ClientWire>,
    ) -> Result<Self, Failure> {
        let malformed = Failure::BadRequest { detail: "The request line is malformed." };
        let method = Method::from_bytes(&head[read.method.clone()]).map_err(|_| malformed)?;
        let target = std::str::from_utf8(&head[read.target.clone()]).map_err(|_| malformed)?;
        let (authority, rest) = match target.as_bytes() {
            [b'/', ..] | b"*" => (None, target),
            _ if method == Method::CONNECT => (Some(target), ""),
            _ => {
                let behind_scheme = target.find("://").map_or("", |at| &target[at + 3..]);
                let end = behind_scheme.find(['/', '?']).unwrap_or(behind_scheme.len());
                (Some(&behind_scheme[..end]), &behind_scheme[end..])
            }
        };
        let (path, query) = match memchr::memchr(b'?', rest.as_bytes()) {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        // An empty path of an absolute target is the root (RFC 9110 §4.2.3).
        let path = if path.is_empty() && authority.is_some() && method != Method::CONNECT { "/" } else { path };
        let version = match read.version {
            framing::Version::Http10 => Version::HTTP_10,
            framing::Version::Http11 => Version::HTTP_11,
        };
        let body = match read.body.exact_len() {
            Some(0) => ClientBody::None,
            len => ClientBody::H1(Rc::clone(wire), len),
        };
        Ok(Self { method, version, authority, path, query, fields, body })
    }

    /// A request of an HTTP/2 stream, whose fields are copied to `fields` already.
    pub(crate) fn h2(request: &'a Request<()>, fields: Fields<'a>, body: ClientBody) -> Self {
        let uri = request.uri();
        // As it stands there: the library calls an empty path the root.
        let target = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        Self {
            method: request.method().clone(),
            version: request.version(),
            authority: uri.authority().map(http::uri::Authority::as_str),
            path,
            query,
            fields,
            body,
        }
    }

    /// Host and port as the client said, in the one way they can be read (RFC 9112 §3.2, RFC 9113 §8.3.1); empty where
    /// HTTP/1.0 sent none.
    ///
    /// # Errors
    /// When host and target disagree, or either has no single reading.
    pub(crate) fn host(&self) -> Result<&'a str, Failure> {
        let refuse = |detail| Failure::BadRequest { detail };
        let malformed = refuse("The Host field is malformed.");
        let host = match self.fields.single(Known::Host) {
            Ok(value) => value.map(|value| std::str::from_utf8(value).map_err(|_| malformed)).transpose()?,
            Err(_) => return Err(refuse("The request carries more than one Host field.")),
        };
        let authority = match (self.authority, host) {
            (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
                return Err(refuse("Host and request target name different hosts."));
            }
            (Some(authority), _) => authority,
            (None, Some(host)) => host,
            (None, None) if self.version <= Version::HTTP_10 => "",
            (None, None) => return Err(refuse("The request names no host.")),
        };
        // Over HTTP/1 the framing has seen to it.
        if self.version == Version::HTTP_2 && !framing::is_authority(authority.as_bytes()) {
            return Err(malformed);
        }
        Ok(authority)
    }

    /// Whether it is gRPC: over HTTP/2, by its content type (gRPC over HTTP/2, "Requests").
    pub(crate) fn is_grpc(&self) -> bool {
        let is_named =
            |value: &[u8]| value.starts_with(b"application/grpc") && !value.starts_with(b"application/grpc-web");
        self.version == Version::HTTP_2 && self.fields.first(Known::ContentType).is_some_and(is_named)
    }

    /// Whether path and query could stand in the request line of HTTP/1 (RFC 9112 §3.2.1), as the upstream may get them.
    ///
    /// # Errors
    /// Over HTTP/2, where the library reads more than that: bytes beyond ASCII, a query without a path.
    pub(crate) fn check_target(&self) -> Result<(), Failure> {
        // Over HTTP/1 the framing has seen to it.
        if self.version != Version::HTTP_2 || self.method == Method::CONNECT {
            return Ok(());
        }
        let is_sound = match (self.path, self.query) {
            ("*", None) => self.method == Method::OPTIONS,
            (path, query) => path.starts_with('/') && framing::is_target(path.as_bytes(), query.map(str::as_bytes)),
        };
        let malformed = Failure::BadRequest { detail: framing::Fault::Target.detail() };
        if is_sound { Ok(()) } else { Err(malformed) }
    }

    /// The protocol it asks to change to, when it asks in a way that can be granted: a GET over HTTP/1.1 with
    /// `Connection: upgrade`, one `Upgrade` protocol, and no body (RFC 9110 §7.8, RFC 6455 §4.1).
    pub(crate) fn requested_protocol(&self) -> Option<&'a str> {
        let fields = self.fields;
        if !fields.has(Known::Upgrade) {
            return None;
        }
        let nominates = nominates_upgrade(fields);
        let grantable = self.method == Method::GET && self.version == Version::HTTP_11 && !self.body.is_some();
        let only = std::str::from_utf8(fields.single(Known::Upgrade).ok()??).ok()?;
        (nominates && grantable && !only.is_empty() && !only.contains(',')).then_some(only)
    }
}

/// Whether `Connection` says that `Upgrade` is meant for this connection (RFC 9110 §7.8).
pub(crate) fn nominates_upgrade(fields: Fields<'_>) -> bool {
    let mut tokens = fields.all(Known::Connection).flat_map(|value| value.split(|b| *b == b','));
    tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// Field lines as they stand in a trailer section.
pub(crate) fn trailers_of(section: &[u8]) -> Option<HeaderMap> {
    let mut trailers = HeaderMap::new();
    for line in section.split(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\r")) {
        let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
        let name = http::HeaderName::from_bytes(name).ok()?;
        trailers.append(name, http::HeaderValue::from_bytes(value[1..].trim_ascii()).ok()?);
    }
    (!trailers.is_empty()).then_some(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailer_section_is_read_line_by_line() {
        let trailers = trailers_of(b"A: 1\r\nb:\r\na:2 \r\n").unwrap();
        assert_eq!(trailers.get_all("a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(trailers["b"], "");
        assert_eq!(trailers_of(b""), None);
    }
}
