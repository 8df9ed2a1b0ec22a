//! A part of the meters behind one lock: all meters of a subject lie in the same one.

use std::cmp::Ordering;
use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashMap};
use siphasher::sip128::SipHasher13;

use super::gcra::{Bucket, Gcra, Level};
use super::lease::Lease;
use super::quota::Tally;
use super::sharing::MeterId;
use super::subject::{RuleId, Subject};
use crate::domain::{QuotaHolder, QuotaTerm, Timestamp};
use crate::table::{Entry, Table};

/// How many of a full part go at once, as a fraction of it: making room costs a look at all of them, so it should not be
/// needed for every new meter.
const EVICTED_FRACTION: usize = 8;

/// Meters of rates in a group: two cache lines.
const RATES: usize = 4;

const _: () = assert!(size_of::<Option<Rate>>() * RATES == 128);

/// See the module.
pub(super) struct Shard {
    namer: Namer,
    rates: Table<Rate, RATES>,
    quotas: HashMap<QuotaHolder, Tally>,
    /// Where meters are shared.
    leases: HashMap<(Subject, RuleId), Lease>,
}

/// A meter of a rate that was taken from.
#[derive(Clone, Copy)]
struct Rate {
    name: RateName,
    bucket: Bucket,
}

/// What a subject's meter under a rule is called here: 128 bits of SipHash-1-3, in half the memory that both take.
#[derive(Clone, Copy, PartialEq, Eq)]
struct RateName([u64; 2]);

/// Gives names by a secret of this process: nobody outside can search for two meters of one name, and by chance there are none.
#[derive(Clone)]
pub(super) struct Namer {
    names: SipHasher13,
    /// Of parts and of other tables.
    places: DefaultHashBuilder,
}

impl Default for Namer {
    fn default() -> Self {
        let random = std::collections::hash_map::RandomState::new();
        let names = SipHasher13::new_with_keys(random.hash_one(1), random.hash_one(2));
        Self { names, places: DefaultHashBuilder::default() }
    }
}

impl Namer {
    fn name(&self, (subject, rule): &MeterId) -> RateName {
        let mut told = [0; 25];
        told[..17].copy_from_slice(&subject.to_bytes().0);
        told[17..].copy_from_slice(&rule.to_bytes());
        let hash = self.names.hash(&told);
        RateName([hash.h1, hash.h2])
    }

    /// Which of `parts`, a power of two, a subject's meters lie in.
    pub(super) fn part_of(&self, subject: &Subject, parts: usize) -> usize {
        let high = self.places.hash_one(subject) >> 32;
        usize::try_from(high).unwrap_or_default() & (parts - 1)
    }
}

impl Entry for Rate {
    fn bits(&self) -> u32 {
        self.name.bits()
    }
}

impl RateName {
    #[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
    const fn bits(self) -> u32 {
        self.0[0] as u32
    }
}

