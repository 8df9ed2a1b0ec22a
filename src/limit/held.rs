//! The parts of the meters that one request holds locked: all its limits are checked there before any is taken from.

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use super::gcra::{Bucket, Gcra};
use super::lease::{Found, Lease};
use super::meters::{Charge, Exceeded, Policy, Standing, Standings};
use super::quota::Tally;
use super::shard::Shard;
use super::sharing::MeterId;
use crate::domain::Timestamp;

/// A moment as meters reckon.
#[derive(Clone, Copy)]
pub(super) struct Reckoned {
    pub(super) ns: u64,
    pub(super) wall: Timestamp,
}

/// The locked parts of one request.
pub(super) struct Held<'m> {
    parts: SmallVec<[MutexGuard<'m, Shard>; 3]>,
    /// By charge: which of `parts` its meter lies in.
    part_of_charge: SmallVec<[usize; 3]>,
    /// Where meters are shared and can be asked: how often they were reached anew.
    epoch: Option<u32>,
}

/// What a request that is let through leaves behind.
pub(super) struct Checked {
    pub(super) standings: Standings,
    /// By charge.
    after: SmallVec<[After; 3]>,
    /// Whether a lease has nothing left, and nobody knows whether there is more.
    pub(super) is_unknown: bool,
}

/// A meter after one request was taken from it.
enum After {
    Rate(Bucket),
    Quota(Tally),
}

impl<'m> Held<'m> {
    /// Locks the parts with these numbers, by charge, each once and in the order of their numbers.
    pub(super) fn new(wanted: SmallVec<[usize; 3]>, lock: impl Fn(usize) -> MutexGuard<'m, Shard>) -> Self {
        let mut order = wanted.clone();
        order.sort_unstable();
        order.dedup();
        let place = |part: &usize| order.iter().position(|known| known == part).unwrap_or_default();
        let part_of_charge = wanted.iter().map(place).collect();
        Self { parts: order.iter().map(|part| lock(*part)).collect(), part_of_charge, epoch: None }
    }

    /// Holds requests against leases, too: those since the shared meters were reached for the `epoch`th time.
    pub(super) fn of_epoch(mut self, epoch: u32) -> Self {
        self.epoch = Some(epoch);
        self
    }

    /// What a request would leave behind that is let through.
    ///
    /// # Errors
    /// When a limit does not allow it.
    pub(super) fn check(mut self, charges: &[Charge], now: Reckoned) -> Result<(Self, Checked), Exceeded> {
        let mut checked = Checked { standings: Standings::new(), after: SmallVec::new(), is_unknown: false };
        for (charge, part) in charges.iter().zip(&self.part_of_charge) {
            let shard = &*self.parts[*part];
            match charge {
                Charge::Rate(policy, subject, rule, gcra) => {
                    let mut bucket = shard.bucket(*subject, *rule);
                    let Ok(mut level) = bucket.take(*gcra, now.ns) else { return Err(self.exceeded(charges, now)) };
                    if let Some(epoch) = self.epoch {
                        match shard.lease((*subject, *rule), epoch) {
                            None => checked.is_unknown = true,
                            Some(mut lease) => {
                                match lease.find(now.ns) {
                                    Found::Token => {}
                                    Found::Nothing => return Err(self.exceeded(charges, now)),
                                    Found::Unknown => checked.is_unknown = true,
                                }
                                lease.take(*gcra, now.ns);
                                level = lease.level(level, *gcra, now.ns);
                            }
                        }
                    }
                    checked.standings.push(Standing::of_rate(*policy, *gcra, level));
                    checked.after.push(After::Rate(bucket));
                }
                Charge::Quota(holder, quota) => {
                    let mut tally = shard.tally(*holder);
                    if tally.left(*quota, now.wall).any(|left| left.remaining == 0) {
                        return Err(self.exceeded(charges, now));
                    }
                    tally.add(*quota, now.wall);
                    let left = tally.left(*quota, now.wall);
                    checked.standings.extend(left.map(|left| Standing::of_quota(*holder, left, now.wall)));
                    checked.after.push(After::Quota(tally));
                }
            }
        }
        Ok((self, checked))
    }

    /// Lets a request through: its meters are as they were checked. Returns where its caller stands, and how many meters
    /// went to make room; each part keeps at most `most`.
    pub(super) fn leave(
        mut self,
        charges: &[Charge],
        checked: Checked,
        most: usize,
        now: Reckoned,
    ) -> (Standings, u64) {
        let mut evicted = 0;
        for ((charge, part), after) in charges.iter().zip(&self.part_of_charge).zip(checked.after) {
            let shard = &mut *self.parts[*part];
            match (charge, after) {
                (Charge::Rate(_, subject, rule, _), After::Rate(bucket)) => {
                    evicted += shard.set_bucket((*subject, *rule), bucket, most, now.ns);
                }
                (Charge::Quota(holder, _), After::Quota(tally)) => {
                    evicted += shard.set_tally(*holder, tally, most, now.wall);
                }
                (Charge::Rate(..), After::Quota(_)) | (Charge::Quota(..), After::Rate(_)) => {}
            }
        }
        (checked.standings, evicted)
    }

    /// Every rate that is charged, with its lease; one that is not there is made.
    pub(super) fn leases(
        &mut self,
        charges: &[Charge],
        most: usize,
        now: Reckoned,
        mut visit: impl FnMut(MeterId, Gcra, &mut Lease),
    ) {
        let epoch = self.epoch.unwrap_or_default();
        for (charge, part) in charges.iter().zip(&self.part_of_charge) {
            if let Charge::Rate(_, subject, rule, gcra) = charge {
                let meter = (*subject, *rule);
                visit(meter, *gcra, self.parts[*part].lease_mut(meter, *gcra, epoch, most, now.ns));
            }
        }
    }

    /// Where the caller stands when at least one limit does not allow a request.
    #[cold]
    fn exceeded(&mut self, charges: &[Charge], now: Reckoned) -> Exceeded {
        let mut standings = Standings::new();
        let mut longest = (0, Policy::Key);
        for (charge, part) in charges.iter().zip(&self.part_of_charge) {
            let shard = &mut *self.parts[*part];
            let first = standings.len();
            match charge {
                Charge::Rate(policy, subject, rule, gcra) => {
                    // Whoever is refused under a new limit waits by the new one.
                    let mut level = shard.adopt((*subject, *rule), *gcra, now.ns);
                    if let Some(lease) = self.epoch.and_then(|epoch| shard.lease((*subject, *rule), epoch)) {
                        level = lease.level(level, *gcra, now.ns);
                    }
                    standings.push(Standing::of_rate(*policy, *gcra, level));
                }
                Charge::Quota(holder, quota) => {
                    let left = shard.tally(*holder).left(*quota, now.wall);
                    standings.extend(left.map(|left| Standing::of_quota(*holder, left, now.wall)));
                }
            }
            for standing in standings[first..].iter().filter(|standing| standing.remaining == 0) {
                longest = longest.max((standing.more_in_seconds, standing.policy));
            }
        }
        let (seconds, policy) = longest;
        Exceeded { policy, retry_after_seconds: seconds.max(1), standings }
    }
}
