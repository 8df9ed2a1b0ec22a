//! Public rules that answer requests which a protected rule seems to cover.
//!
//! The more specific pattern wins, so a public route can take requests away from a protected one. Meant is
//! `/v1/status` beside `/v1/**`, or `/assets/**` beside `/**`; probably not meant is `/v1/{file}` beside
//! `/v1/orders/**`-like rules, or a host whose public `/**` outranks a protected path on any host.

use super::super::diagnostic::{Code, Findings, Problem};
use super::super::resolve::{ResolvedRoute, ResolvedRule};
use crate::gate::{Demand, MethodSelector, RouteSettings};
use crate::route::{HostPattern, PathPattern};

pub(super) fn check(routes: &[ResolvedRoute], findings: &mut Findings) {
    let patterns: Vec<Pattern<'_>> = routes.iter().map(Pattern::of).collect();
    let is_public = |rule: &&ResolvedRule| rule.rule.demand == Demand::Public;
    for (route, pattern) in routes.iter().zip(&patterns) {
        for rule in route.rules.iter().filter(is_public) {
            let covered = routes.iter().zip(&patterns).find_map(|(other, covered)| {
                let protected = other.rules.iter().filter(|rule| !is_public(rule));
                let same = protected.into_iter().find(|other| share_a_method(rule, other))?;
                pattern.shadows(covered).then_some((other, same))
            });
            let Some((other, same)) = covered else { continue };
            let message = format!(
                "anyone may ask for {}, and some of it looks protected by {}",
                findings.written(route.path_at),
                findings.written(other.path_at)
            );
            let problem = Problem::new(Code::PublicShadow, rule.at, message).label(same.at, "the protected rule");
            findings.note(problem.fix("Narrow the public route to what is meant to be public, or demand something"));
        }
    }
}

fn share_a_method(one: &ResolvedRule, other: &ResolvedRule) -> bool {
    match (&one.rule.selector, &other.rule.selector) {
        (MethodSelector::All, _) | (_, MethodSelector::All) => true,
        (MethodSelector::Named(one), MethodSelector::Named(other)) => one == other,
    }
}

#[derive(Clone, Copy)]
enum Segment<'p> {
    Rest,
    Any,
    Text(&'p str),
}

struct Pattern<'p> {
    path: &'p PathPattern,
    segments: Vec<Segment<'p>>,
    /// `None`: any host.
    hosts: Vec<Option<&'p HostPattern>>,
}

impl<'p> Pattern<'p> {
    fn of(route: &'p ResolvedRoute) -> Self {
        let segment = |text: &'p str| match text {
            "**" => Segment::Rest,
            "*" => Segment::Any,
            text if text.starts_with('{') && text.ends_with('}') => Segment::Any,
            text => Segment::Text(text),
        };
        let RouteSettings { path, hosts, .. } = &*route.settings;
        let segments = path.as_str().split('/').skip(1).map(segment).collect();
        let hosts = if hosts.is_empty() { vec![None] } else { hosts.iter().map(Some).collect() };
        Self { path, segments, hosts }
    }

    /// Whether this pattern takes requests from `other` in a way that is easily overlooked.
    fn shadows(&self, other: &Self) -> bool {
        let on_hosts = self.hosts.iter().any(|host| {
            other.hosts.iter().any(|covered| {
                host_covers(*covered, *host) && (!host_covers(*host, *covered) || self.segments_win(other))
            })
        });
        if !on_hosts || !overlap(&self.segments, &other.segments) {
            return false;
        }
        let is_text = |segment: &Segment<'_>| matches!(segment, Segment::Text(_));
        let deliberate = self.segments.iter().all(is_text) || !other.segments.iter().any(is_text);
        !(other.path.covers(self.path) && deliberate)
    }

    /// Whether this path wins where both match: segment by segment, text before parameter before rest.
    fn segments_win(&self, other: &Self) -> bool {
        let kind = |segments: &[Segment<'_>], index: usize| match segments.get(index) {
            None | Some(Segment::Text(_)) => 2,
            Some(Segment::Any) => 1,
            Some(Segment::Rest) => 0,
        };
        let longest = self.segments.len().max(other.segments.len());
        let differing = (0..longest).find(|index| kind(&self.segments, *index) != kind(&other.segments, *index));
        differing.is_some_and(|index| kind(&self.segments, index) > kind(&other.segments, index))
    }
}

/// Whether every host that `inner` stands for is one of `outer`'s; then `inner` is the more specific one, or the same.
fn host_covers(outer: Option<&HostPattern>, inner: Option<&HostPattern>) -> bool {
    outer.is_none_or(|outer| inner.is_some_and(|inner| outer.covers(inner)))
}

/// Whether some path matches both.
fn overlap(one: &[Segment<'_>], other: &[Segment<'_>]) -> bool {
    match (one, other) {
        ([Segment::Rest, ..], _) | (_, [Segment::Rest, ..]) | ([], []) => true,
        ([], [_, ..]) | ([_, ..], []) => false,
        ([Segment::Text(a), one @ ..], [Segment::Text(b), other @ ..]) => a == b && overlap(one, other),
        ([_, one @ ..], [_, other @ ..]) => overlap(one, other),
    }
}
