//! The generic cell rate algorithm: one moment for each meter says everything about it.
//!
//! Pure integer arithmetic on nanoseconds of a monotonic clock whose zero is the caller's. (ITU-T I.371 annex A, the
//! virtual scheduling form: the theoretical arrival time of the next request.)

use std::num::NonZeroU64;

use crate::domain::RateLimit;

/// Longest a meter takes to fill: a hundred years. A burst that is worth more is cut to it.
const LONGEST_FILL_NS: u64 = 100 * 366 * 86_400 * 1_000_000_000;

const SECOND_NS: u64 = 1_000_000_000;

/// A rate limit, ready to be held against a [`Bucket`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gcra {
    /// Nanoseconds in which one more request is allowed. At least 1000.
    interval: NonZeroU64,
    /// Nanoseconds in which an empty meter is full again: `burst` intervals.
    capacity: u64,
    burst: u32,
    /// `capacity` in whole seconds, rounded up.
    fill_seconds: u32,
}

impl Gcra {
    /// The interval is rounded up to a nanosecond: never more than configured, and at most a thousandth less.
    pub fn new(limit: RateLimit) -> Self {
        let per = u64::try_from(limit.per().as_nanos()).unwrap_or(u64::MAX);
        let interval = per.div_ceil(u64::from(limit.requests().get()));
        let interval = NonZeroU64::new(interval).unwrap_or(NonZeroU64::MIN);
        let burst = u64::from(limit.burst().get()).min(LONGEST_FILL_NS / interval);
        let capacity = interval.get() * burst;
        Self { interval, capacity, burst: u32::try_from(burst).unwrap_or(u32::MAX), fill_seconds: seconds_up(capacity) }
    }

    /// Requests that a full meter lets through at once.
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// Seconds in which an empty meter is full again, rounded up.
    pub const fn fill_seconds(self) -> u32 {
        self.fill_seconds
    }

    /// Nanoseconds in which one more request is allowed.
    pub const fn interval_ns(self) -> u64 {
        self.interval.get()
    }

    /// Nanoseconds in which an empty meter is full again.
    pub const fn fill_ns(self) -> u64 {
        self.capacity
    }

    /// What a meter lacks, in nanoseconds of filling.
    pub(super) fn missing_ns(self, bucket: Bucket, now: u64) -> u64 {
        bucket.debt(self, now)
    }
}

/// Nanoseconds as whole seconds, rounded up.
pub(super) fn seconds_up(ns: u64) -> u32 {
    u32::try_from(ns.div_ceil(SECOND_NS)).unwrap_or(u32::MAX)
}

/// How far a meter is emptied. The default is a full one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bucket {
    /// When it is full again.
    full_at: u64,
    /// The interval by which `full_at` was reckoned; the least in a meter that was never taken from.
    interval: NonZeroU64,
}

impl Default for Bucket {
    fn default() -> Self {
        Self { full_at: 0, interval: NonZeroU64::MIN }
    }
}

/// How full a meter is at one moment under one limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Level {
    /// Requests that it lets through at once.
    pub remaining: u32,
    /// Nanoseconds until it lets through one more than that; 0 when it is full.
    pub next_ns: u64,
}

impl Bucket {
    /// Takes one request.
    ///
    /// # Errors
    /// Nanoseconds until one is allowed; nothing was taken.
    pub fn take(&mut self, gcra: Gcra, now: u64) -> Result<Level, u64> {
        self.adopt(gcra, now);
        let debt = self.debt(gcra, now) + gcra.interval.get();
        if debt > gcra.capacity {
            return Err(debt - gcra.capacity);
        }
        *self = Self { full_at: now + debt, interval: gcra.interval };
        Ok(gcra.level(debt))
    }

    /// Fills as this limit says from now on: what is missing stays missing, and comes back at the new pace.
    pub(super) fn adopt(&mut self, gcra: Gcra, now: u64) {
        if self.interval != gcra.interval {
            *self = Self { full_at: now + self.debt(gcra, now), interval: gcra.interval };
        }
    }

    /// How full it is.
    pub fn level(&self, gcra: Gcra, now: u64) -> Level {
        gcra.level(self.debt(gcra, now))
    }

    /// When it is full again.
    pub const fn full_at(&self) -> u64 {
        self.full_at
    }

    /// A meter that lacks so many nanoseconds of filling.
    pub(super) fn lacking(gcra: Gcra, missing_ns: u64, now: u64) -> Self {
        Self { full_at: now.saturating_add(missing_ns.min(gcra.capacity)), interval: gcra.interval }
    }

    /// What is missing, in nanoseconds of refilling. Under another limit than the one it was last taken from, as many
    /// *requests* are missing as were: neither does a change of the limit refill a meter, nor does a meter that would have
    /// taken a day to fill stay empty for a day under a limit that fills it in a second.
    fn debt(&self, gcra: Gcra, now: u64) -> u64 {
        let missing = self.full_at.saturating_sub(now);
        let missing = if self.interval == gcra.interval || missing == 0 {
            missing
        } else {
            let converted = u128::from(missing) * u128::from(gcra.interval.get());
            u64::try_from(converted.div_ceil(u128::from(self.interval.get()))).unwrap_or(u64::MAX)
        };
        missing.min(gcra.capacity)
    }
}

impl Gcra {
    fn level(self, debt: u64) -> Level {
        let free = self.capacity - debt;
        let remaining = free / self.interval;
        let next_ns = if debt == 0 { 0 } else { (remaining + 1) * self.interval.get() - free };
        Level { remaining: u32::try_from(remaining).unwrap_or(u32::MAX), next_ns }
    }
}

#[cfg(test)]
#[path = "gcra_tests.rs"]
mod tests;
