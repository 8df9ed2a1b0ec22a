//! What operators see of the configuration in force and of the gateway itself: rules, explanations, requests of a moment
//! ago; and the reload.

use std::net::{IpAddr, Ipv4Addr};

use http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::Api;
use super::call::Call;
use super::exchange::{ApiAnswer, ApiError};
use crate::domain::{KeyId, KeyKind};
use crate::explain::{Account, KeySources, Past, Supposition, TypedRequest, rules_json};
use crate::gate;
use crate::manage::KindWord;

/// A request to be explained.
#[derive(Deserialize, JsonSchema, Debug)]
#[serde(deny_unknown_fields)]
#[schemars(example = json!({ "method": "GET", "url": "/v1/orders", "scopes": ["read:orders"] }))]
pub(super) struct Question {
    /// GET, POST, …
    #[schemars(regex(pattern = "^[A-Z]{1,20}$"))]
    method: String,
    /// A whole URL, or a path alone.
    #[schemars(regex(pattern = "^(https?://[a-z0-9.-]+)?/[!-~]*$"))]
    url: String,
    /// As asked with this key. Without it and without `scopes`: by nobody.
    #[serde(default)]
    #[schemars(regex(pattern = "^key_[0-9a-f]{32}$"))]
    key_id: Option<String>,
    /// As asked with a key that holds these.
    #[serde(default)]
    #[schemars(length(max = 200))]
    scopes: Option<Vec<String>>,
    /// The environment of that key. Without it: `live`.
    #[serde(default)]
    environment: Option<String>,
    /// The kind of that key. Without it: `secret`.
    #[serde(default)]
    kind: Option<KindWord>,
    /// The address the client has. Without it: 127.0.0.1.
    #[serde(default)]
    from: Option<String>,
    /// The origin of the page that sends it. Without it: no page does.
    #[serde(default)]
    #[schemars(regex(pattern = "^(null|[a-z][a-z0-9+.-]*://[a-z0-9.:-]+)$"))]
    origin: Option<String>,
}

/// How to reload.
#[derive(Deserialize, JsonSchema, Debug, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Reload {
    /// Only say which routes would demand something else, and which keys would lose access.
    #[serde(default)]
    dry_run: bool,
}

/// Refuses everybody but operators: what others may know is keys.
pub(super) fn check_operator(call: &Call<'_>) -> Result<(), ApiError> {
    if call.authority.is_operator() {
        return Ok(());
    }
    Err(ApiError::OperatorsOnly {
        detail: "only operators see how the gateway is configured, and reload it".to_owned(),
    })
}

fn unacceptable(field: &'static str) -> impl Fn(String) -> ApiError {
    move |detail| ApiError::Unacceptable { field, detail }
}

pub(super) fn list_routes(call: &Call<'_>) -> Result<ApiAnswer, ApiError> {
    check_operator(call)?;
    call.no_query()?;
    let rules = rules_json(&call.settings.rules.settings);
    Ok(call.json(StatusCode::OK, json!({ "data": rules }), Some("routes")))
}

impl Api {
    pub(super) async fn show_request(&self, call: &Call<'_>) -> Result<ApiAnswer, ApiError> {
        check_operator(call)?;
        call.no_query()?;
        let found = self.gateway.remembered(call.id).await;
        let objection = found.objection();
        let gone = || {
            let objection = objection.as_ref().map(|objection| format!("; {objection}")).unwrap_or_default();
            ApiError::NotFound {
                detail: format!(
                    "no request of this id is remembered: the last refusals are, and a sample of what was let in{objection}"
                ),
            }
        };
        let past = Past::of(found.newest.ok_or_else(gone)?, &call.settings.rules, self.key_sources(), call.now).await?;
        let past = past.but(objection);
        Ok(call.json(StatusCode::OK, past.json(), None))
    }

