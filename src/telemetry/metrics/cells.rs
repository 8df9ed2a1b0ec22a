//! Numbers with one writer and any number of readers.
//!
//! A cell is written by the one worker that owns it with a plain load and store, so that counting needs no locked
//! instruction, and cells of different workers never share a cache line. Readers see each cell whole, and different
//! cells at slightly different moments.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Cells to a block: one cache line.
const BLOCK_CELLS: usize = 8;

/// A cache line of cells that belong to one worker.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Block([AtomicU64; BLOCK_CELLS]);

/// One number. Whoever calls [`Cell::add`] or [`Cell::subtract`] must be the only one who does.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    block: Arc<Block>,
    at: usize,
}

impl Cell {
    /// Adds `amount`, wrapping around.
    #[inline]
    pub(super) fn add(&self, amount: u64) {
        add(&self.block.0[self.at % BLOCK_CELLS], amount);
    }

    /// Subtracts `amount`, wrapping around: the sum over all workers is what counts.
    #[inline]
    pub(super) fn subtract(&self, amount: u64) {
        self.add(amount.wrapping_neg());
    }

    /// The number.
    pub(super) fn read(&self) -> u64 {
        self.block.0[self.at % BLOCK_CELLS].load(Relaxed)
    }
}

#[inline]
fn add(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
}

/// Hands out the cells of one worker.
#[derive(Debug, Default)]
pub(super) struct CellSource {
    block: Arc<Block>,
    used: usize,
}

impl CellSource {
    /// A cell that nobody else has, at zero.
    pub(super) fn cell(&mut self) -> Cell {
        if self.used == BLOCK_CELLS {
            *self = Self::default();
        }
        let at = self.used;
        self.used += 1;
        Cell { block: Arc::clone(&self.block), at }
    }
}

/// Upper bounds in nanoseconds of a histogram's buckets, ascending; above the last there is only `+Inf`.
pub(super) type Bounds = [u64; 15];

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;

/// For what crosses a network: 0.5 ms to 30 s.
pub(super) static REQUEST_BOUNDS: Bounds = [
    500 * US,
    MS,
    2_500 * US,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    S,
    2_500 * MS,
    5 * S,
    10 * S,
    30 * S,
];

/// For what stays on the processor: 1 µs to 1 s.
pub(super) static DECISION_BOUNDS: Bounds = [
    US,
    2_500,
    5 * US,
    10 * US,
    25 * US,
    50 * US,
    100 * US,
    250 * US,
    500 * US,
    MS,
    2_500 * US,
    5 * MS,
    10 * MS,
    100 * MS,
    S,
];

/// For what crosses a network within milliseconds, or waits until one is there again: 2.5 ms to a day.
pub(super) static EFFECT_BOUNDS: Bounds = [
    2_500 * US,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    S,
    2_500 * MS,
    10 * S,
    60 * S,
    600 * S,
    3_600 * S,
    86_400 * S,
];

/// The distribution of a duration. The same rule as for [`Cell`]: one writer.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Histogram {
    /// Observations per bucket, not cumulated; the last is `+Inf`.
    counts: [AtomicU64; 16],
    sum_ns: AtomicU64,
    bounds: &'static Bounds,
}

impl Histogram {
    pub(super) fn new(bounds: &'static Bounds) -> Self {
        Self { counts: Default::default(), sum_ns: AtomicU64::new(0), bounds }
    }

    /// Counts one duration. Durations above 584 years count as that long.
    #[inline]
    pub(super) fn observe(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // Compares with every bound: fifteen comparisons without a branch beat a search that guesses wrong.
        let bucket: usize = self.bounds.iter().map(|bound| usize::from(ns > *bound)).sum();
        add(&self.counts[bucket], 1);
        add(&self.sum_ns, ns);
    }

    /// Adds what was observed so far to `total`.
    pub(super) fn add_to(&self, total: &mut HistogramTotal) {
        total.bounds = self.bounds;
        for (sum, count) in total.counts.iter_mut().zip(&self.counts) {
            *sum = sum.wrapping_add(count.load(Relaxed));
        }
        total.sum_seconds += Duration::from_nanos(self.sum_ns.load(Relaxed)).as_secs_f64();
    }
}

/// A histogram summed over workers.
#[derive(Debug, Clone)]
pub(super) struct HistogramTotal {
    pub(super) bounds: &'static Bounds,
    /// Per bucket, not cumulated.
    pub(super) counts: [u64; 16],
    pub(super) sum_seconds: f64,
}

impl Default for HistogramTotal {
    fn default() -> Self {
        Self { bounds: &REQUEST_BOUNDS, counts: [0; 16], sum_seconds: 0.0 }
    }
}
