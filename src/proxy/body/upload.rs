//! Request bodies on their way up, over either HTTP.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::{Body, Incoming};
use tokio::sync::OwnedSemaphorePermit;

use super::{BodyError, BodyPatience, failure_of, next_recheck};
use crate::proxy::asked::{ClientBody, trailers_of};
use crate::proxy::headers::TrailerRule;
use crate::proxy::timer::{Timer, Timers};
use crate::proxy::tripwire::Tripwire;
use crate::proxy::watch::KeyWatch;
use crate::reply::Failure;
use crate::wire::{BodyFault, ClientWire, Held, MemorySum, Pace, SHORT_BODY};

/// What the engine sees of an upload while it is sent.
#[derive(Default)]
pub(crate) struct UploadProgress {
    /// Body bytes taken from the client.
    pub(crate) bytes: Cell<u64>,
    /// Whether the last byte was taken.
    pub(crate) finished: Cell<bool>,
    /// Whether the client is what everybody waits for.
    pub(crate) waits_for_client: Cell<bool>,
    /// When the client last gave something, or the upstream took something, on the coarse clock.
    pub(crate) moved_ms: Cell<u64>,
    /// Why it stopped, when it did before its end.
    pub(crate) failure: Cell<Option<Failure>>,
    /// Who waits for the answer, where another task sends the body: its patience begins when the body is sent.
    watcher: RefCell<Option<Waker>>,
}

impl UploadProgress {
    /// Wakes the task of `cx` once the last byte was taken.
    pub(crate) fn watched_by(&self, cx: &Context<'_>) {
        if !self.finished.get() {
            *self.watcher.borrow_mut() = Some(cx.waker().clone());
        }
    }

    fn finish(&self) {
        if !self.finished.replace(true) {
            let watcher = self.watcher.borrow_mut().take();
            if let Some(watcher) = watcher {
                watcher.wake();
            }
        }
    }
}

/// A request body that streams to the upstream.
pub(crate) struct Upload {
    source: Source,
    max_bytes: Option<u64>,
    trailers: TrailerRule,
    progress: Rc<UploadProgress>,
    /// How much of what is at hand was counted.
    counted: usize,
    /// Whether the key still holds. Asked when data is there: a client without any is nobody's long stream.
    recheck: Option<KeyWatch>,
    next_recheck_ms: u64,
    timers: Rc<Timers>,
    /// Leave to hold a connection of an upstream while it is coming.
    leave: Option<OwnedSemaphorePermit>,
}

/// Where the body comes from.
enum Source {
    /// The sweeper of the connection sees to clients that fall silent.
    H1(Rc<ClientWire>),
    H2(Box<H2Source>),
    /// Nobody any more: it was short, has been given away whole, and is kept in case it is needed again.
    Kept {
        bytes: Bytes,
        _held: Held,
    },
}

/// A body that a stream of an HTTP/2 connection brings.
struct H2Source {
    incoming: Incoming,
    /// What it may hold in the meantime.
    _held: Held,
    at_hand: Bytes,
    trailers: Option<Box<HeaderMap>>,
    stall: Timer,
    patience: BodyPatience,
    pace: Pace,
    waiting_since_ms: Option<u64>,
}

/// Why a stream brings no more.
enum H2Fault {
    TooSlow,
    Gone,
}

