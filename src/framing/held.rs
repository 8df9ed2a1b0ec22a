//! Bytes that were read and may not pass yet, or did not fit.

use tokio::io::ReadBuf;

/// A queue of bytes: the first `cleared` may pass, the rest waits for a verdict. Owns no memory while empty.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    given: usize,
    cleared: usize,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.given == self.bytes.len()
    }

    pub(super) fn has_cleared(&self) -> bool {
        self.given < self.cleared
    }

    /// What waits for a verdict.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.cleared..]
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Lets `len` more bytes pass.
    pub(super) fn clear(&mut self, len: usize) {
        self.cleared = (self.cleared + len).min(self.bytes.len());
    }

    /// Lets everything pass.
    pub(super) fn clear_all(&mut self) {
        self.cleared = self.bytes.len();
    }

    /// Forgets what waits for a verdict.
    pub(super) fn drop_waiting(&mut self) {
        self.bytes.truncate(self.cleared);
        self.tidy();
    }

    /// Moves as much of what may pass as `buf` takes.
    pub(super) fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let len = (self.cleared - self.given).min(buf.remaining());
        buf.put_slice(&self.bytes[self.given..self.given + len]);
        self.given += len;
        self.tidy();
    }

    fn tidy(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        } else if self.given == self.cleared && self.given > 0 {
            self.bytes.drain(..self.given);
            (self.given, self.cleared) = (0, 0);
        }
    }
}
