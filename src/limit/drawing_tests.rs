use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::domain::time::monotonic_now;
use crate::domain::{KeyId, RateLimit};
use crate::limit::{Gcra, Grant, LeaseTerms, Policy, RuleId, Subject};

const MS: Duration = Duration::from_millis(1);
const TERMS: LeaseTerms =
    LeaseTerms { span: Duration::from_millis(100), patience: Duration::from_millis(20), on_outage: OnOutage::Local };

fn gcra(requests: u32, per: Duration, burst: Option<u32>) -> Gcra {
    Gcra::new(RateLimit::new(requests, per, burst).unwrap())
}

fn of_key(gcra: Gcra) -> Charge {
    Charge::Rate(Policy::Key, Subject::Key(KeyId::from_bytes([1; 16])), RuleId::OWN, gcra)
}

/// What the script does, by a clock of nanoseconds.
#[derive(Default)]
struct Model {
    full_at: HashMap<MeterId, u64>,
}

impl Model {
    fn lend(&mut self, meter: MeterId, ask: &Ask, now: u64) -> Grant {
        let Ask { gcra, want, in_hand, owed, back, missing_ns } = *ask;
        let (interval, capacity) = (i128::from(gcra.interval_ns()), i128::from(gcra.fill_ns()));
        let kept = self.full_at.get(&meter).map_or(0, |full_at| full_at.saturating_sub(now));
        let missing = i128::from(kept) + (i128::from(owed) - i128::from(back)) * interval;
        let missing = missing.clamp(0, capacity).max(i128::from(missing_ns).min(capacity));
        let there = (capacity - missing) / interval;
        let plenty = there / i128::from(crate::limit::lease::PLENTY_PART) - i128::from(in_hand);
        let tokens = if want > 0 { there.min(i128::from(want).max(plenty)) } else { 0 };
        let missing = u64::try_from(missing + tokens * interval).unwrap();
        self.full_at.insert(meter, now + missing);
        Grant { tokens: u32::try_from(tokens).unwrap(), missing_ns: missing }
    }
}

/// Asks of a node under way, with when they arrive and when the answers are back.
struct UnderWay {
    asks: Vec<(MeterId, Ask)>,
    grants: Vec<Grant>,
    back_at: Duration,
}

/// Nodes that share one meter, in simulated time.
struct Fleet {
    zero: Instant,
    now: Duration,
    model: Model,
    nodes: Vec<(Meters, Option<UnderWay>)>,
    /// Requests that wait, by node.
    waiting: Vec<Vec<Awaited>>,
    charge: Charge,
    accepted: Vec<Duration>,
    refused: usize,
    round_trip: Duration,
}

impl Fleet {
    fn new(nodes: usize, gcra: Gcra, round_trip: Duration) -> Self {
        let zero = monotonic_now();
        let node = |_| {
            let meters = Meters::new(10_000, zero).shared(TERMS);
            meters.sharing().unwrap().begin();
            (meters, None)
        };
        Self {
            zero,
            now: Duration::ZERO,
            model: Model::default(),
            nodes: (0..nodes).map(node).collect(),
            waiting: (0..nodes).map(|_| Vec::new()).collect(),
            charge: of_key(gcra),
            accepted: Vec::new(),
            refused: 0,
            round_trip,
        }
    }

    fn moment(&self) -> Moment {
        Moment { monotonic: self.zero + self.now, wall: Timestamp::default() }
    }

    /// So many requests arrive at a node.
    fn ask(&mut self, node: usize, requests: u32) {
        for _ in 0..requests {
            match self.nodes[node].0.draw(&[self.charge], self.moment(), Patience::Waits) {
                Ok(_) => self.accepted.push(self.now),
                Err(Withheld::Exceeded(_)) => self.refused += 1,
                Err(Withheld::Awaited(awaited)) => self.waiting[node].push(awaited),
                Err(Withheld::Unavailable) => panic!("nothing is out of reach"),
            }
        }
    }

    /// A piece of time passes: answers come back, those who waited draw again, and what is wanted is asked for.
    fn pass(&mut self, time: Duration, turn: usize) {
        self.now += time;
        for node in 0..self.nodes.len() {
            let at = self.zero + self.now;
            let under_way = self.nodes[node].1.take_if(|under_way| under_way.back_at <= self.now);
            if let Some(UnderWay { asks, grants, .. }) = under_way {
                asks.iter()
                    .zip(grants)
                    .for_each(|((meter, ask), grant)| self.nodes[node].0.granted(*meter, ask, grant, at));
            }
            if self.nodes[node].1.is_none() {
                let waiting = std::mem::take(&mut self.waiting[node]);
                let (still, over): (Vec<_>, Vec<_>) =
                    waiting.into_iter().partition(|awaited| self.nodes[node].0.is_asking(awaited));
                self.waiting[node] = still;
                self.ask(node, u32::try_from(over.len()).unwrap());
                self.nodes[node].0.sweep_leases(turn, at);
                let asks = self.nodes[node].0.asks(128, at);
                // The server looks at it half-way.
                let ns = u64::try_from((self.now + self.round_trip / 2).as_nanos()).unwrap();
                let grants = asks.iter().map(|(meter, ask)| self.model.lend(*meter, ask, ns)).collect();
                self.nodes[node].1 = Some(UnderWay { asks, grants, back_at: self.now + self.round_trip });
            }
        }
    }

