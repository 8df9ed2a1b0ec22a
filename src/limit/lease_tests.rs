use std::time::Duration;

use super::*;
use crate::domain::RateLimit;

const SECOND: u64 = 1_000_000_000;
const SPAN: u64 = SECOND / 10;

fn gcra(requests: u32, per: Duration) -> Gcra {
    Gcra::new(RateLimit::new(requests, per, None).unwrap())
}

/// A lease that was granted so many, with so many left after them.
fn granted(gcra: Gcra, tokens: u32, left: u32) -> Lease {
    let mut lease = Lease::new(gcra, 1, 0);
    assert!(lease.wait(gcra, 0));
    let ask = lease.ask(Bucket::default(), SPAN, 0).unwrap();
    let missing_ns = u64::from(gcra.burst() - left) * gcra.interval_ns();
    lease.granted(&ask, Grant { tokens, missing_ns }, SPAN, 0);
    lease
}

#[test]
fn the_first_request_waits_and_asks_for_one_token_and_those_that_join_it_for_one_each() {
    let gcra = gcra(5, Duration::from_secs(60));
    let mut lease = Lease::new(gcra, 1, 0);
    assert_eq!(lease.find(0), Found::Unknown);
    assert!(lease.wait(gcra, 0));
    assert!(!lease.wait(gcra, 0), "it is asked for already");
    let ask = lease.ask(Bucket::default(), SPAN, 0).unwrap();
    assert_eq!((ask.want, ask.in_hand, ask.owed, ask.back, ask.missing_ns), (2, 0, 0, 0, 0));
    assert!(!lease.wait(gcra, 0), "an ask is under way");
    lease.granted(&ask, Grant { tokens: 2, missing_ns: 24 * SECOND }, SPAN, 0);
    assert!(!lease.take(gcra, 0) && !lease.take(gcra, 0), "of a small limit nothing is held ahead");
    assert_eq!(lease.find(0), Found::Unknown);
}

#[test]
fn what_was_granted_in_part_is_not_asked_for_again_before_there_is_more() {
    let small = gcra(5, Duration::from_secs(60));
    let mut lease = Lease::new(small, 1, 0);
    lease.wait(small, 0);
    let ask = lease.ask(Bucket::default(), SPAN, 0).unwrap();
    lease.granted(&ask, Grant { tokens: 0, missing_ns: 55 * SECOND }, SPAN, 0);
    assert_eq!(lease.find(7 * SECOND - 1), Found::Nothing);
    assert_eq!(lease.find(7 * SECOND), Found::Unknown);
    let local = Level { remaining: 3, next_ns: 0 };
    assert_eq!(lease.level(local, small, 0), Level { remaining: 0, next_ns: 7 * SECOND });
    // A fast one is not asked for each token, and a small burst is not left lying for long.
    for (limit, pause) in [(gcra(1000, Duration::from_secs(1)), 10_000_000), (gcra(10, Duration::from_secs(1)), SPAN)] {
        let mut lease = Lease::new(limit, 1, 0);
        lease.wait(limit, 0);
        let ask = lease.ask(Bucket::default(), SPAN, 0).unwrap();
        lease.granted(&ask, Grant { tokens: 0, missing_ns: limit.fill_ns() }, SPAN, 0);
        assert_eq!((lease.find(pause - 1), lease.find(pause)), (Found::Nothing, Found::Unknown));
    }
}

#[test]
fn a_lease_is_for_as_much_use_as_there_was_and_for_no_more_than_comes_back() {
    let fast = gcra(1000, Duration::from_secs(1));
    let mut lease = granted(fast, 40, 900);
    // 30 in 50 ms are 60 in 100 ms; ten are left.
    let asks: Vec<bool> = (0..30).map(|at| lease.take(fast, at * SPAN / 60)).collect();
    assert!(asks[19..].iter().all(|ask| *ask) && !asks[..19].contains(&true), "{asks:?}");
    lease.queued();
    let ask = lease.ask(Bucket::default(), SPAN, SPAN / 2).unwrap();
    assert_eq!((ask.want, ask.in_hand), (50, 10));
    // However fast it is used.
    let mut lease = granted(fast, 500, 400);
    for _ in 0..500 {
        lease.take(fast, 1);
    }
    lease.queued();
    assert_eq!(lease.ask(Bucket::default(), SPAN, 1).unwrap().want, 100);
    // Who has plenty is lent more than is used, and asks before it is gone.
    let slow = gcra(100_000, Duration::from_secs(86_400));
    let mut lease = granted(slow, 300, 90_000);
    assert_eq!((0..300).position(|_| lease.take(slow, 0)), Some(149), "with half of it left");
}

#[test]
fn what_is_let_through_without_a_token_is_owed_and_charged_with_the_next_ask() {
    let small = gcra(5, Duration::from_secs(60));
    let mut lease = Lease::new(small, 1, 0);
    assert!(lease.take(small, 0), "it is asked for at once");
    lease.queued();
    assert!(!lease.take(small, 0));
    let mut local = Bucket::default();
    local.take(small, 0).unwrap();
    let ask = lease.ask(local, SPAN, 0).unwrap();
    assert_eq!((ask.want, ask.owed, ask.missing_ns), (0, 2, 12 * SECOND));
    lease.granted(&ask, Grant { tokens: 0, missing_ns: 24 * SECOND }, SPAN, 0);
    assert_eq!(lease.find(0), Found::Unknown, "nothing was wanted, so nothing was refused");
    assert_eq!(lease.level(Level { remaining: 4, next_ns: 1 }, small, 0).remaining, 3);
}

#[test]
fn an_idle_lease_goes_back_unless_it_is_used_before() {
    let fast = gcra(1000, Duration::from_secs(1));
    let mut lease = granted(fast, 40, 900);
    assert!(lease.is_idle(SECOND, SECOND) && lease.holds() && !lease.is_idle(SECOND, SECOND - 1));
    lease.returning();
    let mut used = lease;
    let ask = lease.ask(Bucket::default(), SPAN, SECOND).unwrap();
    assert_eq!((ask.want, ask.in_hand, ask.back), (0, 0, 40));
    lease.granted(&ask, Grant { tokens: 0, missing_ns: 0 }, SPAN, SECOND);
    assert!(!lease.holds() && lease.find(SECOND) == Found::Unknown);
    used.take(fast, SECOND);
    assert_eq!(used.ask(Bucket::default(), SPAN, SECOND).map(|ask| ask.back), Some(0));
}
