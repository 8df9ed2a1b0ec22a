//! Both clocks as a runtime with a paused clock has them, for tests that simulate hours in seconds.
//!
//! Only the thread that asked for it sees simulated time, and only while it does: tests beside it keep the real one.

use std::cell::Cell;
use std::time::Instant;

use super::time::Timestamp;

/// What the wall clock shows when simulated time begins.
const BEGINNING: Timestamp = Timestamp::from_unix_ms(1_767_225_600_000);

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// While it lives, both clocks of this thread are those of its runtime.
pub(crate) struct SimulatedTime(());

impl SimulatedTime {
    /// From now on.
    pub(crate) fn begin() -> Self {
        BEGAN.set(Some(tokio::time::Instant::now().into_std()));
        Self(())
    }
}

impl Drop for SimulatedTime {
    fn drop(&mut self) {
        BEGAN.set(None);
    }
}

/// Both clocks; none where time is not simulated.
pub(super) fn now() -> Option<(Instant, Timestamp)> {
    let began = BEGAN.get()?;
    let monotonic = tokio::time::Instant::now().into_std();
    Some((monotonic, BEGINNING.plus(monotonic.saturating_duration_since(began))))
}
