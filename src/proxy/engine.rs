//! A request's way through one worker: read, judge, admit, forward, answer.
//!
//! Owns the order of the steps. The decision is the gate's, refusals are rendered by `reply`, connections come from
//! the pool. Nothing here waits for the store.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::{Body, Incoming};

use super::body::{ReplyBody, Watched};
use super::client::{ClientConnection, Target, X_REQUEST_ID, client_address, read_target};
use super::headers::Peer;
use super::live::{Current, CurrentRef, LiveReader};
use super::observe::{Exchange, Observer};
use super::outgoing::{self, Outgoing};
use super::pool::Pool;
use super::request_id::RequestIds;
use super::timer::Timers;
use super::{cors, echo, tunnel};
use crate::cache::{KeySet, LastUse};
use crate::credential::{self, Located};
use crate::domain::key_text::KeyTextForm;
use crate::domain::{Timestamp, time};
use crate::gate::{self, Admission, Freshness, Identity, Keys, RequestHead, RouteSettings, Verdict};
use crate::reply::{self, Audience, Failure, Refusal};
use crate::route::RouteIx;

/// One worker's engine.
pub(crate) struct Engine {
    /// Deadlines and the coarse clock.
    pub(crate) timers: Rc<Timers>,
    /// Connections to upstreams.
    pub(crate) pool: Pool,
    /// Metrics and the access log.
    pub(crate) observer: Rc<Observer>,
    pub(super) live: Rc<LiveReader>,
    /// Where this worker notes which keys were used.
    pub(super) last_use: WorkerLastUse,
    /// Answers over HTTP/2 under way.
    pub(super) watched: Watched,
    /// When draining began, on the coarse clock.
    pub(crate) drain_began_ms: Cell<u64>,
    pub(super) ids: RequestIds,
    pub(super) next_target: Cell<usize>,
}

/// What is known of one request while it is being answered.
pub(super) struct Context {
    pub(crate) engine: Rc<Engine>,
    pub(crate) connection: Rc<ClientConnection>,
    /// The generation that the request was judged by; everything after the judgement uses the same one.
    pub(crate) current: CurrentRef,
    pub(crate) request_id: HeaderValue,
    pub(crate) trust: Peer,
    pub(crate) is_head: bool,
    pub(crate) is_browser: bool,
    pub(crate) is_grpc: bool,
    pub(crate) origin: Option<HeaderValue>,
}

/// How far a request comes without waiting.
enum Step {
    /// It is answered.
    Answered(Response<ReplyBody>),
    /// It goes to the upstream.
    Forward(Box<Forward>),
}

/// An admitted request, ready to leave. Boxed, and made before the first wait, so that the future of a request holds
/// nothing that is no longer needed: it is moved once, and its size is paid by every request.
struct Forward {
    outgoing: Outgoing,
    exchange: Exchange,
    route: RouteIx,
    upstream: usize,
}

impl Engine {
    /// An engine for the thread it is made on.
    pub(crate) fn new(
        live: LiveReader,
        timers: Rc<Timers>,
        observer: Rc<Observer>,
        last_use: WorkerLastUse,
    ) -> Rc<Self> {
        Rc::new(Self {
            pool: Pool::new(Rc::clone(&timers), Rc::clone(&observer)),
            timers,
            observer,
            live: Rc::new(live),
            last_use,
            watched: Watched::default(),
            drain_began_ms: Cell::new(0),
            ids: RequestIds::seeded(),
            next_target: Cell::new(0),
        })
    }

    /// Looks after what no request looks after: connections that wait too long, answers that nobody takes.
    pub(crate) fn sweep(&self) {
        let current = self.live.current();
        let stall = current.plan.stall_timeout.as_millis();
        self.watched.sweep(u64::try_from(stall).unwrap_or(u64::MAX));
        let targets = || current.plan.upstreams.iter().flat_map(|upstream| &upstream.targets);
        self.pool.sweep(|id| targets().any(|target| target.id == id));
    }

    /// The answer to a request whose handling panicked.
    pub(crate) fn internal_error(&self) -> Response<ReplyBody> {
        let (request_id, answer) = self.bare_refusal(Failure::Internal);
        let mut answer = answer.map(ReplyBody::from);
        answer.headers_mut().insert(X_REQUEST_ID, request_id);
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        answer
    }

    /// A whole HTTP/1.1 answer, as bytes, to a message that could not be read.
    pub(crate) fn refuse_unread(&self, failure: Failure) -> Bytes {
        let current = self.live.current();
        let request_id = self.ids.next();
        let audience = bare_audience(&current, &request_id);
        reply::render_h1(Refusal::Failed(failure), &audience)
    }

