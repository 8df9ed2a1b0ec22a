//! Chunked bodies, followed byte by byte (RFC 9112 §7.1).
//!
//! Bytes pass while they are looked at, so a fault is found at the very byte that makes it, wherever reads were cut.

use super::fault::Fault;
use super::octets::{is_extension, is_token, is_value};

/// Most bytes of extensions in one body, semicolons included; nobody who means well sends any.
const EXTENSION_BYTES: u32 = 4 * 1024;
/// Most bytes of a trailer section, and most fields in it. hyper stops at 16 KiB and 100.
const TRAILER_BYTES: u32 = 8 * 1024;
const TRAILER_FIELDS: u32 = 100;
const SIZE_DIGITS: u8 = 16;
/// The longest name of [`FORBIDDEN_TRAILERS`].
const NAME_BYTES: usize = b"transfer-encoding".len();
/// Fields that frame or route a message and so must stand before its body (RFC 9110 §6.5.1).
const FORBIDDEN_TRAILERS: [&[u8]; 3] = [b"content-length", b"transfer-encoding", b"host"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Size,
    Extension,
    SizeFeed,
    Data,
    DataReturn,
    DataFeed,
    TrailerLine,
    TrailerName,
    TrailerValue,
    TrailerFeed,
    LastFeed,
}

/// How far a body was followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Followed {
    /// More of it is to come.
    Unfinished,
    /// Its last byte was among those taken.
    Finished,
    /// The byte behind those taken breaks a rule.
    Broken(Fault),
}

/// A chunked body that is arriving.
#[derive(Debug, Clone)]
pub(super) struct Chunked {
    at: At,
    digits: u8,
    /// Of the chunk at hand: its size while that is read, then what is left of it.
    size: u64,
    extension_bytes: u32,
    trailer_bytes: u32,
    trailer_fields: u32,
    name: [u8; NAME_BYTES],
    name_len: usize,
}

impl Default for Chunked {
    fn default() -> Self {
        Self {
            at: At::Size,
            digits: 0,
            size: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            trailer_fields: 0,
            name: [0; NAME_BYTES],
            name_len: 0,
        }
    }
}

impl Chunked {
    /// How many of `bytes` belong to the body and are well-formed, and what comes after them.
    pub(super) fn advance(&mut self, bytes: &[u8]) -> (usize, Followed) {
        let mut taken = 0;
        while let Some(&byte) = bytes.get(taken) {
            if self.at == At::Data {
                let len = self.size.min((bytes.len() - taken) as u64);
                self.size -= len;
                // At most the length of a slice.
                taken += len as usize;
                if self.size == 0 {
                    self.at = At::DataReturn;
                }
                continue;
            }
            match self.step(byte) {
                Ok(Some(next)) => {
                    self.at = next;
                    taken += 1;
                }
                Ok(None) => return (taken + 1, Followed::Finished),
                Err(fault) => return (taken, Followed::Broken(fault)),
            }
        }
        (taken, Followed::Unfinished)
    }

    /// Where `byte` leads; none: it was the last.
    fn step(&mut self, byte: u8) -> Result<Option<At>, Fault> {
        if matches!(self.at, At::TrailerLine | At::TrailerName | At::TrailerValue) {
            self.trailer_bytes += 1;
            if self.trailer_bytes > TRAILER_BYTES {
                return Err(Fault::TrailersTooLarge);
            }
        }
        let next = match (self.at, byte) {
            (At::Size, b'\r') if self.digits > 0 => At::SizeFeed,
            (At::Size, b';') if self.digits > 0 => return self.extension(),
            (At::Size, _) => return self.digit(byte),
            (At::Extension, b'\r') => At::SizeFeed,
            (At::Extension, _) if is_extension(byte) => return self.extension(),
            (At::Extension, _) => return Err(Fault::ChunkExtension),
            (At::SizeFeed, b'\n') if self.size == 0 => At::TrailerLine,
            (At::SizeFeed, b'\n') => At::Data,
            (At::DataReturn, b'\r') => At::DataFeed,
            (At::DataFeed, b'\n') => {
                self.digits = 0;
                At::Size
            }
            (At::SizeFeed | At::DataReturn | At::DataFeed, _) => return Err(Fault::ChunkEnd),
            (At::TrailerLine, b'\r') => At::LastFeed,
            (At::TrailerLine, _) if is_token(byte) => {
                self.trailer_fields += 1;
                if self.trailer_fields > TRAILER_FIELDS {
                    return Err(Fault::TrailersTooLarge);
                }
                self.name_len = 0;
                self.note_name(byte);
                At::TrailerName
            }
            (At::TrailerName, b':') if !self.is_forbidden() => At::TrailerValue,
            (At::TrailerName, _) if is_token(byte) => {
                self.note_name(byte);
                At::TrailerName
            }
            (At::TrailerValue, b'\r') => At::TrailerFeed,
            (At::TrailerValue, _) if is_value(byte) => At::TrailerValue,
            (At::TrailerFeed, b'\n') => At::TrailerLine,
            (At::LastFeed, b'\n') => return Ok(None),
            (At::TrailerLine | At::TrailerName | At::TrailerValue | At::TrailerFeed | At::LastFeed, _) => {
                return Err(Fault::Trailer);
            }
            // `advance` takes data in bulk.
            (At::Data, _) => At::Data,
        };
        Ok(Some(next))
    }

    fn digit(&mut self, byte: u8) -> Result<Option<At>, Fault> {
        let digit = char::from(byte).to_digit(16).ok_or(Fault::ChunkSize)?;
        let so_far = if self.digits == 0 { 0 } else { self.size };
        if self.digits == SIZE_DIGITS || so_far > (i64::MAX.unsigned_abs() >> 4) {
            return Err(Fault::ChunkSize);
        }
        self.digits += 1;
        self.size = (so_far << 4) | u64::from(digit);
        Ok(Some(At::Size))
    }

    fn extension(&mut self) -> Result<Option<At>, Fault> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES {
            return Err(Fault::ChunkExtensionsTooLarge);
        }
        Ok(Some(At::Extension))
    }

    fn note_name(&mut self, byte: u8) {
        if let Some(slot) = self.name.get_mut(self.name_len) {
            *slot = byte;
        }
        self.name_len = self.name_len.saturating_add(1);
    }

    fn is_forbidden(&self) -> bool {
        self.name
            .get(..self.name_len)
            .is_some_and(|name| FORBIDDEN_TRAILERS.iter().any(|f| f.eq_ignore_ascii_case(name)))
    }
}
