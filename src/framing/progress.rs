//! What a connection is doing and since when, for those who close slow ones; and the few things they can ask of it.
//!
//! Timers are not here: a thread that holds thousands of connections looks at all of them a few times a second, which
//! costs less than a timer that is moved with every read.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

use super::fault::Fault;

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
    /// A request body is arriving.
    Body,
    /// A request is whole and its answer is not.
    Exchange,
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

/// What was decided about an upgrade request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upgrade {
    NotAsked,
    Undecided,
    Tunnel,
    Declined,
}

/// What others want of the guard at its next turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing.
    Nothing,
    /// End with a refusal.
    Refuse(Fault),
    /// End without a word, if nothing is under way.
    CloseIdle,
    /// Fail every read and write.
    Drop,
}

/// What one client connection is doing, shared between its guard, its service and the sweeper of its thread.
///
/// Everything is a cell: reading it costs a load, and none of it may leave the thread.
#[derive(Debug)]
pub struct Progress {
    clock: CoarseClock,
    phase: Cell<Phase>,
    since_ms: Cell<u64>,
    is_starved: Cell<bool>,
    write_blocked_since: Cell<Option<u64>>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    requests: Cell<u64>,
    answers: Cell<u64>,
    fault: Cell<Option<Fault>>,
    upgrade: Cell<Upgrade>,
    wish: Cell<Wish>,
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

impl Progress {
    pub(super) fn new(clock: CoarseClock) -> Self {
        let since_ms = Cell::new(clock.now_ms());
        Self {
            clock,
            phase: Cell::new(Phase::Idle),
            since_ms,
            is_starved: Cell::new(false),
            write_blocked_since: Cell::new(None),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            requests: Cell::new(0),
            answers: Cell::new(0),
            fault: Cell::new(None),
            upgrade: Cell::new(Upgrade::NotAsked),
            wish: Cell::new(Wish::Nothing),
            reader: RefCell::new(None),
            writer: RefCell::new(None),
        }
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Since when: the moment the phase began; in [`Phase::Body`], the moment the wait for the next piece began.
    pub fn since_ms(&self) -> u64 {
        self.since_ms.get()
    }

    /// Whether the last read found nothing, so that any delay is the client's.
    pub fn is_starved(&self) -> bool {
        self.is_starved.get()
    }

    /// Since when the client has taken nothing of what it is sent; none while it does.
    pub fn write_blocked_since(&self) -> Option<u64> {
        self.write_blocked_since.get()
    }

    /// Bytes read from the client, after TLS.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.get()
    }

    /// Bytes written to the client, before TLS.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.get()
    }

    /// How many requests have passed the guard, the refused one not counted.
    pub fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// What ended the connection early; none while nothing did.
    pub fn fault(&self) -> Option<Fault> {
        self.fault.get()
    }

    /// Says that one answer is complete: its body ended or was given up. Call it once for every request.
    ///
    /// Without it the connection counts as busy for ever, and is never closed for idleness. An upgrade that is still
    /// undecided is declined by it.
    pub fn answer_ended(&self) {
        self.resume();
        self.answers.set((self.answers.get() + 1).min(self.requests.get()));
        if self.phase.get() == Phase::Exchange && !self.is_answering() {
            self.enter(Phase::Idle);
        }
    }

    /// Ends the connection with `fault`: between requests by a refusal, within a body by an error to its reader.
    ///
    /// Answers that are under way go out first.
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

    /// Whether the request being answered asks for an upgrade and nothing was decided about it.
    ///
    /// Until [`Progress::step_aside`] or [`Progress::resume`] no further byte passes: what the client has already sent
    /// is either its next request or the beginning of a tunnel (RFC 9110 §7.8).
    pub fn awaits_upgrade(&self) -> bool {
        // It is always the last that passed; answers to requests before it must not decide about it.
        self.upgrade.get() == Upgrade::Undecided && self.requests.get() == self.answers.get() + 1
    }

    /// Turns the guard into a plain stream, the upgrade being accepted with a 101 whose protocol was verified.
    ///
    /// False, and without effect, when no upgrade is awaited: such a request had a body, or was no handshake, and must
    /// not become a tunnel. Bytes that hyper has read by then are in its `Parts::read_buf`.
    #[must_use]
    pub fn step_aside(&self) -> bool {
        self.decide(Upgrade::Tunnel)
    }

    /// Goes on reading requests, the upgrade being declined. Without effect when none is awaited.
    pub fn resume(&self) {
        self.decide(Upgrade::Declined);
    }

