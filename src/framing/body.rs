//! The body of a message, followed piece by piece: which bytes are its data, and where it ends (RFC 9112 §6).

use std::ops::Range;

use super::chunked::Chunked;
use super::fault::Fault;

/// A body as its head announced it, and how far it was read.
#[derive(Debug, Clone, Default)]
pub enum Body {
    /// There is none, or all of it was read.
    #[default]
    Empty,
    /// So many bytes are left.
    Counted(u64),
    /// It comes in chunks.
    Chunked(Box<Chunked>),
    /// It ends with the connection.
    UntilClose,
}

/// What the beginning of some bytes is to a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// How many bytes belong to the body; data is the last of them.
    pub len: usize,
    /// Which of them are data.
    pub data: Range<usize>,
}

impl Body {
    /// How many bytes of data are left, when that is known.
    pub fn exact_len(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Counted(left) => Some(*left),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Follows a body of known length past data that nobody looks at, at most as much as is left of it.
    pub fn skip(&mut self, len: u64) {
        if let Self::Counted(left) = self {
            *left = left.saturating_sub(len);
            if *left == 0 {
                *self = Self::Empty;
            }
        }
    }

    /// Follows the body through `bytes`, as far as the end of the first run of data.
    ///
    /// Of [`Taken::len`] zero, or without data while the body is not over, more bytes are needed.
    ///
    /// # Errors
    /// The fault at the first byte that breaks a rule; data before it was taken by the calls before.
    #[inline]
    pub fn follow(&mut self, bytes: &[u8]) -> Result<Taken, Fault> {
        match self {
            Self::Empty => Ok(Taken { len: 0, data: 0..0 }),
            Self::Counted(left) => {
                // At most the length of a slice.
                let len = (*left).min(bytes.len() as u64) as usize;
                *left -= len as u64;
                if *left == 0 {
                    *self = Self::Empty;
                }
                Ok(Taken { len, data: 0..len })
            }
            Self::Chunked(chunked) => chunked.follow(bytes),
            Self::UntilClose => Ok(Taken { len: bytes.len(), data: 0..bytes.len() }),
        }
    }

    /// Whether its last byte was taken.
    #[inline]
    pub fn is_finished(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Counted(left) => *left == 0,
            Self::Chunked(chunked) => chunked.is_finished(),
            Self::UntilClose => false,
        }
    }

    /// The trailer section as it came, field lines with CR LF each; empty where there was none.
    pub fn trailers(&self) -> &[u8] {
        match self {
            Self::Chunked(chunked) => chunked.trailers(),
            Self::Empty | Self::Counted(_) | Self::UntilClose => &[],
        }
    }
}
