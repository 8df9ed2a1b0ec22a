//! A key before it exists, and the step that makes it.

use std::collections::BTreeMap;

use super::fault::Refused;
use crate::domain::{
    Bounds, GrantedScope, KeyHash, KeyId, KeyKind, KeyRecord, MintedKey, OwnerId, PresentedKey, Revision, Timestamp,
};
use crate::gate::GateSettings;

/// What a key is made with.
#[derive(Debug)]
pub struct Draft {
    /// A label.
    pub name: String,
    /// Free text.
    pub description: String,
    /// The account it belongs to.
    pub owner: Option<OwnerId>,
    /// Where it lives.
    pub environment: String,
    /// What it may be used for.
    pub kind: KeyKind,
    /// What it may use.
    pub scopes: Vec<GrantedScope>,
    /// Named bundles of scopes.
    pub roles: Vec<String>,
    /// What it may hand out.
    pub may_grant: Vec<GrantedScope>,
    /// What narrows its use.
    pub bounds: Bounds,
    /// From then on it is refused.
    pub expires_at: Option<Timestamp>,
    /// Notes.
    pub metadata: BTreeMap<String, serde_json::Value>,
    /// Whether it is a pair of an id and a secret.
    pub paired: bool,
}

/// What stands for a key's text in its record.
#[derive(Debug)]
pub struct Stored {
    /// What a presented credential hashes to.
    pub hash: KeyHash,
    /// The pepper that `hash` was made with.
    pub pepper: Option<String>,
    /// The public beginning of the text.
    pub prefix: String,
    /// Its last four characters.
    pub last4: String,
}

impl Stored {
    /// What stands for a key that was just drawn; that of a pair is its id, a colon and the text.
    pub(super) fn of(key: &MintedKey, pair: Option<KeyId>, settings: &GateSettings) -> Self {
        let of_text = |presented: &PresentedKey<'_>| {
            let (hash, pepper) = settings.hasher.hash_new(presented);
            let (prefix, last4) = (key.prefix().to_owned(), key.last4().to_owned());
            Self { hash, pepper: pepper.map(str::to_owned), prefix, last4 }
        };
        match pair {
            None => of_text(&key.as_presented()),
            Some(id) => key.with_pair(id, of_text),
        }
    }
}

impl Draft {
    /// The record of a key made now.
    pub fn record(self, id: KeyId, stored: Stored, by: &str, now: Timestamp) -> KeyRecord {
        KeyRecord {
            id,
            name: self.name,
            description: self.description,
            owner: self.owner,
            environment: self.environment,
            kind: self.kind,
            prefix: stored.prefix,
            last4: stored.last4,
            paired: self.paired,
            hash: stored.hash,
            pepper: stored.pepper,
            scopes: self.scopes,
            roles: self.roles,
            may_grant: self.may_grant,
            bounds: self.bounds,
            active: true,
            expires_at: self.expires_at,
            created_at: now,
            created_by: by.to_owned(),
            last_used_at: None,
            revoked_at: None,
            replaces: None,
            lineage: id,
            ends_on_use: false,
            grace_until: None,
            metadata: self.metadata,
            revision: Revision::ZERO,
        }
    }
}

/// Draws a key for a draft. `word` is what key texts of its environment hold.
///
/// # Errors
/// [`Refused::NoEntropy`] when the operating system gives no random bytes.
pub fn mint(
    draft: Draft,
    word: &str,
    settings: &GateSettings,
    by: &str,
    now: Timestamp,
) -> Result<(KeyRecord, MintedKey), Refused> {
    let key = draw(word, draft.kind, settings)?;
    let id = KeyId::generate();
    let stored = Stored::of(&key, draft.paired.then_some(id), settings);
    Ok((draft.record(id, stored, by, now), key))
}

pub(super) fn draw(word: &str, kind: KeyKind, settings: &GateSettings) -> Result<MintedKey, Refused> {
    MintedKey::mint(&settings.brand, word, kind).map_err(|error| Refused::NoEntropy(error.to_string()))
}
