//! What the audit trail says about a change. Never a key, never a hash.

use serde_json::{Value, json};

use crate::domain::{KeyRecord, OwnerRecord, Timestamp};

/// What was done. The names are for ever: exported trails hold them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    KeyCreate,
    KeyImport,
    KeyEnable,
    KeyDisable,
    KeyRevoke,
    KeyUpdate,
    KeyRotate,
    KeyReplaceSecret,
    KeyEndGrace,
    KeyForget,
    OwnerCreate,
    OwnerUpdate,
    OwnerSuspend,
    OwnerResume,
}

impl Action {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::KeyCreate => "key.create",
            Self::KeyImport => "key.import",
            Self::KeyEnable => "key.enable",
            Self::KeyDisable => "key.disable",
            Self::KeyRevoke => "key.revoke",
            Self::KeyUpdate => "key.update",
            Self::KeyRotate => "key.rotate",
            Self::KeyReplaceSecret => "key.replace_secret",
            Self::KeyEndGrace => "key.end_grace",
            Self::KeyForget => "key.forget",
            Self::OwnerCreate => "owner.create",
            Self::OwnerUpdate => "owner.update",
            Self::OwnerSuspend => "owner.suspend",
            Self::OwnerResume => "owner.resume",
        }
    }
}

/// What changed: the fields before and after, where there are any.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Difference {
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
}

impl Difference {
    /// A key that did not exist.
    pub(super) fn new_key(record: &KeyRecord) -> Self {
        Self { before: None, after: Some(describe_key(record)) }
    }

    /// An owner that did not exist.
    pub(super) fn new_owner(record: &OwnerRecord) -> Self {
        Self { before: None, after: Some(describe_owner(record)) }
    }

    /// What of a key is not as it was.
    pub(super) fn of_keys(before: &KeyRecord, after: &KeyRecord) -> Self {
        Self::between(describe_key(before), describe_key(after))
    }

    /// What of an owner is not as it was.
    pub(super) fn of_owners(before: &OwnerRecord, after: &OwnerRecord) -> Self {
        Self::between(describe_owner(before), describe_owner(after))
    }

    /// The entries of two descriptions of the same thing that differ.
    fn between(mut before: Value, mut after: Value) -> Self {
        if let (Value::Object(before), Value::Object(after)) = (&mut before, &mut after) {
            let is_same = |(name, value): &(&String, &Value)| after.get(*name) == Some(*value);
            let same: Vec<String> = before.iter().filter(is_same).map(|(name, _)| name.clone()).collect();
            for name in same {
                before.remove(&name);
                after.remove(&name);
            }
        }
        Self { before: Some(before), after: Some(after) }
    }

    /// A switch that was turned.
    pub(super) fn switch(field: &str, on: bool) -> Self {
        Self { before: Some(json!({ field: !on })), after: Some(json!({ field: on })) }
    }

    /// A key that was revoked.
    pub(super) fn revoked(at: Timestamp) -> Self {
        Self { before: Some(json!({ "revoked_at": null })), after: Some(json!({ "revoked_at": at })) }
    }

    /// A row that was dropped.
    pub(super) fn forgotten(revoked_at: Option<Timestamp>) -> Self {
        Self { before: Some(json!({ "revoked_at": revoked_at })), after: None }
    }
}

fn describe_key(record: &KeyRecord) -> Value {
    json!({
        "name": record.name,
        "description": record.description,
        "owner": record.owner,
        "environment": record.environment,
        "kind": record.kind,
        "prefix": record.prefix,
        "last4": record.last4,
        "scopes": record.scopes,
        "roles": record.roles,
        "may_grant": record.may_grant,
        "bounds": record.bounds,
        "paired": record.paired,
        "active": record.active,
        "expires_at": record.expires_at,
        "replaces": record.replaces,
        "grace_until": record.grace_until,
        "ends_on_use": record.ends_on_use,
        "metadata": record.metadata,
    })
}

fn describe_owner(record: &OwnerRecord) -> Value {
    json!({
        "name": record.name,
        "suspended": record.suspended,
        "rate_limit": record.rate_limit,
        "quota": record.quota,
        "max_keys": record.max_keys,
        "may_grant": record.may_grant,
        "metadata": record.metadata,
    })
}
