//! Bodies on their way: request bodies up, answer bodies down. Nothing is buffered whole.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::headers::TrailerRule;
use super::pool::Lease;
use super::timer::Timer;
use crate::framing::Fault;
use crate::reply::Failure;

/// Why a body stopped before its end. The text is for logs.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The client's side failed or fell silent.
    Client(Failure),
    /// The client went away.
    ClientGone,
    /// The upstream's side failed, fell silent, or sent what has no single reading.
    Upstream(Failure),
    /// The key that admitted the request no longer holds.
    KeyGone,
    /// A bug of ours, caught.
    Panicked,
}

impl BodyError {
    /// The word in the log.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Client(failure) | Self::Upstream(failure) => failure.code(),
            Self::ClientGone => "client_gone",
            Self::KeyGone => "key_gone",
            Self::Panicked => "internal_error",
        }
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(failure) => write!(f, "the client's body: {}", failure.code()),
            Self::ClientGone => f.write_str("the client went away"),
            Self::Upstream(failure) => write!(f, "the upstream's body: {}", failure.code()),
            Self::KeyGone => f.write_str("the key no longer holds"),
            Self::Panicked => f.write_str("a panic was caught"),
        }
    }
}

impl std::error::Error for BodyError {}

/// What a client is told whose message the framing guard refused.
pub(crate) fn failure_of(fault: Fault) -> Failure {
    match fault.status() {
        408 => Failure::RequestTimeout,
        414 => Failure::TargetTooLong,
        431 => Failure::HeadersTooLarge,
        _ => Failure::BadRequest { detail: fault.detail() },
    }
}

/// What the engine sees of an upload while the connection's task sends it.
#[derive(Default)]
pub(crate) struct UploadProgress {
    /// Body bytes taken from the client.
    pub(crate) bytes: Cell<u64>,
    /// Whether the last byte was taken.
    pub(crate) finished: Cell<bool>,
    /// Why it stopped, when it did before its end.
    pub(crate) failure: Cell<Option<Failure>>,
}

/// A request body as it goes to the upstream.
pub(crate) enum RequestBody {
    /// There is none.
    Empty,
    /// One that streams from the client.
    Upload(Box<Upload>),
}

/// A request body that streams.
pub(crate) struct Upload {
    incoming: Incoming,
    max_bytes: Option<u64>,
    stall: Timer,
    stall_after: Duration,
    waiting: bool,
    trailers: TrailerRule,
    progress: Rc<UploadProgress>,
}

impl Upload {
    /// Streams `incoming`. Polling it is what invites a client that waits for `100 Continue`.
    pub(crate) fn new(
        incoming: Incoming,
        max_bytes: Option<u64>,
        stall: Timer,
        stall_after: Duration,
        trailers: TrailerRule,
        progress: Rc<UploadProgress>,
    ) -> Self {
        Self { incoming, max_bytes, stall, stall_after, waiting: false, trailers, progress }
    }

    fn fail(&self, failure: Failure) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.progress.failure.set(Some(failure));
        Poll::Ready(Some(Err(BodyError::Client(failure))))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            if !self.waiting {
                self.waiting = true;
                self.stall.arm(self.stall_after);
            }
            return match self.stall.poll_elapsed(cx) {
                Poll::Ready(()) => self.fail(Failure::RequestTimeout),
                Poll::Pending => Poll::Pending,
            };
        };
        if std::mem::take(&mut self.waiting) {
            self.stall.disarm();
        }
        match frame {
            None => {
                self.progress.finished.set(true);
                Poll::Ready(None)
            }
            Some(Err(error)) => match Fault::find_in(&error) {
                Some(fault) => self.fail(failure_of(fault)),
                None => Poll::Ready(Some(Err(BodyError::ClientGone))),
            },
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let bytes = self.progress.bytes.get() + data.len() as u64;
                    self.progress.bytes.set(bytes);
                    if self.max_bytes.is_some_and(|max| bytes > max) {
                        return self.fail(Failure::BodyTooLarge);
                    }
                    if self.incoming.is_end_stream() {
                        self.progress.finished.set(true);
                    }
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                Err(frame) => match frame.into_trailers().ok().and_then(|trailers| self.trailers.clean(trailers)) {
                    Some(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                    None => {
                        self.progress.finished.set(true);
                        Poll::Ready(None)
                    }
                },
            },
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Upload(upload) => upload.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Upload(upload) => upload.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Upload(upload) => upload.incoming.size_hint(),
        }
    }
}