    /// Most that is accepted in any stretch of time above what the limit allows there.
    fn excess(&self, gcra: Gcra) -> f64 {
        let mut most = f64::MIN;
        for (first, from) in self.accepted.iter().enumerate() {
            for (more, to) in self.accepted[first..].iter().enumerate() {
                let back = (*to - *from).as_nanos() as f64 / gcra.interval_ns() as f64;
                most = most.max((more + 1) as f64 - f64::from(gcra.burst()) - back);
            }
        }
        most
    }
}

/// Most tokens that a node may hold for later.
fn most_held(gcra: Gcra) -> f64 {
    let span = TERMS.span.as_nanos() as u64;
    (span / gcra.interval_ns()).max(u64::from(gcra.burst()) / 256).max(1) as f64
}

#[test]
fn three_nodes_together_accept_what_the_limit_allows() {
    for (limit, round_trip, seconds) in [
        (gcra(100, Duration::from_secs(1), None), MS, 10),
        (gcra(1000, Duration::from_secs(1), Some(50)), MS, 10),
        (gcra(1000, Duration::from_secs(60), None), 5 * MS, 60),
    ] {
        let mut fleet = Fleet::new(3, limit, round_trip);
        for ms in 0..seconds * 1000 {
            // The nodes are not equally busy, and together ask for far more than there is.
            (0..3).for_each(|node| fleet.ask(node, u32::try_from(node).unwrap() + ms % 2));
            fleet.pass(MS, ms as usize);
        }
        let allowed = f64::from(limit.burst()) + f64::from(seconds) * 1e9 / limit.interval_ns() as f64;
        let share = fleet.accepted.len() as f64 / allowed;
        assert!((0.98..=1.0).contains(&share), "{share} of {allowed}");
    }
}

#[test]
fn of_a_small_limit_three_nodes_accept_exactly_as_many() {
    let limit = gcra(5, Duration::from_secs(60), None);
    let mut fleet = Fleet::new(3, limit, MS);
    for ms in 0..11_000 {
        (0..3).for_each(|node| fleet.ask(node, 2));
        fleet.pass(MS, ms);
    }
    assert_eq!(fleet.accepted.len(), 5);
    for ms in 0..1_100 {
        (0..3).for_each(|node| fleet.ask(node, 1));
        fleet.pass(MS, ms);
    }
    assert_eq!(fleet.accepted.len(), 6, "one comes back after twelve seconds, whichever node asks");
}

#[test]
fn who_has_plenty_waits_once_and_never_again() {
    let limit = gcra(1000, Duration::from_secs(1), None);
    let mut fleet = Fleet::new(1, limit, MS);
    for ms in 0..5_000_u32 {
        fleet.ask(0, u32::from(ms % 10 == 0));
        fleet.pass(MS, ms as usize);
    }
    let (waits, _) = fleet.nodes[0].0.sharing().unwrap().waited();
    assert_eq!((fleet.accepted.len(), fleet.refused), (500, 0));
    assert!(waits < 10, "{waits} waits");
}

#[test]
fn what_nobody_uses_any_more_goes_back() {
    let limit = gcra(1000, Duration::from_secs(1), Some(10_000));
    let mut fleet = Fleet::new(2, limit, MS);
    for ms in 0..3_000_u32 {
        fleet.ask(0, u32::from(ms < 1_000));
        fleet.pass(MS, ms as usize);
    }
    assert_eq!(fleet.nodes[0].0.leases(), 0);
    let ns = u64::try_from(fleet.now.as_nanos()).unwrap();
    assert!(fleet.model.full_at.values().all(|full_at| *full_at <= ns + 1_000_000), "nothing is missing");
}

