use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn quota(per_day: Option<u64>, per_month: Option<u64>) -> Quota {
    Quota::new(per_day, per_month).unwrap()
}

fn remaining(tally: &mut Tally, quota: Quota, now: &str) -> Vec<u64> {
    tally.left(quota, at(now)).map(|left| left.remaining).collect()
}

#[test]
fn terms_follow_the_calendar() {
    for (now, day, month_begins, month_ends) in [
        ("2026-01-31T23:59:59.999Z", "2026-01-31", "2026-01-01", "2026-02-01"),
        ("2026-02-28T23:59:59.999Z", "2026-02-28", "2026-02-01", "2026-03-01"),
        ("2028-02-29T00:00:00Z", "2028-02-29", "2028-02-01", "2028-03-01"),
        ("2100-02-28T12:00:00Z", "2100-02-28", "2100-02-01", "2100-03-01"),
        ("2000-02-29T12:00:00Z", "2000-02-29", "2000-02-01", "2000-03-01"),
        ("2026-12-31T23:59:59.999Z", "2026-12-31", "2026-12-01", "2027-01-01"),
        ("2026-03-29T01:30:00Z", "2026-03-29", "2026-03-01", "2026-04-01"),
    ] {
        let midnight = |date: &str| at(&format!("{date}T00:00:00Z"));
        let (of_day, of_month) = (Term::of(QuotaPeriod::Day, at(now)), Term::of(QuotaPeriod::Month, at(now)));
        assert_eq!((of_day.begins(), of_day.ends().since(of_day.begins()).as_secs()), (midnight(day), 86_400), "{now}");
        assert_eq!((of_month.begins(), of_month.ends()), (midnight(month_begins), midnight(month_ends)), "{now}");
    }
}

#[test]
fn every_moment_of_forty_years_lies_in_its_own_term_and_terms_meet() {
    let mut day = Term::of(QuotaPeriod::Day, at("2000-01-01T00:00:00Z"));
    for _ in 0..40 * 366 {
        let next = Term::of(QuotaPeriod::Day, day.ends());
        assert_eq!(next.begins(), day.ends());
        let month = Term::of(QuotaPeriod::Month, day.begins());
        assert!(month.begins() <= day.begins() && day.ends() <= month.ends());
        assert_eq!(Term::of(QuotaPeriod::Month, month.ends()).begins(), month.ends());
        day = next;
    }
}

#[test]
fn a_day_begins_anew_at_midnight_and_a_month_on_its_first() {
    let quota = quota(Some(3), Some(5));
    let mut tally = Tally::default();
    (0..3).for_each(|_| tally.add(quota, at("2028-02-28T23:59:59.999Z")));
    assert_eq!(remaining(&mut tally, quota, "2028-02-28T23:59:59.999Z"), [0, 2]);
    assert_eq!(remaining(&mut tally, quota, "2028-02-29T00:00:00Z"), [3, 2]);
    (0..2).for_each(|_| tally.add(quota, at("2028-02-29T12:00:00Z")));
    assert_eq!(remaining(&mut tally, quota, "2028-02-29T23:59:59.999Z"), [1, 0]);
    assert_eq!(remaining(&mut tally, quota, "2028-03-01T00:00:00Z"), [3, 5]);
}

#[test]
fn a_clock_that_steps_back_over_midnight_refills_nothing_and_one_that_was_wrong_locks_nobody_out() {
    let quota = quota(Some(3), None);
    let mut tally = Tally::default();
    (0..3).for_each(|_| tally.add(quota, at("2026-05-02T00:00:01Z")));
    assert_eq!(remaining(&mut tally, quota, "2026-05-01T23:59:59Z"), [0]);
    let mut wrong = Tally::default();
    (0..3).for_each(|_| wrong.add(quota, at("2100-01-01T00:00:01Z")));
    assert_eq!(remaining(&mut wrong, quota, "2026-05-01T12:00:00Z"), [3]);
}

#[test]
fn what_is_kept_and_what_came_since_are_added_up() {
    let quota = quota(Some(100), Some(1000));
    let now = at("2026-05-01T12:00:00Z");
    let (day, month) = (Term::of(QuotaPeriod::Day, now), Term::of(QuotaPeriod::Month, now));
    let mut tally = Tally::default();
    (0..5).for_each(|_| tally.add(quota, now));
    let mut taken = Vec::new();
    tally.take_unwritten(|period, begins, count| taken.push((period, begins, count)));
    assert_eq!(taken, [(QuotaPeriod::Day, day.begins(), 5), (QuotaPeriod::Month, month.begins(), 5)]);
    tally.add(quota, now);
    // Another process wrote 20.
    tally.settle(QuotaPeriod::Day, day.begins(), 25);
    tally.settle(QuotaPeriod::Month, month.begins(), 225);
    assert_eq!(remaining(&mut tally, quota, "2026-05-01T12:00:00Z"), [74, 774]);
    // What is known of another day says nothing of this one.
    tally.settle(QuotaPeriod::Day, at("2026-04-30T00:00:00Z"), 100);
    assert_eq!(remaining(&mut tally, quota, "2026-05-01T12:00:00Z"), [74, 774]);
    assert!(!tally.is_over(at("2026-05-31T23:00:00Z")) && tally.is_over(at("2026-06-01T00:00:00Z")));
}