/// Called once when an answer is over: with its body bytes, and why it broke when it did.
pub(crate) trait Finish {
    /// The answer is over.
    fn finish(self: Box<Self>, body_bytes: u64, broken: Option<&BodyError>);
}

/// Asked from time to time whether the key that admitted a long answer still holds.
pub(crate) trait Recheck {
    /// Whether it does.
    fn still_holds(&self) -> bool;
    /// How often to ask.
    fn interval(&self) -> Duration;
}

/// An answer body as it goes to the client.
pub(crate) enum ReplyBody {
    /// There is none.
    Empty,
    /// One of ours, whole.
    Whole(Option<Bytes>),
    /// One that streams from the upstream.
    Download(Box<Download>),
    /// The same over HTTP/2, where a client that takes nothing is seen by nobody but the sweeper: see [`Watched`].
    Watched(Rc<RefCell<Download>>),
}

/// Answers over HTTP/2 under way. HTTP/2 asks for the next piece only when the client has room for it, so a client that
/// gives none would hold an upstream connection for ever, and a key that is gone would not be noticed.
#[derive(Default)]
pub(crate) struct Watched(RefCell<Vec<Weak<RefCell<Download>>>>);

impl Watched {
    /// Watches an answer.
    pub(crate) fn watch(&self, download: Download) -> ReplyBody {
        let shared = Rc::new(RefCell::new(download));
        self.0.borrow_mut().push(Rc::downgrade(&shared));
        ReplyBody::Watched(shared)
    }

    /// Gives up answers that nobody has asked for in `stall_ms`, and those whose key no longer holds. Their upstream
    /// connections are closed; their streams end in an error once the client listens again.
    pub(crate) fn sweep(&self, stall_ms: u64) {
        self.0.borrow_mut().retain(|entry| {
            let Some(download) = entry.upgrade() else { return false };
            let mut download = download.borrow_mut();
            if download.over {
                return false;
            }
            download.sweep(stall_ms);
            true
        });
    }
}

/// An answer body that streams.
pub(crate) struct Download {
    /// None once it was given up.
    incoming: Option<Incoming>,
    lease: Option<Lease>,
    asked_ms: u64,
    /// Whether the request had been taken whole when the answer began. Otherwise the upstream may not have read it
    /// all, and the next request would wait behind the rest.
    was_sent_whole: bool,
    bytes: u64,
    idle: Timer,
    idle_after: Duration,
    waiting_since_ms: Option<u64>,
    recheck: Option<Box<dyn Recheck>>,
    next_recheck_ms: u64,
    finish: Option<Box<dyn Finish>>,
    timers: Rc<super::timer::Timers>,
    over: bool,
}

