use std::net::{IpAddr, Ipv4Addr};
use std::sync::Barrier;
use std::time::Duration;

use super::*;
use crate::domain::time::monotonic_now;
use crate::domain::{KeyId, OwnerId, RateLimit};
use crate::limit::{Network, Term};

const NOON: &str = "2026-05-01T12:00:00Z";

struct Scene {
    meters: Meters,
    zero: Instant,
}

impl Scene {
    fn with_most(most: usize) -> Self {
        let zero = monotonic_now();
        Self { meters: Meters::new(most, zero), zero }
    }

    fn new() -> Self {
        Self::with_most(1_000_000)
    }

    /// A moment after the beginning, at noon.
    fn after(&self, span: Duration) -> Moment {
        Moment { monotonic: self.zero + span, wall: NOON.parse::<Timestamp>().unwrap().plus(span) }
    }

    fn now(&self) -> Moment {
        self.after(Duration::ZERO)
    }
}

fn per_second(requests: u32, burst: u32) -> Gcra {
    Gcra::new(RateLimit::new(requests, Duration::from_secs(1), Some(burst)).unwrap())
}

fn key(number: u8) -> KeyId {
    KeyId::from_bytes([number; 16])
}

fn of_key(number: u8, gcra: Gcra) -> Charge {
    Charge::Rate(Policy::Key, Subject::Key(key(number)), RuleId::OWN, gcra)
}

fn of_owner(number: u8, gcra: Gcra) -> Charge {
    Charge::Rate(Policy::Owner, Subject::Owner(OwnerId::from_bytes([number; 16])), RuleId::OWN, gcra)
}

fn of_address(number: u32, gcra: Gcra) -> Charge {
    let network = Network::of(Some(IpAddr::V4(Ipv4Addr::from(number))));
    Charge::Rate(Policy::Route, Subject::Network(network), RuleId::named("r"), gcra)
}

fn daily(number: u8, most: u64) -> Charge {
    Charge::Quota(QuotaHolder::Key(key(number)), Quota::new(Some(most), None).unwrap())
}

fn accepted(scene: &Scene, charges: &[Charge], requests: usize) -> usize {
    (0..requests).filter(|_| scene.meters.take(charges, scene.now()).is_ok()).count()
}

#[test]
fn what_eight_threads_are_let_through_together_is_exact() {
    const EACH: usize = 2_000;
    let scene = Scene::new();
    let charges = [
        of_key(1, per_second(10, 1_003)),
        of_owner(2, per_second(10, 1_001)),
        daily(1, 1_002),
        of_address(9, per_second(1, 5_000)),
    ];
    let (begin, now) = (Barrier::new(8), scene.now());
    let let_through: usize = std::thread::scope(|scope| {
        let ask = || {
            begin.wait();
            (0..EACH).filter(|_| scene.meters.take(&charges, now).is_ok()).count()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(let_through, 1_001);
    // And what the other meters gave is no more than that.
    assert_eq!(accepted(&scene, &charges[..1], 10), 2);
    assert_eq!(accepted(&scene, &charges[2..3], 10), 1);
}

#[test]
fn threads_that_take_in_different_orders_do_not_wait_for_each_other_for_ever() {
    let scene = Scene::new();
    let charges: Vec<Charge> = (0..6).map(|number| of_key(number, per_second(1_000, 100_000))).collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (scene, mut charges) = (&scene, charges.clone());
            scope.spawn(move || {
                for round in 0..5_000 {
                    charges.rotate_left((thread + round) % 6);
                    scene.meters.take(&charges[..3], scene.now()).unwrap();
                }
            });
        }
    });
}

#[test]
fn every_meter_is_checked_before_any_is_taken_from() {
    let scene = Scene::new();
    let (wide, tight) = (of_key(1, per_second(1, 10)), of_owner(2, per_second(1, 1)));
    for charges in [[wide, tight, daily(1, 100)], [daily(1, 100), tight, wide]] {
        let _first = scene.meters.take(&charges, scene.now());
        for _ in 0..50 {
            let exceeded = scene.meters.take(&charges, scene.now()).unwrap_err();
            assert_eq!((exceeded.policy, exceeded.retry_after_seconds), (Policy::Owner, 1));
        }
    }
    let standings = scene.meters.take(&[wide, daily(1, 100)], scene.now()).unwrap();
    assert_eq!(standings.iter().map(|standing| standing.remaining).collect::<Vec<_>>(), [8, 98]);
}

