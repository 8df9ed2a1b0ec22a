//! Entries and findings as JSON.

use serde_json::{Map, Value, json};

use crate::store::{AuditEntry, DroppedEntries, Verification};

/// An entry: its fields, what changed, and its place in the chain.
pub fn entry_json(entry: &AuditEntry) -> Value {
    let AuditEntry { entry, revision, at, actor, address, action, subject, before, after, sealed } = entry;
    // Whatever is no JSON was not written by us, and is shown as it is.
    let value = |text: &Option<String>| match text {
        None => Value::Null,
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone())),
    };
    json!({
        "entry": entry,
        "at": at,
        "actor": actor,
        "address": address,
        "action": action,
        "subject": subject,
        "before": value(before),
        "after": value(after),
        "revision": revision,
        "mac": sealed.as_ref().map(|sealed| sealed.mac.to_string()),
        "pepper": sealed.as_ref().and_then(|sealed| sealed.key.as_ref()),
    })
}

/// What a walk along the trail found. `without` are peppers whose entries nobody expects to be verified any more.
pub fn verification_json(found: &Verification, without: &[String]) -> Value {
    let Verification { entries, first, head, unsealed, unkeyed, keyed, unverifiable, dropped, breach } = found;
    let dropped = dropped.map(|DroppedEntries { through, newest, at, retention }| {
        json!({ "through": through, "newest": newest, "at": at, "retention_seconds": retention.as_secs() })
    });
    let breach = breach
        .as_ref()
        .map(|(entry, breach)| json!({ "entry": entry, "reason": breach.name(), "detail": breach.to_string() }));
    let counts = |counts: &std::collections::BTreeMap<String, u64>| -> Map<String, Value> {
        counts.iter().map(|(pepper, count)| (pepper.clone(), json!(count))).collect()
    };
    json!({
        "sound": found.is_sound(without),
        "entries": entries,
        "first": first,
        "head": head.to_string(),
        "unsealed": unsealed,
        "unkeyed": unkeyed,
        "keyed": counts(keyed),
        "unverifiable": counts(unverifiable),
        "dropped": dropped,
        "breach": breach,
    })
}
