//! Chunked bodies, followed byte by byte (RFC 9112 §7.1).
//!
//! A fault is found at the very byte that makes it, wherever reads were cut.

use super::body::Taken;
use super::fault::Fault;
use super::octets::{is_extension, is_token, is_value};

/// Most bytes of extensions in one body, semicolons included; nobody who means well sends any.
const EXTENSION_BYTES: u32 = 4 * 1024;
/// Most bytes of a trailer section, and most fields in it.
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
    Over,
}

/// A chunked body that is arriving.
#[derive(Debug, Clone)]
pub struct Chunked {
    at: At,
    digits: u8,
    /// Of the chunk at hand: its size while that is read, then what is left of it.
    size: u64,
    extension_bytes: u32,
    trailer_bytes: u32,
    trailer_fields: u32,
    name: [u8; NAME_BYTES],
    name_len: usize,
    /// The trailer section so far. Bounded by [`TRAILER_BYTES`].
    trailers: Vec<u8>,
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
            trailers: Vec::new(),
        }
    }
}

impl Chunked {
    /// Follows the body through `bytes` as far as the end of the first run of data.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<Taken, Fault> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.at {
                At::Over => break,
                At::Data => {
                    // At most the length of a slice.
                    let len = self.size.min((bytes.len() - at) as u64) as usize;
                    self.size -= len as u64;
                    if self.size == 0 {
                        self.at = At::DataReturn;
                    }
                    return Ok(Taken { len: at + len, data: at..at + len });
                }
                _ => {}
            }
            let next = self.step(byte)?;
            let was_trailer = matches!(self.at, At::TrailerLine | At::TrailerName | At::TrailerValue | At::TrailerFeed);
            if was_trailer && next != At::LastFeed {
                self.trailers.push(byte);
            }
            self.at = next;
            at += 1;
        }
        Ok(Taken { len: at, data: at..at })
    }

    /// Whether its last byte was followed.
    pub(super) fn is_finished(&self) -> bool {
        self.at == At::Over
    }

    /// The trailer section as far as it came.
    pub(super) fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Where `byte` leads.
    fn step(&mut self, byte: u8) -> Result<At, Fault> {
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
            (At::LastFeed, b'\n') => At::Over,
            (At::TrailerLine | At::TrailerName | At::TrailerValue | At::TrailerFeed | At::LastFeed, _) => {
                return Err(Fault::Trailer);
            }
            // `follow` takes data in bulk, and nothing is behind the end.
            (At::Data, _) => At::Data,
            (At::Over, _) => At::Over,
        };
        Ok(next)
    }

    fn digit(&mut self, byte: u8) -> Result<At, Fault> {
        let digit = char::from(byte).to_digit(16).ok_or(Fault::ChunkSize)?;
        let so_far = if self.digits == 0 { 0 } else { self.size };
        if self.digits == SIZE_DIGITS || so_far > (i64::MAX.unsigned_abs() >> 4) {
            return Err(Fault::ChunkSize);
        }
        self.digits += 1;
        self.size = (so_far << 4) | u64::from(digit);
        Ok(At::Size)
    }

    fn extension(&mut self) -> Result<At, Fault> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES {
            return Err(Fault::ChunkExtensionsTooLarge);
        }
        Ok(At::Extension)
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