#[test]
fn whoever_cannot_ask_goes_by_its_own_meter_and_tells_of_it_when_it_can() {
    let limit = gcra(10, Duration::from_secs(3600), None);
    let fleet = Fleet::new(1, limit, MS);
    let (meters, sharing) = (&fleet.nodes[0].0, fleet.nodes[0].0.sharing().unwrap());
    let draw = |patience| meters.draw(&[of_key(limit)], fleet.moment(), patience);
    sharing.end();
    (0..4).for_each(|_| drop(draw(Patience::Waits).unwrap()));
    sharing.begin();
    let Err(Withheld::Awaited(_)) = draw(Patience::Waits) else { panic!("nobody knows") };
    let asks = meters.asks(10, fleet.zero);
    assert_eq!((asks[0].1.want, asks[0].1.missing_ns), (1, 4 * limit.interval_ns()), "{asks:?}");
    // Answers that take too long keep nobody, and are made up for.
    sharing.set_late(true);
    drop(draw(Patience::Waits).unwrap());
    sharing.set_late(false);
    meters.granted(asks[0].0, &asks[0].1, Grant { tokens: 1, missing_ns: 5 * limit.interval_ns() }, fleet.zero);
    drop(draw(Patience::Waits).unwrap());
    drop(draw(Patience::Over).unwrap());
    assert_eq!(meters.asks(10, fleet.zero)[0].1.owed, 2);
    // The node's own meter holds all the same.
    sharing.set_late(true);
    assert_eq!((0..10).filter(|_| draw(Patience::Waits).is_ok()).count(), 3);
}

#[test]
fn who_refuses_in_an_outage_lets_nothing_through_that_is_limited_by_a_rate() {
    let limit = gcra(10, Duration::from_secs(1), None);
    let zero = monotonic_now();
    let meters = Meters::new(10_000, zero).shared(LeaseTerms { on_outage: OnOutage::Refuse, ..TERMS });
    let now = Moment { monotonic: zero, wall: Timestamp::default() };
    let draw = |charge: Charge, patience| meters.draw(&[charge], now, patience);
    assert!(matches!(draw(of_key(limit), Patience::Waits), Err(Withheld::Unavailable)));
    assert!(draw(of_key(limit), Patience::Credit).is_ok(), "who never waits is never kept out");
    let quota = crate::domain::Quota::new(Some(5), None).unwrap();
    let holder = crate::domain::QuotaHolder::Key(KeyId::from_bytes([1; 16]));
    assert!(draw(Charge::Quota(holder, quota), Patience::Waits).is_ok(), "quotas are counted elsewhere");
    meters.sharing().unwrap().begin();
    assert!(matches!(draw(of_key(limit), Patience::Waits), Err(Withheld::Awaited(_))));
    assert!(matches!(draw(of_key(limit), Patience::Over), Err(Withheld::Unavailable)));
}

#[test]
fn nothing_is_taken_where_one_of_several_limits_is_unknown_or_reached() {
    let (wide, narrow) = (gcra(1000, Duration::from_secs(1), None), gcra(1, Duration::from_secs(3600), None));
    let other = Charge::Rate(Policy::Route, Subject::Key(KeyId::from_bytes([1; 16])), RuleId::named("r"), narrow);
    let charges = [of_key(wide), other];
    let mut fleet = Fleet::new(1, wide, MS);
    let draw = |fleet: &Fleet| fleet.nodes[0].0.draw(&charges, fleet.moment(), Patience::Waits);
    assert!(matches!(draw(&fleet), Err(Withheld::Awaited(_))));
    let seen = fleet.nodes[0].0.peek(&charges, fleet.moment()).unwrap();
    assert_eq!((seen[0].remaining, seen[1].remaining), (999, 0));
    (0..3).for_each(|turn| fleet.pass(MS, turn));
    assert!(draw(&fleet).is_ok());
    assert!(matches!(draw(&fleet), Err(Withheld::Exceeded(exceeded)) if exceeded.policy == Policy::Route));
    // Of what was lent, one is used; the rest is still there.
    let left = fleet.nodes[0].0.draw(&charges[..1], fleet.moment(), Patience::Credit).unwrap();
    assert!(left[0].remaining >= 995, "{left:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is asked of which node when, and however long the way to the server is.
    #[test]
    fn a_fleet_never_accepts_more_than_the_bound_that_is_told(
        nodes in 1_usize..5,
        requests in 1_u32..400,
        burst in 1_u32..400,
        round_trip in 0_u32..18,
        crowds in proptest::collection::vec((0_usize..5, 0_u32..12, 0_u32..120), 1..250),
    ) {
        let limit = gcra(requests, Duration::from_secs(1), Some(burst));
        let mut fleet = Fleet::new(nodes, limit, round_trip * MS);
        for (turn, (node, crowd, pause)) in crowds.into_iter().enumerate() {
            fleet.ask(node % nodes, crowd);
            // Nearly all come close together.
            let pause = if turn % 16 == 0 { pause * 20 } else { pause % 4 };
            (0..pause).for_each(|ms| fleet.pass(MS, turn + ms as usize));
        }
        let bound = nodes as f64 * most_held(limit);
        prop_assert!(fleet.excess(limit) <= bound + 1e-3, "{} over {}", fleet.excess(limit), bound);
    }
}
