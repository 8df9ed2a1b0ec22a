//! A prepared request's way to an upstream and back: the exchange, what may be tried again, and the answer's beginning.

use std::rc::Rc;
use std::time::Duration;

use http::header::{self, HeaderMap};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;

use super::body::{Download, Recheck, ReplyBody, RequestBody, UploadProgress};
use super::engine::Context;
use super::headers::remove_hop_by_hop;
use super::observe::Exchange;
use super::outgoing::Outgoing;
use super::pool::Lease;
use super::settings::UpstreamTimeouts;
use super::target::Upstream;
use super::tunnel::{PendingTunnel, switches_to};
use crate::framing::UpgradeWanted;
use crate::reply::Failure;

impl Outgoing {
    /// Sends it and begins the answer.
    ///
    /// Retried are only requests of which the upstream cannot have seen anything, and, once, those without body whose
    /// repetition is harmless (RFC 9110 §9.2.2) on a connection that the upstream was about to close anyway.
    pub(super) async fn send(
        self,
        cx: &Context,
        upstream: &Upstream,
        mut exchange: Exchange,
    ) -> Result<Response<ReplyBody>, (Failure, Exchange)> {
        let Self { method, uri, headers, body, upload, wants_tunnel, timeouts, recheck } = self;
        let is_idempotent = method.is_idempotent();
        let mut request = Request::new(body);
        *request.method_mut() = method;
        let upgrade = if wants_tunnel.is_some() { UpgradeWanted::Yes } else { UpgradeWanted::No };
        let address = Address { host: headers.get(header::HOST).cloned(), path: uri, upgrade };
        *request.headers_mut() = headers;
        let first = cx.engine.next_target.get();
        cx.engine.next_target.set(first.wrapping_add(1));
        exchange.reached_upstream(&upstream.settings.name);
        let mut tries = 0;
        let mut repeated = false;
        loop {
            let target = &upstream.targets[(first + tries) % upstream.targets.len()];
            let protocol = target.protocol_for(upstream.settings.protocol, cx.is_grpc);
            let leased = cx.engine.pool.lease(target, &upstream.settings, protocol, timeouts.connect).await;
            let mut lease = match leased {
                Ok(lease) => lease,
                Err(Failure::UpstreamUnreachable) if tries + 1 < upstream.targets.len() => {
                    tries += 1;
                    continue;
                }
                Err(failure) => return Err((failure, exchange)),
            };
            let may_repeat = !repeated
                && lease.was_used_before()
                && is_idempotent
                && matches!(request.body(), RequestBody::Empty)
                && wants_tunnel.is_none();
            let spare = may_repeat.then(|| spare_of(&request));
            match lease.exchange(cx, target, &address, request, &upload, &timeouts).await {
                Ok(answer) => {
                    exchange.head_arrived(answer.status(), &upstream.settings.name);
                    let carried = Carried { lease, upload, timeouts, recheck, wants_tunnel };
                    return carried.begin_answer(cx, answer, exchange);
                }
                Err(Broken::Unsent(unsent)) if tries < MAX_UNSENT => {
                    tries += 1;
                    request = *unsent;
                }
                Err(Broken::Unsent(_)) => return Err((Failure::UpstreamUnreachable, exchange)),
                Err(Broken::Sent(failure)) => match spare {
                    Some(spare) if failure == Failure::UpstreamUnreachable => {
                        repeated = true;
                        request = spare;
                    }
                    Some(_) | None => return Err((failure, exchange)),
                },
            }
        }
    }
}

/// HTTP/2 may send a cookie in crumbs; HTTP/1.1 has one field (RFC 9113 §8.2.3).
fn join_crumbs(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) {
        let all: Vec<&[u8]> = [first, second].into_iter().chain(crumbs).map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
            headers.insert(header::COOKIE, joined);
        }
    }
}

/// How often a request that was never written is tried again on another connection.
const MAX_UNSENT: usize = 3;

