//! Coarse deadlines for one worker thread.
//!
//! Every request arms two or three deadlines and nearly all of them are disarmed unfired. A timer wheel pays for each;
//! here arming is two stores, and one sweep per [`TICK`] looks at what is alive. Deadlines fire up to one tick late.
//! Must not know what the deadlines are for.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::domain::Timestamp;
use crate::domain::clock::deciding_now;
use crate::domain::time::{self, monotonic_now};
use crate::wire::CoarseClock;

/// How often deadlines are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// One worker's clock and its armed deadlines.
pub(crate) struct Timers {
    started: Instant,
    clock: CoarseClock,
    entries: RefCell<Vec<Entry>>,
    free: RefCell<Vec<usize>>,
    /// The field line that says the date, and the second it is of.
    date: RefCell<(i64, String)>,
    /// One moment on both clocks.
    wall: Cell<(Instant, Timestamp)>,
}

#[derive(Default)]
struct Entry {
    /// Milliseconds on the worker's clock; `u64::MAX`: not armed.
    deadline_ms: u64,
    waker: Option<Waker>,
}

const UNARMED: u64 = u64::MAX;

impl Timers {
    /// A clock that stands at zero, without deadlines.
    pub(crate) fn new() -> Rc<Self> {
        let (started, wall) = (monotonic_now(), deciding_now());
        Rc::new(Self {
            started,
            clock: CoarseClock::new(),
            entries: RefCell::default(),
            free: RefCell::default(),
            date: RefCell::new((0, date_line(wall))),
            wall: Cell::new((started, wall)),
        })
    }

    /// Milliseconds since the worker began, as of the last tick. Reads no clock.
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// The wall clock, as decisions see it, at a moment of the monotonic one, without reading it again: a step of it shows
    /// up to a tick late.
    pub(crate) fn wall_at(&self, moment: Instant) -> Timestamp {
        let (then, wall) = self.wall.get();
        wall.plus(moment.saturating_duration_since(then))
    }

    /// Lends the line of `Date` (RFC 9110 §6.6.1), up to a tick old. Reads no clock.
    pub(crate) fn with_date_line<R>(&self, use_it: impl FnOnce(&[u8]) -> R) -> R {
        use_it(self.date.borrow().1.as_bytes())
    }

    /// The clock itself, for those that only want the time.
    pub(crate) fn clock(&self) -> CoarseClock {
        self.clock.clone()
    }

    /// Moves the clock on and wakes whoever waits for a deadline that has passed. O(live timers).
    pub(crate) fn tick(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.clock.set_ms(now);
        self.wall.set((monotonic_now(), deciding_now()));
        let wall = time::now();
        if self.date.borrow().0 != wall.unix_seconds() {
            *self.date.borrow_mut() = (wall.unix_seconds(), date_line(wall));
        }
        let mut due: smallvec::SmallVec<[Waker; 8]> = smallvec::SmallVec::new();
        for entry in self.entries.borrow_mut().iter_mut() {
            if entry.deadline_ms <= now {
                due.extend(entry.waker.take());
            }
        }
        for waker in due {
            waker.wake();
        }
    }

    /// A new, unarmed timer.
    pub(crate) fn timer(self: &Rc<Self>) -> Timer {
        let entry = Entry { deadline_ms: UNARMED, waker: None };
        let reused = self.free.borrow_mut().pop();
        let slot = match reused {
            Some(slot) => {
                self.entries.borrow_mut()[slot] = entry;
                slot
            }
            None => {
                let mut entries = self.entries.borrow_mut();
                entries.push(entry);
                entries.len() - 1
            }
        };
        Timer { timers: Rc::clone(self), slot }
    }
}

/// An IMF-fixdate (RFC 9110 §5.6.7) in its line.
fn date_line(moment: Timestamp) -> String {
    let moment = jiff::Timestamp::from_millisecond(moment.unix_ms()).unwrap_or_default();
    let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
    format!("date: {}\r\n", printer.timestamp_to_rfc9110_string(&moment).unwrap_or_default())
}

/// One deadline that can be moved. Dropping it disarms it.
pub(crate) struct Timer {
    timers: Rc<Timers>,
    slot: usize,
}

impl Timer {
    /// Lets the deadline pass `after` from now on.
    pub(crate) fn arm(&self, after: Duration) {
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        // One tick is added because the clock may be up to one tick behind: never early.
        let tick_ms = TICK.as_millis() as u64;
        let deadline = self.timers.now_ms().saturating_add(after_ms).saturating_add(tick_ms);
        self.timers.entries.borrow_mut()[self.slot].deadline_ms = deadline;
    }

    /// What its clock shows.
    pub(crate) fn now_ms(&self) -> u64 {
        self.timers.now_ms()
    }

    /// Lets no deadline pass.
    pub(crate) fn disarm(&self) {
        let entry = &mut self.timers.entries.borrow_mut()[self.slot];
        entry.deadline_ms = UNARMED;
        entry.waker = None;
    }

    /// Ready once the armed deadline has passed; otherwise remembers to wake the task then.
    pub(crate) fn poll_elapsed(&self, cx: &Context<'_>) -> Poll<()> {
        let entry = &mut self.timers.entries.borrow_mut()[self.slot];
        if entry.deadline_ms <= self.timers.now_ms() {
            return Poll::Ready(());
        }
        match &mut entry.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => entry.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Runs `work` until the deadline `after` from now.
    ///
    /// # Errors
    /// [`Elapsed`] when the deadline came first; `work` is dropped then.
    pub(crate) async fn bound<F: Future>(&self, after: Duration, work: F) -> Result<F::Output, Elapsed> {
        let mut work = std::pin::pin!(work);
        self.arm(after);
        let answer = std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(output));
            }
            self.poll_elapsed(cx).map(|()| Err(Elapsed))
        })
        .await;
        self.disarm();
        answer
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.disarm();
        self.timers.free.borrow_mut().push(self.slot);
    }
}

/// The deadline came first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Elapsed;

#[cfg(test)]
mod tests {
    use super::*;

    fn polled(timer: &Timer) -> bool {
        timer.poll_elapsed(&Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_deadline_never_passes_early_and_a_disarmed_one_never() {
        let timers = Timers::new();
        let (short, disarmed) = (timers.timer(), timers.timer());
        short.arm(Duration::from_millis(10));
        disarmed.arm(Duration::ZERO);
        disarmed.disarm();
        let begun = monotonic_now();
        while !polled(&short) {
            timers.tick();
            assert!(begun.elapsed() < Duration::from_secs(5));
        }
        assert!(begun.elapsed() >= Duration::from_millis(10));
        assert!(!polled(&disarmed));
    }

    #[test]
    fn slots_of_dropped_timers_are_reused() {
        let timers = Timers::new();
        for _ in 0..1000 {
            timers.timer().arm(Duration::ZERO);
        }
        assert_eq!(timers.entries.borrow().len(), 1);
        let fresh = timers.timer();
        timers.tick();
        assert!(!polled(&fresh), "a reused slot keeps no old deadline");
    }
}
