//! What a node holds of a meter that a fleet shares: tokens that were taken there before anybody asked for them.
//!
//! Pure. A lease is asked for in rounds: an [`Ask`] goes out, a [`Grant`] comes back. Whatever is let through was charged
//! to the shared meter before, save what [`Lease::take`] lets through where nobody answers in time; that is charged with
//! the next ask.

use super::gcra::{Bucket, Gcra, Level};

/// Longest that a meter which was found empty is not asked again, when it says that there would be more sooner: those
/// who come too late ask in vain, and an ask for each token would be as dear as no lease at all.
const LONGEST_PACE_NS: u64 = 10_000_000;
/// And as a part of the time in which it fills, so that little of a small burst is left lying.
const PACE_PART: u64 = 8;
/// A lease may be this part of what the shared meter has left, however seldom it is used: a subject that has plenty
/// waits for nobody. (The script knows the same number.)
pub(super) const PLENTY_PART: u64 = 256;
/// Use is measured over no less than this part of the time that a lease is for.
const SHORTEST_MEASURE: u64 = 8;

/// What is asked of a shared meter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// How fast it fills, and what it holds.
    pub gcra: Gcra,
    /// Tokens that are wanted; as many as there are will do.
    pub want: u32,
    /// Tokens that the node has left, and keeps.
    pub in_hand: u32,
    /// Requests that were let through without a token: charged in any case.
    pub owed: u32,
    /// Tokens that are given back.
    pub back: u32,
    /// What this node alone has let through and what is missing for that, in nanoseconds of filling: the shared meter
    /// lacks no less, whatever it remembers.
    pub missing_ns: u64,
}

/// What a shared meter answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Tokens that were taken for the node.
    pub tokens: u32,
    /// What is missing after that, in nanoseconds of filling.
    pub missing_ns: u64,
}

/// Whether a request finds a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// Yes.
    Token,
    /// No, and there is none to be had yet.
    Nothing,
    /// No, and nobody has asked since there may be some.
    Unknown,
}

/// Where asking stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// Nothing is asked.
    Idle,
    /// It waits in the queue.
    Queued,
    /// It waits in the queue of those that requests wait for.
    QueuedFirst,
    /// It waits in the queue to go back, unless it is used before.
    Returning,
    /// The ask is on its way.
    Sent,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    gcra: Gcra,
    /// How often the other side had been reached when this began: what was held before is worth nothing after.
    epoch: u32,
    tokens: u32,
    owed: u32,
    /// Requests that wait for the answer.
    waiting: u32,
    /// Let through since it was last asked.
    used: u32,
    /// With as many tokens left, more are asked for.
    low: u32,
    phase: Phase,
    asked_at: u64,
    used_at: u64,
    /// There is nothing to be had before.
    empty_until: u64,
    /// The shared meter, as far as it is known here.
    fleet: Bucket,
}

impl Lease {
    pub(super) fn new(gcra: Gcra, epoch: u32, now: u64) -> Self {
        Self {
            gcra,
            epoch,
            tokens: 0,
            owed: 0,
            waiting: 0,
            used: 0,
            low: 0,
            phase: Phase::Idle,
            asked_at: now,
            used_at: now,
            empty_until: 0,
            fleet: Bucket::default(),
        }
    }

