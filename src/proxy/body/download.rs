//! Answer bodies on their way down, from either HTTP.

use std::cell::Cell;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming};

use super::lent::Lender;
use super::rest::{Rest, Way};
use super::sending::Sending;
use super::{BodyError, BodyPatience, as_ms, next_recheck};
use crate::proxy::asked::trailers_of;
use crate::proxy::observed::Exchange;
use crate::proxy::pool::Lease;
use crate::proxy::timer::{Timer, Timers};
use crate::proxy::tripwire::Tripwire;
use crate::proxy::watch::KeyWatch;
use crate::reply::Failure;
use crate::wire::{ClientWire, HELD_UP_MS, MemorySum, Pace, takes_one};

/// An answer body that streams.
pub(crate) struct Download {
    /// Over HTTP/2: what streams, and what of it is at hand. None once it was given up.
    incoming: Option<H2Incoming>,
    /// The connection it comes over; over HTTP/1 it is also where it is read from. None once it is over or given up.
    lease: Option<Lease>,
    /// What is left of the request.
    sending: Option<Sending>,
    /// The same over HTTP/2, where a task of the connection sends it.
    lender: Option<Lender>,
    /// The task that sends it, where this does not.
    sending_task: Option<tokio::task::AbortHandle>,
    /// What is left of the request although the answer is over.
    rest: Option<Box<Rest>>,
    /// Whether it goes out over HTTP/2, where what is left of the request is sent by tasks.
    is_watched: bool,
    asked_ms: u64,
    /// How fast it is asked for, over HTTP/2; over HTTP/1 the connection knows.
    taking: Pace,
    /// Where what it hands to HTTP/2 counts.
    memory: Option<MemorySum>,
    /// Whether the request had been taken whole when the answer began. Otherwise the upstream may not have read it
    /// all, and the next request would wait behind the rest.
    was_sent_whole: bool,
    bytes: u64,
    /// How much of what is at hand was counted.
    counted: usize,
    idle: Option<Timer>,
    idle_after: Duration,
    waiting_since_ms: Option<u64>,
    recheck: Option<KeyWatch>,
    next_recheck_ms: u64,
    finish: Option<Exchange>,
    timers: Rc<Timers>,
    trailers: Option<HeaderMap>,
    /// Whether anyone has asked for data.
    was_asked: bool,
    state: State,
}

/// How far an answer is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Data may follow.
    Running,
    /// Nothing follows, save trailers.
    Over,
    /// It was given up: whoever asks for more gets an error.
    Broken,
}

/// What streams from an HTTP/2 upstream.
struct H2Incoming {
    incoming: Incoming,
    at_hand: Bytes,
}

/// What an answer body that streams is made of.
pub(crate) struct DownloadParts {
    /// What streams over HTTP/2; over HTTP/1 the lease is read.
    pub(crate) incoming: Option<Incoming>,
    /// The connection; kept until the last byte, then given back.
    pub(crate) lease: Lease,
    /// What is left of the request.
    pub(crate) sending: Option<Sending>,
    /// The request's body, over HTTP/2.
    pub(crate) lender: Option<Lender>,
    /// Whether nothing is.
    pub(crate) was_sent_whole: bool,
    /// The clock, and where a timer is made once one is needed.
    pub(crate) timers: Rc<Timers>,
    /// Longest silence of the upstream.
    pub(crate) idle_after: Duration,
    /// Whether the key still holds.
    pub(crate) recheck: Option<KeyWatch>,
    /// Told when it is over.
    pub(crate) finish: Option<Exchange>,
    /// Whether it goes out over HTTP/2.
    pub(crate) is_watched: bool,
}

impl Download {
    /// Streams an answer.
    pub(crate) fn new(parts: DownloadParts) -> Self {
        let DownloadParts { incoming, lease, sending, lender, was_sent_whole, timers, idle_after, .. } = parts;
        let DownloadParts { recheck, finish, is_watched, .. } = parts;
        let next_recheck_ms = next_recheck(recheck.as_ref(), &timers);
        let mut download = Self {
            incoming: incoming.map(|incoming| H2Incoming { incoming, at_hand: Bytes::new() }),
            lease: Some(lease),
            sending,
            lender,
            sending_task: None,
            rest: None,
            is_watched,
            asked_ms: timers.now_ms(),
            taking: Pace::default(),
            memory: None,
            was_sent_whole,
            bytes: 0,
            counted: 0,
            idle: None,
            idle_after,
            waiting_since_ms: None,
            recheck,
            next_recheck_ms,
            finish,
            timers,
            trailers: None,
            was_asked: false,
            state: State::Running,
        };
        if download.is_at_end() {
            download.end(None);
        }
        download
    }

