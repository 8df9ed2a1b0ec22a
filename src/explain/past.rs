//! A request of a moment ago, held against what is in force now.

use std::borrow::Cow;

use http::Method;
use serde_json::{Value, json};

use super::account::{Account, denial_of};
use super::supposition::{KeySources, Supposition};
use super::typed::TypedRequest;
use crate::authn::Rejection;
use crate::domain::Timestamp;
use crate::gate::{self, Answer, Denial, Rules};
use crate::store::StoreError;
use crate::telemetry::Remembered;

/// What is remembered of a request, and what it would be answered now.
#[derive(Debug)]
pub struct Past {
    /// What became of it.
    remembered: Remembered,
    /// The same request today; none where too little of it is remembered.
    today: Option<Today>,
    /// Whether it would be decided otherwise; none where that cannot be said.
    changed: Option<bool>,
    note: Cow<'static, str>,
}

#[derive(Debug)]
struct Today {
    record: Value,
    fields: Vec<(&'static str, String)>,
}

/// How a request was decided, or would be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Decision<'a> {
    LetIn,
    Reported(&'a str),
    Refused(&'a str),
    /// Answered by us for a reason beside the decision.
    Failed,
}

/// Reasons that are found again from what is remembered.
const JUDGED: [&str; 14] = [
    "bad_path",
    "no_route",
    "method_not_allowed",
    "missing_credential",
    "bad_checksum",
    "unknown_key",
    "key_revoked",
    "key_disabled",
    "key_expired",
    "owner_suspended",
    "kind_not_allowed",
    "environment_not_allowed",
    "ip_not_allowed",
    "insufficient_scope",
];

/// Reasons that lie in what is not remembered: other header fields, what was asked before, the age of the key set.
const BEYOND: [&str; 8] = [
    "invalid_request",
    "origin_not_allowed",
    "secret_key_in_browser",
    "rate_limited",
    "quota_exceeded",
    "too_many_failures",
    "auth_unavailable",
    "limits_unavailable",
];

/// Those of them that are limits of whoever asked.
const LIMITS: [&str; 3] = ["rate_limited", "quota_exceeded", "too_many_failures"];

/// Those of them that say nothing about whose the request was: what stood where a credential belongs is not remembered.
const WITHOUT_CALLER: [&str; 3] = ["invalid_request", "too_many_failures", "auth_unavailable"];

impl Past {
    /// Holds a remembered request against `rules` and the keys of a store, as they are at `now`.
    ///
    /// # Errors
    /// The store's.
    pub async fn of(
        remembered: Remembered,
        rules: &Rules,
        from: KeySources<'_>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let Some(request) = request_of(&remembered) else {
            let note = "Too little of the request is remembered to say what it would be answered now.";
            return Ok(Self { remembered, today: None, changed: None, note: note.into() });
        };
        let supposed = caller_of(&remembered, rules, from, now).await?;
        let head = request.head(remembered.client_ip);
        let explanation = gate::explain(&head, rules, &supposed.caller, now);
        let account = Account { request: &request, who: &supposed.who, rules, explanation: &explanation };
        let today = Today { record: account.json(), fields: account.fields() };
        let (changed, note) = compare(decision_then(&remembered), decision_now(&explanation.answer));
        Ok(Self { remembered, today: Some(today), changed, note: note.into() })
    }

    /// The same with what may stand against it, in words that are no sentence yet.
    #[must_use]
    pub fn but(mut self, objection: Option<String>) -> Self {
        if let Some(objection) = objection {
            self.note = format!("{} But {objection}.", self.note).into();
        }
        self
    }

    /// For programs: `request` as it was, `now` as `explain` says it, whether the decision `changed` (null where that
    /// cannot be said), and that in words.
    pub fn json(&self) -> Value {
        let was = &self.remembered;
        json!({
            "request": {
                "ts": was.ts,
                "request_id": was.request_id,
                "listener": none_if_empty(&was.listener),
                "protocol": was.method.as_ref().map(|_| was.protocol),
                "method": was.method,
                "host": was.host,
                "path": was.path,
                "route": was.route,
                "rule": was.rule.as_ref().map(|(file, line)| json!({ "file": file, "line": line })),
                "status": was.status,
                "code": was.code,
                "reason": was.reason,
                "missing_scopes": was.missing_scopes,
                "mode": was.mode,
                "duration_ms": was.duration.map(|took| took.as_secs_f64() * 1000.0),
                "key_id": was.key_id,
                "owner": was.owner,
                "environment": was.environment,
                "client_ip": was.client_ip,
            },
            "now": self.today.as_ref().map(|today| &today.record),
            "changed": self.changed,
            "note": self.note,
        })
    }

    /// For people: what became of it. Values are as they are; some come from outside.
    pub fn fields_then(&self) -> Vec<(&'static str, String)> {
        let was = &self.remembered;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let mut fields = Vec::new();
        if let Some(method) = &was.method {
            fields.push(("request", format!("{method} {}{}", text(&was.host), text(&was.path))));
        }
        let from = was.client_ip.map(|address| format!(" from {address}")).unwrap_or_default();
        fields.push(("at", format!("{}{from}", was.ts)));
        fields.push(("answer", self.answer_then()));
        if let Some(reason) = was.reason.filter(|reason| was.code != Some(reason)) {
            fields.push(("reason", reason.to_owned()));
        }
        if let Some((file, line)) = &was.rule {
            let route = was.route.as_ref().map(|route| format!("  {route}")).unwrap_or_default();
            fields.push(("rule", format!("{file}:{line}{route}")));
        }
        if !was.missing_scopes.is_empty() {
            fields.push(("missing", was.missing_scopes.join(" ")));
        }
        if let Some(key) = was.key_id {
            let owner = was.owner.map(|owner| format!(", owner {owner}")).unwrap_or_default();
            fields.push(("key", format!("{key}, {}{owner}", text(&was.environment))));
        }
        if let Some(took) = was.duration {
            fields.push(("took", format!("{:.3} ms", took.as_secs_f64() * 1000.0)));
        }
        fields
    }

    /// For people: what it would be answered now; nothing where that cannot be said.
    pub fn fields_now(&self) -> &[(&'static str, String)] {
        self.today.as_ref().map_or(&[], |today| &today.fields)
    }

    /// How the two compare, in a sentence.
    pub fn note(&self) -> &str {
        &self.note
    }

    fn answer_then(&self) -> String {
        let was = &self.remembered;
        let status = was.status.map_or_else(|| "no answer yet".to_owned(), |status| status.to_string());
        match (decision_then(was), was.code) {
            (_, Some(code)) => format!("{status} {code}"),
            (Decision::Reported(_), None) => format!("{status}, forwarded because of report mode"),
            (_, None) => format!("{status}, let in"),
        }
    }
}

/// The request as it can be asked again, where all that decides is remembered.
fn request_of(was: &Remembered) -> Option<TypedRequest> {
    let lacks_caller = was.key_id.is_none() && was.reason.is_some_and(|reason| WITHOUT_CALLER.contains(&reason));
    if lacks_caller || !was.is_whole {
        return None;
    }
    let method = Method::from_bytes(was.method.as_ref()?.as_bytes()).ok()?;
    Some(TypedRequest::of(method, was.host.clone().unwrap_or_default(), was.path.clone()?))
}

async fn caller_of(
    was: &Remembered,
    rules: &Rules,
    from: KeySources<'_>,
    now: Timestamp,
) -> Result<Supposition, StoreError> {
    if let Some(id) = was.key_id {
        let gone = || Supposition::rejected(Rejection::Unknown, format!("{id}, which is not in the store any more"));
        return Ok(Supposition::key_of_id(id, from, rules, now).await?.unwrap_or_else(gone));
    }
    Ok(match was.reason {
        Some("unknown_key") => Supposition::rejected(Rejection::Unknown, "somebody with an unknown key".to_owned()),
        Some("bad_checksum") => Supposition::rejected(Rejection::Checksum, "somebody with a mistyped key".to_owned()),
        Some(_) | None => Supposition::nobody(),
    })
}

fn decision_then(was: &Remembered) -> Decision<'_> {
    let is_decided = |reason: &&str| JUDGED.contains(reason) || BEYOND.contains(reason);
    match (was.code, was.reason.filter(is_decided)) {
        (Some(_), Some(reason)) => Decision::Refused(reason),
        (Some(_), None) => Decision::Failed,
        (None, Some(reason)) => Decision::Reported(reason),
        (None, None) => Decision::LetIn,
    }
}

fn decision_now(answer: &Answer) -> Decision<'_> {
    match (answer, denial_of(answer).map(Denial::reason)) {
        (Answer::Refuse(_), Some(reason)) => Decision::Refused(reason),
        (Answer::Report(_), Some(reason)) => Decision::Reported(reason),
        (Answer::Forward | Answer::Preflight | Answer::Refuse(_) | Answer::Report(_), _) => Decision::LetIn,
    }
}

