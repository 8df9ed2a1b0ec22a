//! Who is supposed to ask, with the words to say so.

use std::sync::Arc;

use crate::authn::Rejection;
use crate::cache::{KeySet, Profile};
use crate::domain::{KeyId, KeyKind, KeyRecord, Timestamp};
use crate::gate::{GateSettings, Rules, SupposedCaller, SupposedKey};
use crate::manage::Vocabulary;
use crate::store::{KeyReader, StoreError};

/// What a gateway knows of keys: what stands in its store, and what it enforces. They differ for a moment after each change,
/// and for good where a store lost commits: a key that was seen revoked stays refused.
#[derive(Clone, Copy)]
pub struct KeySources<'a> {
    /// The store.
    pub reader: &'a dyn KeyReader,
    /// What is enforced.
    pub keys: &'a KeySet,
}

/// A supposed caller.
pub struct Supposition {
    /// As the gate takes it.
    pub caller: SupposedCaller,
    /// In words.
    pub who: String,
}

impl Supposition {
    /// Somebody without a key.
    pub fn nobody() -> Self {
        Self { caller: SupposedCaller::Nobody, who: "nobody: no key".to_owned() }
    }

    /// The holder of a key that exists.
    pub fn key(record: &KeyRecord, owner_suspended: bool, rules: &Rules, now: Timestamp) -> Self {
        let KeyRecord { id, name, environment, kind, .. } = record;
        Self {
            caller: SupposedCaller::Key(SupposedKey::of_record(record, owner_suspended, rules, now)),
            who: format!("{id} ({name}), {environment} {kind}"),
        }
    }

    /// The holder of a key that exists, by its id, as a gateway takes it; none where the store has none.
    ///
    /// # Errors
    /// The store's.
    pub async fn key_of_id(
        id: KeyId,
        from: KeySources<'_>,
        rules: &Rules,
        now: Timestamp,
    ) -> Result<Option<Self>, StoreError> {
        let stays_revoked = |record: &KeyRecord| {
            let enforced = from.keys.find(&record.hash).filter(|slot| slot.id == id);
            record.revoked_at.is_none() && enforced.is_some_and(|slot| slot.revoked)
        };
        let Some(mut record) = from.reader.find_key(id).await? else { return Ok(None) };
        if stays_revoked(&record) {
            // Or it was revoked this moment.
            let Some(again) = from.reader.find_key(id).await? else { return Ok(None) };
            record = again;
        }
        let stays_revoked = stays_revoked(&record);
        let suspended = match record.owner {
            None => false,
            // An account that the store does not know never grants.
            Some(owner) => from.reader.find_owner(owner).await?.is_none_or(|owner| owner.suspended),
        };
        let mut supposition = Self::key(&record, suspended, rules, now);
        if stays_revoked {
            supposition.stays_revoked();
        }
        Ok(Some(supposition))
    }

    /// Somebody with a key of these scopes.
    ///
    /// # Errors
    /// Which of the words the configuration does not know, and how to mend it.
    pub fn scopes(
        scopes: &[String],
        environment: &str,
        kind: KeyKind,
        settings: &GateSettings,
    ) -> Result<Self, (&'static str, String)> {
        let vocabulary = Vocabulary::of(settings);
        vocabulary.environment_word(environment).map_err(|problem| ("environment", problem))?;
        let scopes = vocabulary.scopes(scopes, kind).map_err(|problem| ("scopes", problem))?;
        let names: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        let holding = if names.is_empty() { "without scopes".to_owned() } else { format!("with {}", names.join(" ")) };
        let who = format!("a {environment} {kind} key {holding}");
        let profile = Profile { scopes, ..Profile::default() };
        Ok(Self { caller: SupposedCaller::Key(supposed(environment.into(), kind, profile, None)), who })
    }

    fn stays_revoked(&mut self) {
        self.who.push_str(
            ", refused by this gateway: it saw it revoked, or its secret replaced, before the store lost commits",
        );
        if let SupposedCaller::Key(key) = &mut self.caller {
            key.rejection = Some(Rejection::Revoked);
        }
    }

    /// Somebody with a key that is not accepted.
    pub(super) fn rejected(rejection: Rejection, who: String) -> Self {
        // A key that is rejected is rejected whatever it is.
        let key = supposed("".into(), KeyKind::Secret, Profile::default(), Some(rejection));
        Self { caller: SupposedCaller::Key(key), who }
    }
}

fn supposed(environment: Arc<str>, kind: KeyKind, profile: Profile, rejection: Option<Rejection>) -> SupposedKey {
    SupposedKey { kind, environment, profile, rejection }
}
