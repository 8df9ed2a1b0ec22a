//! The wall clock as decisions see it: a step of it backwards brings no expired key back.
//!
//! Decisions go by the wall clock, since that is what expiry is written in, and wall clocks jump: a restored machine, a
//! wrong time server, somebody's hand. Forwards they are followed at once, which lets nobody in. Backwards only as far as
//! a jump forwards is taken back that was not long ago: it is proven wrong then, and keys that it ended come back.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::time::{self, Timestamp};

/// What the two clocks may drift apart between two looks without it being called a jump.
const DRIFT: Duration = Duration::from_secs(1);

/// How long a jump forwards can be taken back. After that it is believed.
const DOUBT: Duration = Duration::from_secs(3600);

/// The moment that decisions are made at. At most a drift of the clocks away from [`time::now`], unless the wall clock
/// went back; then it goes on from where it was, at the pace of the monotonic clock.
pub fn deciding_now() -> Timestamp {
    static CLOCK: Mutex<Option<DecidingClock>> = Mutex::new(None);
    let mut clock = CLOCK.lock();
    let (monotonic, wall) = (time::monotonic_now(), time::now());
    clock.get_or_insert_with(|| DecidingClock::starting(monotonic, wall)).read(monotonic, wall)
}

/// Both clocks, and what is believed of them.
struct DecidingClock {
    /// A moment on both that is not doubted: decisions never see less than what the monotonic clock has added to it.
    sure: (Instant, Timestamp),
    /// Since when the wall clock has been ahead of that, and by how much, after a jump.
    doubted: Option<(Instant, Duration)>,
}

impl DecidingClock {
    const fn starting(monotonic: Instant, wall: Timestamp) -> Self {
        Self { sure: (monotonic, wall), doubted: None }
    }

    fn read(&mut self, monotonic: Instant, wall: Timestamp) -> Timestamp {
        let least = self.sure.1.plus(monotonic.saturating_duration_since(self.sure.0));
        if wall < least {
            self.doubted = None;
            return least;
        }
        let ahead = wall.since(least);
        if ahead <= DRIFT {
            *self = Self::starting(monotonic, wall);
            return wall;
        }
        match self.doubted {
            Some((since, by)) if ahead.abs_diff(by) <= DRIFT => {
                if monotonic.saturating_duration_since(since) >= DOUBT {
                    *self = Self::starting(monotonic, wall);
                }
            }
            // Another jump, or a part of one taken back: doubted anew.
            Some(_) | None => self.doubted = Some((monotonic, ahead)),
        }
        wall
    }
}

#[cfg(test)]
#[path = "clock_tests.rs"]
mod tests;
