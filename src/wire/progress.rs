//! What a connection is doing and since when, for those who close slow ones; and the few things they can ask of it.
//!
//! Timers are not here: a thread that holds thousands of connections looks at all of them a few times a second, which
//! costs less than a timer that is moved with every read.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

use super::pace::{Floor, Pace};
use crate::framing::Fault;

/// Milliseconds since some moment, moved on by its owner; every clone shows the same.
#[derive(Debug, Clone, Default)]
pub struct CoarseClock(Rc<Cell<u64>>);

impl CoarseClock {
    /// A clock that shows zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// What it shows, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.0.get()
    }

    /// Makes it show `now_ms`.
    pub fn set_ms(&self, now_ms: u64) {
        self.0.set(now_ms);
    }
}

/// What a client connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Nothing is under way: no byte of a request has come since the last answer.
    Idle,
    /// A request head has begun and the rest of it is waited for.
    Head,
    /// A request is being answered.
    Exchange,
    /// So it is, and the next piece of its body is waited for.
    Body,
    /// HTTP is over.
    Tunnel,
    /// It is being closed.
    Closing,
}

/// How long a client may take; milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// From a head's first byte to its last.
    pub head_ms: u64,
    /// Between an answer and the next request.
    pub idle_ms: u64,
    /// Between two pieces of a body while we wait for it, and until the client takes a piece of what it is sent.
    pub stall_ms: u64,
    /// What it must move meanwhile, in either direction.
    pub floor: Floor,
}

/// So long a client may take nothing of an answer while others wait for what that keeps; milliseconds. The system says that
/// something was taken once a third of what it holds for the client was: less time would call slow links still.
pub const HELD_UP_MS: u64 = 3_000;

/// Takes one of those that wait, if there are any.
pub fn takes_one(waiting: &Cell<usize>) -> bool {
    let left = waiting.get().checked_sub(1);
    waiting.set(left.unwrap_or_default());
    left.is_some()
}

/// What [`Progress::sweep`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swept {
    /// Nothing: the client is in time.
    InTime,
    /// It asked an idle connection to close.
    IdleClosed,
    /// It asked for a refusal with this fault.
    Refused(Fault),
    /// It asked for the connection to be dropped, as the client takes nothing.
    Dropped,
}

/// What others want of the connection at its next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Nothing,
    /// End with a refusal.
    Refuse(Fault),
    /// End without a word, if nothing is under way.
    CloseIdle,
    /// Fail every read and write.
    Drop,
}

/// What one client connection is doing, shared between its task and the sweeper of its thread.
///
/// Everything is a cell: reading it costs a load, and none of it may leave the thread.
#[derive(Debug)]
pub struct Progress {
    clock: CoarseClock,
    phase: Cell<Phase>,
    since_ms: Cell<u64>,
    write_blocked_since: Cell<Option<u64>>,
    /// How many wait for what it keeps until the client takes its answer.
    kept_from: RefCell<Option<Rc<Cell<usize>>>>,
    /// How fast it gives us bodies.
    giving: Pace,
    /// How fast it takes what it is sent.
    taking: Pace,
    wish: Cell<Wish>,
    waker: RefCell<Option<Waker>>,
    /// Another task that waits for the body of a request.
    reader: RefCell<Option<Waker>>,
}

