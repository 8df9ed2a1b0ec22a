//! A stream with what it takes up, which is given back once it is closed and not before.
//!
//! Must not know what is sent over it.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connect::Places;
use crate::wire::Stream;

/// A stream with the places that it takes up.
pub(super) struct Placed {
    stream: Stream,
    cut: Rc<Cut>,
    _places: Places,
}

/// Ends a stream from outside: the library that has it may wait for ever for a peer that takes nothing.
#[derive(Default)]
pub(super) struct Cut {
    is_made: Cell<bool>,
    /// The task that has the stream.
    task: RefCell<Option<Waker>>,
}

impl Cut {
    /// Makes every read and write fail from now on.
    pub(super) fn make(&self) {
        self.is_made.set(true);
        // Taken out first: a waker may run code that comes back here.
        let task = self.task.borrow_mut().take();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Placed {
    /// This stream, until `cut` is made.
    pub(super) fn new(stream: Stream, places: Places, cut: &Rc<Cut>) -> Self {
        Self { stream, cut: Rc::clone(cut), _places: places }
    }

    fn poll<T>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut Stream>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Self { stream, cut, .. } = self.get_mut();
        if cut.is_made.get() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let polled = poll(Pin::new(stream), cx);
        if polled.is_pending() {
            match &mut *cut.task.borrow_mut() {
                Some(task) => task.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
        }
        polled
    }
}

impl AsyncRead for Placed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |stream, cx| stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Placed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(cx, |stream, cx| stream.poll_write(cx, data))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(cx, |stream, cx| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, |stream, cx| stream.poll_shutdown(cx))
    }
}
