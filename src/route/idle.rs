//! Rules that can never answer, for lint.
//!
//! Owns the search: it asks the table itself, with requests made from each rule's own pattern. Never used to decide.

use http::Method;

use super::bad_path::BadPath;
use super::host::{HostKind, HostPattern};
use super::method::{ALL_METHODS, MethodSelector};
use super::path::NormalizedPath;
use super::pattern::{PathPattern, Segment, Tail};
use super::rules::TrailingSlash;
use super::table::{Lookup, RouteEntry, RouteTable, RuleRef};

/// Why a rule never answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Idle {
    /// More specific rules answer all its requests; one of them.
    Beaten(RuleRef),
    /// All its requests are refused: the pattern holds what the route's own `path_rules` or `reads_paths` refuse.
    Refused(BadPath),
}

/// Takes the place of a parameter: lower case, and hardly anybody's text.
const ANY_SEGMENT: &str = "~any~";

impl RouteTable {
    /// Rules that never answer, with why. O(rules); for lint.
    pub fn idle_rules(&self) -> Vec<(RuleRef, Idle)> {
        let mut idle = Vec::new();
        for entry in &self.entries {
            let hosts: Vec<String> =
                if entry.hosts.is_empty() { vec![String::new()] } else { entry.hosts.iter().map(any_host).collect() };
            let paths = any_paths(&entry.path, entry.path_rules.trailing_slash);
            for (method, selector) in (0_u16..).zip(&entry.methods) {
                let rule = RuleRef { route: entry.route, method };
                let methods = match selector {
                    MethodSelector::Named(method) => std::slice::from_ref(method),
                    MethodSelector::All => &ALL_METHODS,
                };
                let requests = hosts.iter().flat_map(|host| {
                    paths.iter().flat_map(move |path| methods.iter().map(move |method| (host, method, path)))
                });
                let mut outcomes = requests
                    .map(|(host, method, path)| self.outcome(rule, host, method, path))
                    .map(|outcome| outcome.filter(|why| self.is_certain(entry, *why)));
                let first = outcomes.next().flatten();
                if let Some(why) = first.filter(|_| outcomes.all(|outcome| outcome.is_some())) {
                    idle.push((rule, why));
                }
            }
        }
        idle
    }

    /// Whether a refusal of the stand-ins speaks for all requests. Another reading of a path can lead to a route for one
    /// host or one segment alone, which a stand-in does not meet.
    fn is_certain(&self, entry: &RouteEntry, why: Idle) -> bool {
        let Idle::Refused(BadPath::ReadDifferently(_)) = why else { return true };
        let is_param = |segment: &Segment| matches!(segment, Segment::Param);
        let is_literal = entry.path.tail() != Tail::Rest && !entry.path.segments().iter().any(is_param);
        is_literal && self.entries.iter().all(|other| other.hosts == entry.hosts)
    }

    /// `None` where `rule` answers the request.
    fn outcome(&self, rule: RuleRef, host: &str, method: &Method, path: &str) -> Option<Idle> {
        let path = match NormalizedPath::parse(path) {
            Ok(path) => path,
            Err(bad) => return Some(Idle::Refused(bad)),
        };
        match self.find(host, method, &path) {
            Lookup::Found(found) if found.rule == rule => None,
            Lookup::Found(found) => Some(Idle::Beaten(found.rule)),
            Lookup::BadPath(bad) => Some(Idle::Refused(bad)),
            // A pattern that is better at this very path leaves the method out: other requests may still come here.
            Lookup::NotFound | Lookup::MethodNotAllowed { .. } => None,
        }
    }
}

fn any_host(pattern: &HostPattern) -> String {
    match pattern.kind() {
        HostKind::Exact(host) => host.clone(),
        HostKind::Below(suffix) => format!("{ANY_SEGMENT}{suffix}").replace('~', "-"),
    }
}

fn any_paths(pattern: &PathPattern, trailing_slash: TrailingSlash) -> Vec<String> {
    let segments = pattern.segments().iter().map(|segment| match segment {
        Segment::Text(text) => text.as_str(),
        Segment::Param => ANY_SEGMENT,
    });
    let stem: String = segments.flat_map(|segment| ["/", segment]).collect();
    let with_slash = format!("{stem}/");
    match pattern.tail() {
        Tail::End if stem.is_empty() => vec![with_slash],
        Tail::End | Tail::Slash if trailing_slash == TrailingSlash::Either => vec![stem, with_slash],
        Tail::End => vec![stem],
        Tail::Slash => vec![with_slash],
        Tail::Rest => {
            let below = format!("{stem}/{ANY_SEGMENT}");
            vec![format!("{below}/{ANY_SEGMENT}"), below, with_slash, stem]
        }
    }
}

#[cfg(test)]
#[path = "idle_tests.rs"]
mod tests;
