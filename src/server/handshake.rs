//! The gate of TLS handshakes: strangers take turns, so that clients who are in already are served between them.
//!
//! A full handshake costs a worker hundreds of microseconds, an RSA key a millisecond and more, and a request a few
//! tens. Without a gate a burst of a thousand handshakes is worked off in one go, and every request of the worker waits
//! for all of them.
//!
//! Owns whose turn it is and how many handshakes are begun; one gate a worker. Must not know certificates, nor what is
//! spoken inside TLS. Start at [`Handshakes::accept`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::domain::time::monotonic_now;
use crate::wire::Socket;

/// Less than this between two turns means that nobody else had work: looking for events costs about as much.
const NOTHING: Duration = Duration::from_micros(20);

/// The most turns in a row that handshakes which have begun get while new ones wait. An honest one needs two or three.
const MOST_IN_A_ROW: u32 = 4;

/// The most time that one turn owes to others, so that a turn during which the thread was not scheduled at all does not
/// close the gate for long.
const MOST_OWED: Duration = Duration::from_millis(10);

/// The gate of one worker.
///
/// A handshake is worked on in *turns*, one at a time and in order of arrival; one that has begun goes before one that
/// has not, but not for ever: clients that send theirs byte by byte have a turn for each. Between two turns the worker
/// looks for events and runs everything that is ready. While that is much, turns take half of the worker's time; while
/// it is nothing, all of it. So what is ready waits for one turn, however many handshakes there are.
///
/// Handshakes that wait for their turn hold a socket and nothing else. Those that have begun hold keys and buffers while
/// they wait for their clients; there is a bound on them, and beyond it the one whose client has kept it waiting longest
/// gives way. Making newcomers wait instead would let a few clients that never answer keep everybody else out.
#[derive(Default)]
pub(super) struct Handshakes {
    line: RefCell<Line>,
}

#[derive(Default)]
struct Line {
    /// Who has begun and waits for another turn, in the order of turns. They go before those of `new`, within bounds.
    begun: BTreeMap<Number, Waker>,
    /// Who waits for a first turn, in the order of turns.
    new: BTreeMap<Number, Waker>,
    /// Who waits for its client, the longest wait first.
    stalled: BTreeMap<Number, Waker>,
    turn: Turn,
    /// Turns of `begun` since the last one of `new`.
    begun_in_a_row: u32,
    last_number: Number,
    /// Wakes the pacer.
    pacer: Option<Waker>,
}

/// Grows with every place in the line.
type Number = u64;

/// Whether a handshake has had a turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    New,
    Begun,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nobody has it.
    #[default]
    Free,
    /// This one has.
    Of(Number),
    /// It is over, and took this long.
    Over(Duration),
}

/// The handshake gave way to newer ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GaveWay;

impl Handshakes {
    /// An open gate. Its pacer is a task of the current thread and lives as long as the runtime.
    pub(super) fn start() -> Rc<Self> {
        let gate = Rc::new(Self::default());
        drop(tokio::task::spawn_local(pace(Rc::clone(&gate))));
        gate
    }

    /// Shakes hands with the client behind `socket`, a turn at a time; `most` handshakes may have begun. A client that
    /// has said nothing costs no turn. Cancel safe; there is no deadline of its own.
    ///
    /// # Errors
    /// Those of the handshake, and [`io::ErrorKind::TimedOut`] when it gave way to newer ones.
    pub(super) async fn accept(
        &self,
        config: Arc<ServerConfig>,
        socket: Socket,
        most: usize,
    ) -> io::Result<TlsStream<Socket>> {
        socket.readable().await?;
        self.take_turns(most, TlsAcceptor::from(config).accept(socket)).await.unwrap_or_else(|GaveWay| {
            let reason = "it gave way to newer handshakes: its client kept it waiting, and `limits.tls_handshakes` \
                          were under way";
            Err(io::Error::new(io::ErrorKind::TimedOut, reason))
        })
    }

    /// Runs `work`, each poll of which takes a turn. It ends its turn by waiting for something.
    pub(super) async fn take_turns<F: Future>(&self, most: usize, work: F) -> Result<F::Output, GaveWay> {
        let mut work = pin!(work);
        let mut place = Place { gate: self, stand: Stand::Arriving, standing: Standing::New };
        poll_fn(|cx| place.poll(most, cx, |cx| work.as_mut().poll(cx))).await
    }
}

impl Line {
    fn next_number(&mut self) -> Number {
        self.last_number += 1;
        self.last_number
    }

    fn wake_pacer(&mut self) {
        if let Some(pacer) = self.pacer.take() {
            pacer.wake();
        }
    }

    fn waiting(&mut self, standing: Standing) -> &mut BTreeMap<Number, Waker> {
        match standing {
            Standing::New => &mut self.new,
            Standing::Begun => &mut self.begun,
        }
    }
}

