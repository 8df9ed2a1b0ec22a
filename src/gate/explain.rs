//! Why a request is answered as it is: the decision of live traffic, asked with a caller who is only supposed.
//!
//! Owns the supposition and the account of the decision. An [`Explanation`] holds no proof: nothing can be forwarded
//! with it. Must not know how either is shown.

use std::sync::Arc;

use super::denial::Denial;
use super::judge::{Caller, Outcome, Presented, RequestHead, SnapshotOutdated, Standing, decide};
use super::settings::RouteLimit;
use super::snapshot::{EnvironmentRule, Grant, Pages, Rules};
use crate::authn::{Blemishes, Rejection};
use crate::authz::{self, Holding, Lacking};
use crate::cache::Profile;
use crate::domain::{KeyKind, KeyRecord, Quota, RateLimit, Scope, ScopeSet, Timestamp};
use crate::route::{Access, Lookup, NormalizedPath, RouteIx, RuleRef};

/// Who is supposed to call.
#[derive(Clone, Debug)]
pub enum SupposedCaller {
    /// Somebody without a credential.
    Nobody,
    /// Somebody with this key, in the first place the route accepts.
    Key(SupposedKey),
}

/// A key as far as decisions go. It need not exist.
#[derive(Clone, Debug)]
pub struct SupposedKey {
    /// What it may be used for.
    pub kind: KeyKind,
    /// The name of its environment.
    pub environment: Arc<str>,
    /// Scopes and roles it holds, and what narrows its use.
    pub profile: Profile,
    /// Why it is not accepted, whatever it holds.
    pub rejection: Option<Rejection>,
}

impl SupposedKey {
    /// The key of a record, as it stands at `now`.
    pub fn of_record(record: &KeyRecord, owner_suspended: bool, rules: &Rules, now: Timestamp) -> Self {
        let environment = rules.settings.environments.get(&record.environment);
        let max_age = environment.and_then(|environment| environment.max_key_age);
        let too_old = max_age.is_some_and(|age| record.created_at.plus(age) <= now);
        let blemishes = Blemishes {
            revoked: record.revoked_at.is_some(),
            disabled: !record.active,
            expired: too_old || record.dies_at().is_some_and(|moment| moment <= now),
            owner_suspended,
        };
        Self {
            kind: record.kind,
            environment: record.environment.as_str().into(),
            profile: Profile::of(record),
            rejection: blemishes.rejection(),
        }
    }
}

/// What the client would see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The request is forwarded.
    Forward,
    /// The preflight is answered.
    Preflight,
    /// It is refused.
    Refuse(Denial),
    /// Report mode: it would be refused, and is forwarded without identity.
    Report(Denial),
}

/// How a decision came about.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The rule that decides, when host, path and method have one.
    pub rule: Option<RuleRef>,
    /// The route, when host and path have one (also for 405).
    pub route: Option<RouteIx>,
    /// Rules for other readings of the path, every one of which must let the request in too.
    pub also: Vec<RuleRef>,
    /// Other rules that the request matches, the next best first.
    pub beaten: Vec<RuleRef>,
    /// The path as it is matched and forwarded; as it came where it has no one meaning.
    pub path: String,
    /// Scopes that the rule demands.
    pub required: Vec<Scope>,
    /// Those of them that the caller holds.
    pub held: Vec<Scope>,
    /// Those of them that the caller lacks; of an `any` demand that is not met, every alternative.
    pub missing: Vec<Scope>,
    /// Limits that count the request and have to allow it, save those of its owner; none unless it is forwarded.
    pub limits: Vec<AppliedLimit>,
    /// What the client would see.
    pub answer: Answer,
}

/// A limit that applies to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppliedLimit {
    /// The rate of the key.
    KeyRate(RateLimit),
    /// The quota of the key.
    KeyQuota(Quota),
    /// The rate of a route.
    RouteRate(RouteLimit),
}

