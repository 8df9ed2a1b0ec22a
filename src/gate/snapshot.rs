//! Everything `judge` decides by, compiled: immutable, shared, swapped whole.
//!
//! [`Rules`] comes from the configuration, the directory from the key set; a [`Snapshot`] joins the two so that a
//! request never judges one generation's scopes by another's routes.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use http::{HeaderValue, Method};

use super::charge::{Allowance, RouteMeter};
use super::settings::{Demand, Door, Environment, GateSettings, RouteSettings};
use crate::authz::{self, Holding};
use crate::cache::{ChunkedTable, Directory, EnvIx, Profile, ProfileId};
use crate::domain::{Bounds, GrantedScope, Scope, ScopeIndex, ScopeSet};
use crate::limit::Gcra;
use crate::route::{
    ALL_METHODS, Access, Conflict, HostPattern, Lookup, MethodSelector, NormalizedPath, RouteEntry, RouteIx,
    RouteTable, RuleRef,
};

/// The configuration's half of a snapshot.
pub struct Rules {
    /// As configured.
    pub settings: GateSettings,
    /// Host, path and method to rule.
    pub table: RouteTable,
    /// By [`RouteIx`].
    pub routes: Vec<Route>,
    /// The scopes that routes demand.
    pub scopes: ScopeIndex,
    /// How many wrong credentials may come from an address.
    pub(super) failures: Option<Gcra>,
}

/// The number of the upstream that is the gateway itself.
const BUILT_IN: u32 = u32::MAX;

/// One route, compiled.
pub struct Route {
    /// As configured.
    pub settings: Arc<RouteSettings>,
    /// What each entry of `settings.methods` demands, in the same order.
    pub access: Vec<Access>,
    /// Number of the upstream in the order of names handed to [`Rules::compile`]; of self-service, a number that none
    /// has.
    pub upstream: u32,
    /// How often it may be asked; none: unlimited.
    pub meter: Option<RouteMeter>,
}

/// What a profile means under the rules of one snapshot.
pub struct Grant {
    /// The demanded scopes it covers.
    pub scopes: ScopeSet,
    /// All that was granted, space-separated, roles spelled out: the identity field's value.
    pub header: HeaderValue,
    /// What narrows the use of its keys.
    pub bounds: Bounds,
    /// What its keys may ask for, each for itself, where their records say so.
    pub allowance: Allowance,
}

/// What an environment means under the rules of one snapshot.
#[derive(Clone, Debug)]
pub struct EnvironmentRule {
    /// Its name.
    pub name: Arc<str>,
    /// The identity field's value.
    pub header: HeaderValue,
    /// As configured; none when the configuration knows no such environment.
    pub settings: Option<Environment>,
    /// What each of its keys may ask for unless its record says otherwise.
    pub allowance: Allowance,
}

impl EnvironmentRule {
    pub(super) fn new(name: &Arc<str>, rules: &Rules) -> Self {
        let settings = rules.settings.environments.get(name.as_ref()).cloned();
        let limits = settings.as_ref().map(|settings| Allowance::new(settings.rate_limit, settings.quota));
        Self {
            name: Arc::clone(name),
            header: HeaderValue::from_str(name).unwrap_or_else(|_| HeaderValue::from_static("")),
            settings,
            allowance: limits.unwrap_or_default(),
        }
    }
}

/// One consistent state of rules and key profiles.
pub struct Snapshot {
    /// The configuration's half.
    pub rules: Arc<Rules>,
    /// The key set's half: profiles, owners, environments.
    pub directory: Arc<Directory>,
    grants: ChunkedTable<Arc<Grant>>,
    /// The pages that publishable keys name.
    pages: Pages,
    environments: Vec<EnvironmentRule>,
}

/// Origins of the pages that publishable keys name; many share one set.
#[derive(Clone, Default)]
pub(super) struct Pages(Arc<HashSet<String>>);

impl Pages {
    fn add(&mut self, origins: &[String]) {
        let new: Vec<&String> = origins.iter().filter(|origin| !self.0.contains(*origin)).collect();
        if !new.is_empty() {
            Arc::make_mut(&mut self.0).extend(new.into_iter().cloned());
        }
    }

    /// Whether some key names the page with this origin.
    pub(super) fn have(&self, origin: &[u8]) -> bool {
        !self.0.is_empty() && std::str::from_utf8(origin).is_ok_and(|origin| self.0.contains(origin))
    }
}