    /// Has what it hands to HTTP/2 count in `memory` until it was sent. Whether the client has room is not known yet.
    pub(super) fn watched_in(mut self, memory: MemorySum) -> Self {
        self.waits();
        self.memory = Some(memory);
        self
    }

    /// Whether something is left of the request, and nobody has been told to send it.
    pub(super) const fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// Names the task that sends it. It ends with the answer: the connection goes then, and nothing would ever wake it.
    pub(super) fn is_sent_by(&mut self, task: tokio::task::AbortHandle) {
        self.sending_task = Some(task);
    }

    /// Whether data may follow.
    pub(super) fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// Whoever takes it may be as slow as it likes, as long as it takes something.
    pub(crate) fn at_any_pace(&self) {
        self.taking.exempt();
    }

    /// Notes that its end did not come together with its head.
    fn waits(&mut self) {
        if let Some(exchange) = &mut self.finish {
            exchange.waits();
        }
    }

    fn end(&mut self, broken: Option<&BodyError>) {
        if self.state != State::Running {
            return;
        }
        self.state = if broken.is_some() { State::Broken } else { State::Over };
        let lease = self.lease.take();
        // An upstream that answers early may still want all of the request.
        let rest = match lease {
            Some(_) | None if broken.is_some() => {
                self.incoming = None;
                None
            }
            Some(Lease::H1(lease)) => {
                if self.trailers.is_none() {
                    self.trailers = trailers_of(lease.connection.wire.trailers());
                }
                if self.was_sent_whole {
                    lease.give_back(self.timers.now_ms());
                    None
                } else {
                    self.sending.take().map(|sending| Way::H1(lease, sending))
                }
            }
            Some(Lease::H2(lease)) => {
                let lender = self.lender.take().filter(|lender| !lender.is_returned());
                lender.map(|lender| Way::H2(lender, lease))
            }
            None => None,
        };
        if let Some(way) = rest {
            let mut rest = Rest::new(way, &self.timers, self.idle_after);
            if self.is_watched {
                // Its stream is over, and with it whoever would ask.
                drop(tokio::task::spawn_local(std::future::poll_fn(move |cx| rest.poll(cx))));
            } else {
                self.rest = Some(Box::new(rest));
            }
        }
        self.sending = None;
        self.lender = None;
        if let Some(task) = self.sending_task.take() {
            task.abort();
        }
        if let Some(finish) = self.finish.take() {
            finish.finish(self.bytes, broken);
        }
    }

    fn is_at_end(&self) -> bool {
        match (&self.incoming, &self.lease) {
            (Some(h2), _) => h2.at_hand.is_empty() && h2.incoming.is_end_stream(),
            (None, Some(Lease::H1(lease))) => lease.connection.wire.is_body_over(),
            (None, Some(Lease::H2(_)) | None) => true,
        }
    }

    /// Looks at an answer that may not be asked for.
    pub(super) fn sweep(&mut self, patience: &BodyPatience) {
        let now = self.timers.now_ms();
        // While it waits for the upstream, it was asked and its own timer runs.
        let is_stalled = self.waiting_since_ms.is_none() && {
            let unasked = now.saturating_sub(self.asked_ms);
            let is_late = unasked > as_ms(patience.stall) || self.taking.is_below(&patience.floor, unasked);
            is_late || unasked > HELD_UP_MS && self.held_up().is_some_and(|waiting| takes_one(waiting))
        };
        let is_gone = now >= self.next_recheck_ms && self.recheck.as_ref().is_some_and(|key| !key.still_holds());
        let reason = match (is_stalled, is_gone) {
            (true, _) => BodyError::Client(Failure::RequestTimeout),
            (_, true) => BodyError::KeyGone,
            (false, false) => return,
        };
        self.end(Some(&reason));
    }

    /// How many requests wait for the connection that it has for itself.
    pub(crate) fn held_up(&self) -> Option<&Rc<Cell<usize>>> {
        match &self.lease {
            Some(Lease::H1(lease)) => Some(lease.held_up()),
            Some(Lease::H2(_)) | None => None,
        }
    }

