//! THE decision, pure: no clock, no I/O, no lock held, no allocation that grows with keys or routes.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderName, Method};
use ipnet::IpNet;
use smallvec::SmallVec;

use super::denial::Denial;
use super::settings::{Door, GateSettings, Mode, Staleness};
use super::snapshot::{EnvironmentRule, Pages, Route, Rules, Snapshot};
use crate::authn::{self, Attempt, Authenticated, Evidence, Rejection};
use crate::authz::{self, Authorized, Holding, Lacking};
use crate::cache::{KeySet, KeySlot};
use crate::credential::{self, Place};
use crate::domain::{Bounds, Fields, KeyKind, Known, PresentedKey, Scope, ScopeSet, Timestamp};
use crate::route::{Access, Lookup, NormalizedPath, RouteIx, RuleRef};

/// What the decision sees of a request. Everything is borrowed; nothing of it was decided yet.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method as it came.
    pub method: &'a Method,
    /// Host without regard to port; empty where HTTP/1.0 sent none.
    pub host: &'a str,
    /// The target's path, as it came.
    pub path: &'a str,
    /// The target's query, as it came.
    pub query: Option<&'a str>,
    /// All fields.
    pub fields: Fields<'a>,
    /// The client, after trusted proxies; none over a Unix socket.
    pub client: Option<IpAddr>,
    /// Whether the request asks for an upgrade in a way that can be granted.
    pub is_upgrade: bool,
}

/// How fresh the key set is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Freshness {
    /// Nothing was loaded yet.
    Unloaded,
    /// It was confirmed so long ago, by the monotonic clock: a wall clock that jumps makes nothing stale.
    Confirmed(Duration),
}

/// The key set as one request sees it.
#[derive(Clone, Copy)]
pub struct Keys<'a> {
    /// Hash to slot.
    pub set: &'a KeySet,
    /// When it was last known to be current.
    pub freshness: Freshness,
}

/// Who the request turned out to come from.
#[derive(Clone, Debug)]
pub enum Caller {
    /// No credential was looked at, or none was there.
    Anonymous,
    /// A proven key.
    Key(Authenticated),
    /// A key that is known and not accepted; for the log alone.
    Refused(KeySlot),
}

impl Caller {
    /// The key set's record of the key, whether it was accepted or not.
    pub const fn slot(&self) -> Option<&KeySlot> {
        match self {
            Self::Anonymous => None,
            Self::Key(authenticated) => Some(authenticated.slot()),
            Self::Refused(slot) => Some(slot),
        }
    }
}

/// What was decided.
#[derive(Debug)]
pub enum Outcome {
    /// The demand is met. `gate::admit` turns it into an admission.
    Pass(Authorized),
    /// It is refused.
    Deny(Denial),
    /// Report mode: it would have been refused, and goes on without identity.
    Report(Denial),
    /// A preflight that the route's `cors` answers (Fetch standard).
    Preflight,
}

/// One decision, with everything that the answer, the forwarding and the log need.
#[derive(Debug)]
pub struct Verdict<'a> {
    /// The rule that decides, when host, path and method have one. Of a preflight that is answered for the sake of a
    /// publishable key, the rule of the request that it announces.
    pub rule: Option<RuleRef>,
    /// The route, when host and path have one (also for 405).
    pub route: Option<RouteIx>,
    /// Rules for other readings of the path, every one of which lets the request in too.
    pub also: SmallVec<[RuleRef; 4]>,
    /// Whether all of these rules only report what they would refuse.
    pub reports: bool,
    /// The path to forward, byte for byte; the path as it came where it has no reading.
    pub path: Cow<'a, str>,
    /// Who asks.
    pub caller: Caller,
    /// Yes or no.
    pub outcome: Outcome,
}

/// The snapshot is older than a key that was found: load the current one and judge again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotOutdated;

/// Methods that this gateway never forwards (contract §2).
const NEVER: [Method; 2] = [Method::CONNECT, Method::TRACE];

