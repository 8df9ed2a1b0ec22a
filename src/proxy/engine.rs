//! A request's way through one worker: read, judge, admit, forward, answer.
//!
//! Owns the order of the steps. The decision is the gate's, refusals are rendered by `reply`, connections come from
//! the pool. Nothing here waits for the store.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::Method;

use super::aftermath::Afterwards;
use super::answer::Answer;
use super::asked::Asked;
use super::balance::Turns;
use super::body::Watched;
use super::client::{ClientConnection, client_address};
use super::cors::{self, PageOfKey};
use super::echo;
use super::headers::Peer;
use super::live::{Current, CurrentRef, LiveReader};
use super::observe::Observer;
use super::observed::Exchange;
use super::outgoing::{self, Outgoing};
use super::pool::Pool;
use super::request_id::{RequestId, RequestIds};
use super::respond::bare_audience;
use super::self_service::{ApiRefusal, Inquiries, Question};
use super::timer::Timers;
use super::told::Told;
use super::tripwire::Tripwire;
use super::waiting::Waiting;
use crate::credential::{self, Located};
use crate::domain::key_text::KeyTextForm;
use crate::domain::time::monotonic_now;
use crate::domain::{Known, Timestamp};
use crate::gate::{self, Admission, Decided, Freshness, Keys, Outcome, RequestHead, Verdict};
use crate::limit::{Meters, Moment, Patience, Standings};
use crate::reply::{self, Failure, Refusal};
use crate::route::RouteIx;
use crate::telemetry::RecallKind;
use crate::wire::Buffers;

/// One worker's engine.
pub(crate) struct Engine {
    /// Deadlines and the coarse clock.
    pub(crate) timers: Rc<Timers>,
    /// Memory to read into and to write from.
    pub(crate) buffers: Rc<Buffers>,
    /// Connections to upstreams.
    pub(crate) pool: Pool,
    /// Metrics and the access log.
    pub(crate) observer: Rc<Observer>,
    pub(super) live: Rc<LiveReader>,
    /// What requests take from, shared by all workers.
    pub(super) meters: Arc<Meters>,
    /// Where requests to the management API go that a route lets in.
    pub(super) inquiries: Inquiries,
    /// Refusals that are still to be written down.
    pub(crate) afterwards: Afterwards,
    /// Answers over HTTP/2 under way.
    pub(super) watched: Watched,
    /// When draining began, on the coarse clock.
    pub(crate) drain_began_ms: Cell<u64>,
    pub(super) ids: RequestIds,
    /// Whose turn it is, upstream by upstream.
    pub(super) turns: Turns,
}

/// What is known of one request while it is being answered.
pub(super) struct Context {
    pub(crate) engine: Rc<Engine>,
    pub(crate) connection: Rc<ClientConnection>,
    /// The generation that the request was judged by; everything after the judgement uses the same one.
    pub(crate) current: CurrentRef,
    pub(crate) request_id: RequestId,
    pub(crate) trust: Peer,
    pub(crate) is_head: bool,
    pub(crate) is_browser: bool,
    pub(crate) is_grpc: bool,
    pub(crate) origin: Option<Box<[u8]>>,
    /// What the page with that origin may read for the sake of a publishable key that names it.
    pub(crate) page: PageOfKey,
    /// Where the caller stands with the limits that apply, for the answer, whoever gives it.
    pub(crate) standings: Standings,
    /// How long it waits for what other nodes have to say of its limits, once it has begun to.
    pub(super) waits_until: Option<Instant>,
}

/// How far a request comes without waiting.
pub(crate) enum Step {
    /// It is answered.
    Answered(Answer),
    /// It goes to the upstream: see [`Forward::run`].
    Forward(Box<Forward>),
    /// It is to be judged again, once other nodes have said something of its limits: see [`Waiting`].
    Wait(Box<Waiting>),
}

/// An admitted request, ready to leave. Boxed, and made before the first wait, so that the future of a request holds
/// nothing that is no longer needed: it is moved once, and its size is paid by every request.
pub(crate) struct Forward {
    cx: Context,
    way: Way,
    /// Until it goes on with the answer's body.
    exchange: Option<Exchange>,
    route: RouteIx,
}

/// Where an admitted request goes.
#[expect(clippy::large_enum_variant, reason = "nearly every request has the large one, and all of it lies in one box")]
enum Way {
    /// To this upstream.
    Upstream(Outgoing, usize),
    /// To the management API.
    SelfService(Option<Box<Question>>),
}

