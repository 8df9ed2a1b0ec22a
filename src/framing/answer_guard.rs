//! The guard between an upstream's socket and hyper.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::answer::{AnswerLimits, Answers, Asked, Stand};
use super::fault::Fault;
use super::held::Held;

/// Most bytes read at once while a head is incomplete.
const PIECE_BYTES: usize = 16 * 1024;

/// Whether a request asks the upstream to switch protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeWanted {
    /// It does: a 101 turns the connection into a tunnel.
    Yes,
    /// It does not: a 101 is a fault.
    No,
}

/// What is in flight on one upstream connection, shared between its guard and the pool.
#[derive(Debug, Default)]
pub struct Exchange {
    asked: Cell<Option<Asked>>,
    fault: Cell<Option<Fault>>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
}

impl Exchange {
    /// Says that a request is about to be sent. Call it before hyper is given the request.
    pub fn begin(&self, method: &http::Method, upgrade: UpgradeWanted) {
        let is_head = method == http::Method::HEAD;
        self.asked.set(Some(Asked { is_head, wants_upgrade: upgrade == UpgradeWanted::Yes }));
    }

    /// Whether a request was begun and the last byte of its answer has not been read.
    pub fn is_in_flight(&self) -> bool {
        self.asked.get().is_some()
    }

    /// Whether bytes came that belong to no answer, or an answer broke the rules: the connection must not be used again.
    pub fn is_poisoned(&self) -> bool {
        self.fault.get().is_some()
    }

    /// What poisoned it.
    pub fn fault(&self) -> Option<Fault> {
        self.fault.get()
    }

    /// Bytes read from the upstream, after TLS.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.get()
    }

    /// Bytes written to the upstream, before TLS.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.get()
    }
}

/// An upstream's stream as hyper may see it: answers with one reading to requests that were sent, and nothing else.
///
/// An answer at fault surfaces as an error with the [`Fault`] in it, see [`Fault::find_in`], before any byte of its head
/// has passed; a body that breaks the rules, at the byte that does. Bytes behind an answer are withheld: the answer
/// passes, the connection is poisoned. Behind a 101 that was asked for, bytes pass unseen.
pub struct AnswerGuard<T> {
    inner: T,
    answers: Answers,
    held: Held,
    exchange: Rc<Exchange>,
}

impl<T> AnswerGuard<T> {
    /// Guards `inner` within `limits`.
    pub fn new(inner: T, limits: AnswerLimits) -> Self {
        Self { inner, answers: Answers::new(limits), held: Held::default(), exchange: Rc::new(Exchange::default()) }
    }

    /// What is in flight, for the pool.
    pub fn exchange(&self) -> Rc<Exchange> {
        Rc::clone(&self.exchange)
    }

    /// The stream that is guarded.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut asked = self.exchange.asked.get();
        let passing = self.answers.advance(bytes, &mut asked);
        self.exchange.asked.set(asked);
        if let Stand::Broken(fault) = self.answers.stand {
            self.exchange.fault.set(Some(fault));
        }
        passing
    }

    fn note_read(&self, len: usize) {
        self.exchange.bytes_in.set(self.exchange.bytes_in.get() + len as u64);
    }

    fn note_written(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(len)) = written {
            self.exchange.bytes_out.set(self.exchange.bytes_out.get() + *len as u64);
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for AnswerGuard<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.held.has_cleared() {
                this.held.give(buf);
                return Poll::Ready(Ok(()));
            }
            if let Stand::Broken(fault) = this.answers.stand {
                return Poll::Ready(Err(fault.into_io()));
            }
            let len;
            if this.held.is_empty() {
                let before = buf.filled().len();
                ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
                let bytes = &buf.filled()[before..];
                len = bytes.len();
                let passing = this.advance(bytes);
                if passing < len {
                    if !matches!(this.answers.stand, Stand::Broken(_)) {
                        this.held.push(&bytes[passing..]);
                    }
                    buf.set_filled(before + passing);
                }
                this.note_read(len);
                if passing > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let mut piece = buf.take(PIECE_BYTES);
                ready!(Pin::new(&mut this.inner).poll_read(cx, &mut piece))?;
                len = piece.filled().len();
                this.held.push(piece.filled());
                let held = std::mem::take(&mut this.held);
                let passing = this.advance(held.waiting());
                this.held = held;
                this.held.clear(passing);
                if matches!(this.answers.stand, Stand::Broken(_)) {
                    this.held.drop_waiting();
                }
                this.note_read(len);
            }
            if len == 0 {
                // What is held is half a head, which nobody will ever read.
                this.held.drop_waiting();
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for AnswerGuard<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write(cx, buf);
        this.note_written(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        this.note_written(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
