//! One row of an import as the record it stands for.
//!
//! Owns what each field means and which combinations make sense. No message repeats a `key`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::rows::shown_name;
use crate::domain::key_text::KeyTextForm;
use crate::domain::{Bounds, KeyHash, KeyId, KeyKind, KeyRecord, OwnerId, PresentedKey, Timestamp, did_you_mean};
use crate::gate::GateSettings;
use crate::manage::authority::Authority;
use crate::manage::checks::{check_powers, checked_metadata, environment_of, networks, origins};
use crate::manage::draft::{Draft, Stored};
use crate::manage::fault::{Flaw, Refused};
use crate::manage::notation::{quota_of_text, rate_limit_of_text};
use crate::manage::requests::Object;
use crate::manage::shapes::{QuotaShape, Rate};
use crate::manage::vocabulary::{Vocabulary, check_description, check_name};

/// What rows are read with.
pub struct RowReader<'a> {
    vocabulary: Vocabulary<'a>,
    settings: &'a GateSettings,
    authority: &'a Authority,
    by: String,
    now: Timestamp,
    scopes: &'static str,
}

/// Longest `prefix` of a key that is imported by its hash: it is shown in lists.
const MAX_PREFIX_CHARS: usize = 64;

/// Shortest text of a key that is imported as it is. Of one that is imported by its hash nobody knows how long it is.
const MIN_KEY_CHARS: usize = 16;

/// How rate limits are written in rows.
const RATE_LIMITS: &str = "10/1s, 10/1s+20, or {\"requests\":10,\"per\":\"1s\",\"burst\":20}";

/// How quotas are written in rows.
const QUOTAS: &str = "1000/day, 1000/day,20000/month, or {\"per_day\":1000,\"per_month\":20000}";

/// What a record tells of its past. Whoever is no operator makes none but new keys.
const PAST: [&str; 5] = ["id", "created_at", "created_by", "last_used_at", "replaces"];

impl<'a> RowReader<'a> {
    /// Reads rows on somebody's behalf, with the words of a configuration.
    pub fn new(settings: &'a GateSettings, authority: &'a Authority, now: Timestamp) -> Self {
        Self {
            vocabulary: Vocabulary::of(settings),
            settings,
            authority,
            by: authority.actor().name,
            now,
            scopes: "scopes",
        }
    }

    /// The same for rows that may call the member `scopes` by another name.
    #[must_use]
    pub fn calling_scopes(mut self, name: &'static str) -> Self {
        self.scopes = name;
        self
    }

    /// The record that a row stands for. Whether its owner exists, and whether as much may be granted, is not looked at.
    ///
    /// # Errors
    /// What is wrong with the row, and how to mend it. Never its `key`.
    pub(super) fn record(&self, fields: Map<String, Value>) -> Result<KeyRecord, String> {
        let as_called = |problem: String| match self.scopes {
            "scopes" => problem,
            other => problem.replace("`scopes`", &format!("`{other}`")),
        };
        self.read(fields).map_err(as_called)
    }

