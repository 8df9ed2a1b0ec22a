//! The way between a gateway and the store: it delays, loses, breaks off, and is cut in one direction or in both.

use std::future::pending;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::dice::Dice;
use super::fleet::Fleet;
use super::trace::{Call, Event, Way, now_ms};
use crate::domain::{NodeId, Revision, StoreHead, Timestamp};
use crate::store::{Answer, ChangeFeed, Changes, LoadBatch, Node, NodeBook, NodeReport, Roll, StoreError};

/// How long a call may take before it fails, in milliseconds: as with PostgreSQL.
pub(super) const PATIENCE: u64 = 5_000;
/// Longest pause of the sync task after a failure, in milliseconds.
const LONGEST_PAUSE: u64 = 1_000;
/// What may be lost to rounding up to whole milliseconds.
const ROUNDING: u64 = 15;
/// Longest time until a connection that hears of commits is there again.
const HEARING_AGAIN: u64 = 10_000;

/// See the module.
pub(super) struct Link {
    gateway: usize,
    fleet: Weak<Fleet>,
    poll: u64,
    /// The usual time of one direction in milliseconds, and what may be added to it.
    one_way: u64,
    jitter: u64,
    state: Mutex<State>,
    /// The newest revision that was told.
    told: watch::Sender<Revision>,
}

struct State {
    way: Way,
    /// Whether the process is gone: nothing it asked goes on.
    is_gone: bool,
    /// Counts what ends every connection.
    cuts: u64,
    /// From then on notifications are heard; never, where it does not listen.
    hears_from: u64,
    /// Until then something that went wrong may be felt.
    trouble_until: u64,
    stands_at: Revision,
    /// A revision that was told and that the store did not have.
    doubted: Option<Revision>,
    feed: Dice,
    book: Dice,
    writes: Dice,
    delays: Dice,
    notifications: Dice,
}

/// What becomes of one call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    LostThere,
    LostBack,
    BreaksOff,
}

impl Link {
    pub(super) fn new(fleet: &Arc<Fleet>, gateway: usize, life: u64, listens: bool) -> Arc<Self> {
        let dice = |of: u64| Dice::of(fleet.plan.seed, 1_000 + (gateway as u64) * 1_000 + life * 10 + of);
        let mut own = dice(0);
        // One in ten is far away.
        let one_way = if own.once_in(10) { own.between(5, 12) } else { own.between(0, 2) };
        let poll = u64::try_from(fleet.plan.poll.as_millis()).unwrap();
        let now = now_ms();
        let state = State {
            way: Way::Open,
            is_gone: false,
            cuts: 0,
            hears_from: if listens { now + own.between(10, 300) } else { u64::MAX },
            trouble_until: now + PATIENCE + LONGEST_PAUSE + poll,
            stands_at: Revision::ZERO,
            doubted: None,
            feed: dice(1),
            book: dice(2),
            writes: dice(3),
            delays: dice(5),
            notifications: dice(4),
        };
        let told = watch::Sender::new(Revision::ZERO);
        let jitter = 1 + one_way;
        Arc::new(Self { gateway, fleet: Arc::downgrade(fleet), poll, one_way, jitter, state: Mutex::new(state), told })
    }

    /// What one direction takes at most.
    const fn slowest(&self) -> u64 {
        self.one_way + self.jitter
    }

    /// A gateway that hears of a commit enforces it within so many milliseconds: what it had asked before is answered, then
    /// it asks twice; or it loads everything, which takes another round.
    pub(super) const fn bound_when_told(&self) -> u64 {
        7 * self.slowest() + ROUNDING
    }

    /// The same when nobody tells it.
    pub(super) const fn bound_when_polling(&self) -> u64 {
        self.poll + self.bound_when_told()
    }

    /// Since when nothing that went wrong is felt any more; none while something is.
    pub(super) fn untroubled_since(&self) -> Option<u64> {
        let state = self.state.lock();
        (state.way == Way::Open && state.trouble_until <= now_ms()).then_some(state.trouble_until)
    }

    pub(super) fn way(&self) -> Way {
        self.state.lock().way
    }

    /// From now on the way is like this; connections end.
    pub(super) fn turn(&self, way: Way) {
        let mut state = self.state.lock();
        state.way = way;
        state.cuts += 1;
        let now = now_ms();
        state.trouble_until = now + PATIENCE + LONGEST_PAUSE + self.poll + self.bound_when_told();
        if state.hears_from != u64::MAX {
            state.hears_from = now + state.notifications.between(200, HEARING_AGAIN);
            self.told.send_replace(Revision::ZERO);
        }
        drop(state);
        self.note(Event::Way(way));
    }

