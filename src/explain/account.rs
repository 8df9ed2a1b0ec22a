//! An explanation in words and as JSON.

use serde_json::{Value, json};

use super::rules::{demand_text, method_text};
use super::typed::TypedRequest;
use crate::domain::time::show_duration;
use crate::domain::{RateLimit, Scope};
use crate::gate::{Answer, AppliedLimit, Denial, Explanation, LimitBy, MethodRule, RouteLimit, RouteSettings, Rules};
use crate::reply::Refusal;
use crate::route::RuleRef;

/// An explanation with the words to tell it.
pub struct Account<'a> {
    /// What was asked.
    pub request: &'a TypedRequest,
    /// Who is supposed to have asked, in words.
    pub who: &'a str,
    /// The rules that decided.
    pub rules: &'a Rules,
    /// How.
    pub explanation: &'a Explanation,
}

impl Account<'_> {
    fn rule(&self, rule: RuleRef) -> (&RouteSettings, &MethodRule) {
        let route = &self.rules.route(rule.route).settings;
        (route, &route.methods[usize::from(rule.method)])
    }

    /// For people: names and values, as they are; some come from outside.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let Explanation { rule, route, also, beaten, path, required, held, missing, limits, answer } = self.explanation;
        let request = format!("{} {}{}", self.request.method, self.request.host, self.request.path);
        let mut fields =
            vec![("request", request), ("caller", self.who.to_owned()), ("answer", self.answer_text(answer))];
        if let Some(truth) = denial_of(answer).map(Denial::reason).filter(|reason| is_hidden(answer, reason)) {
            fields.push(("reason", truth.to_owned()));
        }
        match (rule, route) {
            (Some(rule), _) => fields.push(("rule", self.rule_text(*rule))),
            (None, Some(route)) => {
                let route = &self.rules.route(*route).settings;
                fields.push(("route", format!("{}  {}", route.source, route.path.as_str())));
            }
            (None, None) => {}
        }
        if let Some(rule) = rule {
            fields.push(("demands", demand_text(&self.rule(*rule).1.demand)));
        }
        if !required.is_empty() {
            fields.push(("of these held", names(held)));
            fields.push(("missing", names(missing)));
        }
        fields.extend(limits.iter().map(|limit| ("limit", limit_text(*limit))));
        if *path != self.request.path {
            fields.push(("read as", path.clone()));
        }
        fields.extend(also.iter().map(|rule| ("must pass too", self.rule_text(*rule))));
        fields.extend(beaten.iter().map(|rule| ("beats", self.rule_text(*rule))));
        fields
    }

    fn rule_text(&self, rule: RuleRef) -> String {
        let (route, method) = self.rule(rule);
        let hosts: Vec<&str> = route.hosts.iter().map(|host| host.as_str()).collect();
        let (selector, path, demand) =
            (method_text(&method.selector), route.path.as_str(), demand_text(&method.demand));
        format!("{}  {selector} {}{path} -> {}  ({demand})", method.source, hosts.join(","), route.upstream)
    }

    fn answer_text(&self, answer: &Answer) -> String {
        let refusal = |denial: &Denial| {
            let facts = Refusal::Denied(denial).facts();
            format!("{} {}: {}", facts.status.as_u16(), facts.code, facts.detail)
        };
        match answer {
            Answer::Forward => {
                let upstream = self.explanation.route.map(|route| self.rules.route(route).settings.upstream.as_str());
                format!("forwarded to {}", upstream.unwrap_or("its upstream"))
            }
            Answer::Preflight => "the preflight is answered by the gateway (cors)".to_owned(),
            Answer::Refuse(denial) => refusal(denial),
            Answer::Report(denial) => {
                format!("forwarded without identity, because of report mode; it would be {}", refusal(denial))
            }
        }
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let Explanation { rule, route: _, also, beaten, path, required, held, missing, limits, answer } =
            self.explanation;
        let facts = denial_of(answer).map(|denial| Refusal::Denied(denial).facts());
        let rules = |rules: &[RuleRef]| rules.iter().map(|rule| self.rule_json(*rule)).collect::<Vec<_>>();
        json!({
            "method": self.request.method.as_str(),
            "host": self.request.host,
            "path": path,
            "decision": match answer {
                Answer::Forward => "allow",
                Answer::Preflight => "preflight",
                Answer::Refuse(_) => "deny",
                Answer::Report(_) => "report",
            },
            "status": facts.as_ref().map(|facts| facts.status.as_u16()),
            "code": facts.as_ref().map(|facts| facts.code),
            "reason": denial_of(answer).map(Denial::reason),
            "rule": rule.map(|rule| self.rule_json(rule)),
            "also": rules(also),
            "beaten": rules(beaten),
            "required_scopes": required,
            "held_scopes": held,
            "missing_scopes": missing,
            "limits": limits.iter().map(|limit| limit_text(*limit)).collect::<Vec<_>>(),
        })
    }

    fn rule_json(&self, rule: RuleRef) -> Value {
        let (route, method) = self.rule(rule);
        json!({
            "file": &*method.source.file,
            "line": method.source.line,
            "column": method.source.column,
            "hosts": route.hosts.iter().map(|host| host.as_str()).collect::<Vec<_>>(),
            "path": route.path.as_str(),
            "method": method_text(&method.selector),
            "demand": demand_text(&method.demand),
            "upstream": route.upstream,
        })
    }
}

/// Why it would be refused.
pub(super) const fn denial_of(answer: &Answer) -> Option<&Denial> {
    match answer {
        Answer::Refuse(denial) | Answer::Report(denial) => Some(denial),
        Answer::Forward | Answer::Preflight => None,
    }
}

/// Whether the client is told less than the reason.
fn is_hidden(answer: &Answer, reason: &str) -> bool {
    denial_of(answer).is_some_and(|denial| Refusal::Denied(denial).facts().code != reason)
}

/// A limit in one line.
fn limit_text(limit: AppliedLimit) -> String {
    let rate = |limit: RateLimit| {
        let (requests, per, burst) = (limit.requests().get(), show_duration(limit.per()), limit.burst());
        format!("{requests} {} in {per}, {burst} at once", if requests == 1 { "request" } else { "requests" })
    };
    match limit {
        AppliedLimit::KeyRate(limit) => format!("{}, for each key", rate(limit)),
        AppliedLimit::KeyQuota(quota) => {
            let day = quota.per_day().map(|most| format!("{most} requests a day"));
            let month = quota.per_month().map(|most| format!("{most} requests a month"));
            let both: Vec<String> = day.into_iter().chain(month).collect();
            format!("{}, for each key", both.join(" and "))
        }
        AppliedLimit::RouteRate(RouteLimit { limit, by }) => {
            let by = match by {
                LimitBy::Key => "key",
                LimitBy::Owner => "owner",
                LimitBy::Address => "client address",
            };
            format!("{}, for each {by} on this route", rate(limit))
        }
    }
}

fn names(scopes: &[Scope]) -> String {
    if scopes.is_empty() {
        return "-".to_owned();
    }
    scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(" ")
}