impl Shard {
    pub(super) fn new(namer: &Namer) -> Self {
        let hasher = &namer.places;
        Self {
            namer: namer.clone(),
            rates: Table::default(),
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
        let name = self.namer.name(&(subject, rule));
        self.rates.find(name.bits(), |rate| rate.name == name).map_or_else(Bucket::default, |rate| rate.bucket)
    }

    /// Takes one request from a meter, or says how long none is allowed; and how many meters went to make room, as at most
    /// `most` are kept.
    pub(super) fn take(&mut self, meter: MeterId, gcra: Gcra, most: usize, now: u64) -> (Result<Level, u64>, u64) {
        let name = self.namer.name(&meter);
        if let Some(bucket) = self.bucket_mut(name) {
            return (bucket.take(gcra, now), 0);
        }
        let mut bucket = Bucket::default();
        let taken = bucket.take(gcra, now);
        (taken, self.add(Rate { name, bucket }, most, now))
    }

    /// How full a meter is, which fills as this limit says from now on.
    pub(super) fn adopt(&mut self, meter: MeterId, gcra: Gcra, now: u64) -> Level {
        match self.bucket_mut(self.namer.name(&meter)) {
            Some(bucket) => {
                bucket.adopt(gcra, now);
                bucket.level(gcra, now)
            }
            None => Bucket::default().level(gcra, now),
        }
    }

    /// Replaces a meter. At most `most` are kept; returns how many went to make room.
    pub(super) fn set_bucket(&mut self, meter: MeterId, bucket: Bucket, most: usize, now: u64) -> u64 {
        let name = self.namer.name(&meter);
        if let Some(known) = self.bucket_mut(name) {
            *known = bucket;
            return 0;
        }
        self.add(Rate { name, bucket }, most, now)
    }

    fn bucket_mut(&mut self, name: RateName) -> Option<&mut Bucket> {
        Some(&mut self.rates.find_mut(name.bits(), |rate| rate.name == name)?.bucket)
    }

    fn add(&mut self, rate: Rate, most: usize, now: u64) -> u64 {
        let evicted = if self.rates.len() >= most { self.make_room_for_rate(most, now) } else { 0 };
        self.rates.insert(rate);
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
        // Memory that a flood of addresses took is given back with them, but not what ordinary ups and downs need again.
        self.rates.retain(|rate| rate.bucket.full_at() > now);
        self.quotas.retain(|_, tally| !tally.is_over(wall));
    }

    /// Hands over what was counted and not written yet.
    pub(super) fn take_unwritten(&mut self, mut take: impl FnMut(QuotaTerm, u64)) {
        for (holder, tally) in &mut self.quotas {
            tally.take_unwritten(|period, begins, count| take(QuotaTerm { holder: *holder, period, begins }, count));
        }
    }

    /// Drops what is full; where that is not enough, those that would be full again soonest.
    fn make_room_for_rate(&mut self, most: usize, now: u64) -> u64 {
        self.rates.retain(|rate| rate.bucket.full_at() > now);
        let weights = self.rates.iter().map(|rate| rate.bucket.full_at());
        let Some(mut least) = Least::of(weights, most) else { return 0 };
        self.rates.retain(|rate| !least.takes(rate.bucket.full_at()));
        least.excess
    }

    /// Drops what is over; where that is not enough, those that asked least. What of them was written is not lost: it
    /// comes back with the first count that is written after it.
    fn make_room_for_tally(&mut self, most: usize, now: Timestamp) -> u64 {
        self.quotas.retain(|_, tally| !tally.is_over(now));
        drop_least(&mut self.quotas, most, Tally::weight)
    }
}

/// The least by weight, so many that there is room for a while.
struct Least<W> {
    excess: u64,
    /// The weight of the last of them, and how many that weigh as much are among them.
    border: W,
    at_border: usize,
}

impl<W: Ord + Copy> Least<W> {
    /// A fraction of all, unless there are fewer than `most` already.
    fn of(weights: impl Iterator<Item = W>, most: usize) -> Option<Self> {
        let mut weights: Vec<W> = weights.collect();
        let excess = (weights.len().checked_sub(most)? + 1).max(weights.len() / EVICTED_FRACTION);
        let (_, border, _) = weights.select_nth_unstable(excess - 1);
        let border = *border;
        let at_border = excess - weights.iter().filter(|weight| **weight < border).count();
        Some(Self { excess: excess as u64, border, at_border })
    }

    /// Whether one with this weight is among them. To be asked once about each.
    fn takes(&mut self, weight: W) -> bool {
        match weight.cmp(&self.border) {
            Ordering::Less => true,
            Ordering::Equal if self.at_border > 0 => {
                self.at_border -= 1;
                true
            }
            Ordering::Equal | Ordering::Greater => false,
        }
    }
}

/// Drops the least by `weight`; returns how many went.
fn drop_least<K: Eq + Hash, V, W: Ord + Copy>(table: &mut HashMap<K, V>, most: usize, weight: impl Fn(&V) -> W) -> u64 {
    let Some(mut least) = Least::of(table.values().map(&weight), most) else { return 0 };
    table.retain(|_, value| !least.takes(weight(value)));
    least.excess
}
