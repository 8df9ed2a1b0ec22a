//! Records as they are shown: the fields of the contract, never a key and never its hash.

use serde_json::{Value, json};

use super::authority::Authority;
use crate::domain::{Bounds, KeyId, KeyRecord, OwnerRecord, Timestamp};

/// A key at a moment, which decides its state.
pub fn key_json(record: &KeyRecord, now: Timestamp) -> Value {
    let KeyRecord {
        id,
        name,
        description,
        owner,
        environment,
        kind,
        prefix,
        last4,
        paired,
        hash: _,
        pepper: _,
        scopes,
        roles,
        may_grant,
        bounds: Bounds { allowed_ips, allowed_origins, rate_limit, quota },
        active,
        expires_at,
        created_at,
        created_by,
        last_used_at,
        revoked_at,
        replaces,
        lineage: _,
        ends_on_use,
        grace_until,
        metadata,
        revision,
    } = record;
    json!({
        "id": id,
        "name": name,
        "description": description,
        "owner": owner,
        "environment": environment,
        "kind": kind,
        "prefix": prefix,
        "last4": last4,
        "paired": paired,
        "scopes": scopes,
        "roles": roles,
        "may_grant": may_grant,
        "allowed_ips": allowed_ips,
        "allowed_origins": allowed_origins,
        "rate_limit": rate_limit,
        "quota": quota,
        "active": active,
        "state": record.state(now),
        "expires_at": expires_at,
        "created_at": created_at,
        "created_by": created_by,
        "last_used_at": last_used_at,
        "revoked_at": revoked_at,
        "replaces": replaces,
        "grace_until": grace_until,
        "ends_on_use": ends_on_use,
        "metadata": metadata,
        "revision": revision,
    })
}

/// The same as it is told to somebody. Who makes keys in the store itself, and what an import says of it, is the
/// operators' own.
pub fn key_json_told_to(authority: &Authority, record: &KeyRecord, now: Timestamp) -> Value {
    let mut shown = key_json(record, now);
    if !authority.is_operator() && record.created_by.parse::<KeyId>().is_err() {
        shown["created_by"] = "operator".into();
    }
    shown
}

/// An owner.
pub fn owner_json(record: &OwnerRecord) -> Value {
    let OwnerRecord { id, name, suspended, rate_limit, quota, max_keys, may_grant, created_at, metadata, revision } =
        record;
    json!({
        "id": id,
        "name": name,
        "suspended": suspended,
        "rate_limit": rate_limit,
        "quota": quota,
        "max_keys": max_keys,
        "may_grant": may_grant,
        "created_at": created_at,
        "metadata": metadata,
        "revision": revision,
    })
}
