//! Rules in words and as JSON.

use serde_json::{Value, json};

use crate::domain::Scope;
use crate::gate::{Demand, GateSettings, MethodRule, MethodSelector, Mode, RouteSettings};

/// Every rule with what it demands and where it stands, in the order of the file.
pub fn rules_json(settings: &GateSettings) -> Vec<Value> {
    let rules = settings.routes.iter().flat_map(|route| route.methods.iter().map(move |rule| (route, rule)));
    rules.map(|(route, rule)| record(route, rule)).collect()
}

fn record(route: &RouteSettings, rule: &MethodRule) -> Value {
    let (all, any): (&[Scope], &[Scope]) = match &rule.demand {
        Demand::Public | Demand::AnyKey => (&[], &[]),
        Demand::Scopes { all, any } => (all, any),
    };
    json!({
        "name": route.name,
        "route": route.label,
        "hosts": route.hosts.iter().map(|host| host.as_str()).collect::<Vec<_>>(),
        "path": route.path.as_str(),
        "method": method_text(&rule.selector),
        "demand": demand_text(&rule.demand),
        "auth": match rule.demand {
            Demand::Public => "none",
            Demand::AnyKey => "any_key",
            Demand::Scopes { .. } => "scopes",
        },
        "scopes": { "all": all, "any": any },
        "upstream": route.upstream,
        "mode": mode_text(route.mode),
        "environments": route.environments,
        "file": &*rule.source.file,
        "line": rule.source.line,
        "column": rule.source.column,
    })
}

/// The method a rule answers to; `*` for all.
pub fn method_text(selector: &MethodSelector) -> &str {
    match selector {
        MethodSelector::Named(method) => method.as_str(),
        MethodSelector::All => "*",
    }
}

/// `enforce` or `report`.
pub const fn mode_text(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Report => "report",
    }
}

/// A demand in words: `public`, `any key`, `a + b`, `a + one of (c, d)`.
pub fn demand_text(demand: &Demand) -> String {
    let names = |scopes: &[Scope], between| scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(between);
    match demand {
        Demand::Public => "public".to_owned(),
        Demand::AnyKey => "any key".to_owned(),
        Demand::Scopes { all, any } if any.is_empty() => names(all, " + "),
        Demand::Scopes { all, any } if all.is_empty() => format!("one of ({})", names(any, ", ")),
        Demand::Scopes { all, any } => format!("{} + one of ({})", names(all, " + "), names(any, ", ")),
    }
}
