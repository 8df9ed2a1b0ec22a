//! What the decision is configured with: the catalogue of scopes, and for each route what it demands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;

use crate::credential::Place;
use crate::domain::key_text::Brand;
use crate::domain::{GrantedScope, KeyHasher, Quota, RateLimit, Scope, Timestamp};
pub use crate::route::MethodSelector;
use crate::route::{HostPattern, PathPattern, PathRules, ReadsPaths};

/// A place in a configuration file, for messages that say which rule decided.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct SourceSpan {
    /// The file as the operator named it.
    pub file: Arc<str>,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
}

impl std::fmt::Display for SourceSpan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// Everything `judge` decides by, before compilation.
#[derive(Debug, Clone)]
pub struct GateSettings {
    /// The first word of our own key texts.
    pub brand: Brand,
    /// How credentials are hashed.
    pub hasher: Arc<KeyHasher>,
    /// `realm` of challenges (RFC 9110 §11.5).
    pub realm: String,
    /// Where requests may carry the credential, for routes that say nothing and for `hide_routes`.
    pub accept: Vec<Place>,
    /// Peers whose forwarding fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether a client without a valid key gets 401 where no route matches, instead of 404 or 405.
    pub hide_routes: bool,
    /// Whether secret keys sent by browsers are refused.
    pub browser_guard: bool,
    /// How many wrong credentials may come from one client address before it is answered 429; none: any number.
    pub failures: Option<RateLimit>,
    /// Whether keys may hold scopes that neither the catalogue nor any route names.
    pub open_catalogue: bool,
    /// How often tunnels and long streams ask again whether their key still holds. Default 10 s.
    pub recheck_interval: Duration,
    /// The catalogue: every scope a route may demand, with its title.
    pub scopes: BTreeMap<Scope, ScopeEntry>,
    /// Named bundles of scopes.
    pub roles: BTreeMap<String, Vec<GrantedScope>>,
    /// Environments by name; `live` and `test` exist unless replaced.
    pub environments: BTreeMap<String, Environment>,
    /// How old the key set may be before the gateway stops deciding by it, where a route does not say otherwise. Default
    /// 24 h, then 503.
    pub staleness: Staleness,
    /// When the global report mode ends and refusals are enforced; none: it does not end.
    pub report_until: Option<Timestamp>,
    /// Whether report mode forwards requests whose key is known to be revoked, disabled or expired, too.
    pub report_known_bad: bool,
    /// Routes in file order; order never matters for precedence.
    pub routes: Vec<Arc<RouteSettings>>,
}

impl GateSettings {
    /// How long requests with keys may be let pass after the store last answered: the longest of any route. None: for ever,
    /// on one of them at least.
    pub fn longest_staleness(&self) -> Option<Duration> {
        let asks =
            |route: &&Arc<RouteSettings>| route.methods.iter().any(|rule| !matches!(rule.demand, Demand::Public));
        // What no route says holds for the management API as well.
        let bounds = self.routes.iter().filter(asks).map(|route| route.staleness).chain([self.staleness]);
        bounds.map(Staleness::longest).try_fold(Duration::ZERO, |most, one| one.map(|one| most.max(one)))
    }
}

/// A scope's place in the catalogue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScopeEntry {
    /// One line for people who choose scopes.
    pub title: String,
}

/// What happens to requests once the key set is older than `max_staleness`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnStale {
    /// 503 `auth_unavailable`.
    Deny,
    /// Decide by the old set.
    Serve,
}

/// How old the key set may be, and what happens to requests with keys once it is older.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Staleness {
    /// How old it may be.
    pub most: Duration,
    /// What happens then.
    pub then: OnStale,
}

impl Staleness {
    /// Whether keys are decided about by a set that was confirmed so long ago.
    pub fn bears(self, age: Duration) -> bool {
        match self.then {
            OnStale::Serve => true,
            OnStale::Deny => age <= self.most,
        }
    }

    /// How long requests may be let pass; none: for ever.
    const fn longest(self) -> Option<Duration> {
        match self.then {
            OnStale::Deny => Some(self.most),
            OnStale::Serve => None,
        }
    }

    /// What holds where both do.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        match (self.then, other.then) {
            (OnStale::Serve, _) => other,
            (OnStale::Deny, OnStale::Serve) => self,
            (OnStale::Deny, OnStale::Deny) if self.most <= other.most => self,
            (OnStale::Deny, OnStale::Deny) => other,
        }
    }
}

/// An environment keys live in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// The word in key texts.
    pub word: String,
    /// A key older than this is refused; none: keys do not age.
    pub max_key_age: Option<Duration>,
    /// Requests with keys of this environment go to this upstream instead of the route's.
    pub upstream: Option<String>,
    /// The rate of each of its keys; none: unlimited.
    pub rate_limit: Option<RateLimit>,
    /// The quota of each of its keys; none: unlimited.
    pub quota: Option<Quota>,
}

/// What happens to a refusal that is the client's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Mode {
    /// It is refused.
    Enforce,
    /// It goes on, is counted and logged, with its credential untouched and without identity.
    Report,
}

/// What a route, or one of its methods, demands. There is no default: absence never grants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Demand {
    /// `auth: none`: anyone.
    Public,
    /// `auth: any_key`: a valid key, whatever its scopes.
    AnyKey,
    /// `scopes: …`. `all` and `any` are not both empty.
    Scopes {
        /// Every one of these.
        all: Vec<Scope>,
        /// And, unless empty, at least one of these.
        any: Vec<Scope>,
    },
}

/// One method entry of a route.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MethodRule {
    /// Which methods.
    pub selector: MethodSelector,
    /// What they demand.
    pub demand: Demand,
    /// Where the entry stands.
    pub source: SourceSpan,
}