    pub(super) const fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) const fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) const fn used_at(&self) -> u64 {
        self.used_at
    }

    /// Whether a request finds a token.
    pub(super) const fn find(&self, now: u64) -> Found {
        if self.tokens > 0 {
            Found::Token
        } else if now < self.empty_until {
            Found::Nothing
        } else {
            Found::Unknown
        }
    }

    /// Lets one request through, with a token where there is one. Whether it is time to ask for more.
    pub(super) fn take(&mut self, gcra: Gcra, now: u64) -> bool {
        self.gcra = gcra;
        self.used_at = now;
        self.used = self.used.saturating_add(1);
        if self.phase == Phase::Returning {
            self.phase = Phase::Queued;
        }
        if let Some(left) = self.tokens.checked_sub(1) {
            self.tokens = left;
            left <= self.low && self.low > 0 && self.phase == Phase::Idle && now >= self.empty_until
        } else {
            self.owed = self.owed.saturating_add(1);
            self.phase == Phase::Idle
        }
    }

    /// Notes that a request waits for an answer. Whether it has to be asked for first.
    pub(super) fn wait(&mut self, gcra: Gcra, now: u64) -> bool {
        self.gcra = gcra;
        self.used_at = now;
        match self.phase {
            Phase::Idle | Phase::Queued | Phase::Returning => {
                self.waiting = self.waiting.saturating_add(1);
                self.phase = Phase::QueuedFirst;
                true
            }
            Phase::QueuedFirst => {
                self.waiting = self.waiting.saturating_add(1);
                false
            }
            Phase::Sent => false,
        }
    }

    /// Notes that it waits in the queue.
    pub(super) const fn queued(&mut self) {
        self.phase = Phase::Queued;
    }

    /// Notes that it waits in the queue to go back.
    pub(super) const fn returning(&mut self) {
        self.phase = Phase::Returning;
    }

    /// Notes that there was no room in the queue.
    pub(super) const fn unasked(&mut self) {
        self.phase = Phase::Idle;
        self.waiting = 0;
    }

    /// Whether it holds tokens, or owes some, and nobody has used it for `patience_ns`.
    pub(super) const fn is_idle(&self, patience_ns: u64, now: u64) -> bool {
        matches!(self.phase, Phase::Idle) && now.saturating_sub(self.used_at) >= patience_ns
    }

    /// Whether something is to be said about it to the shared meter.
    pub(super) const fn holds(&self) -> bool {
        self.tokens > 0 || self.owed > 0
    }

    /// What to ask now, for as much use as there is in `span_ns`; `local` is the node's own meter. One that
    /// returns gives back what it holds. None when there is nothing to say.
    pub(super) fn ask(&mut self, local: Bucket, span_ns: u64, now: u64) -> Option<Ask> {
        let gcra = self.gcra;
        let (mut want, mut back) = (0, 0);
        if self.phase == Phase::Returning {
            back = std::mem::take(&mut self.tokens);
        } else {
            // A lease is for as much use as there was, and at most for what comes back meanwhile.
            let measured = now.saturating_sub(self.asked_at).max(span_ns / SHORTEST_MEASURE).max(1);
            let use_in_span = u128::from(self.used) * u128::from(span_ns) / u128::from(measured);
            let aim = u64::try_from(use_in_span).unwrap_or(u64::MAX).min(self.most(span_ns));
            let more = u32::try_from(aim).unwrap_or(u32::MAX).saturating_sub(self.tokens);
            // Where more than one may be held, one more than there is will always be used.
            want = more.max(self.waiting).max(u32::from(self.low > 0));
        }
        self.waiting = 0;
        if want == 0 && back == 0 && self.owed == 0 {
            self.phase = Phase::Idle;
            return None;
        }
        (self.phase, self.asked_at, self.used) = (Phase::Sent, now, 0);
        let missing_ns = gcra.missing_ns(local, now);
        let owed = std::mem::take(&mut self.owed);
        Some(Ask { gcra, want, in_hand: self.tokens, owed, back, missing_ns })
    }

    /// Takes what was granted.
    pub(super) fn granted(&mut self, ask: &Ask, grant: Grant, span_ns: u64, now: u64) {
        self.phase = Phase::Idle;
        self.tokens = self.tokens.saturating_add(grant.tokens);
        self.fleet = Bucket::lacking(ask.gcra, grant.missing_ns, now);
        let level = self.fleet.level(ask.gcra, now);
        self.empty_until = 0;
        if grant.tokens < ask.want {
            let pace = LONGEST_PACE_NS.min(ask.gcra.fill_ns() / PACE_PART);
            self.empty_until = now + level.next_ns.max(pace);
        }
        let plenty = u64::from(level.remaining) / PLENTY_PART;
        let held = u64::from(self.tokens).min(self.most(span_ns).max(plenty));
        self.low = u32::try_from(held / 2).unwrap_or(u32::MAX);
    }

    /// Where a caller stands, who stands at `local` with this node alone.
    pub(super) fn level(&self, local: Level, gcra: Gcra, now: u64) -> Level {
        if self.tokens == 0 && now < self.empty_until {
            let next_ns = (self.empty_until - now).max(if local.remaining == 0 { local.next_ns } else { 0 });
            return Level { remaining: 0, next_ns };
        }
        let fleet = self.fleet.level(gcra, now);
        let remaining = fleet.remaining.saturating_add(self.tokens);
        if remaining < local.remaining { Level { remaining, next_ns: fleet.next_ns.max(1) } } else { local }
    }

    /// Most that is held for its use.
    const fn most(&self, span_ns: u64) -> u64 {
        span_ns / self.gcra.interval_ns()
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
