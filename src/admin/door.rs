//! The gate of the management API: its table as rules, joined with the key set, decided by the same call as every other
//! request. There is one for the management listener, and one for each route that customers manage their keys through.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::Mutex;

use super::table::{Needs, Row, TABLE, satisfied_by};
use crate::cache::{Directory, KeySet};
use crate::credential::Place;
use crate::domain::{GrantedScope, Scope};
use crate::gate::{
    BUILT_IN_UPSTREAM, Demand, Door as DoorKind, ForwardSettings, GateSettings, MethodRule, MethodSelector, Mode,
    RouteSettings, RouteTimeouts, Rules, RulesError, SelfService, Snapshot, SourceSpan, Staleness,
};
use crate::route::{PathPattern, PathRules, ReadsPaths, RouteIx, RuleRef};

/// Which way requests come to the API.
#[derive(Clone, Copy)]
pub enum Entrance<'a> {
    /// The management listener.
    Management,
    /// A route of the API behind the gateway, which has let the request in.
    Route {
        /// The rules that it was let in by.
        rules: &'a Arc<Rules>,
        /// Which of their routes.
        route: RouteIx,
    },
}

/// The doors under one configuration, each made when it is first come to.
pub(super) struct Doors {
    /// The configuration's own rules, which they were made from.
    base: Arc<Rules>,
    /// None: that of the management listener.
    made: HashMap<Option<RouteIx>, Arc<Door>>,
}

impl Doors {
    /// Of one configuration.
    pub(super) fn new(base: &Arc<Rules>) -> Self {
        Self { base: Arc::clone(base), made: HashMap::new() }
    }

    /// The door of an entrance. Those of another configuration are forgotten.
    ///
    /// # Errors
    /// As [`Door::compile`].
    pub(super) fn of(&mut self, rules: &Arc<Rules>, route: Option<RouteIx>) -> Result<Arc<Door>, RulesError> {
        if !Arc::ptr_eq(&self.base, rules) {
            *self = Self::new(rules);
        }
        if let Some(door) = self.made.get(&route) {
            return Ok(Arc::clone(door));
        }
        let door = Arc::new(Door::compile(&self.base, route)?);
        self.made.insert(route, Arc::clone(&door));
        Ok(door)
    }
}

/// What the table means at one door.
pub(super) struct Door {
    /// Where its requests carry the credential.
    pub(super) accept: Vec<Place>,
    /// The application's names for the gateway's scopes; none at the management listener.
    names: Option<SelfService>,
    snapshot: Mutex<Arc<Snapshot>>,
    /// By route, and by method within it.
    rows: Vec<Vec<&'static Row>>,
}

