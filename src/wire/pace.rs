//! How fast a client is while it is what everybody waits for.

use std::cell::Cell;

/// The least a client must move while it is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// Zero: nothing is asked.
    pub bytes_per_second: u64,
    /// How long it is waited for, all waits together, before that is judged; milliseconds.
    pub window_ms: u64,
}

/// What a client gave or took, and how long it was waited for, since a window began. One direction of one message.
///
/// Time in which the other side, or we, were in the way does not count: whoever is quick is never judged.
#[derive(Debug, Default)]
pub struct Pace {
    waited_ms: Cell<u64>,
    bytes: Cell<u64>,
    /// How much of the wait that is going on belongs to a window that is over.
    judged_ms: Cell<u64>,
    is_exempt: Cell<bool>,
}

impl Pace {
    /// Another message: what came before counts no more.
    #[inline]
    pub fn begin(&self) {
        if self.waited_ms.get() != 0 || self.is_exempt.get() || self.judged_ms.get() != 0 {
            self.waited_ms.set(0);
            self.judged_ms.set(0);
            self.is_exempt.set(false);
        }
        self.bytes.set(0);
    }

    /// This message may be as slow as it likes.
    pub fn exempt(&self) {
        self.is_exempt.set(true);
    }

    /// Notes that `bytes` were moved after a wait of `waited_ms`, or without one.
    #[inline]
    pub fn moved(&self, waited_ms: u64, bytes: u64) {
        if waited_ms > 0 {
            let more = waited_ms.saturating_sub(self.judged_ms.take());
            self.waited_ms.set(self.waited_ms.get().saturating_add(more));
        }
        self.bytes.set(self.bytes.get().saturating_add(bytes));
    }

    /// Whether the client was too slow in a window that is over; `pending_ms` is how long it is waited for right now.
    pub fn is_below(&self, floor: &Floor, pending_ms: u64) -> bool {
        let waited = self.waited_ms.get().saturating_add(pending_ms.saturating_sub(self.judged_ms.get()));
        if floor.bytes_per_second == 0 || self.is_exempt.get() || waited <= floor.window_ms {
            return false;
        }
        let is_below = self.bytes.get().saturating_mul(1000) < floor.bytes_per_second.saturating_mul(waited);
        if !is_below {
            self.waited_ms.set(0);
            self.bytes.set(0);
            self.judged_ms.set(pending_ms);
        }
        is_below
    }
}