impl Engine {
    /// An engine for the thread it is made on.
    pub(crate) fn new(
        live: Rc<LiveReader>,
        timers: Rc<Timers>,
        observer: Rc<Observer>,
        meters: Arc<Meters>,
        inquiries: Inquiries,
        buffers: Rc<Buffers>,
    ) -> Rc<Self> {
        let watched = Watched::new(buffers.memory().clone());
        Rc::new(Self {
            pool: Pool::new(Rc::clone(&timers), Rc::clone(&observer), Rc::clone(&buffers)),
            timers,
            buffers,
            observer,
            live,
            afterwards: Afterwards::default(),
            meters,
            inquiries,
            watched,
            drain_began_ms: Cell::new(0),
            ids: RequestIds::seeded(),
            turns: Turns::default(),
        })
    }

    /// Looks after what no request looks after: connections that wait too long, answers that nobody takes.
    pub(crate) fn sweep(&self) {
        let current = self.live.current();
        let targets = || current.plan.upstreams.iter().flat_map(|upstream| &upstream.targets);
        self.pool.sweep(|id| targets().any(|target| target.id == id));
        self.watched.sweep(&current.plan.patience);
    }

    /// The answer to a request whose handling panicked.
    pub(crate) fn internal_error(&self) -> Answer {
        let current = self.live.current();
        let request_id = self.ids.next();
        let refusal = Refusal::Failed(Failure::Internal);
        Answer::refusal(reply::render(refusal, &bare_audience(&current, &request_id)), false, None)
    }

    /// A whole HTTP/1.1 answer, as bytes, to a message that could not be read.
    pub(crate) fn refuse_unread(&self, failure: Failure) -> Bytes {
        let current = self.live.current();
        let request_id = self.ids.next();
        let audience = bare_audience(&current, &request_id);
        self.observer.remember_unread(&request_id, failure, self.timers.wall_at(monotonic_now()));
        tracing::debug!(
            request_id = request_id.as_str(),
            code = failure.code(),
            "a message that cannot be read was refused"
        );
        reply::render_h1(Refusal::Failed(failure), &audience)
    }

    /// Everything that needs no waiting: identify, read, judge, admit, rewrite. Never fails: whatever goes wrong is an
    /// answer.
    pub(crate) fn begin(self: &Rc<Self>, connection: &Rc<ClientConnection>, asked: Asked<'_>) -> Step {
        let current = self.live.current();
        let trust = connection.trust(&current.gate.rules.settings.trusted_proxies);
        let inbound_id = asked.fields.first(Known::XRequestId);
        let kept = inbound_id.filter(|_| trust == Peer::Trusted).and_then(RequestId::kept);
        let client_id = inbound_id.filter(|_| kept.is_none());
        let request_id = kept.unwrap_or_else(|| self.ids.next());
        let exchange = self.observer.begin(connection, &asked, &request_id, client_id);
        let cx = Context {
            connection: Rc::clone(connection),
            request_id,
            trust,
            is_head: asked.method == Method::HEAD,
            is_browser: gate::is_from_browser(asked.fields, false),
            is_grpc: asked.is_grpc(),
            origin: asked.fields.first(Known::Origin).map(Into::into),
            page: PageOfKey::Nothing,
            standings: Standings::new(),
            waits_until: None,
            current,
            engine: Rc::clone(self),
        };
        cx.step(asked, exchange)
    }
}

impl Forward {
    /// Sends the request, and begins the answer. Dropping it gives both up.
    ///
    /// Everything stays where it is: the future holds little more than the box.
    pub(crate) async fn run(mut self: Box<Self>) -> Answer {
        let Self { cx, way, exchange, route } = &mut *self;
        let (outgoing, upstream) = match way {
            Way::Upstream(outgoing, upstream) => (outgoing, *upstream),
            Way::SelfService(question) => {
                return Box::pin(cx.serve_self(question.take(), exchange.take(), *route)).await;
            }
        };
        let number = upstream;
        let upstream = &cx.current.plan.upstreams[number];
        let failure = if upstream.targets.is_empty() {
            let answer = Box::pin(echo::answer(outgoing)).await;
            match exchange.take() {
                Some(exchange) => {
                    return cx.with_request_id(cx.with_route_fields(
                        cx.finish_whole(answer, exchange),
                        Some(*route),
                        false,
                    ));
                }
                None => Failure::Internal,
            }
        } else {
            match outgoing.send(cx, (number, upstream), exchange).await {
                Ok(answer) => return cx.with_request_id(cx.with_route_fields(answer, Some(*route), false)),
                Err(failure) => failure,
            }
        };
        cx.refuse(Refusal::Failed(failure), Some(*route), exchange.take())
    }
}

