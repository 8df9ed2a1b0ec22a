//! Quotas by the calendar: how often a holder asked today and this month. Pure; UTC throughout.

use std::num::NonZeroU64;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::domain::{Quota, QuotaPeriod, Timestamp};

/// How far a wall clock may step back across midnight without the day that began being forgotten. Further back it was
/// wrong before, and what it counted then is no day of ours.
const STEP_BACK_MS: i64 = 3_600_000;

/// One day or one month, from its first moment to the first of the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Term {
    begins: Timestamp,
    ends: Timestamp,
}

impl Term {
    /// The day or month that `now` lies in.
    pub fn of(period: QuotaPeriod, now: Timestamp) -> Self {
        let today = jiff::Timestamp::from_millisecond(now.unix_ms()).unwrap_or_default().to_zoned(TimeZone::UTC).date();
        let (first, next) = match period {
            QuotaPeriod::Day => (today, today.tomorrow()),
            QuotaPeriod::Month => (today.first_of_month(), today.last_of_month().tomorrow()),
        };
        Self { begins: midnight(first), ends: next.map_or(Timestamp::from_unix_ms(i64::MAX), midnight) }
    }

    /// Its first moment.
    pub const fn begins(self) -> Timestamp {
        self.begins
    }

    /// The first moment that is no longer part of it.
    pub const fn ends(self) -> Timestamp {
        self.ends
    }

    /// Whether it is the one to count in at `now`.
    fn is_current(self, now: Timestamp) -> bool {
        now < self.ends && now.unix_ms() >= self.begins.unix_ms().saturating_sub(STEP_BACK_MS)
    }
}

fn midnight(date: Date) -> Timestamp {
    let moment = date.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp().as_millisecond());
    Timestamp::from_unix_ms(moment.unwrap_or(i64::MAX))
}

/// How often a holder asked in one term.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Count {
    term: Term,
    used: u64,
    /// What of it nobody has taken to be written yet.
    unwritten: u64,
}

impl Count {
    fn new(term: Term) -> Self {
        Self { term, used: 0, unwritten: 0 }
    }
}

/// How often a holder asked, today and this month.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Tally {
    day: Option<Count>,
    month: Option<Count>,
}

/// What is left of one quota.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Left {
    pub(super) period: QuotaPeriod,
    pub(super) most: u64,
    pub(super) remaining: u64,
    pub(super) term: Term,
}

impl Tally {
    /// What is left of a quota at `now`, the day before the month.
    pub(super) fn left(&mut self, quota: Quota, now: Timestamp) -> impl Iterator<Item = Left> + use<> {
        let mut left = |period, most: Option<NonZeroU64>| {
            let most = most?.get();
            let count = self.current(period, now);
            Some(Left { period, most, remaining: most.saturating_sub(count.used), term: count.term })
        };
        let both = [left(QuotaPeriod::Day, quota.per_day()), left(QuotaPeriod::Month, quota.per_month())];
        both.into_iter().flatten()
    }

    /// Counts one request in every term of the quota.
    pub(super) fn add(&mut self, quota: Quota, now: Timestamp) {
        let terms = [(QuotaPeriod::Day, quota.per_day()), (QuotaPeriod::Month, quota.per_month())];
        for (period, _) in terms.into_iter().filter(|(_, most)| most.is_some()) {
            let count = self.current(period, now);
            count.used = count.used.saturating_add(1);
            count.unwritten = count.unwritten.saturating_add(1);
        }
    }

    /// Hands over what was not written yet: period, first moment of the term, how many.
    pub(super) fn take_unwritten(&mut self, mut take: impl FnMut(QuotaPeriod, Timestamp, u64)) {
        for (period, count) in [(QuotaPeriod::Day, &mut self.day), (QuotaPeriod::Month, &mut self.month)] {
            if let Some(count) = count
                && count.unwritten > 0
            {
                take(period, count.term.begins, std::mem::take(&mut count.unwritten));
            }
        }
    }

    /// Learns how many requests were written of a term in all, by whomever; what came since is added to it.
    pub(super) fn settle(&mut self, period: QuotaPeriod, begins: Timestamp, written: u64) {
        let term = Term::of(period, begins);
        let count = self.slot(period).get_or_insert_with(|| Count::new(term));
        if count.term.begins == begins {
            count.used = written.saturating_add(count.unwritten);
        } else if count.term.begins < begins {
            *count = Count { used: written, ..Count::new(term) };
        }
    }

    /// Whether it has nothing to say at `now`.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        let is_over = |count: &Option<Count>| count.is_none_or(|count| !count.term.is_current(now));
        is_over(&self.day) && is_over(&self.month)
    }

    /// How much would be forgotten with it: whether some of it is unwritten, then how often its holder asked.
    pub(super) fn weight(&self) -> (bool, u64) {
        let counts = [self.day, self.month].into_iter().flatten();
        counts.fold((false, 0), |(unwritten, used), count| (unwritten || count.unwritten > 0, used.max(count.used)))
    }

    fn current(&mut self, period: QuotaPeriod, now: Timestamp) -> &mut Count {
        let slot = self.slot(period);
        if slot.is_none_or(|count| !count.term.is_current(now)) {
            *slot = None;
        }
        slot.get_or_insert_with(|| Count::new(Term::of(period, now)))
    }

    const fn slot(&mut self, period: QuotaPeriod) -> &mut Option<Count> {
        match period {
            QuotaPeriod::Day => &mut self.day,
            QuotaPeriod::Month => &mut self.month,
        }
    }
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
