use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::FakeRelativeClock;
use governor::{Quota as GovernorQuota, RateLimiter};
use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

fn gcra(requests: u32, per: Duration, burst: Option<u32>) -> Gcra {
    Gcra::new(RateLimit::new(requests, per, burst).unwrap())
}

fn per_second(requests: u32, burst: u32) -> Gcra {
    gcra(requests, Duration::from_secs(1), Some(burst))
}

/// How many of `requests` at one moment are let through.
fn burst_at(bucket: &mut Bucket, gcra: Gcra, now: u64, requests: u32) -> u32 {
    (0..requests).map(|_| u32::from(bucket.take(gcra, now).is_ok())).sum()
}

#[test]
fn a_full_meter_lets_a_burst_through_and_then_one_in_each_interval() {
    let gcra = per_second(10, 20);
    let mut bucket = Bucket::default();
    assert_eq!(burst_at(&mut bucket, gcra, 5 * SECOND, 100), 20);
    assert_eq!(bucket.take(gcra, 5 * SECOND), Err(100 * MS));
    assert_eq!(bucket.take(gcra, 5 * SECOND + 99 * MS), Err(MS));
    assert!(bucket.take(gcra, 5 * SECOND + 100 * MS).is_ok());
    assert_eq!(bucket.take(gcra, 5 * SECOND + 100 * MS), Err(100 * MS));
    assert_eq!(burst_at(&mut bucket, gcra, 60 * SECOND, 100), 20, "idling saves up a burst and no more");
}

#[test]
fn a_level_says_what_is_left_and_when_there_is_more() {
    let gcra = per_second(10, 3);
    let mut bucket = Bucket::default();
    assert_eq!(bucket.level(gcra, 0), Level { remaining: 3, next_ns: 0 });
    assert_eq!(bucket.take(gcra, 0), Ok(Level { remaining: 2, next_ns: 100 * MS }));
    assert_eq!(bucket.take(gcra, 40 * MS), Ok(Level { remaining: 1, next_ns: 60 * MS }));
    assert_eq!(bucket.level(gcra, 100 * MS), Level { remaining: 2, next_ns: 100 * MS });
    assert_eq!(bucket.level(gcra, 200 * MS), Level { remaining: 3, next_ns: 0 });
}

#[test]
fn a_refused_request_leaves_the_meter_as_it_is() {
    let gcra = per_second(1, 1);
    let mut bucket = Bucket::default();
    bucket.take(gcra, 0).unwrap();
    let before = bucket;
    (1..1000).for_each(|at| assert!(bucket.take(gcra, at * MS).is_err()));
    assert_eq!(bucket, before);
}

#[test]
fn another_limit_finds_as_many_requests_missing_as_were() {
    let (slow, fast) = (gcra(1, Duration::from_secs(86_400), Some(10)), per_second(10, 10));
    let mut drained = Bucket::default();
    assert_eq!(burst_at(&mut drained, slow, 0, 20), 10);
    // It would have been empty for ten days.
    assert_eq!(drained.take(fast, 0), Err(100 * MS));
    assert_eq!(burst_at(&mut drained, fast, 100 * MS, 20), 1);

    let mut drained = Bucket::default();
    assert_eq!(burst_at(&mut drained, fast, 0, 20), 10);
    // It would have been full in a second.
    assert_eq!(drained.take(slow, 0), Err(86_400 * SECOND));
    let mut half = Bucket::default();
    assert_eq!(burst_at(&mut half, fast, 0, 5), 5);
    assert_eq!(half.level(slow, 0).remaining, 5);
    // A smaller burst does not owe more than itself.
    let small = per_second(10, 2);
    assert_eq!(drained.take(small, 0), Err(100 * MS));
}

#[test]
fn the_extremes_of_limits_are_reckoned_without_overflow() {
    let longest = gcra(1, RateLimit::LONGEST, Some(u32::MAX));
    let most = gcra(1_000_000, RateLimit::SHORTEST, Some(u32::MAX));
    for gcra in [longest, most] {
        let mut bucket = Bucket::default();
        let late = u64::MAX / 2;
        assert!(bucket.take(gcra, late).is_ok());
        assert!(bucket.level(gcra, 0).remaining < gcra.burst());
        assert!(bucket.take(gcra, 0).is_ok() || gcra.capacity < late);
    }
    // A thousandth is what rounding may cost at most, and it never gives.
    let odd = gcra(999_983, RateLimit::SHORTEST, Some(10));
    let mut bucket = Bucket::default();
    let accepted = (0..SECOND).step_by(997).filter(|now| bucket.take(odd, *now).is_ok()).count();
    assert!((998_983..=999_993).contains(&accepted), "{accepted}");
}

proptest! {
    /// `governor` is another's implementation of the same algorithm.
    #[test]
    fn requests_are_let_through_as_governor_lets_them(
        interval_us in 1_u32..5_000_000,
        burst in 1_u32..50,
        pauses_us in proptest::collection::vec(0_u64..20_000_000, 1..200),
        crowd in 1_usize..5,
    ) {
        let interval = Duration::from_micros(u64::from(interval_us));
        let quota = GovernorQuota::with_period(interval).unwrap().allow_burst(NonZeroU32::new(burst).unwrap());
        let clock = FakeRelativeClock::default();
        let governor = RateLimiter::direct_with_clock(quota, clock.clone());
        let capacity = interval.as_nanos() as u64 * u64::from(burst);
        let ours = Gcra { interval: NonZeroU64::new(interval.as_nanos() as u64).unwrap(), capacity, burst, fill_seconds: 0 };
        let (mut bucket, mut now) = (Bucket::default(), 0);
        for pause in pauses_us {
            // Pauses around one interval, and much longer ones.
            let pause = Duration::from_micros(pause % (4 * u64::from(interval_us) + 1));
            clock.advance(pause);
            now += pause.as_nanos() as u64;
            for _ in 0..crowd {
                let theirs = governor.check();
                let answer = bucket.take(ours, now);
                prop_assert_eq!(answer.is_ok(), theirs.is_ok(), "at {} ns", now);
                if let (Err(wait), Err(not_until)) = (answer, theirs) {
                    use governor::clock::Clock;
                    prop_assert_eq!(wait, not_until.wait_time_from(clock.now()).as_nanos() as u64);
                }
            }
        }
    }

    /// Whatever requests come when, no stretch of time sees more than a burst and one for each interval.
    #[test]
    fn no_window_of_time_lets_more_through_than_burst_and_rate(
        requests in 1_u32..1000,
        burst in 1_u32..50,
        pauses_ms in proptest::collection::vec(0_u64..300, 1..300),
    ) {
        let gcra = per_second(requests, burst);
        let (mut bucket, mut now, mut accepted) = (Bucket::default(), 0, Vec::new());
        for pause in pauses_ms {
            now += pause * MS;
            (0..3).for_each(|_| if bucket.take(gcra, now).is_ok() { accepted.push(now) });
        }
        for (index, from) in accepted.iter().enumerate() {
            for (more, to) in accepted[index..].iter().enumerate() {
                let allowed = u128::from(burst) + u128::from(to - from) * u128::from(requests) / u128::from(SECOND);
                prop_assert!((more as u128) < allowed, "{} within {} ns", more + 1, to - from);
            }
        }
    }
}
