//! Closing so that the client sees the last answer.
//!
//! A socket closed with unread bytes in it is reset, and a reset may overtake the answer. So: write what is left to say,
//! shut down our half, read and throw away for a bounded while (RFC 9112 §9.6).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Most bytes thrown away.
const DISCARDED_BYTES: usize = 256 * 1024;
/// Longest time from the first step to the last.
const CLOSING_TIME: Duration = Duration::from_secs(2);

#[derive(Debug)]
enum Step {
    Refuse(Bytes),
    Flush,
    ShutDown,
    Listen { discarded: usize, must_wait: bool },
    Done,
}

/// A connection that is being closed.
#[derive(Debug)]
pub(super) struct Closing {
    step: Step,
    has_unread_body: bool,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Closing {
    /// Writes `refusal` first if there is one; `has_unread_body` when the client is known to be still sending.
    pub(super) fn new(refusal: Option<Bytes>, has_unread_body: bool) -> Self {
        let has_unread_body = has_unread_body || refusal.is_some();
        let step = refusal.map_or(Step::ShutDown, Step::Refuse);
        Self { step, has_unread_body, deadline: None }
    }

    /// Ready once nothing is left to do; trouble on the way ends it, as there is nobody left to be told.
    pub(super) fn poll<T>(&mut self, mut inner: Pin<&mut T>, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        T: AsyncRead + AsyncWrite,
    {
        loop {
            let step = match &mut self.step {
                Step::Refuse(bytes) if bytes.is_empty() => Poll::Ready(Ok(Step::Flush)),
                Step::Refuse(bytes) => match inner.as_mut().poll_write(cx, bytes) {
                    Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(len)) => {
                        bytes.advance(len);
                        continue;
                    }
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    Poll::Pending => Poll::Pending,
                },
                Step::Flush => inner.as_mut().poll_flush(cx).map_ok(|()| Step::ShutDown),
                Step::ShutDown => {
                    let must_wait = self.has_unread_body;
                    inner.as_mut().poll_shutdown(cx).map_ok(|()| Step::Listen { discarded: 0, must_wait })
                }
                Step::Listen { discarded, must_wait } => {
                    let mut scratch = [0; 4096];
                    let mut scratch = ReadBuf::new(&mut scratch);
                    match inner.as_mut().poll_read(cx, &mut scratch) {
                        Poll::Ready(Ok(())) if scratch.filled().is_empty() => Poll::Ready(Ok(Step::Done)),
                        Poll::Ready(Ok(())) => {
                            // More than was asked for is on its way, so what else there is must be waited for.
                            *must_wait = true;
                            *discarded += scratch.filled().len();
                            if *discarded < DISCARDED_BYTES {
                                continue;
                            }
                            Poll::Ready(Ok(Step::Done))
                        }
                        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                        Poll::Pending if *must_wait => Poll::Pending,
                        Poll::Pending => Poll::Ready(Ok(Step::Done)),
                    }
                }
                Step::Done => return Poll::Ready(Ok(())),
            };
            self.step = match step {
                Poll::Ready(Ok(step)) => step,
                Poll::Ready(Err(_)) => Step::Done,
                Poll::Pending => {
                    let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(CLOSING_TIME)));
                    ready!(deadline.as_mut().poll(cx));
                    Step::Done
                }
            };
        }
    }
}
