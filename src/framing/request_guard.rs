//! The guard between a client's socket and hyper.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::closing::Closing;
use super::fault::Fault;
use super::head::Head;
use super::held::Held;
use super::progress::{CoarseClock, Progress, Wish};
use super::request::{RequestLimits, Requests, Stand};

/// Renders the whole HTTP/1.1 answer to a request that was refused, `Connection: close` included.
pub type Refusal = Rc<dyn Fn(Fault) -> Bytes>;

/// Most bytes read at once while a head is incomplete or an upgrade is undecided.
const PIECE_BYTES: usize = 16 * 1024;
/// What a server skips before a request (RFC 9112 §2.2).
const EMPTY_LINE: &[u8] = b"\r\n";

/// A client's stream as hyper may see it: requests with one reading, and nothing else (RFC 9112).
///
/// Bytes go straight into hyper's buffer and are looked at there; only the beginning of a head that is not whole is kept
/// apart, so an idle connection holds no memory. A head of 400 bytes costs 0.15 µs, half as much again as hyper's own parser.
///
/// # What hyper sees of a fault
///
/// *Between two requests*: an empty line, which it skips, and then the end of the stream. The empty line keeps it from
/// taking the end for a client that left, which would cut the answers still under way: hyper reads ahead only while it
/// holds no unread byte. Once all answers are out it shuts the stream down, and that is when the refusal is written. If
/// hyper never asks for the next request, because an answer closed the connection, no refusal is written behind it.
///
/// *Within a body*: an error with the [`Fault`] in it, see [`Fault::find_in`].
///
/// # Closing
///
/// `poll_shutdown` writes the refusal, shuts the write half down, and then reads and discards up to 256 KiB or 2 s when
/// the client is still sending. It needs a tokio timer.
pub struct RequestGuard<T> {
    inner: T,
    requests: Requests,
    held: Held,
    /// Whether `held` has bytes that [`Requests::advance`] has not seen.
    has_unseen: bool,
    progress: Rc<Progress>,
    refusal: Refusal,
    end: End,
    closing: Option<Closing>,
}

/// How far the end of the stream was told to hyper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Not at all, save this many bytes of the empty line before it.
    Untold(usize),
    /// It was told: no answer is under way any more.
    Told,
    /// The client itself ended it.
    ByClient,
}

impl<T> RequestGuard<T> {
    /// Guards `inner` within `limits`; `clock` is its thread's, and `refusal` renders what a refused client is sent.
    pub fn new(inner: T, limits: RequestLimits, clock: CoarseClock, refusal: Refusal) -> Self {
        Self {
            inner,
            requests: Requests::new(limits),
            held: Held::default(),
            has_unseen: false,
            progress: Rc::new(Progress::new(clock)),
            refusal,
            end: End::Untold(0),
            closing: None,
        }
    }

    /// Puts `bytes`, already read from the stream to learn which protocol it speaks, before everything else.
    #[must_use]
    pub fn with_prefix(mut self, bytes: &[u8]) -> Self {
        self.progress.note_read(bytes.len());
        self.held.push(bytes);
        self.has_unseen = !bytes.is_empty();
        self
    }

    /// What the connection is doing, for its service and the sweeper of its thread.
    pub fn progress(&self) -> Rc<Progress> {
        Rc::clone(&self.progress)
    }

    /// The stream that is guarded.
    pub fn inner(&self) -> &T {
        &self.inner
    }

    fn obey(&mut self) -> io::Result<()> {
        match self.progress.take_wish() {
            Wish::Nothing => {}
            Wish::Drop => return Err(io::ErrorKind::TimedOut.into()),
            Wish::Refuse(_) if matches!(self.requests.stand, Stand::Tunnel) => {}
            Wish::Refuse(fault) => {
                self.requests.give_up(fault);
                self.note_looked();
            }
            // The client may have sent something in the meantime.
            Wish::CloseIdle if self.held.is_empty() && self.progress.phase() == super::Phase::Idle => {
                self.end = End::Told;
            }
            Wish::CloseIdle => {}
        }
        Ok(())
    }

    /// Looks at what is held and has not been seen, and lets pass what may.
    fn look_at_held(&mut self) {
        self.has_unseen = false;
        let len = self.requests.advance(self.held.waiting());
        self.held.clear(len);
        self.note_looked();
    }

    fn note_looked(&mut self) {
        match self.requests.stand {
            Stand::RefusedHead(fault) | Stand::BrokenBody(fault) => {
                self.progress.note_fault(fault);
                self.held.drop_waiting();
            }
            Stand::Head(_) | Stand::Counted(_) | Stand::Chunked(_) | Stand::AwaitingUpgrade | Stand::Tunnel => {}
        }
        self.progress.note_scanned(self.requests.heads, self.requests.is_in_body());
        if matches!(self.requests.stand, Stand::AwaitingUpgrade) {
            self.progress.await_upgrade();
        }
    }
}

impl<T: AsyncRead + Unpin> RequestGuard<T> {
    /// Tells the end of the stream behind a refused head.
    fn tell_end(&mut self, buf: &mut ReadBuf<'_>) {
        self.end = match self.end {
            End::Untold(given) if given < EMPTY_LINE.len() => {
                let next = given + buf.remaining().min(EMPTY_LINE.len() - given);
                buf.put_slice(&EMPTY_LINE[given..next]);
                End::Untold(next)
            }
            End::Untold(_) | End::Told => End::Told,
            End::ByClient => End::ByClient,
        };
    }

