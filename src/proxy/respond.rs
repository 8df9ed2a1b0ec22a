//! Answers of our own, and what a route adds to every answer.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::answer::Answer;
use super::cors;
use super::engine::Context;
use super::live::Current;
use super::observed::Exchange;
use super::request_id::RequestId;
use crate::limit;
use crate::reply::{self, Audience, Failure, Refusal};
use crate::route::RouteIx;

impl Context {
    /// The answer to a request that is refused. What was observed of it ends when the answer is dropped.
    pub(super) fn refuse(
        &self,
        refusal: Refusal<'_>,
        route: Option<RouteIx>,
        exchange: impl Into<Option<Exchange>>,
    ) -> Answer {
        let settings = &self.current.gate.rules.settings;
        // Under `hide_routes` nobody without a key learns which route it was: same challenges, no `cors`.
        let is_stranger = matches!(refusal, Refusal::Denied(denial) if denial.concerns_credential());
        let is_hidden = settings.hide_routes && is_stranger;
        let route = route.filter(|_| !is_hidden);
        let route_settings = route.map(|route| &*self.current.gate.rules.route(route).settings);
        let audience = Audience {
            request_id: self.request_id.as_str(),
            profile: self.current.plan.errors,
            type_base: &self.current.plan.error_type_base,
            realm: &settings.realm,
            accept: route_settings.map_or(&settings.accept[..], |route| &route.accept[..]),
            is_browser: self.is_browser,
            is_grpc: self.is_grpc,
        };
        let buffers = &self.engine.buffers;
        let rendered = reply::render_in([buffers.out(), buffers.out()], refusal, &audience);
        let exchange = exchange.into().map(|mut exchange| {
            exchange.set_refusal(refusal);
            if let Refusal::Failed(failure) = refusal {
                let now = self.engine.timers.wall_at(exchange.begun());
                exchange.remember_failure(failure.code(), &[], &self.request_id, route_settings, now);
            }
            exchange.answered_with(rendered.status, if self.is_head { 0 } else { rendered.body.len() as u64 });
            self.engine.afterwards.hold(exchange)
        });
        self.with_route_fields(Answer::refusal(rendered, self.is_head, exchange), route, true)
    }

    /// The answer that leads elsewhere, for good (RFC 9110 §15.4.9).
    pub(super) fn redirect(&self, location: &str, exchange: Exchange) -> Answer {
        let mut answer = Response::new(Bytes::new());
        *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
        match HeaderValue::from_str(location) {
            Ok(value) => {
                answer.headers_mut().insert(header::LOCATION, value);
                self.with_request_id(self.finish_whole(answer, exchange))
            }
            Err(_) => {
                let failure = Failure::BadRequest { detail: "The request target is malformed." };
                self.refuse(Refusal::Failed(failure), None, exchange)
            }
        }
    }

    /// An answer of ours, whole. Whoever writes it ends the connection behind it when a body was left unread.
    pub(super) fn finish_whole(&self, answer: Response<Bytes>, exchange: Exchange) -> Answer {
        let bytes = if self.is_head { 0 } else { answer.body().len() as u64 };
        exchange.finish_with(answer.status(), bytes);
        Answer::whole(answer, self.is_head)
    }

    /// What a route adds to every answer, ours or an upstream's: who may read it, and what is left of its limits and the caller's.
    pub(super) fn with_route_fields(&self, mut answer: Answer, route: Option<RouteIx>, is_ours: bool) -> Answer {
        limit::add_fields(&mut answer.lines, &self.standings, self.current.plan.limit_fields);
        if let (Some(origin), Some(route)) = (&self.origin, route) {
            let rules = self.current.gate.rules.route(route).settings.cors.as_ref();
            cors::expose(&mut answer.lines, rules, self.page.shares(is_ours), origin);
        }
        answer
    }

    /// Refusals carry the id already.
    pub(super) fn with_request_id(&self, mut answer: Answer) -> Answer {
        answer.lines.push(b"x-request-id", self.request_id.as_bytes());
        answer
    }
}

/// For refusals of which no request is known.
pub(super) fn bare_audience<'a>(current: &'a Current, request_id: &'a RequestId) -> Audience<'a> {
    Audience {
        request_id: request_id.as_str(),
        profile: current.plan.errors,
        type_base: &current.plan.error_type_base,
        realm: &current.gate.rules.settings.realm,
        accept: &[],
        is_browser: false,
        is_grpc: false,
    }
}
