//! How one target of an upstream stands: whether it is given requests, and from when on one may try it again.
//!
//! Owns the state that all workers and the probes share, in atomics. Must not know what a request is, or who asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::settings::Ejection;
use super::target::Target;
use crate::domain::time::monotonic_now;

/// How many times a span without a target can double.
const MOST_DOUBLINGS: u32 = 20;

/// How one target stands. A target that is in and has not failed of late costs a request two relaxed loads.
#[derive(Debug)]
pub(crate) struct Standing {
    epoch: Instant,
    /// Failures since the last answer. Never zero while it is left out.
    failures: AtomicU32,
    /// How often it was left out without a lasting return in between.
    ejections: AtomicU32,
    /// Milliseconds since `epoch` until which it is left out, 0 when it is in. From then on one request may try it.
    out_until_ms: AtomicU64,
    /// When it was last let in again.
    back_ms: AtomicU64,
    /// Whether the probes say that it is down.
    is_down: AtomicBool,
    /// Requests under way; counted only where they are what is balanced by.
    in_flight: AtomicUsize,
}

/// What became of a target's standing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// It fails, and is given requests all the same: there is no other.
    Fails,
    /// It fails and is left out for so long.
    Ejected(Duration),
    /// It answers again.
    Recovered,
    /// Its probes say that it is down.
    Down,
    /// They say that it is up.
    Up,
}

impl Standing {
    /// Of a target that nothing is known about: it is in.
    pub(crate) fn new() -> Self {
        Self {
            epoch: monotonic_now(),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            out_until_ms: AtomicU64::new(0),
            back_ms: AtomicU64::new(0),
            is_down: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
        }
    }

    /// Whether it takes part in the balance.
    #[inline]
    pub(crate) fn is_in(&self) -> bool {
        self.out_until_ms.load(Ordering::Relaxed) == 0 && !self.is_down.load(Ordering::Relaxed)
    }

    /// Whether it neither fails nor is said to be down.
    pub(crate) fn is_healthy(&self, ejection: &Ejection) -> bool {
        self.is_in() && (ejection.failures == 0 || self.failures.load(Ordering::Relaxed) < ejection.failures)
    }

    /// Notes an answer.
    #[inline]
    pub(crate) fn answered(&self, ejection: &Ejection) -> Change {
        if self.failures.load(Ordering::Relaxed) == 0 { Change::None } else { self.recovered(ejection) }
    }

    #[cold]
    fn recovered(&self, ejection: &Ejection) -> Change {
        let failures = self.failures.swap(0, Ordering::AcqRel);
        let was_out = self.out_until_ms.swap(0, Ordering::AcqRel) != 0;
        if was_out {
            self.back_ms.store(self.ms_at(monotonic_now()), Ordering::Relaxed);
        }
        let did_fail = ejection.failures > 0 && failures >= ejection.failures;
        if was_out || did_fail { Change::Recovered } else { Change::None }
    }

    /// Notes a failure. `is_trial`: of the one request that tried it again; `is_last`: no other target is in.
    #[cold]
    pub(crate) fn failed(&self, ejection: &Ejection, is_trial: bool, is_last: bool, now: Instant) -> Change {
        if ejection.failures == 0 {
            return Change::None;
        }
        let failures = self.failures.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        let out_until = self.out_until_ms.load(Ordering::Acquire);
        // What was under way when it was left out tells nothing new.
        let tells_nothing = if out_until == 0 { failures < ejection.failures } else { !is_trial };
        if tells_nothing {
            return Change::None;
        }
        if is_last && out_until == 0 {
            return if failures == ejection.failures { Change::Fails } else { Change::None };
        }
        let now_ms = self.ms_at(now);
        let has_lasted =
            now_ms.saturating_sub(self.back_ms.load(Ordering::Relaxed)) > as_ms(ejection.max_time).saturating_mul(2);
        if out_until == 0 && has_lasted {
            self.ejections.store(0, Ordering::Relaxed);
        }
        let span = span_after(ejection, self.ejections.load(Ordering::Relaxed));
        let until = now_ms.saturating_add(as_ms(span)).max(1);
        if self.out_until_ms.compare_exchange(out_until, until, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return Change::None;
        }
        self.ejections.fetch_add(1, Ordering::Relaxed);
        // An answer may have come in between; see `failures`.
        self.failures.fetch_max(1, Ordering::AcqRel);
        Change::Ejected(span)
    }

    /// Whether whoever asks is the one request that tries it again: it is left out, and has been for long enough, and for
    /// `grace` beyond. Nobody else does for `window`, unless it becomes known before how it went.
    pub(crate) fn claim_trial(&self, now: Instant, grace: Duration, window: Duration) -> bool {
        let until = self.out_until_ms.load(Ordering::Relaxed);
        if until == 0 || self.is_down.load(Ordering::Relaxed) {
            return false;
        }
        let now_ms = self.ms_at(now);
        if until.saturating_add(as_ms(grace)) > now_ms {
            return false;
        }
        let next = now_ms.saturating_add(as_ms(window)).max(1);
        self.out_until_ms.compare_exchange(until, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Lets the next request try it: it can be connected to, but the request that tried did not wait for that.
    pub(crate) fn may_be_tried(&self, now: Instant) {
        let until = self.out_until_ms.load(Ordering::Acquire);
        let now_ms = self.ms_at(now).max(1);
        if until > now_ms {
            // Otherwise somebody else found out more.
            let _changed = self.out_until_ms.compare_exchange(until, now_ms, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// Notes what the probes say. One that is up is in, whatever requests said before.
    pub(crate) fn probed(&self, is_up: bool) -> Change {
        let was_down = self.is_down.swap(!is_up, Ordering::AcqRel);
        if is_up {
            let was_out = self.out_until_ms.swap(0, Ordering::AcqRel) != 0;
            if was_out {
                self.failures.store(0, Ordering::Release);
            }
            if was_down || was_out { Change::Up } else { Change::None }
        } else if was_down {
            Change::None
        } else {
            Change::Down
        }
    }

    /// Forgets what probes said that there are no more of; whether they said that it is down.
    pub(crate) fn forget_probes(&self) -> bool {
        self.is_down.swap(false, Ordering::AcqRel)
    }

    /// Requests under way.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn ms_at(&self, moment: Instant) -> u64 {
        as_ms(moment.saturating_duration_since(self.epoch))
    }
}

/// Counts a request among those under way, for as long as it lives.
pub(crate) struct InFlight(Arc<Target>);

impl InFlight {
    /// Counts one more.
    pub(crate) fn begin(target: &Arc<Target>) -> Self {
        target.standing.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(target))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.standing.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long a target is left out after it was so often before: twice as long each time, up to the bound, and up to a
/// quarter less, so that processes that lost it together do not try it together.
fn span_after(ejection: &Ejection, ejections: u32) -> Duration {
    let grown = ejection.base_time.saturating_mul(1 << ejections.min(MOST_DOUBLINGS)).min(ejection.max_time);
    jittered(grown)
}

/// A span up to a quarter shorter, by chance.
pub(super) fn jittered(span: Duration) -> Duration {
    span - span / 1024 * (chance() % 256) as u32
}

/// A number by chance; without entropy, one that many may share.
pub(super) fn chance() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => 0,
    }
}

fn as_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
