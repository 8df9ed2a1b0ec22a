//! Routes: references, places, bounds, and the rules they are made of.

use http::HeaderName;

use super::super::diagnostic::{Code, Findings, Problem};
use super::super::file::File;
use super::super::file::routes::RouteFile;
use super::super::place::PlaceId;
use super::super::shape::{At, Listed, NamedEntry};
use super::auth::{AuthParts, Query, places};
use super::catalogue::check_upstream;
use super::demand::{ResolvedRule, rules};
use super::network::note_unknown;
use super::{forward, limits, missing_section};
use crate::gate::{Door, Mode, RouteSettings};
use crate::route::{PathRules, ReadsPaths};

/// A route, and where its parts stand.
#[derive(Clone)]
pub(crate) struct ResolvedRoute {
    pub(crate) settings: RouteSettings,
    /// Its path pattern.
    pub(crate) path_at: PlaceId,
    /// Its rules, in the order of `settings.methods`.
    pub(crate) rules: Vec<ResolvedRule>,
    /// Its own `mode`.
    pub(crate) mode_at: Option<PlaceId>,
}

pub(super) fn routes(
    file: &File,
    parts: &AuthParts,
    identity: &[HeaderName],
    findings: &mut Findings,
) -> Vec<ResolvedRoute> {
    let list: &[At<RouteFile>] = file.routes.0.as_ref().map_or(&[], |list| &list.0);
    if list.is_empty() && !findings.is_broken("routes") {
        missing_section("routes", "Add at least one route; without any, everything is answered 404", findings);
    }
    check_names(list, findings);
    list.iter().map(|route| resolve_route(file, route, parts, identity, findings)).collect()
}

fn check_names(list: &[At<RouteFile>], findings: &mut Findings) {
    for (index, route) in list.iter().enumerate() {
        let Some(name) = &route.value.name else { continue };
        let same = |other: &&At<RouteFile>| other.value.name.as_ref().is_some_and(|other| other.value == name.value);
        if let Some(first) = list[..index].iter().find(same).and_then(|first| first.value.name.as_ref()) {
            let problem = Problem::new(
                Code::Duplicate,
                name.at,
                format!("two routes are called `{}`", findings.written(name.at)),
            );
            findings.note(problem.label(first.at, "the first one").fix("Rename one; routes may share a `group`"));
        }
    }
}

fn resolve_route(
    file: &File,
    route: &At<RouteFile>,
    parts: &AuthParts,
    identity: &[HeaderName],
    findings: &mut Findings,
) -> ResolvedRoute {
    let At { value, at } = route;
    check_upstream(file, &value.upstream, findings);
    let hosts = filled(value.hosts.as_ref(), "hosts", findings);
    let allow_ips = filled(value.allow_ips.as_ref(), "networks", findings);
    let environments = filled(value.environments.as_ref(), "environments", findings);
    for environment in environments {
        if !parts.environments.contains_key(&environment.value) && !findings.is_broken("environments") {
            let known = parts.environments.keys().map(String::as_str);
            note_unknown("environment", environment, known, findings);
        }
    }
    let accept = value.accept.as_ref();
    let rules = rules(value, *at, findings);
    let path = value.path.value.clone();
    let label = value.name.as_ref().map(|name| &name.value).or(value.group.as_ref());
    let settings = RouteSettings {
        door: Door::Data,
        label: label.map_or_else(|| path.as_str().to_owned(), |label| label.0.clone()),
        name: value.name.as_ref().map(|name| name.value.0.clone()),
        hosts: hosts.iter().map(|host| host.value.clone()).collect(),
        path,
        path_rules: path_rules(value),
        reads_paths: reads_paths(file, value, parts),
        methods: rules.iter().map(|rule| rule.rule.clone()).collect(),
        accept: accept.map_or_else(|| parts.accept.clone(), |list| places(&list.value, Query::Allowed, findings)),
        forward_credential: value.forward_credential.unwrap_or(false),
        mode: value.mode.as_ref().or(file.mode.0.as_ref()).map_or(Mode::Enforce, |mode| mode.value),
        environments: environments.iter().map(|environment| environment.value.clone()).collect(),
        allow_ips: allow_ips.iter().map(|net| net.value).collect(),
        publishable_unsafe_methods: value.publishable_unsafe_methods.unwrap_or(false),
        rate_limit: value.rate_limit.as_ref().and_then(|limit| limits::route_limit(limit, &rules, findings)),
        cors: value.cors.as_ref().map(|cors| forward::cors(cors, findings)),
        upstream: value.upstream.value.clone(),
        forward: forward::forward(value, identity, findings),
        source: findings.sources.source_span(*at),
    };
    ResolvedRoute { settings, path_at: value.path.at, rules, mode_at: value.mode.as_ref().map(|mode| mode.at) }
}

/// A list that restricts the route. Written down but empty it would mean the opposite of what it says.
fn filled<'f, T>(list: Option<&'f At<Listed<T>>>, what: &str, findings: &mut Findings) -> &'f [At<T>] {
    let Some(At { value: Listed(items), at }) = list else { return &[] };
    if items.is_empty() {
        let problem = Problem::new(Code::BadValue, *at, format!("this list names no {what}"));
        findings.note(problem.fix("Name some, or remove the field; without it there is no restriction"));
    }
    items
}

fn path_rules(route: &RouteFile) -> PathRules {
    let usual = PathRules::STRICT;
    let Some(file) = &route.path_rules else { return usual };
    PathRules {
        encoded_slash: file.encoded_slash.unwrap_or(usual.encoded_slash),
        empty_segments: file.empty_segments.unwrap_or(usual.empty_segments),
        trailing_slash: file.trailing_slash.unwrap_or(usual.trailing_slash),
        normalize: file.normalize.unwrap_or(usual.normalize),
    }
}

/// `exact` only when every upstream that this route's requests may go to reads paths exactly.
fn reads_paths(file: &File, route: &RouteFile, parts: &AuthParts) -> ReadsPaths {
    let named = |name: &str| file.upstreams.0.as_ref().and_then(|upstreams| upstreams.find(name));
    let reads = |entry: &NamedEntry<super::super::file::servers::UpstreamFile>| {
        entry.value.as_ref().and_then(|upstream| upstream.reads_paths.as_ref()).map(|reads| reads.value)
    };
    let own = std::iter::once(route.upstream.value.as_str());
    let others = parts.environments.values().filter_map(|environment| environment.upstream.as_deref());
    let all_exact =
        own.chain(others).all(|name| named(name).and_then(reads).is_some_and(|reads| reads == ReadsPaths::Exactly));
    if all_exact { ReadsPaths::Exactly } else { ReadsPaths::Variously }
}
