//! The request as the upstream gets it, and its way there and back.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderMap};
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body, Incoming};
use smallvec::SmallVec;

use super::body::{Download, Recheck, ReplyBody, RequestBody, Upload, UploadProgress};
use super::client::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REQUEST_ID};
use super::engine::{Context, KeyRecheck, Routed};
use super::headers::{Peer, TrailerRule, remove_hop_by_hop};
use super::live::Current;
use super::observe::Exchange;
use super::pool::Lease;
use super::settings::{HostPolicy, UpstreamTimeouts};
use super::target::Upstream;
use super::tunnel::{PendingTunnel, switches_to};
use crate::credential::{self, Place};
use crate::framing::UpgradeWanted;
use crate::gate::{Admitted, Identity, RouteSettings};
use crate::reply::Failure;
use crate::route::RouteIx;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const FORWARDED: HeaderName = header::FORWARDED;

/// A request ready to be sent to one upstream.
pub(super) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) uri: PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) body: RequestBody,
    /// What the engine sees of the body while it is sent.
    pub(crate) upload: Rc<UploadProgress>,
    /// The protocol asked for, when both sides may.
    pub(crate) wants_tunnel: Option<String>,
    pub(crate) timeouts: UpstreamTimeouts,
    recheck: Option<Box<dyn Recheck>>,
}

/// Path and query as the upstream gets them: the path that was matched, or what `strip_prefix` leaves of it, and the
/// query byte for byte, save an accepted credential parameter.
///
/// # Errors
/// When the prefix leaves nothing that can stand in a request line.
pub(super) fn target_uri(
    route: &RouteSettings,
    path: &str,
    query: Option<&str>,
    keeps_credential: bool,
) -> Result<PathAndQuery, Failure> {
    let forward = &route.forward;
    let stripped_query = match query {
        Some(query) if !keeps_credential => credential::strip_query(query, &route.accept),
        Some(_) | None => None,
    };
    let query = stripped_query.as_deref().or(query);
    let mut text = String::with_capacity(path.len() + query.map_or(0, str::len) + 2);
    let rest = match &forward.strip_prefix {
        Some(prefix) => path.strip_prefix(prefix.as_str()).unwrap_or(path),
        None => path,
    };
    text.push_str(forward.add_prefix.as_deref().unwrap_or(""));
    if !rest.starts_with('/') {
        text.push('/');
    }
    text.push_str(rest);
    // A query that held nothing but the credential leaves no question mark behind.
    let emptied = stripped_query.as_deref() == Some("");
    if let Some(query) = query.filter(|_| !emptied) {
        text.push('?');
        text.push_str(query);
    }
    PathAndQuery::try_from(text).map_err(|_| Failure::BadRequest { detail: "The request target is malformed." })
}

/// The number of the upstream that a request goes to: the route's, unless the key's environment has its own.
pub(super) fn upstream_of(current: &Current, route: RouteIx, admitted: &Admitted) -> usize {
    let own = match admitted.identity() {
        Identity::Key(authenticated) => current.gate.environment(authenticated.slot().environment),
        Identity::Anonymous | Identity::Reported { .. } => None,
    };
    let own = own.and_then(|environment| environment.settings.as_ref()?.upstream.as_deref());
    own.and_then(|name| current.plan.upstreams.iter().position(|upstream| upstream.settings.name == name))
        .unwrap_or(current.gate.rules.route(route).upstream as usize)
}