/// Why rules cannot be compiled.
#[derive(Debug)]
pub enum RulesError {
    /// Two rules tie, or a pattern is not usable beside another.
    Table(Vec<Conflict>),
    /// A rule demands scopes and names none: absence never grants.
    EmptyDemand {
        /// The route's label.
        route: String,
    },
    /// A route names an upstream that does not exist.
    UnknownUpstream {
        /// The route's label.
        route: String,
        /// The name.
        upstream: String,
    },
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(conflicts) => write!(f, "{} rules are in conflict; run `portcullis check`", conflicts.len()),
            Self::EmptyDemand { route } => write!(f, "route {route}: a rule demands scopes and names none"),
            Self::UnknownUpstream { route, upstream } => write!(f, "route {route}: there is no upstream {upstream:?}"),
        }
    }
}

impl std::error::Error for RulesError {}

impl Rules {
    /// Compiles a configuration. `upstreams` gives each name its number.
    ///
    /// # Errors
    /// What `check` would have reported.
    pub fn compile(settings: GateSettings, upstreams: &[&str]) -> Result<Self, RulesError> {
        let mut scopes = ScopeIndex::default();
        let mut routes = Vec::with_capacity(settings.routes.len());
        let mut entries = Vec::with_capacity(settings.routes.len());
        for (number, route) in settings.routes.iter().enumerate() {
            let position = match route.self_service {
                Some(_) => Some(BUILT_IN),
                None => {
                    let position = upstreams.iter().position(|name| *name == route.upstream);
                    position.and_then(|at| u32::try_from(at).ok())
                }
            };
            let upstream = position.ok_or_else(|| RulesError::UnknownUpstream {
                route: route.label.clone(),
                upstream: route.upstream.clone(),
            })?;
            let is_empty =
                |demand: &Demand| matches!(demand, Demand::Scopes { all, any } if all.is_empty() && any.is_empty());
            if route.methods.iter().any(|method| is_empty(&method.demand)) {
                return Err(RulesError::EmptyDemand { route: route.label.clone() });
            }
            let access = route.methods.iter().map(|method| access_of(&method.demand, &mut scopes)).collect();
            entries.push(RouteEntry {
                route: RouteIx(u32::try_from(number).unwrap_or(u32::MAX)),
                hosts: route.hosts.clone(),
                path: route.path.clone(),
                methods: route.methods.iter().map(|method| method.selector.clone()).collect(),
                path_rules: route.path_rules,
                reads_paths: route.reads_paths,
                upstream,
            });
            routes.push(Route { settings: Arc::clone(route), access, upstream, meter: RouteMeter::of(route) });
        }
        let table = RouteTable::build(entries).map_err(RulesError::Table)?;
        let failures = settings.failures.map(Gcra::new);
        Ok(Self { settings, table, routes, scopes, failures })
    }

    /// The route with this number.
    pub fn route(&self, ix: RouteIx) -> &Route {
        &self.routes[ix.0 as usize]
    }

    /// What a rule demands.
    pub fn access(&self, rule: RuleRef) -> &Access {
        &self.route(rule.route).access[usize::from(rule.method)]
    }

    /// Whether a rule takes keys, and publishable ones among them.
    pub(super) fn takes_publishable_keys(&self, rule: RuleRef, method: &Method) -> bool {
        let settings = &self.route(rule.route).settings;
        !matches!(self.access(rule), Access::Public)
            && settings.door == Door::Data
            && (method.is_safe() || settings.publishable_unsafe_methods)
    }

    /// What a key of this profile holds under these rules.
    pub(super) fn grant(&self, profile: &Profile) -> Arc<Grant> {
        let Profile { scopes, roles, bounds } = profile;
        let of_roles = roles.iter().filter_map(|role| self.settings.roles.get(role)).flatten();
        let mut granted: Vec<&GrantedScope> = scopes.iter().chain(of_roles).collect();
        let covered = self.scopes.covered_by(granted.iter().copied());
        granted.sort();
        granted.dedup();
        let text: Vec<&str> = granted.iter().map(|scope| scope.as_str()).collect();
        let header = HeaderValue::from_str(&text.join(" ")).unwrap_or_else(|_| HeaderValue::from_static(""));
        let allowance = Allowance::new(bounds.rate_limit, bounds.quota);
        Arc::new(Grant { scopes: covered, header, bounds: bounds.clone(), allowance })
    }
}

/// A request that stands for a rule.
#[derive(PartialEq, Eq)]
struct Sample {
    host: String,
    path: String,
    method: Method,
}

