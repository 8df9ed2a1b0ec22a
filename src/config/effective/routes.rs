//! `routes` as YAML.

use http::Method;
use serde_yaml::Value;

use super::values::{filled, flag, header_edit, list, map, on_stale, place, rate_limit, size, span, text, word};
use crate::gate::{Cors, Demand, MethodRule, MethodSelector, Mode, RouteSettings, RouteTimeouts, SelfService};
use crate::route::{EmptySegments, EncodedSlash, Normalize, PathRules, TrailingSlash};

pub(super) fn route(route: &RouteSettings) -> Value {
    let forward = &route.forward;
    // What says how requests leave means nothing where they stay.
    let leaves = route.self_service.is_none();
    let group =
        (route.name.as_ref() != Some(&route.label) && route.label != route.path.as_str()).then_some(&route.label);
    map([
        ("name", route.name.as_ref().map(text)),
        ("group", group.map(text)),
        ("hosts", filled(&route.hosts, |host| text(host.as_str()))),
        ("path", word(route.path.as_str())),
        ("path_rules", Some(path_rules(&route.path_rules))),
        ("upstream", word(&route.upstream)),
        ("map", route.self_service.as_ref().and_then(scope_map)),
        ("methods", Some(map(route.methods.iter().map(method)))),
        ("accept", list(&route.accept, place)),
        ("forward_credential", flag(route.forward_credential)),
        (
            "mode",
            word(match route.mode {
                Mode::Enforce => "enforce",
                Mode::Report => "report",
            }),
        ),
        ("environments", filled(&route.environments, text)),
        ("allow_ips", filled(&route.allow_ips, |net| text(net.to_string()))),
        ("max_staleness", span(route.staleness.most)),
        ("on_stale", on_stale(route.staleness.then)),
        ("publishable_unsafe_methods", flag(route.publishable_unsafe_methods)),
        ("rate_limit", route.rate_limit.map(|route| rate_limit(route.limit, Some(route.by)))),
        ("cors", route.cors.as_ref().map(cors)),
        ("strip_prefix", forward.strip_prefix.as_ref().map(text)),
        ("add_prefix", forward.add_prefix.as_ref().map(text)),
        ("timeouts", timeouts(&forward.timeouts)),
        ("max_body", forward.max_body.and_then(size)),
        ("headers", leaves.then(|| header_edit(&forward.set_headers, &forward.remove_headers))),
        ("upgrade", leaves.then(|| list(&forward.upgrade, text)).flatten()),
    ])
}

fn scope_map(own: &SelfService) -> Option<Value> {
    let names = own.map.iter().map(|(name, own)| (name.as_str(), list(own, |scope| text(scope.as_str()))));
    (!own.map.is_empty()).then(|| map(names))
}

fn demand(demand: &Demand) -> Value {
    match demand {
        Demand::Public => map([("auth", word("none"))]),
        Demand::AnyKey => map([("auth", word("any_key"))]),
        Demand::Scopes { all, any } => {
            let all = filled(all, |scope| text(scope.as_str()));
            let any = filled(any, |scope| text(scope.as_str()));
            map([("scopes", Some(map([("all", all), ("any", any)])))])
        }
    }
}

fn method(rule: &MethodRule) -> (&str, Option<Value>) {
    let name = match &rule.selector {
        MethodSelector::Named(method) => method.as_str(),
        MethodSelector::All => "*",
    };
    (name, Some(demand(&rule.demand)))
}

fn timeouts(timeouts: &RouteTimeouts) -> Option<Value> {
    (*timeouts != RouteTimeouts::default()).then(|| {
        map([
            ("connect", timeouts.connect.and_then(span)),
            ("first_byte", timeouts.first_byte.and_then(span)),
            ("idle", timeouts.idle.and_then(span)),
        ])
    })
}

fn path_rules(rules: &PathRules) -> Value {
    map([
        (
            "encoded_slash",
            word(match rules.encoded_slash {
                EncodedSlash::Refuse => "refuse",
                EncodedSlash::Keep => "keep",
            }),
        ),
        (
            "empty_segments",
            word(match rules.empty_segments {
                EmptySegments::Refuse => "refuse",
                EmptySegments::Merge => "merge",
            }),
        ),
        (
            "trailing_slash",
            word(match rules.trailing_slash {
                TrailingSlash::Exact => "exact",
                TrailingSlash::Either => "either",
            }),
        ),
        (
            "normalize",
            word(match rules.normalize {
                Normalize::Rewrite => "rewrite",
                Normalize::Refuse => "refuse",
            }),
        ),
    ])
}

fn cors(cors: &Cors) -> Value {
    map([
        ("origins", list(&cors.origins, text)),
        ("methods", filled(&cors.methods, |method: &Method| text(method.as_str()))),
        ("headers", list(&cors.headers, |name| text(name.as_str()))),
        ("max_age", cors.max_age.and_then(span)),
    ])
}
