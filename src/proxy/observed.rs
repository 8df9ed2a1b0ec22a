//! What is said about each request: metrics always, an access line where it is wanted.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode, Version};

use super::aftermath::{Aftermath, RefusedCaller};
use super::asked::Asked;
use super::body::{BodyError, UploadProgress};
use super::client::ClientConnection;
use super::line_facts::LineFacts;
use super::live::Current;
use super::observe::Observer;
use super::request_id::RequestId;
use super::self_service::ApiRefusal;
use super::shelf::Shelved;
use super::standing::InFlight;
use super::target::Target;
use super::told::{Told, limit_label, limited_by};
use crate::domain::redact::path_without_keys;
use crate::domain::time::{self, monotonic_now};
use crate::domain::{Known, Timestamp};
use crate::gate::{Denial, Mode, RequestHead, RouteSettings, Verdict};
use crate::limit::Policy;
use crate::reply::Refusal;
use crate::telemetry::{AccessLine, DecisionMode, DecisionResult, EnvironmentLabel, Noted, RouteLabel, Ticket};
use crate::usage::Counted;

/// One request under observation. It is counted exactly once, at the latest when dropped.
pub(crate) struct Exchange {
    pub(super) observer: Rc<Observer>,
    pub(super) connection: Rc<ClientConnection>,
    pub(super) method: Method,
    pub(super) version: Version,
    begun: Instant,
    decided: Cell<Instant>,
    /// When the head of the upstream's answer came, for as long as nothing was waited for since, or our own was out.
    arrived: Option<Instant>,
    asks_upstream: bool,
    upstream_duration: Option<Duration>,
    route: RouteLabel,
    status: StatusCode,
    upload: RefCell<Option<Rc<UploadProgress>>>,
    line: Option<Box<LineFacts>>,
    /// Where it is remembered, if it is.
    pub(super) ticket: Option<Ticket>,
    /// What it is counted by, when it came with a key that is known.
    counted: Option<Counted>,
    /// The target that it is under way at, where requests are balanced by how many are.
    load: Option<InFlight>,
    /// Whether its route enforces or reports.
    mode: DecisionMode,
    /// What is to be written down of a refusal behind the answer.
    aftermath: Option<Shelved<Aftermath>>,
    /// How long the body of our own answer is, once there is one: nothing is missing but that it goes out.
    whole: Option<u64>,
    /// Whether its connection counts it as under way.
    is_in_flight: bool,
    over: bool,
}

impl Observer {
    /// Begins to observe one request.
    pub(crate) fn begin(
        self: &Rc<Self>,
        connection: &Rc<ClientConnection>,
        asked: &Asked<'_>,
        request_id: &RequestId,
        client_request_id: Option<&[u8]>,
    ) -> Exchange {
        connection.in_flight.set(connection.in_flight.get() + 1);
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let line = self.access.is_enabled().then(|| {
            Box::new(LineFacts {
                ts: time::now(),
                request_id: request_id.clone(),
                client_request_id: client_request_id.map(text),
                host: asked.authority.map(str::to_owned).or_else(|| asked.fields.first(Known::Host).map(text)),
                path: path_without_keys(asked.path).into_owned(),
                ..LineFacts::empty()
            })
        });
        let begun = monotonic_now();
        Exchange {
            observer: Rc::clone(self),
            connection: Rc::clone(connection),
            method: asked.method.clone(),
            version: asked.version,
            begun,
            decided: Cell::new(begun),
            arrived: None,
            asks_upstream: false,
            upstream_duration: None,
            route: RouteLabel::NONE,
            status: StatusCode::OK,
            upload: RefCell::default(),
            line,
            ticket: None,
            counted: None,
            load: None,
            mode: DecisionMode::Enforce,
            aftermath: None,
            whole: None,
            is_in_flight: true,
            over: false,
        }
    }
}

impl Exchange {
    /// Counts it among the requests under way at a target, until it ends.
    pub(super) fn loads(&mut self, target: &Arc<Target>) {
        self.load = Some(InFlight::begin(target));
    }

    /// Notes who the client is.
    pub(crate) fn set_client(&mut self, client: Option<IpAddr>) {
        if let Some(line) = &mut self.line {
            line.client_ip = client;
        }
    }

    /// When its head was read.
    pub(crate) const fn begun(&self) -> Instant {
        self.begun
    }

    /// Notes that the decision was made.
    pub(crate) fn decided(&self) {
        self.decided.set(monotonic_now());
        self.observer.metrics.auth_duration(self.decided.get() - self.begun);
    }