impl Progress {
    /// A connection on which nothing has happened; `clock` is its thread's.
    pub fn new(clock: CoarseClock) -> Self {
        let since_ms = Cell::new(clock.now_ms());
        Self {
            clock,
            phase: Cell::new(Phase::Idle),
            since_ms,
            write_blocked_since: Cell::new(None),
            kept_from: RefCell::new(None),
            giving: Pace::default(),
            taking: Pace::default(),
            wish: Cell::new(Wish::Nothing),
            waker: RefCell::new(None),
            reader: RefCell::new(None),
        }
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Since when.
    pub fn since_ms(&self) -> u64 {
        self.since_ms.get()
    }

    /// Since when the client has taken nothing of what it is sent; none while it does.
    pub fn write_blocked_since(&self) -> Option<u64> {
        self.write_blocked_since.get()
    }

    /// Notes what it is doing from now on; nothing changes when it is doing that already.
    #[inline]
    pub fn enter(&self, phase: Phase) {
        let before = self.phase.get();
        if before != phase {
            let now = self.clock.now_ms();
            if before == Phase::Body {
                self.giving.moved(now.saturating_sub(self.since_ms.get()), 0);
            }
            self.phase.set(phase);
            self.since_ms.set(now);
        }
    }

    /// Notes that a head began at this moment, on its clock: its first bytes were read before anybody kept this.
    pub fn head_began(&self, at_ms: u64) {
        self.phase.set(Phase::Head);
        self.since_ms.set(at_ms);
    }

    /// Notes that another request begins: its body, and its answer, have a pace of their own.
    #[inline]
    pub fn begin_exchange(&self) {
        self.giving.begin();
        self.taking.begin();
    }

    /// How fast the client gives us the body of its request.
    #[inline]
    pub fn giving(&self) -> &Pace {
        &self.giving
    }

    /// How fast it takes the answer.
    pub fn taking(&self) -> &Pace {
        &self.taking
    }

    /// Remembers the task that serves the connection, which every wish wakes. To be called whenever it is polled.
    #[inline]
    pub fn served_by(&self, cx: &Context<'_>) {
        let mut slot = self.waker.borrow_mut();
        match &mut *slot {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *slot = Some(cx.waker().clone()),
        }
    }

    /// Remembers the task that waits for the body of a request, where that is another: every wish wakes it too.
    pub fn read_by(&self, cx: &Context<'_>) {
        if self.waker.borrow().as_ref().is_some_and(|served| served.will_wake(cx.waker())) {
            return;
        }
        let mut slot = self.reader.borrow_mut();
        match &mut *slot {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *slot = Some(cx.waker().clone()),
        }
    }

    /// Ends the connection with `fault`: between requests by a refusal, within a body by an error to its reader.
    pub fn request_close(&self, fault: Fault) {
        self.wish(Wish::Refuse(fault));
    }

    /// Ends the connection without a word if no request is under way; otherwise nothing happens.
    pub fn close_idle(&self) {
        if self.phase.get() == Phase::Idle {
            self.wish(Wish::CloseIdle);
        }
    }

    /// Makes every read and write fail from now on.
    pub fn drop_connection(&self) {
        self.wish(Wish::Drop);
    }

    /// Whether every read and write is to fail.
    #[inline]
    pub fn is_dropped(&self) -> bool {
        self.wish.get() == Wish::Drop
    }

    /// Takes the wish to end with a refusal, if there is one.
    #[inline]
    pub fn take_refusal(&self) -> Option<Fault> {
        match self.wish.get() {
            Wish::Refuse(fault) => {
                self.wish.set(Wish::Nothing);
                Some(fault)
            }
            Wish::Nothing | Wish::CloseIdle | Wish::Drop => None,
        }
    }

    /// Takes the wish to close an idle connection, if there is one; whether it still is idle is for the caller to see.
    #[inline]
    pub fn take_close_idle(&self) -> bool {
        let is_wished = self.wish.get() == Wish::CloseIdle;
        if is_wished {
            self.wish.set(Wish::Nothing);
        }
        is_wished
    }

    /// Notes that the client took so many bytes of what it is sent.
    #[inline]
    pub fn note_written(&self, bytes: usize) {
        let since = self.write_blocked_since.take();
        let waited = since.map_or(0, |since| self.clock.now_ms().saturating_sub(since));
        self.taking.moved(waited, bytes as u64);
    }

    /// Notes that it takes nothing.
    pub fn note_write_blocked(&self) {
        if self.write_blocked_since.get().is_none() {
            self.write_blocked_since.set(Some(self.clock.now_ms()));
        }
    }

    /// Notes that something is kept until the client takes its answer, and how many wait for that; none: nothing is.
    ///
    /// A client that lets so many wait is given up once it has taken nothing for [`HELD_UP_MS`], one for each of them, each
    /// time that somebody counts.
    pub fn keep_from(&self, waiting: Option<Rc<Cell<usize>>>) {
        *self.kept_from.borrow_mut() = waiting;
    }

    /// Whether somebody waits for what it keeps; that one is seen to now.
    fn lets_go(&self) -> bool {
        self.kept_from.borrow().as_deref().is_some_and(takes_one)
    }

    /// Compares what the client is doing with what it may take, and ends the connection when it takes longer.
    ///
    /// Never cuts an exchange: how long an answer may take is not the client's fault. Costs a few loads.
    pub fn sweep(&self, now_ms: u64, patience: &Patience) -> Swept {
        if self.wish.get() == Wish::Drop {
            return Swept::InTime;
        }
        // Whatever else is wished: a client that takes nothing may never let it be seen.
        if let Some(since) = self.write_blocked_since.get() {
            let blocked = now_ms.saturating_sub(since);
            let is_late = blocked > patience.stall_ms || self.taking.is_below(&patience.floor, blocked);
            if is_late || blocked > HELD_UP_MS && self.lets_go() {
                self.drop_connection();
                return Swept::Dropped;
            }
        }
        if self.wish.get() != Wish::Nothing {
            return Swept::InTime;
        }
        let waited = now_ms.saturating_sub(self.since_ms.get());
        match self.phase.get() {
            Phase::Head if waited > patience.head_ms => {
                self.request_close(Fault::HeadTimeout);
                Swept::Refused(Fault::HeadTimeout)
            }
            Phase::Body if waited > patience.stall_ms || self.giving.is_below(&patience.floor, waited) => {
                self.request_close(Fault::BodyTimeout);
                Swept::Refused(Fault::BodyTimeout)
            }
            Phase::Idle if waited > patience.idle_ms => {
                self.close_idle();
                Swept::IdleClosed
            }
            Phase::Head | Phase::Body | Phase::Idle | Phase::Exchange | Phase::Tunnel | Phase::Closing => Swept::InTime,
        }
    }

    fn wish(&self, wish: Wish) {
        self.wish.set(wish);
        // Taken out first: a waker may run code that comes back here.
        let wakers = [self.waker.borrow_mut().take(), self.reader.borrow_mut().take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}