impl Outgoing {
    /// Rewrites `request` for the upstream: what a client may not say is taken out first, our own is put in last.
    pub(super) fn prepare(
        cx: &Context,
        upstream: usize,
        request: Request<Incoming>,
        admitted: Admitted,
        routed: Routed,
        exchange: &Exchange,
    ) -> Self {
        let current = &*cx.current;
        let upstream = &current.plan.upstreams[upstream];
        let route = &current.gate.rules.route(routed.route).settings;
        let (parts, incoming) = request.into_parts();
        let mut headers = parts.headers;
        let te_trailers = headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
        let is_reported = matches!(admitted.identity(), Identity::Reported { .. });
        if !route.forward_credential && !is_reported {
            credential::strip_headers(&mut headers, &route.accept);
        }
        current.plan.headers.clean_request(&mut headers, cx.trust);
        headers.remove(header::EXPECT);
        if !cx.is_grpc {
            headers.remove(header::TRAILER);
        }
        forwarding(cx, &mut headers, parts.version, &routed);
        identity(current, &mut headers, &admitted);
        for settings in [
            (&upstream.settings.remove_headers, &upstream.settings.set_headers),
            (&route.forward.remove_headers, &route.forward.set_headers),
        ] {
            settings.0.iter().for_each(|name| drop(headers.remove(name)));
            settings.1.iter().for_each(|(name, value)| drop(headers.insert(name.clone(), value.clone())));
        }
        if te_trailers && cx.is_grpc {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        if let Some(protocol) = &routed.wants_tunnel
            && let Ok(value) = HeaderValue::from_str(protocol)
        {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, value);
        }
        let host = match &upstream.settings.host {
            HostPolicy::Set(host) => Some(host.clone()),
            HostPolicy::Keep => HeaderValue::from_str(&routed.authority).ok().filter(|host| !host.is_empty()),
        };
        if let Some(host) = host {
            headers.insert(header::HOST, host);
        }
        let upload = Rc::new(UploadProgress::default());
        let body = if incoming.is_end_stream() {
            upload.finished.set(true);
            RequestBody::Empty
        } else {
            let trailers = if cx.is_grpc {
                TrailerRule::Clean {
                    rules: Arc::clone(&current.plan.headers),
                    peer: cx.trust,
                    credentials: credential_names(&route.accept),
                }
            } else {
                TrailerRule::Drop
            };
            let timer = cx.engine.timers.timer();
            let stall = current.plan.stall_timeout;
            let max = route.forward.max_body;
            RequestBody::Upload(Box::new(Upload::new(incoming, max, timer, stall, trailers, Rc::clone(&upload))))
        };
        exchange.watch_upload(&upload);
        let recheck: Option<Box<dyn Recheck>> = match admitted.identity() {
            Identity::Key(authenticated) => Some(Box::new(KeyRecheck {
                live: Rc::clone(&cx.engine.live),
                authenticated: RefCell::new(*authenticated),
            })),
            Identity::Anonymous | Identity::Reported { .. } => None,
        };
        let bounds = &upstream.settings.timeouts;
        let own = &route.forward.timeouts;
        Self {
            method: parts.method,
            uri: routed.uri,
            headers,
            body,
            upload,
            wants_tunnel: routed.wants_tunnel,
            timeouts: UpstreamTimeouts {
                connect: own.connect.unwrap_or(bounds.connect),
                first_byte: own.first_byte.unwrap_or(bounds.first_byte),
                idle: own.idle.unwrap_or(bounds.idle),
            },
            recheck,
        }
    }

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

/// Who the client is and how it asked: rebuilt, so that only we and trusted proxies have a say.
fn forwarding(cx: &Context, headers: &mut HeaderMap, version: Version, routed: &Routed) {
    let connection = &cx.connection;
    let scheme = HeaderValue::from_static(connection.scheme());
    let host = HeaderValue::from_str(&routed.authority).unwrap_or_else(|_| HeaderValue::from_static(""));
    match cx.trust {
        Peer::Trusted => {
            let hops = headers.get_all(&X_FORWARDED_FOR).iter().map(|v| v.as_bytes().to_vec());
            let mut chain: Vec<Vec<u8>> = hops.collect();
            chain.push(connection.address_value.as_bytes().to_vec());
            if let Ok(value) = HeaderValue::from_bytes(&chain.join(&b", "[..])) {
                headers.insert(X_FORWARDED_FOR, value);
            }
            headers.entry(X_FORWARDED_PROTO).or_insert(scheme);
            headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
            headers.append(FORWARDED, connection.forwarded(&host));
        }
        Peer::Untrusted => {
            headers.insert(X_FORWARDED_FOR, connection.address_value.clone());
            headers.insert(X_FORWARDED_PROTO, scheme);
            headers.insert(FORWARDED, connection.forwarded(&host));
            headers.insert(X_FORWARDED_HOST, host);
        }
    }
    headers.append(header::VIA, via(version));
    headers.insert(X_REQUEST_ID, cx.request_id.clone());
    if !headers.contains_key(&TRACEPARENT) {
        headers.insert(TRACEPARENT, traceparent(&cx.request_id));
    }
}

/// The protocol it was received in, and our pseudonym (RFC 9110 §7.6.3).
fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_10 => "1.0 portcullis",
        Version::HTTP_2 => "2 portcullis",
        // The only other one that is spoken.
        _ => "1.1 portcullis",
    })
}

/// A W3C trace context of our own (Trace Context §3.2.2): the request id names the trace, nothing is sampled yet.
fn traceparent(request_id: &HeaderValue) -> HeaderValue {
    let id = request_id.as_bytes();
    let is_ours = id.len() == 32 && id.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
    let (trace, span) = if is_ours { (id, &id[..16]) } else { (&NO_TRACE[..], &NO_TRACE[..16]) };
    let mut text = Vec::with_capacity(55);
    text.extend_from_slice(b"00-");
    text.extend_from_slice(trace);
    text.push(b'-');
    text.extend_from_slice(span);
    text.extend_from_slice(b"-00");
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// Stands for a request whose id, kept from a trusted proxy, is no trace id.
const NO_TRACE: [u8; 32] = *b"00000000000000000000000000000001";

/// Who asks, in our words. Every name set here was removed from the request before.
fn identity(current: &Current, headers: &mut HeaderMap, admitted: &Admitted) {
    let names = current.plan.headers.identity();
    let auth = match admitted.identity() {
        Identity::Anonymous => "anonymous",
        Identity::Reported { .. } => "reported",
        Identity::Key(authenticated) => {
            let slot = authenticated.slot();
            if let Ok(id) = HeaderValue::from_str(&slot.id.to_string()) {
                headers.insert(names.key_id.clone(), id);
            }
            if let Some(owner) = slot.owner.and_then(|owner| current.gate.directory.owner(owner))
                && let Ok(id) = HeaderValue::from_str(&owner.id.to_string())
            {
                headers.insert(names.owner.clone(), id);
            }
            if let Some(environment) = current.gate.environment(slot.environment) {
                headers.insert(names.environment.clone(), environment.header.clone());
            }
            if let Some(grant) = current.gate.grant(slot.profile) {
                headers.insert(names.scopes.clone(), grant.header.clone());
            }
            "key"
        }
    };
    headers.insert(names.auth.clone(), HeaderValue::from_static(auth));
}

fn credential_names(accept: &[Place]) -> SmallVec<[HeaderName; 2]> {
    accept
        .iter()
        .filter_map(|place| match place {
            Place::Header { name, .. } => Some(name.clone()),
            Place::Cookie { .. } => Some(header::COOKIE),
            Place::Query { .. } => None,
        })
        .collect()
}
