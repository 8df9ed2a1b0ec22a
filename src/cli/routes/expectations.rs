//! A file of expectations: requests, who makes them, and what must come of it.
//!
//! ```yaml
//! - { method: GET,  url: /v1/orders, scopes: [read:orders], expect: allow }
//! - { method: POST, url: /v1/orders, scopes: [read:orders], expect: 403, code: insufficient_scope }
//! - { method: GET,  url: /v1/orders, expect: missing_credential }
//! ```
//!
//! Without `scopes` and `roles` nobody asks who has a key; `key: none` says so aloud.

use saphyr_parser::{Event, Parser};
use serde::Deserialize;
use serde_yaml::Value;

/// One expectation.
#[derive(Debug)]
pub(super) struct Expectation {
    /// Where it stands, from 1.
    pub(super) line: usize,
    pub(super) method: String,
    pub(super) url: String,
    pub(super) caller: ExpectedCaller,
    pub(super) expect: Expected,
    pub(super) code: Option<String>,
}

/// Who makes the request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ExpectedCaller {
    /// `key: none`.
    Nobody,
    /// `scopes`, `roles`, and optionally `environment` and `kind`.
    Key { scopes: Vec<String>, roles: Vec<String>, environment: String, kind: String },
}

/// What must come of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Expected {
    /// It is forwarded.
    Allow,
    /// It would be refused, and is forwarded in report mode.
    Report,
    /// It is refused with this status.
    Status(u16),
    /// It is refused with this code.
    Code(&'static str),
}

/// Codes of the refusals that depend on the route map and the key alone.
const CODES: [&str; 9] = [
    "bad_path",
    "no_route",
    "method_not_allowed",
    "missing_credential",
    "kind_not_allowed",
    "environment_not_allowed",
    "ip_not_allowed",
    "origin_not_allowed",
    "insufficient_scope",
];

/// As written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    method: String,
    url: String,
    scopes: Option<Vec<String>>,
    roles: Option<Vec<String>>,
    key: Option<String>,
    environment: Option<String>,
    kind: Option<String>,
    expect: Value,
    code: Option<String>,
}

/// Reads all of them.
///
/// # Errors
/// The first thing that makes no sense, with its line.
pub(super) fn parse(text: &str) -> Result<Vec<Expectation>, String> {
    let items: Vec<Value> = serde_yaml::from_str(text).map_err(|error| match error.location() {
        Some(at) => format!("{}:{}: {error}", at.line(), at.column()),
        None => format!("1: {error}"),
    })?;
    let lines = lines_of_items(text);
    let place = |index: usize| lines.get(index).copied().unwrap_or(1);
    items.into_iter().enumerate().map(|(index, item)| read(item, place(index))).collect()
}

fn read(item: Value, line: usize) -> Result<Expectation, String> {
    let written: Written = serde_yaml::from_value(item).map_err(|error| format!("{line}: {error}"))?;
    let refuse = |problem: &str| Err(format!("{line}: {problem}"));
    let caller = match (written.key.as_deref(), written.scopes, written.roles) {
        (Some("none"), None, None) if written.environment.is_none() && written.kind.is_none() => ExpectedCaller::Nobody,
        (Some("none"), ..) => return refuse("`key: none` has neither scopes nor roles, environment or kind"),
        (Some(_), ..) => return refuse("`key` can only be `none`; describe a key by its `scopes`"),
        (None, None, None) if written.environment.is_none() && written.kind.is_none() => ExpectedCaller::Nobody,
        (None, None, None) => {
            return refuse("say who asks: `environment` and `kind` describe a key with `scopes` or `roles`");
        }
        (None, scopes, roles) => ExpectedCaller::Key {
            scopes: scopes.unwrap_or_default(),
            roles: roles.unwrap_or_default(),
            environment: written.environment.unwrap_or_else(|| "live".to_owned()),
            kind: written.kind.unwrap_or_else(|| "secret".to_owned()),
        },
    };
    let Some(expect) = expected(&written.expect) else {
        return refuse(&format!("`expect` is allow, report, a status such as 403, or one of {}", CODES.join(", ")));
    };
    let takes_code = matches!(expect, Expected::Status(_) | Expected::Report);
    if written.code.is_some() && !takes_code {
        return refuse("`code` stands beside a status or `report`");
    }
    Ok(Expectation { line, method: written.method, url: written.url, caller, expect, code: written.code })
}

fn expected(value: &Value) -> Option<Expected> {
    match value {
        Value::String(word) if word == "allow" => Some(Expected::Allow),
        Value::String(word) if word == "report" => Some(Expected::Report),
        Value::String(word) => {
            let code = CODES.into_iter().find(|code| code == word).map(Expected::Code);
            code.or_else(|| word.parse().ok().and_then(status))
        }
        Value::Number(number) => number.as_u64().and_then(|number| u16::try_from(number).ok()).and_then(status),
        _ => None,
    }
}

fn status(number: u16) -> Option<Expected> {
    (400..=599).contains(&number).then_some(Expected::Status(number))
}

/// The lines on which the items of the outermost list begin.
fn lines_of_items(text: &str) -> Vec<usize> {
    let mut lines = Vec::new();
    let mut depth = 0_usize;
    for (event, span) in Parser::new_from_str(text).map_while(Result::ok) {
        let is_value =
            matches!(event, Event::Scalar(..) | Event::Alias(..) | Event::SequenceStart(..) | Event::MappingStart(..));
        if is_value && depth == 1 {
            lines.push(span.start.line());
        }
        match event {
            Event::SequenceStart(..) | Event::MappingStart(..) => depth += 1,
            Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    lines
}

#[cfg(test)]
#[path = "expectations_tests.rs"]
mod tests;