    fn bare_refusal(&self, failure: Failure) -> (HeaderValue, Response<Bytes>) {
        let current = self.live.current();
        let request_id = self.ids.next();
        let answer = reply::render(Refusal::Failed(failure), &bare_audience(&current, &request_id));
        (request_id, answer)
    }

    /// Answers one request. Never fails: whatever goes wrong is an answer.
    pub(crate) async fn handle(
        self: Rc<Self>,
        connection: Rc<ClientConnection>,
        request: Request<Incoming>,
    ) -> Response<ReplyBody> {
        let (cx, step) = self.begin(connection, request);
        let mut answer = match step {
            Step::Answered(answer) => answer,
            Step::Forward(forward) => cx.forward(*forward).await,
        };
        let headers = answer.headers_mut();
        headers.insert(X_REQUEST_ID, cx.request_id);
        if cx.connection.is_leaving() && cx.connection.progress.is_some() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// Everything that needs no waiting: identify, read, judge, admit, rewrite.
    fn begin(self: Rc<Self>, connection: Rc<ClientConnection>, request: Request<Incoming>) -> (Context, Step) {
        let current = self.live.current();
        let trust = connection.trust(&current.gate.rules.settings.trusted_proxies);
        let inbound_id = request.headers().get(&X_REQUEST_ID).cloned();
        let request_id = match (&inbound_id, trust) {
            (Some(id), Peer::Trusted) if is_request_id(id) => id.clone(),
            (Some(_), Peer::Trusted | Peer::Untrusted) | (None, _) => self.ids.next(),
        };
        let client_id = inbound_id.filter(|id| *id != request_id);
        let exchange = self.observer.begin(&connection, &request, &request_id, client_id.as_ref());
        let mut cx = Context {
            connection,
            request_id,
            trust,
            is_head: *request.method() == Method::HEAD,
            is_browser: gate::is_from_browser(request.headers(), false),
            is_grpc: is_grpc(&request),
            origin: request.headers().get(header::ORIGIN).cloned(),
            current,
            engine: self,
        };
        let step = cx.step(request, exchange);
        (cx, step)
    }
}

impl Context {
    fn step(&mut self, request: Request<Incoming>, mut exchange: Exchange) -> Step {
        let has_body = !request.body().is_end_stream();
        if let Some(failure) = self.connection.h2_bounds.and_then(|bounds| bounds.exceeded_by(&request)) {
            return Step::Answered(self.refuse(Refusal::Failed(failure), None, has_body, exchange));
        }
        let target = match read_target(&request) {
            Ok(target) => target,
            Err(failure) => return Step::Answered(self.refuse(Refusal::Failed(failure), None, has_body, exchange)),
        };
        if self.connection.redirect_https {
            let location = format!("https://{}{}", host_only(target.authority), path_and_query(&target));
            return Step::Answered(self.redirect(&location, has_body, exchange));
        }
        let trusted = &self.current.gate.rules.settings.trusted_proxies;
        let client = client_address(self.connection.peer, self.trust, request.headers(), trusted);
        exchange.set_client(client);
        let protocol = tunnel::requested_protocol(request.method(), request.version(), request.headers());
        let head = RequestHead {
            method: request.method(),
            host: target.authority,
            path: target.path,
            query: target.query,
            headers: request.headers(),
            client,
            is_upgrade: protocol.is_some(),
        };
        let now = time::now();
        let mut verdict = self.judge(&head, now, &exchange);
        exchange.set_verdict(&self.current, &verdict);
        if exchange.wants_line() {
            note_key_prefix(&head, &self.current, verdict.route, &mut exchange);
        }
        let admission = verdict.take_admission();
        let (admitted, route) = match (admission, verdict.route) {
            (Admission::Forward(admitted), Some(route)) => (admitted, route),
            (Admission::Preflight, route) => {
                let answer = cors::preflight(&self.current, route, request.headers());
                return Step::Answered(self.finish_whole(answer, has_body, exchange));
            }
            (Admission::Refuse(denial), route) => {
                return Step::Answered(self.refuse(Refusal::Denied(&denial), route, has_body, exchange));
            }
            // Nothing is admitted without a rule.
            (Admission::Forward(_), None) => {
                return Step::Answered(self.refuse(Refusal::Failed(Failure::Internal), None, has_body, exchange));
            }
        };
        if let Identity::Key(authenticated) = admitted.identity() {
            self.engine.last_use.mark(authenticated.slot().id, now);
        }
        let settings = &self.current.gate.rules.route(route).settings;
        if let Some(failure) = unacceptable(&request, settings) {
            return Step::Answered(self.refuse(Refusal::Failed(failure), Some(route), has_body, exchange));
        }
        let wants_tunnel = protocol.and_then(|protocol| {
            let allowed = &settings.forward.upgrade;
            allowed.iter().any(|name| name.eq_ignore_ascii_case(protocol)).then(|| protocol.to_owned())
        });
        let keeps_credential = settings.forward_credential || matches!(admitted.identity(), Identity::Reported { .. });
        let uri = match outgoing::target_uri(settings, &verdict.path, target.query, keeps_credential) {
            Ok(uri) => uri,
            Err(failure) => {
                return Step::Answered(self.refuse(Refusal::Failed(failure), Some(route), has_body, exchange));
            }
        };
        let routed = Routed { route, uri, authority: target.authority.to_owned(), wants_tunnel };
        drop(verdict);
        let upstream = outgoing::upstream_of(&self.current, route, &admitted);
        let outgoing = Outgoing::prepare(self, upstream, request, admitted, routed, &exchange);
        Step::Forward(Box::new(Forward { outgoing, exchange, route, upstream }))
    }