    fn read(&self, fields: Map<String, Value>) -> Result<KeyRecord, String> {
        let mut row = Fields(fields);
        if self.scopes != "scopes"
            && !row.0.contains_key("scopes")
            && let Some(scopes) = row.0.remove(self.scopes)
        {
            row.0.insert("scopes".to_owned(), scopes);
        }
        self.check_past(&mut row)?;
        let id = row.parsed::<KeyId>("id")?;
        let name = row.text("name")?.ok_or("`name` is missing")?;
        check_name(&name)?;
        let description = row.text("description")?.unwrap_or_default();
        check_description(&description)?;
        let identity = self.identity(&mut row)?;
        let kind = self.agreed("kind", row.kind()?, identity.kind)?.unwrap_or(KeyKind::Secret);
        if kind == KeyKind::Management && self.authority.is_at_data_door() {
            return Err("management keys are made by management keys".to_owned());
        }
        let environment = row.text("environment")?;
        let environment = self.agreed("environment", environment, identity.environment)?;
        let environment = environment_of(self.authority, environment).map_err(said)?;
        self.vocabulary.environment_word(&environment)?;
        let scopes =
            row.list("scopes")?.ok_or("`scopes` is missing; a key without scopes says so with an empty list")?;
        let may_grant = row.list("may_grant")?.unwrap_or_default();
        let draft = Draft {
            name,
            description,
            owner: self.owner(row.parsed("owner")?)?,
            environment,
            kind,
            scopes: self.vocabulary.scopes(&scopes, kind)?,
            roles: self.vocabulary.roles(&row.list("roles")?.unwrap_or_default())?,
            may_grant: self.vocabulary.scopes(&may_grant, KeyKind::Management)?,
            bounds: self.bounds(&mut row, kind)?,
            expires_at: row.parsed("expires_at")?,
            metadata: row.metadata()?,
            paired: false,
        };
        check_powers(kind, draft.owner, &draft.scopes, &draft.roles, &draft.may_grant, self.settings).map_err(said)?;
        let id = id.unwrap_or_else(KeyId::generate);
        let mut record = draft.record(id, identity.stored, &self.by, self.now);
        record.active = row.flag("active")?.unwrap_or(true);
        record.created_at = row.parsed("created_at")?.unwrap_or(record.created_at);
        record.created_by = row.text("created_by")?.unwrap_or(record.created_by);
        if record.created_by.chars().any(char::is_control) {
            return Err("`created_by` holds a control character".to_owned());
        }
        record.last_used_at = row.parsed("last_used_at")?;
        record.revoked_at = row.parsed("revoked_at")?;
        record.replaces = row.parsed("replaces")?;
        record.grace_until = row.parsed("grace_until")?;
        row.finish()?;
        Ok(record)
    }

    fn check_past(&self, row: &mut Fields) -> Result<(), String> {
        if self.authority.is_operator() {
            return Ok(());
        }
        match PAST.into_iter().find(|name| row.take(name).is_some()) {
            Some(name) => Err(format!("only operators say what `{name}` is; leave it out")),
            None => Ok(()),
        }
    }

    /// The owner that a row names; that of the caller, where it has one.
    fn owner(&self, asked: Option<OwnerId>) -> Result<Option<OwnerId>, String> {
        let sight = self.authority.sight();
        match asked {
            Some(asked) if !sight.sees_owner(asked) => Err(Refused::NoSuchOwner(asked).to_string()),
            asked => Ok(asked.or(sight.owner())),
        }
    }

    /// What narrows the key's use.
    fn bounds(&self, row: &mut Fields, kind: KeyKind) -> Result<Bounds, String> {
        let bounds = Bounds {
            allowed_ips: networks(&row.list("allowed_ips")?.unwrap_or_default()).map_err(said)?,
            allowed_origins: origins(row.list("allowed_origins")?.unwrap_or_default(), kind).map_err(said)?,
            rate_limit: row.terms("rate_limit", RATE_LIMITS, Rate::read, rate_limit_of_text)?,
            quota: row.terms("quota", QUOTAS, QuotaShape::read, quota_of_text)?,
        };
        if bounds.rate_limit.is_some() || bounds.quota.is_some() {
            self.authority.check_operator("rate limits and quotas").map_err(|refused| refused.to_string())?;
        }
        Ok(bounds)
    }