/// Which keys a route is for at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Door {
    /// The API behind the gateway: secret and publishable keys.
    Data,
    /// The gateway's own management API: management keys.
    Management,
}

/// One entry of `routes`.
#[derive(Debug, Clone)]
pub struct RouteSettings {
    /// Which keys it is for.
    pub door: Door,
    /// Label of metrics and logs: the configured `name` or `group`, else the pattern's text.
    pub label: String,
    /// The configured `name`.
    pub name: Option<String>,
    /// Hosts it answers for; empty: any.
    pub hosts: Vec<HostPattern>,
    /// The path pattern.
    pub path: PathPattern,
    /// How its paths are read.
    pub path_rules: PathRules,
    /// How the upstream reads paths.
    pub reads_paths: ReadsPaths,
    /// At least one entry; resolved so that every entry has a demand.
    pub methods: Vec<MethodRule>,
    /// Where its requests may carry the credential, in order. May be empty.
    pub accept: Vec<Place>,
    /// Whether the credential is left in the forwarded request.
    pub forward_credential: bool,
    /// Enforce or report.
    pub mode: Mode,
    /// The environments whose keys it serves; empty: all.
    pub environments: Vec<String>,
    /// Networks whose clients it serves; empty: all.
    pub allow_ips: Vec<IpNet>,
    /// How old the key set may be here.
    pub staleness: Staleness,
    /// Whether `publishable` keys may use methods that are not safe here (RFC 9110 §9.2.1).
    pub publishable_unsafe_methods: bool,
    /// How often it may be asked; none: unlimited.
    pub rate_limit: Option<RouteLimit>,
    /// Answers to preflights, and CORS headers on answers.
    pub cors: Option<Cors>,
    /// The name of the upstream.
    pub upstream: String,
    /// Set where that is the gateway's own management API, and to what.
    pub self_service: Option<SelfService>,
    /// How the request is changed on its way.
    pub forward: ForwardSettings,
    /// Where the route stands.
    pub source: SourceSpan,
}

/// The name that stands for the gateway's own management API where a route names its upstream.
pub const BUILT_IN_UPSTREAM: &str = "portcullis";

/// The management API behind a route: customers manage their own keys with keys of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SelfService {
    /// The application's names for scopes of the gateway: who holds the first may do what the second is for.
    pub map: BTreeMap<Scope, Vec<Scope>>,
}

impl SelfService {
    /// The application's names for any of these scopes of the gateway.
    pub fn names_for<'a>(&'a self, scopes: &'a [&str]) -> impl Iterator<Item = &'a Scope> {
        let stands_for = |own: &[Scope]| own.iter().any(|own| scopes.contains(&own.as_str()));
        self.map.iter().filter(move |(_, own)| stands_for(own)).map(|(name, _)| name)
    }
}

/// How often a route may be asked, and by whom it is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteLimit {
    /// The rate of each caller.
    pub limit: RateLimit,
    /// Who is one caller.
    pub by: LimitBy,
}

/// Who is one caller to a route's limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitBy {
    /// Each key, its successors by rotation included.
    Key,
    /// All keys of an owner together; a key without an owner by itself.
    Owner,
    /// Each client address, of IPv6 each /64; clients of a Unix socket together.
    Address,
}

/// How a route's requests are changed and bounded on their way to the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardSettings {
    /// Whole literal segments removed from the front of the path, without a trailing slash; `None`: nothing.
    pub strip_prefix: Option<String>,
    /// Put in front of the path after stripping, without a trailing slash; `None`: nothing.
    pub add_prefix: Option<String>,
    /// Fields set on the request, after everything else.
    pub set_headers: Vec<(HeaderName, HeaderValue)>,
    /// Fields removed from the request.
    pub remove_headers: Vec<HeaderName>,
    /// Largest request body in bytes; none: unbounded.
    pub max_body: Option<u64>,
    /// Protocols a client may upgrade to, in lower case. Default `websocket`.
    pub upgrade: Vec<String>,
    /// Bounds in time; each replaces the upstream's.
    pub timeouts: RouteTimeouts,
}

/// Bounds in time of one route; `None`: the upstream's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouteTimeouts {
    /// Opening a connection, TLS included.
    pub connect: Option<Duration>,
    /// From the request's last byte to the answer's head.
    pub first_byte: Option<Duration>,
    /// Between two pieces of a body in either direction.
    pub idle: Option<Duration>,
}

/// Cross-origin answers (Fetch standard, CORS protocol).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Allowed origins, exactly as browsers send them, or one `*`.
    pub origins: Vec<String>,
    /// Methods named to preflights; empty: the route's.
    pub methods: Vec<Method>,
    /// Request fields named to preflights.
    pub headers: Vec<HeaderName>,
    /// How long browsers may remember a preflight.
    pub max_age: Option<Duration>,
}

impl Cors {
    /// Whether pages of this origin may read answers.
    pub fn allows(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_bounds_on_the_age_of_the_key_set_the_stricter_holds() {
        let deny = |seconds| Staleness { most: Duration::from_secs(seconds), then: OnStale::Deny };
        let serve = Staleness { most: Duration::from_secs(1), then: OnStale::Serve };
        for (one, other, both) in
            [(deny(1), deny(9), deny(1)), (deny(9), serve, deny(9)), (serve, serve, serve), (deny(4), deny(4), deny(4))]
        {
            assert_eq!((one.stricter(other), other.stricter(one)), (both, both));
        }
        assert!(deny(5).bears(Duration::from_secs(5)) && !deny(5).bears(Duration::from_millis(5_001)));
        assert!(serve.bears(Duration::MAX));
    }
}
