//! What another configuration sets otherwise.

use std::collections::HashMap;

use http::Method;
use serde_yaml::{Mapping, Value};

use super::parts;
use super::routes::route;
use crate::config::place::push_key;
use crate::config::settings::Settings;
use crate::gate::{MethodSelector, RouteSettings};
use crate::route::{HostPattern, PathPattern};

/// Most settings that are named; as a rule there are one or two.
pub const MAX_CHANGED_SETTINGS: usize = 100;

/// The settings that differ, as paths of the effective configuration: `environments.live.rate_limit`. Of routes only those
/// that both have (the same hosts, pattern and method), by their place among those of `after`; of these not what they
/// demand, and not what they take over from settings for all routes. Secrets are not compared.
///
/// O(routes), so that tens of thousands of them hardly hold up whoever asks.
pub fn changed_settings(before: &Settings, after: &Settings) -> Vec<String> {
    let mut changes = Changes { path: String::new(), found: Vec::new() };
    changes.between(&parts::sections(before, None), &parts::sections(after, None));
    let known: HashMap<_, _> =
        before.gate.routes.iter().flat_map(|route| rules(route).map(move |rule| (rule, route))).collect();
    for (number, is) in after.gate.routes.iter().enumerate() {
        let was = rules(is).find_map(|rule| known.get(&rule));
        let Some(was) = was.filter(|was| !is_alike(was, is)) else { continue };
        let mut but = vec!["methods", "mode"];
        if was.accept == before.gate.accept && is.accept == after.gate.accept {
            but.push("accept");
        }
        if was.staleness == before.gate.staleness && is.staleness == after.gate.staleness {
            but.extend(["max_staleness", "on_stale"]);
        }
        changes.path = format!("routes[{number}]");
        if let (Value::Mapping(was), Value::Mapping(is)) = (route(was), route(is)) {
            changes.between_maps(&was, &is, &but);
        }
    }
    changes.found.truncate(MAX_CHANGED_SETTINGS);
    changes.found
}

/// What no two routes of one file have in common: several may have one path, for different methods.
fn rules(route: &RouteSettings) -> impl Iterator<Item = (&[HostPattern], &PathPattern, Option<&Method>)> {
    route.methods.iter().map(|rule| match &rule.selector {
        MethodSelector::Named(method) => (&*route.hosts, &route.path, Some(method)),
        MethodSelector::All => (&*route.hosts, &route.path, None),
    })
}

/// Whether nothing differs but demands and where they stand. Each field is named, so that a new one is not forgotten.
fn is_alike(one: &RouteSettings, other: &RouteSettings) -> bool {
    let RouteSettings {
        door,
        label,
        name,
        hosts,
        path,
        path_rules,
        reads_paths,
        methods: _,
        accept,
        forward_credential,
        mode: _,
        environments,
        allow_ips,
        staleness,
        publishable_unsafe_methods,
        rate_limit,
        cors,
        upstream,
        self_service,
        forward,
        source: _,
    } = one;
    let is_named_alike =
        (door, label, name, hosts, path) == (&other.door, &other.label, &other.name, &other.hosts, &other.path);
    let is_read_alike = (path_rules, reads_paths, accept, forward_credential)
        == (&other.path_rules, &other.reads_paths, &other.accept, &other.forward_credential);
    let is_bounded_alike = (environments, allow_ips, staleness, publishable_unsafe_methods, rate_limit, cors)
        == (
            &other.environments,
            &other.allow_ips,
            &other.staleness,
            &other.publishable_unsafe_methods,
            &other.rate_limit,
            &other.cors,
        );
    let leads_alike = (upstream, self_service, forward) == (&other.upstream, &other.self_service, &other.forward);
    is_named_alike && is_read_alike && is_bounded_alike && leads_alike
}

struct Changes {
    /// Where they are looked for.
    path: String,
    found: Vec<String>,
}

impl Changes {
    fn between(&mut self, before: &Value, after: &Value) {
        match (before, after) {
            (Value::Mapping(before), Value::Mapping(after)) => self.between_maps(before, after, &[]),
            _ if before != after => self.found.push(self.path.clone()),
            _ => {}
        }
    }

    fn between_maps(&mut self, before: &Mapping, after: &Mapping, but: &[&str]) {
        let length = self.path.len();
        let gone = before.iter().filter(|(key, _)| !after.contains_key(key));
        for (key, _) in after.iter().chain(gone) {
            let name = key.as_str().unwrap_or_default();
            if but.contains(&name) {
                continue;
            }
            push_key(&mut self.path, name);
            let nothing = Value::Null;
            let (before, after) = (before.get(key).unwrap_or(&nothing), after.get(key).unwrap_or(&nothing));
            self.between(before, after);
            self.path.truncate(length);
        }
    }
}