/// Decides one request.
///
/// # Errors
/// [`SnapshotOutdated`] in the moment between a key's arrival in the map and the snapshot that knows its profile.
pub fn judge<'a>(
    head: &RequestHead<'a>,
    snapshot: &Snapshot,
    keys: Keys<'_>,
    now: Timestamp,
) -> Result<Verdict<'a>, SnapshotOutdated> {
    decide(head, &snapshot.rules, snapshot.pages(), now, |place| present(head, place, snapshot, keys, now))
}

/// Where somebody presents themselves.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    /// The places that are looked into.
    pub(super) accept: &'a [Place],
    /// How old the key set may be there.
    pub(super) staleness: Staleness,
}

impl<'a> At<'a> {
    /// No route in particular.
    const fn anywhere(settings: &'a GateSettings) -> Self {
        Self { accept: settings.accept.as_slice(), staleness: settings.staleness }
    }
}

/// Who presents themselves in the places a rule accepts. Live traffic looks into the request; an explanation supposes.
pub(super) struct Presented<'s> {
    /// Who it turned out to be.
    pub(super) caller: Caller,
    /// What they bring to the rule, or why they are not heard.
    pub(super) standing: Result<Standing<'s>, Denial>,
}

/// What an accepted key brings to a rule.
#[derive(Clone, Copy)]
pub(super) struct Standing<'s> {
    pub(super) kind: KeyKind,
    pub(super) environment: &'s EnvironmentRule,
    pub(super) scopes: &'s ScopeSet,
    pub(super) bounds: &'s Bounds,
}

/// The decision itself, whoever says who calls.
pub(super) fn decide<'a, 's>(
    head: &RequestHead<'a>,
    rules: &Rules,
    pages: &Pages,
    now: Timestamp,
    present: impl Fn(At<'_>) -> Result<Presented<'s>, SnapshotOutdated>,
) -> Result<Verdict<'a>, SnapshotOutdated> {
    let unrouted = |denial: Denial| Verdict {
        rule: None,
        route: None,
        also: SmallVec::new(),
        reports: false,
        path: Cow::Borrowed(head.path),
        caller: Caller::Anonymous,
        outcome: Outcome::Deny(denial),
    };
    if NEVER.contains(head.method) {
        return Ok(unrouted(Denial::MethodNotAllowed { allow: Vec::new() }));
    }
    let path = match NormalizedPath::parse(head.path) {
        Ok(path) => path,
        Err(bad) => return Ok(unrouted(Denial::BadPath { detail: bad.detail() })),
    };
    if let Some(verdict) = preflight(head, rules, pages, &path) {
        return Ok(verdict);
    }
    let found = match rules.table.find(head.host, head.method, &path) {
        Lookup::Found(found) => found,
        Lookup::BadPath(bad) => return Ok(unrouted(Denial::BadPath { detail: bad.detail() })),
        Lookup::NotFound => return Ok(unrouted(hidden_or(Denial::NoRoute, rules, present)?)),
        Lookup::MethodNotAllowed { route, allow } => {
            let refusal = Denial::MethodNotAllowed { allow: allow.methods().to_vec() };
            let denial = hidden_or(refusal, rules, present)?;
            // A hidden route leaves no trace in the answer: neither its challenges nor its `cors`.
            let route = matches!(denial, Denial::MethodNotAllowed { .. }).then_some(route);
            return Ok(Verdict { route, ..unrouted(denial) });
        }
    };
    let route = rules.route(found.rule.route);
    let settings = &rules.settings;
    // A rule that enforces is not relaxed because another spelling of its path is only reported.
    let only_reports = |rule: &RuleRef| rules.route(rule.route).settings.mode == Mode::Report;
    let reports = only_reports(&found.rule)
        && found.also.iter().all(only_reports)
        && settings.report_until.is_none_or(|until| now < until);
    let mut verdict = Verdict {
        rule: Some(found.rule),
        route: Some(found.rule.route),
        also: found.also,
        reports,
        path: if found.path == head.path { Cow::Borrowed(head.path) } else { Cow::Owned(found.path.into_owned()) },
        caller: Caller::Anonymous,
        outcome: Outcome::Deny(Denial::AuthUnavailable),
    };
    let (caller, decided) = admit_caller(head, rules, route, found.rule, &verdict.also, &present)?;
    verdict.caller = caller;
    verdict.outcome = match decided {
        Ok(authorized) => Outcome::Pass(authorized),
        Err(denial) if reports && denial.is_reportable(settings.report_known_bad) => Outcome::Report(denial),
        Err(denial) => Outcome::Deny(as_if_absent(denial, rules, &present)?),
    };
    Ok(verdict)
}