    /// Judges by the current generation; once more by the next when a key is newer than this one.
    fn judge<'h>(&mut self, head: &RequestHead<'h>, now: Timestamp, exchange: &Exchange) -> Verdict<'h> {
        let key_set = self.engine.live.keys();
        let verdict = loop {
            let keys = Keys { set: key_set, freshness: freshness_of(key_set) };
            match gate::judge(head, &self.current.gate, keys, now) {
                Ok(verdict) => break verdict,
                Err(gate::SnapshotOutdated) => {
                    // Names are published before the keys that need them: the next one knows them.
                    self.current = self.engine.live.current();
                }
            }
        };
        exchange.decided();
        verdict
    }

    async fn forward(&self, forward: Forward) -> Response<ReplyBody> {
        let Forward { outgoing, exchange, route, upstream } = forward;
        let upstream = &self.current.plan.upstreams[upstream];
        if upstream.targets.is_empty() {
            let answer = Box::pin(echo::answer(outgoing)).await;
            return self.finish_whole(self.with_cors(answer, Some(route)), false, exchange);
        }
        match outgoing.send(self, upstream, exchange).await {
            Ok(answer) => self.with_cors(answer, Some(route)),
            Err((failure, exchange)) => {
                let unread = exchange.has_unread_body();
                self.refuse(Refusal::Failed(failure), Some(route), unread, exchange)
            }
        }
    }

    fn refuse(
        &self,
        refusal: Refusal<'_>,
        route: Option<RouteIx>,
        has_unread_body: bool,
        mut exchange: Exchange,
    ) -> Response<ReplyBody> {
        let settings = &self.current.gate.rules.settings;
        // Under `hide_routes` nobody without a key learns which route it was: same challenges, no `cors`.
        let is_stranger = matches!(refusal, Refusal::Denied(denial) if denial.concerns_credential());
        let is_hidden = settings.hide_routes && is_stranger;
        let route = route.filter(|_| !is_hidden);
        let route_settings = route.map(|route| &self.current.gate.rules.route(route).settings);
        let audience = Audience {
            request_id: self.request_id.to_str().unwrap_or(""),
            profile: self.current.plan.errors,
            type_base: &self.current.plan.error_type_base,
            realm: &settings.realm,
            accept: route_settings.map_or(&settings.accept[..], |route| &route.accept[..]),
            is_browser: self.is_browser,
            is_grpc: self.is_grpc,
        };
        exchange.set_refusal(refusal);
        let answer = reply::render(refusal, &audience);
        self.finish_whole(self.with_cors(answer, route), has_unread_body, exchange)
    }

    fn redirect(&self, location: &str, has_unread_body: bool, exchange: Exchange) -> Response<ReplyBody> {
        let mut answer = Response::new(Bytes::new());
        *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
        match HeaderValue::from_str(location) {
            Ok(value) => {
                answer.headers_mut().insert(header::LOCATION, value);
                self.finish_whole(answer, has_unread_body, exchange)
            }
            Err(_) => {
                let failure = Failure::BadRequest { detail: "The request target is malformed." };
                self.refuse(Refusal::Failed(failure), None, has_unread_body, exchange)
            }
        }
    }

    /// An answer of ours, whole. With a body left unread the connection ends after it, so that the client sees the
    /// answer and not a reset.
    fn finish_whole(&self, answer: Response<Bytes>, has_unread_body: bool, exchange: Exchange) -> Response<ReplyBody> {
        let (mut parts, body) = answer.into_parts();
        if has_unread_body && self.connection.progress.is_some() {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if !parts.headers.contains_key(header::CONTENT_LENGTH) && !parts.status.is_informational() {
            parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
        }
        if parts.status == StatusCode::NO_CONTENT {
            parts.headers.remove(header::CONTENT_LENGTH);
        }
        let body = if self.is_head { Bytes::new() } else { body };
        exchange.finish_with(parts.status, body.len() as u64);
        Response::from_parts(parts, body.into())
    }

    fn with_cors<B>(&self, mut answer: Response<B>, route: Option<RouteIx>) -> Response<B> {
        if let (Some(origin), Some(route)) = (&self.origin, route)
            && let Some(rules) = &self.current.gate.rules.route(route).settings.cors
        {
            cors::expose(answer.headers_mut(), rules, origin);
        }
        answer
    }
}

