//! The thread that asks for leases, for all requests of the node: as many at once as have come together meanwhile.
//!
//! It has a thread of its own because requests wait for it, and nothing that waits may stand behind work of control.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, timeout};

use super::link::Link;
use super::settings::LendingSettings;
use super::trouble::Trouble;
use crate::domain::time::monotonic_now;
use crate::limit::{Meters, Sharing};

/// Most leases that are asked for at once: a server works on them for about two milliseconds, and then on others.
const BATCH: usize = 128;
/// Between two turns of the sweep, each an eighth of the leases.
const SWEEP_TURN: Duration = Duration::from_millis(125);
/// Turns after which every lease was looked at.
const ALL_TURNS: usize = 8;
/// A server that was not asked for so long is asked whether it is there.
const PING_AFTER: Duration = Duration::from_secs(1);
/// Without an answer for so many times the patience of a request, the server is gone.
const PATIENCES: u32 = 5;
/// Between attempts to reach the server: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// After so long the next pause is a short one again.
const STEADY: Duration = Duration::from_secs(10);
/// How long leaving waits for leases to go back.
const LEAVING: Duration = Duration::from_millis(500);

/// How lending goes, for metrics.
#[derive(Debug, Default)]
pub struct LendingStatus {
    /// Whether the server can be asked.
    pub up: AtomicBool,
    /// How often it went away.
    pub outages: AtomicU64,
    /// Leases that were granted, whole or in part.
    pub granted: AtomicU64,
    /// Asks that were granted nothing, as a limit was reached.
    pub refused: AtomicU64,
    /// Asks that were not answered.
    pub failed: AtomicU64,
}

/// The running thread.
pub struct Lender {
    thread: JoinHandle<()>,
    stop: oneshot::Sender<()>,
    tried: watch::Receiver<bool>,
    status: Arc<LendingStatus>,
}

impl Lender {
    /// Begins to ask for what `meters` want, and goes on whatever happens to the server.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(settings: LendingSettings, meters: Arc<Meters>) -> std::io::Result<Self> {
        let (stop, mut told_to_stop) = oneshot::channel();
        let (has_tried, tried) = watch::channel(false);
        let status = Arc::new(LendingStatus::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().thread_name("shared-names").build()?;
        let task = Task { settings, meters, status: Arc::clone(&status), has_tried };
        let thread = std::thread::Builder::new().name("shared-limits".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let Some(sharing) = task.meters.sharing() else { return };
                while AssertUnwindSafe(task.run(sharing, &mut told_to_stop)).catch_unwind().await.is_err() {
                    tracing::error!("asking for shared limits panicked and is started again");
                    task.is_gone(sharing);
                    tokio::time::sleep(PAUSES.1).await;
                }
                task.is_gone(sharing);
            });
            // A name server that does not answer keeps nobody from leaving.
            runtime.shutdown_background();
        })?;
        Ok(Self { thread, stop, tried, status })
    }

    /// Returns when the server was reached, or was tried to be, for the first time.
    pub async fn tried(&self) {
        let mut tried = self.tried.clone();
        // It fails when the thread has ended, and then nothing more is tried.
        let _tried = tried.wait_for(|tried| *tried).await;
    }

    /// How it goes.
    pub fn status(&self) -> Arc<LendingStatus> {
        Arc::clone(&self.status)
    }

    /// Gives back what was lent, if that is quickly done, and ends the thread.
    pub fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the thread that asks for shared limits had panicked");
        }
    }
}

struct Task {
    settings: LendingSettings,
    meters: Arc<Meters>,
    status: Arc<LendingStatus>,
    has_tried: watch::Sender<bool>,
}

