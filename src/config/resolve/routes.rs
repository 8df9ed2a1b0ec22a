//! Routes: references, places, bounds, and the rules they are made of.

use std::sync::Arc;

use http::HeaderName;

use super::super::diagnostic::{Code, Findings, Problem};
use super::super::file::File;
use super::super::file::routes::RouteFile;
use super::super::node::shortened;
use super::super::place::PlaceId;
use super::super::shape::words::scope_flaw;
use super::super::shape::{At, Listed, NamedEntry, OneOrMore};
use super::auth::{AuthParts, Query, places};
use super::catalogue::check_upstream;
use super::demand::{ResolvedRule, rules};
use super::network::note_unknown;
use super::{STALENESS, forward, limits, missing_section, span};
use crate::domain::Scope;
use crate::gate::{BUILT_IN_UPSTREAM, Demand, Door, Mode, OnStale, RouteSettings, SelfService, Staleness};
use crate::route::{PathRules, ReadsPaths};

/// A route, and where its parts stand.
#[derive(Clone)]
pub(crate) struct ResolvedRoute {
    pub(crate) settings: Arc<RouteSettings>,
    /// Its path pattern.
    pub(crate) path_at: PlaceId,
    /// Its rules, in the order of `settings.methods`.
    pub(crate) rules: Vec<ResolvedRule>,
    /// The names of its `map`, each where it is written.
    pub(crate) mapped_at: Vec<At<Scope>>,
    /// Its own `mode`.
    pub(crate) mode_at: Option<PlaceId>,
    /// Its own `upgrade`.
    pub(crate) upgrade_at: Option<PlaceId>,
    /// Where it says that an old key set will do.
    pub(crate) serves_stale_at: Option<PlaceId>,
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
    let mut mapped_at = Vec::new();
    let self_service = self_service(value, &mut mapped_at, findings);
    if self_service.is_none() {
        check_upstream(file, &value.upstream, findings);
    }
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
    if self_service.is_some() {
        check_self_service(value, &rules, findings);
    }
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
        forward_credential: value.forward_credential.as_ref().is_some_and(|kept| kept.value),
        mode: match self_service {
            // Whoever manages keys is known; the global report mode is about the application.
            Some(_) => Mode::Enforce,
            None => value.mode.as_ref().or(file.mode.0.as_ref()).map_or(Mode::Enforce, |mode| mode.value),
        },
        environments: environments.iter().map(|environment| environment.value.clone()).collect(),
        allow_ips: allow_ips.iter().map(|net| net.value).collect(),
        staleness: Staleness {
            most: span(value.max_staleness.as_ref(), parts.staleness.most, STALENESS, findings),
            then: value.on_stale.as_ref().map_or(parts.staleness.then, |then| then.value),
        },
        publishable_unsafe_methods: value.publishable_unsafe_methods.unwrap_or(false),
        rate_limit: value.rate_limit.as_ref().and_then(|limit| limits::route_limit(limit, &rules, findings)),
        cors: value.cors.as_ref().map(|cors| forward::cors(cors, findings)),
        upstream: value.upstream.value.clone(),
        self_service,
        forward: forward::forward(value, identity, findings),
        source: findings.sources.source_span(*at),
    };
    let mode_at = value.mode.as_ref().map(|mode| mode.at);
    let upgrade_at = value.upgrade.as_ref().map(|upgrade| upgrade.at);
    let serves_stale = value.on_stale.as_ref().filter(|then| then.value == OnStale::Serve);
    let serves_stale_at = serves_stale.map(|then| then.at);
    let settings = Arc::new(settings);
    ResolvedRoute { settings, path_at: value.path.at, rules, mapped_at, mode_at, upgrade_at, serves_stale_at }
}

/// What the route is to the management API, when that is what stands behind it.
fn self_service(route: &RouteFile, mapped_at: &mut Vec<At<Scope>>, findings: &mut Findings) -> Option<SelfService> {
    let map = route.map.as_ref();
    if route.upstream.value != BUILT_IN_UPSTREAM {
        if let Some(map) = map {
            let message = format!("`map` is for routes whose upstream is `{BUILT_IN_UPSTREAM}`");
            findings.note(Problem::new(Code::Conflict, map.at, message).fix("Remove it, or change `upstream`"));
        }
        return None;
    }
    let mut idle = |at: Option<PlaceId>, name: &str| {
        let Some(at) = at else { return };
        let message = format!("`{name}` does nothing: the requests of this route do not leave the gateway");
        findings.note(Problem::new(Code::Conflict, at, message).fix("Remove it"));
    };
    idle(route.forward_credential.as_ref().filter(|kept| kept.value).map(|kept| kept.at), "forward_credential");
    idle(route.headers.as_ref().map(|headers| headers.at), "headers");
    idle(route.timeouts.as_ref().map(|timeouts| timeouts.at), "timeouts");
    idle(route.upgrade.as_ref().map(|upgrade| upgrade.at), "upgrade");
    let queries = route.accept.iter().flat_map(|accept| accept.value.iter());
    for place in queries.filter_map(|place| place.value.query.as_ref()) {
        let message = "the management API takes no key from the query";
        findings.note(Problem::new(Code::BadValue, place.at, message).fix("Name a header"));
    }
    let mut names = SelfService::default();
    for entry in map.into_iter().flat_map(|map| map.value.iter()) {
        let Some(OneOrMore(own)) = &entry.value else { continue };
        for own in own.iter().filter(|own| !Scope::RESERVED.contains(&own.value.as_str())) {
            let message = format!("the gateway has no scope {:?}", findings.written(own.at));
            let fix = format!("It has {}", Scope::RESERVED.join(", "));
            findings.note(Problem::new(Code::BadValue, own.at, message).fix(fix));
        }
        match entry.name.parse::<Scope>() {
            Ok(name) if !name.is_reserved() => {
                mapped_at.push(At { value: name.clone(), at: entry.name_at });
                names.map.insert(name, own.iter().map(|own| own.value.clone()).collect());
            }
            Ok(_) => {
                let message = "only management keys hold scopes of the gateway, and none is let in here";
                let fix = "Write a scope of the application: { keys:manage: portcullis:keys }";
                findings.note(Problem::new(Code::BadValue, entry.name_at, message).fix(fix));
            }
            Err(error) => {
                let flaw = scope_flaw(&entry.name, error);
                let message = format!("{:?} {}", shortened(&entry.name), flaw.problem);
                findings.note(Problem::new(Code::BadValue, entry.name_at, message).fix(flaw.fix));
            }
        }
    }
    Some(names)
}

/// A route that leads to the management API knows its callers.
fn check_self_service(route: &RouteFile, rules: &[ResolvedRule], findings: &mut Findings) {
    for rule in rules.iter().filter(|rule| rule.rule.demand == Demand::Public) {
        let message = "nobody manages keys without one";
        let fix = "Write `auth: any_key`, or the scopes that it takes";
        findings.note(Problem::new(Code::Conflict, rule.at, message).fix(fix));
    }
    if let Some(mode) = route.mode.as_ref().filter(|mode| mode.value == Mode::Report) {
        let message = "the management API is never only reported";
        findings.note(Problem::new(Code::Conflict, mode.at, message).fix("Remove `mode`"));
    }
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
    if route.upstream.value == BUILT_IN_UPSTREAM {
        return ReadsPaths::Exactly;
    }
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
