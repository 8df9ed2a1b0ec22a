//! `rate_limit`, `quota` and `rate_limits`. Absence never limits.

use std::time::Duration;

use super::super::diagnostic::{Code, Findings, Problem};
use super::super::file::limits::{QuotaFile, RateLimitFile, RateLimitsFile, RouteLimitFile, SharedLimitsFile};
use super::super::place::PlaceId;
use super::super::shape::At;
use super::demand::ResolvedRule;
use super::{MINUTE, MS, Marks, SECOND, count, span};
use crate::domain::rate::NotARateLimit;
use crate::domain::{Quota, RateLimit};
use crate::gate::{Demand, LimitBy, RouteLimit};
use crate::lending::{LendingSettings, RedisAddress};
use crate::limit::{LimitFields, LimitSettings, OnOutage};

/// A rate limit of keys.
pub(super) fn rate_limit(file: &At<RateLimitFile>, findings: &mut Findings) -> Option<RateLimit> {
    let RateLimitFile { requests, per, burst } = &file.value;
    rate(file.at, requests, per, burst.as_ref(), findings)
}

/// A route's limit, held against what the route demands.
pub(super) fn route_limit(
    file: &At<RouteLimitFile>,
    rules: &[ResolvedRule],
    findings: &mut Findings,
) -> Option<RouteLimit> {
    let RouteLimitFile { requests, per, burst, by } = &file.value;
    let limit = rate(file.at, requests, per, burst.as_ref(), findings);
    let counted_by = by.as_ref().map_or(LimitBy::Key, |by| by.value);
    let public = rules.iter().find(|rule| rule.rule.demand == Demand::Public);
    if let (Some(public), LimitBy::Key | LimitBy::Owner) = (public, counted_by) {
        let message = "a public rule knows its callers by address only";
        let at = by.as_ref().map_or(file.at, |by| by.at);
        let problem = Problem::new(Code::Conflict, at, message).label(public.at, "this rule is public");
        findings.note(problem.fix("Write `by: address`, or move the public methods to a route of their own"));
        return None;
    }
    limit.map(|limit| RouteLimit { limit, by: counted_by })
}

fn rate(
    at: PlaceId,
    requests: &At<u64>,
    per: &At<Duration>,
    burst: Option<&At<u64>>,
    findings: &mut Findings,
) -> Option<RateLimit> {
    let mut small = |number: &At<u64>| {
        let small = u32::try_from(number.value).ok();
        if small.is_none() {
            let message = format!("{} is more than a gateway counts", findings.written(number.at));
            findings.note(Problem::new(Code::BadValue, number.at, message).fix("Write a smaller number"));
        }
        small
    };
    let requests_number = small(requests);
    let burst_number = match burst {
        Some(burst) => Some(small(burst)?),
        None => None,
    };
    let limit = RateLimit::new(requests_number?, per.value, burst_number);
    let (at, fix) = match limit {
        Ok(limit) => return Some(limit),
        Err(NotARateLimit::Nothing) => (burst.filter(|_| requests.value > 0).map_or(requests.at, |burst| burst.at), ""),
        Err(NotARateLimit::Span) => (per.at, "Write 1s, 1m or 1h"),
        Err(NotARateLimit::TooMany) => (at, "Write fewer `requests`, or a longer `per`"),
    };
    if let Err(error) = limit {
        let problem = Problem::new(Code::BadValue, at, error.to_string());
        findings.note(if fix.is_empty() { problem } else { problem.fix(fix) });
    }
    None
}

/// A quota of keys.
pub(super) fn quota(file: &At<QuotaFile>, findings: &mut Findings) -> Option<Quota> {
    let QuotaFile { per_day, per_month } = &file.value;
    let number = |field: &Option<At<u64>>| field.as_ref().map(|field| field.value);
    match Quota::new(number(per_day), number(per_month)) {
        Ok(quota) => Some(quota),
        Err(error) => {
            let zero = [per_day, per_month].into_iter().flatten().find(|field| field.value == 0);
            let at = zero.map_or(file.at, |field| field.at);
            findings.note(Problem::new(Code::BadValue, at, error.to_string()).fix("Write such as { per_day: 10000 }"));
            None
        }
    }
}

/// Limits that gateways share; none where each has its own.
pub(super) fn shared(
    file: Option<&RateLimitsFile>,
    marks: &mut Marks,
    findings: &mut Findings,
) -> Option<LendingSettings> {
    let SharedLimitsFile { url, ca, connect_timeout, timeout, on_outage, lease, prefix } = file?.shared.as_ref()?;
    let address = match RedisAddress::parse(&url.value.0) {
        Ok(address) => address,
        Err(flaw) => {
            findings.note(Problem::new(Code::BadValue, url.at, flaw.problem).fix(flaw.fix));
            return None;
        }
    };
    if address.is_exposed() {
        let why = "the connection to the server can be read, or answered by somebody else; rediss:// ends that";
        marks.weakened.push((url.at, why.to_owned()));
    }
    if let Some(ca) = ca.as_ref().filter(|_| !address.is_encrypted()) {
        let problem = Problem::new(Code::Conflict, ca.at, "there is no TLS whose certificates `ca` could check");
        findings.note(problem.fix("Write `rediss://`, or remove `ca`"));
    }
    Some(LendingSettings {
        address,
        ca: ca.as_ref().map(|ca| ca.value.0.clone()),
        connect_timeout: span(connect_timeout.as_ref(), 2 * SECOND, 10 * MS..=MINUTE, findings),
        timeout: span(timeout.as_ref(), 20 * MS, MS..=5 * SECOND, findings),
        on_outage: on_outage.as_ref().map_or(OnOutage::Local, |on_outage| on_outage.value),
        lease: span(lease.as_ref(), 100 * MS, 10 * MS..=10 * SECOND, findings),
        prefix: prefix.as_ref().map_or_else(|| "portcullis:".to_owned(), |prefix| prefix.value.0.clone()),
    })
}

pub(super) fn settings(file: Option<&RateLimitsFile>, findings: &mut Findings) -> LimitSettings {
    let usual = LimitSettings::USUAL;
    let Some(file) = file else { return usual };
    let most = count(file.max_meters.as_ref(), usual.max_meters as u64, 10_000..=100_000_000, findings);
    LimitSettings {
        fields: LimitFields {
            standard: file.headers.unwrap_or(usual.fields.standard),
            legacy: file.legacy_headers.unwrap_or(usual.fields.legacy),
        },
        max_meters: usize::try_from(most).unwrap_or(usize::MAX),
        quota_flush: span(file.quota_flush.as_ref(), usual.quota_flush, 100 * MS..=MINUTE, findings),
    }
}
