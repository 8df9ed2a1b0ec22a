//! All meters of the process, taken from by every worker.
//!
//! A meter is made when it is first taken from and dropped when it is full again, so what nobody limits costs nothing.
//! Requests check every meter that applies before they take from any, under the locks of all of them: what is accepted
//! is exact whatever threads do, and a refused request takes nothing.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use smallvec::{SmallVec, smallvec};

use super::gcra::{Gcra, Level, seconds_up};
use super::held::{Held, Reckoned};
use super::quota::Left;
use super::shard::{Namer, Shard};
use super::sharing::{LeaseTerms, Sharing};
use super::subject::{RuleId, Subject};
use crate::domain::{Quota, QuotaHolder, QuotaPeriod, QuotaTerm, Timestamp};

/// Parts with a lock of their own: so many that two workers hardly ever want the same one for two subjects, and so few that
/// their tables lie close together. (With 1024, a request among a thousand keys waited for memory twice as long.) At the
/// usual bound a sweep looks at eight thousand meters, 0.1 to 0.2 ms, while requests that want that part wait.
const PARTS: usize = 128;

/// Turns in which a sweep looks at every part once.
const SWEEP_TURNS: usize = 8;

/// What a limit is called in header fields, metrics and logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Policy {
    /// The rate of a key.
    Key,
    /// The rate of an owner.
    Owner,
    /// The rate of a route.
    Route,
    /// How many wrong credentials may come from an address.
    Failures,
    /// A key's quota of the day.
    KeyDay,
    /// A key's quota of the month.
    KeyMonth,
    /// An owner's quota of the day.
    OwnerDay,
    /// An owner's quota of the month.
    OwnerMonth,
}

impl Policy {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Owner => "owner",
            Self::Route => "route",
            Self::Failures => "failures",
            Self::KeyDay => "key-day",
            Self::KeyMonth => "key-month",
            Self::OwnerDay => "owner-day",
            Self::OwnerMonth => "owner-month",
        }
    }

    /// Whether it is a quota, not a rate.
    pub const fn is_quota(self) -> bool {
        match self {
            Self::Key | Self::Owner | Self::Route | Self::Failures => false,
            Self::KeyDay | Self::KeyMonth | Self::OwnerDay | Self::OwnerMonth => true,
        }
    }

    const fn of_quota(holder: QuotaHolder, period: QuotaPeriod) -> Self {
        match (holder, period) {
            (QuotaHolder::Key(_), QuotaPeriod::Day) => Self::KeyDay,
            (QuotaHolder::Key(_), QuotaPeriod::Month) => Self::KeyMonth,
            (QuotaHolder::Owner(_), QuotaPeriod::Day) => Self::OwnerDay,
            (QuotaHolder::Owner(_), QuotaPeriod::Month) => Self::OwnerMonth,
        }
    }
}

/// One limit that applies to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Charge {
    /// A rate: what it is called, whose meter under which rule, and how fast that fills.
    Rate(Policy, Subject, RuleId, Gcra),
    /// A quota, and whose.
    Quota(QuotaHolder, Quota),
}

/// What applies to one request; nearly always none to three.
pub type Charges = SmallVec<[Charge; 3]>;

impl Charge {
    pub(super) const fn subject(&self) -> Subject {
        match self {
            Self::Rate(_, subject, ..) => *subject,
            Self::Quota(holder, _) => subject_of(*holder),
        }
    }
}

/// One moment on both clocks: rates go by the one that never jumps, quotas by the calendar.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The monotonic clock.
    pub monotonic: Instant,
    /// The wall clock.
    pub wall: Timestamp,
}

/// Where a caller stands with one limit after a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Which limit.
    pub policy: Policy,
    /// Requests that it allows within `window_seconds`.
    pub quota: u64,
    /// Of a rate: the time in which an empty meter is full again. Of a quota: a day, or the days of the month.
    pub window_seconds: u32,
    /// Requests that are left.
    pub remaining: u64,
    /// Seconds until there are more, rounded up; 0 when all are there.
    pub more_in_seconds: u32,
}

/// Where a caller stands with all limits that apply. One or two of them need no memory of their own.
pub type Standings = SmallVec<[Standing; 2]>;

