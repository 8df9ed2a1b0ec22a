//! What starts meters, keeps them tidy and their counts safe: the one that asks for leases where a fleet shares them, a
//! sweep, and the counts of quotas on their way to the store and back.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hashbrown::HashMap;

use crate::config::Settings;
use crate::domain::clock::deciding_now;
use crate::domain::time::monotonic_now;
use crate::domain::{QuotaTerm, Timestamp};
use crate::lending::Lender;
use crate::limit::{LimitSettings, Meters, Moment, Term};
use crate::store::{AdditionId, Outage, QuotaBook, StoreError};

/// Between two turns of the sweep, each an eighth of the meters.
const SWEEP_TURN: Duration = Duration::from_secs(1);

/// The meters, and where a fleet shares them, who asks for leases.
///
/// # Errors
/// When there can be no thread.
pub(super) fn start(settings: &Settings) -> std::io::Result<(Arc<Meters>, Option<Lender>)> {
    let meters = Meters::new(settings.rate_limits.max_meters, monotonic_now());
    match &settings.shared_limits {
        None => Ok((Arc::new(meters), None)),
        Some(shared) => {
            let meters = Arc::new(meters.shared(shared.terms()));
            let lender = Lender::start(shared.clone(), Arc::clone(&meters))?;
            Ok((meters, Some(lender)))
        }
    }
}

/// The counts of quotas on their way to the store. One task has it.
pub(super) struct QuotaCounts {
    meters: Arc<Meters>,
    book: Arc<dyn QuotaBook>,
    /// Taken from the meters, and not on the way to the store.
    pending: HashMap<QuotaTerm, u64>,
    /// On the way, and not known to be there.
    under_way: Vec<(QuotaTerm, u64)>,
    id: AdditionId,
}

impl QuotaCounts {
    pub(super) fn new(meters: Arc<Meters>, book: Arc<dyn QuotaBook>) -> Self {
        Self { meters, book, pending: HashMap::new(), under_way: Vec::new(), id: AdditionId::first() }
    }

    /// Tells the meters what the store has, before the first request.
    ///
    /// # Errors
    /// When the store cannot be read; the first [`Self::flush`] that works makes up for it.
    pub(super) async fn load(&self) -> Result<(), StoreError> {
        let counts = self.book.current_counts(deciding_now()).await?;
        self.meters.settle(&counts, moment());
        Ok(())
    }

    /// Writes what was counted since the last time, and tells the meters what each quota has used by whomever. What
    /// cannot be written is kept for the next time, as long as its day or month is not over.
    ///
    /// # Errors
    /// As any write. What was under way goes the same way again, and is counted once, whether or not it had arrived.
    pub(super) async fn flush(&mut self) -> Result<(), StoreError> {
        for (term, requests) in self.meters.take_unwritten() {
            *self.pending.entry(term).or_default() += requests;
        }
        let now = deciding_now();
        self.pending.retain(|term, _| !is_over(*term, now));
        loop {
            if self.under_way.is_empty() {
                self.under_way = std::mem::take(&mut self.pending).into_iter().collect();
            }
            if self.under_way.is_empty() {
                return Ok(());
            }
            let totals = self.book.count_requests(self.id, self.under_way.clone()).await?;
            self.id = self.id.next();
            self.under_way = Vec::new();
            // What waits for its turn is in neither.
            let pending = |term: &QuotaTerm| self.pending.get(term).copied().unwrap_or_default();
            let used = |(term, total): (QuotaTerm, u64)| (term, total.saturating_add(pending(&term)));
            let used: Vec<(QuotaTerm, u64)> = totals.into_iter().map(used).collect();
            self.meters.settle(&used, moment());
        }
    }

    /// Flushes at every interval until told to stop, and once more then. Says once when the store goes away, and when
    /// it is back.
    pub(super) async fn run(
        mut self,
        settings: Arc<ArcSwap<LimitSettings>>,
        mut stop: tokio::sync::oneshot::Receiver<()>,
    ) {
        let mut outage = Outage::of("counts of quotas");
        loop {
            let every = settings.load().quota_flush;
            let told = tokio::select! {
                () = tokio::time::sleep(every) => false,
                _ = &mut stop => true,
            };
            outage.attempt(self.flush(), told).await;
            if told {
                return;
            }
        }
    }
}

fn is_over(term: QuotaTerm, now: Timestamp) -> bool {
    now >= Term::of(term.period, term.begins).ends()
}

fn moment() -> Moment {
    Moment { monotonic: monotonic_now(), wall: deciding_now() }
}

/// Drops meters that are full again, for ever.
pub(super) async fn sweep(meters: Arc<Meters>) {
    let mut turn = 0;
    loop {
        tokio::time::sleep(SWEEP_TURN).await;
        meters.sweep(turn, moment());
        turn = turn.wrapping_add(1);
    }
}