/// Who calls, and whether the rule and its other readings let them.
fn admit_caller<'s>(
    head: &RequestHead<'_>,
    rules: &Rules,
    route: &Route,
    rule: RuleRef,
    also: &[RuleRef],
    present: impl Fn(At<'_>) -> Result<Presented<'s>, SnapshotOutdated>,
) -> Result<(Caller, Result<Authorized, Denial>), SnapshotOutdated> {
    let access = rules.access(rule);
    let is_public = |access: &Access| matches!(access, Access::Public);
    if is_public(access) {
        // Other readings of the path must be public too, and for this address: nobody was asked for a key.
        let alike =
            also.iter().all(|other| is_public(rules.access(*other)) && address_allowed(head, rules.route(other.route)));
        let decided = match authz::decide(access, Holding::Nobody) {
            Ok(authorized) if alike && address_allowed(head, route) => Ok(authorized),
            Ok(_) if !alike => Err(Denial::BadPath { detail: AMBIGUOUS }),
            Ok(_) | Err(_) => Err(Denial::IpNotAllowed),
        };
        return Ok((Caller::Anonymous, decided));
    }
    // A route that bears an older set is not reached by another spelling of one that does not.
    let routes = also.iter().map(|other| rules.route(other.route));
    let staleness = routes.fold(route.settings.staleness, |least, route| least.stricter(route.settings.staleness));
    let Presented { caller, standing } = present(At { accept: &route.settings.accept, staleness })?;
    let decided = standing.and_then(|standing| {
        guards(head, standing, route, rules.settings.browser_guard)?;
        let holding = Holding::Key(standing.scopes);
        let authorized = authz::decide(access, holding).map_err(|lacking| insufficient(rules, access, lacking))?;
        let every_reading = also.iter().all(|other| {
            authz::decide(rules.access(*other), holding).is_ok()
                && guards(head, standing, rules.route(other.route), false).is_ok()
        });
        if every_reading { Ok(authorized) } else { Err(Denial::BadPath { detail: AMBIGUOUS }) }
    });
    Ok((caller, decided))
}

/// Looks for a credential in the request, and for its key in the set.
fn present<'s>(
    head: &RequestHead<'_>,
    At { accept, staleness }: At<'_>,
    snapshot: &'s Snapshot,
    keys: Keys<'_>,
    now: Timestamp,
) -> Result<Presented<'s>, SnapshotOutdated> {
    let unheard = |caller, denial| Ok(Presented { caller, standing: Err(denial) });
    if !is_fresh(staleness, keys.freshness) {
        return unheard(Caller::Anonymous, Denial::AuthUnavailable);
    }
    let located = credential::locate(head.fields, head.query, accept);
    let authenticated = match authn::attempt(&located, snapshot.evidence(keys.set), now) {
        Attempt::Verified(authenticated) => authenticated,
        Attempt::NotPresented => return unheard(Caller::Anonymous, Denial::MissingCredential),
        Attempt::Malformed(why) => return unheard(Caller::Anonymous, Denial::InvalidRequest(why)),
        Attempt::Rejected(rejection, slot) => {
            return unheard(slot.map_or(Caller::Anonymous, Caller::Refused), Denial::InvalidKey(rejection));
        }
    };
    let slot = authenticated.slot();
    let grant = snapshot.grant(slot.profile).ok_or(SnapshotOutdated)?;
    let environment = snapshot.environment(slot.environment).ok_or(SnapshotOutdated)?;
    let standing = Standing { kind: slot.kind, environment, scopes: &grant.scopes, bounds: &grant.bounds };
    Ok(Presented { caller: Caller::Key(authenticated), standing: Ok(standing) })
}

const AMBIGUOUS: &str = "Servers read this path in different ways, and not every reading is allowed.";

