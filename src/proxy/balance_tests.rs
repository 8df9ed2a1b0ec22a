//! Shares by weight, the least loaded, targets that are out, and how many retries there are.

use std::path::Path;

use super::*;
use crate::config;
use crate::domain::time::monotonic_now;

/// An upstream with targets of these weights.
fn upstream(balance: &str, weights: &[u32]) -> Upstream {
    let target = |(at, weight): (usize, &u32)| format!("{{ url: \"http://127.0.0.1:{}\", weight: {weight} }}", at + 1);
    let targets: Vec<_> = weights.iter().enumerate().map(target).collect();
    let text = format!(
        "version: 1\nlisteners: [{{ bind: \"127.0.0.1:0\" }}]\nupstreams:\n  shop:\n    balance: {balance}\n    targets: [{}]\n\
         routes: [{{ path: \"/**\", upstream: shop, auth: none }}]\n",
        targets.join(", ")
    );
    let loaded = config::load_text(Path::new("test.yaml"), &text, &|_| None);
    let settings = loaded.settings.unwrap_or_else(|| panic!("{:?}", loaded.diagnostics));
    Upstream::open(settings.upstreams[0].clone(), None).unwrap()
}

fn begin(turns: &Turns, upstream: &Upstream) -> usize {
    turns.begin(0, upstream, true, monotonic_now(), 0).at
}

/// How often each target is chosen in so many requests.
fn shares(turns: &Turns, upstream: &Upstream, requests: usize) -> Vec<usize> {
    let mut shares = vec![0; upstream.targets.len()];
    (0..requests).for_each(|_| shares[begin(turns, upstream)] += 1);
    shares
}

fn eject(upstream: &Upstream, at: usize) {
    let ejection = &upstream.settings.ejection;
    (0..ejection.failures).for_each(|_| {
        upstream.targets[at].standing.failed(ejection, false, false, monotonic_now());
    });
    assert!(!upstream.targets[at].standing.is_in());
}

#[test]
fn targets_get_what_they_weigh_and_nobody_gets_it_in_a_row() {
    let upstream = upstream("round_robin", &[5, 1, 1]);
    let turns = Turns::default();
    let order: Vec<_> = (0..700).map(|_| begin(&turns, &upstream)).collect();
    for (at, expected) in [(0, 500), (1, 100), (2, 100)] {
        let got = order.iter().filter(|chosen| **chosen == at).count();
        assert!(got.abs_diff(expected) <= 5, "{at}: {got}");
    }
    let longest = order.chunk_by(|a, b| a == b).map(<[_]>::len).max().unwrap();
    assert!(longest <= 5, "{longest} in a row");
}

#[test]
fn workers_begin_at_different_targets() {
    let upstream = upstream("round_robin", &[8; 8]);
    let first: std::collections::BTreeSet<_> = (0..100).map(|_| begin(&Turns::default(), &upstream)).collect();
    assert!(first.len() > 3, "{first:?}");
}

#[test]
fn the_share_of_a_target_that_is_out_goes_to_all_others() {
    let upstream = upstream("round_robin", &[1, 1, 1, 1]);
    eject(&upstream, 1);
    let turns = Turns::default();
    let shares = shares(&turns, &upstream, 300);
    assert_eq!(shares[1], 0, "{shares:?}");
    assert!([0, 2, 3].iter().all(|at| shares[*at].abs_diff(100) <= 3), "{shares:?}");
}

#[test]
fn where_all_are_out_all_are_tried() {
    for balance in ["round_robin", "least_requests"] {
        let upstream = upstream(balance, &[1, 1, 1]);
        (0..3).for_each(|at| eject(&upstream, at));
        let turns = Turns::default();
        let shares = shares(&turns, &upstream, 300);
        assert!(shares.iter().all(|share| share.abs_diff(100) <= 3), "{balance}: {shares:?}");
        let mut tried = Tried::new();
        while let Some(choice) = turns.another(0, &upstream, &tried) {
            tried.push(choice.at);
        }
        assert_eq!(tried.len(), 3, "{balance}");
    }
}

#[test]
fn the_least_loaded_for_its_weight_is_chosen_and_equals_take_turns() {
    let upstream = upstream("least_requests", &[1, 1, 2]);
    let turns = Turns::default();
    let under_way: Vec<_> = (0..400)
        .map(|_| {
            let at = begin(&turns, &upstream);
            super::super::standing::InFlight::begin(&upstream.targets[at])
        })
        .collect();
    let loads: Vec<_> = upstream.targets.iter().map(|target| target.standing.in_flight()).collect();
    assert!(loads[0].abs_diff(100) <= 1 && loads[1].abs_diff(100) <= 1 && loads[2].abs_diff(200) <= 2, "{loads:?}");
    drop(under_way);
    assert!(upstream.targets.iter().all(|target| target.standing.in_flight() == 0));
    let shares = shares(&turns, &upstream, 300);
    // Without load the heavier one is always the less loaded.
    assert!(shares[2] == 300, "{shares:?}");
}

#[test]
fn one_request_tries_what_was_left_out_for_long_enough() {
    let upstream = upstream("round_robin", &[1, 1]);
    eject(&upstream, 0);
    let turns = Turns::default();
    let later = monotonic_now() + Duration::from_secs(3600);
    let choose = |is_repeatable| turns.begin(0, &upstream, is_repeatable, later, 0);
    assert_eq!(choose(true), Choice { at: 0, is_trial: true });
    assert_eq!(choose(true), Choice { at: 1, is_trial: false });
    let soon = monotonic_now() + upstream.settings.ejection.base_time;
    eject_again(&upstream);
    assert_eq!(turns.begin(0, &upstream, false, soon, 0).at, 1, "what cannot be repeated waits for longer");
}

fn eject_again(upstream: &Upstream) {
    upstream.targets[0].standing.answered(&upstream.settings.ejection);
    eject(upstream, 0);
}

#[test]
fn retries_are_a_share_of_the_requests_of_late_and_a_few_in_any_case() {
    let budget = RetryBudget { percent: 20, min_per_second: 1 };
    let mut window = Window::default();
    let granted = |window: &mut Window, now| (0..10_000).filter(|_| window.take_retry(&budget, now)).count();
    assert_eq!(granted(&mut window, 0), 10);
    (0..1000).for_each(|_| window.count_request(100));
    assert_eq!(granted(&mut window, 100), 200);
    // What was taken counts for as long as what was asked.
    assert_eq!(granted(&mut window, WINDOW_MS), 0);
    assert_eq!(granted(&mut window, 2 * WINDOW_MS), 10);
    let none = RetryBudget { percent: 0, min_per_second: 0 };
    (0..1000).for_each(|_| window.count_request(3 * WINDOW_MS));
    assert!(!window.take_retry(&none, 3 * WINDOW_MS));
}