/// One handshake's place in the line. Dropping it gives it up.
struct Place<'a> {
    gate: &'a Handshakes,
    stand: Stand,
    standing: Standing,
}

#[derive(Clone, Copy)]
enum Stand {
    /// In no line yet.
    Arriving,
    /// For a turn, or having it.
    Waiting(Number),
    /// For its client.
    Stalled(Number),
}

impl Place<'_> {
    fn poll<T>(
        &mut self,
        most: usize,
        cx: &mut Context<'_>,
        work: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<Result<T, GaveWay>> {
        match self.stand {
            Stand::Arriving => self.line_up(cx),
            Stand::Stalled(number) => {
                if self.gate.line.borrow_mut().stalled.remove(&number).is_none() {
                    return Poll::Ready(Err(GaveWay));
                }
                self.line_up(cx)
            }
            Stand::Waiting(number) => {
                if self.gate.line.borrow().turn != Turn::Of(number) {
                    let mut line = self.gate.line.borrow_mut();
                    if let Some(waker) = line.waiting(self.standing).get_mut(&number) {
                        waker.clone_from(cx.waker());
                    }
                    return Poll::Pending;
                }
                let begun = monotonic_now();
                let polled = work(cx);
                self.end_turn(begun.elapsed());
                if polled.is_pending() {
                    self.stall(most, cx);
                }
                polled.map(Ok)
            }
        }
    }

    fn line_up<T>(&mut self, cx: &Context<'_>) -> Poll<T> {
        let mut line = self.gate.line.borrow_mut();
        let number = line.next_number();
        line.waiting(self.standing).insert(number, cx.waker().clone());
        self.stand = Stand::Waiting(number);
        line.wake_pacer();
        Poll::Pending
    }

    fn end_turn(&mut self, took: Duration) {
        let mut line = self.gate.line.borrow_mut();
        line.turn = Turn::Over(took);
        line.wake_pacer();
        self.stand = Stand::Arriving;
    }

    /// Waits for the client. The one that has done so longest gives way where there are too many.
    fn stall(&mut self, most: usize, cx: &Context<'_>) {
        let mut line = self.gate.line.borrow_mut();
        let number = line.next_number();
        line.stalled.insert(number, cx.waker().clone());
        self.stand = Stand::Stalled(number);
        self.standing = Standing::Begun;
        while line.begun.len() + line.stalled.len() > most
            && let Some((_, oldest)) = line.stalled.pop_first()
        {
            oldest.wake();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut line = self.gate.line.borrow_mut();
        match self.stand {
            Stand::Arriving => {}
            Stand::Waiting(number) if line.turn == Turn::Of(number) => {
                line.turn = Turn::Over(Duration::ZERO);
                line.wake_pacer();
            }
            Stand::Waiting(number) => {
                line.waiting(self.standing).remove(&number);
            }
            Stand::Stalled(number) => {
                line.stalled.remove(&number);
            }
        }
    }
}

/// Gives out turns, for as long as the worker runs.
async fn pace(gate: Rc<Handshakes>) {
    loop {
        let took = poll_fn(|cx| gate.line.borrow_mut().poll_turn(cx)).await;
        let_others_work(took.min(MOST_OWED)).await;
    }
}

impl Line {
    /// Gives the turn to the next in line where it is free, and is ready with its length once it is over.
    fn poll_turn(&mut self, cx: &Context<'_>) -> Poll<Duration> {
        match self.turn {
            Turn::Over(took) => {
                self.turn = Turn::Free;
                return Poll::Ready(took);
            }
            Turn::Free => {
                let is_for_new = self.begun_in_a_row >= MOST_IN_A_ROW && !self.new.is_empty();
                let begun = if is_for_new { None } else { self.begun.pop_first() };
                self.begun_in_a_row = if begun.is_some() { self.begun_in_a_row.saturating_add(1) } else { 0 };
                if let Some((number, waker)) = begun.or_else(|| self.new.pop_first()) {
                    self.turn = Turn::Of(number);
                    waker.wake();
                }
            }
            Turn::Of(_) => {}
        }
        self.pacer = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Lets everything that is ready run, and goes on doing so until that had as much time as is `owed`, or nothing is left.
///
/// A yield comes back once the worker has looked for events and run what they made ready, because the runtime wakes
/// those who yield last. Others who yield too may come after it: only the second one in a row that took no time shows
/// that nothing is left.
async fn let_others_work(mut owed: Duration) {
    let mut left = monotonic_now();
    let mut was_idle = false;
    loop {
        tokio::task::yield_now().await;
        let now = monotonic_now();
        let others = now.duration_since(left);
        owed = owed.saturating_sub(others);
        let is_idle = others < NOTHING;
        if owed.is_zero() || is_idle && was_idle {
            return;
        }
        (left, was_idle) = (now, is_idle);
    }
}