impl Door {
    /// Compiles the table beside a configuration.
    ///
    /// # Errors
    /// None that a test would not have found: the table is fixed.
    pub(super) fn compile(base: &Rules, route: Option<RouteIx>) -> Result<Self, RulesError> {
        let outer = route.map(|route| &base.route(route).settings);
        let accept = outer.map_or(&base.settings.accept, |outer| &outer.accept).clone();
        let staleness = outer.map_or(base.settings.staleness, |outer| outer.staleness);
        let names = outer.map(|outer| outer.self_service.clone().unwrap_or_default());
        let mut rows: Vec<Vec<&'static Row>> = Vec::new();
        for row in TABLE.iter().filter(|row| is_named(row, names.as_ref())) {
            match rows.iter_mut().find(|rows| rows[0].path == row.path) {
                Some(same) => same.push(row),
                None => rows.push(vec![row]),
            }
        }
        let mut routes = rows
            .iter()
            .map(|rows| rules_of(rows, &accept, staleness, names.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        // What narrows the route narrows each of its endpoints.
        if let Some(outer) = outer {
            for route in &mut routes {
                route.environments.clone_from(&outer.environments);
                route.allow_ips.clone_from(&outer.allow_ips);
            }
        }
        let routes = routes.into_iter().map(Arc::new).collect();
        let settings = GateSettings { routes, hide_routes: false, report_until: None, ..base.settings.clone() };
        let rules = Rules::compile(settings, &[BUILT_IN_UPSTREAM])?;
        let snapshot = Snapshot::join(Arc::new(rules), Arc::new(Directory::default()), None);
        Ok(Self { accept, names, snapshot: Mutex::new(Arc::new(snapshot)), rows })
    }

    /// The rules with the names of the key set as they are now.
    pub(super) fn snapshot(&self, keys: &KeySet) -> Arc<Snapshot> {
        let directory = Arc::clone(&keys.directory());
        let mut current = self.snapshot.lock();
        if !Arc::ptr_eq(&current.directory, &directory) {
            *current = Arc::new(Snapshot::join(Arc::clone(&current.rules), directory, Some(&current)));
        }
        Arc::clone(&current)
    }

    /// Whether one of these scopes is what something of the gateway's takes, by its name at this door.
    pub(super) fn grants(&self, holds: &[GrantedScope], own: &str) -> bool {
        let satisfied = satisfied_by(own);
        match &self.names {
            None => holds.iter().any(|held| satisfied.contains(&held.as_str())),
            Some(names) => names.names_for(satisfied).any(|name| holds.iter().any(|held| held.covers(name))),
        }
    }

    /// The endpoint that a rule stands for.
    pub(super) fn row(&self, rule: RuleRef) -> Option<&'static Row> {
        self.rows.get(rule.route.0 as usize)?.get(usize::from(rule.method)).copied()
    }
}

/// Whether somebody can be let in at this door: what an application has no name for is not there.
fn is_named(row: &Row, names: Option<&SelfService>) -> bool {
    match (names, row.needs) {
        (None, _) | (_, Needs::Nothing | Needs::AnyKey) => true,
        (Some(names), Needs::Scope(own)) => names.names_for(satisfied_by(own)).next().is_some(),
    }
}

fn rules_of(
    rows: &[&'static Row],
    accept: &[Place],
    staleness: Staleness,
    names: Option<&SelfService>,
) -> Result<RouteSettings, RulesError> {
    let path = rows[0].path;
    let any_of = |own: &'static str| match names {
        None => scopes(satisfied_by(own)),
        Some(names) => names.names_for(satisfied_by(own)).cloned().collect(),
    };
    let source = || SourceSpan { file: "management API".into(), line: 0, column: 0 };
    let methods = rows
        .iter()
        .map(|row| MethodRule {
            selector: MethodSelector::Named(row.method.clone()),
            demand: match row.needs {
                Needs::Nothing => Demand::Public,
                Needs::AnyKey => Demand::AnyKey,
                Needs::Scope(scope) => Demand::Scopes { all: Vec::new(), any: any_of(scope) },
            },
            source: source(),
        })
        .collect();
    let unusable = || RulesError::UnknownUpstream { route: path.to_owned(), upstream: String::new() };
    Ok(RouteSettings {
        door: if names.is_some() { DoorKind::Data } else { DoorKind::Management },
        label: path.to_owned(),
        name: None,
        hosts: Vec::new(),
        path: PathPattern::parse(path).map_err(|_| unusable())?,
        path_rules: PathRules::STRICT,
        reads_paths: ReadsPaths::Exactly,
        methods,
        accept: accept.to_vec(),
        forward_credential: false,
        mode: Mode::Enforce,
        environments: Vec::new(),
        allow_ips: Vec::<IpNet>::new(),
        staleness,
        publishable_unsafe_methods: false,
        rate_limit: None,
        cors: None,
        upstream: BUILT_IN_UPSTREAM.to_owned(),
        self_service: None,
        forward: ForwardSettings {
            strip_prefix: None,
            add_prefix: None,
            set_headers: Vec::new(),
            remove_headers: Vec::new(),
            max_body: None,
            upgrade: Vec::new(),
            timeouts: RouteTimeouts::default(),
        },
        source: source(),
    })
}

fn scopes(texts: &[&str]) -> Vec<Scope> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}