    /// What the key hashes to, from its text or from its hash.
    fn identity(&self, row: &mut Fields) -> Result<Identity, String> {
        let (prefix, last4) = (row.text("prefix")?, row.text("last4")?);
        match (row.text("key")?.map(Zeroizing::new), row.text("hash")?) {
            (None, None) => Err("neither `key` nor `hash` is there".to_owned()),
            (Some(_), Some(_)) => Err("`key` and `hash` are both there; keep one".to_owned()),
            (Some(_), None) if prefix.is_some() || last4.is_some() => {
                Err("`prefix` and `last4` are taken from `key`; leave them out".to_owned())
            }
            (Some(key), None) => self.of_text(&key),
            (None, Some(hash)) => {
                let hash: KeyHash = hash.parse().map_err(|error| format!("`hash`: {error}"))?;
                let (prefix, last4) = (prefix.unwrap_or_default(), last4.unwrap_or_default());
                if prefix.chars().count() > MAX_PREFIX_CHARS || last4.chars().count() > 4 {
                    return Err(format!("`prefix` has at most {MAX_PREFIX_CHARS} characters and `last4` has 4"));
                }
                if prefix.chars().chain(last4.chars()).any(char::is_control) {
                    return Err("`prefix` or `last4` holds a control character".to_owned());
                }
                Ok(Identity { stored: Stored { hash, pepper: None, prefix, last4 }, kind: None, environment: None })
            }
        }
    }

    fn of_text(&self, text: &str) -> Result<Identity, String> {
        let key = PresentedKey::new(text)
            .ok_or("`key` is no credential: it is empty, over 8 KiB, or holds more than visible ASCII")?;
        if text.len() < MIN_KEY_CHARS {
            return Err(format!(
                "`key` has fewer than {MIN_KEY_CHARS} characters, which can be guessed; give its holder a new one, or \
                 import it by its `hash`"
            ));
        }
        let (hash, pepper) = self.settings.hasher.hash_new(&key);
        let stored = |prefix: &str, last4: &str| Stored {
            hash,
            pepper: pepper.map(str::to_owned),
            prefix: prefix.to_owned(),
            last4: last4.to_owned(),
        };
        match key.form(&self.settings.brand) {
            KeyTextForm::BadChecksum => {
                Err("`key` is in our format with a wrong checksum, so it would never be accepted".to_owned())
            }
            KeyTextForm::Ours { environment: word, kind, prefix } => {
                let environment = self
                    .vocabulary
                    .environment_of_word(word)
                    .ok_or_else(|| format!("`key` says environment `{word}`, which the configuration does not know"))?;
                Ok(Identity {
                    stored: stored(prefix, &text[text.len() - 4..]),
                    kind: Some(kind),
                    environment: Some(environment.to_owned()),
                })
            }
            KeyTextForm::Foreign => {
                let (prefix, last4) = visible_parts(text);
                Ok(Identity { stored: stored(prefix, last4), kind: None, environment: None })
            }
        }
    }

    /// What a row says and what its key says must be the same.
    fn agreed<T: PartialEq + Display>(
        &self,
        field: &str,
        said: Option<T>,
        in_key: Option<T>,
    ) -> Result<Option<T>, String> {
        match (said, in_key) {
            (Some(said), Some(in_key)) if said != in_key => {
                Err(format!("`{field}` is `{said}`, and `key` says `{in_key}`"))
            }
            (said, in_key) => Ok(said.or(in_key)),
        }
    }
}

/// How a key will be recognised, and what its text says about it.
struct Identity {
    stored: Stored,
    kind: Option<KeyKind>,
    environment: Option<String>,
}

/// What may be shown of a key in a format of its own: so little that the rest stays unguessable.
fn visible_parts(text: &str) -> (&str, &str) {
    match text.len() {
        0..24 => ("", ""),
        24..40 => (&text[..4], &text[text.len() - 4..]),
        _ => (&text[..8], &text[text.len() - 4..]),
    }
}

/// Fields that a row may have.
const KNOWN: [&str; 26] = [
    "id",
    "name",
    "description",
    "owner",
    "environment",
    "kind",
    "prefix",
    "last4",
    "key",
    "hash",
    "scopes",
    "roles",
    "may_grant",
    "allowed_ips",
    "allowed_origins",
    "rate_limit",
    "quota",
    "active",
    "expires_at",
    "created_at",
    "created_by",
    "last_used_at",
    "revoked_at",
    "replaces",
    "grace_until",
    "metadata",
];

