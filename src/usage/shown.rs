//! Usage as it is shown: the same by the API and on the command line. Never anything of a credential.

use serde_json::{Value, json};

use super::report::{Breakage, Excess, Holding, Report, Trial};
use crate::domain::{KeyId, KeyRecord, Timestamp};
use crate::store::{FoundCaller, KeyUsage, LastSeen, NetworkSeen, Passage, UsageBucket, UsageEvent};

/// The use of one key between two moments.
pub(super) fn usage_json(
    key: KeyId,
    since: Timestamp,
    until: Timestamp,
    usage: &KeyUsage,
    events: &[UsageEvent],
) -> Value {
    let KeyUsage { totals, buckets, more, seen, networks } = usage;
    let sum = |meant: Option<Passage>| -> u64 {
        let meant = totals.iter().filter(|(passage, ..)| meant.is_none_or(|meant| meant == *passage));
        meant.map(|(.., requests)| requests).sum()
    };
    let statuses = totals
        .iter()
        .map(|(passage, status, requests)| json!({ "result": passage.text(), "status": status, "requests": requests }));
    json!({
        "key_id": key,
        "since": since,
        "until": until,
        "totals": {
            "requests": sum(None),
            "allowed": sum(Some(Passage::Allowed)),
            "refused": sum(Some(Passage::Refused)),
            "reported": sum(Some(Passage::Reported)),
            "statuses": statuses.collect::<Value>(),
        },
        "buckets": buckets.iter().map(bucket_json).collect::<Value>(),
        "truncated": more,
        "last_seen": seen.as_ref().map(seen_json),
        "networks": networks.iter().map(network_json).collect::<Value>(),
        "events": events.iter().map(event_json).collect::<Value>(),
    })
}

fn bucket_json(bucket: &UsageBucket) -> Value {
    let UsageBucket { begins, span, rule, status, passage, requests } = bucket;
    json!({
        "begins": begins,
        "span": span.text(),
        "rule": rule,
        "status": status,
        "result": passage.text(),
        "requests": requests,
    })
}

fn seen_json(seen: &LastSeen) -> Value {
    let LastSeen { at, address, agent } = seen;
    json!({ "at": at, "address": address, "user_agent": agent })
}

fn network_json(seen: &NetworkSeen) -> Value {
    let NetworkSeen { network, first, last } = seen;
    json!({ "network": network.to_string(), "first_seen": first, "last_seen": last })
}

fn event_json(event: &UsageEvent) -> Value {
    let UsageEvent { kind, key, address, at, detail } = event;
    json!({ "event": kind.text(), "key_id": key, "address": address, "at": at, "detail": detail })
}

/// The whole report.
pub fn report_json(report: &Report) -> Value {
    let Report { counted_since, unused_keys, excess_scopes, report_mode, events, truncated } = report;
    json!({
        "counted_since": counted_since,
        "unused_keys": unused_keys.iter().map(unused_json).collect::<Value>(),
        "excess_scopes": excess_scopes.iter().map(excess_json).collect::<Value>(),
        "report_mode": report_mode.iter().map(trial_json).collect::<Value>(),
        "events": events.iter().map(event_json).collect::<Value>(),
        "truncated": truncated,
    })
}

fn unused_json(key: &KeyRecord) -> Value {
    json!({
        "id": key.id,
        "name": key.name,
        "owner": key.owner,
        "environment": key.environment,
        "created_at": key.created_at,
        "last_used_at": key.last_used_at,
    })
}

fn excess_json(found: &Excess) -> Value {
    let Excess { key, excess, used, suggested } = found;
    let held = Holding { scopes: key.scopes.clone(), roles: key.roles.clone() };
    json!({
        "id": key.id,
        "name": key.name,
        "owner": key.owner,
        "environment": key.environment,
        "held": holding_json(&held),
        "excess": holding_json(excess),
        "used": used,
        "suggested": holding_json(suggested),
    })
}

fn holding_json(holding: &Holding) -> Value {
    json!({ "scopes": holding.scopes, "roles": holding.roles })
}

fn trial_json(trial: &Trial) -> Value {
    let Trial { rule, requests, keys_let_in, callers } = trial;
    json!({
        "rule": rule,
        // Of a rule that nobody asked nothing is known.
        "ready": *requests == 0 && *keys_let_in > 0,
        "requests": requests,
        "keys_let_in": keys_let_in,
        "callers": callers.iter().map(breakage_json).collect::<Value>(),
    })
}

fn breakage_json(breakage: &Breakage) -> Value {
    let Breakage { found, key_name } = breakage;
    let (key, network) = match found.caller {
        FoundCaller::Key(key) => (Some(key), None),
        FoundCaller::Network(network) => (None, Some(network.to_string())),
        FoundCaller::Local => (None, Some("local".to_owned())),
        FoundCaller::Other => (None, Some("other".to_owned())),
    };
    json!({
        "key_id": key,
        "key_name": key_name,
        "network": network,
        "reason": found.reason,
        "missing_scopes": found.missing,
        "requests": found.requests,
        "first_seen": found.first,
        "last_seen": found.last,
    })
}
