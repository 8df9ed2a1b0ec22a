//! One upstream's connection: requests are written to it and answers are read from it, one after the other.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::buffer::{Buffers, Inbox};
use super::client::ClientWire;
use super::cursor::{Cursor, Held};
use super::outbox::Outbox;
use super::pipe::{self, Pipe};
use super::stream::Stream;
use crate::domain::fields::Fields;
use crate::framing::{AnswerHeads, AnswerLimits, AnswerRead, AnswerStep, Asked, Fault};

/// A connection to an upstream, used by one request at a time.
///
/// Nobody watches it while it is idle; [`UpstreamWire::is_fresh`] tells before the next use whether it still stands.
/// No memory is held for reading while nothing was read.
#[derive(Debug)]
pub struct UpstreamWire {
    stream: Stream,
    inbox: Inbox,
    heads: AnswerHeads,
    cursor: Cursor,
    asked: Option<Asked>,
    /// Whether the upstream said, or showed, that this is its last answer.
    is_last: bool,
    /// Whether any byte came since the request was begun.
    has_begun: bool,
    /// What a large body goes through without being looked at.
    pipe: Option<Box<Pipe>>,
}

/// The head of an answer.
#[derive(Debug)]
pub struct UpstreamAnswer {
    /// What it says about itself and its body.
    pub read: AnswerRead,
    /// Whether a byte of it came together with its head, so that it can go on together with it.
    pub has_data: bool,
}

/// Why an answer does not come, or not to its end.
#[derive(Debug)]
pub enum AnswerFault {
    /// It breaks the rules of HTTP.
    Fault(Fault),
    /// The connection ended, cleanly or not; whether any byte had come, an informational answer's included.
    Ended {
        /// Whether one had.
        has_begun: bool,
    },
}

impl UpstreamWire {
    /// A connection that was just opened.
    pub fn new(stream: Stream, buffers: Rc<Buffers>) -> Self {
        Self {
            stream,
            inbox: Inbox::new(buffers),
            heads: AnswerHeads::new(AnswerLimits::default()),
            cursor: Cursor::default(),
            asked: None,
            is_last: false,
            has_begun: false,
            pipe: None,
        }
    }

