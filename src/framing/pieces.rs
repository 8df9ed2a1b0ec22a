//! For tests: a stream that arrives in given pieces, and what a guard makes of it.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{AnswerGuard, AnswerLimits, CoarseClock, Exchange, Fault, Refusal, RequestGuard, RequestLimits};

/// What comes behind the last piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Ends,
    Waits,
}

/// A stream whose reads return one piece each; what is written to it is kept.
#[derive(Debug)]
pub(super) struct Pieces {
    pub(super) pieces: VecDeque<Vec<u8>>,
    then: Then,
    pub(super) written: Vec<u8>,
}

impl Pieces {
    pub(super) fn new(pieces: impl IntoIterator<Item = Vec<u8>>, then: Then) -> Self {
        let pieces = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        Self { pieces, then, written: Vec::new() }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(mut piece) = self.pieces.pop_front() else {
            return if self.then == Then::Ends { Poll::Ready(Ok(())) } else { Poll::Pending };
        };
        if piece.len() > buf.remaining() {
            self.pieces.push_front(piece.split_off(buf.remaining()));
        }
        buf.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.written.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// How the reading of a stream came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everything passed that makes whole messages; what is left is the beginning of one, or nothing.
    Passes,
    /// Refused before any byte of the message at fault passed.
    Refused(Fault),
    /// Broken off within a body.
    Broken(Fault),
    /// Waits for a word about an upgrade.
    AwaitsUpgrade,
}

/// The bytes that passed, and why no more did.
pub(super) type Outcome = (Vec<u8>, Verdict);

pub(super) fn refusal() -> Refusal {
    Rc::new(|fault: Fault| {
        Bytes::from(format!("HTTP/1.1 {} {}\r\nConnection: close\r\n\r\n", fault.status(), fault.code()))
    })
}

pub(super) fn guard<T>(inner: T, limits: RequestLimits) -> RequestGuard<T> {
    RequestGuard::new(inner, limits, CoarseClock::new(), refusal())
}

/// One poll without a waker.
pub(super) fn poll_once<T: AsyncRead + Unpin>(stream: &mut T, room: usize) -> Poll<io::Result<Vec<u8>>> {
    let mut space = vec![0; room];
    let mut buf = ReadBuf::new(&mut space);
    let read = Pin::new(stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut buf);
    read.map_ok(|()| buf.filled().to_vec())
}

/// Reads all requests that the pieces make, through a buffer of `room` bytes.
pub(super) fn read_requests(pieces: impl IntoIterator<Item = Vec<u8>>, room: usize, limits: RequestLimits) -> Outcome {
    let mut guard = guard(Pieces::new(pieces, Then::Ends), limits);
    let progress = guard.progress();
    let mut passed = Vec::new();
    loop {
        match poll_once(&mut guard, room) {
            Poll::Ready(Ok(bytes)) if bytes.is_empty() => break,
            Poll::Ready(Ok(bytes)) => passed.extend(bytes),
            Poll::Ready(Err(error)) => return (passed, Verdict::Broken(Fault::find_in(&error).unwrap())),
            Poll::Pending => {
                assert!(progress.upgrade_decision().is_none(), "a pause without a reason");
                return (passed, Verdict::AwaitsUpgrade);
            }
        }
    }
    match progress.fault() {
        Some(fault) => {
            assert!(passed.ends_with(b"\r\n"), "the end behind a refused head is announced by an empty line");
            passed.truncate(passed.len() - 2);
            (passed, Verdict::Refused(fault))
        }
        None if progress.upgrade_decision().is_none() => (passed, Verdict::AwaitsUpgrade),
        None => (passed, Verdict::Passes),
    }
}

/// Reads all answers that the pieces make; `begin` starts an exchange before the first byte.
pub(super) fn read_answers(
    pieces: impl IntoIterator<Item = Vec<u8>>,
    room: usize,
    limits: AnswerLimits,
    begin: impl Fn(&Exchange),
) -> Outcome {
    let mut guard = AnswerGuard::new(Pieces::new(pieces, Then::Ends), limits);
    begin(&guard.exchange());
    let mut passed = Vec::new();
    loop {
        match poll_once(&mut guard, room) {
            Poll::Ready(Ok(bytes)) if bytes.is_empty() => return (passed, Verdict::Passes),
            Poll::Ready(Ok(bytes)) => passed.extend(bytes),
            Poll::Ready(Err(error)) => {
                let fault = Fault::find_in(&error).unwrap();
                assert_eq!(guard.exchange().fault(), Some(fault), "a fault poisons the connection");
                return (passed, Verdict::Broken(fault));
            }
            Poll::Pending => panic!("answers never pause"),
        }
    }
}

/// `bytes` cut before every one of `cuts`.
pub(super) fn cut(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut cuts: Vec<usize> = cuts.iter().map(|&cut| cut.min(bytes.len())).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect()
}

/// Every way of cutting `bytes` that a table test tries: whole, byte by byte, and in two at every place.
pub(super) fn usual_cuts(bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let mut ways = vec![vec![bytes.to_vec()], bytes.iter().map(|byte| vec![*byte]).collect()];
    // Long inputs are long because of a limit; a hundred places in them are as good as all.
    let step = (bytes.len() / 100).max(1);
    ways.extend((1..bytes.len()).step_by(step).map(|at| cut(bytes, &[at])));
    ways
}
