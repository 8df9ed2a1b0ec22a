//! Bytes on their way out, and the frames of chunked bodies.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// Bytes to be written, as far as they were.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    written: usize,
}

impl Outbox {
    /// What `bytes` holds is to be written.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, written: 0 }
    }

    /// What is left to be written.
    pub fn left(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Whether everything was written.
    pub fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }

    /// Whether nothing was written yet.
    pub fn is_untouched(&self) -> bool {
        self.written == 0
    }

    /// Where more can be added.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
        }
        &mut self.bytes
    }

    /// The memory, for something else.
    pub fn into_memory(self) -> Vec<u8> {
        self.bytes
    }

    /// Writes until nothing is left.
    ///
    /// # Errors
    /// The stream's.
    #[inline]
    pub fn poll_drain<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, stream: &mut W) -> Poll<io::Result<()>> {
        while self.written < self.bytes.len() {
            let len = ready!(Pin::new(&mut *stream).poll_write(cx, &self.bytes[self.written..]))?;
            if len == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += len;
        }
        Poll::Ready(Ok(()))
    }
}

/// Begins a chunk of `len` bytes, at least one (RFC 9112 §7.1).
pub fn push_chunk_head(out: &mut Vec<u8>, len: usize) {
    let mut digits = [0; 16];
    let mut at = digits.len();
    let mut rest = len;
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[rest & 0xf];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// Ends a chunked body without trailers.
pub fn push_chunk_end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_sizes_are_hexadecimal_without_leading_zeros() {
        for (len, expected) in [(1, "1\r\n"), (15, "f\r\n"), (16, "10\r\n"), (0x1_0000, "10000\r\n")] {
            let mut out = Vec::new();
            push_chunk_head(&mut out, len);
            assert_eq!(out, expected.as_bytes());
        }
    }
}
