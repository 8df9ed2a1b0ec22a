//! What a sweeper sees of a connection and what it can do about it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use super::{CoarseClock, Floor, HELD_UP_MS, Patience, Phase, Progress, Swept};
use crate::framing::Fault;

const PATIENCE: Patience =
    Patience { head_ms: 10, idle_ms: 75, stall_ms: 30, floor: Floor { bytes_per_second: 1_000, window_ms: 30 } };

fn progress() -> (Progress, CoarseClock) {
    let clock = CoarseClock::new();
    (Progress::new(clock.clone()), clock)
}

#[test]
fn every_phase_has_its_own_patience_counted_from_its_beginning() {
    let cases = [
        (Phase::Idle, 75, Some(Swept::IdleClosed)),
        (Phase::Head, 10, Some(Swept::Refused(Fault::HeadTimeout))),
        (Phase::Body, 30, Some(Swept::Refused(Fault::BodyTimeout))),
        (Phase::Exchange, 1_000_000, None),
        (Phase::Tunnel, 1_000_000, None),
        (Phase::Closing, 1_000_000, None),
    ];
    for (phase, patience, expected) in cases {
        let (progress, clock) = progress();
        progress.enter(if phase == Phase::Idle { Phase::Exchange } else { Phase::Idle });
        clock.set_ms(5);
        progress.enter(phase);
        clock.set_ms(9);
        progress.enter(phase);
        assert_eq!((progress.phase(), progress.since_ms()), (phase, 5), "staying is not entering");
        assert_eq!(progress.sweep(5 + patience, &PATIENCE), Swept::InTime, "{phase:?}");
        assert_eq!(progress.sweep(6 + patience, &PATIENCE), expected.unwrap_or(Swept::InTime), "{phase:?}");
        assert_eq!(progress.sweep(7 + patience, &PATIENCE), Swept::InTime, "{phase:?} was told already");
    }
}

#[test]
fn a_wish_is_taken_once_and_a_dropped_connection_stays_dropped() {
    let (progress, _) = progress();
    progress.enter(Phase::Exchange);
    progress.close_idle();
    assert!(!progress.take_close_idle(), "a busy connection is not closed for idleness");
    progress.enter(Phase::Idle);
    progress.close_idle();
    assert!(progress.take_close_idle() && !progress.take_close_idle());
    progress.request_close(Fault::HeadTimeout);
    assert_eq!(progress.take_refusal(), Some(Fault::HeadTimeout));
    assert_eq!(progress.take_refusal(), None);
    progress.drop_connection();
    assert_eq!(progress.take_refusal(), None);
    assert!(progress.is_dropped() && progress.is_dropped());
}

#[test]
fn a_client_that_takes_nothing_is_dropped_and_one_that_takes_something_again_is_forgiven() {
    let (progress, clock) = progress();
    progress.enter(Phase::Exchange);
    clock.set_ms(7);
    progress.note_write_blocked();
    clock.set_ms(20);
    progress.note_write_blocked();
    assert_eq!(progress.write_blocked_since(), Some(7));
    assert_eq!(progress.sweep(37, &PATIENCE), Swept::InTime);
    progress.note_written(1_000);
    assert_eq!(progress.sweep(38, &PATIENCE), Swept::InTime);
    clock.set_ms(40);
    progress.note_write_blocked();
    // A wish that nobody comes to take does not save it.
    progress.request_close(Fault::BodyTimeout);
    assert_eq!(progress.sweep(70, &PATIENCE), Swept::InTime);
    assert_eq!(progress.sweep(71, &PATIENCE), Swept::Dropped);
    assert!(progress.is_dropped());
}

#[test]
fn a_client_that_keeps_something_others_wait_for_is_given_up_sooner_one_for_each_of_them() {
    let patience = Patience { stall_ms: 60_000, floor: Floor { bytes_per_second: 0, window_ms: 0 }, ..PATIENCE };
    let waiting = Rc::new(Cell::new(0));
    let [one, other, third] = std::array::from_fn(|_| {
        let (progress, clock) = progress();
        progress.enter(Phase::Exchange);
        progress.note_write_blocked();
        clock.set_ms(HELD_UP_MS + 1);
        progress
    });
    one.keep_from(Some(Rc::clone(&waiting)));
    other.keep_from(Some(Rc::clone(&waiting)));
    let now = HELD_UP_MS + 1;
    assert_eq!(one.sweep(now, &patience), Swept::InTime, "nobody waits");
    waiting.set(1);
    assert_eq!(one.sweep(HELD_UP_MS, &patience), Swept::InTime, "not long enough");
    assert_eq!(third.sweep(now, &patience), Swept::InTime, "it keeps nothing");
    assert_eq!(one.sweep(now, &patience), Swept::Dropped);
    assert_eq!(other.sweep(now, &patience), Swept::InTime, "one is enough");
    waiting.set(1);
    other.keep_from(None);
    assert_eq!(other.sweep(now, &patience), Swept::InTime, "it keeps nothing any more");
}

#[test]
fn every_wish_wakes_the_task_that_serves_the_connection() {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let wishes: [fn(&Progress); 3] =
        [|progress| progress.request_close(Fault::HeadTimeout), Progress::close_idle, Progress::drop_connection];
    for wish in wishes {
        let (progress, _) = progress();
        let count = Arc::new(Count(AtomicUsize::new(0)));
        progress.served_by(&Context::from_waker(&Waker::from(Arc::clone(&count))));
        wish(&progress);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn a_body_that_drips_is_refused_although_it_never_stalls() {
    let clock = CoarseClock::new();
    let progress = Progress::new(clock.clone());
    progress.begin_exchange();
    for at in [0, 10, 20, 30] {
        progress.enter(Phase::Body);
        clock.set_ms(at + 10);
        let swept = progress.sweep(at + 10, &PATIENCE);
        if at < 30 {
            assert_eq!(swept, Swept::InTime);
        } else {
            assert_eq!(swept, Swept::Refused(Fault::BodyTimeout));
        }
        progress.enter(Phase::Exchange);
        progress.giving().moved(0, 1);
    }
}

#[test]
fn a_client_that_sips_is_dropped_although_it_never_stops() {
    let clock = CoarseClock::new();
    let progress = Progress::new(clock.clone());
    progress.begin_exchange();
    progress.enter(Phase::Exchange);
    for at in [0, 10, 20] {
        progress.note_write_blocked();
        clock.set_ms(at + 10);
        assert_eq!(progress.sweep(at + 10, &PATIENCE), Swept::InTime);
        progress.note_written(1);
    }
    progress.note_write_blocked();
    clock.set_ms(40);
    assert_eq!(progress.sweep(40, &PATIENCE), Swept::Dropped);
}

#[test]
fn whatever_a_client_takes_counts_and_not_only_what_it_was_waited_for() {
    let (progress, clock) = progress();
    progress.enter(Phase::Exchange);
    progress.begin_exchange();
    // A window of 30 ms asks for 30 bytes: one byte behind each wait, the rest of what fits at once.
    for at in (0..200).step_by(10) {
        clock.set_ms(at);
        progress.note_write_blocked();
        clock.set_ms(at + 10);
        assert_eq!(progress.sweep(at + 10, &PATIENCE), Swept::InTime, "{at}");
        progress.note_written(1);
        progress.note_written(19);
    }
}