fn spare_of(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut spare = Request::new(RequestBody::Empty);
    *spare.method_mut() = request.method().clone();
    *spare.headers_mut() = request.headers().clone();
    spare
}

/// Where a request is addressed: every try writes it anew, in the way of the connection that it gets.
struct Address {
    host: Option<HeaderValue>,
    path: PathAndQuery,
    upgrade: UpgradeWanted,
}

/// Why an exchange broke before the answer's head.
pub(super) enum Broken {
    /// The upstream has seen nothing of it.
    Unsent(Box<Request<RequestBody>>),
    /// It may have.
    Sent(Failure),
}

struct Carried {
    lease: Lease,
    upload: Rc<UploadProgress>,
    timeouts: UpstreamTimeouts,
    recheck: Option<Box<dyn Recheck>>,
    wants_tunnel: Option<String>,
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

    /// Sends the request and waits for the head of the answer.
    async fn exchange(
        &mut self,
        cx: &Context,
        target: &super::target::Target,
        address: &Address,
        mut request: Request<RequestBody>,
        upload: &UploadProgress,
        timeouts: &UpstreamTimeouts,
    ) -> Result<Response<Incoming>, Broken> {
        let timer = cx.engine.timers.timer();
        match self {
            Self::H1(lease) => {
                *request.version_mut() = Version::HTTP_11;
                *request.uri_mut() = Uri::from(address.path.clone());
                join_crumbs(request.headers_mut());
                let host = address.host.clone().unwrap_or_else(|| target.authority.clone());
                request.headers_mut().insert(header::HOST, host);
                let connection = &mut lease.connection;
                if !connection.sender.is_ready() && connection.sender.ready().await.is_err() {
                    return Err(Broken::Unsent(Box::new(request)));
                }
                connection.exchange.begin(request.method(), address.upgrade);
                let sent = connection.sender.try_send_request(request);
                await_head(sent, &timer, upload, timeouts).await
            }
            Self::H2(lease) => {
                *request.version_mut() = Version::HTTP_2;
                let mut parts = http::uri::Parts::default();
                request.headers_mut().remove(header::HOST);
                let host = address.host.as_ref().unwrap_or(&target.authority);
                parts.authority = http::uri::Authority::try_from(host.as_bytes()).ok();
                parts.scheme = Some(if target.endpoint.tls.is_some() {
                    http::uri::Scheme::HTTPS
                } else {
                    http::uri::Scheme::HTTP
                });
                parts.path_and_query = Some(address.path.clone());
                match Uri::from_parts(parts) {
                    Ok(uri) => *request.uri_mut() = uri,
                    Err(_) => {
                        let detail = "The Host field is malformed.";
                        return Err(Broken::Sent(Failure::BadRequest { detail }));
                    }
                }
                let sent = lease.connection.sender.try_send_request(request);
                let answered = await_head(sent, &timer, upload, timeouts).await;
                match &answered {
                    Ok(_) => lease.connection.proven.set(true),
                    // Whatever is at the other end may not speak HTTP/2 at all: the next request tries anew.
                    Err(_) if !lease.connection.proven.get() => lease.connection.broken.set(true),
                    Err(_) => {}
                }
                answered
            }
        }
    }
}

