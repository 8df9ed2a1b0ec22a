//! What the fields of a head say about the body that follows it.

use super::fault::Fault;
use super::octets::{lists, number, trim};

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
        self.content_length = Some(number(trim(value)).ok_or(Fault::ContentLength)?);
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
        if !trim(value).eq_ignore_ascii_case(b"chunked") {
            return Err(Fault::TransferEncoding);
        }
        self.is_chunked = true;
        Ok(())
    }
}

/// What `Connection` and `Upgrade` say about leaving HTTP (RFC 9110 §7.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct UpgradeFields {
    pub(super) is_nominated: bool,
    pub(super) is_present: bool,
    pub(super) is_websocket: bool,
}

impl UpgradeFields {
    #[inline]
    pub(super) fn note_connection(&mut self, value: &[u8]) {
        // Nearly every `Connection` is `keep-alive` or `close`.
        if value.len() >= b"upgrade".len() && lists(value, b"upgrade") {
            self.is_nominated = true;
        }
    }

    #[inline]
    pub(super) fn note_upgrade(&mut self, value: &[u8]) {
        self.is_present = true;
        self.is_websocket |= lists(value, b"websocket");
    }
}

/// The versions of HTTP that are framed as RFC 9112 says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Version {
    Http10,
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
