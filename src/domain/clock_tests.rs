//! Steps of the wall clock, seconds after a start at 1000.

use super::*;

/// What decisions see, by (seconds on the monotonic clock, seconds on the wall clock).
fn seen(steps: &[(u64, i64)]) -> Vec<i64> {
    let started = time::monotonic_now();
    let mut clock = DecidingClock::starting(started, Timestamp::from_unix_seconds(1000));
    steps
        .iter()
        .map(|(monotonic, wall)| {
            let read = clock.read(started + Duration::from_secs(*monotonic), Timestamp::from_unix_seconds(*wall));
            read.unix_seconds()
        })
        .collect()
}

const HOUR: u64 = 3600;

#[test]
fn a_clock_that_runs_is_followed() {
    assert_eq!(seen(&[(0, 1000), (1, 1001), (60, 1060), (61, 1062), (62, 1063)]), [1000, 1001, 1060, 1062, 1063]);
}

#[test]
fn a_step_back_is_not_followed() {
    assert_eq!(seen(&[(10, 1010), (11, 11), (12, 12), (100, 100)]), [1010, 1011, 1012, 1100]);
    assert_eq!(seen(&[(10, 500), (600, 1090), (610, 1610)]), [1010, 1600, 1610], "until it is there again");
}

#[test]
fn a_step_forwards_is_followed_at_once_and_back_when_it_was_wrong() {
    assert_eq!(seen(&[(1, 9001), (2, 9002), (3, 1003), (4, 1004)]), [9001, 9002, 1003, 1004]);
    assert_eq!(seen(&[(1, 9001), (2, 902)]), [9001, 1002], "but no further than to where it came from");
    assert_eq!(seen(&[(1, 9001), (2, 5002), (3, 1003)]), [9001, 5002, 1003], "also in two steps");
}

#[test]
fn a_step_forwards_is_believed_after_an_hour() {
    let hour = i64::try_from(HOUR).unwrap();
    let (jump, believed) = ((1, 9001), (1 + HOUR, 9001 + hour));
    assert_eq!(seen(&[jump, believed, (2 + HOUR, 1002 + hour)])[2], 9002 + hour);
    let early = (HOUR, 9000 + hour);
    assert_eq!(seen(&[jump, early, (2 + HOUR, 1002 + hour)])[2], 1002 + hour);
    // Another jump is another hour.
    let second = (HOUR, 20_000 + hour);
    assert_eq!(seen(&[jump, second, (1 + HOUR, 20_001 + hour), (2 + HOUR, 1002 + hour)])[3], 1002 + hour);
}