/// For refusals of which no request is known.
fn bare_audience<'a>(current: &'a Current, request_id: &'a HeaderValue) -> Audience<'a> {
    Audience {
        request_id: request_id.to_str().unwrap_or(""),
        profile: current.plan.errors,
        type_base: &current.plan.error_type_base,
        realm: &current.gate.rules.settings.realm,
        accept: &[],
        is_browser: false,
        is_grpc: false,
    }
}

/// Where an admitted request goes.
pub(super) struct Routed {
    pub(crate) route: RouteIx,
    /// Path and query as the upstream gets them.
    pub(crate) uri: http::uri::PathAndQuery,
    /// Host and port as the client said.
    pub(crate) authority: String,
    /// The protocol that both the client asks for and the route allows.
    pub(crate) wants_tunnel: Option<String>,
}

/// The public beginning of the presented key, for the log: its text says it, whether the key is known or not.
fn note_key_prefix(head: &RequestHead<'_>, current: &Current, route: Option<RouteIx>, exchange: &mut Exchange) {
    let rules = &current.gate.rules;
    let accept = route.map_or(&rules.settings.accept, |route| &rules.route(route).settings.accept);
    if let Located::One(credential) = credential::locate(head.headers, head.query, accept)
        && let KeyTextForm::Ours { prefix, .. } = credential.key().form(&rules.settings.brand)
    {
        exchange.set_key_prefix(prefix);
    }
}

/// Visible ASCII up to 128 bytes: what is kept from a trusted proxy.
fn is_request_id(value: &HeaderValue) -> bool {
    (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    request.headers().get(header::CONTENT_TYPE).is_some_and(|value| {
        let value = value.as_bytes();
        value.starts_with(b"application/grpc") && !value.starts_with(b"application/grpc-web")
    })
}

/// What is wrong with an admitted request before any of its body is read.
fn unacceptable(request: &Request<Incoming>, route: &RouteSettings) -> Option<Failure> {
    if wrong_expectation(request) {
        return Some(Failure::ExpectationFailed);
    }
    let (max, length) = (route.forward.max_body?, request.body().size_hint().exact()?);
    (length > max).then_some(Failure::BodyTooLarge)
}

/// Anything but `100-continue` (RFC 9110 §10.1.1).
fn wrong_expectation<B>(request: &Request<B>) -> bool {
    request
        .headers()
        .get_all(header::EXPECT)
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

fn host_only(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        Some(_) | None => authority,
    }
}

fn path_and_query(target: &Target<'_>) -> String {
    match target.query {
        Some(query) => format!("{}?{query}", target.path),
        None => target.path.to_owned(),
    }
}

fn freshness_of(keys: &KeySet) -> Freshness {
    keys.age(time::monotonic_now()).map_or(Freshness::Unloaded, Freshness::Confirmed)
}

/// One worker's place to note last use.
pub(crate) struct WorkerLastUse {
    /// Of all workers.
    pub(crate) shared: Arc<LastUse>,
    /// Which of them.
    pub(crate) worker: usize,
}

impl WorkerLastUse {
    fn mark(&self, id: crate::domain::KeyId, now: Timestamp) {
        self.shared.mark(self.worker, id, now);
    }
}

/// Whether an admitted key still holds, for streams and tunnels.
pub(super) struct KeyRecheck {
    pub(crate) live: Rc<LiveReader>,
    pub(crate) authenticated: RefCell<crate::authn::Authenticated>,
}

impl super::body::Recheck for KeyRecheck {
    fn still_holds(&self) -> bool {
        let current = self.live.current();
        let key_set = self.live.keys();
        let keys = Keys { set: key_set, freshness: freshness_of(key_set) };
        gate::still_holds(&self.authenticated.borrow(), &current.gate, keys, time::now())
    }

    fn interval(&self) -> std::time::Duration {
        self.live.current().gate.rules.settings.recheck_interval
    }
}
