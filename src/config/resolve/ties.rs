//! Rules that would be equally good for the same request: precedence never depends on the order of a file.
//!
//! Asks the route table, which knows; owns how its conflicts are told.

use std::collections::HashMap;

use super::super::diagnostic::{Code, Findings, Problem};
use super::demand::ResolvedRule;
use super::routes::ResolvedRoute;
use crate::gate::MethodSelector;
use crate::route::{Conflict, RouteEntry, RouteIx, RouteTable, RuleRef};

/// The table of these routes; `None` when some of them conflict, which is noted.
pub(super) fn table(routes: &[ResolvedRoute], findings: &mut Findings) -> Option<RouteTable> {
    match RouteTable::build(entries(routes)) {
        Ok(table) => Some(table),
        Err(conflicts) => {
            for conflict in conflicts {
                let problem = match conflict {
                    Conflict::Tie { first, second } => tie(routes, first, second, findings),
                    Conflict::OnlyCase { first, second } => {
                        only_case(&routes[first.0 as usize], &routes[second.0 as usize], findings)
                    }
                    Conflict::TooManyMethods { route } => {
                        Problem::new(Code::TooLarge, routes[route.0 as usize].path_at, conflict.to_string())
                    }
                };
                findings.note(problem);
            }
            None
        }
    }
}

fn entries(routes: &[ResolvedRoute]) -> Vec<RouteEntry> {
    let names = routes.iter().map(|route| route.settings.upstream.as_str());
    let upstreams: HashMap<&str, u32> = names.zip(0..).collect();
    let entry = |(number, route): (u32, &ResolvedRoute)| {
        let settings = &route.settings;
        RouteEntry {
            route: RouteIx(number),
            hosts: settings.hosts.clone(),
            path: settings.path.clone(),
            methods: settings.methods.iter().map(|rule| rule.selector.clone()).collect(),
            path_rules: settings.path_rules,
            reads_paths: settings.reads_paths,
            upstream: upstreams[settings.upstream.as_str()],
        }
    };
    (0..).zip(routes).map(entry).collect()
}

/// The rule that the table means.
pub(crate) fn rule_of(routes: &[ResolvedRoute], rule: RuleRef) -> (&ResolvedRoute, &ResolvedRule) {
    let route = &routes[rule.route.0 as usize];
    (route, &route.rules[usize::from(rule.method)])
}

fn tie(routes: &[ResolvedRoute], first: RuleRef, second: RuleRef, findings: &Findings) -> Problem {
    let ((first_route, first), (route, rule)) = (rule_of(routes, first), rule_of(routes, second));
    let method = match &rule.rule.selector {
        MethodSelector::Named(method) => method.as_str(),
        MethodSelector::All => "\"*\"",
    };
    let (one, other) = (findings.written(first_route.path_at), findings.written(route.path_at));
    let message = if one == other {
        format!("{method} {other} is defined twice")
    } else {
        format!("{method} {other} matches the same requests as {one}: names of parameters make no difference")
    };
    let problem = Problem::new(Code::Tie, rule.at, message).label(first.at, "first defined here");
    problem.fix("Remove one, or give the two different hosts, paths or methods")
}

fn only_case(first: &ResolvedRoute, route: &ResolvedRoute, findings: &Findings) -> Problem {
    let (one, other) = (findings.written(first.path_at), findings.written(route.path_at));
    let message = format!("{other:?} and {one:?} differ in case only, and servers that ignore case confuse them");
    let problem = Problem::new(Code::CaseOnly, route.path_at, message).label(first.path_at, "first defined here");
    problem.fix("Keep one, or set `reads_paths: exact` on upstreams that read paths byte for byte")
}
