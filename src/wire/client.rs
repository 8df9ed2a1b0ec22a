//! One client's connection: requests are read from it and answers are written to it, one after the other.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::buffer::{self, Buffers, Inbox};
use super::closing::Closing;
use super::cursor::{Cursor, Held};
use super::outbox::Outbox;
use super::pipe::Pipe;
use super::progress::{Phase, Progress};
use super::stream::Stream;
use crate::domain::fields::Fields;
use crate::framing::{Body, Fault, RequestHeads, RequestRead};

/// What came of waiting for a request.
#[derive(Debug)]
pub enum Arrival {
    /// Its head is whole: see [`ClientWire::with_head`].
    Request(RequestRead),
    /// It has no single reading, is too large, or does not come in time.
    Refused(Fault),
    /// The client ended the connection, or it was idle for too long.
    Ended,
}

/// Why a request body cannot be read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// It breaks a rule, or does not come in time.
    Fault(Fault),
    /// The client is gone.
    Gone,
}

/// The interim answer that invites a body (RFC 9110 §15.2.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The longest body that is waited for whole, bytes: what one buffer holds.
pub const SHORT_BODY: u64 = buffer::BYTES as u64;

/// A client's connection. It belongs to one thread; whoever reads the body and whoever writes the answer share it.
///
/// No memory is held for reading while nothing was read.
#[derive(Debug)]
pub struct ClientWire {
    stream: RefCell<Stream>,
    inbox: RefCell<Inbox>,
    cursor: RefCell<Cursor>,
    /// What is left of the interim answer: none of it is wanted, some is to be sent.
    invitation: Cell<&'static [u8]>,
    /// Whether some of it may still be held back.
    is_inviting: Cell<bool>,
    has_ended: Cell<bool>,
    progress: Rc<Progress>,
}

impl ClientWire {
    /// A connection of which `prefix` was read already.
    pub fn new(stream: Stream, prefix: &[u8], progress: Rc<Progress>, buffers: Rc<Buffers>) -> Rc<Self> {
        let mut inbox = Inbox::new(buffers);
        if !prefix.is_empty() {
            inbox.borrow_memory();
            inbox.buffer.push(prefix);
        }
        Rc::new(Self {
            stream: RefCell::new(stream),
            inbox: RefCell::new(inbox),
            cursor: RefCell::default(),
            invitation: Cell::new(&[]),
            is_inviting: Cell::new(false),
            has_ended: Cell::new(false),
            progress,
        })
    }

