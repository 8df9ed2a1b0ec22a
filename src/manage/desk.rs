//! Where keys and owners are managed: requests become orders to the store, or are refused.

use std::time::Duration;

use super::authority::Authority;
use super::checks::{
    check_powers, checked_description, checked_metadata, checked_name, environment_of, expiry, is_wider, networks, of,
    origins, quota, rate,
};
use super::draft::{Draft, Stored, draw, mint};
use super::fault::{Flaw, Refused};
use super::requests::{KeyChange, NewKey, NewOwner, OwnerChange, Retire, Rotation};
use super::vocabulary::Vocabulary;
use crate::domain::time::span_of_text;
use crate::domain::{
    Bounds, GrantedScope, KeyId, KeyKind, KeyRecord, KeyState, MintedKey, OwnerId, OwnerRecord, Revision, Timestamp,
};
use crate::gate::GateSettings;
use crate::store::{Command, Effect, Order, Origin, RepeatName, Repeatable, Store, StoreError};

/// How often a change is tried anew when others change the same record at the same time.
const TRIES: usize = 8;
/// How long a key lives on beside its successor unless somebody says otherwise.
const USUAL_GRACE: Duration = Duration::from_secs(24 * 3600);
/// Longest grace.
const LONGEST_GRACE: Duration = Duration::from_secs(90 * 24 * 3600);

/// The revisions of a record that a caller may have read; none: it does not say.
pub type Seen<'a> = Option<&'a [Revision]>;

/// One request's view of the store.
#[derive(Clone, Copy)]
pub struct Desk<'a> {
    /// Where records live.
    pub store: &'a Store,
    /// Scopes, roles, environments, brand and peppers.
    pub settings: &'a GateSettings,
    /// On whose behalf.
    pub authority: &'a Authority,
    /// When.
    pub now: Timestamp,
}

/// A key that is about to be stored, its text, and the command that stores it.
#[derive(Debug)]
pub struct Made {
    /// The record as it will be, without its revision.
    pub record: KeyRecord,
    /// What is shown this once.
    pub key: MintedKey,
    /// What the store is told.
    pub command: Command,
}

/// What a request for a new key means by itself, and the word that stands in the key's text.
///
/// # Errors
/// Whatever is wrong with it. Whether the owner exists, and whether as much may be granted, is not looked at.
pub fn plan_key(
    asked: NewKey,
    owner: Option<OwnerId>,
    settings: &GateSettings,
    authority: &Authority,
    now: Timestamp,
) -> Result<(Draft, String), Refused> {
    let vocabulary = Vocabulary::told_to(settings, authority);
    let environment = environment_of(authority, asked.environment)?;
    let word = vocabulary.environment_word(&environment).map_err(of("environment"))?.to_owned();
    let kind = asked.kind.map_or(KeyKind::Secret, KeyKind::from);
    if kind == KeyKind::Management && authority.is_at_data_door() {
        return Err(Refused::flawed("kind", "management keys are made by management keys"));
    }
    if asked.rate_limit.is_some() || asked.quota.is_some() {
        authority.check_operator("rate limits and quotas")?;
    }
    let draft = Draft {
        name: checked_name(asked.name)?,
        description: checked_description(asked.description)?,
        owner,
        environment,
        kind,
        scopes: vocabulary.scopes(&asked.scopes, kind).map_err(of("scopes"))?,
        roles: vocabulary.roles(&asked.roles).map_err(of("roles"))?,
        may_grant: vocabulary.scopes(&asked.may_grant, KeyKind::Management).map_err(of("may_grant"))?,
        bounds: Bounds {
            allowed_ips: networks(&asked.allowed_ips)?,
            allowed_origins: origins(asked.allowed_origins, kind)?,
            rate_limit: asked.rate_limit.as_ref().map(rate).transpose()?,
            quota: asked.quota.as_ref().map(quota).transpose()?,
        },
        expires_at: asked.expires_at.as_ref().map(|moment| expiry(moment, now)).transpose()?,
        metadata: checked_metadata(asked.metadata)?,
        paired: asked.paired,
    };
    check_powers(kind, owner, &draft.scopes, &draft.roles, &draft.may_grant, settings)?;
    Ok((draft, word))
}