    fn broke(&mut self, error: BodyError) -> Poll<Result<Option<usize>, BodyError>> {
        self.end(Some(&error));
        Poll::Ready(Err(error))
    }

    /// Whether no data follows, and no error either.
    pub(crate) fn is_done(&self) -> bool {
        self.state == State::Over
    }

    /// Whether there is nothing more of it at all.
    pub(super) fn is_end_stream(&self) -> bool {
        self.is_done() && self.trailers.is_none()
    }

    /// Sends what is left of the request, as far as that goes now. Ready once nothing is left.
    pub(crate) fn poll_sending(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let (Some(sending), Some(Lease::H1(lease))) = (&mut self.sending, &mut self.lease) {
            // To its end, or as far as the upstream wanted it: no more than that is its answer's business.
            let _sent = ready!(sending.poll(cx, &mut lease.connection.wire));
            self.sending = None;
        }
        Poll::Ready(())
    }

    /// Sends what is left of the request although the answer is over: to its end, or until either side wants no more.
    pub(crate) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(rest) = self.rest.as_deref_mut() else { return Poll::Ready(()) };
        ready!(rest.poll(cx));
        self.rest = None;
        Poll::Ready(())
    }

    /// Gives it up because of a panic, which whoever polls it must catch: it costs this answer, not the connection's
    /// others.
    pub(crate) fn panicked(&mut self) {
        self.end(Some(&BodyError::Panicked));
    }

    /// Waits for data: how many bytes of it there are; none at the end.
    ///
    /// # Errors
    /// Why there will be no more.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, BodyError>> {
        self.poll_data_by(cx, false)
    }

    /// As [`Download::poll_data`], for somebody who only takes it with [`Download::poll_pass`].
    ///
    /// # Errors
    /// As [`Download::poll_data`].
    pub(crate) fn poll_data_to_pass(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, BodyError>> {
        self.poll_data_by(cx, true)
    }

    fn poll_data_by(&mut self, cx: &mut Context<'_>, passes: bool) -> Poll<Result<Option<usize>, BodyError>> {
        let now = self.timers.now_ms();
        if self.is_watched && self.waiting_since_ms.is_none() {
            self.taking.moved(now.saturating_sub(self.asked_ms), 0);
        }
        self.asked_ms = now;
        if std::mem::replace(&mut self.was_asked, true) {
            self.waits();
        }
        match self.state {
            State::Running => {}
            State::Over => return Poll::Ready(Ok(None)),
            State::Broken => return Poll::Ready(Err(BodyError::Client(Failure::RequestTimeout))),
        }
        if now >= self.next_recheck_ms
            && let Some(recheck) = &self.recheck
        {
            if !recheck.still_holds() {
                return self.broke(BodyError::KeyGone);
            }
            self.next_recheck_ms = next_recheck(Some(recheck), &self.timers);
        }
        if !self.is_watched {
            let _sent = self.poll_sending(cx);
        }
        match self.poll_source(cx, passes) {
            Poll::Ready(found) => {
                if self.waiting_since_ms.take().is_some()
                    && let Some(idle) = &self.idle
                {
                    idle.disarm();
                }
                match found {
                    Ok(Some(len)) => {
                        let more = (len - self.counted.min(len)) as u64;
                        self.bytes += more;
                        self.counted = len;
                        self.taking.moved(0, more);
                        Poll::Ready(Ok(Some(len)))
                    }
                    Ok(None) => {
                        self.end(None);
                        Poll::Ready(Ok(None))
                    }
                    Err(()) => {
                        let own = self.lender.as_ref().and_then(Lender::failure).map(BodyError::Client);
                        self.broke(own.unwrap_or(BodyError::Upstream(Failure::UpstreamUnreachable)))
                    }
                }
            }
            Poll::Pending => {
                let since = *self.waiting_since_ms.get_or_insert(now);
                if now.saturating_sub(since) > as_ms(self.idle_after) {
                    return self.broke(BodyError::Upstream(Failure::UpstreamTimeout));
                }
                let until_recheck = self.next_recheck_ms.saturating_sub(now);
                let until_idle = as_ms(self.idle_after).saturating_sub(now - since);
                let idle = self.idle.get_or_insert_with(|| self.timers.timer());
                idle.arm(Duration::from_millis(until_recheck.min(until_idle)));
                // Not elapsed yet: it was armed a moment ago; this only leaves the waker.
                let _armed = idle.poll_elapsed(cx);
                Poll::Pending
            }
        }
    }

    fn poll_source(&mut self, cx: &mut Context<'_>, passes: bool) -> Poll<Result<Option<usize>, ()>> {
        let Some(h2) = &mut self.incoming else {
            let Some(Lease::H1(lease)) = &mut self.lease else { return Poll::Ready(Err(())) };
            let wire = &mut lease.connection.wire;
            let polled = if passes { wire.poll_body_piped(cx) } else { wire.poll_body(cx) };
            return polled.map_err(drop);
        };
        loop {
            if !h2.at_hand.is_empty() {
                return Poll::Ready(Ok(Some(h2.at_hand.len())));
            }
            match ready!(Pin::new(&mut h2.incoming).poll_frame(cx)) {
                None => return Poll::Ready(Ok(None)),
                Some(Err(_)) => return Poll::Ready(Err(())),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => h2.at_hand = data,
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }

    /// Looks at the data that [`Download::poll_data`] found, and takes as much of it away as `look` says. The answer is
    /// over with its last byte, not when that is noticed.
    pub(crate) fn take<R>(&mut self, look: impl FnOnce(&[u8], &mut usize) -> R) -> R {
        let look = |data: &[u8], taken: &mut usize| {
            Tripwire::Download.sees([data]);
            look(data, taken)
        };
        let mut taken = 0;
        let looked = match (&mut self.incoming, &mut self.lease) {
            (Some(h2), _) => {
                let looked = look(&h2.at_hand, &mut taken);
                h2.at_hand.advance(taken.min(h2.at_hand.len()));
                looked
            }
            (None, Some(Lease::H1(lease))) => {
                let wire = &mut lease.connection.wire;
                let looked = look(wire.data(), &mut taken);
                wire.consume(taken);
                looked
            }
            (None, Some(Lease::H2(_)) | None) => look(&[], &mut taken),
        };
        self.took(taken);
        looked
    }

    fn took(&mut self, len: usize) {
        self.counted -= len.min(self.counted);
        if self.state == State::Running && self.counted == 0 && self.is_at_end() {
            self.end(None);
        }
    }

    /// Gives some of the data that was found to the client; how much of it.
    ///
    /// # Errors
    /// The client's.
    pub(crate) fn poll_pass(&mut self, cx: &mut Context<'_>, client: &ClientWire) -> Poll<std::io::Result<usize>> {
        if let (None, Some(Lease::H1(lease))) = (&self.incoming, &mut self.lease)
            && lease.connection.wire.is_piped()
            && let Some(passed) = ready!(lease.connection.wire.poll_pass(cx, client))?
        {
            self.took(passed);
            return Poll::Ready(Ok(passed));
        }
        self.take(|data, taken| {
            let written = ready!(client.poll_write_some(cx, data))?;
            *taken = written;
            Poll::Ready(Ok(written))
        })
    }

    /// All the data at hand, as a piece of its own.
    fn take_bytes(&mut self) -> Bytes {
        if let Some(h2) = &mut self.incoming {
            let bytes = std::mem::take(&mut h2.at_hand);
            // Nothing is left of it: this only sees whether it was the last.
            self.counted = 0;
            self.take(|_, _| ());
            return bytes;
        }
        self.take(|data, taken| {
            *taken = data.len();
            Bytes::copy_from_slice(data)
        })
    }

    /// The next frame, for HTTP/2.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| self.poll_frame_unguarded(cx)));
        polled.unwrap_or_else(|_| {
            self.panicked();
            Poll::Ready(Some(Err(BodyError::Panicked)))
        })
    }

    fn poll_frame_unguarded(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match ready!(self.poll_data(cx)) {
            Ok(Some(_)) => {
                let data = self.take_bytes();
                let data = match &self.memory {
                    Some(sum) => sum.counted(data),
                    None => data,
                };
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Ok(None) => Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    /// How many bytes are left, when that is known.
    pub(super) fn exact_len(&self) -> Option<u64> {
        match (&self.incoming, &self.lease) {
            (Some(h2), _) => h2.incoming.size_hint().exact().map(|left| left + h2.at_hand.len() as u64),
            (None, Some(Lease::H1(lease))) => lease.connection.wire.body_len(),
            (None, Some(Lease::H2(_)) | None) => Some(0),
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.end(Some(&BodyError::ClientGone));
    }
}