#[test]
fn the_limit_that_takes_longest_is_the_one_that_is_told() {
    let scene = Scene::new();
    let charges = [of_key(1, per_second(1, 1)), daily(1, 1)];
    scene.meters.take(&charges, scene.now()).unwrap();
    let exceeded = scene.meters.take(&charges, scene.now()).unwrap_err();
    assert_eq!((exceeded.policy, exceeded.retry_after_seconds), (Policy::KeyDay, 12 * 3600));
    assert_eq!(exceeded.standings.len(), 2);
    assert!(exceeded.standings.iter().all(|standing| standing.remaining == 0));
    assert_eq!(exceeded.standings[1].window_seconds, 86_400);
    // A wait shorter than a second is told as one.
    let quick = [of_key(3, per_second(1000, 1))];
    scene.meters.take(&quick, scene.now()).unwrap();
    assert_eq!(scene.meters.take(&quick, scene.now()).unwrap_err().retry_after_seconds, 1);
}

#[test]
fn peeking_takes_nothing() {
    let scene = Scene::new();
    let charges = [of_key(1, per_second(1, 1)), daily(1, 5)];
    let seen = scene.meters.peek(&charges, scene.now());
    (0..100).for_each(|_| assert_eq!(scene.meters.peek(&charges, scene.now()), seen));
    assert!(scene.meters.is_empty());
    assert_eq!(scene.meters.take(&charges, scene.now()), seen);
    assert!(scene.meters.peek(&charges, scene.now()).is_err());
}

#[test]
fn meters_are_apart_by_subject_and_by_rule_and_the_same_whatever_their_limit() {
    let scene = Scene::new();
    let drain = |charge: Charge| accepted(&scene, &[charge], 100);
    assert_eq!(drain(of_key(1, per_second(1, 10))), 10);
    assert_eq!(drain(of_key(2, per_second(1, 10))), 10);
    let rule = |name| Charge::Rate(Policy::Route, Subject::Key(key(1)), RuleId::named(name), per_second(1, 7));
    assert_eq!(drain(rule("a")), 7);
    assert_eq!(drain(rule("b")), 7);
    // Another configuration, or another record, changes the limit and not what was taken.
    assert_eq!(drain(of_key(1, per_second(50, 10))), 0);
    assert_eq!(drain(of_key(1, per_second(1, 12))), 2);
    assert_eq!(drain(rule("a")), 0);
}

#[test]
fn whoever_was_used_up_under_a_slow_limit_waits_by_the_new_one_after_it_changed() {
    let scene = Scene::new();
    let hourly = Gcra::new(RateLimit::new(1, Duration::from_secs(3600), Some(10)).unwrap());
    assert_eq!(accepted(&scene, &[of_key(1, hourly)], 100), 10);
    let new = [of_key(1, per_second(10, 10))];
    // Refused again and again, which must not put the wait off either.
    for ms in (0..100).step_by(10) {
        assert!(scene.meters.take(&new, scene.after(Duration::from_millis(ms))).is_err(), "{ms}");
    }
    assert!(scene.meters.take(&new, scene.after(Duration::from_millis(100))).is_ok());
    let much_later = scene.after(Duration::from_millis(1_100));
    assert_eq!((0..100).filter(|_| scene.meters.take(&new, much_later).is_ok()).count(), 10);
}

#[test]
fn a_meter_is_dropped_when_it_is_full_again_and_not_before() {
    let scene = Scene::new();
    let charges: Vec<Charge> = (0..2_000).map(|number| of_address(number, per_second(1, 5))).collect();
    charges.iter().for_each(|charge| drop(scene.meters.take(&[*charge], scene.now())));
    assert_eq!(accepted(&scene, &charges[..1], 100), 4);
    let sweep = |span| (0..SWEEP_TURNS).for_each(|turn| scene.meters.sweep(turn, scene.after(span)));
    sweep(Duration::from_millis(900));
    assert_eq!(scene.meters.len(), 2_000);
    sweep(Duration::from_millis(1_001));
    assert_eq!(scene.meters.len(), 1, "only the one that was emptied is not full yet");
    sweep(Duration::from_millis(5_001));
    assert!(scene.meters.is_empty());
    scene.meters.take(&[daily(1, 5)], scene.now()).unwrap();
    sweep(Duration::from_secs(12 * 3600 - 1));
    assert_eq!(scene.meters.len(), 1);
    sweep(Duration::from_secs(12 * 3600));
    assert!(scene.meters.is_empty(), "its day is over");
    assert_eq!(scene.meters.evicted(), 0);
}

#[test]
fn a_flood_of_addresses_stays_within_the_bound_and_frees_nobody_who_is_used_up() {
    const MOST: usize = 16 * PARTS;
    let scene = Scene::with_most(MOST);
    let attacker = of_address(0, per_second(1, 100));
    assert_eq!(accepted(&scene, &[attacker], 1_000), 100);
    for number in 1..100_000 {
        assert!(
            scene.meters.take(&[of_address(number, per_second(1, 100))], scene.now()).is_ok(),
            "nobody is locked out"
        );
    }
    assert!(scene.meters.len() <= MOST, "{}", scene.meters.len());
    assert_eq!(scene.meters.len() as u64 + scene.meters.evicted(), 100_000);
    assert_eq!(accepted(&scene, &[attacker], 1_000), 0, "those go first that would be full again soonest");
    // Where everything is full again, nothing has to be evicted.
    let evicted = scene.meters.evicted();
    let later = scene.after(Duration::from_secs(500));
    (200_000..200_000 + 3 * PARTS as u32)
        .for_each(|number| drop(scene.meters.take(&[of_address(number, per_second(1, 100))], later)));
    assert_eq!(scene.meters.evicted(), evicted);
}