    /// The process is gone.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        (state.is_gone, state.cuts) = (true, state.cuts + 1);
    }

    /// Somebody has committed this: whether the gateway hears of it, and after how long.
    pub(super) fn tell(self: &Arc<Self>, revision: Revision) {
        let mut state = self.state.lock();
        let (number, now) = (revision.number(), now_ms());
        if state.hears_from > now || state.is_gone {
            return;
        }
        if state.way != Way::Open || state.notifications.once_in(200) {
            drop(state);
            return self.note(Event::IsNotTold(number));
        }
        let after = self.one_way + state.notifications.between(0, self.jitter);
        let (cuts, link) = (state.cuts, Arc::clone(self));
        drop(state);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            if link.state.lock().cuts == cuts {
                link.note(Event::IsTold(number));
                link.hear(revision);
                if let Some(fleet) = link.fleet.upgrade() {
                    fleet.witness.lock().is_told(link.gateway, revision);
                }
            }
        });
    }

    /// This gateway has committed it itself.
    pub(super) fn hear(&self, revision: Revision) {
        self.told.send_if_modified(|told| {
            let is_newer = revision > *told;
            *told = revision.max(*told);
            is_newer
        });
    }

    /// As with PostgreSQL: what was told beyond what the store has is taken back when the store says so twice.
    fn correct(&self, newest: Revision) {
        let told = *self.told.borrow();
        let mut state = self.state.lock();
        if told <= newest {
            state.doubted = None;
        } else if state.doubted.replace(told) == Some(told) {
            state.doubted = None;
            self.told.send_replace(newest);
        }
    }

    fn note(&self, event: Event) {
        if let Some(fleet) = self.fleet.upgrade() {
            fleet.trace.note(Some(self.gateway), event);
        }
    }

    /// One call: `far` is done at the store, if it arrives there.
    pub(super) async fn call<T>(
        &self,
        call: Call,
        far: impl FnOnce(&Arc<Fleet>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let began = now_ms();
        let (there, back, late, fate, cuts) = self.draw(call, began);
        self.pass(there).await;
        let is_cut = |link: &Self| link.state.lock().cuts != cuts;
        match (self.way(), fate) {
            (Way::Refusing, _) => return self.fail(call),
            (Way::Open | Way::Slow, _) if is_cut(self) => return self.fail(call),
            (Way::Silent, _) | (_, Fate::LostThere) => return self.lose(call, began).await,
            (Way::Open | Way::Slow | Way::Deaf, _) => {}
        }
        let answer = match self.fleet.upgrade() {
            Some(fleet) => far(&fleet),
            None => pending().await,
        };
        let longer = if self.way() == Way::Slow { self.state.lock().delays.between(500, 3_000) } else { 0 };
        self.pass(back + late + longer).await;
        match (self.way(), fate) {
            (Way::Refusing, _) | (_, Fate::BreaksOff) => self.fail(call),
            (Way::Open | Way::Slow, _) if is_cut(self) => self.fail(call),
            (Way::Silent | Way::Deaf, _) | (_, Fate::LostThere | Fate::LostBack) => self.lose(call, began).await,
            (Way::Open | Way::Slow, Fate::Arrives) => answer,
        }
    }

    fn draw(&self, call: Call, now: u64) -> (u64, u64, u64, Fate, u64) {
        let mut state = self.state.lock();
        let cuts = state.cuts;
        let (dice, is_feed) = match call {
            Call::Head | Call::Changes | Call::Load => (&mut state.feed, true),
            Call::Report | Call::Tidy | Call::Strike => (&mut state.book, false),
            Call::Nodes | Call::Write => (&mut state.writes, false),
        };
        let (there, back) = (dice.between(0, self.jitter), dice.between(0, self.jitter));
        let late = if dice.once_in(500) { dice.between(50, 1_500) } else { 0 };
        let fate = match dice.between(0, 5_999) {
            0 => Fate::LostThere,
            1 => Fate::LostBack,
            2..5 => Fate::BreaksOff,
            _ => Fate::Arrives,
        };
        let (there, back) = (self.one_way + there, self.one_way + back);
        let felt = match fate {
            Fate::Arrives if late == 0 => None,
            Fate::Arrives => Some(late),
            Fate::BreaksOff => Some(late + LONGEST_PAUSE),
            Fate::LostThere | Fate::LostBack => Some(PATIENCE + LONGEST_PAUSE),
        };
        if let Some(felt) = felt.filter(|_| is_feed) {
            let until = now + felt + self.bound_when_polling();
            state.trouble_until = state.trouble_until.max(until);
        }
        drop(state);
        if late > 0 {
            self.note(Event::IsLate(call, late));
        }
        (there, back, late, fate, cuts)
    }

    /// Time passes on the way; for ever, when the process ends meanwhile.
    async fn pass(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        if self.state.lock().is_gone {
            pending().await
        }
    }

    fn fail<T>(&self, call: Call) -> Result<T, StoreError> {
        self.note(Event::Fails(call));
        Err(StoreError::Unavailable { doing: format!("{call:?}"), source: "the connection is cut".into() })
    }

    /// Nothing comes back, until the patience is over.
    async fn lose<T>(&self, call: Call, began: u64) -> Result<T, StoreError> {
        self.pass((began + PATIENCE).saturating_sub(now_ms())).await;
        self.fail(call)
    }

    fn book<T: Send + 'static>(
        &self,
        call: Call,
        far: impl FnOnce(&Arc<Fleet>) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'_, T> {
        Box::pin(self.call(call, far))
    }
}

