//! A part of the meters behind one lock: all meters of a subject lie in the same one.

use std::cmp::Ordering;
use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashMap};

use super::gcra::{Bucket, Gcra, Level};
use super::lease::Lease;
use super::quota::Tally;
use super::sharing::MeterId;
use super::subject::{RuleId, Subject};
use crate::domain::{QuotaHolder, QuotaTerm, Timestamp};

/// How many of a full part go at once, as a fraction of it: making room costs a look at all of them, so it should not be
/// needed for every new meter.
const EVICTED_FRACTION: usize = 8;

/// See the module.
#[derive(Default)]
pub(super) struct Shard {
    rates: HashMap<(Subject, RuleId), Bucket>,
    quotas: HashMap<QuotaHolder, Tally>,
    /// Where meters are shared.
    leases: HashMap<(Subject, RuleId), Lease>,
}

impl Shard {
    pub(super) fn with_hasher(hasher: &DefaultHashBuilder) -> Self {
        Self {
            rates: HashMap::with_hasher(hasher.clone()),
            quotas: HashMap::with_hasher(hasher.clone()),
            leases: HashMap::with_hasher(hasher.clone()),
        }
    }

    /// How many meters it holds.
    pub(super) fn len(&self) -> usize {
        self.rates.len() + self.quotas.len()
    }

    /// A subject's meter under a rule; one that is not there is full.
    pub(super) fn bucket(&self, subject: Subject, rule: RuleId) -> Bucket {
        self.rates.get(&(subject, rule)).copied().unwrap_or_default()
    }

    /// A subject's meter under a rule, unless it is full.
    pub(super) fn bucket_mut(&mut self, meter: (Subject, RuleId)) -> Option<&mut Bucket> {
        self.rates.get_mut(&meter)
    }

    /// How full a meter is, which fills as this limit says from now on.
    pub(super) fn adopt(&mut self, meter: (Subject, RuleId), gcra: Gcra, now: u64) -> Level {
        match self.rates.get_mut(&meter) {
            Some(bucket) => {
                bucket.adopt(gcra, now);
                bucket.level(gcra, now)
            }
            None => Bucket::default().level(gcra, now),
        }
    }

    /// Replaces a meter. At most `most` are kept; returns how many went to make room.
    pub(super) fn set_bucket(&mut self, meter: (Subject, RuleId), bucket: Bucket, most: usize, now: u64) -> u64 {
        if let Some(known) = self.rates.get_mut(&meter) {
            *known = bucket;
            return 0;
        }
        let evicted = if self.rates.len() >= most { self.make_room_for_rate(most, now) } else { 0 };
        self.rates.insert(meter, bucket);
        evicted
    }

    /// What is held of a shared meter since it was reached for the `epoch`th time.
    pub(super) fn lease(&self, meter: MeterId, epoch: u32) -> Option<Lease> {
        self.leases.get(&meter).copied().filter(|lease| lease.epoch() == epoch)
    }

    /// The same, to be changed.
    pub(super) fn known_lease(&mut self, meter: MeterId, epoch: u32) -> Option<&mut Lease> {
        self.leases.get_mut(&meter).filter(|lease| lease.epoch() == epoch)
    }

    /// What is held of a shared meter; where nothing is, or what is left of another epoch, it begins. At most `most` are
    /// kept: those that were used last.
    pub(super) fn lease_mut(&mut self, meter: MeterId, gcra: Gcra, epoch: u32, most: usize, now: u64) -> &mut Lease {
        if self.leases.len() >= most && !self.leases.contains_key(&meter) {
            drop_least(&mut self.leases, most, Lease::used_at);
        }
        let lease = self.leases.entry(meter).or_insert_with(|| Lease::new(gcra, epoch, now));
        if lease.epoch() != epoch {
            *lease = Lease::new(gcra, epoch, now);
        }
        lease
    }

