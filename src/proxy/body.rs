//! Bodies on their way: request bodies up, answer bodies down. Nothing is buffered whole.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::asked::{ClientBody, trailers_of};
use super::headers::TrailerRule;
use super::observe::Exchange;
use super::pool::{H1Lease, Lease};
use super::timer::{Timer, Timers};
use super::watch::KeyWatch;
use crate::framing::Fault;
use crate::reply::Failure;
use crate::wire::ClientWire;
use crate::wire::{BodyFault, Outbox, UpstreamWire, push_chunk_end, push_chunk_head};

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

/// What a client is told whose message has no single reading, or did not come in time.
pub(crate) fn failure_of(fault: Fault) -> Failure {
    match fault.status() {
        408 => Failure::RequestTimeout,
        414 => Failure::TargetTooLong,
        431 => Failure::HeadersTooLarge,
        _ => Failure::BadRequest { detail: fault.detail() },
    }
}

/// What the engine sees of an upload while it is sent.
#[derive(Default)]
pub(crate) struct UploadProgress {
    /// Body bytes taken from the client.
    pub(crate) bytes: Cell<u64>,
    /// Whether the last byte was taken.
    pub(crate) finished: Cell<bool>,
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
}

/// Where the body comes from.
enum Source {
    /// The sweeper of the connection sees to clients that fall silent.
    H1(Rc<ClientWire>),
    H2 {
        incoming: Incoming,
        at_hand: Bytes,
        trailers: Option<HeaderMap>,
        stall: Timer,
        stall_after: Duration,
        waiting: bool,
    },
}

impl Upload {
    /// Streams `body`; none where there is none. Polling it is what invites a client that waits for `100 Continue`.
    ///
    /// `stall_after` is the longest pause of an HTTP/2 client, watched by `stall`.
    pub(crate) fn new(
        body: ClientBody,
        max_bytes: Option<u64>,
        stall: impl FnOnce() -> Timer,
        stall_after: Duration,
        trailers: TrailerRule,
        progress: Rc<UploadProgress>,
    ) -> Option<Self> {
        let source = match body {
            ClientBody::None => return None,
            ClientBody::H1(wire, _) => Source::H1(wire),
            ClientBody::H2(incoming) => Source::H2 {
                incoming,
                at_hand: Bytes::new(),
                trailers: None,
                stall: stall(),
                stall_after,
                waiting: false,
            },
        };
        Some(Self { source, max_bytes, trailers, progress, counted: 0 })
    }

    /// How many bytes are left, when that is known.
    pub(crate) fn exact_len(&self) -> Option<u64> {
        match &self.source {
            Source::H1(wire) => wire.body_len(),
            Source::H2 { incoming, at_hand, .. } => {
                incoming.size_hint().exact().map(|left| left + at_hand.len() as u64)
            }
        }
    }