/// Why a request is not let through, and where its caller stands; nothing was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exceeded {
    /// The limit that is in the way longest.
    pub policy: Policy,
    /// Seconds until none is in the way any more, rounded up; at least 1.
    pub retry_after_seconds: u32,
    /// Where the caller stands with every limit that applies.
    pub standings: Standings,
}

/// See the module.
pub struct Meters {
    /// Zero of the clock that rates are reckoned by.
    started: Instant,
    namer: Namer,
    parts: Box<[Part]>,
    most: AtomicUsize,
    evicted: AtomicU64,
    /// Where a fleet shares its meters.
    sharing: Option<Box<Sharing>>,
}

/// On cache lines of its own, so that workers do not slow each other down.
#[repr(align(128))]
struct Part(Mutex<Shard>);

impl Meters {
    /// No meters yet, and at most about `most` of each sort later: those of rates, and those of quotas.
    pub fn new(most: usize, started: Instant) -> Self {
        let namer = Namer::default();
        let part = || Part(Mutex::new(Shard::new(&namer)));
        Self {
            started,
            parts: (0..PARTS).map(|_| part()).collect(),
            most: AtomicUsize::new(most),
            evicted: AtomicU64::new(0),
            sharing: None,
            namer,
        }
    }

    /// The same, as a fleet's: rates are drawn from leases. Until somebody asks for these they are this node's own.
    pub fn shared(self, terms: LeaseTerms) -> Self {
        Self { sharing: Some(Box::new(Sharing::new(terms))), ..self }
    }

    /// Changes how many are kept. Meters beyond it go when new ones are made.
    pub fn set_most(&self, most: usize) {
        self.most.store(most, Relaxed);
    }

    /// How many there are. Takes every lock in turn: for scrapes.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.0.lock().len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many were dropped, while they had something to say, to make room for others.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }

    /// Takes one request from every limit, or from none, and says where the caller stands then.
    ///
    /// No two charges may be of one meter. Locks the parts of all subjects, in the same order everywhere, for some tens
    /// of nanoseconds.
    ///
    /// # Errors
    /// When a limit does not allow it now.
    pub fn take(&self, charges: &[Charge], now: Moment) -> Result<Standings, Exceeded> {
        if let [Charge::Rate(policy, subject, rule, gcra)] = charges {
            return self.take_rate(*policy, (*subject, *rule), *gcra, self.reckoned(now));
        }
        let moment = self.reckoned(now);
        let (held, checked) = self.lock(charges).check(charges, moment)?;
        let (standings, evicted) = held.leave(charges, checked, self.most(), moment);
        self.count_evicted(evicted);
        Ok(standings)
    }

    /// As [`Self::take`] for a rate alone, which nearly all limited requests have: its meter is found once, and nothing is
    /// set aside.
    fn take_rate(
        &self,
        policy: Policy,
        meter: (Subject, RuleId),
        gcra: Gcra,
        now: Reckoned,
    ) -> Result<Standings, Exceeded> {
        let (taken, evicted) = self.part(&meter.0).take(meter, gcra, self.most(), now.ns);
        self.count_evicted(evicted);
        match taken {
            Ok(level) => Ok(smallvec![Standing::of_rate(policy, gcra, level)]),
            Err(wait_ns) => {
                let level = Level { remaining: 0, next_ns: wait_ns };
                let standings = smallvec![Standing::of_rate(policy, gcra, level)];
                Err(Exceeded { policy, retry_after_seconds: seconds_up(wait_ns).max(1), standings })
            }
        }
    }

    /// What [`Self::take`] would answer, without taking anything: for explanations.
    ///
    /// # Errors
    /// When a limit does not allow it now.
    pub fn peek(&self, charges: &[Charge], now: Moment) -> Result<Standings, Exceeded> {
        self.lock(charges).check(charges, self.reckoned(now)).map(|(_, checked)| checked.standings)
    }

    /// Drops meters that say nothing any more, in an eighth of the parts; `turn` says which. For the control runtime.
    pub fn sweep(&self, turn: usize, now: Moment) {
        let Reckoned { ns, wall } = self.reckoned(now);
        self.parts_of_turn(turn).for_each(|mut shard| shard.sweep(ns, wall));
    }

