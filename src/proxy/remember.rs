//! Which requests are remembered, and what of them: refusals, what report mode let pass, and a sample of the rest.
//!
//! A request is noted when it is decided, because what it asked for is at hand then; its end is added when it ends. A
//! request that is let in and not in the sample costs one count.

use std::time::Duration;

use http::Version;

use super::asked::Asked;
use super::live::Current;
use super::observe::Observer;
use super::observed::Exchange;
use super::request_id::RequestId;
use super::told::Told;
use crate::domain::{Known, Scope, Timestamp};
use crate::gate::{Denial, Mode, RequestHead, RouteSettings, Verdict};
use crate::reply::{Failure, Refusal};
use crate::telemetry::{ADMISSIONS_SAMPLED, DecisionMode, Noted, RecallKind};

impl Observer {
    /// Remembers a message that could not be read: there is no more to it than its answer. The connection is not known
    /// to those who answer it.
    pub(super) fn remember_unread(&self, request_id: &RequestId, failure: Failure, now: Timestamp) {
        let ticket = self.recall.note(RecallKind::Refusal, &unread(request_id, failure.code(), now));
        self.recall.ended(ticket, Refusal::Failed(failure).facts().status.as_u16(), None, Duration::ZERO);
    }
}

impl Exchange {
    /// Remembers what was decided, if it is worth it.
    #[inline]
    pub(super) fn remember(
        &mut self,
        request_id: &RequestId,
        head: &RequestHead<'_>,
        current: &Current,
        verdict: &Verdict<'_>,
        told: Told<'_>,
        now: Timestamp,
    ) {
        if told.denial.is_some() {
            return self.remember_as(RecallKind::Refusal, request_id, head, current, verdict, told, now);
        }
        // A preflight is nothing but fields that are not remembered.
        if told.is_preflight() {
            return;
        }
        let admissions = self.observer.admissions.get();
        self.observer.admissions.set(admissions.wrapping_add(1));
        if admissions.is_multiple_of(ADMISSIONS_SAMPLED) {
            self.remember_as(RecallKind::Admission, request_id, head, current, verdict, told, now);
        }
    }

    /// Remembers what was decided.
    #[expect(clippy::too_many_arguments, reason = "everything that is known of a request when it is decided")]
    pub(super) fn remember_as(
        &mut self,
        kind: RecallKind,
        request_id: &RequestId,
        head: &RequestHead<'_>,
        current: &Current,
        verdict: &Verdict<'_>,
        told: Told<'_>,
        now: Timestamp,
    ) {
        let denial = told.denial;
        let rules = &current.gate.rules;
        let route = verdict.route.map(|route| &rules.route(route).settings);
        let rule = verdict.rule.map(|rule| &rules.route(rule.route).settings.methods[usize::from(rule.method)].source);
        let source = rule.or_else(|| route.map(|route| &route.source));
        // Who was refused is looked up behind the answer.
        let slot = verdict.caller.slot().filter(|_| !told.is_refused());
        let environment = slot.and_then(|slot| current.gate.environment(slot.environment));
        let owner = slot.and_then(|slot| slot.owner).and_then(|owner| current.gate.directory.owner(owner));
        let noted = Noted {
            ts: now,
            request_id: request_id.as_str(),
            listener: &self.connection.listener_name,
            protocol: self.version,
            method: head.method.as_str(),
            host: Some(head.host),
            path: Some(head.path),
            route: route.map(|route| &*route.label),
            rule: source.map(|source| (&*source.file, source.line)),
            code: denial.filter(|_| told.is_refused()).map(|denial| Refusal::Denied(denial).facts().code),
            reason: denial.map(Denial::reason),
            missing_scopes: match denial {
                Some(Denial::InsufficientScope { missing, .. }) => missing,
                Some(_) | None => &[],
            },
            mode: route.map(|route| match route.mode {
                Mode::Enforce => DecisionMode::Enforce,
                Mode::Report => DecisionMode::Report,
            }),
            key_id: slot.map(|slot| slot.id),
            owner: owner.map(|owner| owner.id),
            environment: environment.map(|environment| &*environment.name),
            client_ip: head.client,
        };
        self.ticket = Some(self.observer.recall.note(kind, &noted));
    }

    /// Remembers a request that is answered before it could be judged.
    pub(super) fn remember_unjudged(
        &mut self,
        request_id: &RequestId,
        asked: &Asked<'_>,
        failure: Failure,
        now: Timestamp,
    ) {
        let host = asked.fields.first(Known::Host).and_then(|host| std::str::from_utf8(host).ok());
        let noted = Noted {
            listener: &self.connection.listener_name,
            protocol: asked.version,
            method: asked.method.as_str(),
            host: asked.authority.or(host),
            path: Some(asked.path),
            client_ip: self.connection.peer,
            ..unread(request_id, failure.code(), now)
        };
        self.ticket = Some(self.observer.recall.note(RecallKind::Refusal, &noted));
    }

    /// Remembers that it is answered by us for a reason beside the decision. Of one that was let in and is not in the
    /// sample, host, path and key are known only where it gets an access line.
    pub(super) fn remember_failure(
        &mut self,
        code: &'static str,
        missing_scopes: &[Scope],
        request_id: &RequestId,
        route: Option<&RouteSettings>,
        now: Timestamp,
    ) {
        let recall = &self.observer.recall;
        // Scopes have no room in a note that is there already; it is passed over for the one that follows.
        if let Some(ticket) = self.ticket.filter(|_| missing_scopes.is_empty()) {
            return recall.failed(ticket, code);
        }
        let noted = self.with_line_facts(Noted {
            listener: &self.connection.listener_name,
            protocol: self.version,
            method: self.method.as_str(),
            route: route.map(|route| &*route.label),
            missing_scopes,
            ..unread(request_id, code, now)
        });
        self.ticket = Some(recall.note(RecallKind::Refusal, &noted));
    }
}

/// What is known of a message that could not be read.
fn unread<'a>(request_id: &'a RequestId, code: &'static str, ts: Timestamp) -> Noted<'a> {
    Noted {
        ts,
        request_id: request_id.as_str(),
        listener: "",
        protocol: Version::HTTP_11,
        method: "",
        host: None,
        path: None,
        route: None,
        rule: None,
        code: Some(code),
        reason: Some(code),
        missing_scopes: &[],
        mode: None,
        key_id: None,
        owner: None,
        environment: None,
        client_ip: None,
    }
}
