//! A request on its way over one connection, until its answer begins.

use std::task::{Poll, ready};
use std::time::Duration;

use http::{Method, Request, Response};
use hyper::body::Incoming;

use super::body::{BodyError, RequestBody, SendError, Sending, UploadProgress};
use super::course::Broken;
use super::engine::Context;
use super::outgoing::Outgoing;
use super::pool::{H1Lease, H2Lease};
use super::settings::UpstreamTimeouts;
use super::timer::Timer;
use crate::framing::{AnswerRead, Asked};
use crate::reply::Failure;
use crate::wire::AnswerFault;

impl Outgoing {
    /// Sends it over HTTP/2 and waits for the head of the answer.
    pub(super) async fn ask_h2(
        &mut self,
        cx: &Context,
        lease: &mut H2Lease,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Broken> {
        let timer = cx.engine.timers.timer();
        let mut sent = std::pin::pin!(lease.connection.sender.try_send_request(request));
        let mut watch = Watch::begin(&timer, self.progress.as_deref(), &self.timeouts);
        let answered = std::future::poll_fn(|cx| {
            if let Poll::Ready(answer) = sent.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            if let Some(progress) = &self.progress {
                progress.watched_by(cx);
            }
            watch.poll_elapsed(cx).map(|()| None)
        })
        .await;
        let connection = &lease.connection;
        let said = match &answered {
            Some(Err(error)) => Said::about(error.error()),
            None | Some(Ok(_)) => Said::Nothing,
        };
        if said != Said::Nothing {
            connection.proven.set(true);
        }
        // Whatever is at the other end may not speak HTTP/2 at all, or may have fallen silent for good: the next request
        // tries anew. Those under way on a connection that was proven go on. What the client did tells nothing of it.
        let is_theirs = self.progress.as_ref().is_none_or(|progress| progress.failure.get().is_none());
        let has_failed = answered.is_none() || !matches!(&answered, Some(Ok(_))) && !connection.proven.get();
        if is_theirs && has_failed || said == Said::Leaving {
            connection.broken.set(true);
        }
        match answered {
            None => Err(Broken::Sent(self.failure_or(Failure::UpstreamTimeout))),
            Some(Ok(answer)) => {
                connection.proven.set(true);
                Ok(answer)
            }
            Some(Err(mut error)) => match error.take_message() {
                Some(_) => Err(Broken::Unsent),
                None => {
                    tracing::debug!(error = %error.error(), "the exchange with the upstream broke");
                    Err(match (self.failure_or(Failure::UpstreamUnreachable), said) {
                        (Failure::UpstreamUnreachable, Said::Nothing) => Broken::Closed,
                        (Failure::UpstreamUnreachable, Said::Refused | Said::Leaving) => Broken::Unprocessed,
                        (failure, _) => Broken::Sent(failure),
                    })
                }
            },
        }
    }
}

/// A request on its way over one HTTP/1.1 connection.
pub(super) struct H1Asking<'a> {
    /// The connection.
    pub(super) lease: &'a mut H1Lease,
    /// The request, as far as it was not sent.
    pub(super) sending: Sending,
}

