//! How often notes are written.

use std::time::Duration;

use tokio::time::Instant;

/// Writing takes at most one part in so many of the time.
const SHARE: u32 = 40;
/// However long it takes, nothing waits for longer than this, unless the interval is longer.
const LONGEST: Duration = Duration::from_secs(300);
/// After a failure it is tried again after the interval, but at the latest after this: nothing is lost for want of room that
/// could be written.
pub(super) const RETRY: Duration = Duration::from_secs(30);

/// When notes are written next: after an interval, or more seldom where writing takes long. Of a million keys in use, those of
/// half a minute are many, and those of two minutes not many more.
pub(super) struct Pace {
    every: Duration,
    due: Instant,
    /// After a failure, not before this.
    again: Instant,
}

impl Pace {
    pub(super) fn new(every: Duration) -> Self {
        let now = Instant::now();
        Self { every, due: now + every, again: now }
    }

    /// Whether it is time to write. Where notes have little room left it always is, but for a rest after a failure.
    pub(super) fn is_due(&self, now: Instant, is_filling: bool) -> bool {
        now >= if is_filling { self.again } else { self.due }
    }

    /// Takes note of a write that ended now, and of how long it took as far as that depends on how much is written.
    pub(super) fn rest(&mut self, now: Instant, took: Duration) {
        self.again = now;
        self.due = now + self.every.max(took.saturating_mul(SHARE).min(LONGEST));
    }

    /// Takes note of one that came to no good end now.
    pub(super) fn fail(&mut self, now: Instant) {
        self.again = now + self.every.min(RETRY);
        self.due = self.again;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_takes_long_is_done_seldom() {
        let (second, every) = (Duration::from_secs(1), Duration::from_secs(30));
        let began = Instant::now();
        let mut pace = Pace::new(every);
        let due_after = |pace: &Pace| (0..=1_000).find(|seconds| pace.is_due(began + *seconds * second, false));
        assert_eq!(due_after(&pace), Some(30));
        for (took, wait) in [(second / 2, 30), (2 * second, 80), (60 * second, 300)] {
            pace.rest(began, took);
            assert_eq!(due_after(&pace), Some(wait), "{took:?}");
            assert!(pace.is_due(began, true));
        }
        let mut seldom = Pace::new(600 * second);
        seldom.rest(began, 60 * second);
        assert_eq!(due_after(&seldom), Some(600));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_there_is_a_rest() {
        let (second, every) = (Duration::from_secs(1), Duration::from_secs(30));
        let began = Instant::now();
        for (every, rest) in [(every, 30), (second, 1), (3_600 * second, 30)] {
            let mut pace = Pace::new(every);
            pace.rest(began, 60 * second);
            let failed = began + 45 * second;
            pace.fail(failed);
            for is_filling in [false, true] {
                let due = failed + rest * second;
                assert!(!pace.is_due(due - second / 2, is_filling) && pace.is_due(due, is_filling));
            }
        }
    }
}