    /// Notes what was decided, for metrics, for usage and for the log. Of a refusal nothing is looked up yet that depends
    /// on the key.
    pub(super) fn set_verdict(
        &mut self,
        current: &Current,
        head: &RequestHead<'_>,
        verdict: &Verdict<'_>,
        told: Told<'_>,
        now: Timestamp,
    ) {
        if let Some(route) = verdict.route {
            self.route = current.plan.labels[route.0 as usize];
        }
        let route = verdict.route.map(|route| &current.gate.rules.route(route).settings);
        self.mode = match route.map(|route| route.mode) {
            Some(Mode::Report) => DecisionMode::Report,
            Some(Mode::Enforce) | None => DecisionMode::Enforce,
        };
        if let Some(line) = &mut self.line {
            line.mode = route.map(|_| self.mode);
            line.route = route.map(|route| route.label.clone());
            line.reason = told.denial.map(Denial::reason);
            if let Some(Denial::InsufficientScope { missing, .. }) = told.denial {
                line.missing.clone_from(missing);
            }
        }
        if told.is_refused() {
            let aftermath = Aftermath::of(current, head, verdict, told, now);
            self.aftermath = Some(self.observer.aftermaths.boxed(aftermath));
            return;
        }
        self.counted = self.observer.tally.note(&current.plan.rule_numbers, head, verdict, &told, now);
        let slot = verdict.caller.slot();
        let environment = slot.and_then(|slot| current.gate.environment(slot.environment)).map(|it| &it.name);
        self.count_decision(environment, told.result, told.reason, told.denial.and_then(limited_by));
        if let Some(line) = &mut self.line {
            line.key_id = slot.map(|slot| slot.id);
            line.owner = slot.and_then(|slot| slot.owner).and_then(|ix| current.gate.directory.owner(ix)).map(|o| o.id);
            line.environment = environment.cloned();
        }
    }

    fn count_decision(
        &self,
        environment: Option<&Arc<str>>,
        result: DecisionResult,
        reason: &'static str,
        limit: Option<Policy>,
    ) {
        let observer = &self.observer;
        let environment = environment.map_or(EnvironmentLabel::NONE, |name| observer.environment(name));
        observer.metrics.decision(self.route, environment, self.mode, result, reason);
        if let Some(limit) = limit {
            observer.metrics.rate_limited(self.route, environment, limit_label(limit));
        }
    }

    /// Writes down a refusal.
    fn write_down(&mut self, aftermath: &Aftermath) {
        self.counted = aftermath.note_in(&self.observer.tally);
        let current = self.observer.live.current();
        let caller = aftermath.caller(&current.gate);
        let environment = caller.as_ref().and_then(|caller| caller.environment);
        self.count_decision(environment, DecisionResult::Refused, aftermath.reason, aftermath.limit);
        let Some(RefusedCaller { key_id, owner, environment }) = caller else { return };
        if let Some(ticket) = self.ticket {
            self.observer.recall.came_with(ticket, key_id, owner, environment.map(|name| &**name));
        }
        if let Some(line) = &mut self.line {
            (line.key_id, line.owner, line.environment) = (Some(key_id), owner, environment.cloned());
        }
    }

    /// Notes the public beginning of the credential that was presented.
    pub(crate) fn set_key_prefix(&mut self, prefix: &str) {
        if let Some(line) = &mut self.line {
            line.key_prefix = Some(prefix.to_owned());
        }
    }

    /// Whether an access line will be written.
    pub(crate) const fn wants_line(&self) -> bool {
        self.line.is_some()
    }

    /// Notes why the request is answered by us.
    pub(crate) fn set_refusal(&mut self, refusal: Refusal<'_>) {
        if let Some(line) = &mut self.line {
            line.code = Some(refusal.facts().code);
            line.reason = Some(refusal.reason());
        }
    }

    /// What is known of the request for the access line that it gets, on top of `noted`.
    pub(super) fn with_line_facts<'a>(&'a self, noted: Noted<'a>) -> Noted<'a> {
        let Some(line) = &self.line else { return noted };
        Noted {
            host: line.host.as_deref(),
            path: Some(&line.path),
            mode: line.mode,
            key_id: line.key_id,
            owner: line.owner,
            environment: line.environment.as_deref(),
            client_ip: line.client_ip,
            ..noted
        }
    }

    /// Notes why the management API refuses a request that a route has let in.
    pub(super) fn refused_by_api(
        &mut self,
        refusal: &ApiRefusal,
        request_id: &RequestId,
        route: &RouteSettings,
        now: Timestamp,
    ) {
        let ApiRefusal { code, missing_scopes } = refusal;
        if let Some(line) = &mut self.line {
            line.code = Some(code);
            line.reason = Some(code);
            line.missing.clone_from(missing_scopes);
        }
        self.remember_failure(code, missing_scopes, request_id, Some(route), now);
    }

