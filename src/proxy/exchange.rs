//! A prepared request's way to an upstream and back: the exchange, what may be tried again, and the answer's beginning.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;

use super::answer::{Answer, Length, pass_fields};
use super::asked::nominates_upgrade;
use super::asking::H1Asking;
use super::body::{Download, DownloadParts, Lender, ReplyBody, RequestBody, Sending};
use super::course::{Course, Next};
use super::engine::Context;
use super::observed::Exchange;
use super::outgoing::Outgoing;
use super::pool::{H1Lease, H2Lease, Lease, NO_TUNNEL, Wanted};
use super::settings::{Balance, Protocol};
use super::target::{Target, Upstream};
use super::tunnel::PendingTunnel;
use crate::domain::time::monotonic_now;
use crate::domain::{FieldLines, Known, OwnedFields};
use crate::framing::AnswerRead;
use crate::reply::Failure;

impl Outgoing {
    /// Sends it and begins the answer.
    ///
    /// A target that cannot be connected to, in its share of the time for that, hands the request on to another. Retried
    /// are only requests of which the upstream cannot have seen anything, and, once, those without body whose repetition
    /// is harmless (RFC 9110 §9.2.2) on a connection that the upstream was about to close anyway, or at a target that was
    /// on trial. Each takes from the upstream's budget.
    ///
    /// With the answer's beginning `exchange` goes on with its body; after a failure it is still there.
    pub(super) async fn send(
        &mut self,
        cx: &Context,
        (number, upstream): (usize, &Arc<Upstream>),
        exchange: &mut Option<Exchange>,
    ) -> Result<Answer, Failure> {
        let wants_tunnel = self.wants_tunnel.is_some();
        if wants_tunnel && matches!(upstream.settings.protocol, Protocol::H2 | Protocol::H2c) {
            return Err(NO_TUNNEL);
        }
        if let Some(upload) = &mut self.upload {
            let gathered = std::future::poll_fn(|cx| upload.poll_gathered(cx)).await;
            gathered.map_err(|_| self.failure_or(Failure::RequestTimeout))?;
        }
        let is_bodiless = self.upload.is_none();
        let is_harmless = is_bodiless && self.method.is_idempotent() && self.wants_tunnel.is_none();
        let begun = match exchange {
            // Its body may have taken a while.
            Some(exchange) if is_bodiless => exchange.begun(),
            Some(_) | None => monotonic_now(),
        };
        let choice = cx.engine.turns.begin(number, upstream, is_harmless, begun, cx.engine.timers.now_ms());
        let mut course = Course::new(number, upstream, choice);
        if let Some(exchange) = exchange {
            exchange.reached_upstream(&upstream.settings.name);
        }
        loop {
            let target = &upstream.targets[course.choice.at];
            if let (Balance::LeastRequests, 2.., Some(exchange)) =
                (upstream.settings.balance, upstream.targets.len(), &mut *exchange)
            {
                exchange.loads(target);
            }
            let protocol_of =
                |target: &Target| target.protocol_for(upstream.settings.protocol, cx.is_grpc, wants_tunnel);
            let is_full = |target: &Arc<Target>| {
                let protocol = protocol_of(target);
                cx.engine.pool.is_full(Wanted { upstream, target, protocol, is_trial: false })
            };
            let wanted = Wanted { upstream, target, protocol: protocol_of(target), is_trial: course.choice.is_trial };
            let has_no_leave = |target: &Arc<Target>| cx.engine.pool.has_no_leave(target);
            if self.is_coming() && has_no_leave(target) && course.pass_over(cx, has_no_leave) {
                continue;
            }
            // Boxed: it is large and rare, and would make every request's future as large.
            let leave = if self.is_coming() { Box::pin(self.take_leave(cx, wanted)).await } else { Ok(()) };
            let leased = match leave.map(|()| cx.engine.pool.lease_idle(wanted)) {
                Err(failure) => Err(failure),
                Ok(Some(lease)) => Ok(lease),
                Ok(None) if upstream.targets.len() > 1 && is_full(target) && course.pass_over(cx, is_full) => continue,
                // Boxed like that.
                Ok(None) => Box::pin(cx.engine.pool.lease(wanted, course.dial_time(self.timeouts.connect))).await,
            };
            let lease = match leased {
                Ok(lease) => lease,
                Err(failure @ (Failure::UpstreamUnreachable | Failure::UpstreamTimeout)) => {
                    if course.has_time() && course.go_on(cx, Next::Other) {
                        continue;
                    }
                    return Err(failure);
                }
                Err(Failure::UpstreamBusy) if course.pass_over(cx, is_full) => continue,
                Err(failure) => return Err(failure),
            };
            let was_used = lease.was_used_before();
            let broken = match lease {
                Lease::H1(mut lease) => {
                    let (head, is_chunked) = self.take_h1_head(&target.authority);
                    let sending = Sending::new(head, self.upload.take(), is_chunked);
                    let timer = cx.engine.timers.timer();
                    let mut asking = H1Asking { lease: &mut lease, sending };
                    match asking.ask(self, &timer).await {
                        Ok(read) => {
                            let sending = asking.sending;
                            course.note_answer(cx, read.status);
                            if let Some(exchange) = exchange {
                                exchange.head_arrived(read.status, &upstream.settings.name);
                            }
                            return self.begin_h1_answer(cx, read, lease, sending, exchange);
                        }
                        Err(broken) => {
                            if is_bodiless || asking.sending.is_untouched() {
                                self.put_back(asking.sending);
                            }
                            broken
                        }
                    }
                }
                Lease::H2(mut lease) => {
                    let request = self.h2_request(target)?;
                    if let Some(upload) = self.upload.as_mut().filter(|_| cx.is_grpc) {
                        upload.at_any_pace();
                    }
                    let (lender, body) =
                        match self.upload.take().map(|upload| Lender::lend(upload, cx.engine.buffers.memory().clone()))
                        {
                            Some((lender, body)) => (Some(lender), body),
                            None => (None, RequestBody::Empty),
                        };
                    // Boxed like dialing.
                    match Box::pin(self.ask_h2(cx, &mut lease, request.map(|()| body))).await {
                        Ok(answer) => {
                            course.note_answer(cx, answer.status().as_u16());
                            if let Some(exchange) = exchange {
                                exchange.head_arrived(answer.status().as_u16(), &upstream.settings.name);
                            }
                            return self.begin_h2_answer(cx, answer, (lease, lender), exchange);
                        }
                        Err(broken) => {
                            self.upload = lender.and_then(|lender| lender.take_back());
                            broken
                        }
                    }
                }
            };
            course.note_failure(cx, &broken, was_used);
            let is_whole = is_bodiless || self.upload.is_some();
            let next = course.after(&broken, was_used, is_harmless).filter(|_| is_whole);
            match next {
                Some(next) if course.go_on(cx, next) => {}
                Some(_) | None => return Err(broken.failure()),
            }
        }
    }