/// Kind, environment, address, browser: in the contract's order.
fn guards(head: &RequestHead<'_>, standing: Standing<'_>, route: &Route, browser_guard: bool) -> Result<(), Denial> {
    let settings = &route.settings;
    let Standing { kind, environment, scopes: _, bounds } = standing;
    let kind_fits = match (settings.door, kind) {
        (Door::Data, KeyKind::Secret) | (Door::Management, KeyKind::Management) => true,
        (Door::Data, KeyKind::Publishable) => head.method.is_safe() || settings.publishable_unsafe_methods,
        (Door::Data, KeyKind::Management) | (Door::Management, KeyKind::Secret | KeyKind::Publishable) => false,
    };
    if !kind_fits {
        return Err(Denial::KindNotAllowed);
    }
    let served = settings.environments.is_empty() || settings.environments.iter().any(|e| **e == *environment.name);
    if environment.settings.is_none() || !served {
        return Err(Denial::EnvironmentNotAllowed);
    }
    if !address_allowed(head, route) || !is_within(&bounds.allowed_ips, head.client) {
        return Err(Denial::IpNotAllowed);
    }
    if !origin_allowed(head, &bounds.allowed_origins) {
        return Err(Denial::OriginNotAllowed);
    }
    if browser_guard && kind == KeyKind::Secret && is_from_browser(head.fields, head.is_upgrade) {
        return Err(Denial::SecretKeyInBrowser);
    }
    Ok(())
}

fn address_allowed(head: &RequestHead<'_>, route: &Route) -> bool {
    is_within(&route.settings.allow_ips, head.client)
}

/// Whether a client is in one of some networks; where there are none, everybody is.
fn is_within(allowed: &[IpNet], client: Option<IpAddr>) -> bool {
    allowed.is_empty() || client.is_some_and(|client| allowed.iter().any(|net| net.contains(&client)))
}

/// Whether the page that sends a request is one of those that a key names. Browsers send no `Origin` with a GET to the
/// page's own site, and say so otherwise (Fetch Metadata Request Headers §2.2); then the page is where the request goes.
/// Any other request without `Origin` comes from no page that could be told from others, so it is none of them.
fn origin_allowed(head: &RequestHead<'_>, allowed: &[String]) -> bool {
    let site = HeaderName::from_static("sec-fetch-site");
    if allowed.is_empty() {
        return true;
    }
    match head.fields.single(Known::Origin) {
        Ok(Some(origin)) => allowed.iter().any(|known| known.as_bytes() == origin),
        Ok(None) if head.fields.has(Known::SecFetch) => {
            let mut sites = head.fields.named(&site);
            let is_own = sites.next() == Some(b"same-origin") && sites.next().is_none();
            let is_here = |known: &String| known.split_once("://").is_some_and(|(_, host)| host == head.host);
            is_own && allowed.iter().any(is_here)
        }
        Ok(None) | Err(_) => false,
    }
}

/// Any `Sec-Fetch-*` field (Fetch Metadata Request Headers §2), or an `Origin` on a request that is no upgrade.
pub fn is_from_browser(fields: Fields<'_>, is_upgrade: bool) -> bool {
    fields.has(Known::SecFetch) || (!is_upgrade && fields.has(Known::Origin))
}

fn insufficient(rules: &Rules, access: &Access, lacking: Lacking) -> Denial {
    let names = |set: &ScopeSet| -> Vec<Scope> { rules.scopes.names_of(set).cloned().collect() };
    match (lacking, access) {
        (Lacking::Scopes(missing), Access::Scopes { all, any }) => {
            Denial::InsufficientScope { required: names(&all.union(any)), missing: names(&missing) }
        }
        (Lacking::Scopes(_) | Lacking::Key, Access::Public | Access::AnyKey | Access::Scopes { .. }) => {
            Denial::MissingCredential
        }
    }
}

fn is_fresh(staleness: Staleness, freshness: Freshness) -> bool {
    match freshness {
        Freshness::Unloaded => false,
        Freshness::Confirmed(ago) => staleness.bears(ago),
    }
}