    /// Lets the exchange see how much of the body was sent.
    pub(crate) fn watch_upload(&self, upload: &Rc<UploadProgress>) {
        *self.upload.borrow_mut() = Some(Rc::clone(upload));
    }

    /// Notes that the request is being sent to an upstream. Its time counts from the decision: one reading of the clock
    /// serves both, and next to nothing is in between.
    pub(crate) fn reached_upstream(&mut self, target: &str) {
        self.asks_upstream = true;
        if let Some(line) = &mut self.line {
            line.upstream = Some(target.to_owned());
        }
    }

    /// Notes the head of the upstream's answer.
    pub(crate) fn head_arrived(&mut self, status: u16, upstream: &str) {
        self.status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        if self.asks_upstream {
            let now = monotonic_now();
            self.arrived = Some(now);
            let took = now - self.decided.get();
            self.upstream_duration = Some(took);
            self.observer.metrics.upstream_request(self.observer.upstream(upstream), took);
        }
    }

    /// Notes that the rest of the answer may have to be waited for. Until then, its head and its end came together, and
    /// one reading of the clock serves both.
    pub(crate) fn waits(&mut self) {
        self.arrived = None;
    }

    /// Ends the observation of an answer of ours.
    pub(crate) fn finish_with(mut self, status: StatusCode, body_bytes: u64) {
        self.status = status;
        self.end(body_bytes, None);
    }

    /// Notes our answer. The observation ends when it is dropped, behind the answer (`Afterwards`): what is written down of
    /// a refusal depends on the key, and nobody may learn from a clock which it was.
    pub(crate) fn answered_with(&mut self, status: StatusCode, body_bytes: u64) {
        self.status = status;
        self.whole = Some(body_bytes);
    }

    /// Ends the observation of an answer that streamed: with its body bytes, and why it broke off when it did.
    pub(crate) fn finish(mut self, body_bytes: u64, broken: Option<&BodyError>) {
        self.end(body_bytes, broken.map(BodyError::reason));
    }

    /// Notes that its answer is out, although it is observed a little longer.
    pub(super) fn is_answered(&mut self) {
        self.arrived = Some(monotonic_now());
        self.land();
    }

    /// Its connection no longer waits for it.
    fn land(&mut self) {
        if std::mem::replace(&mut self.is_in_flight, false) {
            let in_flight = &self.connection.in_flight;
            in_flight.set(in_flight.get().saturating_sub(1));
        }
    }

    fn end(&mut self, bytes_out: u64, broken: Option<&'static str>) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let duration = self.arrived.map_or_else(|| self.begun.elapsed(), |arrived| arrived - self.begun);
        self.land();
        if let Some(mut aftermath) = self.aftermath.take() {
            if let Some(aftermath) = aftermath.value() {
                self.write_down(aftermath);
            }
            self.observer.aftermaths.end(aftermath);
        }
        let observer = &self.observer;
        observer.metrics.request(self.connection.listener, self.route, &self.method, self.status, duration);
        if let Some(ticket) = self.ticket {
            observer.recall.ended(ticket, self.status.as_u16(), broken, duration);
        }
        if let Some(counted) = self.counted {
            observer.tally.count(counted.answered(self.status.as_u16()));
        }
        let Some(line) = &self.line else { return };
        let missing: Vec<&str> = line.missing.iter().map(|scope| scope.as_str()).collect();
        observer.access.write(&AccessLine {
            ts: line.ts,
            request_id: line.request_id.as_str(),
            client_request_id: line.client_request_id.as_deref(),
            listener: &self.connection.listener_name,
            protocol: self.version,
            method: Some(self.method.as_str()),
            host: line.host.as_deref(),
            path: Some(&line.path),
            route: line.route.as_deref(),
            upstream: line.upstream.as_deref(),
            status: self.status.as_u16(),
            code: line.code,
            reason: line.reason.or(broken),
            missing_scopes: &missing,
            mode: line.mode,
            duration,
            upstream_duration: self.upstream_duration,
            key_id: line.key_id,
            key_prefix: line.key_prefix.as_deref(),
            owner: line.owner,
            environment: line.environment.as_deref(),
            client_ip: line.client_ip,
            bytes_in: self.upload.borrow().as_ref().map_or(0, |upload| upload.bytes.get()),
            bytes_out,
        });
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        if let Some(body_bytes) = self.whole {
            return self.end(body_bytes, None);
        }
        // The client left before there was an answer: nginx's 499, said with a status that exists.
        if std::thread::panicking() {
            self.status = StatusCode::INTERNAL_SERVER_ERROR;
            self.end(0, Some("internal_error"));
        } else {
            self.status = StatusCode::REQUEST_TIMEOUT;
            self.end(0, Some("client_gone"));
        }
    }
}
