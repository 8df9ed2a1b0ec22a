//! The gate of the management API: its table as rules, joined with the key set, decided by the same two calls as every
//! other request.

use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::Mutex;

use super::table::{Needs, Row, TABLE, satisfied_by};
use crate::cache::{Directory, KeySet};
use crate::domain::Scope;
use crate::gate::{
    Demand, Door as DoorKind, ForwardSettings, GateSettings, MethodRule, MethodSelector, Mode, RouteSettings,
    RouteTimeouts, Rules, RulesError, Snapshot, SourceSpan,
};
use crate::route::{PathPattern, PathRules, ReadsPaths, RuleRef};

/// What the table means under one configuration.
pub(super) struct Door {
    /// The configuration's own rules, which it was made from.
    pub(super) base: Arc<Rules>,
    snapshot: Mutex<Arc<Snapshot>>,
    /// By route, and by method within it.
    rows: Vec<Vec<&'static Row>>,
}

impl Door {
    /// Compiles the table beside a configuration.
    ///
    /// # Errors
    /// None that a test would not have found: the table is fixed.
    pub(super) fn compile(base: &Arc<Rules>) -> Result<Self, RulesError> {
        let mut rows: Vec<Vec<&'static Row>> = Vec::new();
        for row in TABLE {
            match rows.iter_mut().find(|rows| rows[0].path == row.path) {
                Some(same) => same.push(row),
                None => rows.push(vec![row]),
            }
        }
        let routes = rows.iter().map(|rows| route(rows, &base.settings)).collect::<Result<Vec<_>, _>>()?;
        let settings = GateSettings { routes, hide_routes: false, report_until: None, ..base.settings.clone() };
        let rules = Rules::compile(settings, &["portcullis"])?;
        let snapshot = Snapshot::join(Arc::new(rules), Arc::new(Directory::default()), None);
        Ok(Self { base: Arc::clone(base), snapshot: Mutex::new(Arc::new(snapshot)), rows })
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

    /// The endpoint that a rule stands for.
    pub(super) fn row(&self, rule: RuleRef) -> Option<&'static Row> {
        self.rows.get(rule.route.0 as usize)?.get(usize::from(rule.method)).copied()
    }
}

fn route(rows: &[&'static Row], base: &GateSettings) -> Result<RouteSettings, RulesError> {
    let path = rows[0].path;
    let source = || SourceSpan { file: "management API".into(), line: 0, column: 0 };
    let methods = rows
        .iter()
        .map(|row| MethodRule {
            selector: MethodSelector::Named(row.method.clone()),
            demand: match row.needs {
                Needs::Nothing => Demand::Public,
                Needs::AnyKey => Demand::AnyKey,
                Needs::Scope(scope) => Demand::Scopes { all: Vec::new(), any: scopes(satisfied_by(scope)) },
            },
            source: source(),
        })
        .collect();
    let unusable = || RulesError::UnknownUpstream { route: path.to_owned(), upstream: String::new() };
    Ok(RouteSettings {
        door: DoorKind::Management,
        label: path.to_owned(),
        name: None,
        hosts: Vec::new(),
        path: PathPattern::parse(path).map_err(|_| unusable())?,
        path_rules: PathRules::STRICT,
        reads_paths: ReadsPaths::Exactly,
        methods,
        accept: base.accept.clone(),
        forward_credential: false,
        mode: Mode::Enforce,
        environments: Vec::new(),
        allow_ips: Vec::<IpNet>::new(),
        publishable_unsafe_methods: false,
        rate_limit: None,
        cors: None,
        upstream: "portcullis".to_owned(),
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