    /// Compares what the client is doing with what it may take, and ends the connection when it takes longer.
    ///
    /// Never cuts an exchange: how long an answer may take is not the client's fault. Costs a few loads.
    pub fn sweep(&self, now_ms: u64, patience: &Patience) -> Swept {
        if self.wish.get() != Wish::Nothing {
            return Swept::InTime;
        }
        if self.write_blocked_since.get().is_some_and(|since| now_ms.saturating_sub(since) > patience.stall_ms) {
            self.drop_connection();
            return Swept::Dropped;
        }
        let waited = now_ms.saturating_sub(self.since_ms.get());
        match self.phase.get() {
            Phase::Head if waited > patience.head_ms => {
                self.request_close(Fault::HeadTimeout);
                Swept::Refused(Fault::HeadTimeout)
            }
            Phase::Body if self.is_starved.get() && waited > patience.stall_ms => {
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

    fn decide(&self, upgrade: Upgrade) -> bool {
        let is_awaited = self.awaits_upgrade();
        if is_awaited {
            self.upgrade.set(upgrade);
            wake(&self.reader);
        }
        is_awaited
    }

    fn wish(&self, wish: Wish) {
        self.wish.set(wish);
        wake(&self.reader);
        wake(&self.writer);
    }

    fn is_answering(&self) -> bool {
        self.answers.get() < self.requests.get()
    }

    fn enter(&self, phase: Phase) {
        if self.phase.get() != phase {
            self.phase.set(phase);
            self.since_ms.set(self.clock.now_ms());
        }
    }
}

/// What the guard alone may say.
impl Progress {
    pub(super) fn take_wish(&self) -> Wish {
        let wish = self.wish.get();
        if wish != Wish::Nothing && wish != Wish::Drop {
            self.wish.set(Wish::Nothing);
        }
        wish
    }

    pub(super) fn is_dropped(&self) -> bool {
        self.wish.get() == Wish::Drop
    }

    pub(super) fn await_upgrade(&self) {
        self.upgrade.set(Upgrade::Undecided);
    }

    /// What was decided: some(true) for a tunnel, none while nothing is.
    pub(super) fn upgrade_decision(&self) -> Option<bool> {
        match self.upgrade.get() {
            Upgrade::NotAsked | Upgrade::Declined => Some(false),
            Upgrade::Undecided => None,
            Upgrade::Tunnel => Some(true),
        }
    }

    pub(super) fn note_fault(&self, fault: Fault) {
        if self.fault.get().is_none() {
            self.fault.set(Some(fault));
        }
    }

    /// Bytes came.
    pub(super) fn note_read(&self, len: usize) {
        self.bytes_in.set(self.bytes_in.get() + len as u64);
        self.is_starved.set(false);
    }

    /// The bytes that came were looked at.
    pub(super) fn note_scanned(&self, requests: u64, is_in_body: bool) {
        let has_passed_heads = self.requests.replace(requests) != requests;
        if is_in_body {
            self.enter(Phase::Body);
        } else if self.phase.get() == Phase::Head && !has_passed_heads {
            // Another drop of the same head; its time goes on.
        } else if self.is_answering() {
            self.enter(Phase::Exchange);
        } else {
            self.enter(Phase::Idle);
        }
    }

    pub(super) fn note_tunnel(&self) {
        self.enter(Phase::Tunnel);
    }

    pub(super) fn note_closing(&self) {
        self.enter(Phase::Closing);
    }

    /// More bytes are needed and there are none; `is_in_head` when a head has begun.
    pub(super) fn note_starved(&self, is_in_head: bool, cx: &Context<'_>) {
        if is_in_head {
            self.enter(Phase::Head);
        }
        if !self.is_starved.replace(true) && self.phase.get() == Phase::Body {
            self.since_ms.set(self.clock.now_ms());
        }
        remember(&self.reader, cx);
    }

    /// Nothing is read although bytes may be there.
    pub(super) fn note_paused(&self, cx: &Context<'_>) {
        remember(&self.reader, cx);
    }

    pub(super) fn note_written(&self, len: usize) {
        self.bytes_out.set(self.bytes_out.get() + len as u64);
        self.write_blocked_since.set(None);
    }

    pub(super) fn note_write_blocked(&self, cx: &Context<'_>) {
        if self.write_blocked_since.get().is_none() {
            self.write_blocked_since.set(Some(self.clock.now_ms()));
        }
        remember(&self.writer, cx);
    }
}

fn remember(slot: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let mut slot = slot.borrow_mut();
    match &mut *slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

fn wake(slot: &RefCell<Option<Waker>>) {
    // Taken out first: a waker may run code that comes back here.
    let waker = slot.borrow_mut().take();
    if let Some(waker) = waker {
        waker.wake();
    }
}