/// Explains one request, as decided for a supposed caller. Credentials in its head are not looked at.
///
/// O(routes), allocates: for people and tests, not for traffic.
pub fn explain(head: &RequestHead<'_>, rules: &Rules, caller: &SupposedCaller, now: Timestamp) -> Explanation {
    let supposed = Supposed::new(caller, rules);
    // A supposition is as current as the rules it is held against, so the one error cannot occur.
    let decided = decide(head, rules, &Pages::default(), now, |at| {
        Ok::<_, SnapshotOutdated>(supposed.present(at.accept.is_empty()))
    });
    let (rule, route, path, answer) = match decided {
        Ok(verdict) => (verdict.rule, verdict.route, verdict.path.into_owned(), answer_of(verdict.outcome)),
        Err(SnapshotOutdated) => (None, None, head.path.to_owned(), Answer::Refuse(Denial::AuthUnavailable)),
    };
    let normal = NormalizedPath::parse(head.path).ok();
    let matching = normal.as_ref().map(|path| rules.table.matching(head.host, head.method, path)).unwrap_or_default();
    let also = match normal.as_ref().map(|path| rules.table.find(head.host, head.method, path)) {
        Some(Lookup::Found(found)) => found.also.to_vec(),
        Some(Lookup::NotFound | Lookup::MethodNotAllowed { .. } | Lookup::BadPath(_)) | None => Vec::new(),
    };
    let scopes = rule.map(|rule| Demanded::of(rules.access(rule), &supposed.scopes())).unwrap_or_default();
    let names = |set: &ScopeSet| rules.scopes.names_of(set).cloned().collect();
    let mut limits = Vec::new();
    if answer == Answer::Forward {
        let is_public = rule.is_some_and(|rule| matches!(rules.access(rule), Access::Public));
        limits.extend(supposed.limits().filter(|_| !is_public));
        let routes = rule.iter().chain(&also).filter_map(|rule| rules.route(rule.route).settings.rate_limit);
        limits.extend(routes.map(AppliedLimit::RouteRate));
    }
    Explanation {
        limits,
        rule,
        route,
        also,
        beaten: matching.into_iter().filter(|other| Some(*other) != rule).collect(),
        path,
        required: names(&scopes.required),
        held: names(&scopes.held),
        missing: names(&scopes.missing),
        answer,
    }
}

fn answer_of(outcome: Outcome) -> Answer {
    match outcome {
        // The proof ends here: an explanation admits nobody.
        Outcome::Pass(_) => Answer::Forward,
        Outcome::Preflight => Answer::Preflight,
        Outcome::Deny(denial) => Answer::Refuse(denial),
        Outcome::Report(denial) => Answer::Report(denial),
    }
}

/// A supposition under one set of rules.
struct Supposed<'a> {
    key: Option<(&'a SupposedKey, Arc<Grant>, EnvironmentRule)>,
}

impl<'a> Supposed<'a> {
    fn new(caller: &'a SupposedCaller, rules: &Rules) -> Self {
        let key = match caller {
            SupposedCaller::Nobody => None,
            SupposedCaller::Key(key) => {
                let grant = rules.grant(&key.profile);
                Some((key, grant, EnvironmentRule::new(&key.environment, rules)))
            }
        };
        Self { key }
    }

    /// What they present; nothing where no place is accepted.
    fn present(&self, nowhere: bool) -> Presented<'_> {
        let standing = match &self.key {
            Some(_) if nowhere => Err(Denial::MissingCredential),
            None => Err(Denial::MissingCredential),
            Some((key, grant, environment)) => match key.rejection {
                Some(rejection) => Err(Denial::InvalidKey(rejection)),
                None => Ok(Standing { kind: key.kind, environment, scopes: &grant.scopes, bounds: &grant.bounds }),
            },
        };
        Presented { caller: Caller::Anonymous, standing }
    }

    fn limits(&self) -> impl Iterator<Item = AppliedLimit> {
        let own = self.key.as_ref().map(|(key, ..)| &key.profile.bounds);
        let usual = self.key.as_ref().and_then(|(_, _, environment)| environment.settings.as_ref());
        let rate = own.and_then(|own| own.rate_limit).or_else(|| usual?.rate_limit).map(AppliedLimit::KeyRate);
        let quota = own.and_then(|own| own.quota).or_else(|| usual?.quota).map(AppliedLimit::KeyQuota);
        rate.into_iter().chain(quota)
    }

    fn scopes(&self) -> ScopeSet {
        self.key.as_ref().map(|(_, grant, _)| grant.scopes.clone()).unwrap_or_default()
    }
}

/// The scopes of one demand, sorted by whether they are held.
#[derive(Default)]
struct Demanded {
    required: ScopeSet,
    held: ScopeSet,
    missing: ScopeSet,
}

impl Demanded {
    fn of(access: &Access, scopes: &ScopeSet) -> Self {
        let required = match access {
            Access::Public | Access::AnyKey => ScopeSet::default(),
            Access::Scopes { all, any } => all.union(any),
        };
        let missing = match authz::decide(access, Holding::Key(scopes)) {
            Err(Lacking::Scopes(missing)) => missing,
            Err(Lacking::Key) | Ok(_) => ScopeSet::default(),
        };
        let not_held = required.minus(scopes);
        Self { held: required.minus(&not_held), required, missing }
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