#[test]
fn a_bound_that_is_lowered_holds_for_new_meters() {
    let scene = Scene::new();
    let take = |number| drop(scene.meters.take(&[of_address(number, per_second(1, 100))], scene.now()));
    (0..50_000).for_each(take);
    assert_eq!(scene.meters.len(), 50_000);
    scene.meters.set_most(4 * PARTS);
    (50_000..100_000).for_each(take);
    assert!(scene.meters.len() <= 4 * PARTS, "{}", scene.meters.len());
}

#[test]
fn counts_of_quotas_outlive_the_meters_they_were_counted_in() {
    let before = Scene::new();
    let charges = [daily(1, 10)];
    assert_eq!(accepted(&before, &charges, 7), 7);
    let kept = before.meters.take_unwritten();
    let day = Term::of(QuotaPeriod::Day, NOON.parse().unwrap());
    let term = QuotaTerm { holder: QuotaHolder::Key(key(1)), period: QuotaPeriod::Day, begins: day.begins() };
    assert_eq!(kept, [(term, 7)]);
    assert_eq!(before.meters.take_unwritten(), [], "nothing is handed over twice");
    assert_eq!(accepted(&before, &charges, 1), 1);
    assert_eq!(before.meters.take_unwritten(), [(term, 1)]);

    let after = Scene::new();
    after.meters.settle(&kept, after.now());
    assert_eq!(accepted(&after, &charges, 100), 3);
    // Another process counted as well.
    let other = Scene::new();
    assert_eq!(accepted(&other, &charges, 2), 2);
    other.meters.take_unwritten();
    other.meters.settle(&[(term, 9)], other.now());
    assert_eq!(accepted(&other, &charges, 100), 1);
}

#[test]
fn quotas_that_are_evicted_come_back_with_what_was_written() {
    let scene = Scene::with_most(PARTS);
    let holder = |number: u32| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        Charge::Quota(QuotaHolder::Key(KeyId::from_bytes(bytes)), Quota::new(Some(3), None).unwrap())
    };
    let mut book = std::collections::HashMap::new();
    let mut flush = |scene: &Scene| {
        let taken = scene.meters.take_unwritten();
        let totals: Vec<_> = taken
            .iter()
            .map(|(term, more)| {
                let total = book.entry(*term).or_insert(0);
                *total += more;
                (*term, *total)
            })
            .collect();
        scene.meters.settle(&totals, scene.now());
    };
    assert_eq!(accepted(&scene, &[holder(0)], 3), 3);
    flush(&scene);
    for number in 1..20_000 {
        scene.meters.take(&[holder(number)], scene.now()).unwrap();
        if number % 100 == 0 {
            flush(&scene);
        }
    }
    assert!(scene.meters.evicted() > 0 && scene.meters.len() <= PARTS);
    // One request may pass until its count was written; then it is known again.
    let _unknown = scene.meters.take(&[holder(0)], scene.now());
    flush(&scene);
    assert_eq!(accepted(&scene, &[holder(0)], 10), 0);
}

#[test]
fn meters_of_one_subject_or_one_rule_are_apart() {
    let meters = Meters::new(10_000, monotonic_now());
    let gcra = Gcra::new(RateLimit::new(1, Duration::from_secs(3_600), None).unwrap());
    let now = Moment { monotonic: monotonic_now(), wall: Timestamp::default() };
    let mut id = [7; 16];
    let mut subjects = vec![Subject::Owner(OwnerId::from_bytes(id)), Subject::Network(Network::Local)];
    subjects.extend((0..32).map(|bit| Subject::Network(Network::V4((1 << bit).into()))));
    subjects.extend((0..64).map(|bit| Subject::Network(Network::V6(1 << bit))));
    for bit in 0..128 {
        id[bit / 8] ^= 1 << (bit % 8);
        subjects.push(Subject::Key(KeyId::from_bytes(id)));
    }
    let rules = [RuleId::OWN, RuleId::FAILURES, RuleId::named("orders")];
    for take in [true, false] {
        for subject in &subjects {
            for rule in rules {
                let charge = Charge::Rate(Policy::Key, *subject, rule, gcra);
                assert_eq!(meters.take(&[charge], now).is_ok(), take, "{subject:?} {rule:?}");
            }
        }
    }
    assert_eq!(meters.len(), subjects.len() * rules.len());
}