/// A row that is taken apart, field by field. `null` and an empty cell are as good as absent; an empty list is not.
struct Fields(Map<String, Value>);

impl Fields {
    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("`{name}` is not a text")),
        }
    }

    fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Result<Option<T>, String> {
        let parse = |text: String| text.parse().map_err(|error| format!("`{name}`: {error}"));
        self.text(name)?.map(parse).transpose()
    }

    fn kind(&mut self) -> Result<Option<KeyKind>, String> {
        let parse = |text: String| {
            KeyKind::from_name(&text).ok_or_else(|| "`kind` is secret, publishable or management".to_owned())
        };
        self.text("kind")?.map(parse).transpose()
    }

    fn flag(&mut self, name: &str) -> Result<Option<bool>, String> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(Value::String(text)) if text == "true" => Ok(Some(true)),
            Some(Value::String(text)) if text == "false" => Ok(Some(false)),
            Some(_) => Err(format!("`{name}` is neither true nor false")),
        }
    }

    /// A list of texts, or one text with spaces or commas between them.
    fn list(&mut self, name: &str) -> Result<Option<Vec<String>>, String> {
        let split = |text: String| {
            text.split([' ', ',']).filter(|entry| !entry.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(split(text))),
            Some(Value::Array(items)) => {
                let text = |item: Value| match item {
                    Value::String(text) => Ok(text),
                    _ => Err(format!("`{name}` is not a list of texts")),
                };
                items.into_iter().map(text).collect::<Result<_, _>>().map(Some)
            }
            Some(_) => Err(format!("`{name}` is not a list of texts")),
        }
    }

    /// What is an object, its JSON text, or written as on a command line; `forms` are what may be written.
    fn terms<S: DeserializeOwned, T>(
        &mut self,
        name: &str,
        forms: &str,
        read: impl Fn(&S) -> Result<T, String>,
        read_text: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        // The words of serde_json name types of ours, and places within the cell.
        let object = |value: Result<Value, serde_json::Error>| {
            let shape = value.ok().and_then(|value| serde_json::from_value::<Object<S>>(value).ok());
            let Object(shape) = shape.ok_or_else(|| format!("`{name}` is written as {forms}"))?;
            read(&shape).map_err(|problem| format!("`{name}`: {problem}"))
        };
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.trim_start().starts_with('{') => {
                object(serde_json::from_str(&text)).map(Some)
            }
            Some(Value::String(text)) => {
                read_text(text.trim()).map(Some).map_err(|problem| format!("`{name}`: {problem}"))
            }
            Some(value) => object(Ok(value)).map(Some),
        }
    }

    fn metadata(&mut self) -> Result<BTreeMap<String, Value>, String> {
        let entries = match self.take("metadata") {
            None => return Ok(BTreeMap::new()),
            Some(Value::Object(entries)) => entries,
            Some(Value::String(text)) => {
                serde_json::from_str(&text).map_err(|_| "`metadata` is not a JSON object".to_owned())?
            }
            Some(_) => return Err("`metadata` is not a JSON object".to_owned()),
        };
        checked_metadata(entries.into_iter().collect()).map_err(said)
    }

    /// Refuses what nobody asked for.
    fn finish(self) -> Result<(), String> {
        let Some(stranger) = self.0.keys().next() else { return Ok(()) };
        let meant = did_you_mean(stranger, KNOWN).map(|meant| format!("; did you mean `{meant}`?"));
        Err(format!("a key has no field{}{}", shown_name(stranger), meant.unwrap_or_default()))
    }
}

/// A flaw in one line.
fn said(flaw: Flaw) -> String {
    Refused::from(flaw).to_string()
}

#[cfg(test)]
#[path = "row_tests.rs"]
mod tests;
