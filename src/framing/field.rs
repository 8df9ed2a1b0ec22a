//! What the fields of a head say about the body that follows it.

use super::body::Body;
use super::fault::Fault;
use super::octets::{lists, number};

/// Where a message's body ends, as far as its fields say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct BodyFields {
    pub(super) content_length: Option<u64>,
    pub(super) is_chunked: bool,
}

impl BodyFields {
    #[inline]
    pub(super) fn note_content_length(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.content_length.is_some() {
            return Err(Fault::ContentLengthRepeated);
        }
        if self.is_chunked {
            return Err(Fault::LengthAndEncoding);
        }
        self.content_length = Some(number(value).ok_or(Fault::ContentLength)?);
        Ok(())
    }

    #[inline]
    pub(super) fn note_transfer_encoding(&mut self, value: &[u8], version: Version) -> Result<(), Fault> {
        if version == Version::Http10 {
            return Err(Fault::TransferEncodingInOldVersion);
        }
        if self.is_chunked {
            return Err(Fault::TransferEncodingRepeated);
        }
        if self.content_length.is_some() {
            return Err(Fault::LengthAndEncoding);
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Fault::TransferEncoding);
        }
        self.is_chunked = true;
        Ok(())
    }

    /// The body of a request (RFC 9112 §6.3): without either field there is none.
    pub(super) fn of_request(self) -> Body {
        self.announced().unwrap_or(Body::Empty)
    }

    /// The body of an answer that has one: without either field it ends with the connection.
    pub(super) fn of_answer(self) -> Body {
        self.announced().unwrap_or(Body::UntilClose)
    }

    fn announced(self) -> Option<Body> {
        match (self.is_chunked, self.content_length) {
            (true, _) => Some(Body::Chunked(Box::default())),
            (false, Some(0)) => Some(Body::Empty),
            (false, Some(length)) => Some(Body::Counted(length)),
            (false, None) => None,
        }
    }
}

/// What `Connection` and `Upgrade` say about what becomes of the connection (RFC 9110 §7.6.1, §7.8; RFC 9112 §9.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct ConnectionFields {
    pub(super) says_close: bool,
    pub(super) says_keep_alive: bool,
    pub(super) is_nominated: bool,
    pub(super) is_present: bool,
    pub(super) is_websocket: bool,
}

impl ConnectionFields {
    #[inline]
    pub(super) fn note_connection(&mut self, value: &[u8]) {
        // Nearly every `Connection` is `keep-alive` or `close`.
        if value.eq_ignore_ascii_case(b"keep-alive") {
            self.says_keep_alive = true;
            return;
        }
        self.says_close |= lists(value, b"close");
        self.says_keep_alive |= lists(value, b"keep-alive");
        self.is_nominated |= lists(value, b"upgrade");
    }

    /// Whether the sender of a message of this version goes on using the connection after it.
    pub(super) fn persists(self, version: Version) -> bool {
        !self.says_close && (version == Version::Http11 || self.says_keep_alive)
    }

    #[inline]
    pub(super) fn note_upgrade(&mut self, value: &[u8]) {
        self.is_present = true;
        self.is_websocket |= lists(value, b"websocket");
    }
}

/// The versions of HTTP that are framed as RFC 9112 says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    #[default]
    Http11,
}

impl Version {
    #[inline]
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        match bytes {
            b"HTTP/1.1" => Some(Self::Http11),
            b"HTTP/1.0" => Some(Self::Http10),
            _ => None,
        }
    }
}