    /// Waits for data: how many bytes of it there are; none at the end.
    ///
    /// # Errors
    /// Why there will be no more. What the client is told about it stands in the progress.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, BodyError>> {
        let len = match &mut self.source {
            Source::H1(wire) => match ready!(wire.poll_body(cx)) {
                Ok(len) => len,
                Err(BodyFault::Fault(fault)) => return self.fail(failure_of(fault)),
                Err(BodyFault::Gone) => return Poll::Ready(Err(BodyError::ClientGone)),
            },
            Source::H2 { incoming, at_hand, trailers, stall, stall_after, waiting } => loop {
                if !at_hand.is_empty() {
                    break Some(at_hand.len());
                }
                let Poll::Ready(frame) = Pin::new(&mut *incoming).poll_frame(cx) else {
                    if !std::mem::replace(waiting, true) {
                        stall.arm(*stall_after);
                    }
                    ready!(stall.poll_elapsed(cx));
                    return self.fail(Failure::RequestTimeout);
                };
                if std::mem::take(waiting) {
                    stall.disarm();
                }
                match frame {
                    None => break None,
                    Some(Err(_)) => return Poll::Ready(Err(BodyError::ClientGone)),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => *at_hand = data,
                        Err(frame) => *trailers = frame.into_trailers().ok(),
                    },
                }
            },
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
        Poll::Ready(Ok(Some(len)))
    }

    /// Looks at the data that [`Upload::poll_data`] found, and takes as much of it away as `look` says.
    pub(crate) fn take<R>(&mut self, look: impl FnOnce(&[u8], &mut usize) -> R) -> R {
        let mut taken = 0;
        let looked = match &mut self.source {
            Source::H1(wire) => wire.take_body(|data, consumed| {
                let looked = look(data, &mut taken);
                *consumed = taken;
                looked
            }),
            Source::H2 { at_hand, .. } => {
                let looked = look(at_hand, &mut taken);
                at_hand.advance(taken.min(at_hand.len()));
                looked
            }
        };
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
    fn take_bytes(&mut self) -> Bytes {
        if let Source::H2 { at_hand, .. } = &mut self.source {
            let bytes = std::mem::take(at_hand);
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
    fn take_trailers(&mut self) -> Option<HeaderMap> {
        let trailers = match &mut self.source {
            Source::H1(wire) => wire.with_trailers(trailers_of),
            Source::H2 { trailers, .. } => trailers.take(),
        };
        trailers.and_then(|trailers| self.trailers.clean(trailers))
    }

    fn is_over(&self) -> bool {
        match &self.source {
            Source::H1(wire) => wire.is_body_over(),
            Source::H2 { incoming, at_hand, .. } => at_hand.is_empty() && incoming.is_end_stream(),
        }
    }

    fn fail<T>(&self, failure: Failure) -> Poll<Result<T, BodyError>> {
        self.progress.failure.set(Some(failure));
        Poll::Ready(Err(BodyError::Client(failure)))
    }
}

/// A request body as it goes to an upstream over HTTP/2.
pub(crate) enum RequestBody {
    /// There is none.
    Empty,
    /// One that streams from the client.
    Upload {
        /// What streams.
        upload: Box<Upload>,
        /// Whether its end was given away.
        over: bool,
    },
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self::Upload { upload, over } = self.get_mut() else { return Poll::Ready(None) };
        if *over {
            return Poll::Ready(None);
        }
        match ready!(upload.poll_data(cx)) {
            Ok(Some(_)) => Poll::Ready(Some(Ok(Frame::data(upload.take_bytes())))),
            Ok(None) => {
                *over = true;
                Poll::Ready(upload.take_trailers().map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            // A body that may have trailers is over when it says so.
            Self::Upload { over, upload } => *over || matches!(upload.trailers, TrailerRule::Drop) && upload.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Upload { upload, .. } => upload.exact_len().map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

/// A request body as it goes to an upstream over HTTP/1: the head first, then the body in the frames of its kind.
pub(crate) struct Sending {
    out: Outbox,
    upload: Option<Box<Upload>>,
    is_chunked: bool,
    /// Whether any byte of it may have been seen by an upstream.
    has_begun: bool,
    is_over: bool,
}

impl Sending {
    /// Sends `head` and then `upload`.
    pub(crate) fn new(head: Vec<u8>, upload: Option<Box<Upload>>, is_chunked: bool) -> Self {
        Self { out: Outbox::new(head), upload, is_chunked, has_begun: false, is_over: false }
    }

    /// Whether no byte of it was written, so that it can be sent on another connection.
    pub(crate) const fn is_untouched(&self) -> bool {
        !self.has_begun
    }

    /// Begins once more: a request that is untouched, or has no body.
    pub(crate) fn rewind(&mut self) {
        self.out.rewind();
        self.has_begun = false;
        self.is_over = false;
    }

    /// The whole request, when nothing of it was sent: its head and its body.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Option<Box<Upload>>) {
        (self.out.into_memory(), self.upload)
    }

    /// Whether everything was written.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// How many bytes of the body were taken from the client.
    fn sent_bytes(&self) -> u64 {
        self.upload.as_ref().map_or(0, |upload| upload.progress.bytes.get())
    }

    /// Writes as much as can be written.
    ///
    /// # Errors
    /// The client's, when there will be no more of the body; the upstream's, when it takes no more.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, upstream: &mut UpstreamWire) -> Poll<Result<(), SendError>> {
        while !self.is_over {
            let written = upstream.poll_write(cx, &mut self.out);
            self.has_begun |= !self.out.is_untouched();
            ready!(written).map_err(|_| SendError::Upstream)?;
            let Some(upload) = &mut self.upload else {
                ready!(upstream.poll_flush(cx)).map_err(|_| SendError::Upstream)?;
                self.is_over = true;
                break;
            };
            let Poll::Ready(data) = upload.poll_data(cx) else {
                // Whatever TLS holds back must go before the client is waited for.
                let _flushed = upstream.poll_flush(cx).map_err(|_| SendError::Upstream)?;
                return Poll::Pending;
            };
            match data.map_err(SendError::Client)? {
                Some(len) if self.is_chunked => {
                    let out = self.out.tail();
                    push_chunk_head(out, len);
                    upload.take(|data, taken| {
                        out.extend_from_slice(data);
                        *taken = data.len();
                    });
                    out.extend_from_slice(b"\r\n");
                }
                Some(_) => {
                    let written = upload.take(|data, taken| {
                        let written = ready!(upstream.poll_write_some(cx, data))?;
                        *taken = written;
                        Poll::Ready(Ok::<_, std::io::Error>(written))
                    });
                    if ready!(written).map_err(|_| SendError::Upstream)? == 0 {
                        return Poll::Ready(Err(SendError::Upstream));
                    }
                }
                None => {
                    if self.is_chunked {
                        push_chunk_end(self.out.tail());
                    }
                    self.upload = None;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Why a request was not sent to its end.
#[derive(Debug)]
pub(crate) enum SendError {
    /// The client's body broke off.
    Client(BodyError),
    /// The upstream takes no more: it closed the connection, or answered early and will.
    Upstream,
}

/// An answer body as it goes to the client.
pub(crate) enum ReplyBody {
    /// There is none.
    Empty,
    /// One of ours, whole.
    Whole(Vec<u8>),
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
    /// Watches an answer. What is left of its request is sent by a task of its own, because nobody asks for an answer
    /// whose client has no room.
    pub(crate) fn watch(&self, mut download: Download) -> ReplyBody {
        // Whether the client has room is not known yet.
        download.waits();
        let sending = download.sending.take();
        let shared = Rc::new(RefCell::new(download));
        self.0.borrow_mut().push(Rc::downgrade(&shared));
        if let Some(mut sending) = sending {
            let answer = Rc::downgrade(&shared);
            let task = tokio::task::spawn_local(std::future::poll_fn(move |cx| {
                let Some(answer) = answer.upgrade() else { return Poll::Ready(()) };
                let mut answer = answer.borrow_mut();
                let Some(Lease::H1(lease)) = &mut answer.lease else { return Poll::Ready(()) };
                // An upstream that answers early may take no more of the request: that is its answer's business.
                sending.poll(cx, &mut lease.connection.wire).map(drop)
            }));
            // With the answer the connection goes, and then nothing would ever wake the task.
            shared.borrow_mut().sending_task = Some(task.abort_handle());
        }
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
    /// Over HTTP/2: what streams, and what of it is at hand. None once it was given up.
    incoming: Option<H2Incoming>,
    /// The connection it comes over; over HTTP/1 it is also where it is read from. None once it is over or given up.
    lease: Option<Lease>,
    /// What is left of the request.
    sending: Option<Sending>,
    /// The task that sends it, where this does not.
    sending_task: Option<tokio::task::AbortHandle>,
    /// What is left of the request although the answer is over, and where it goes.
    rest: Option<Box<(H1Lease, Sending)>>,
    asked_ms: u64,
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
    over: bool,
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
}

impl Download {
    /// Streams an answer.
    pub(crate) fn new(parts: DownloadParts) -> Self {
        let DownloadParts { incoming, lease, sending, was_sent_whole, timers, idle_after, recheck, finish } = parts;
        let now = timers.now_ms();
        let next_recheck_ms = recheck.as_ref().map_or(u64::MAX, |r| now + as_ms(r.interval()));
        let mut download = Self {
            incoming: incoming.map(|incoming| H2Incoming { incoming, at_hand: Bytes::new() }),
            lease: Some(lease),
            sending,
            sending_task: None,
            rest: None,
            asked_ms: now,
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
            over: false,
        };
        if download.is_at_end() {
            download.end(None);
        }
        download
    }

    /// Notes that its end did not come together with its head.
    fn waits(&mut self) {
        if let Some(exchange) = &mut self.finish {
            exchange.waits();
        }
    }

    fn end(&mut self, broken: Option<&BodyError>) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        if let Some(Lease::H1(lease)) = self.lease.take()
            && broken.is_none()
        {
            if self.trailers.is_none() {
                self.trailers = trailers_of(lease.connection.wire.trailers());
            }
            if self.was_sent_whole {
                lease.give_back(self.timers.now_ms());
            } else if let Some(sending) = self.sending.take() {
                // An upstream that answers early may still want all of it.
                self.rest = Some(Box::new((lease, sending)));
                self.idle = None;
            }
        }
        self.sending = None;
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
        self.given_up();
    }

    fn given_up(&mut self) {
        self.lease = None;
        self.incoming = None;
        // An error follows.
        self.counted = usize::MAX;
    }

    fn is_given_up(&self) -> bool {
        self.counted == usize::MAX
    }

    fn broke(&mut self, error: BodyError) -> Poll<Result<Option<usize>, BodyError>> {
        self.end(Some(&error));
        self.given_up();
        Poll::Ready(Err(error))
    }

    /// Whether nothing follows. An answer that was given up is not done: an error follows.
    pub(crate) fn is_done(&self) -> bool {
        self.over && !self.is_given_up()
    }

    /// Sends what is left of the request, as far as that goes now.
    pub(crate) fn poll_sending(&mut self, cx: &mut Context<'_>) {
        if let (Some(sending), Some(Lease::H1(lease))) = (&mut self.sending, &mut self.lease)
            && sending.poll(cx, &mut lease.connection.wire).is_ready()
        {
            // To its end, or as far as the upstream wanted it.
            self.sending = None;
        }
    }

    /// Sends what is left of the request although the answer is over: to its end, or until either side wants no more.
    pub(crate) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((lease, sending)) = self.rest.as_deref_mut() else { return Poll::Ready(()) };
        let before = sending.sent_bytes();
        if sending.poll(cx, &mut lease.connection.wire).is_ready() {
            self.rest = None;
            return Poll::Ready(());
        }
        let has_moved = sending.sent_bytes() != before;
        // The upstream's patience; the client's is its connection's business.
        let is_armed = self.idle.is_some();
        let idle = self.idle.get_or_insert_with(|| self.timers.timer());
        if has_moved || !is_armed {
            idle.arm(self.idle_after);
        }
        ready!(idle.poll_elapsed(cx));
        self.rest = None;
        Poll::Ready(())
    }

    /// Waits for data: how many bytes of it there are; none at the end. A panic costs this answer, not the worker.
    ///
    /// # Errors
    /// Why there will be no more.
    pub(crate) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, BodyError>> {
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| self.poll_data_unguarded(cx)));
        polled.unwrap_or_else(|_| self.broke(BodyError::Panicked))
    }

    fn poll_data_unguarded(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, BodyError>> {
        let now = self.timers.now_ms();
        self.asked_ms = now;
        if std::mem::replace(&mut self.was_asked, true) {
            self.waits();
        }
        if self.over {
            return Poll::Ready(if self.is_given_up() {
                Err(BodyError::Client(Failure::RequestTimeout))
            } else {
                Ok(None)
            });
        }
        if now >= self.next_recheck_ms
            && let Some(recheck) = &self.recheck
        {
            if !recheck.still_holds() {
                return self.broke(BodyError::KeyGone);
            }
            self.next_recheck_ms = now + as_ms(recheck.interval());
        }
        self.poll_sending(cx);
        match self.poll_source(cx) {
            Poll::Ready(found) => {
                if self.waiting_since_ms.take().is_some()
                    && let Some(idle) = &self.idle
                {
                    idle.disarm();
                }
                match found {
                    Ok(Some(len)) => {
                        self.bytes += (len - self.counted.min(len)) as u64;
                        self.counted = len;
                        Poll::Ready(Ok(Some(len)))
                    }
                    Ok(None) => {
                        self.end(None);
                        Poll::Ready(Ok(None))
                    }
                    Err(()) => self.broke(BodyError::Upstream(Failure::UpstreamUnreachable)),
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

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, ()>> {
        let Some(h2) = &mut self.incoming else {
            let Some(Lease::H1(lease)) = &mut self.lease else { return Poll::Ready(Err(())) };
            return lease.connection.wire.poll_body(cx).map_err(drop);
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
        self.counted -= taken.min(self.counted);
        if !self.over && self.counted == 0 && self.is_at_end() {
            self.end(None);
        }
        looked
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

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match ready!(self.poll_data(cx)) {
            Ok(Some(_)) => Poll::Ready(Some(Ok(Frame::data(self.take_bytes())))),
            Ok(None) => Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    fn exact_len(&self) -> Option<u64> {
        match (&self.incoming, &self.lease) {
            (Some(h2), _) => h2.incoming.size_hint().exact().map(|left| left + h2.at_hand.len() as u64),
            (None, Some(Lease::H1(lease))) => lease.connection.wire.body_len(),
            (None, Some(Lease::H2(_)) | None) => Some(0),
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
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes).into())))),
            Self::Download(download) => download.poll_frame(cx),
            Self::Watched(download) => download.borrow_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_done = |download: &Download| download.is_done() && download.trailers.is_none();
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Download(download) => is_done(download),
            Self::Watched(download) => is_done(&download.borrow()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let hint = |len: Option<u64>| len.map_or_else(SizeHint::default, SizeHint::with_exact);
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Download(download) => hint(download.exact_len()),
            Self::Watched(download) => hint(download.borrow().exact_len()),
        }
    }
}

impl From<Vec<u8>> for ReplyBody {
    fn from(bytes: Vec<u8>) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Whole(bytes) }
    }
}