/// Whether the decision changed, and that in words.
fn compare(then: Decision<'_>, now: Decision<'_>) -> (Option<bool>, &'static str) {
    use Decision::{Failed, LetIn, Refused, Reported};
    match then {
        Refused("unknown_key") if then == now => {
            (None, "The key was not known. It is not remembered: whether it is known now cannot be said.")
        }
        Refused(reason) | Reported(reason) if LIMITS.contains(&reason) && !is_decided_before(now, reason) => {
            (None, "It came upon a limit. How much of that is used now is not remembered here: it may pass now or not.")
        }
        Refused(reason) | Reported(reason) if BEYOND.contains(&reason) && !is_decided_before(now, reason) => (
            None,
            "What it was refused for lies in header fields, which are not remembered, or is over: it may pass now or not.",
        ),
        _ if matches!(now, Refused(reason) | Reported(reason) if BEYOND.contains(&reason)) => (
            None,
            "What decides now lies in header fields or limits, which are not remembered: it may pass now or not.",
        ),
        Failed if now == LetIn => (
            Some(false),
            "It was not the decision that failed it: rules and key let it in then and now, as far as is remembered.",
        ),
        Failed => (None, "It was not the decision that failed it; now it would not come as far."),
        _ if then == now => (Some(false), "Nothing has changed since that changes the answer."),
        LetIn | Refused(_) | Reported(_) => {
            (Some(true), "The configuration or the key has changed since, and the answer with it.")
        }
    }
}

/// Whether what is refused now is refused for something that is looked at before `then`: then the fields and limits that
/// are not remembered make no difference any more.
fn is_decided_before(now: Decision<'_>, then: &str) -> bool {
    let is_guard = matches!(then, "origin_not_allowed" | "secret_key_in_browser");
    matches!(now, Decision::Refused(now) if JUDGED.contains(&now) && !(is_guard && now == "insufficient_scope"))
}

fn none_if_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
#[path = "past_tests.rs"]
mod tests;