impl Context {
    pub(super) fn step(mut self, asked: Asked<'_>, mut exchange: Exchange) -> Step {
        Tripwire::Begin.sees(asked.fields.iter().map(|field| field.value));
        let now = self.engine.timers.wall_at(exchange.begun());
        if let Some(failure) = self.connection.h2_bounds.and_then(|bounds| bounds.exceeded_by(&asked)) {
            exchange.remember_unjudged(&self.request_id, &asked, failure, now);
            return Step::Answered(self.refuse(Refusal::Failed(failure), None, exchange));
        }
        if self.connection.is_overloaded.get() {
            exchange.remember_unjudged(&self.request_id, &asked, Failure::Overloaded, now);
            return Step::Answered(self.refuse(Refusal::Failed(Failure::Overloaded), None, exchange));
        }
        let host = match asked.check_target().and_then(|()| asked.host()) {
            Ok(host) => host,
            Err(failure) => {
                exchange.remember_unjudged(&self.request_id, &asked, failure, now);
                return Step::Answered(self.refuse(Refusal::Failed(failure), None, exchange));
            }
        };
        if self.connection.redirect_https {
            let location = format!("https://{}{}", host_only(host), path_and_query(&asked));
            return Step::Answered(self.redirect(&location, exchange));
        }
        let trusted = &self.current.gate.rules.settings.trusted_proxies;
        let client = client_address(self.connection.peer, self.trust, asked.fields, trusted);
        exchange.set_client(client);
        let protocol = asked.requested_protocol();
        // The verdict borrows what it was asked about, and outlives the request that is taken apart.
        let method = asked.method.clone();
        let head = RequestHead {
            method: &method,
            host,
            path: asked.path,
            query: asked.query,
            fields: asked.fields,
            client,
            is_upgrade: protocol.is_some(),
        };
        let mut verdict = self.judge(&head, now, &exchange);
        self.page = PageOfKey::of(self.origin.as_deref(), &verdict, &self.current.gate, &method);
        // What is refused takes from no meter, so this comes before them.
        if let (Some(failure), route) = (unacceptable(&asked, &verdict, &self.current), verdict.route) {
            let told = Told::of_outcome(&verdict);
            self.note(&mut exchange, &head, &verdict, told, now);
            let kind = RecallKind::Refusal;
            exchange.remember_as(kind, &self.request_id, &head, &self.current, &verdict, told, now);
            return Step::Answered(self.refuse(Refusal::Failed(failure), route, exchange));
        }
        let monotonic = if self.waits_until.is_some() { monotonic_now() } else { exchange.begun() };
        let patience =
            if self.waits_until.is_some_and(|end| end <= monotonic) { Patience::Over } else { Patience::Waits };
        let (keys, meters) = (self.engine.live.keys(), &self.engine.meters);
        let moment = Moment { monotonic, wall: now };
        let decided = gate::admit_with(patience, &mut verdict, &self.current.gate, keys, client, meters, moment);
        let Decided { admission, standings } = match decided {
            Ok(decided) => decided,
            Err(awaited) => return Step::Wait(Waiting::new(self, exchange, asked.body, awaited)),
        };
        self.standings = standings;
        let told = Told::of_admission(&admission);
        self.note(&mut exchange, &head, &verdict, told, now);
        exchange.remember(&self.request_id, &head, &self.current, &verdict, told, now);
        let (admitted, route) = match (admission, verdict.route) {
            (Admission::Forward(admitted), Some(route)) => (admitted, route),
            (Admission::Preflight, route) => {
                let answer = cors::preflight(&self.current, route, self.page != PageOfKey::Nothing, asked.fields);
                let answer = self.with_route_fields(self.finish_whole(answer, exchange), route, true);
                return Step::Answered(self.with_request_id(answer));
            }
            (Admission::Refuse(denial), route) => {
                return Step::Answered(self.refuse(Refusal::Denied(&denial), route, exchange));
            }
            // Nothing is admitted without a rule.
            (Admission::Forward(_), None) => {
                return Step::Answered(self.refuse(Refusal::Failed(Failure::Internal), None, exchange));
            }
        };
        let settings = &self.current.gate.rules.route(route).settings;
        let wants_tunnel = protocol.and_then(|protocol| {
            let allowed = &settings.forward.upgrade;
            allowed.iter().any(|name| name.eq_ignore_ascii_case(protocol)).then(|| protocol.to_owned())
        });
        let routed = Routed { route, path: &verdict.path, authority: host, wants_tunnel };
        let way = if settings.self_service.is_some() {
            Way::SelfService(Some(Box::new(Question::prepare(&self, asked, client, &admitted, &routed, &exchange))))
        } else {
            let upstream = outgoing::upstream_of(&self.current, route, &admitted);
            Way::Upstream(Outgoing::prepare(&self, upstream, asked, &admitted, routed, &exchange), upstream)
        };
        drop(verdict);
        Step::Forward(Box::new(Forward { cx: self, way, exchange: Some(exchange), route }))
    }