impl Rules {
    /// Requests that each rule would answer if there were no better one.
    fn samples(&self) -> impl Iterator<Item = Sample> {
        self.routes.iter().flat_map(|route| {
            let settings = &route.settings;
            let hosts = match settings.hosts.as_slice() {
                [] => vec![String::new()],
                hosts => hosts.iter().map(HostPattern::sample).collect(),
            };
            let methods = settings.methods.iter().flat_map(|rule| match &rule.selector {
                MethodSelector::Named(method) => vec![method.clone()],
                MethodSelector::All => ALL_METHODS.to_vec(),
            });
            let methods: Vec<Method> = methods.collect();
            let mut samples = Vec::new();
            for host in hosts {
                for path in settings.path.samples() {
                    let sample =
                        |method: &Method| Sample { host: host.clone(), path: path.clone(), method: method.clone() };
                    samples.extend(methods.iter().map(sample));
                }
            }
            samples
        })
    }

    /// The rule that decides a request.
    fn decides(&self, sample: &Sample) -> Option<RuleRef> {
        let path = NormalizedPath::parse(&sample.path).ok()?;
        match self.table.find(&sample.host, &sample.method, &path) {
            Lookup::Found(found) => Some(found.rule),
            Lookup::NotFound | Lookup::MethodNotAllowed { .. } | Lookup::BadPath(_) => None,
        }
    }
}

fn access_of(demand: &Demand, index: &mut ScopeIndex) -> Access {
    let mut set = |scopes: &[Scope]| {
        let mut set = ScopeSet::default();
        scopes.iter().for_each(|scope| set.insert(index.intern(scope)));
        set
    };
    match demand {
        Demand::Public => Access::Public,
        Demand::AnyKey => Access::AnyKey,
        Demand::Scopes { all, any } => Access::Scopes { all: set(all), any: set(any) },
    }
}

impl Snapshot {
    /// Joins rules and directory. O(profiles × demanded scopes) unless `previous` already knew the profiles under the
    /// same rules: then only the new ones are compiled.
    pub fn join(rules: Arc<Rules>, directory: Arc<Directory>, previous: Option<&Self>) -> Self {
        let reusable = previous.filter(|before| Arc::ptr_eq(&before.rules, &rules));
        let mut grants = reusable.map_or_else(ChunkedTable::default, |before| before.grants.clone());
        let mut pages = reusable.map_or_else(Pages::default, |before| before.pages.clone());
        for profile in directory.profiles().iter_from(grants.len()) {
            grants.push(rules.grant(profile));
            pages.add(&profile.bounds.allowed_origins);
        }
        let environments = directory.environments().iter().map(|name| EnvironmentRule::new(name, &rules)).collect();
        Self { rules, directory, grants, pages, environments }
    }

    /// What the profile means; none when the key is newer than this snapshot.
    pub fn grant(&self, profile: ProfileId) -> Option<&Grant> {
        self.grants.get(profile.index()).map(AsRef::as_ref)
    }

    /// Profiles that pass a rule of this snapshot on some request, and would not pass the rule that decides the same
    /// request in `next`, where there may be none. A request stands for each rule of either: what a new rule takes over
    /// from a wider one is seen, and so is what falls back to a wider one.
    /// O(profiles × rules): for dry runs, off the request path.
    pub fn profiles_losing_access(&self, next: &Self) -> HashSet<ProfileId> {
        let passes = |snapshot: &Self, access: &Access, profile: ProfileId| {
            snapshot.grant(profile).is_some_and(|grant| authz::decide(access, Holding::Key(&grant.scopes)).is_ok())
        };
        let mut samples: Vec<Sample> = self.rules.samples().chain(next.rules.samples()).collect();
        samples
            .sort_unstable_by(|a, b| (&a.host, &a.path, a.method.as_str()).cmp(&(&b.host, &b.path, b.method.as_str())));
        samples.dedup();
        let mut losing = HashSet::new();
        let mut compared = HashSet::new();
        for sample in samples {
            let Some(before) = self.rules.decides(&sample) else { continue };
            let after = next.rules.decides(&sample);
            if !compared.insert((before, after)) {
                continue;
            }
            let (before, after) = (self.rules.access(before), after.map(|rule| next.rules.access(rule)));
            for profile in self.directory.profile_ids() {
                if passes(self, before, profile) && !after.is_some_and(|access| passes(next, access, profile)) {
                    losing.insert(profile);
                }
            }
        }
        losing
    }

    /// Whether the page with this origin may learn what a rule answers to a publishable key: some such key names the page,
    /// and publishable keys may ask for this at all. Which key it is, and whether it names the page, is judged when it asks.
    pub fn page_may_ask(&self, origin: &[u8], rule: RuleRef, method: &Method) -> bool {
        self.pages.have(origin) && self.rules.takes_publishable_keys(rule, method)
    }

    pub(super) const fn pages(&self) -> &Pages {
        &self.pages
    }

    /// What the environment means; none when the key is newer than this snapshot.
    pub fn environment(&self, ix: EnvIx) -> Option<&EnvironmentRule> {
        self.environments.get(ix.index())
    }
}
