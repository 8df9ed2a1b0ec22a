//! Requests on their way to an upstream over HTTP/1.

use std::task::{Context, Poll, ready};

use super::BodyError;
use super::upload::Upload;
use crate::wire::{Outbox, UpstreamWire, push_chunk_end, push_chunk_head};

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

    /// The whole request, when nothing of it was sent: its head and its body.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Option<Box<Upload>>) {
        (self.out.into_memory(), self.upload)
    }

    /// Whether everything was written.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// How many bytes of the body were taken from the client.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.upload.as_ref().map_or(0, |upload| upload.progress().bytes.get())
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