    /// Lets the management API answer.
    async fn serve_self(&self, question: Option<Box<Question>>, exchange: Option<Exchange>, route: RouteIx) -> Answer {
        let answered = match question {
            Some(question) => question.put(self).await,
            None => Err(Failure::Internal),
        };
        match (answered, exchange) {
            (Ok(answer), Some(mut exchange)) => {
                if let Some(refusal) = answer.extensions().get::<ApiRefusal>() {
                    let now = self.engine.timers.wall_at(exchange.begun());
                    let settings = &self.current.gate.rules.route(route).settings;
                    exchange.refused_by_api(refusal, &self.request_id, settings, now);
                }
                self.with_request_id(self.with_route_fields(self.finish_whole(answer, exchange), Some(route), true))
            }
            (Err(failure), exchange) => self.refuse(Refusal::Failed(failure), Some(route), exchange),
            (Ok(_), None) => self.refuse(Refusal::Failed(Failure::Internal), Some(route), None),
        }
    }

    /// Notes what was decided, for metrics, for usage and for the log.
    fn note(
        &self,
        exchange: &mut Exchange,
        head: &RequestHead<'_>,
        verdict: &Verdict<'_>,
        told: Told<'_>,
        now: Timestamp,
    ) {
        exchange.decided();
        exchange.set_verdict(&self.current, head, verdict, told, now);
        if exchange.wants_line() {
            note_key_prefix(head, &self.current, verdict.route, exchange);
        }
    }

    /// Judges by the current generation; once more by the next when a key is newer than this one.
    fn judge<'h>(&mut self, head: &RequestHead<'h>, now: Timestamp, exchange: &Exchange) -> Verdict<'h> {
        let key_set = self.engine.live.keys();
        loop {
            let freshness = key_set.age(exchange.begun()).map_or(Freshness::Unloaded, Freshness::Confirmed);
            match gate::judge(head, &self.current.gate, Keys { set: key_set, freshness }, now) {
                Ok(verdict) => return verdict,
                Err(gate::SnapshotOutdated) => {
                    // Names are published before the keys that need them: the next one knows them.
                    self.current = self.engine.live.current();
                }
            }
        }
    }
}

/// Where an admitted request goes.
pub(super) struct Routed<'a> {
    pub(crate) route: RouteIx,
    /// The path to forward, byte for byte.
    pub(crate) path: &'a str,
    /// Host and port as the client said.
    pub(crate) authority: &'a str,
    /// The protocol that both the client asks for and the route allows.
    pub(crate) wants_tunnel: Option<String>,
}

/// The public beginning of the presented key, for the log: its text says it, whether the key is known or not.
fn note_key_prefix(head: &RequestHead<'_>, current: &Current, route: Option<RouteIx>, exchange: &mut Exchange) {
    let rules = &current.gate.rules;
    let accept = route.map_or(&rules.settings.accept, |route| &rules.route(route).settings.accept);
    if let Located::One(credential) = credential::locate(head.fields, head.query, accept)
        && let KeyTextForm::Ours { prefix, .. } = credential.key().form(&rules.settings.brand)
    {
        exchange.set_key_prefix(prefix);
    }
}

/// What is wrong with a request that may be forwarded, before any of its body is read.
fn unacceptable(asked: &Asked<'_>, verdict: &Verdict<'_>, current: &Current) -> Option<Failure> {
    match verdict.outcome {
        Outcome::Pass(_) | Outcome::Report(_) => {}
        Outcome::Deny(_) | Outcome::Preflight => return None,
    }
    if wrong_expectation(asked) {
        return Some(Failure::ExpectationFailed);
    }
    let route = &current.gate.rules.route(verdict.route?).settings;
    let (max, length) = (route.forward.max_body?, asked.body.exact_len()?);
    (length > max).then_some(Failure::BodyTooLarge)
}

/// Anything but `100-continue` (RFC 9110 §10.1.1).
fn wrong_expectation(asked: &Asked<'_>) -> bool {
    asked.fields.all(Known::Expect).any(|value| !value.eq_ignore_ascii_case(b"100-continue"))
}

fn host_only(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        Some(_) | None => authority,
    }
}

fn path_and_query(asked: &Asked<'_>) -> String {
    match asked.query {
        Some(query) => format!("{}?{query}", asked.path),
        None => asked.path.to_owned(),
    }
}
