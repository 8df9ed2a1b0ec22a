//! Warnings: a configuration that works, but probably does not say what was meant.
//!
//! Owns what is worth a warning. Runs only where there is no error, on settings that are complete.

mod shadow;

use std::collections::HashSet;

use super::diagnostic::{Code, Findings, Problem};
use super::resolve::{Resolved, ResolvedRoute, rule_of};
use crate::admin;
use crate::domain::{Scope, Timestamp, did_you_mean, is_misspelt};
use crate::gate::{BUILT_IN_UPSTREAM, Demand, MethodSelector, Mode, RouteSettings};
use crate::proxy::{Protocol, UpstreamSettings};
use crate::route::{Idle, PathPattern};
use crate::server::staple_fault;

/// Notes everything worth a warning. O(rules + public routes × protected routes).
pub(crate) fn lint(resolved: &Resolved, now: Timestamp, findings: &mut Findings) {
    report_mode(resolved, now, findings);
    scopes(resolved, findings);
    roles(resolved, findings);
    methods(resolved, findings);
    unreachable(resolved, findings);
    nowhere(resolved, findings);
    shadow::check(&resolved.routes, findings);
    unused(resolved, findings);
    staples(resolved, now, findings);
    tunnels(resolved, findings);
    caps(resolved, findings);
    for (at, why) in &resolved.marks.weakened {
        findings.note(Problem::new(Code::Weakened, *at, why.clone()));
    }
}

fn staples(resolved: &Resolved, now: Timestamp, findings: &mut Findings) {
    for (ocsp, cert, at) in &resolved.marks.staples {
        if let Some(fault) = staple_fault(ocsp, cert, now) {
            findings.note(Problem::new(Code::NotStapled, *at, fault.to_string()));
        }
    }
}

/// Routes that let connections be upgraded where nothing but HTTP/2 is spoken.
fn tunnels(resolved: &Resolved, findings: &mut Findings) {
    for route in resolved.routes.iter().filter(|route| !route.settings.forward.upgrade.is_empty()) {
        let behind = |upstream: &&UpstreamSettings| upstream.name == route.settings.upstream;
        let upstream = resolved.settings.upstreams.iter().find(behind);
        if let (Some(upstream), Some(at)) = (upstream, route.upgrade_at)
            && matches!(upstream.protocol, Protocol::H2 | Protocol::H2c)
        {
            let name = &upstream.name;
            let message = format!("the upstream `{name}` speaks HTTP/2 alone, in which no connection is upgraded");
            let problem = Problem::new(Code::Mismatch, at, message);
            findings.note(problem.fix("Write `upgrade: []` here, or `protocol: auto` there"));
        }
    }
}

/// Upstreams over HTTP/2 with fewer connections than there are workers, which share none.
fn caps(resolved: &Resolved, findings: &mut Findings) {
    let workers = resolved.settings.workers.count();
    for upstream in &resolved.settings.upstreams {
        let at = resolved.marks.caps.iter().find(|(name, _)| *name == upstream.name).map(|(_, at)| *at);
        if let Some(at) = at.filter(|_| upstream.max_connections < workers)
            && matches!(upstream.protocol, Protocol::H2 | Protocol::H2c)
        {
            let message = format!("there are {workers} workers, and each needs a connection of its own");
            let fix = "Raise it: over HTTP/2 a connection carries many requests at a time; or set `workers`";
            findings.note(Problem::new(Code::Mismatch, at, message).fix(fix));
        }
    }
}

fn report_mode(resolved: &Resolved, now: Timestamp, findings: &mut Findings) {
    let until = resolved.settings.gate.report_until;
    if let (Some(until), Some(at)) = (until.filter(|until| *until <= now), resolved.marks.report_until) {
        let message = format!("report mode ended at {until}; every route enforces");
        findings.note(Problem::new(Code::ReportMode, at, message).fix("Remove `report` and `mode: report`"));
        return;
    }
    let fix = if until.is_some() {
        "Write `mode: enforce` once the reports are clean"
    } else {
        "Set `report: { until: DATE }`, or write `mode: enforce` once the reports are clean"
    };
    let global = resolved.marks.mode.filter(|_| {
        let follows = |route: &ResolvedRoute| route.mode_at.is_none() && route.settings.mode == Mode::Report;
        resolved.routes.iter().any(follows)
    });
    let own = resolved.routes.iter().filter(|route| route.settings.mode == Mode::Report);
    for at in global.into_iter().chain(own.filter_map(|route| route.mode_at)) {
        let message = "requests that should be refused are let through";
        findings.note(Problem::new(Code::ReportMode, at, message).fix(fix));
    }
}

fn scopes(resolved: &Resolved, findings: &mut Findings) {
    let catalogue = &resolved.settings.gate.scopes;
    let mut demanded: HashSet<&Scope> = HashSet::new();
    let ruled = resolved.routes.iter().flat_map(|route| &route.rules).flat_map(|rule| &rule.scopes_at);
    let mapped = resolved.routes.iter().flat_map(|route| &route.mapped_at);
    for scope in ruled.chain(mapped) {
        demanded.insert(&scope.value);
        if scope.value.is_reserved() || catalogue.contains_key(&scope.value) {
            continue;
        }
        let written = findings.written(scope.at);
        let message = format!("the scope `{written}` is not in the catalogue");
        let problem = Problem::new(Code::UndeclaredScope, scope.at, message);
        let fix = match did_you_mean(scope.value.as_str(), catalogue.keys().map(Scope::as_str)) {
            Some(word) => format!("Did you mean `{word}`?"),
            None => format!("Add `{written}: {{ title: … }}` to `scopes`"),
        };
        findings.note(problem.fix(fix));
    }
    for (scope, at) in resolved.marks.scopes.iter().filter(|(scope, _)| !demanded.contains(scope)) {
        let message = format!("no route asks for the scope `{scope}`");
        findings.note(Problem::new(Code::UnusedScope, *at, message).fix("Demand it somewhere, or remove it"));
    }
}

