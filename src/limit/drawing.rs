//! Meters that a fleet shares: requests draw on leases, and one task asks for them.
//!
//! A request looks at its node's own meters, which alone are right while nobody can be asked, and at its leases. Where a
//! lease has nothing left and nobody knows whether there is more, it waits: nothing was taken, and it draws again.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::lease::{Ask, Found, Grant, Phase};
use super::meters::{Charge, Exceeded, Meters, Moment, Standings};
use super::sharing::{Awaited, MeterId, OnOutage, Reach, Sharing};
use crate::domain::Timestamp;

/// After so long without use a lease goes back, and nothing is kept of it.
const IDLE_NS: u64 = 1_000_000_000;

/// What a request does whose lease is used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// It waits for the next.
    Waits,
    /// It has waited long enough, and goes by what happens in an outage.
    Over,
    /// It never waits: its node's own meter decides, and the shared one hears of it.
    Credit,
}

/// Why a request is not let through. Nothing was taken.
#[derive(Debug)]
pub enum Withheld {
    /// A limit does not allow it.
    Exceeded(Exceeded),
    /// Nobody knows yet: draw again when [`Meters::answer`] returns.
    Awaited(Awaited),
    /// The shared meters cannot be asked, and nothing is let through then.
    Unavailable,
}

impl Meters {
    /// Takes one request from every limit, or from none, as [`Self::take`]; where a fleet shares its meters, from what
    /// they lent this node.
    ///
    /// # Errors
    /// When a limit does not allow it now, or nobody knows.
    pub fn draw(&self, charges: &[Charge], now: Moment, patience: Patience) -> Result<Standings, Withheld> {
        match self.sharing() {
            None => self.take(charges, now).map_err(Withheld::Exceeded),
            Some(sharing) => self.draw_on_leases(sharing, charges, now, patience),
        }
    }

    fn draw_on_leases(
        &self,
        sharing: &Sharing,
        charges: &[Charge],
        now: Moment,
        patience: Patience,
    ) -> Result<Standings, Withheld> {
        let is_refused = patience != Patience::Credit && sharing.terms.on_outage == OnOutage::Refuse;
        let (epoch, waits) = match sharing.reach() {
            // Quotas are counted where keys are kept.
            _ if !charges.iter().any(|charge| matches!(charge, Charge::Rate(..))) => {
                return self.take(charges, now).map_err(Withheld::Exceeded);
            }
            Reach::Up(epoch) => (epoch, patience == Patience::Waits),
            Reach::Late(epoch) => (epoch, false),
            Reach::Down if is_refused => return Err(Withheld::Unavailable),
            Reach::Down => return self.take(charges, now).map_err(Withheld::Exceeded),
        };
        let (now, most) = (self.reckoned(now), self.most());
        let held = self.lock(charges).of_epoch(epoch);
        let (mut held, checked) = held.check(charges, now).map_err(Withheld::Exceeded)?;
        if checked.is_unknown && waits {
            let (mut awaited, mut is_full) = (sharing.await_answer(), false);
            held.leases(charges, most, now, |meter, gcra, lease| {
                if lease.find(now.ns) != Found::Unknown {
                    return;
                }
                if lease.wait(gcra, now.ns) && !sharing.enqueue(meter, true) {
                    lease.unasked();
                    is_full = true;
                }
                awaited.meters.push(meter);
            });
            // With so many before it, nobody answers in time.
            if !is_full {
                return Err(Withheld::Awaited(awaited));
            }
        }
        if checked.is_unknown && is_refused {
            return Err(Withheld::Unavailable);
        }
        held.leases(charges, most, now, |meter, gcra, lease| {
            if lease.take(gcra, now.ns) && sharing.enqueue(meter, false) {
                lease.queued();
            }
        });
        let (standings, evicted) = held.leave(charges, checked, most, now);
        self.count_evicted(evicted);
        Ok(standings)
    }

    /// Returns when a request that was told to wait should draw again.
    pub async fn answer(&self, mut awaited: Awaited) {
        while self.is_asking(&awaited) && awaited.answers.changed().await.is_ok() {}
    }

    fn is_asking(&self, awaited: &Awaited) -> bool {
        let Some(Reach::Up(epoch)) = self.sharing().map(Sharing::reach) else { return false };
        let lease = |meter: &MeterId| self.part(&meter.0).lease(*meter, epoch);
        awaited.meters.iter().any(|meter| lease(meter).is_some_and(|lease| lease.phase() != Phase::Idle))
    }

    /// Notes that a request has waited as long as it may.
    pub fn waited_in_vain(&self) {
        if let Some(sharing) = self.sharing() {
            sharing.late.fetch_add(1, Relaxed);
        }
    }

    /// What is to be asked of the shared meters, at most so many. Each is asked by itself, and answered by
    /// [`Self::granted`].
    pub fn asks(&self, most: usize, now: Instant) -> Vec<(MeterId, Ask)> {
        let Some(sharing) = self.sharing() else { return Vec::new() };
        let (Reach::Up(epoch) | Reach::Late(epoch)) = sharing.reach() else { return Vec::new() };
        let now = self.reckoned(Moment { monotonic: now, wall: Timestamp::default() });
        let span_ns = sharing.span_ns();
        let asks = sharing.dequeue(most).into_iter().filter_map(|meter| {
            let mut shard = self.part(&meter.0);
            let local = shard.bucket(meter.0, meter.1);
            let lease = shard.known_lease(meter, epoch)?;
            // One that was asked for again in the meantime stands in both queues.
            match lease.phase() {
                Phase::Queued | Phase::QueuedFirst | Phase::Returning => {
                    Some((meter, lease.ask(local, span_ns, now.ns)?))
                }
                Phase::Idle | Phase::Sent => None,
            }
        });
        asks.collect()
    }

    /// Takes what a shared meter granted.
    pub fn granted(&self, meter: MeterId, ask: &Ask, grant: Grant, now: Instant) {
        let Some(sharing) = self.sharing() else { return };
        let (Reach::Up(epoch) | Reach::Late(epoch)) = sharing.reach() else { return };
        let now = self.reckoned(Moment { monotonic: now, wall: Timestamp::default() });
        if let Some(lease) = self.part(&meter.0).known_lease(meter, epoch) {
            lease.granted(ask, grant, sharing.span_ns(), now.ns);
        }
    }

    /// Asks that leases which nobody uses go back, in an eighth of the parts; `turn` says which.
    pub fn sweep_leases(&self, turn: usize, now: Instant) {
        self.give_back(turn, IDLE_NS, now);
    }

    /// Asks that all leases go back, in an eighth of the parts.
    pub fn return_leases(&self, turn: usize, now: Instant) {
        self.give_back(turn, 0, now);
    }

    fn give_back(&self, turn: usize, idle_ns: u64, now: Instant) {
        let Some(sharing) = self.sharing() else { return };
        let epoch = match sharing.reach() {
            Reach::Up(epoch) | Reach::Late(epoch) => Some(epoch),
            Reach::Down => None,
        };
        let now = self.reckoned(Moment { monotonic: now, wall: Timestamp::default() });
        for mut shard in self.parts_of_turn(turn) {
            shard.sweep_leases(epoch, idle_ns, now.ns, |meter| sharing.enqueue(meter, false));
        }
    }

    /// How many leases there are. Takes every lock in turn: for scrapes.
    pub fn leases(&self) -> usize {
        self.all_parts().map(|shard| shard.leases()).sum()
    }
}

#[cfg(test)]
#[path = "drawing_tests.rs"]
mod tests;
