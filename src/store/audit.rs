//! What the audit trail says about a change. Never a key, never a hash.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::Actor;
use super::seal::{AuditHead, AuditSeal};
use super::trail::{Anchor, AuditEntry};
use crate::domain::{KeyRecord, OwnerRecord, Revision, Timestamp};

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
    ConfigReload,
    NodeForget,
    AuditForget,
    StoreRestore,
}

impl Action {
    /// What putting one record of a key in the place of another does.
    pub(super) fn of_change(before: &KeyRecord, after: &KeyRecord) -> Self {
        let switched = KeyRecord { active: after.active, ..before.clone() };
        if before.hash != after.hash {
            Self::KeyReplaceSecret
        } else if before.active == after.active || switched != *after {
            Self::KeyUpdate
        } else if after.active {
            Self::KeyEnable
        } else {
            Self::KeyDisable
        }
    }

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
            Self::ConfigReload => "config.reload",
            Self::NodeForget => "node.forget",
            Self::AuditForget => "audit.forget",
            Self::StoreRestore => "store.restore",
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

/// An entry that is about to be written: everything but its place in the chain.
pub(super) struct Draft<'a> {
    pub(super) revision: Revision,
    pub(super) at: Timestamp,
    pub(super) by: &'a Actor,
    pub(super) action: Action,
    pub(super) subject: String,
    pub(super) difference: &'a Difference,
}

impl Draft<'_> {
    /// The entry that follows `head`.
    pub(super) fn seal_behind(self, head: AuditHead, seal: &AuditSeal) -> AuditEntry {
        let text = |value: &Option<Value>| value.as_ref().map(ToString::to_string);
        let mut entry = AuditEntry {
            entry: head.entry + 1,
            revision: self.revision,
            at: self.at,
            actor: self.by.name.clone(),
            address: self.by.address.map(|address| address.to_string()),
            action: self.action.name().to_owned(),
            subject: self.subject,
            before: text(&self.difference.before),
            after: text(&self.difference.after),
            sealed: None,
        };
        seal.close(head.mac, &mut entry);
        entry
    }
}

/// What the trail says about entries that were dropped from its front.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Dropped {
    /// The last one.
    pub(super) last: AuditHead,
    /// When that one was made.
    pub(super) last_at: Timestamp,
    /// The retention that was asked for, in whole seconds.
    pub(super) retention: Duration,
}

#[derive(Serialize, Deserialize)]
struct DroppedText {
    through: String,
    newest: Timestamp,
    retention_seconds: u64,
}

impl Dropped {
    pub(super) fn difference(self) -> Difference {
        let text = DroppedText {
            through: self.last.to_string(),
            newest: self.last_at,
            retention_seconds: self.retention.as_secs(),
        };
        Difference { before: None, after: serde_json::to_value(text).ok() }
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        let DroppedText { through, newest, retention_seconds } = serde_json::from_str(text).ok()?;
        let last = through.parse().ok()?;
        Some(Self { last, last_at: newest, retention: Duration::from_secs(retention_seconds) })
    }

    /// What is kept beside the trail.
    pub(super) const fn anchor(self) -> Anchor {
        Anchor { last: self.last, at: self.last_at }
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
