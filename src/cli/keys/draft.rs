//! A key before it exists, and the step that makes it.

use std::collections::BTreeMap;

use crate::cli::failure::Failure;
use crate::config::Settings;
use crate::domain::{GrantedScope, KeyHash, KeyId, KeyKind, KeyRecord, MintedKey, OwnerId, Revision, Timestamp};
use crate::store::Actor;

/// What a key is made with.
#[derive(Debug)]
pub(in crate::cli) struct Draft {
    pub(in crate::cli) name: String,
    pub(in crate::cli) description: String,
    pub(in crate::cli) owner: Option<OwnerId>,
    pub(in crate::cli) environment: String,
    pub(in crate::cli) kind: KeyKind,
    pub(in crate::cli) scopes: Vec<GrantedScope>,
    pub(in crate::cli) roles: Vec<String>,
    pub(in crate::cli) may_grant: Vec<GrantedScope>,
    pub(in crate::cli) expires_at: Option<Timestamp>,
    pub(in crate::cli) metadata: BTreeMap<String, serde_json::Value>,
}

/// What stands for a key's text in its record.
pub(super) struct Stored {
    pub(super) hash: KeyHash,
    pub(super) pepper: Option<String>,
    pub(super) prefix: String,
    pub(super) last4: String,
}

impl Draft {
    /// The record of a key made now.
    pub(super) fn record(self, stored: Stored, by: &Actor, now: Timestamp) -> KeyRecord {
        KeyRecord {
            id: KeyId::generate(),
            name: self.name,
            description: self.description,
            owner: self.owner,
            environment: self.environment,
            kind: self.kind,
            prefix: stored.prefix,
            last4: stored.last4,
            hash: stored.hash,
            pepper: stored.pepper,
            scopes: self.scopes,
            roles: self.roles,
            may_grant: self.may_grant,
            active: true,
            expires_at: self.expires_at,
            created_at: now,
            created_by: by.0.clone(),
            last_used_at: None,
            revoked_at: None,
            replaces: None,
            grace_until: None,
            metadata: self.metadata,
            revision: Revision::ZERO,
        }
    }
}

/// Draws a key for a draft. `word` is what key texts of its environment hold.
///
/// # Errors
/// [`Failure::Runtime`] when the operating system gives no random bytes.
pub(in crate::cli) fn mint(
    draft: Draft,
    word: &str,
    settings: &Settings,
    by: &Actor,
    now: Timestamp,
) -> Result<(KeyRecord, MintedKey), Failure> {
    let key =
        MintedKey::mint(&settings.gate.brand, word, draft.kind).map_err(|error| Failure::runtime(error.to_string()))?;
    let (hash, pepper) = settings.gate.hasher.hash_new(&key.as_presented());
    let stored = Stored {
        hash,
        pepper: pepper.map(str::to_owned),
        prefix: key.prefix().to_owned(),
        last4: key.last4().to_owned(),
    };
    Ok((draft.record(stored, by, now), key))
}