impl Task {
    async fn run(&self, sharing: &Sharing, stop: &mut oneshot::Receiver<()>) {
        let server = self.settings.address.place();
        let (mut pause, mut told) = (PAUSES.0, None);
        loop {
            let mut opened = pin!(timeout(self.settings.connect_timeout, Link::open(&self.settings)));
            let opened = tokio::select! {
                opened = &mut opened => opened.unwrap_or(Err(Trouble::Silence(self.settings.connect_timeout))),
                _ = &mut *stop => return,
            };
            let trouble = match opened {
                Ok(link) => {
                    tracing::info!(%server, "limits are shared");
                    sharing.begin();
                    self.status.up.store(true, Relaxed);
                    self.has_tried.send_replace(true);
                    let since = monotonic_now();
                    let Err(trouble) = self.serve(link, sharing, stop).await else { return };
                    self.is_gone(sharing);
                    self.status.outages.fetch_add(1, Relaxed);
                    told = None;
                    pause = if since.elapsed() > STEADY { PAUSES.0 } else { pause };
                    trouble
                }
                Err(trouble) => trouble,
            };
            // Once, not for each attempt; and whatever else has to be put right.
            let said = trouble.to_string();
            if told.is_none() || (!trouble.is_absence() && told.as_ref() != Some(&said)) {
                let on_outage = self.settings.on_outage.word();
                tracing::warn!(%server, error = %said, on_outage, "limits are not shared: the server cannot be asked");
                told = Some(said);
            }
            self.has_tried.send_replace(true);
            tokio::select! {
                () = tokio::time::sleep(jittered(pause)) => pause = (pause * 2).min(PAUSES.1),
                _ = &mut *stop => return,
            }
        }
    }

    fn is_gone(&self, sharing: &Sharing) {
        sharing.end();
        self.status.up.store(false, Relaxed);
    }

    /// Asks for what is wanted, until told to stop.
    ///
    /// # Errors
    /// When the server cannot be asked any more.
    async fn serve(&self, mut link: Link, sharing: &Sharing, stop: &mut oneshot::Receiver<()>) -> Result<(), Trouble> {
        let mut sweep = tokio::time::interval(SWEEP_TURN);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut turn, mut asked_at) = (0_usize, monotonic_now());
        let mut may_be_more = false;
        loop {
            tokio::select! {
                // What is wanted comes last: under a steady demand there is always more of it.
                biased;
                _ = &mut *stop => {
                    (0..ALL_TURNS).for_each(|turn| self.meters.return_leases(turn, monotonic_now()));
                    let all = async { while matches!(self.ask(&mut link, sharing).await, Ok(Some(_))) {} };
                    // Whether they arrive or not, nobody waits longer.
                    let _returned = timeout(LEAVING, all).await;
                    return Ok(());
                }
                trouble = link.broken() => return Err(trouble),
                _ = sweep.tick() => {
                    self.meters.sweep_leases(turn, monotonic_now());
                    turn = turn.wrapping_add(1);
                    if asked_at.elapsed() >= PING_AFTER {
                        self.patiently(sharing, link.ping()).await?;
                        asked_at = monotonic_now();
                    }
                }
                () = std::future::ready(()), if may_be_more => {}
                () = sharing.wanted() => {}
            }
            let asked = self.ask(&mut link, sharing).await?;
            asked_at = asked.unwrap_or(asked_at);
            may_be_more = asked.is_some();
        }
    }

    /// Asks for some of what is wanted, if anything is; when it did.
    async fn ask(&self, link: &mut Link, sharing: &Sharing) -> Result<Option<Instant>, Trouble> {
        let asks = self.meters.asks(BATCH, monotonic_now());
        if asks.is_empty() {
            return Ok(None);
        }
        let grants = self.patiently(sharing, link.lend(&asks)).await.inspect_err(|_| {
            self.status.failed.fetch_add(asks.len() as u64, Relaxed);
        })?;
        let now = monotonic_now();
        for ((meter, ask), grant) in asks.iter().zip(grants) {
            self.meters.granted(*meter, ask, grant, now);
            if ask.want > 0 {
                let count = if grant.tokens > 0 { &self.status.granted } else { &self.status.refused };
                count.fetch_add(1, Relaxed);
            }
        }
        sharing.answered();
        Ok(Some(now))
    }

    /// Waits for an answer as long as one is worth waiting for; requests wait less.
    async fn patiently<T>(
        &self,
        sharing: &Sharing,
        answer: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        let mut answer = pin!(answer);
        let patience = self.settings.timeout;
        if let Ok(answered) = timeout(patience, &mut answer).await {
            return answered;
        }
        sharing.set_late(true);
        let answered = timeout(patience * (PATIENCES - 1), &mut answer).await;
        let answered = answered.unwrap_or(Err(Trouble::Silence(patience * PATIENCES)))?;
        sharing.set_late(false);
        Ok(answered)
    }
}

/// Half of it to all of it, so that nodes which lost the server together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0; 1];
    let share = getrandom::fill(&mut byte).map_or(255, |()| u32::from(byte[0]));
    pause / 2 + pause / 2 * share / 255
}

#[cfg(test)]
#[path = "lender_tests.rs"]
mod tests;