impl Download {
    /// Streams `incoming`; keeps `lease` until the last byte, then gives it back.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call site; each is a part of the exchange that ends with the body"
    )]
    pub(crate) fn new(
        incoming: Incoming,
        lease: Lease,
        upload: &UploadProgress,
        timers: &Rc<super::timer::Timers>,
        idle: Timer,
        idle_after: Duration,
        recheck: Option<Box<dyn Recheck>>,
        finish: Option<Box<dyn Finish>>,
    ) -> Self {
        let next_recheck_ms = recheck.as_ref().map_or(u64::MAX, |r| timers.now_ms() + as_ms(r.interval()));
        let mut download = Self {
            incoming: Some(incoming),
            lease: Some(lease),
            asked_ms: timers.now_ms(),
            was_sent_whole: upload.finished.get(),
            bytes: 0,
            idle,
            idle_after,
            waiting_since_ms: None,
            recheck,
            next_recheck_ms,
            finish,
            timers: Rc::clone(timers),
            over: false,
        };
        if download.is_at_end() {
            download.end(None);
        }
        download
    }

    fn end(&mut self, broken: Option<&BodyError>) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        if let Some(Lease::H1(lease)) = self.lease.take()
            && broken.is_none()
            && self.was_sent_whole
        {
            lease.give_back(self.timers.now_ms());
        }
        if let Some(finish) = self.finish.take() {
            finish.finish(self.bytes, broken);
        }
    }

    fn is_at_end(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    /// Looks at an answer that may not be asked for.
    fn sweep(&mut self, stall_ms: u64) {
        let now = self.timers.now_ms();
        // While it waits for the upstream, it was asked and its own timer runs.
        let is_stalled = self.waiting_since_ms.is_none() && now.saturating_sub(self.asked_ms) > stall_ms;
        let is_gone = now >= self.next_recheck_ms && self.recheck.as_ref().is_some_and(|key| !key.still_holds());
        let reason = match (is_stalled, is_gone) {
            (true, _) => BodyError::Client(Failure::RequestTimeout),
            (_, true) => BodyError::KeyGone,
            (false, false) => return,
        };
        self.end(Some(&reason));
        self.lease = None;
        self.incoming = None;
    }

    fn broke(&mut self, error: BodyError) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.end(Some(&error));
        Poll::Ready(Some(Err(error)))
    }

    /// Whether nothing follows. An answer that was given up is not done: an error follows.
    fn is_done(&self) -> bool {
        self.incoming.as_ref().is_some_and(|incoming| self.over || incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }

    /// A panic costs this answer, not the connection's worker.
    fn poll_caught(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| self.poll(cx)));
        polled.unwrap_or_else(|_| self.broke(BodyError::Panicked))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let now = self.timers.now_ms();
        self.asked_ms = now;
        if now >= self.next_recheck_ms
            && let Some(recheck) = &self.recheck
        {
            if !recheck.still_holds() {
                return self.broke(BodyError::KeyGone);
            }
            self.next_recheck_ms = now + as_ms(recheck.interval());
        }
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(Some(Err(BodyError::Client(Failure::RequestTimeout))));
        };
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                if self.waiting_since_ms.take().is_some() {
                    self.idle.disarm();
                }
                match frame {
                    None => {
                        self.end(None);
                        Poll::Ready(None)
                    }
                    Some(Ok(frame)) => {
                        self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                        if self.is_at_end() {
                            self.end(None);
                        }
                        Poll::Ready(Some(Ok(frame)))
                    }
                    Some(Err(_)) => self.broke(BodyError::Upstream(Failure::UpstreamUnreachable)),
                }
            }
            Poll::Pending => {
                let since = *self.waiting_since_ms.get_or_insert(now);
                if now.saturating_sub(since) > as_ms(self.idle_after) {
                    return self.broke(BodyError::Upstream(Failure::UpstreamTimeout));
                }
                let until_recheck = self.next_recheck_ms.saturating_sub(now);
                let until_idle = as_ms(self.idle_after).saturating_sub(now - since);
                self.idle.arm(Duration::from_millis(until_recheck.min(until_idle)));
                // Not elapsed yet: it was armed a moment ago; this only leaves the waker.
                let _armed = self.idle.poll_elapsed(cx);
                Poll::Pending
            }
        }
    }
}

fn as_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Drop for Download {
    fn drop(&mut self) {
        self.end(Some(&BodyError::ClientGone));
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Download(download) => download.poll_caught(cx),
            Self::Watched(download) => download.borrow_mut().poll_caught(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_none(),
            Self::Download(download) => download.is_done(),
            Self::Watched(download) => download.borrow().is_done(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Download(download) => download.size_hint(),
            Self::Watched(download) => download.borrow().size_hint(),
        }
    }
}

impl From<Bytes> for ReplyBody {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Whole(Some(bytes)) }
    }
}