    /// Whether an idle connection can be used again: it neither ended nor said anything unasked.
    ///
    /// Costs a system call only when something came. What is still on its way nobody can know.
    pub fn is_fresh(&mut self) -> bool {
        if self.is_last || !self.inbox.buffer.is_empty() {
            return false;
        }
        let cx = &mut Context::from_waker(Waker::noop());
        if self.stream.poll_readable(cx).is_pending() {
            return true;
        }
        // TLS has messages of its own; anything else is the end, or an answer to nothing.
        let mut one = [0; 1];
        Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut one)).is_pending()
    }

    /// Says which request is about to be written.
    pub fn begin(&mut self, asked: Asked) {
        self.asked = Some(asked);
        self.has_begun = false;
        self.cursor = Cursor::default();
    }

    /// Writes all of `out`.
    ///
    /// # Errors
    /// The stream's.
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Outbox) -> Poll<io::Result<()>> {
        out.poll_drain(cx, &mut self.stream)
    }

    /// Writes some of `data`; how much of it.
    ///
    /// # Errors
    /// The stream's.
    pub fn poll_write_some(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    /// Sends what TLS holds back.
    ///
    /// # Errors
    /// The stream's.
    #[inline]
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.stream.is_tls() { Pin::new(&mut self.stream).poll_flush(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Waits for the head of the answer; informational ones are dropped. Its fields are in [`UpstreamWire::with_head`].
    ///
    /// # Errors
    /// Why none will come. The connection cannot be used again.
    pub fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<UpstreamAnswer, AnswerFault>> {
        let Some(asked) = self.asked else { return Poll::Ready(Err(AnswerFault::Fault(Fault::Unrequested))) };
        loop {
            if !self.inbox.buffer.is_empty() {
                self.inbox.borrow_table();
                let step = self.heads.read(self.inbox.buffer.data(), asked, &mut self.inbox.table);
                match step.map_err(AnswerFault::Fault)? {
                    AnswerStep::Unfinished => {}
                    AnswerStep::Informational(len) => {
                        self.inbox.buffer.consume(len);
                        continue;
                    }
                    AnswerStep::Final(read) => {
                        self.is_last |= !read.persists;
                        let has_data = self.inbox.buffer.data().len() > read.len;
                        return Poll::Ready(Ok(UpstreamAnswer { read, has_data }));
                    }
                }
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(len)) if len > 0 => self.has_begun = true,
                Poll::Ready(Ok(_) | Err(_)) => {
                    return Poll::Ready(Err(AnswerFault::Ended { has_begun: self.has_begun }));
                }
                Poll::Pending => {
                    self.inbox.release_if_empty();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Looks at a head that [`UpstreamWire::poll_answer`] found: its bytes, and its fields.
    pub fn with_head<R>(&self, look: impl FnOnce(&[u8], Fields<'_>) -> R) -> R {
        let bytes = self.inbox.buffer.data();
        look(bytes, self.inbox.table.of(bytes))
    }

    /// Leaves the head behind; what follows is its body.
    pub fn enter_body(&mut self, read: AnswerRead) {
        self.inbox.buffer.consume(read.len);
        self.cursor = Cursor::new(read.body);
        self.is_last |= self.cursor.ends_with_connection();
        self.settle();
    }

    /// Waits for data of the body: how many bytes of it there are; none at its end.
    ///
    /// # Errors
    /// Why there will be no more of it. The connection cannot be used again.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, AnswerFault>> {
        if self.is_piped() {
            return Poll::Ready(Ok(Some(self.piped())));
        }
        loop {
            match self.cursor.look(&mut self.inbox.buffer).map_err(AnswerFault::Fault)? {
                Held::Data(len) => return Poll::Ready(Ok(Some(len))),
                Held::End => {
                    self.settle();
                    return Poll::Ready(Ok(None));
                }
                Held::Nothing => {}
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(len)) if len > 0 => {}
                Poll::Ready(Ok(_)) if self.cursor.ends_with_connection() => self.cursor.end_with_connection(),
                Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(Err(AnswerFault::Ended { has_begun: true })),
                Poll::Pending => {
                    self.inbox.release_if_empty();
                    return Poll::Pending;
                }
            }
        }
    }

    /// As [`UpstreamWire::poll_body`], for somebody who takes the data with [`UpstreamWire::poll_pass`] where
    /// [`UpstreamWire::is_piped`] says so: much of it, of which nothing was read yet, stays in the kernel.
    ///
    /// # Errors
    /// As [`UpstreamWire::poll_body`].
    pub fn poll_body_piped(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<usize>, AnswerFault>> {
        let Some((left, socket)) = self.cursor.untouched_len().zip(self.stream.plain_tcp()) else {
            return self.poll_body(cx);
        };
        if self.is_piped() || !self.inbox.buffer.is_empty() {
            return self.poll_body(cx);
        }
        if self.pipe.is_none() && left >= pipe::LEAST {
            self.pipe = self.inbox.borrow_pipe().map(Box::new);
        }
        let Some(pipe) = &mut self.pipe else { return self.poll_body(cx) };
        self.inbox.release_if_empty();
        match ready!(pipe.poll_fill(cx, socket, left)) {
            Ok(Some(len)) if len > 0 => {
                self.cursor.skip(len);
                Poll::Ready(Ok(Some(len)))
            }
            Ok(Some(_)) | Err(_) => Poll::Ready(Err(AnswerFault::Ended { has_begun: true })),
            Ok(None) => {
                self.pipe = None;
                self.poll_body(cx)
            }
        }
    }

    /// Whether the data at hand is in a pipe.
    pub fn is_piped(&self) -> bool {
        self.piped() > 0
    }

    fn piped(&self) -> usize {
        self.pipe.as_ref().map_or(0, |pipe| pipe.len())
    }

    /// Gives data that is in a pipe to a client; how much of it. None where the kernel does not do that: then the data is in
    /// a pipe no more.
    ///
    /// # Errors
    /// The client's.
    pub fn poll_pass(&mut self, cx: &mut Context<'_>, client: &ClientWire) -> Poll<io::Result<Option<usize>>> {
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(Ok(None)) };
        let passed = ready!(client.poll_write_pipe(cx, pipe))?;
        if passed.is_none() {
            let rest = pipe.rest()?;
            self.inbox.borrow_memory();
            self.inbox.buffer.push(&rest);
            self.inbox.recount();
            self.cursor.put_back(rest.len());
            self.pipe = None;
        }
        self.settle();
        Poll::Ready(Ok(passed))
    }

    /// The data that [`UpstreamWire::poll_body`] found, where it is not in a pipe.
    #[inline]
    pub fn data(&mut self) -> &[u8] {
        match self.cursor.look(&mut self.inbox.buffer) {
            Ok(Held::Data(len)) => &self.inbox.buffer.data()[..len],
            Ok(Held::Nothing | Held::End) | Err(_) => &[],
        }
    }

    /// Takes `len` bytes of the data away.
    #[inline]
    pub fn consume(&mut self, len: usize) {
        let was_full = self.inbox.buffer.is_full();
        self.cursor.consume(&mut self.inbox.buffer, len);
        self.inbox.grow_if_full(was_full);
        self.settle();
    }

    /// Whether the body was read to its end.
    #[inline]
    pub fn is_body_over(&self) -> bool {
        self.cursor.is_over() && !self.is_piped()
    }

    /// How many bytes of the body are left, when that is known.
    pub fn body_len(&self) -> Option<u64> {
        self.cursor.exact_len().map(|len| len + self.piped() as u64)
    }

    /// The trailer section of a body that is over.
    pub fn trailers(&self) -> &[u8] {
        self.cursor.trailers()
    }

    /// Whether the connection can serve another request: the answer was read to its end, nothing came behind it, and the
    /// upstream did not say that it was the last.
    pub fn is_reusable(&self) -> bool {
        self.asked.is_none() && self.is_body_over() && !self.is_last && self.inbox.buffer.is_empty()
    }

    /// Gives up the stream and what was read behind the head of a 101: the beginning of a tunnel.
    pub fn into_stream(self) -> (Stream, Vec<u8>) {
        let rest = self.inbox.buffer.data().to_vec();
        (self.stream, rest)
    }

    /// Once the answer is over, holds nothing for the next.
    fn settle(&mut self) {
        if self.is_body_over() {
            self.asked = None;
            self.pipe = None;
            self.inbox.rest();
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.inbox.borrow_memory();
        self.inbox.buffer.poll_fill(cx, &mut self.stream)
    }
}
