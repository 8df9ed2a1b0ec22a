//! A fleet of a hundred gateways in simulated time: the sync task, the key set, the book of nodes and the waiting for all
//! are the real ones; time, chance and the ways to the store are made. The same seed is the same run.
//!
//! `PORTCULLIS_TEST_FLEET_SEEDS` says how many runs there are of each sort (default 1), `PORTCULLIS_TEST_FLEET_MINUTES`
//! how long each lasts in simulated time (default 1), `PORTCULLIS_TEST_FLEET_SEED` runs that one alone.

mod dice;
mod fleet;
mod trace;
mod way;
mod witness;

use std::time::Duration;

use fleet::{Fleet, Plan};

use crate::domain::simulated::SimulatedTime;

/// What came of a run.
struct Run {
    /// A sum over everything that happened, and how much that was.
    sum: (u64, u64),
    /// How long refusing took, for people.
    told: String,
    /// What must not be.
    failure: Option<String>,
}

fn run(plan: Plan) -> Run {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
        let _time = SimulatedTime::begin();
        let fleet = Fleet::new(plan);
        fleet.live().await;
        let mut witness = fleet.witness.lock();
        let failure = witness.failure.take().map(|(gateway, what)| {
            let who = gateway.map_or_else(|| "the fleet".to_owned(), |number| format!("gateway {number}"));
            let story = fleet.trace.story(gateway, fleet.began);
            format!("{who} {what}\n{plan:?}\nto repeat it: PORTCULLIS_TEST_FLEET_SEED={}\n{story}", plan.seed)
        });
        let (seed, seconds, table) = (plan.seed, plan.span.as_secs(), witness.table());
        let (waits, complete) = (witness.waits, witness.complete);
        let told =
            format!("seed {seed}: {seconds} s, {waits} waits for all, of which {complete} became complete\n{table}");
        Run { sum: fleet.trace.sum(), told, failure }
    })
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// Runs of one sort, which `plan` makes of a seed.
fn held(sort: u64, plan: impl Fn(u64, Duration) -> Plan) {
    let span = Duration::from_secs(60 * number("PORTCULLIS_TEST_FLEET_MINUTES").unwrap_or(1));
    let seeds = number("PORTCULLIS_TEST_FLEET_SEEDS").unwrap_or(1);
    let seeds: Vec<u64> = match number("PORTCULLIS_TEST_FLEET_SEED") {
        Some(seed) => (seed % 3 == sort).then_some(seed).into_iter().collect(),
        None => (0..seeds).map(|seed| 3 * seed + sort).collect(),
    };
    for seed in seeds {
        let run = run(plan(seed, span));
        println!("{}", run.told);
        if let Some(failure) = run.failure {
            panic!("{failure}");
        }
    }
}

const GATEWAYS: usize = 100;

#[test]
fn a_fleet_that_hears_of_commits_keeps_what_is_promised() {
    held(0, |seed, span| Plan {
        seed,
        gateways: GATEWAYS,
        span,
        poll: Duration::from_secs(1),
        one_deaf_in: 10,
        loses_commits: false,
    });
}

#[test]
fn a_fleet_that_polls_keeps_what_is_promised() {
    held(1, |seed, span| Plan {
        seed,
        gateways: GATEWAYS,
        span,
        poll: Duration::from_millis(100),
        one_deaf_in: 1,
        loses_commits: false,
    });
}

#[test]
fn a_fleet_whose_store_loses_commits_takes_back_no_revocation_that_it_saw() {
    held(2, |seed, span| Plan {
        seed,
        gateways: GATEWAYS,
        span,
        poll: Duration::from_secs(1),
        one_deaf_in: 3,
        loses_commits: true,
    });
}

#[test]
fn the_same_seed_is_the_same_run() {
    let plan = |seed| Plan {
        seed,
        gateways: 20,
        span: Duration::from_secs(30),
        poll: Duration::from_millis(500),
        one_deaf_in: 3,
        loses_commits: true,
    };
    let sums = [7, 7, 8].map(|seed| run(plan(seed)).sum);
    assert!(sums[0] == sums[1] && sums[0] != sums[2] && sums[0].1 > 1_000, "{sums:?}");
}