    /// Hands over how often holders of quotas asked since it was last called. Whoever takes it has to bring it to where
    /// counts are kept; until [`Self::settle`] it counts here all the same.
    pub fn take_unwritten(&self) -> Vec<(QuotaTerm, u64)> {
        let mut all = Vec::new();
        for part in &self.parts {
            part.0.lock().take_unwritten(|term, count| all.push((term, count)));
        }
        all
    }

    /// Learns how often holders asked in all, by what is kept: at the start, and after counts were added there, by this
    /// process or another.
    pub fn settle(&self, kept: &[(QuotaTerm, u64)], now: Moment) {
        for (term, used) in kept {
            let mut shard = self.part(&subject_of(term.holder));
            let mut tally = shard.tally(term.holder);
            tally.settle(term.period, term.begins, *used);
            let evicted = shard.set_tally(term.holder, tally, self.most(), now.wall);
            drop(shard);
            self.count_evicted(evicted);
        }
    }

    pub(super) fn reckoned(&self, now: Moment) -> Reckoned {
        let since = now.monotonic.saturating_duration_since(self.started).as_nanos();
        Reckoned { ns: u64::try_from(since).unwrap_or(u64::MAX / 2), wall: now.wall }
    }

    /// Locks every part that holds a meter of these charges.
    pub(super) fn lock(&self, charges: &[Charge]) -> Held<'_> {
        let place = |charge: &Charge| self.namer.part_of(&charge.subject(), PARTS);
        Held::new(charges.iter().map(place).collect(), |part| self.parts[part].0.lock())
    }

    /// The part that holds a subject's meters.
    pub(super) fn part(&self, subject: &Subject) -> MutexGuard<'_, Shard> {
        self.parts[self.namer.part_of(subject, PARTS)].0.lock()
    }

    /// The parts that a sweep looks at in this turn.
    pub(super) fn parts_of_turn(&self, turn: usize) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        self.parts.iter().skip(turn % SWEEP_TURNS).step_by(SWEEP_TURNS).map(|part| part.0.lock())
    }

    /// Every part in turn.
    pub(super) fn all_parts(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        self.parts.iter().map(|part| part.0.lock())
    }

    /// What a part may hold of each sort.
    pub(super) fn most(&self) -> usize {
        (self.most.load(Relaxed) / PARTS).max(1)
    }

    /// Counts meters that went to make room.
    pub(super) fn count_evicted(&self, evicted: u64) {
        if evicted > 0 {
            self.evicted.fetch_add(evicted, Relaxed);
        }
    }

    /// What it has in common with the one that asks for leases, where meters are shared.
    pub fn sharing(&self) -> Option<&Sharing> {
        self.sharing.as_deref()
    }
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meters").field("len", &self.len()).field("evicted", &self.evicted()).finish_non_exhaustive()
    }
}

impl Standing {
    pub(super) fn of_rate(policy: Policy, gcra: Gcra, level: Level) -> Self {
        Self {
            policy,
            quota: u64::from(gcra.burst()),
            window_seconds: gcra.fill_seconds(),
            remaining: u64::from(level.remaining),
            more_in_seconds: seconds_up(level.next_ns),
        }
    }

    pub(super) fn of_quota(holder: QuotaHolder, left: Left, now: Timestamp) -> Self {
        let Left { period, most, remaining, term } = left;
        let seconds = |from: Timestamp| {
            let ms = term.ends().since(from).as_millis();
            u32::try_from(ms.div_ceil(1000)).unwrap_or(u32::MAX)
        };
        Self {
            policy: Policy::of_quota(holder, period),
            quota: most,
            window_seconds: seconds(term.begins()),
            remaining,
            more_in_seconds: if remaining < most { seconds(now) } else { 0 },
        }
    }
}

const fn subject_of(holder: QuotaHolder) -> Subject {
    match holder {
        QuotaHolder::Key(id) => Subject::Key(id),
        QuotaHolder::Owner(id) => Subject::Owner(id),
    }
}

#[cfg(test)]
#[path = "meters_tests.rs"]
mod tests;