/// `auth.hide_routes`: a route that accepts credentials in places of its own answers a client that it does not know
/// with what the client would hear where there is no route.
fn as_if_absent<'s>(
    denial: Denial,
    rules: &Rules,
    present: impl Fn(At<'_>) -> Result<Presented<'s>, SnapshotOutdated>,
) -> Result<Denial, SnapshotOutdated> {
    if denial.concerns_credential() { hidden_or(denial, rules, present) } else { Ok(denial) }
}

/// `auth.hide_routes`: nobody without a valid key learns what exists.
fn hidden_or<'s>(
    denial: Denial,
    rules: &Rules,
    present: impl Fn(At<'_>) -> Result<Presented<'s>, SnapshotOutdated>,
) -> Result<Denial, SnapshotOutdated> {
    if !rules.settings.hide_routes {
        return Ok(denial);
    }
    Ok(present(At::anywhere(&rules.settings))?.standing.err().unwrap_or(denial))
}

/// Whether the key that was admitted, where the key set may be this old, still holds: asked by tunnels and long streams.
pub fn still_holds(
    authenticated: &Authenticated,
    staleness: Staleness,
    snapshot: &Snapshot,
    keys: Keys<'_>,
    now: Timestamp,
) -> bool {
    is_fresh(staleness, keys.freshness) && authn::still_holds(authenticated, snapshot.evidence(keys.set), now)
}

/// What a key that somebody shows is, and why it is not accepted, if it is not: for those who ask about keys of others.
pub fn examine(
    key: &PresentedKey<'_>,
    snapshot: &Snapshot,
    set: &KeySet,
    now: Timestamp,
) -> (Option<KeySlot>, Option<Rejection>) {
    match authn::examine(key, snapshot.evidence(set), now) {
        Attempt::Verified(authenticated) => (Some(*authenticated.slot()), None),
        Attempt::Rejected(rejection, slot) => (slot, Some(rejection)),
        Attempt::NotPresented | Attempt::Malformed(_) => (None, Some(Rejection::Unknown)),
    }
}

/// `OPTIONS` with `Origin` and `Access-Control-Request-Method` on a route with `cors`, or from a page that a publishable
/// key names: answered before authentication, since browsers send no credential along.
fn preflight<'a>(
    head: &RequestHead<'a>,
    rules: &Rules,
    pages: &Pages,
    path: &NormalizedPath<'_>,
) -> Option<Verdict<'a>> {
    if *head.method != Method::OPTIONS || !head.fields.has(Known::Origin) {
        return None;
    }
    let requested = Method::from_bytes(head.fields.first(Known::AccessControlRequestMethod)?).ok()?;
    let (route, rule) = match rules.table.find(head.host, &requested, path) {
        Lookup::Found(found) => (found.rule.route, Some(found.rule)),
        Lookup::MethodNotAllowed { route, .. } => (route, None),
        Lookup::NotFound | Lookup::BadPath(_) => return None,
    };
    let origin = head.fields.first(Known::Origin)?;
    // Who asks for a page has shown no key: a hidden route is like none to them.
    let of_a_key = rule.filter(|rule| {
        !rules.settings.hide_routes && pages.have(origin) && rules.takes_publishable_keys(*rule, &requested)
    });
    match &rules.route(route).settings.cors {
        // To origins that are not allowed, a hidden route is like none.
        Some(cors) if rules.settings.hide_routes && !cors.allows(origin) => return None,
        None if of_a_key.is_none() => return None,
        Some(_) | None => {}
    }
    Some(Verdict {
        rule: of_a_key,
        route: Some(route),
        also: SmallVec::new(),
        reports: false,
        path: Cow::Borrowed(head.path),
        caller: Caller::Anonymous,
        outcome: Outcome::Preflight,
    })
}

impl Snapshot {
    fn evidence<'a>(&'a self, keys: &'a KeySet) -> Evidence<'a> {
        Evidence {
            brand: &self.rules.settings.brand,
            hasher: &self.rules.settings.hasher,
            keys,
            directory: &self.directory,
            ages: self,
        }
    }
}

impl authn::MaxAge for Snapshot {
    fn max_age(&self, slot: &KeySlot) -> Option<Duration> {
        self.environment(slot.environment)?.settings.as_ref()?.max_key_age
    }
}