impl Desk<'_> {
    /// The key with this id.
    ///
    /// # Errors
    /// [`Refused::NoSuchKey`], also where it is not the caller's to see.
    pub async fn key(&self, id: KeyId) -> Result<KeyRecord, Refused> {
        let found = self.store.reader().find_key(id).await?;
        found.filter(|record| self.authority.sight().sees_key(record)).ok_or(Refused::NoSuchKey(id))
    }

    /// The owner with this id.
    ///
    /// # Errors
    /// [`Refused::NoSuchOwner`], also where it is not the caller's to see.
    pub async fn owner(&self, id: OwnerId) -> Result<OwnerRecord, Refused> {
        if !self.authority.sight().sees_owner(id) {
            return Err(Refused::NoSuchOwner(id));
        }
        self.store.reader().find_owner(id).await?.ok_or(Refused::NoSuchOwner(id))
    }

    /// A new key, ready to be stored.
    ///
    /// # Errors
    /// Whatever is wrong with the request, or more than may be granted.
    pub async fn make_key(&self, asked: NewKey) -> Result<Made, Refused> {
        let owner = self.owner_of(asked.owner.as_deref()).await?;
        let (draft, word) =
            plan_key(asked, owner.as_ref().map(|owner| owner.id), self.settings, self.authority, self.now)?;
        let (record, key) = mint(draft, &word, self.settings, &self.authority.actor().name, self.now)?;
        self.authority.check_grant(&record, owner.as_ref(), self.settings)?;
        let command = Command::InsertKeys { records: vec![record.clone()], origin: Origin::Minted };
        Ok(Made { record, key, command })
    }

    /// A successor for a key, ready to be stored; `seen` as in [`Self::change_key`].
    ///
    /// # Errors
    /// As [`Self::make_key`]; a key that is not accepted any longer has no successor.
    pub async fn make_successor(&self, id: KeyId, asked: Rotation, seen: Seen<'_>) -> Result<Made, Refused> {
        let old = self.key(id).await?;
        check_seen(old.revision, seen)?;
        match old.state(self.now) {
            KeyState::Active | KeyState::Disabled if old.grace_until.is_none() => {}
            KeyState::Active | KeyState::Disabled => {
                return Err(Refused::Conflict("the key was rotated already; rotate its successor"));
            }
            KeyState::Revoked => return Err(StoreError::Revoked.into()),
            KeyState::Expired => {
                return Err(Refused::Conflict("the key has expired; create a new one"));
            }
        }
        let grace = match &asked.grace {
            None => USUAL_GRACE,
            Some(text) => span_of_text(text).ok().filter(|span| *span <= LONGEST_GRACE).ok_or_else(|| {
                Refused::flawed("grace", format!("{text:?} is not a span of time up to 90d, such as 24h"))
            })?,
        };
        if let Some(predecessor) = old.replaces
            && self.store.reader().find_key(predecessor).await?.is_some_and(|it| it.state(self.now) == KeyState::Active)
        {
            return Err(Refused::Conflict("the key that it succeeded is still accepted; revoke that one, or wait"));
        }
        let word = self.vocabulary().environment_word(&old.environment).map_err(of("environment"))?;
        let key = draw(word, old.kind, self.settings)?;
        let successor = KeyId::generate();
        let stored = Stored::of(&key, old.paired.then_some(successor), self.settings);
        let expires_at = match &asked.expires_at {
            None => old.expires_at,
            Some(moment) => moment.as_ref().map(|moment| expiry(moment, self.now)).transpose()?,
        };
        let grace_until = if grace.is_zero() { self.now } else { self.now.whole_second_after(grace) };
        // A grace lengthens no life.
        let grace_until = end_of(&old, self.settings).map_or(grace_until, |end| grace_until.min(end.max(self.now)));
        let record = KeyRecord {
            id: successor,
            hash: stored.hash,
            pepper: stored.pepper,
            prefix: stored.prefix,
            last4: stored.last4,
            active: true,
            expires_at,
            created_at: self.now,
            created_by: self.authority.actor().name,
            last_used_at: None,
            replaces: Some(old.id),
            ends_on_use: asked.retire == Retire::OnFirstUse,
            revision: Revision::ZERO,
            ..old.clone()
        };
        self.check_result(&record).await?;
        let command = Command::Rotate { successor: Box::new(record.clone()), seen: old.revision, grace_until };
        Ok(Made { record, key, command })
    }

    /// Another secret for a key that keeps its id, ready to be stored. The old one is refused at once.
    ///
    /// # Errors
    /// As [`Self::make_successor`].
    pub async fn make_secret(&self, id: KeyId, seen: Seen<'_>) -> Result<Made, Refused> {
        let old = self.key(id).await?;
        check_seen(old.revision, seen)?;
        if old.revoked_at.is_some() {
            return Err(StoreError::Revoked.into());
        }
        let word = self.vocabulary().environment_word(&old.environment).map_err(of("environment"))?;
        let key = draw(word, old.kind, self.settings)?;
        let Stored { hash, pepper, prefix, last4 } = Stored::of(&key, old.paired.then_some(old.id), self.settings);
        let record = KeyRecord { hash, pepper, prefix, last4, ..old };
        self.check_result(&record).await?;
        Ok(Made { command: Command::ReplaceKey { record: Box::new(record.clone()) }, record, key })
    }

    /// Changes a key; `seen` are the revisions that the caller may have read, if it says so.
    ///
    /// # Errors
    /// Whatever is wrong with the request, more than may be granted, or [`Refused::Changed`].
    pub async fn change_key(&self, id: KeyId, change: &KeyChange, seen: Seen<'_>) -> Result<Revision, Refused> {
        for _ in 0..TRIES {
            let before = self.key(id).await?;
            check_seen(before.revision, seen)?;
            let after = self.changed(&before, change)?;
            if is_wider(&before, &after, self.settings) {
                self.check_result(&after).await?;
            }
            match self.submit(Command::ReplaceKey { record: Box::new(after) }, None).await {
                Err(Refused::Changed) if seen.is_none() => {}
                result => return result?.ok_or(Refused::NoSuchKey(id)),
            }
        }
        Err(Refused::Changed)
    }

    fn changed(&self, before: &KeyRecord, change: &KeyChange) -> Result<KeyRecord, Refused> {
        let vocabulary = self.vocabulary();
        let mut after = before.clone();
        let KeyChange {
            name,
            description,
            scopes,
            roles,
            may_grant,
            active,
            expires_at,
            allowed_ips,
            allowed_origins,
            rate_limit,
            quota: quota_asked,
            metadata,
        } = change.clone();
        if rate_limit.is_some() || quota_asked.is_some() {
            self.authority.check_operator("rate limits and quotas")?;
        }
        if let Some(name) = name {
            after.name = checked_name(name)?;
        }
        if let Some(description) = description {
            after.description = checked_description(description)?;
        }
        if let Some(scopes) = scopes {
            after.scopes = vocabulary.scopes(&scopes, before.kind).map_err(of("scopes"))?;
        }
        if let Some(roles) = roles {
            after.roles = vocabulary.roles(&roles).map_err(of("roles"))?;
        }
        if let Some(may_grant) = may_grant {
            after.may_grant = vocabulary.scopes(&may_grant, KeyKind::Management).map_err(of("may_grant"))?;
        }
        if let Some(moment) = expires_at {
            after.expires_at = moment.map(|moment| expiry(&moment, self.now)).transpose()?;
        }
        if let Some(texts) = allowed_ips {
            after.bounds.allowed_ips = networks(&texts)?;
        }
        if let Some(texts) = allowed_origins {
            after.bounds.allowed_origins = origins(texts, before.kind)?;
        }
        if let Some(metadata) = metadata {
            after.metadata = checked_metadata(metadata)?;
        }
        if let Some(asked) = rate_limit {
            after.bounds.rate_limit = asked.as_ref().map(rate).transpose()?;
        }
        if let Some(asked) = quota_asked {
            after.bounds.quota = asked.as_ref().map(quota).transpose()?;
        }
        after.active = active.unwrap_or(after.active);
        check_powers(after.kind, after.owner, &after.scopes, &after.roles, &after.may_grant, self.settings)?;
        Ok(after)
    }

    /// Turns the reversible switch; `seen` as in [`Self::change_key`].
    ///
    /// # Errors
    /// A key that would be accepted must be within what the caller may grant, whoever switched it off meanwhile.
    pub async fn set_active(&self, id: KeyId, active: bool, seen: Seen<'_>) -> Result<Revision, Refused> {
        if !active {
            // The command names no revision: whoever changes the record between this and it is not noticed, which costs
            // nothing, since what is switched off needs no second look.
            check_seen(self.key(id).await?.revision, seen)?;
            return self.submit(Command::SetActive { id, active }, None).await?.ok_or(Refused::NoSuchKey(id));
        }
        for _ in 0..TRIES {
            let before = self.key(id).await?;
            check_seen(before.revision, seen)?;
            self.check_result(&before).await?;
            // What was looked at is what is switched on, or nothing is.
            let record = Box::new(KeyRecord { active, ..before });
            match self.submit(Command::ReplaceKey { record }, None).await {
                Err(Refused::Changed) if seen.is_none() => {}
                result => return result?.ok_or(Refused::NoSuchKey(id)),
            }
        }
        Err(Refused::Changed)
    }

    /// Switches a key off for good. Doing it again changes nothing. `seen` as in [`Self::change_key`].
    ///
    /// # Errors
    /// [`Refused::NoSuchKey`], [`Refused::Changed`], and the store's.
    pub async fn revoke(&self, id: KeyId, seen: Seen<'_>) -> Result<Revision, Refused> {
        // As in `set_active`, the command names no revision.
        check_seen(self.key(id).await?.revision, seen)?;
        self.submit(Command::Revoke { id }, None).await?.ok_or(Refused::NoSuchKey(id))
    }

    /// A new owner, ready to be stored.
    ///
    /// # Errors
    /// Whatever is wrong with the request.
    pub fn make_owner(&self, asked: NewOwner) -> Result<OwnerRecord, Refused> {
        self.authority.check_operator("owners")?;
        let NewOwner { name, rate_limit, quota: quota_asked, max_keys, may_grant, metadata } = asked;
        Ok(OwnerRecord {
            id: OwnerId::generate(),
            name: checked_name(name)?,
            suspended: false,
            rate_limit: rate_limit.as_ref().map(rate).transpose()?,
            quota: quota_asked.as_ref().map(quota).transpose()?,
            max_keys: max_keys.map(|most| most.0),
            may_grant: may_grant.map(|texts| self.ceiling(&texts)).transpose()?,
            created_at: self.now,
            metadata: checked_metadata(metadata)?,
            revision: Revision::ZERO,
        })
    }

    /// Changes an owner; `seen` are the revisions that the caller may have read, if it says so.
    ///
    /// # Errors
    /// Whatever is wrong with the request, or [`Refused::Changed`].
    pub async fn change_owner(&self, id: OwnerId, change: &OwnerChange, seen: Seen<'_>) -> Result<Revision, Refused> {
        for _ in 0..TRIES {
            let before = self.owner(id).await?;
            self.authority.check_operator("owners")?;
            check_seen(before.revision, seen)?;
            let OwnerChange { name, rate_limit, quota: quota_asked, max_keys, may_grant, metadata } = change.clone();
            let may_grant = match may_grant {
                None => before.may_grant,
                Some(None) => None,
                Some(Some(texts)) => Some(self.ceiling(&texts)?),
            };
            let after = OwnerRecord {
                name: name.map(checked_name).transpose()?.unwrap_or(before.name),
                rate_limit: match rate_limit {
                    None => before.rate_limit,
                    Some(asked) => asked.as_ref().map(rate).transpose()?,
                },
                quota: match quota_asked {
                    None => before.quota,
                    Some(asked) => asked.as_ref().map(quota).transpose()?,
                },
                max_keys: max_keys.map_or(before.max_keys, |asked| asked.map(|most| most.0)),
                may_grant,
                metadata: metadata.map(checked_metadata).transpose()?.unwrap_or(before.metadata),
                ..before
            };
            match self.submit(Command::ReplaceOwner { record: after }, None).await {
                Err(Refused::Changed) if seen.is_none() => {}
                result => return result?.ok_or(Refused::NoSuchOwner(id)),
            }
        }
        Err(Refused::Changed)
    }

    /// Refuses all keys of an owner, or accepts them again; `seen` as in [`Self::change_key`].
    ///
    /// # Errors
    /// [`Refused::NoSuchOwner`], [`Refused::Changed`], and the store's.
    pub async fn set_suspended(&self, id: OwnerId, suspended: bool, seen: Seen<'_>) -> Result<Revision, Refused> {
        let owner = self.owner(id).await?;
        self.authority.check_operator("owners")?;
        // As in `set_active`, the command names no revision.
        check_seen(owner.revision, seen)?;
        self.submit(Command::SetSuspended { id, suspended }, None).await?.ok_or(Refused::NoSuchOwner(id))
    }

    /// Gives the store a command in the caller's name; `repeatable` is kept with it. `None` when there was nothing to
    /// change.
    ///
    /// # Errors
    /// The store's.
    pub async fn submit(
        &self,
        command: Command,
        repeatable: Option<(RepeatName, Repeatable)>,
    ) -> Result<Option<Revision>, Refused> {
        let order = Order { command, by: self.authority.actor(), now: self.now, repeatable };
        Ok(self.store.writer().submit(order).await.map(Effect::revision)?)
    }

    /// Whether the caller, and the owner's ceiling, cover what a key will hold.
    async fn check_result(&self, record: &KeyRecord) -> Result<(), Refused> {
        let owner = match record.owner {
            None => None,
            Some(id) => Some(self.owner(id).await?),
        };
        self.authority.check_grant(record, owner.as_ref(), self.settings)
    }

    async fn owner_of(&self, asked: Option<&str>) -> Result<Option<OwnerRecord>, Refused> {
        let asked: Option<OwnerId> = asked
            .map(|text| text.parse().map_err(|error| Flaw::new("owner", format!("{text:?}: {error}"))))
            .transpose()?;
        let sight = self.authority.sight();
        let id = match (asked, sight) {
            (Some(asked), _) if !sight.sees_owner(asked) => return Err(Refused::NoSuchOwner(asked)),
            (asked, sight) => asked.or(sight.owner()),
        };
        match id {
            None => Ok(None),
            Some(id) => match self.owner(id).await {
                Err(Refused::NoSuchOwner(_)) => Err(Refused::flawed("owner", "there is no such owner")),
                found => found.map(Some),
            },
        }
    }

    pub(super) fn vocabulary(&self) -> Vocabulary<'_> {
        Vocabulary::told_to(self.settings, self.authority)
    }

    fn ceiling(&self, texts: &[String]) -> Result<Vec<GrantedScope>, Refused> {
        Ok(self.vocabulary().scopes(texts, KeyKind::Management).map_err(of("may_grant"))?)
    }
}

/// Refuses to change what is not as its caller read it.
fn check_seen(revision: Revision, seen: Seen<'_>) -> Result<(), Refused> {
    if seen.is_none_or(|seen| seen.contains(&revision)) { Ok(()) } else { Err(Refused::Changed) }
}

/// From when on time alone refuses a key: its expiry, or the greatest age in its environment.
fn end_of(key: &KeyRecord, settings: &GateSettings) -> Option<Timestamp> {
    let greatest_age = settings.environments.get(&key.environment).and_then(|environment| environment.max_key_age);
    let aged = greatest_age.map(|age| key.created_at.plus(age));
    [key.expires_at, aged].into_iter().flatten().min()
}