/// Waits for the head: as long as the upload moves, the clock of `first_byte` has not begun.
async fn await_head(
    sent: impl Future<Output = Result<Response<Incoming>, hyper::client::conn::TrySendError<Request<RequestBody>>>>,
    timer: &super::timer::Timer,
    upload: &UploadProgress,
    timeouts: &UpstreamTimeouts,
) -> Result<Response<Incoming>, Broken> {
    let mut sent = std::pin::pin!(sent);
    let mut seen = (upload.bytes.get(), upload.finished.get());
    timer.arm(if seen.1 { timeouts.first_byte } else { timeouts.idle });
    let answered = std::future::poll_fn(|cx| {
        if let std::task::Poll::Ready(answer) = sent.as_mut().poll(cx) {
            return std::task::Poll::Ready(Some(answer));
        }
        let moved = (upload.bytes.get(), upload.finished.get());
        if moved != seen {
            seen = moved;
            timer.arm(if moved.1 { timeouts.first_byte } else { timeouts.idle });
        }
        timer.poll_elapsed(cx).map(|()| None)
    })
    .await;
    match answered {
        None => Err(Broken::Sent(upload.failure.get().unwrap_or(Failure::UpstreamTimeout))),
        Some(Ok(answer)) => Ok(answer),
        Some(Err(mut error)) => Err(match error.take_message() {
            Some(unsent) => Broken::Unsent(Box::new(unsent)),
            None => {
                tracing::debug!(error = %error.error(), "the exchange with the upstream broke");
                Broken::Sent(upload.failure.get().unwrap_or(Failure::UpstreamUnreachable))
            }
        }),
    }
}

impl Carried {
    #[expect(clippy::result_large_err, reason = "a failure hands the exchange back to be answered; it is rare")]
    fn begin_answer(
        self,
        cx: &Context,
        answer: Response<Incoming>,
        exchange: Exchange,
    ) -> Result<Response<ReplyBody>, (Failure, Exchange)> {
        let Self { lease, upload, timeouts, recheck, wants_tunnel } = self;
        let (mut parts, incoming) = answer.into_parts();
        let engine = &cx.engine;
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return switch_protocols(cx, parts, lease, wants_tunnel, recheck, timeouts, exchange);
        }
        if let Some(progress) = &cx.connection.progress {
            progress.resume();
        }
        // The upstream's version ends at the upstream.
        parts.version = Version::HTTP_11;
        remove_hop_by_hop(&mut parts.headers);
        let timers = &engine.timers;
        let finish = Some(exchange.into_finish());
        let download = Download::new(incoming, lease, &upload, timers, timers.timer(), timeouts.idle, recheck, finish);
        let body = if cx.connection.progress.is_some() {
            ReplyBody::Download(Box::new(download))
        } else {
            engine.watched.watch(download)
        };
        Ok(Response::from_parts(parts, body))
    }
}

/// RFC 9110 §7.8: only a 101 that names the protocol asked for makes a tunnel.
#[expect(clippy::result_large_err, reason = "a failure hands the exchange back to be answered; it is rare")]
fn switch_protocols(
    cx: &Context,
    parts: http::response::Parts,
    lease: Lease,
    wants_tunnel: Option<String>,
    recheck: Option<Box<dyn Recheck>>,
    timeouts: UpstreamTimeouts,
    exchange: Exchange,
) -> Result<Response<ReplyBody>, (Failure, Exchange)> {
    let agreed = wants_tunnel.filter(|protocol| switches_to(&parts.headers, protocol));
    let upstream = match lease {
        Lease::H1(mut lease) => lease.connection.tunnel.take(),
        Lease::H2(_) => None,
    };
    let step_aside = || cx.connection.progress.as_ref().is_some_and(|progress| progress.step_aside());
    match (agreed, upstream) {
        (Some(protocol), Some(upstream)) if step_aside() => {
            let mut answer = Response::from_parts(parts, ReplyBody::Empty);
            remove_hop_by_hop(answer.headers_mut());
            if let Ok(value) = HeaderValue::from_str(&protocol) {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                answer.headers_mut().insert(header::UPGRADE, value);
            }
            let idle = timeouts.idle.max(TUNNEL_IDLE);
            let finish = Some(exchange.into_finish());
            *cx.connection.tunnel.borrow_mut() = Some(PendingTunnel { upstream, idle, recheck, finish });
            Ok(answer)
        }
        (Some(_) | None, Some(_) | None) => Err((Failure::UpstreamUnreachable, exchange)),
    }
}

/// Tunnels are allowed to be silent for longer than answers.
const TUNNEL_IDLE: Duration = Duration::from_secs(3600);