    /// Whether some of its body is still to come from the client.
    fn is_coming(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| !upload.is_at_hand())
    }

    /// Takes leave to have a connection while the body is coming.
    async fn take_leave(&mut self, cx: &Context, wanted: Wanted<'_>) -> Result<(), Failure> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        // That of another target.
        upload.hold(None);
        upload.hold(cx.engine.pool.leave(wanted).await?);
        Ok(())
    }

    /// Why the client's body broke off, or else this.
    pub(super) fn failure_or(&self, other: Failure) -> Failure {
        self.progress.as_ref().and_then(|progress| progress.failure.get()).unwrap_or(other)
    }

    /// The same request for HTTP/2: taken apart again.
    fn h2_request(&self, target: &Target) -> Result<Request<()>, Failure> {
        let malformed = Failure::BadRequest { detail: "The Host field is malformed." };
        let mut lines = self.lines();
        let host = lines.all("host").next().unwrap_or(target.authority.as_bytes()).to_vec();
        ["host", "connection", "upgrade"].into_iter().for_each(|name| lines.remove(name));
        let mut parts = http::uri::Parts::default();
        parts.authority = http::uri::Authority::try_from(&host[..]).ok();
        let is_tls = target.endpoint.tls.is_some();
        parts.scheme = Some(if is_tls { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP });
        parts.path_and_query = http::uri::PathAndQuery::try_from(self.target()).ok();
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| malformed)?;
        *request.headers_mut() = HeaderMap::from(&lines);
        Ok(request)
    }

    fn begin_h1_answer(
        &mut self,
        cx: &Context,
        read: AnswerRead,
        mut lease: H1Lease,
        sending: Sending,
        exchange: &mut Option<Exchange>,
    ) -> Result<Answer, Failure> {
        // A number of three digits that does not begin with 0.
        let status = StatusCode::from_u16(read.status).unwrap_or(StatusCode::BAD_GATEWAY);
        let mut lines = FieldLines::continuing(cx.engine.buffers.out());
        let (reason, has_date) = lease.connection.wire.with_head(|head, fields| {
            pass_fields(fields, &mut lines);
            let reason = &head[read.reason.clone()];
            let is_usual =
                reason.is_empty() || status.canonical_reason().is_some_and(|usual| usual.as_bytes() == reason);
            ((!is_usual).then(|| reason.into()), fields.has(Known::Date))
        });
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch_protocols(read, lines, lease, exchange);
        }
        let is_head = self.method == Method::HEAD;
        let length = match (status.as_u16(), read.content_length, read.body.exact_len()) {
            (204, ..) => Length::Absent,
            (304, Some(length), _) => Length::Exact(length),
            (304, None, _) => Length::Absent,
            (_, Some(length), _) if is_head => Length::Exact(length),
            (_, None, _) if is_head => Length::Unknown,
            (_, _, Some(length)) => Length::Exact(length),
            (_, _, None) => Length::Unknown,
        };
        lease.connection.wire.enter_body(read);
        let was_sent_whole = sending.is_over();
        let unsent = if was_sent_whole {
            cx.engine.buffers.take_back_out(sending.into_parts().0);
            None
        } else {
            Some(sending)
        };
        let download = Download::new(DownloadParts {
            incoming: None,
            lease: Lease::H1(lease),
            sending: unsent,
            lender: None,
            was_sent_whole,
            timers: Rc::clone(&cx.engine.timers),
            idle_after: self.timeouts.idle,
            recheck: self.recheck.take(),
            finish: exchange.take(),
            is_watched: cx.connection.is_h2,
        });
        Ok(Answer { status, reason, lines, has_date, length, body: cx.stream(download), tunnel: None, exchange: None })
    }

    fn begin_h2_answer(
        &mut self,
        cx: &Context,
        answer: Response<Incoming>,
        (lease, lender): (H2Lease, Option<Lender>),
        exchange: &mut Option<Exchange>,
    ) -> Result<Answer, Failure> {
        let (parts, incoming) = answer.into_parts();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Failure::UpstreamUnreachable);
        }
        let buffers = &cx.engine.buffers;
        let fields = OwnedFields::in_memory(&parts.headers, buffers.out());
        let mut lines = FieldLines::continuing(buffers.out());
        pass_fields(fields.view(), &mut lines);
        let has_date = fields.view().has(Known::Date);
        buffers.take_back_out(fields.into_memory());
        let announced = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let length = match (parts.status, announced, hyper::body::Body::size_hint(&incoming).exact()) {
            (StatusCode::NO_CONTENT, ..) => Length::Absent,
            (_, Some(length), _) => Length::Exact(length),
            (StatusCode::NOT_MODIFIED, None, _) => Length::Absent,
            (_, None, Some(length)) if self.method != Method::HEAD && !cx.is_grpc => Length::Exact(length),
            (_, None, _) => Length::Unknown,
        };
        // Whatever comes behind such a head is no body, over whichever HTTP it goes on.
        let is_bodiless = self.method == Method::HEAD || length_is_absent(parts.status);
        let lender = lender.filter(|lender| !lender.is_returned());
        if is_bodiless && lender.is_none() {
            if let Some(exchange) = exchange.take() {
                exchange.finish_with(parts.status, 0);
            }
            return Ok(Answer {
                status: parts.status,
                reason: None,
                lines,
                has_date,
                length,
                body: ReplyBody::Empty,
                tunnel: None,
                exchange: None,
            });
        }
        let download = Download::new(DownloadParts {
            incoming: (!is_bodiless).then_some(incoming),
            lease: Lease::H2(lease),
            sending: None,
            lender,
            was_sent_whole: true,
            timers: Rc::clone(&cx.engine.timers),
            idle_after: self.timeouts.idle,
            recheck: self.recheck.take(),
            finish: exchange.take(),
            is_watched: cx.connection.is_h2,
        });
        if cx.is_grpc {
            download.at_any_pace();
        }
        Ok(Answer {
            status: parts.status,
            reason: None,
            lines,
            has_date,
            length,
            body: cx.stream(download),
            tunnel: None,
            exchange: None,
        })
    }

    /// RFC 9110 §7.8: only a 101 that names the protocol asked for, alone, and as what this connection changes to, makes a
    /// tunnel.
    fn switch_protocols(
        &mut self,
        read: AnswerRead,
        mut lines: FieldLines,
        mut lease: H1Lease,
        exchange: &mut Option<Exchange>,
    ) -> Result<Answer, Failure> {
        let agreed = self.wants_tunnel.take().filter(|protocol| {
            lease.connection.wire.with_head(|_, fields| {
                let named = fields.single(Known::Upgrade).ok().flatten();
                nominates_upgrade(fields) && named.is_some_and(|named| named.eq_ignore_ascii_case(protocol.as_bytes()))
            })
        });
        let Some(protocol) = agreed else { return Err(Failure::UpstreamUnreachable) };
        lease.connection.wire.enter_body(read);
        lines.push(b"connection", b"upgrade");
        lines.push(b"upgrade", protocol.as_bytes());
        let tunnel = PendingTunnel {
            upstream: lease.into_tunnel(),
            idle: self.timeouts.idle.max(TUNNEL_IDLE),
            recheck: self.recheck.take(),
            finish: exchange.take(),
        };
        Ok(Answer {
            status: StatusCode::SWITCHING_PROTOCOLS,
            reason: None,
            lines,
            has_date: true,
            length: Length::Absent,
            body: ReplyBody::Empty,
            tunnel: Some(Box::new(tunnel)),
            exchange: None,
        })
    }
}

/// Whether an answer with this status ends with its head (RFC 9110 §6.4.1).
fn length_is_absent(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// Tunnels are allowed to be silent for longer than answers.
const TUNNEL_IDLE: Duration = Duration::from_secs(3600);

impl Context {
    /// A streaming answer's body, in the way the client's connection wants it.
    fn stream(&self, download: Download) -> ReplyBody {
        if self.connection.is_h2 {
            self.engine.watched.watch(download)
        } else {
            ReplyBody::Download(Box::new(download))
        }
    }
}

impl Lease {
    /// Whether a failure may only mean that the upstream was about to close the connection.
    fn was_used_before(&self) -> bool {
        match self {
            Self::H1(lease) => lease.reused,
            // It says which requests it has not seen, unless it breaks off without a word.
            Self::H2(lease) => lease.connection.proven.get(),
        }
    }
}