impl H1Asking<'_> {
    /// Sends the request and waits for the head of the answer, which may come before everything was sent.
    pub(super) async fn ask(&mut self, outgoing: &Outgoing, timer: &Timer) -> Result<AnswerRead, Broken> {
        let wire = &mut self.lease.connection.wire;
        wire.begin(Asked { is_head: outgoing.method == Method::HEAD, wants_upgrade: outgoing.wants_tunnel.is_some() });
        let sending = &mut self.sending;
        let mut watch = Watch::begin(timer, outgoing.progress.as_deref(), &outgoing.timeouts);
        let mut takes_more = true;
        std::future::poll_fn(|cx| {
            if takes_more {
                match sending.poll(cx, wire) {
                    Poll::Ready(Ok(())) => takes_more = false,
                    // It closed before it read a byte: that it was about to nobody could know.
                    Poll::Ready(Err(SendError::Upstream)) if sending.is_untouched() => {
                        return Poll::Ready(Err(Broken::Unsent));
                    }
                    // It may have answered all the same.
                    Poll::Ready(Err(SendError::Upstream)) => takes_more = false,
                    Poll::Ready(Err(SendError::Client(error))) => {
                        let failure = match error {
                            BodyError::Client(failure) => failure,
                            BodyError::ClientGone
                            | BodyError::Upstream(_)
                            | BodyError::KeyGone
                            | BodyError::Panicked => Failure::RequestTimeout,
                        };
                        return Poll::Ready(Err(Broken::Sent(failure)));
                    }
                    Poll::Pending => {}
                }
            }
            match wire.poll_answer(cx) {
                Poll::Ready(Ok(answer)) => return Poll::Ready(Ok(answer.read)),
                Poll::Ready(Err(AnswerFault::Fault(fault))) => {
                    tracing::debug!(fault = fault.reason(), "the upstream's answer has no single reading");
                    return Poll::Ready(Err(Broken::Sent(Failure::UpstreamUnreachable)));
                }
                Poll::Ready(Err(AnswerFault::Ended { has_begun })) => {
                    tracing::debug!(has_begun, "the upstream closed the connection before its answer");
                    let sent = Broken::Sent(Failure::UpstreamUnreachable);
                    return Poll::Ready(Err(if has_begun { sent } else { Broken::Closed }));
                }
                Poll::Pending => {}
            }
            ready!(watch.poll_elapsed(cx));
            let failure = outgoing.failure_or(Failure::UpstreamTimeout);
            Poll::Ready(Err(Broken::Sent(failure)))
        })
        .await
    }
}

/// The time an upstream has: while the request is being sent, to take some of what is at hand; afterwards, to begin its
/// answer. While the client is waited for, it has all the time that the client has.
struct Watch<'a> {
    timer: &'a Timer,
    progress: Option<&'a UploadProgress>,
    timeouts: &'a UpstreamTimeouts,
    begun_ms: u64,
    deadline_ms: u64,
}

impl<'a> Watch<'a> {
    fn begin(timer: &'a Timer, progress: Option<&'a UploadProgress>, timeouts: &'a UpstreamTimeouts) -> Self {
        Self { timer, progress, timeouts, begun_ms: timer.now_ms(), deadline_ms: 0 }
    }

    fn poll_elapsed(&mut self, cx: &std::task::Context<'_>) -> Poll<()> {
        let now = self.timer.now_ms();
        let (since, span) = match self.progress {
            None => (self.begun_ms, self.timeouts.first_byte),
            Some(progress) if progress.finished.get() => (progress.moved_ms.get(), self.timeouts.first_byte),
            Some(progress) if progress.waits_for_client.get() => (now, self.timeouts.idle),
            Some(progress) => (progress.moved_ms.get(), self.timeouts.idle),
        };
        let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let deadline = since.max(self.begun_ms).saturating_add(span_ms);
        if std::mem::replace(&mut self.deadline_ms, deadline) != deadline {
            self.timer.arm(Duration::from_millis(deadline.saturating_sub(now)));
        }
        self.timer.poll_elapsed(cx)
    }
}

/// What an HTTP/2 upstream says about a request that it does not answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    /// Nothing: the connection broke off.
    Nothing,
    /// That it has done nothing about it (RFC 9113 §8.7).
    Refused,
    /// The same, and that it takes no other on this connection (RFC 9113 §6.8).
    Leaving,
    /// That it gave it up; or it said what has no single reading.
    GivenUp,
}

impl Said {
    fn about(error: &hyper::Error) -> Self {
        let error = std::error::Error::source(error).and_then(|error| error.downcast_ref::<h2::Error>());
        let Some(error) = error else { return Self::Nothing };
        match error.reason() {
            Some(h2::Reason::REFUSED_STREAM) if error.is_reset() && error.is_remote() => Self::Refused,
            Some(h2::Reason::NO_ERROR) if error.is_go_away() && error.is_remote() => Self::Leaving,
            Some(_) | None if error.is_reset() => Self::GivenUp,
            Some(_) | None => Self::Nothing,
        }
    }
}
