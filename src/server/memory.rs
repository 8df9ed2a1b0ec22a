//! The memory that clients may make the process hold, all workers together, and what follows when it is nearly as much.
//!
//! At nine tenths new connections and new HTTP/2 streams are answered 503; at the whole of it idle connections are closed
//! too. What is under way goes on within its bounds.

use std::cell::Cell;
use std::sync::Arc;

use super::settings::Limits;
use crate::cache::KeySet;
use crate::usage::most_notes;
use crate::wire::MemorySum;

/// What an HTTP/2 connection holds although nothing is under way: tables for fields, buffers for frames.
pub(super) const H2_CONNECTION: usize = 32 * 1024;
/// What TLS holds for a connection.
pub(super) const TLS_CONNECTION: usize = 32 * 1024;
/// What a stream holds until it is answered: its head twice, and whatever it waits with.
pub(super) const H2_STREAM: usize = 16 * 1024;

/// What a key in use takes beside the notes of workers, in bytes, and a little more: its slot, its meter, and what is to be
/// written of its use. A million of them took 310 MB at most with one worker, its notes included.
const KEY_IN_USE: u64 = 320;
/// What a worker's note of a key takes until it is gathered, in bytes.
const NOTE: u64 = 220;
/// Less than this is no limit that a configuration may set either.
const LEAST: u64 = 32 * 1024 * 1024;

/// The sums of all workers.
pub(crate) struct Memory {
    sums: Box<[MemorySum]>,
    /// Bytes that there are for this process; none where nobody knows.
    machine: Option<u64>,
    /// They are in memory, too.
    keys: Arc<KeySet>,
}

impl Memory {
    /// For this many workers, on a machine that has so many bytes for us; none where nobody knows.
    pub(crate) fn new(workers: usize, machine: Option<u64>, keys: Arc<KeySet>) -> Arc<Self> {
        Arc::new(Self { sums: (0..workers).map(|_| MemorySum::default()).collect(), machine, keys })
    }

    /// How much is held, in bytes.
    pub(crate) fn held(&self) -> u64 {
        self.sums.iter().map(MemorySum::bytes).fold(0, u64::saturating_add)
    }

    /// How much may be.
    pub(crate) fn limit(&self, limits: &Limits) -> u64 {
        limits.memory.unwrap_or_else(|| self.usual())
    }

    /// What applies unless configured.
    fn usual(&self) -> u64 {
        self.machine.map_or(u64::MAX, |machine| usual(machine, self.sums.len(), self.keys.len()))
    }

    /// Whether nothing new should begin.
    pub(super) fn is_nearly_full(&self, limits: &Limits) -> bool {
        is_nearly(self.held(), self.limit(limits))
    }

    /// Worker `number` of them.
    pub(super) fn worker(self: &Arc<Self>, number: usize) -> WorkerMemory {
        let own = self.sums.get(number).cloned().unwrap_or_default();
        let usual = Cell::new(self.usual());
        WorkerMemory { own, all: Arc::clone(self), others: Cell::new(0), seen: Cell::new(0), usual }
    }
}

/// Three quarters of what so many keys leave of a machine, if all of them are in use; and of a quarter of it at least, as very
/// many hardly are.
fn usual(machine: u64, workers: usize, keys: usize) -> u64 {
    let notes = keys.saturating_mul(workers).min(most_notes(workers)) as u64;
    let taken = (keys as u64).saturating_mul(KEY_IN_USE).saturating_add(notes.saturating_mul(NOTE));
    let left = machine.saturating_sub(taken).max(machine / 4);
    (left - left / 4).max(LEAST)
}

const fn is_nearly(held: u64, limit: u64) -> bool {
    held >= limit - limit / 10
}

/// The same, as one worker sees it: its own sum as it is, everything else as it was a moment ago.
pub(super) struct WorkerMemory {
    /// What it holds itself.
    pub(super) own: MemorySum,
    all: Arc<Memory>,
    others: Cell<u64>,
    /// Its own sum when it last looked at the others'.
    seen: Cell<u64>,
    /// What applies unless configured.
    usual: Cell<u64>,
}

impl WorkerMemory {
    /// Looks at what the others hold. To be called now and then.
    pub(super) fn look(&self) {
        let own = self.own.bytes();
        self.seen.set(own);
        self.others.set(self.all.held().saturating_sub(own));
        self.usual.set(self.all.usual());
    }

    /// Whether nothing new should begin. Looks at the others again where this worker has grown by much.
    pub(super) fn is_nearly_full(&self, limits: &Limits) -> bool {
        let limit = self.limit(limits);
        is_nearly(self.held(limit), limit)
    }

    /// Whether what is idle should go.
    pub(super) fn is_full(&self, limits: &Limits) -> bool {
        let limit = self.limit(limits);
        self.held(limit) >= limit
    }

    fn limit(&self, limits: &Limits) -> u64 {
        limits.memory.unwrap_or_else(|| self.usual.get())
    }

    fn held(&self, limit: u64) -> u64 {
        let own = self.own.bytes();
        if own.saturating_sub(self.seen.get()) > limit / 32 {
            self.look();
        }
        own.saturating_add(self.others.get())
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
