//! A target that fails is left out for longer and longer, one request at a time tries it, and the last one stays.

use super::*;

const EJECTION: Ejection =
    Ejection { failures: 3, base_time: Duration::from_secs(1), max_time: Duration::from_secs(8), server_errors: false };

/// A standing and a clock that begins with it.
fn begin() -> (Standing, impl Fn(u64) -> Instant) {
    let standing = Standing::new();
    let epoch = standing.epoch;
    (standing, move |ms| epoch + Duration::from_millis(ms))
}

fn fail(standing: &Standing, now: Instant, times: u32) -> Change {
    (0..times).map(|_| standing.failed(&EJECTION, false, false, now)).last().unwrap()
}

fn span(change: Change) -> Duration {
    match change {
        Change::Ejected(span) => span,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_failures_in_a_row_count() {
    let (standing, at) = begin();
    assert_eq!(fail(&standing, at(0), 2), Change::None);
    assert_eq!(standing.answered(&EJECTION), Change::None);
    assert_eq!(fail(&standing, at(0), 2), Change::None);
    assert!(standing.is_in() && standing.is_healthy(&EJECTION));
    span(fail(&standing, at(0), 1));
    assert!(!standing.is_in() && !standing.is_healthy(&EJECTION));
    assert_eq!(fail(&standing, at(1), 5), Change::None, "what was under way tells nothing new");
    assert_eq!(standing.answered(&EJECTION), Change::Recovered);
    assert!(standing.is_in() && standing.is_healthy(&EJECTION));
}

#[test]
fn one_request_tries_it_once_its_time_is_over_and_a_failure_doubles_the_next() {
    let (standing, at) = begin();
    let mut now = 0;
    let (grace, window) = (Duration::ZERO, Duration::from_secs(1));
    let mut before = span(fail(&standing, at(now), 3));
    assert!(before > Duration::from_millis(740) && before <= Duration::from_secs(1), "{before:?}");
    for round in 1..=6 {
        assert!(!standing.claim_trial(at(now + before.as_millis() as u64 - 1), grace, window));
        now += before.as_millis() as u64 + 1;
        assert!(!standing.claim_trial(at(now), Duration::from_millis(10), window), "not those who wait for longer");
        assert!(standing.claim_trial(at(now), grace, window));
        assert!(!standing.claim_trial(at(now), grace, window), "nor anybody else");
        let after = span(standing.failed(&EJECTION, true, false, at(now)));
        let most = Duration::from_secs(1 << round.min(3));
        assert!(after <= most && after >= most / 4 * 3 - Duration::from_millis(10), "round {round}: {after:?}");
        before = after;
    }
    assert!(!standing.is_in());
    // Nobody hears how a trial went: the next one begins when its window is over.
    now += before.as_millis() as u64 + 1;
    assert!(standing.claim_trial(at(now), grace, window));
    assert!(standing.claim_trial(at(now + 1001), grace, window));
    standing.may_be_tried(at(now + 1002));
    assert!(standing.claim_trial(at(now + 1003), grace, window));
}

#[test]
fn a_return_that_lasts_makes_the_next_time_short_again() {
    let (standing, at) = begin();
    for round in 0..3 {
        let span = span(fail(&standing, at(round), 3));
        assert!(span > Duration::from_secs(1 << round) / 2, "{span:?}");
        standing.answered(&EJECTION);
    }
    let later = span(fail(&standing, at(3_600_000), 3));
    assert!(later <= EJECTION.base_time, "{later:?}");
}

#[test]
fn the_last_one_is_said_to_fail_and_stays() {
    let (standing, at) = begin();
    let changes: Vec<_> = (0..5).map(|_| standing.failed(&EJECTION, false, true, at(0))).collect();
    assert_eq!(changes, [Change::None, Change::None, Change::Fails, Change::None, Change::None]);
    assert!(standing.is_in() && !standing.is_healthy(&EJECTION));
    // Once there is another, its next failure counts.
    span(standing.failed(&EJECTION, false, false, at(0)));
    assert_eq!(standing.answered(&EJECTION), Change::Recovered);
}

#[test]
fn probes_overrule_requests_and_nobody_tries_what_they_say_is_down() {
    let (standing, at) = begin();
    assert_eq!(standing.probed(true), Change::None);
    assert_eq!((standing.probed(false), standing.probed(false)), (Change::Down, Change::None));
    assert!(!standing.is_in() && !standing.is_healthy(&EJECTION));
    fail(&standing, at(0), 3);
    assert!(!standing.claim_trial(at(10_000), Duration::ZERO, Duration::ZERO));
    assert_eq!((standing.probed(true), standing.probed(true)), (Change::Up, Change::None));
    assert!(standing.is_in() && standing.is_healthy(&EJECTION));
}

#[test]
fn without_a_number_of_failures_nothing_is_left_out() {
    let (standing, at) = begin();
    let never = Ejection { failures: 0, ..EJECTION };
    assert!((0..100).all(|_| standing.failed(&never, false, false, at(0)) == Change::None));
    assert!(standing.is_in() && standing.is_healthy(&never));
}

#[test]
fn threads_that_see_it_fail_together_leave_it_out_once() {
    let standing = Standing::new();
    let ejected = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    if matches!(standing.failed(&EJECTION, false, false, standing.epoch), Change::Ejected(_)) {
                        ejected.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert_eq!(ejected.into_inner(), 1);
    assert_eq!(standing.ejections.load(Ordering::Relaxed), 1);
}