    /// Drops leases that nobody uses, and those of other epochs; those that something is to be said about are put before
    /// `ask` first.
    pub(super) fn sweep_leases(
        &mut self,
        epoch: Option<u32>,
        idle_ns: u64,
        now: u64,
        mut ask: impl FnMut(MeterId) -> bool,
    ) {
        self.leases.retain(|meter, lease| {
            if Some(lease.epoch()) != epoch {
                return false;
            }
            if !lease.is_idle(idle_ns, now) {
                return true;
            }
            if lease.holds() && ask(*meter) {
                lease.returning();
            }
            lease.holds()
        });
        if self.leases.capacity() > 64 && self.leases.len() < self.leases.capacity() / 8 {
            self.leases.shrink_to(self.leases.len() * 2);
        }
    }

    /// How many leases there are.
    pub(super) fn leases(&self) -> usize {
        self.leases.len()
    }

    /// What a holder asked for; one that is not there asked for nothing yet.
    pub(super) fn tally(&self, holder: QuotaHolder) -> Tally {
        self.quotas.get(&holder).copied().unwrap_or_default()
    }

    /// Replaces what a holder asked for. At most `most` are kept; returns how many went to make room.
    pub(super) fn set_tally(&mut self, holder: QuotaHolder, tally: Tally, most: usize, now: Timestamp) -> u64 {
        if let Some(known) = self.quotas.get_mut(&holder) {
            *known = tally;
            return 0;
        }
        let evicted = if self.quotas.len() >= most { self.make_room_for_tally(most, now) } else { 0 };
        self.quotas.insert(holder, tally);
        evicted
    }

    /// Drops meters that say nothing any more: rates that are full, and quotas whose day and month are over.
    pub(super) fn sweep(&mut self, now: u64, wall: Timestamp) {
        self.rates.retain(|_, bucket| bucket.full_at() > now);
        self.quotas.retain(|_, tally| !tally.is_over(wall));
        // Memory that a flood of addresses took is given back, but not what ordinary ups and downs need again.
        if self.rates.capacity() > 64 && self.rates.len() < self.rates.capacity() / 8 {
            self.rates.shrink_to(self.rates.len() * 2);
        }
    }

    /// Hands over what was counted and not written yet.
    pub(super) fn take_unwritten(&mut self, mut take: impl FnMut(QuotaTerm, u64)) {
        for (holder, tally) in &mut self.quotas {
            tally.take_unwritten(|period, begins, count| take(QuotaTerm { holder: *holder, period, begins }, count));
        }
    }

    /// Drops what is full; where that is not enough, those that would be full again soonest.
    fn make_room_for_rate(&mut self, most: usize, now: u64) -> u64 {
        self.rates.retain(|_, bucket| bucket.full_at() > now);
        drop_least(&mut self.rates, most, Bucket::full_at)
    }

    /// Drops what is over; where that is not enough, those that asked least. What of them was written is not lost: it
    /// comes back with the first count that is written after it.
    fn make_room_for_tally(&mut self, most: usize, now: Timestamp) -> u64 {
        self.quotas.retain(|_, tally| !tally.is_over(now));
        drop_least(&mut self.quotas, most, Tally::weight)
    }
}

/// Drops the least by `weight`, a fraction of all, unless there are fewer than `most` already; returns how many went.
fn drop_least<K: Eq + Hash, V, W: Ord + Copy>(table: &mut HashMap<K, V>, most: usize, weight: impl Fn(&V) -> W) -> u64 {
    if table.len() < most {
        return 0;
    }
    let excess = (table.len() - most + 1).max(table.len() / EVICTED_FRACTION);
    let mut weights: Vec<W> = table.values().map(&weight).collect();
    let (_, border, _) = weights.select_nth_unstable(excess - 1);
    let border = *border;
    let mut at_border = excess - weights.iter().filter(|weight| **weight < border).count();
    table.retain(|_, value| match weight(value).cmp(&border) {
        Ordering::Less => false,
        Ordering::Equal if at_border > 0 => {
            at_border -= 1;
            false
        }
        Ordering::Equal | Ordering::Greater => true,
    });
    excess as u64
}

/// Which of `parts` a subject's meters lie in.
pub(super) fn part_of(subject: &Subject, hasher: &DefaultHashBuilder, parts: usize) -> usize {
    // The tables within a part are indexed by the low bits.
    let high = hasher.hash_one(subject) >> 32;
    usize::try_from(high).unwrap_or_default() & (parts - 1)
}
