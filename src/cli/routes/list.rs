//! `routes list`: every rule with what it demands and where it stands.

use clap::Args;
use serde_json::Value;

use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, OutputArgs};
use crate::cli::site::Site;
use crate::explain::{demand_text, method_text, mode_text, rules_json};
use crate::gate::{MethodRule, RouteSettings};

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
        Output::Json => output::json(console, &Value::Array(rules_json(&site.settings.gate)))?,
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
