//! Which target of an upstream a request goes to, and whether it may go to another one when that fails.
//!
//! Owns one worker's turns and its count of retries. How targets stand all workers know ([`Standing`]); choosing takes no
//! lock and touches nothing that other workers write, save in-flight counts where those are what is balanced by.
//!
//! [`Standing`]: super::standing::Standing

use std::cell::RefCell;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::settings::{Balance, RetryBudget};
use super::standing::chance;
use super::target::Upstream;

/// For how long requests and retries are counted together, twice: a share of the last five to ten seconds.
const WINDOW_MS: u64 = 5_000;

/// One worker's turns, by the number of the upstream.
#[derive(Default)]
pub(super) struct Turns(RefCell<Vec<Turn>>);

/// The targets a request was at already.
pub(super) type Tried = SmallVec<[usize; 4]>;

/// A target that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    /// Its place among the upstream's.
    pub(super) at: usize,
    /// Whether it is one that was left out, and this request is the one that tries it again.
    pub(super) is_trial: bool,
}

#[derive(Default)]
struct Turn {
    /// The upstream that it is about.
    of: u64,
    /// By target: what it is owed of the round, in the smooth weighted round robin that nginx has.
    credits: Vec<i64>,
    /// Where the search for the least loaded begins, so that equals take turns.
    next: usize,
    window: Window,
}

/// Requests and retries of late.
#[derive(Default)]
struct Window {
    since_ms: u64,
    requests: [u64; 2],
    retries: [u64; 2],
}

impl Turns {
    /// The target for a new request to the upstream with this number, which is counted. `is_repeatable`: whether it costs
    /// nothing when a target that was left out fails it.
    pub(super) fn begin(
        &self,
        number: usize,
        upstream: &Upstream,
        is_repeatable: bool,
        now: Instant,
        now_ms: u64,
    ) -> Choice {
        let mut turns = self.0.borrow_mut();
        let turn = turn_of(&mut turns, number, upstream);
        turn.window.count_request(now_ms);
        if upstream.targets.len() == 1 {
            return Choice { at: 0, is_trial: false };
        }
        if let Some(at) = upstream.trial(is_repeatable, now) {
            return Choice { at, is_trial: true };
        }
        Choice { at: turn.choose(upstream, &[]).unwrap_or(0), is_trial: false }
    }

    /// Another target for a request that was at these; none when it was at all of them.
    pub(super) fn another(&self, number: usize, upstream: &Upstream, tried: &[usize]) -> Option<Choice> {
        let mut turns = self.0.borrow_mut();
        let at = turn_of(&mut turns, number, upstream).choose(upstream, tried)?;
        Some(Choice { at, is_trial: false })
    }

    /// Takes one retry from the upstream's budget, if there is one left.
    pub(super) fn take_retry(&self, number: usize, upstream: &Upstream, now_ms: u64) -> bool {
        let mut turns = self.0.borrow_mut();
        turn_of(&mut turns, number, upstream).window.take_retry(&upstream.settings.retry_budget, now_ms)
    }
}

/// The turn of an upstream; it begins anew, by chance, when a reload has put another in its place.
fn turn_of<'a>(turns: &'a mut Vec<Turn>, number: usize, upstream: &Upstream) -> &'a mut Turn {
    if turns.len() <= number {
        turns.resize_with(number + 1, Turn::default);
    }
    let turn = &mut turns[number];
    if turn.of != upstream.id {
        *turn = Turn::new(upstream);
    }
    turn
}

impl Upstream {
    /// A target that was left out for long enough that somebody should try it, and nobody does yet.
    fn trial(&self, is_repeatable: bool, now: Instant) -> Option<usize> {
        if self.targets.iter().all(|target| target.standing.is_in()) {
            return None;
        }
        let ejection = &self.settings.ejection;
        // Somebody has to, in the end.
        let grace = if is_repeatable { Duration::ZERO } else { ejection.base_time };
        let window = ejection.base_time + self.settings.timeouts.connect;
        self.targets.iter().position(|target| target.standing.claim_trial(now, grace, window))
    }