    /// What it is doing, for the sweeper of its thread.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Waits for the next request head.
    pub fn poll_request(&self, cx: &mut Context<'_>, heads: &mut RequestHeads) -> Poll<Arrival> {
        let inbox = &mut *self.inbox.borrow_mut();
        if let Some(fault) = self.progress.take_refusal() {
            return Poll::Ready(Arrival::Refused(fault));
        }
        if self.progress.is_dropped() || (self.progress.take_close_idle() && inbox.buffer.is_empty()) {
            return Poll::Ready(Arrival::Ended);
        }
        loop {
            if inbox.buffer.is_empty() {
                self.progress.enter(Phase::Idle);
            } else {
                inbox.borrow_table();
                match heads.read(inbox.buffer.data(), &mut inbox.table) {
                    Ok(Some(read)) => {
                        self.progress.enter(Phase::Exchange);
                        self.progress.begin_exchange();
                        return Poll::Ready(Arrival::Request(read));
                    }
                    Ok(None) => self.progress.enter(Phase::Head),
                    Err(fault) => return Poll::Ready(Arrival::Refused(fault)),
                }
            }
            match self.poll_fill(cx, inbox) {
                Poll::Ready(Ok(len)) if len > 0 => {}
                Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(Arrival::Ended),
                Poll::Pending => {
                    if inbox.buffer.is_empty() {
                        inbox.rest();
                    } else {
                        inbox.wait();
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// Looks at a head that [`ClientWire::poll_request`] found: its bytes, and its fields.
    pub fn with_head<R>(&self, look: impl FnOnce(&[u8], Fields<'_>) -> R) -> R {
        let inbox = self.inbox.borrow();
        let bytes = inbox.buffer.data();
        look(bytes, inbox.table.of(bytes))
    }

    /// Leaves the head behind; what follows is `body`. With `invites`, the client is waiting to be asked for it.
    pub fn enter_body(&self, head_len: usize, body: Body, invites: bool) {
        let inbox = &mut *self.inbox.borrow_mut();
        inbox.buffer.consume(head_len);
        *self.cursor.borrow_mut() = Cursor::new(body);
        self.invitation.set(if invites && inbox.buffer.is_empty() { CONTINUE } else { &[] });
        inbox.release_if_empty();
    }

    /// Waits for data of the body: how many bytes of it there are; none at its end. Reading invites a client that waits.
    ///
    /// # Errors
    /// Why there will be no more of it.
    pub fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, BodyFault>> {
        let polled = self.poll_data(cx);
        self.waited_for(cx, polled)
    }

    /// Waits until all that is left of the body is at hand, where that is known to be no more than [`SHORT_BODY`]; others
    /// are not waited for. Reading invites a client that waits.
    ///
    /// # Errors
    /// Why there will be no more of it.
    pub fn poll_short_body(&self, cx: &mut Context<'_>) -> Poll<Result<(), BodyFault>> {
        let polled = self.poll_gather(cx);
        self.waited_for(cx, polled)
    }

    /// Notes whether somebody waits for the client's body now; nobody does any more, whatever came of it.
    fn waited_for<T>(&self, cx: &Context<'_>, polled: Poll<T>) -> Poll<T> {
        if polled.is_pending() {
            self.progress.read_by(cx);
        }
        self.progress.enter(if polled.is_pending() { Phase::Body } else { Phase::Exchange });
        polled
    }

    fn poll_gather(&self, cx: &mut Context<'_>) -> Poll<Result<(), BodyFault>> {
        let (inbox, cursor) = (&mut *self.inbox.borrow_mut(), &mut *self.cursor.borrow_mut());
        loop {
            let held = cursor.gather(&mut inbox.buffer).map_err(BodyFault::Fault)? as u64;
            if !cursor.exact_len().is_some_and(|len| held < len && len <= SHORT_BODY) {
                return Poll::Ready(Ok(()));
            }
            if let Some(fault) = self.progress.take_refusal() {
                return Poll::Ready(Err(BodyFault::Fault(fault)));
            }
            ready!(self.poll_invite(cx));
            match self.poll_fill(cx, inbox) {
                Poll::Ready(Ok(len)) if len > 0 => {
                    // Nobody waits for it when it is taken; it counts as given now.
                    self.progress.giving().moved(0, len as u64);
                    self.progress.enter(Phase::Exchange);
                    inbox.recount();
                }
                Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(Err(BodyFault::Gone)),
                Poll::Pending => {
                    inbox.release_if_empty();
                    inbox.wait();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Whether nothing of the body is still to come.
    pub fn is_body_at_hand(&self) -> bool {
        self.cursor.borrow().is_whole()
    }

    fn poll_data(&self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, BodyFault>> {
        let (inbox, cursor) = (&mut *self.inbox.borrow_mut(), &mut *self.cursor.borrow_mut());
        loop {
            match cursor.look(&mut inbox.buffer).map_err(BodyFault::Fault)? {
                Held::Data(len) => return Poll::Ready(Ok(Some(len))),
                Held::End => return Poll::Ready(Ok(None)),
                Held::Nothing => {}
            }
            if let Some(fault) = self.progress.take_refusal() {
                return Poll::Ready(Err(BodyFault::Fault(fault)));
            }
            if self.poll_invite(cx).is_pending() {
                return Poll::Pending;
            }
            match self.poll_fill(cx, inbox) {
                Poll::Ready(Ok(len)) if len > 0 => {}
                Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(Err(BodyFault::Gone)),
                Poll::Pending => {
                    inbox.release_if_empty();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Looks at the data that [`ClientWire::poll_body`] found, and takes as much of it away as `look` returns.
    pub fn take_body<R>(&self, look: impl FnOnce(&[u8], &mut usize) -> R) -> R {
        let (inbox, cursor) = (&mut *self.inbox.borrow_mut(), &mut *self.cursor.borrow_mut());
        let data = match cursor.look(&mut inbox.buffer) {
            Ok(Held::Data(len)) => len,
            Ok(Held::Nothing | Held::End) | Err(_) => 0,
        };
        let mut taken = 0;
        let looked = look(&inbox.buffer.data()[..data], &mut taken);
        let was_full = inbox.buffer.is_full();
        cursor.consume(&mut inbox.buffer, taken.min(data));
        self.progress.giving().moved(0, taken as u64);
        inbox.grow_if_full(was_full);
        looked
    }

    /// How many bytes of the body are left, when that is known.
    pub fn body_len(&self) -> Option<u64> {
        self.cursor.borrow().exact_len()
    }

    /// Whether the body was read to its end.
    pub fn is_body_over(&self) -> bool {
        self.cursor.borrow().is_over()
    }

    /// Looks at the trailer section of a body that is over.
    pub fn with_trailers<R>(&self, look: impl FnOnce(&[u8]) -> R) -> R {
        look(self.cursor.borrow().trailers())
    }

    /// Ready once the client is gone. What it sends meanwhile, its next request, is kept as far as one buffer holds it.
    ///
    /// Looks at nothing while a body is being read: whoever reads it notices.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.progress.is_dropped() {
            return Poll::Ready(());
        }
        let inbox = &mut *self.inbox.borrow_mut();
        if !self.cursor.borrow().is_over() || !inbox.buffer.is_empty() {
            return Poll::Pending;
        }
        match self.poll_fill(cx, inbox) {
            Poll::Ready(Ok(len)) if len > 0 => Poll::Pending,
            Poll::Ready(Ok(_) | Err(_)) => Poll::Ready(()),
            Poll::Pending => {
                inbox.release_if_empty();
                Poll::Pending
            }
        }
    }

    /// Writes all of `out`.
    ///
    /// # Errors
    /// The stream's, and `TimedOut` when the client has taken nothing for too long.
    #[inline]
    pub fn poll_write(&self, cx: &mut Context<'_>, out: &mut Outbox) -> Poll<io::Result<()>> {
        if !self.invitation.get().is_empty() {
            // An answer makes the interim one pointless; half of that cannot be taken back.
            if self.invitation.get().len() == CONTINUE.len() {
                self.invitation.set(&[]);
            }
            ready!(self.poll_invite(cx));
        }
        if out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let before = out.left().len();
        let drained = self.noting(cx, |cx, stream| out.poll_drain(cx, stream).map_ok(|()| before));
        let taken = before - out.left().len();
        if drained.is_pending() && taken > 0 {
            // It took something, and has not taken the rest only since now.
            self.progress.note_written(taken);
            self.progress.note_write_blocked();
        }
        drained.map_ok(drop)
    }

    /// Writes some of `data`; how much of it.
    ///
    /// # Errors
    /// As [`ClientWire::poll_write`].
    pub fn poll_write_some(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.noting(cx, |cx, stream| Pin::new(stream).poll_write(cx, data))
    }

    /// Whether bytes can go to it out of a pipe.
    pub fn takes_pipes(&self) -> bool {
        self.stream.borrow().plain_tcp().is_some()
    }

    /// Writes some of what is in a pipe; how much of it, or none where the kernel does not do that.
    ///
    /// # Errors
    /// As [`ClientWire::poll_write`].
    pub(super) fn poll_write_pipe(&self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<io::Result<Option<usize>>> {
        let mut is_able = true;
        let written = self.noting(cx, |cx, stream| match stream.plain_tcp() {
            Some(socket) => pipe.poll_drain(cx, socket).map_ok(|len| {
                is_able = len.is_some();
                len.unwrap_or_default()
            }),
            None => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        });
        written.map_ok(|len| is_able.then_some(len))
    }

    /// Sends what TLS holds back.
    ///
    /// # Errors
    /// As [`ClientWire::poll_write`].
    #[inline]
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.stream.borrow().is_tls() {
            return Poll::Ready(Ok(()));
        }
        self.noting(cx, |cx, stream| Pin::new(stream).poll_flush(cx).map_ok(|()| 0)).map_ok(drop)
    }

    /// Lets `write` write, which says how many bytes were taken, and notes what came of it.
    fn noting(
        &self,
        cx: &mut Context<'_>,
        write: impl FnOnce(&mut Context<'_>, &mut Stream) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.progress.is_dropped() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let written = write(cx, &mut self.stream.borrow_mut());
        match &written {
            Poll::Ready(taken) => self.progress.note_written(taken.as_ref().copied().unwrap_or_default()),
            Poll::Pending => self.progress.note_write_blocked(),
        }
        written
    }

    /// Sends what is left of the interim answer, to its last byte. Trouble shows when the body is read.
    fn poll_invite(&self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.invitation.get().is_empty() {
            match self.noting(cx, |cx, stream| Pin::new(stream).poll_write(cx, self.invitation.get())) {
                Poll::Ready(Ok(len)) => self.invitation.set(self.invitation.get().get(len..).unwrap_or_default()),
                Poll::Ready(Err(_)) => self.invitation.set(&[]),
                Poll::Pending => return Poll::Pending,
            }
            self.is_inviting.set(true);
        }
        if self.is_inviting.get() {
            // TLS may hold a part of it back.
            ready!(self.poll_flush(cx)).unwrap_or_default();
            self.is_inviting.set(false);
        }
        Poll::Ready(())
    }

    fn poll_fill(&self, cx: &mut Context<'_>, inbox: &mut Inbox) -> Poll<io::Result<usize>> {
        if self.progress.is_dropped() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if self.has_ended.get() {
            return Poll::Ready(Ok(0));
        }
        inbox.borrow_memory();
        let read = ready!(inbox.buffer.poll_fill(cx, &mut *self.stream.borrow_mut()))?;
        self.has_ended.set(read == 0);
        Poll::Ready(Ok(read))
    }

    /// Ends the connection: writes `refusal` if there is one, shuts our half down, and lets the client see it. Whatever
    /// it is still sending is read and discarded for a bounded while (RFC 9112 §9.6).
    pub async fn close(&self, refusal: Option<bytes::Bytes>) {
        if self.progress.is_dropped() {
            // Whoever takes nothing is not waited for, not even with a farewell of TLS.
            return;
        }
        self.progress.enter(Phase::Closing);
        let is_sending = {
            let has_more = !self.cursor.borrow().is_over() || !self.inbox.borrow().buffer.is_empty();
            has_more && !self.has_ended.get()
        };
        let mut closing = Closing::new(refusal, is_sending);
        // Trouble on the way only ends it sooner.
        let _closed = std::future::poll_fn(|cx| {
            let mut stream = self.stream.borrow_mut();
            closing.poll(Pin::new(&mut *stream), cx)
        })
        .await;
    }

    /// Gives up the stream, and what was read and not used: the beginning of a tunnel.
    pub fn into_stream(self: Rc<Self>) -> Option<(Stream, Vec<u8>)> {
        self.progress.enter(Phase::Tunnel);
        let wire = Rc::into_inner(self)?;
        let rest = wire.inbox.borrow().buffer.data().to_vec();
        Some((wire.stream.into_inner(), rest))
    }
}
