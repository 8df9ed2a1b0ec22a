//! A request's way from target to target: what may be tried again, where, and what that tells about a target.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::balance::{Choice, Tried};
use super::engine::Context;
use super::pool::DialTime;
use super::target::{Target, Upstream};
use crate::domain::time::monotonic_now;
use crate::reply::Failure;
use crate::telemetry::Retry;

/// How often a request that was never written is tried again on another connection.
const MAX_UNSENT: usize = 3;

/// Why an exchange broke before the answer's head.
pub(super) enum Broken {
    /// The upstream has seen nothing of it.
    Unsent,
    /// The upstream says that it has done nothing about it.
    Unprocessed,
    /// It closed the connection without a byte: as if it had been about to, request or not.
    Closed,
    /// It may have.
    Sent(Failure),
}

impl Broken {
    /// What the client is told.
    pub(super) fn failure(self) -> Failure {
        match self {
            Self::Unsent | Self::Unprocessed | Self::Closed => Failure::UpstreamUnreachable,
            Self::Sent(failure) => failure,
        }
    }
}

/// Where a request goes next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// To the same target, over another connection.
    Same,
    /// To another target if there is one.
    OtherOrSame,
    /// To another target.
    Other,
}

/// A request's way from target to target.
pub(super) struct Course<'a> {
    number: usize,
    upstream: &'a Arc<Upstream>,
    /// The target it goes to.
    pub(super) choice: Choice,
    /// Those before.
    tried: Tried,
    /// How often a connection turned out to be gone before it took anything.
    unsent: usize,
    /// Whether it was sent again although something was sent.
    repeated: bool,
    /// How often a target was passed over because it was full.
    passed_over: usize,
    /// When the time for connections is over, once one had to be opened.
    dial_until: Option<Instant>,
}

impl<'a> Course<'a> {
    /// Of a request that begins at this target of the upstream with this number.
    pub(super) fn new(number: usize, upstream: &'a Arc<Upstream>, choice: Choice) -> Self {
        Self {
            number,
            upstream,
            choice,
            tried: Tried::new(),
            unsent: 0,
            repeated: false,
            passed_over: 0,
            dial_until: None,
        }
    }

    /// The time for a connection to the target chosen: a part of what is left where there is another to go to, and but a
    /// little of it for one that is expected to fail.
    pub(super) fn dial_time(&mut self, connect: Duration) -> DialTime {
        let now = monotonic_now();
        let until = *self.dial_until.get_or_insert_with(|| now + connect);
        let left = until.saturating_duration_since(now);
        let patience = if self.choice.is_trial {
            left / 8
        } else if self.upstream.has_other_than(self.choice.at, &self.tried) {
            left / 2
        } else {
            left
        };
        DialTime { most: connect, patience }
    }

    pub(super) fn has_time(&self) -> bool {
        self.dial_until.is_none_or(|until| monotonic_now() < until)
    }

    /// Where it may go after this, if anywhere.
    pub(super) fn after(&mut self, broken: &Broken, was_used: bool, is_harmless: bool) -> Option<Next> {
        let next = if was_used && !self.choice.is_trial { Next::Same } else { Next::OtherOrSame };
        match broken {
            Broken::Unprocessed if self.unsent < MAX_UNSENT => {
                self.unsent += 1;
                Some(Next::OtherOrSame)
            }
            Broken::Unsent if self.unsent < MAX_UNSENT => {
                self.unsent += 1;
                Some(next)
            }
            Broken::Closed if is_harmless && !self.repeated && (was_used || self.choice.is_trial) => {
                self.repeated = true;
                Some(next)
            }
            Broken::Unsent | Broken::Unprocessed | Broken::Closed | Broken::Sent(_) => None,
        }
    }

    /// Chooses the next target, unless there is none or too much was tried again of late.
    #[cold]
    pub(super) fn go_on(&mut self, cx: &Context, next: Next) -> bool {
        let (turns, number, upstream) = (&cx.engine.turns, self.number, self.upstream);
        let choice = match next {
            Next::Same => Some(self.choice),
            Next::OtherOrSame | Next::Other => {
                let at = self.choice.at;
                self.tried.push(at);
                let same = (next == Next::OtherOrSame).then_some(Choice { at, is_trial: false });
                turns.another(number, upstream, &self.tried).or(same)
            }
        };
        let Some(choice) = choice else { return false };
        let may = turns.take_retry(number, upstream, cx.engine.timers.now_ms());
        let observer = &cx.engine.observer;
        let outcome = if may { Retry::Made } else { Retry::OverBudget };
        observer.metrics.upstream_retry(observer.upstream(&upstream.settings.name), outcome);
        self.choice = choice;
        may
    }

    /// Chooses another target that is not full, where the chosen one is. Nothing was tried there, so this takes from no
    /// budget, and it may be come back to.
    #[cold]
    pub(super) fn pass_over(&mut self, cx: &Context, is_full: impl Fn(&Arc<Target>) -> bool) -> bool {
        let (turns, number, upstream) = (&cx.engine.turns, self.number, self.upstream);
        if self.choice.is_trial || self.passed_over >= upstream.targets.len() {
            return false;
        }
        self.passed_over += 1;
        let mut passed = self.tried.clone();
        passed.push(self.choice.at);
        while let Some(choice) = turns.another(number, upstream, &passed) {
            let target = &upstream.targets[choice.at];
            if target.standing.is_in() && !is_full(target) {
                self.choice = choice;
                return true;
            }
            passed.push(choice.at);
        }
        false
    }

    pub(super) fn note_answer(&self, cx: &Context, status: u16) {
        let target = &self.upstream.targets[self.choice.at];
        if status >= 500 && self.upstream.settings.ejection.server_errors {
            cx.engine.observer.target_failed(self.upstream, target, self.choice.is_trial);
        } else {
            cx.engine.observer.target_answered(self.upstream, target);
        }
    }

    /// Notes what tells about the target. That it closes a connection between two requests does not, nor that it has
    /// enough to do or ends in order, nor what the client did.
    #[cold]
    pub(super) fn note_failure(&self, cx: &Context, broken: &Broken, was_used: bool) {
        let tells = match broken {
            Broken::Unsent | Broken::Closed => !was_used,
            Broken::Sent(Failure::UpstreamUnreachable) => true,
            Broken::Sent(Failure::UpstreamTimeout) => self.upstream.settings.ejection.server_errors,
            Broken::Unprocessed | Broken::Sent(_) => false,
        };
        if tells {
            let target = &self.upstream.targets[self.choice.at];
            cx.engine.observer.target_failed(self.upstream, target, self.choice.is_trial);
        }
    }
}