    /// Whether a target other than these is in.
    pub(super) fn has_other_than(&self, chosen: usize, tried: &[usize]) -> bool {
        (0..self.targets.len()).any(|at| at != chosen && !tried.contains(&at) && self.targets[at].standing.is_in())
    }
}

impl Turn {
    /// Workers begin at different targets: a worker's first requests would all meet at the same one.
    fn new(upstream: &Upstream) -> Self {
        let credit = |weight: &u32| (chance() % (u64::from(*weight) + 1)).cast_signed();
        let next = usize::try_from(chance() % upstream.targets.len().max(1) as u64).unwrap_or(0);
        Self {
            of: upstream.id,
            credits: upstream.weights.iter().map(credit).collect(),
            next,
            window: Window::default(),
        }
    }

    /// Among those that are in; where none is, among all, as any may have come back.
    fn choose(&mut self, upstream: &Upstream, tried: &[usize]) -> Option<usize> {
        let targets = &upstream.targets;
        let is_in = |at: usize| targets[at].standing.is_in() && !tried.contains(&at);
        let is_left = |at: usize| !tried.contains(&at);
        match upstream.settings.balance {
            Balance::RoundRobin => {
                self.in_turn(&upstream.weights, is_in).or_else(|| self.in_turn(&upstream.weights, is_left))
            }
            Balance::LeastRequests => {
                let load = |at: usize| targets[at].standing.in_flight();
                let chosen = self
                    .least_loaded(&upstream.weights, load, is_in)
                    .or_else(|| self.least_loaded(&upstream.weights, load, is_left));
                self.next = self.next.wrapping_add(1);
                chosen
            }
        }
    }

    /// Smooth weighted round robin: each gets its weight of credit, the richest goes and pays for all.
    fn in_turn(&mut self, weights: &[u32], may: impl Fn(usize) -> bool) -> Option<usize> {
        let mut total = 0;
        let mut richest: Option<usize> = None;
        for (at, weight) in weights.iter().enumerate().filter(|(at, _)| may(*at)) {
            let weight = i64::from(*weight);
            total += weight;
            self.credits[at] += weight;
            if richest.is_none_or(|richest| self.credits[at] > self.credits[richest]) {
                richest = Some(at);
            }
        }
        let richest = richest?;
        self.credits[richest] -= total;
        Some(richest)
    }

    /// The one with the fewest requests under way for its weight, this one counted in.
    fn least_loaded(
        &self,
        weights: &[u32],
        load: impl Fn(usize) -> usize,
        may: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let count = weights.len();
        let mut least: Option<(usize, u64, u64)> = None;
        for at in (0..count).map(|step| self.next.wrapping_add(step) % count).filter(|at| may(*at)) {
            let (loaded, weight) = (load(at) as u64 + 1, u64::from(weights[at]));
            if least.is_none_or(|(_, least, of)| loaded.saturating_mul(of) < least.saturating_mul(weight)) {
                least = Some((at, loaded, weight));
            }
        }
        least.map(|(at, ..)| at)
    }
}

impl Window {
    #[inline]
    fn count_request(&mut self, now_ms: u64) {
        self.move_to(now_ms);
        self.requests[0] += 1;
    }

    fn take_retry(&mut self, budget: &RetryBudget, now_ms: u64) -> bool {
        self.move_to(now_ms);
        let requests: u64 = self.requests.iter().sum();
        let retries: u64 = self.retries.iter().sum();
        let share = requests.saturating_mul(budget.percent.into()) / 100;
        let at_least = u64::from(budget.min_per_second) * (2 * WINDOW_MS / 1000);
        let may = retries < share.saturating_add(at_least);
        self.retries[0] += u64::from(may);
        may
    }

    #[inline]
    fn move_to(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.since_ms);
        if passed < WINDOW_MS {
            return;
        }
        let keeps = passed < 2 * WINDOW_MS;
        self.requests = [0, if keeps { self.requests[0] } else { 0 }];
        self.retries = [0, if keeps { self.retries[0] } else { 0 }];
        self.since_ms = now_ms;
    }
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
