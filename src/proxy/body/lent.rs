//! Request bodies that a task of an HTTP/2 connection sends.
//!
//! The library polls such a body in a task of its own, which nothing else ends once the answer has begun: neither the end
//! of the exchange nor that of the client's connection, which the body would hold open. So it is lent, and called back.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::BodyError;
use super::upload::{Upload, UploadProgress};
use crate::reply::Failure;
use crate::wire::MemorySum;

thread_local! {
    /// The body that was polled last and has no task yet: the next task of an upstream's connection is its.
    static WITHOUT_TASK: RefCell<Option<Rc<Lent>>> = const { RefCell::new(None) };
}

/// A request body as it goes to an upstream over HTTP/2.
pub(crate) enum RequestBody {
    /// There is none.
    Empty,
    /// One that streams from the client.
    Lent(Borrower),
}

/// A body that is lent. Dropping this calls it back: whatever it holds of the client is let go of at once, its task ends,
/// and a stream that is not over is reset.
pub(crate) struct Lender(Rc<Lent>);

/// The other side: what the library has.
pub(crate) struct Borrower(Rc<Lent>);

struct Lent {
    upload: RefCell<Option<Box<Upload>>>,
    progress: Rc<UploadProgress>,
    memory: MemorySum,
    /// Whether any of it was given away.
    is_touched: Cell<bool>,
    /// Whether it was given away whole and is here all the same.
    is_kept: Cell<bool>,
    /// Whether its end was.
    is_over: Cell<bool>,
    has_task: Cell<bool>,
    is_called_back: Cell<bool>,
    /// Whether the library has done with it.
    is_returned: Cell<bool>,
    /// The task that sends it.
    sender: RefCell<Option<Waker>>,
    /// Who waits until it is sent.
    waiter: RefCell<Option<Waker>>,
}

impl Lent {
    /// Whether what was given away of it cannot be had again.
    fn is_lost(&self) -> bool {
        self.is_touched.get() && !self.is_kept.get()
    }
}

impl Lender {
    /// Lends a body. A short one that is given away whole is kept, among `memory`, until the library has done with it and
    /// nobody can want it back.
    pub(crate) fn lend(upload: Box<Upload>, memory: MemorySum) -> (Self, RequestBody) {
        let progress = Rc::clone(upload.progress());
        let lent = Rc::new(Lent {
            upload: RefCell::new(Some(upload)),
            progress,
            memory,
            is_touched: Cell::new(false),
            is_kept: Cell::new(false),
            is_over: Cell::new(false),
            has_task: Cell::new(false),
            is_called_back: Cell::new(false),
            is_returned: Cell::new(false),
            sender: RefCell::default(),
            waiter: RefCell::default(),
        });
        (Self(Rc::clone(&lent)), RequestBody::Lent(Borrower(lent)))
    }

    /// Takes it back, if nothing of it was given away or all of it is kept.
    pub(crate) fn take_back(&self) -> Option<Box<Upload>> {
        if self.0.is_lost() { None } else { self.0.upload.borrow_mut().take() }
    }

    /// Why it broke off, when that was the client's doing.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.0.progress.failure.get()
    }

    /// How many bytes of it were taken from the client.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.0.progress.bytes.get()
    }

    /// Whether nothing of it is to be sent any more, whole or not.
    pub(crate) fn is_returned(&self) -> bool {
        self.0.is_returned.get()
    }

    /// Ready once nothing of it is to be sent any more, whole or not.
    pub(super) fn poll_returned(&self, cx: &Context<'_>) -> Poll<()> {
        if self.0.is_returned.get() {
            return Poll::Ready(());
        }
        remember(&self.0.waiter, cx);
        Poll::Pending
    }
}

impl Drop for Lender {
    fn drop(&mut self) {
        if self.0.is_returned.get() {
            return;
        }
        self.0.is_called_back.set(true);
        let upload = self.0.upload.borrow_mut().take();
        drop(upload);
        wake(&self.0.sender);
    }
}

impl Drop for Borrower {
    fn drop(&mut self) {
        self.0.is_returned.set(true);
        if self.0.is_lost() {
            let upload = self.0.upload.borrow_mut().take();
            drop(upload);
        }
        wake(&self.0.waiter);
    }
}

/// Runs a task of an upstream's connection on this thread. The one that sends a body ends when that is called back: it
/// may be waiting for room, and not ask for the body before there is some.
pub(crate) fn spawn_sending<F: Future<Output = ()> + 'static>(future: F) {
    match WITHOUT_TASK.take() {
        None => drop(tokio::task::spawn_local(future)),
        Some(lent) => {
            lent.has_task.set(true);
            drop(tokio::task::spawn_local(async move {
                let mut future = pin!(future);
                poll_fn(|cx| {
                    if lent.is_called_back.get() {
                        return Poll::Ready(());
                    }
                    remember(&lent.sender, cx);
                    future.as_mut().poll(cx)
                })
                .await;
            }));
        }
    }
}

fn remember(slot: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    match &mut *slot.borrow_mut() {
        Some(waker) => waker.clone_from(cx.waker()),
        none => *none = Some(cx.waker().clone()),
    }
}

fn wake(slot: &RefCell<Option<Waker>>) {
    // Taken out first: a waker may run code that comes back here.
    let waker = slot.borrow_mut().take();
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Borrower {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let lent = &self.0;
        if lent.is_over.get() {
            return Poll::Ready(None);
        }
        let mut slot = lent.upload.borrow_mut();
        let Some(upload) = &mut *slot else { return Poll::Ready(Some(Err(BodyError::ClientGone))) };
        match ready!(upload.poll_data(cx)) {
            Ok(Some(_)) => {
                let is_first = !lent.is_touched.replace(true);
                let bytes = upload.take_bytes();
                if is_first && upload.keep(&bytes, &lent.memory) {
                    lent.is_kept.set(true);
                    lent.is_over.set(true);
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Ok(None) => {
                lent.is_touched.set(true);
                lent.is_over.set(true);
                let trailers = upload.take_trailers();
                *slot = None;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Err(error) => {
                *slot = None;
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self::Lent(borrower) = &*self else { return Poll::Ready(None) };
        let polled = borrower.poll(cx);
        if !borrower.0.has_task.get() {
            let goes_on = !matches!(&polled, Poll::Ready(None | Some(Err(_)))) && !self.is_end_stream();
            WITHOUT_TASK.set(goes_on.then(|| Rc::clone(&borrower.0)));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Lent(Borrower(lent)) => {
                lent.is_over.get() || lent.upload.borrow().as_ref().is_some_and(|upload| upload.is_end_stream())
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Lent(Borrower(lent)) if lent.is_over.get() => SizeHint::with_exact(0),
            Self::Lent(Borrower(lent)) => {
                let left = lent.upload.borrow().as_ref().and_then(|upload| upload.exact_len());
                left.map_or_else(SizeHint::default, SizeHint::with_exact)
            }
        }
    }
}
