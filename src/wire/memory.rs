//! How much memory what one worker serves holds, or may come to hold by our own bounds: buffers while they are lent, what
//! the HTTP/2 library was given to send until it has sent it, and windows that a client may fill at any moment.
//!
//! The size of the process would not do: memory that was freed is not given back to the system at once, so whoever sheds
//! by it would go on for ever. The HTTP/2 library cannot be asked what it holds either.

use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// One worker's sum. Its thread alone adds to most of it, by a load and a store on a cache line of its own; others only
/// look, and seldom.
#[derive(Debug, Clone, Default)]
pub struct MemorySum(Arc<Sums>);

#[derive(Debug, Default)]
#[repr(align(128))]
struct Sums {
    /// Written by the worker's thread.
    held: AtomicU64,
    /// Written by whoever drops what was sent.
    sent: AtomicU64,
}

impl MemorySum {
    /// In bytes.
    pub fn bytes(&self) -> u64 {
        self.0.held.load(Ordering::Relaxed).saturating_add(self.0.sent.load(Ordering::Relaxed))
    }

    /// Adds bytes. By the worker's thread alone.
    #[inline]
    pub(super) fn add(&self, bytes: usize) {
        let held = self.0.held.load(Ordering::Relaxed);
        self.0.held.store(held.saturating_add(bytes as u64), Ordering::Relaxed);
    }

    /// Takes away what was added. By the worker's thread alone.
    #[inline]
    pub(super) fn remove(&self, bytes: usize) {
        let held = self.0.held.load(Ordering::Relaxed);
        self.0.held.store(held.saturating_sub(bytes as u64), Ordering::Relaxed);
    }

    /// Adds bytes for as long as the answer lives. By the worker's thread alone, which it cannot leave.
    pub fn hold(&self, bytes: usize) -> Held {
        self.add(bytes);
        Held { sum: self.clone(), bytes, stays_here: PhantomData }
    }

    /// The same bytes, which count until the last reference to them is gone.
    pub fn counted(&self, bytes: Bytes) -> Bytes {
        self.0.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Bytes::from_owner(Counted { bytes, sums: Arc::clone(&self.0) })
    }
}

/// Bytes among a worker's sum.
#[derive(Debug)]
pub struct Held {
    sum: MemorySum,
    bytes: usize,
    stays_here: PhantomData<Rc<()>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.sum.remove(self.bytes);
    }
}

struct Counted {
    bytes: Bytes,
    sums: Arc<Sums>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.sums.sent.fetch_sub(self.bytes.len() as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_counts_until_it_is_dropped() {
        let sum = MemorySum::default();
        let held = sum.hold(100);
        let sent = sum.counted(Bytes::from_static(b"hello"));
        let part = sent.slice(1..3);
        drop(sent);
        assert_eq!((&part[..], sum.bytes()), (&b"el"[..], 105), "a part keeps the whole");
        drop(part);
        assert_eq!(sum.bytes(), 100);
        drop(held);
        assert_eq!(sum.bytes(), 0);
    }
}