    pub(super) async fn explain(&self, call: &Call<'_>) -> Result<ApiAnswer, ApiError> {
        check_operator(call)?;
        call.no_query()?;
        let question: Question = call.body()?;
        if Method::from_bytes(question.method.as_bytes()).is_err() {
            return Err(unacceptable("method")("it is no method; write for example GET".to_owned()));
        }
        let request = TypedRequest::parse(&question.method, &question.url).map_err(unacceptable("url"))?;
        let request = match &question.origin {
            None => request,
            Some(origin) => request.from_page(origin).map_err(unacceptable("origin"))?,
        };
        let from = match &question.from {
            None => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Some(text) => text.parse().map_err(|_| unacceptable("from")(format!("{text:?} is no address")))?,
        };
        let supposed = self.supposed(call, &question).await?;
        let rules = &call.settings.rules;
        let explanation = gate::explain(&request.head(Some(from)), rules, &supposed.caller, call.now);
        let account = Account { request: &request, who: &supposed.who, rules, explanation: &explanation };
        Ok(call.json(StatusCode::OK, account.json(), None))
    }

    fn key_sources(&self) -> KeySources<'_> {
        KeySources { reader: self.store.reader().as_ref(), keys: &self.keys }
    }

    async fn supposed(&self, call: &Call<'_>, question: &Question) -> Result<Supposition, ApiError> {
        let rules = &call.settings.rules;
        match (&question.key_id, &question.scopes) {
            (Some(_), Some(_)) => Err(unacceptable("scopes")("name a key or the scopes of one, not both".to_owned())),
            (Some(_), None) | (None, None) if question.environment.is_some() || question.kind.is_some() => {
                let field = if question.kind.is_some() { "kind" } else { "environment" };
                Err(unacceptable(field)("it is that of a key with `scopes`".to_owned()))
            }
            (Some(text), None) => {
                let gone = || unacceptable("key_id")("there is no key of this id".to_owned());
                let id: KeyId = text.parse().map_err(|_| gone())?;
                Supposition::key_of_id(id, self.key_sources(), rules, call.now).await?.ok_or_else(gone)
            }
            (None, Some(scopes)) => {
                let kind = question.kind.map_or(KeyKind::Secret, KeyKind::from);
                let environment = question.environment.as_deref().unwrap_or("live");
                Supposition::scopes(scopes, environment, kind, &rules.settings)
                    .map_err(|(field, problem)| unacceptable(field)(problem))
            }
            (None, None) => Ok(Supposition::nobody()),
        }
    }

    pub(super) async fn reload(&self, call: &Call<'_>) -> Result<ApiAnswer, ApiError> {
        check_operator(call)?;
        let Reload { dry_run } = call.optional_body()?;
        let report = self.gateway.reload(call.authority.actor(), dry_run).await;
        if report.ok {
            Ok(call.json(StatusCode::OK, json!(report), None))
        } else {
            Err(ApiError::ConfigRefused { problems: report.problems })
        }
    }
}

/// The schema of a rule as it is listed.
pub(super) fn rule() -> Value {
    let text = json!({ "type": "string" });
    let texts = json!({ "type": "array", "items": { "type": "string" } });
    let properties = json!({
        "name": { "type": ["string", "null"] }, "route": text, "hosts": texts, "path": text, "method": text, "demand": text,
        "auth": { "enum": ["none", "any_key", "scopes"] },
        "scopes": { "type": "object", "properties": { "all": texts, "any": texts }, "required": ["all", "any"] },
        "upstream": text, "mode": { "enum": ["enforce", "report"] }, "environments": texts,
        "file": text, "line": { "type": "integer" }, "column": { "type": "integer" },
    });
    json!({ "type": "object", "properties": properties, "required": ["path", "method", "demand", "upstream", "file", "line"] })
}

/// The schema of an explanation.
pub(super) fn explanation() -> Value {
    let texts = json!({ "type": "array", "items": { "type": "string" } });
    let rules = json!({ "type": "array", "items": { "type": "object" } });
    let properties = json!({
        "method": { "type": "string" }, "host": { "type": "string" }, "path": { "type": "string" },
        "decision": { "enum": ["allow", "preflight", "deny", "report"] },
        "status": { "type": ["integer", "null"] }, "code": { "type": ["string", "null"] },
        "reason": { "type": ["string", "null"], "description": "The truth, which the client is not told." },
        "rule": { "type": ["object", "null"] }, "also": rules, "beaten": rules,
        "required_scopes": texts, "held_scopes": texts, "missing_scopes": texts, "limits": texts,
    });
    json!({ "type": "object", "properties": properties, "required": ["decision", "status", "code", "reason", "rule", "beaten"] })
}
