//! `routes list`: every rule with what it demands and where it stands.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, OutputArgs};
use crate::cli::site::Site;
use crate::domain::Scope;
use crate::gate::{Demand, MethodRule, MethodSelector, Mode, RouteSettings};

/// `routes list`.
#[derive(Args, Debug)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// Prints the rules in the order of the file; precedence never depends on it.
pub(super) fn run(site: &Site, args: ListArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let routes = site.settings.gate.routes.iter();
    let rules = routes.flat_map(|route| route.methods.iter().map(move |rule| (route, rule)));
    match args.output.output {
        Output::Json => output::json(console, &Value::Array(rules.map(|(route, rule)| record(route, rule)).collect()))?,
        Output::Text => {
            let headings = ["HOST", "PATH", "METHOD", "DEMAND", "UPSTREAM", "MODE", "FROM"];
            output::table(console, &headings, rules.map(|(route, rule)| row(route, rule)).collect())?;
        }
    }
    Ok(())
}

fn row(route: &RouteSettings, rule: &MethodRule) -> Vec<String> {
    let hosts: Vec<&str> = route.hosts.iter().map(|host| host.as_str()).collect();
    vec![
        if hosts.is_empty() { "any".to_owned() } else { hosts.join(" ") },
        route.path.as_str().to_owned(),
        method_text(&rule.selector).to_owned(),
        demand_text(&rule.demand),
        route.upstream.clone(),
        mode_text(route.mode).to_owned(),
        rule.source.to_string(),
    ]
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

pub(in crate::cli) fn method_text(selector: &MethodSelector) -> &str {
    match selector {
        MethodSelector::Named(method) => method.as_str(),
        MethodSelector::All => "*",
    }
}

const fn mode_text(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Report => "report",
    }
}

/// A demand in words: `public`, `any key`, `a + b`, `a + one of (c, d)`.
pub(in crate::cli) fn demand_text(demand: &Demand) -> String {
    let names = |scopes: &[Scope], between| scopes.iter().map(Scope::as_str).collect::<Vec<_>>().join(between);
    match demand {
        Demand::Public => "public".to_owned(),
        Demand::AnyKey => "any key".to_owned(),
        Demand::Scopes { all, any } if any.is_empty() => names(all, " + "),
        Demand::Scopes { all, any } if all.is_empty() => format!("one of ({})", names(any, ", ")),
        Demand::Scopes { all, any } => format!("{} + one of ({})", names(all, " + "), names(any, ", ")),
    }
}
