//! The memory that clients may make the process hold, all workers together, and what follows when it is nearly as much.
//!
//! At nine tenths new connections and new HTTP/2 streams are answered 503; at the whole of it idle connections are closed
//! too. What is under way goes on within its bounds.

use std::cell::Cell;
use std::sync::Arc;

use super::settings::Limits;
use crate::wire::MemorySum;

/// What an HTTP/2 connection holds although nothing is under way: tables for fields, buffers for frames.
pub(super) const H2_CONNECTION: usize = 32 * 1024;
/// What TLS holds for a connection.
pub(super) const TLS_CONNECTION: usize = 32 * 1024;
/// What a stream holds until it is answered: its head twice, and whatever it waits with.
pub(super) const H2_STREAM: usize = 16 * 1024;

/// The sums of all workers.
pub(crate) struct Memory {
    sums: Box<[MemorySum]>,
    /// What applies unless configured.
    usual: u64,
}

impl Memory {
    /// For this many workers, on a machine that has so many bytes for us; none where nobody knows.
    pub(crate) fn new(workers: usize, machine: Option<u64>) -> Arc<Self> {
        let usual = machine.map_or(u64::MAX, |machine| machine - machine / 4);
        Arc::new(Self { sums: (0..workers).map(|_| MemorySum::default()).collect(), usual })
    }

    /// How much is held, in bytes.
    pub(crate) fn held(&self) -> u64 {
        self.sums.iter().map(MemorySum::bytes).fold(0, u64::saturating_add)
    }

    /// How much may be.
    pub(crate) fn limit(&self, limits: &Limits) -> u64 {
        limits.memory.unwrap_or(self.usual)
    }

    /// Whether nothing new should begin.
    pub(super) fn is_nearly_full(&self, limits: &Limits) -> bool {
        is_nearly(self.held(), self.limit(limits))
    }

    /// Worker `number` of them.
    pub(super) fn worker(self: &Arc<Self>, number: usize) -> WorkerMemory {
        let own = self.sums.get(number).cloned().unwrap_or_default();
        WorkerMemory { own, all: Arc::clone(self), others: Cell::new(0), seen: Cell::new(0) }
    }
}

const fn is_nearly(held: u64, limit: u64) -> bool {
    held >= limit - limit / 10
}

/// The same, as one worker sees it: its own sum as it is, those of the others as they were a moment ago.
pub(super) struct WorkerMemory {
    /// What it holds itself.
    pub(super) own: MemorySum,
    all: Arc<Memory>,
    others: Cell<u64>,
    /// Its own sum when it last looked at the others'.
    seen: Cell<u64>,
}

impl WorkerMemory {
    /// Looks at what the others hold. To be called now and then.
    pub(super) fn look(&self) {
        let own = self.own.bytes();
        self.seen.set(own);
        self.others.set(self.all.held().saturating_sub(own));
    }

    /// Whether nothing new should begin. Looks at the others again where this worker has grown by much.
    pub(super) fn is_nearly_full(&self, limits: &Limits) -> bool {
        let limit = self.all.limit(limits);
        is_nearly(self.held(limit), limit)
    }

    /// Whether what is idle should go.
    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        let limit = self.all.limit(limits);
        self.held(limit) >= limit
    }

    fn held(&self, limit: u64) -> u64 {
        let own = self.own.bytes();
        if own.saturating_sub(self.seen.get()) > limit / 32 {
            self.look();
        }
        own.saturating_add(self.others.get())
    }
}