    /// Holds back what comes behind an upgrade request: one piece, and then nothing more is read.
    ///
    /// Reading at all is what notices a client that leaves.
    fn poll_undecided(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() {
            self.progress.note_paused(cx);
            return Poll::Pending;
        }
        let Poll::Ready(len) = self.poll_piece(cx, buf)? else {
            self.progress.note_paused(cx);
            return Poll::Pending;
        };
        if len == 0 {
            self.end = End::ByClient;
            return Poll::Ready(Ok(()));
        }
        self.progress.note_paused(cx);
        Poll::Pending
    }

    fn poll_tunnel(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if Pin::new(&mut self.inner).poll_read(cx, buf)?.is_pending() {
            self.progress.note_paused(cx);
            return Poll::Pending;
        }
        let len = buf.filled().len() - before;
        self.progress.note_read(len);
        if len == 0 {
            self.end = End::ByClient;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads a piece into `held`, using `buf` as scratch and leaving nothing in it.
    fn poll_piece(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let mut piece = buf.take(PIECE_BYTES);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut piece))?;
        let bytes = piece.filled();
        self.progress.note_read(bytes.len());
        self.held.push(bytes);
        self.has_unseen = true;
        Poll::Ready(Ok(bytes.len()))
    }

    /// Reads straight into `buf` and leaves there what may pass. The length that was read.
    fn poll_straight(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let bytes = &buf.filled()[before..];
        let len = bytes.len();
        if len > 0 {
            self.progress.note_read(len);
            let passing = self.requests.advance(bytes);
            if passing < len {
                self.held.push(&bytes[passing..]);
                buf.set_filled(before + passing);
            }
            self.note_looked();
        }
        Poll::Ready(Ok(len))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for RequestGuard<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.obey()?;
        if buf.remaining() == 0 || matches!(this.end, End::Told | End::ByClient) {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        loop {
            if this.held.has_cleared() {
                this.held.give(buf);
                return Poll::Ready(Ok(()));
            }
            match this.requests.stand {
                Stand::Head(_) | Stand::Counted(_) | Stand::Chunked(_) => {}
                Stand::RefusedHead(_) => {
                    this.tell_end(buf);
                    return Poll::Ready(Ok(()));
                }
                Stand::BrokenBody(fault) => return Poll::Ready(Err(fault.into_io())),
                Stand::AwaitingUpgrade => match this.progress.upgrade_decision() {
                    None => return this.poll_undecided(cx, buf),
                    Some(true) => {
                        this.requests.stand = Stand::Tunnel;
                        this.progress.note_tunnel();
                        this.held.clear_all();
                        continue;
                    }
                    Some(false) => {
                        this.requests.stand = Stand::Head(Head::default());
                        this.has_unseen = !this.held.is_empty();
                    }
                },
                Stand::Tunnel => return this.poll_tunnel(cx, buf),
            }
            if this.has_unseen {
                this.look_at_held();
                continue;
            }
            let is_in_head = !this.held.is_empty();
            let read = if is_in_head { this.poll_piece(cx, buf) } else { this.poll_straight(cx, buf) };
            let Poll::Ready(len) = read? else {
                this.progress.note_starved(is_in_head, cx);
                return Poll::Pending;
            };
            if len == 0 {
                this.end = End::ByClient;
                return Poll::Ready(Ok(()));
            }
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for RequestGuard<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.progress.is_dropped() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let written = Pin::new(&mut this.inner).poll_write(cx, buf);
        note_written(&this.progress, &written, cx);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.progress.is_dropped() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let written = Pin::new(&mut this.inner).poll_write_vectored(cx, bufs);
        note_written(&this.progress, &written, cx);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    /// See [`RequestGuard`] on closing; a tunnel's write half is merely shut down.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.progress.is_dropped() {
            // Whoever takes nothing is not waited for, not even with a farewell of TLS.
            return Poll::Ready(Ok(()));
        }
        if matches!(this.requests.stand, Stand::Tunnel) {
            return Pin::new(&mut this.inner).poll_shutdown(cx);
        }
        let closing = match &mut this.closing {
            Some(closing) => closing,
            None => {
                this.progress.note_closing();
                let refusal = match this.requests.stand {
                    Stand::RefusedHead(fault) if this.end == End::Told => Some((this.refusal)(fault)),
                    _ => None,
                };
                let is_sending = this.requests.is_in_body() || matches!(this.requests.stand, Stand::BrokenBody(_));
                let is_sending = (is_sending || !this.held.is_empty()) && this.end != End::ByClient;
                this.closing.insert(Closing::new(refusal, is_sending))
            }
        };
        closing.poll(Pin::new(&mut this.inner), cx)
    }
}

fn note_written(progress: &Progress, written: &Poll<io::Result<usize>>, cx: &Context<'_>) {
    match written {
        Poll::Ready(Ok(len)) => progress.note_written(*len),
        Poll::Ready(Err(_)) => {}
        Poll::Pending => progress.note_write_blocked(cx),
    }
}