fn roles(resolved: &Resolved, findings: &mut Findings) {
    let catalogue = &resolved.settings.gate.scopes;
    for (role, grant, at) in &resolved.marks.grants {
        let reserved = grant.as_str().starts_with(Scope::RESERVED_PREFIX);
        if !reserved && !catalogue.keys().any(|scope| grant.covers(scope)) {
            let message = format!("`{}` of the role `{role}` covers no scope of the catalogue", findings.written(*at));
            findings.note(Problem::new(Code::IdleRole, *at, message).fix("Correct it, or declare the scope"));
        }
    }
}

/// Methods that nobody has registered, and that are one letter away from one that is.
fn methods(resolved: &Resolved, findings: &mut Findings) {
    for rule in resolved.routes.iter().flat_map(|route| &route.rules) {
        let MethodSelector::Named(method) = &rule.rule.selector else { continue };
        if let Some(meant) = METHODS.iter().find(|known| is_misspelt(method.as_str(), known)) {
            let message = format!("`{method}` is no method that clients usually send");
            findings.note(Problem::new(Code::OddMethod, rule.at, message).fix(format!("Did you mean `{meant}`?")));
        }
    }
}

/// Of RFC 9110 §9.3 and RFC 5789 what routes usually name.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"];

fn unreachable(resolved: &Resolved, findings: &mut Findings) {
    let routes = &resolved.routes;
    for route in routes.iter().filter(|route| route.settings.accept.is_empty()) {
        if let Some(rule) = route.rules.iter().find(|rule| rule.rule.demand != Demand::Public) {
            let problem = Problem::new(Code::Unreachable, rule.at, "no request can pass: nowhere may it carry a key");
            findings.note(problem.fix("Name a place in `accept`, or write `auth: none`"));
        }
    }
    for (rule, why) in resolved.table.idle_rules() {
        let at = rule_of(routes, rule).1.at;
        let problem = match why {
            Idle::Beaten(by) => {
                let problem = Problem::new(Code::Unreachable, at, "more specific rules answer all its requests");
                problem.label(rule_of(routes, by).1.at, "one of them").fix("Remove it")
            }
            Idle::Refused(bad) => {
                let problem = Problem::new(Code::Unreachable, at, format!("all its requests are refused: {bad}"));
                problem.fix("Change the path, `path_rules`, or `reads_paths` of the upstream")
            }
        };
        findings.note(problem);
    }
}

/// Routes to the management API that lead to nothing of it.
fn nowhere(resolved: &Resolved, findings: &mut Findings) {
    for route in resolved.routes.iter().filter(|route| route.settings.upstream == BUILT_IN_UPSTREAM) {
        if !admin::endpoint_paths().any(|path| leads_to(&route.settings, path)) {
            let message = "it leads to nothing of the management API, whose paths begin with `/v1`";
            let fix = "Write `path: /v1/keys/**`, or put it there with `strip_prefix` and `add_prefix: /v1`";
            findings.note(Problem::new(Code::Unreachable, route.path_at, message).fix(fix));
        }
    }
}

/// Whether some request to a route is sent on to a path.
fn leads_to(route: &RouteSettings, path: &str) -> bool {
    let own = |prefix: &Option<String>| prefix.clone().unwrap_or_default();
    let Some(rest) = path.strip_prefix(&own(&route.forward.add_prefix)) else { return false };
    let asked = PathPattern::parse(&format!("{}{rest}", own(&route.forward.strip_prefix)));
    asked.is_ok_and(|asked| route.path.covers(&asked) || asked.covers(&route.path))
}

fn unused(resolved: &Resolved, findings: &mut Findings) {
    let settings = &resolved.settings;
    let by_routes = settings.gate.routes.iter().map(|route| route.upstream.as_str());
    let by_environments = settings.gate.environments.values().filter_map(|environment| environment.upstream.as_deref());
    let used: HashSet<&str> = by_routes.chain(by_environments).collect();
    for (name, at) in resolved.marks.upstreams.iter().filter(|(name, _)| !used.contains(name.as_str())) {
        let message = format!("no route leads to the upstream `{name}`");
        findings.note(Problem::new(Code::Unused, *at, message).fix("Remove it, or name it in a route"));
    }
    let served: HashSet<&str> = settings
        .listeners
        .iter()
        .map(|listener| &listener.tls)
        .chain([&settings.admin.tls])
        .filter_map(Option::as_deref)
        .collect();
    for (name, at) in resolved.marks.tls.iter().filter(|(name, _)| !served.contains(name.as_str())) {
        let message = format!("no listener serves the certificates `{name}`");
        findings.note(Problem::new(Code::Unused, *at, message).fix("Remove them, or name them in a listener"));
    }
}

#[cfg(test)]
#[path = "lint_tests.rs"]
mod tests;