/// What a memory store answers.
pub(super) fn at_once<T>(answer: Answer<'_, T>) -> Result<T, StoreError> {
    answer.now_or_never().expect("a memory store answers at once")
}

impl ChangeFeed for Link {
    fn head(&self) -> Answer<'_, StoreHead> {
        Box::pin(async {
            let head = self.call(Call::Head, |fleet| at_once(fleet.primary.store().feed().head())).await?;
            self.note(Event::Hears(head.revision.number()));
            self.correct(head.revision);
            Ok(head)
        })
    }

    fn load_all<'a>(&'a self, sink: &'a mut (dyn FnMut(LoadBatch) + Send)) -> Answer<'a, StoreHead> {
        Box::pin(async move {
            let load = self.call(Call::Load, |fleet| {
                let mut batches = Vec::new();
                let head = at_once(fleet.primary.store().feed().load_all(&mut |batch| batches.push(batch)))?;
                Ok((batches, head))
            });
            let (batches, head) = load.await?;
            let cuts = self.state.lock().cuts;
            for batch in batches {
                if self.state.lock().cuts != cuts {
                    return self.fail(Call::Load);
                }
                sink(batch);
                self.pass(1).await;
            }
            Ok(head)
        })
    }

    fn changes_since(&self, since: StoreHead) -> Answer<'_, Changes> {
        Box::pin(self.call(Call::Changes, move |fleet| at_once(fleet.primary.store().feed().changes_since(since))))
    }

    fn wait_for_change(&self, seen: StoreHead, patience: Duration) -> Answer<'_, ()> {
        // Whatever it had to apply is applied.
        let before = std::mem::replace(&mut self.state.lock().stands_at, seen.revision);
        if before != seen.revision {
            self.note(Event::StandsAt(seen.revision.number()));
        }
        if let Some(fleet) = self.fleet.upgrade() {
            fleet.look_at(self.gateway);
        }
        Box::pin(async move {
            let mut told = self.told.subscribe();
            drop(tokio::time::timeout(patience, told.wait_for(|told| *told > seen.revision)).await);
            if self.state.lock().is_gone {
                pending().await
            }
            Ok(())
        })
    }
}

/// The store's clock is not that of the gateways.
const CLOCK_AHEAD: Duration = Duration::from_secs(4_321);

fn by_its_clock(mut roll: Roll) -> Roll {
    roll.now = roll.now.plus(CLOCK_AHEAD);
    for Node { seen, .. } in &mut roll.nodes {
        *seen = seen.plus(CLOCK_AHEAD);
    }
    roll
}

impl NodeBook for Link {
    fn report_node(&self, report: NodeReport) -> Answer<'_, ()> {
        let gateway = self.gateway;
        self.book(Call::Report, move |fleet| {
            let applied = report.applied;
            at_once(fleet.primary.store().nodes().report_node(report))?;
            fleet.trace.note(Some(gateway), Event::Acknowledges(applied.map(|head| head.revision.number())));
            fleet.hold_to_its_word(gateway, applied);
            Ok(())
        })
    }

    fn strike_node(&self, id: NodeId) -> Answer<'_, bool> {
        self.book(Call::Strike, move |fleet| at_once(fleet.primary.store().nodes().strike_node(id)))
    }

    fn list_nodes(&self) -> Answer<'_, Roll> {
        self.book(Call::Nodes, |fleet| at_once(fleet.primary.store().nodes().list_nodes()).map(by_its_clock))
    }

    fn committed_by(&self, revision: Revision) -> Answer<'_, Option<Timestamp>> {
        self.book(Call::Nodes, move |fleet| {
            let by = at_once(fleet.primary.store().nodes().committed_by(revision))?;
            Ok(by.map(|by| by.plus(CLOCK_AHEAD)))
        })
    }

    fn tidy_nodes(&self) -> Answer<'_, u64> {
        self.book(Call::Tidy, |fleet| at_once(fleet.primary.store().nodes().tidy_nodes()))
    }
}
