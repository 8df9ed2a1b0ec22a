//! Whether what is asked of a key or an owner can be, field by field.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::authority::{Authority, LIVE, spelled_out};
use super::fault::Flaw;
use super::origin::check_origin;
use super::shapes::{Moment, QuotaShape, Rate};
use super::vocabulary::{check_description, check_name};
use crate::domain::limits::{MAX_METADATA_BYTES, MAX_METADATA_ENTRIES, MAX_NETWORKS_PER_KEY, MAX_ORIGINS_PER_KEY};
use crate::domain::{GrantedScope, KeyKind, KeyRecord, OwnerId, Quota, RateLimit, Timestamp};
use crate::gate::GateSettings;

/// Whether a key may do anything, from anywhere, or for any time, that it could not before.
pub(super) fn is_wider(before: &KeyRecord, after: &KeyRecord, settings: &GateSettings) -> bool {
    let held =
        |scope: &GrantedScope| spelled_out(&before.scopes, &before.roles, settings).any(|held| held.includes(scope));
    let granted = |scope: &GrantedScope| before.may_grant.iter().any(|granted| granted.includes(scope));
    let (old, new) = (&before.bounds, &after.bounds);
    let networks = old.allowed_ips.is_empty()
        || (!new.allowed_ips.is_empty()
            && new.allowed_ips.iter().all(|net| old.allowed_ips.iter().any(|known| known.contains(net))));
    let origins = old.allowed_origins.is_empty()
        || (!new.allowed_origins.is_empty()
            && new.allowed_origins.iter().all(|origin| old.allowed_origins.contains(origin)));
    let lives_longer = match (before.expires_at, after.expires_at) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(old), Some(new)) => new > old,
    };
    let narrower = spelled_out(&after.scopes, &after.roles, settings).all(held)
        && after.may_grant.iter().all(granted)
        && networks
        && origins
        && !lives_longer
        && (before.active || !after.active);
    !narrower
}

/// Whether what a key holds makes sense for its kind.
pub(super) fn check_powers(
    kind: KeyKind,
    owner: Option<OwnerId>,
    scopes: &[GrantedScope],
    roles: &[String],
    may_grant: &[GrantedScope],
    settings: &GateSettings,
) -> Result<(), Flaw> {
    if kind == KeyKind::Management {
        return Ok(());
    }
    if !may_grant.is_empty() && owner.is_none() {
        let problem = "only management keys, and keys of an owner, hand out anything; leave it out";
        return Err(Flaw::new("may_grant", problem));
    }
    match spelled_out(scopes, roles, settings).find(|scope| scope.is_reserved()) {
        Some(scope) => Err(Flaw::new("roles", format!("{scope} is for management keys"))),
        None => Ok(()),
    }
}

/// Where a new key lives.
pub(super) fn environment_of(authority: &Authority, asked: Option<String>) -> Result<String, Flaw> {
    let own = match authority {
        Authority::Caller(caller) => caller.confined_to_environment(),
        Authority::Nobody | Authority::Local(_) => None,
    };
    match (asked, own) {
        (Some(asked), Some(own)) if asked != own => {
            Err(Flaw::new("environment", format!("a key of `{own}` makes keys of `{own}` only")))
        }
        (asked, own) => Ok(asked.unwrap_or_else(|| own.unwrap_or(LIVE).to_owned())),
    }
}

/// Turns a problem into that of a field.
pub(super) fn of(field: &'static str) -> impl Fn(String) -> Flaw {
    move |problem| Flaw::new(field, problem)
}

pub(super) fn checked_name(name: String) -> Result<String, Flaw> {
    check_name(&name).map_err(of("name"))?;
    Ok(name)
}

pub(super) fn checked_description(text: String) -> Result<String, Flaw> {
    check_description(&text).map_err(of("description"))?;
    Ok(text)
}

pub(super) fn expiry(moment: &Moment, now: Timestamp) -> Result<Timestamp, Flaw> {
    let moment: Timestamp =
        moment.0.parse().map_err(|error| Flaw::new("expires_at", format!("{:?}: {error}", moment.0)))?;
    if moment <= now { Err(Flaw::new("expires_at", "is not in the future")) } else { Ok(moment) }
}

pub(super) fn rate(asked: &Rate) -> Result<RateLimit, Flaw> {
    asked.read().map_err(of("rate_limit"))
}

pub(super) fn quota(asked: &QuotaShape) -> Result<Quota, Flaw> {
    asked.read().map_err(of("quota"))
}

pub(super) fn checked_metadata(entries: BTreeMap<String, Value>) -> Result<BTreeMap<String, Value>, Flaw> {
    let bytes = serde_json::to_string(&entries).map_or(usize::MAX, |text| text.len());
    if entries.len() > MAX_METADATA_ENTRIES || bytes > MAX_METADATA_BYTES {
        let most = format!("has at most {MAX_METADATA_ENTRIES} entries and {MAX_METADATA_BYTES} bytes");
        return Err(Flaw::new("metadata", most));
    }
    Ok(entries)
}

pub(super) fn networks(texts: &[String]) -> Result<Vec<IpNet>, Flaw> {
    if texts.len() > MAX_NETWORKS_PER_KEY {
        return Err(Flaw::new("allowed_ips", format!("a key has at most {MAX_NETWORKS_PER_KEY}")));
    }
    let network = |text: &String| {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let net = net.map_err(|_| Flaw::new("allowed_ips", format!("{text:?} is no network such as 10.0.0.0/8")))?;
        Ok(net.trunc())
    };
    texts.iter().map(network).collect()
}

pub(super) fn origins(texts: Vec<String>, kind: KeyKind) -> Result<Vec<String>, Flaw> {
    if !texts.is_empty() && kind != KeyKind::Publishable {
        return Err(Flaw::new("allowed_origins", "only publishable keys are used by web pages"));
    }
    if texts.len() > MAX_ORIGINS_PER_KEY {
        return Err(Flaw::new("allowed_origins", format!("a key has at most {MAX_ORIGINS_PER_KEY}")));
    }
    for text in &texts {
        check_origin(text).map_err(of("allowed_origins"))?;
    }
    Ok(texts)
}
