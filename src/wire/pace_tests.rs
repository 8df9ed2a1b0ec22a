use super::pace::{Floor, Pace};

const FLOOR: Floor = Floor { bytes_per_second: 100, window_ms: 10_000 };

#[test]
fn a_byte_now_and_then_is_below_the_floor_once_the_window_is_over() {
    let pace = Pace::default();
    for _ in 0..10 {
        pace.moved(900, 1);
        assert!(!pace.is_below(&FLOOR, 0), "it is given a whole window");
    }
    assert!(!pace.is_below(&FLOOR, 900));
    assert!(pace.is_below(&FLOOR, 1001));
}

#[test]
fn whoever_moves_enough_is_judged_anew_in_every_window() {
    let pace = Pace::default();
    for _ in 0..50 {
        pace.moved(1000, 100);
        assert!(!pace.is_below(&FLOOR, 0));
    }
    pace.moved(0, 5_000);
    assert!(!pace.is_below(&FLOOR, 11_000), "what it moved was enough for this long");
    assert!(!pace.is_below(&FLOOR, 20_000), "of which nothing counts twice");
    assert!(pace.is_below(&FLOOR, 21_001));
}

#[test]
fn time_in_which_nobody_waited_for_the_client_does_not_count() {
    let pace = Pace::default();
    for _ in 0..1_000_000 {
        pace.moved(0, 0);
    }
    assert!(!pace.is_below(&FLOOR, 0));
}

#[test]
fn the_next_message_begins_with_a_window_of_its_own() {
    let pace = Pace::default();
    pace.moved(9_000, 0);
    pace.begin();
    assert!(!pace.is_below(&FLOOR, 9_000));
    pace.exempt();
    assert!(!pace.is_below(&FLOOR, 1_000_000));
    pace.begin();
    assert!(pace.is_below(&FLOOR, 1_000_000), "an exemption is one message's");
}

#[test]
fn a_floor_of_nothing_asks_for_nothing() {
    let pace = Pace::default();
    assert!(!pace.is_below(&Floor { bytes_per_second: 0, ..FLOOR }, u64::MAX));
}