impl H2Source {
    /// Waits for more data, which goes behind what is at hand; whether there is any.
    fn poll_more(&mut self, cx: &mut Context<'_>, timers: &Timers) -> Poll<Result<bool, H2Fault>> {
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
                if self.waiting_since_ms.is_none() {
                    self.waiting_since_ms = Some(timers.now_ms());
                    self.stall.arm(self.patience.stall);
                }
                ready!(self.stall.poll_elapsed(cx));
                return Poll::Ready(Err(H2Fault::TooSlow));
            };
            if let Some(since) = self.waiting_since_ms.take() {
                self.stall.disarm();
                self.pace.moved(timers.now_ms().saturating_sub(since), 0);
            }
            match frame {
                // A stream that is reset without an error, as if nothing were wrong, ends so, too; its body is not whole.
                None if !self.incoming.is_end_stream() => return Poll::Ready(Err(H2Fault::Gone)),
                None => return Poll::Ready(Ok(false)),
                Some(Err(_)) => return Poll::Ready(Err(H2Fault::Gone)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.pace.moved(0, data.len() as u64);
                        if self.pace.is_below(&self.patience.floor, 0) {
                            return Poll::Ready(Err(H2Fault::TooSlow));
                        }
                        if !data.is_empty() {
                            self.put_behind(data);
                            return Poll::Ready(Ok(true));
                        }
                    }
                    Err(frame) => self.trailers = frame.into_trailers().ok().map(Box::new),
                },
            }
        }
    }

    fn put_behind(&mut self, data: Bytes) {
        self.at_hand = if self.at_hand.is_empty() {
            data
        } else {
            let before = std::mem::take(&mut self.at_hand);
            let mut all = before.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
            all.extend_from_slice(&data);
            all.freeze()
        };
    }

    /// See [`Upload::poll_gathered`].
    fn poll_short(&mut self, cx: &mut Context<'_>, timers: &Timers) -> Poll<Result<(), H2Fault>> {
        while self.exact_len().is_some_and(|len| (self.at_hand.len() as u64) < len && len <= SHORT_BODY) {
            if !ready!(self.poll_more(cx, timers))? {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn exact_len(&self) -> Option<u64> {
        self.incoming.size_hint().exact().map(|left| left + self.at_hand.len() as u64)
    }
}

impl Upload {
    /// Streams `body`; none where there is none. Polling it is what invites a client that waits for `100 Continue`.
    ///
    /// `patience` is had with an HTTP/2 client; with one of HTTP/1 its connection has it.
    pub(crate) fn new(
        body: ClientBody,
        max_bytes: Option<u64>,
        timers: &Rc<Timers>,
        patience: BodyPatience,
        trailers: TrailerRule,
        progress: Rc<UploadProgress>,
        recheck: Option<KeyWatch>,
    ) -> Option<Self> {
        let source = match body {
            ClientBody::None => return None,
            ClientBody::H1(wire, _) => Source::H1(wire),
            ClientBody::H2(incoming, held) => Source::H2(Box::new(H2Source {
                incoming,
                _held: held,
                at_hand: Bytes::new(),
                trailers: None,
                stall: timers.timer(),
                patience,
                pace: Pace::default(),
                waiting_since_ms: None,
            })),
        };
        let next_recheck_ms = next_recheck(recheck.as_ref(), timers);
        let timers = Rc::clone(timers);
        Some(Self { source, max_bytes, trailers, progress, counted: 0, recheck, next_recheck_ms, timers, leave: None })
    }

    /// From here on it may come as slowly as it likes, as long as it comes: client and upstream agree between themselves, and
    /// over HTTP/2 on both sides it holds a stream and no connection.
    pub(crate) fn at_any_pace(&mut self) {
        if let Source::H2(source) = &mut self.source {
            source.patience = source.patience.at_any_pace();
        }
    }

    /// How many bytes are left, when that is known.
    pub(crate) fn exact_len(&self) -> Option<u64> {
        match &self.source {
            Source::H1(wire) => wire.body_len(),
            Source::H2(source) => source.exact_len(),
            Source::Kept { bytes, .. } => Some(bytes.len() as u64),
        }
    }

    /// Keeps `bytes`, which were taken just now, if they are all of it and short. From here on it is as it was before they
    /// were taken, and of the client it needs nothing. Whether it is kept.
    pub(super) fn keep(&mut self, bytes: &Bytes, memory: &MemorySum) -> bool {
        let was_all = match &self.source {
            // Trailers that might go on would be lost.
            Source::H1(wire) => matches!(self.trailers, TrailerRule::Drop) && wire.is_body_over(),
            Source::H2(source) => source.trailers.is_none() && self.is_over(),
            Source::Kept { bytes: left, .. } => left.is_empty(),
        };
        let is_kept = was_all && self.counted == 0 && bytes.len() as u64 <= SHORT_BODY;
        if is_kept {
            self.source = Source::Kept { bytes: bytes.clone(), _held: memory.hold(bytes.len()) };
            self.counted = bytes.len();
            self.leave = None;
        }
        is_kept
    }

    /// Waits until a body that is short and says so is at hand whole. Others are not waited for.
    ///
    /// So a client that takes its time over a body of this kind has no connection to an upstream meanwhile.
    ///
    /// # Errors
    /// As [`Upload::poll_data`].
    pub(crate) fn poll_gathered(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let gathered = match &mut self.source {
            Source::H1(wire) => wire.poll_short_body(cx).map_err(|fault| match fault {
                BodyFault::Fault(fault) => Some(failure_of(fault)),
                BodyFault::Gone => None,
            }),
            Source::H2(source) => source.poll_short(cx, &self.timers).map_err(|fault| match fault {
                H2Fault::TooSlow => Some(Failure::RequestTimeout),
                H2Fault::Gone => None,
            }),
            Source::Kept { .. } => Poll::Ready(Ok(())),
        };
        self.progress.waits_for_client.set(gathered.is_pending());
        match ready!(gathered) {
            Ok(()) if self.is_at_hand() => self.poll_data(cx).map_ok(drop),
            Ok(()) => Poll::Ready(Ok(())),
            Err(Some(failure)) => self.fail(failure),
            Err(None) => self.gone(),
        }
    }

    /// Whether nothing of it is still to come.
    pub(crate) fn is_at_hand(&self) -> bool {
        match &self.source {
            Source::H1(wire) => wire.is_body_at_hand(),
            Source::H2(source) => source.incoming.is_end_stream(),
            Source::Kept { .. } => true,
        }
    }

    /// Keeps `leave` for as long as the body is under way, and drops what it had.
    pub(crate) fn hold(&mut self, leave: Option<OwnedSemaphorePermit>) {
        self.leave = leave;
    }

    /// Waits for data: how many bytes of it there are; none at the end.
    ///
    /// # Errors
    /// Why there will be no more. What the client is told about it stands in the progress.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, BodyError>> {
        let polled = self.poll_next(cx);
        if self.progress.waits_for_client.replace(polled.is_pending()) && polled.is_ready() {
            self.moved();
        }
        polled
    }

    fn moved(&self) {
        self.progress.moved_ms.set(self.timers.now_ms());
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, BodyError>> {
        let len = match &mut self.source {
            Source::H1(wire) => match ready!(wire.poll_body(cx)) {
                Ok(len) => len,
                Err(BodyFault::Fault(fault)) => return self.fail(failure_of(fault)),
                Err(BodyFault::Gone) => return self.gone(),
            },
            Source::H2(source) if !source.at_hand.is_empty() => Some(source.at_hand.len()),
            Source::H2(source) => match ready!(source.poll_more(cx, &self.timers)) {
                Ok(has_more) => has_more.then_some(source.at_hand.len()),
                Err(H2Fault::TooSlow) => return self.fail(Failure::RequestTimeout),
                Err(H2Fault::Gone) => return self.gone(),
            },
            Source::Kept { bytes, .. } => (!bytes.is_empty()).then_some(bytes.len()),
        };
        let Some(len) = len else {
            self.progress.finish();
            return Poll::Ready(Ok(None));
        };
        let bytes = self.progress.bytes.get() + (len - self.counted.min(len)) as u64;
        self.counted = len;
        self.progress.bytes.set(bytes);
        if self.max_bytes.is_some_and(|max| bytes > max) {
            return self.fail(Failure::BodyTooLarge);
        }
        if self.timers.now_ms() >= self.next_recheck_ms {
            if self.recheck.as_ref().is_some_and(|key| !key.still_holds()) {
                return self.fail(Failure::KeyGone);
            }
            self.next_recheck_ms = next_recheck(self.recheck.as_ref(), &self.timers);
        }
        Poll::Ready(Ok(Some(len)))
    }

    /// Looks at the data that [`Upload::poll_data`] found, and takes as much of it away as `look` says.
    pub(crate) fn take<R>(&mut self, look: impl FnOnce(&[u8], &mut usize) -> R) -> R {
        let look = |data: &[u8], taken: &mut usize| {
            Tripwire::Upload.sees([data]);
            look(data, taken)
        };
        let mut taken = 0;
        let looked = match &mut self.source {
            Source::H1(wire) => wire.take_body(|data, consumed| {
                let looked = look(data, &mut taken);
                *consumed = taken;
                looked
            }),
            Source::H2(source) => {
                let looked = look(&source.at_hand, &mut taken);
                source.at_hand.advance(taken.min(source.at_hand.len()));
                looked
            }
            Source::Kept { bytes, .. } => {
                let looked = look(bytes, &mut taken);
                bytes.advance(taken.min(bytes.len()));
                looked
            }
        };
        if taken > 0 {
            self.moved();
        }
        self.counted -= taken.min(self.counted);
        if self.counted == 0 && self.is_over() {
            self.progress.finish();
        }
        looked
    }

    /// Throws `len` bytes of the data away.
    pub(crate) fn consume(&mut self, len: usize) {
        self.take(|_, taken| *taken = len);
    }

    /// All the data at hand, as a piece of its own.
    pub(super) fn take_bytes(&mut self) -> Bytes {
        let at_hand = match &mut self.source {
            Source::H1(_) => None,
            Source::H2(source) => Some(&mut source.at_hand),
            Source::Kept { bytes, .. } => Some(bytes),
        };
        if let Some(at_hand) = at_hand {
            let bytes = std::mem::take(at_hand);
            self.moved();
            // Nothing is left of it: this only sees whether it was the last.
            self.counted = 0;
            self.consume(0);
            return bytes;
        }
        self.take(|data, taken| {
            *taken = data.len();
            Bytes::copy_from_slice(data)
        })
    }

    /// What goes on of the trailers, once the data is over.
    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        let trailers = match &mut self.source {
            Source::H1(wire) => wire.with_trailers(trailers_of),
            Source::H2(source) => source.trailers.take().map(|trailers| *trailers),
            Source::Kept { .. } => None,
        };
        trailers.and_then(|trailers| self.trailers.clean(trailers))
    }

    /// What the engine sees of it.
    pub(super) fn progress(&self) -> &Rc<UploadProgress> {
        &self.progress
    }

    /// Whether neither data nor trailers follow; a body that may have trailers is over when it says so.
    pub(super) fn is_end_stream(&self) -> bool {
        matches!((&self.source, &self.trailers), (Source::Kept { .. }, _) | (_, TrailerRule::Drop)) && self.is_over()
    }

    fn is_over(&self) -> bool {
        match &self.source {
            Source::H1(wire) => wire.is_body_over(),
            Source::H2(source) => source.at_hand.is_empty() && source.incoming.is_end_stream(),
            Source::Kept { bytes, .. } => bytes.is_empty(),
        }
    }

    /// Whoever is gone reads no answer; that it broke off is nobody else's fault.
    fn gone<T>(&self) -> Poll<Result<T, BodyError>> {
        self.progress.failure.set(Some(Failure::RequestTimeout));
        Poll::Ready(Err(BodyError::ClientGone))
    }

    fn fail<T>(&self, failure: Failure) -> Poll<Result<T, BodyError>> {
        self.progress.failure.set(Some(failure));
        Poll::Ready(Err(BodyError::Client(failure)))
    }
}
