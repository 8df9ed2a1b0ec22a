//! Which limits apply to a request that is let in.
//!
//! A key's limits are its own, and where it has none its environment's; its owner's apply beside them, and a route's on
//! top. All of them have to allow the request.

use std::net::IpAddr;

use super::denial::Denial;
use super::judge::{Caller, Verdict};
use super::settings::{LimitBy, RouteSettings};
use super::snapshot::Snapshot;
use crate::cache::{KeySet, KeySlot};
use crate::domain::{KeyId, KeyKind, OwnerId, Quota, QuotaHolder, RateLimit};
use crate::limit::{Charge, Charges, Gcra, Meters, Moment, Network, Patience, Policy, RuleId, Subject, Withheld};

/// What a key or an owner may ask for everywhere, ready to be metered.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Allowance {
    rate: Option<Gcra>,
    quota: Option<Quota>,
}

impl Allowance {
    pub(super) fn new(rate: Option<RateLimit>, quota: Option<Quota>) -> Self {
        Self { rate: rate.map(Gcra::new), quota }
    }

    fn charge(self, holder: QuotaHolder, charges: &mut Charges) {
        let (policy, subject) = match holder {
            QuotaHolder::Key(id) => (Policy::Key, Subject::Key(id)),
            QuotaHolder::Owner(id) => (Policy::Owner, Subject::Owner(id)),
        };
        charges.extend(self.rate.map(|gcra| Charge::Rate(policy, subject, RuleId::OWN, gcra)));
        charges.extend(self.quota.map(|quota| Charge::Quota(holder, quota)));
    }
}

/// A route's limit, ready to be metered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RouteMeter {
    gcra: Gcra,
    by: LimitBy,
    rule: RuleId,
}

impl RouteMeter {
    /// A route keeps its meters as long as it keeps its name; one without a name, as long as it keeps its hosts, its path
    /// and its methods.
    pub(super) fn of(route: &RouteSettings) -> Option<Self> {
        let limit = route.rate_limit?;
        let rule = match &route.name {
            Some(name) => RuleId::named(&format!("name {name}")),
            None => {
                let mut hosts: Vec<&str> = route.hosts.iter().map(|host| host.as_str()).collect();
                let mut methods: Vec<String> =
                    route.methods.iter().map(|method| format!("{:?}", method.selector)).collect();
                hosts.sort_unstable();
                methods.sort_unstable();
                RuleId::named(&format!("{} {} {}", methods.join(","), hosts.join(","), route.path.as_str()))
            }
        };
        Some(Self { gcra: Gcra::new(limit.limit), by: limit.by, rule })
    }

    fn charge(self, caller: Option<(KeyId, Option<OwnerId>)>, client: Option<IpAddr>, charges: &mut Charges) {
        let subject = match (self.by, caller) {
            // Only public rules have callers without a key, and those limit by address.
            (LimitBy::Address, _) | (LimitBy::Key | LimitBy::Owner, None) => Subject::Network(Network::of(client)),
            (LimitBy::Owner, Some((_, Some(owner)))) => Subject::Owner(owner),
            (LimitBy::Key, Some((key, _))) | (LimitBy::Owner, Some((key, None))) => Subject::Key(key),
        };
        let is_known = |known: &Charge| matches!(known, Charge::Rate(_, _, rule, _) if *rule == self.rule);
        if !charges.iter().any(is_known) {
            charges.push(Charge::Rate(Policy::Route, subject, self.rule, self.gcra));
        }
    }
}

impl Snapshot {
    /// What a request takes from when it is let in; nothing where nothing is limited.
    pub(super) fn charges(&self, verdict: &Verdict<'_>, keys: &KeySet, client: Option<IpAddr>) -> Charges {
        let mut charges = Charges::new();
        let mut who = None;
        if let Caller::Key(authenticated) = &verdict.caller {
            let slot = authenticated.slot();
            let key = keys.lineage(slot);
            let owner = slot.owner.and_then(|owner| self.directory.owner(owner));
            who = Some((key, owner.map(|owner| owner.id)));
            self.allowance_of_key(slot).charge(QuotaHolder::Key(key), &mut charges);
            // What a leaked key of an owner uses up must not keep the owner from revoking it.
            let manages = slot.kind == KeyKind::Management || self.is_self_service(verdict);
            if let Some(owner) = owner.filter(|_| !manages) {
                Allowance::new(owner.rate_limit, owner.quota).charge(QuotaHolder::Owner(owner.id), &mut charges);
            }
        }
        // Other readings of the path are other ways to ask for the same: they count as well.
        for rule in verdict.rule.iter().chain(&verdict.also) {
            if let Some(meter) = self.rules.route(rule.route).meter {
                meter.charge(who, client, &mut charges);
            }
        }
        charges
    }

    /// What a client hears whose credential is wrong: that, or, after too many of them from its address, no more than that.
    ///
    /// It looks at refused credentials alone, so it never meets a valid key, whatever else comes from the same address.
    pub(super) fn shielded(&self, denial: Denial, client: Option<IpAddr>, meters: &Meters, now: Moment) -> Denial {
        let (Denial::InvalidKey(_), Some(gcra), Some(_)) = (&denial, self.rules.failures, client) else {
            return denial;
        };
        let subject = Subject::Network(Network::of(client));
        let charge = Charge::Rate(Policy::Failures, subject, RuleId::FAILURES, gcra);
        // Whoever guesses keys makes nobody wait for another machine.
        match meters.draw(&[charge], now, Patience::Credit) {
            Err(Withheld::Exceeded(exceeded)) => {
                Denial::TooManyFailures { retry_after_seconds: exceeded.retry_after_seconds }
            }
            Ok(_) | Err(Withheld::Awaited(_) | Withheld::Unavailable) => denial,
        }
    }

    fn is_self_service(&self, verdict: &Verdict<'_>) -> bool {
        verdict.rule.is_some_and(|rule| self.rules.route(rule.route).settings.self_service.is_some())
    }

    /// A key's own, and where it has none its environment's. What is usual for the API's callers does not hold for
    /// management keys: whoever raises a limit must not be kept out by it.
    fn allowance_of_key(&self, slot: &KeySlot) -> Allowance {
        let own = self.grant(slot.profile).map_or_else(Allowance::default, |grant| grant.allowance);
        if slot.kind == KeyKind::Management {
            return own;
        }
        let usual = self.environment(slot.environment).map_or_else(Allowance::default, |usual| usual.allowance);
        Allowance { rate: own.rate.or(usual.rate), quota: own.quota.or(usual.quota) }
    }
}

#[cfg(test)]
#[path = "charge_tests.rs"]
mod tests;
