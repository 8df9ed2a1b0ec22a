//! A body that is read from a buffer: which bytes at its front are data.

use super::buffer::Buffer;
use crate::framing::{Body, Fault};

/// A body under way, and how much of its data lies at the front of the buffer.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    body: Body,
    run: usize,
}

/// What the buffer holds for a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// So many bytes of data, at its front.
    Data(usize),
    /// Nothing: more must be read.
    Nothing,
    /// Nothing, and nothing follows.
    End,
}

impl Cursor {
    pub(super) fn new(body: Body) -> Self {
        Self { body, run: 0 }
    }

    /// What `buffer` holds; frames around the data are taken out of it.
    ///
    /// # Errors
    /// The fault at the first byte that breaks a rule.
    #[inline]
    pub(super) fn look(&mut self, buffer: &mut Buffer) -> Result<Held, Fault> {
        while self.run == 0 && !self.body.is_finished() {
            if buffer.is_empty() {
                return Ok(Held::Nothing);
            }
            let taken = self.body.follow(buffer.data())?;
            buffer.consume(taken.data.start);
            self.run = taken.data.len();
        }
        Ok(if self.run > 0 { Held::Data(self.run) } else { Held::End })
    }

    /// Like [`Cursor::look`], but for a body of known length all of it that is there, whatever came after the first look;
    /// how many bytes of data lie at the front.
    ///
    /// # Errors
    /// As [`Cursor::look`].
    pub(super) fn gather(&mut self, buffer: &mut Buffer) -> Result<usize, Fault> {
        self.look(buffer)?;
        if let Body::Counted(_) = self.body {
            self.run += self.body.follow(&buffer.data()[self.run..])?.data.len();
        }
        Ok(self.run)
    }

    /// How much is left of a body of known length of which nothing was read and not used.
    pub(super) fn untouched_len(&self) -> Option<u64> {
        match self.body {
            Body::Counted(left) if self.run == 0 => Some(left),
            _ => None,
        }
    }

    /// So much of it went another way.
    pub(super) fn skip(&mut self, len: usize) {
        self.body.skip(len as u64);
    }

    /// So much of what went another way came back, to the front of the buffer.
    pub(super) fn put_back(&mut self, len: usize) {
        self.run += len;
    }

    /// Whether its last byte was read, used or not.
    pub(super) fn is_whole(&self) -> bool {
        self.body.is_finished()
    }

    /// Takes `len` bytes of the data away.
    #[inline]
    pub(super) fn consume(&mut self, buffer: &mut Buffer, len: usize) {
        let len = len.min(self.run);
        self.run -= len;
        buffer.consume(len);
    }

    /// Whether its last byte was read and used.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.run == 0 && self.body.is_finished()
    }

    /// Whether it ends with the connection.
    pub(super) fn ends_with_connection(&self) -> bool {
        matches!(self.body, Body::UntilClose)
    }

    /// The stream ended: a body that ends with it is over now.
    pub(super) fn end_with_connection(&mut self) {
        self.body = Body::Empty;
    }

    /// How many bytes of data are left, when that is known.
    pub(super) fn exact_len(&self) -> Option<u64> {
        self.body.exact_len().map(|left| left + self.run as u64)
    }

    /// The trailer section, once the body is over.
    pub(super) fn trailers(&self) -> &[u8] {
        self.body.trailers()
    }
}
