//! What records look like, for the API's description. A test holds what is shown to it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::time::{show_duration, span_of_text};
use crate::domain::{KeyKind, Quota, RateLimit};

/// What a key may be used for.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum KindWord {
    /// Server to server.
    Secret,
    /// May stand in a web page.
    Publishable,
    /// Speaks to the management API.
    Management,
}

impl From<KindWord> for KeyKind {
    fn from(word: KindWord) -> Self {
        match word {
            KindWord::Secret => Self::Secret,
            KindWord::Publishable => Self::Publishable,
            KindWord::Management => Self::Management,
        }
    }
}

impl From<KeyKind> for KindWord {
    fn from(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Secret => Self::Secret,
            KeyKind::Publishable => Self::Publishable,
            KeyKind::Management => Self::Management,
        }
    }
}

/// Whether a key is accepted, and if not, why.
#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum StateWord {
    /// Accepted, unless its owner is suspended.
    Active,
    /// Switched off, reversibly.
    Disabled,
    /// Past its time.
    Expired,
    /// Switched off for good.
    Revoked,
}

/// A moment as it is written: RFC 3339.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug)]
#[schemars(extend("format" = "date-time"))]
pub struct Moment(pub String);

/// A whole number; `5.0` is one, too (JSON Schema 2020-12 §6.1.1).
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug)]
#[serde(try_from = "serde_json::Number")]
#[schemars(with = "u32", extend("maximum" = u32::MAX))]
pub struct Whole(pub u32);

impl TryFrom<serde_json::Number> for Whole {
    type Error = String;

    fn try_from(number: serde_json::Number) -> Result<Self, String> {
        whole(&number)
            .and_then(|whole| whole.try_into().ok())
            .map(Self)
            .ok_or_else(|| format!("{number} is no whole number from 0 to {}", u32::MAX))
    }
}

fn whole(number: &serde_json::Number) -> Option<u64> {
    /// Above this a `f64` cannot tell neighbours apart.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is whole and within bounds")]
    let of_float = |float: f64| (float.fract() == 0.0 && (0.0..=EXACT).contains(&float)).then_some(float as u64);
    number.as_u64().or_else(|| of_float(number.as_f64()?))
}

/// So many requests in so long a time.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// How many requests in `per`.
    #[schemars(range(min = 1))]
    pub requests: Whole,
    /// `1s` to `24h`.
    #[schemars(regex(pattern = "^[0-9]+(ms|s|m|h|d)$"))]
    pub per: String,
    /// How many may come at once. Without it: `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub burst: Option<Whole>,
}

impl Rate {
    /// The limit that it means.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&self) -> Result<RateLimit, String> {
        let per = span_of_text(&self.per).map_err(|error| format!("`per` {error}"))?;
        RateLimit::new(self.requests.0, per, self.burst.map(|burst| burst.0)).map_err(|error| error.to_string())
    }
}

impl From<RateLimit> for Rate {
    fn from(limit: RateLimit) -> Self {
        let whole = |number: std::num::NonZeroU32| Whole(number.get());
        Self { requests: whole(limit.requests()), per: show_duration(limit.per()), burst: Some(whole(limit.burst())) }
    }
}

/// So many requests in a day, in a month, or both, by the calendar of UTC.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug)]
#[schemars(rename = "Quota")]
#[serde(deny_unknown_fields)]
pub struct QuotaShape {
    /// From midnight to midnight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>", range(min = 1))]
    pub per_day: Option<serde_json::Number>,
    /// From the first of a month to the first of the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>", range(min = 1))]
    pub per_month: Option<serde_json::Number>,
}

impl QuotaShape {
    /// The quota that it means.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&self) -> Result<Quota, String> {
        let number = |number: &Option<serde_json::Number>| match number {
            None => Ok(None),
            Some(number) => whole(number).map(Some).ok_or_else(|| format!("{number} is no whole number")),
        };
        Quota::new(number(&self.per_day)?, number(&self.per_month)?).map_err(|error| error.to_string())
    }
}

impl From<Quota> for QuotaShape {
    fn from(quota: Quota) -> Self {
        let number = |number: std::num::NonZeroU64| serde_json::Number::from(number.get());
        Self { per_day: quota.per_day().map(number), per_month: quota.per_month().map(number) }
    }
}

/// Records show all their members.
fn all_required(schema: &mut schemars::Schema) {
    let names = schema.get("properties").and_then(Value::as_object).map(|all| all.keys().cloned().collect::<Vec<_>>());
    schema.insert("required".to_owned(), names.unwrap_or_default().into());
}

/// A key's record: everything but the key.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
#[schemars(rename = "Key", deny_unknown_fields, transform = all_required)]
pub struct KeyShape {
    /// Its public name for ever.
    #[schemars(regex(pattern = "^key_[0-9a-f]{32}$"))]
    id: String,
    /// A label; not unique.
    name: String,
    /// Free text.
    description: String,
    /// The account it belongs to; `null`: an operator's key.
    owner: Option<String>,
    /// Where it lives.
    environment: String,
    kind: KindWord,
    /// The public beginning of its text; empty for a key imported by hash.
    prefix: String,
    /// The last four characters of its text.
    last4: String,
    /// Whether its credential is its id, a colon and a secret.
    paired: bool,
    /// What it may use.
    scopes: Vec<String>,
    /// Named bundles of scopes it holds too.
    roles: Vec<String>,
    /// What it may hand out to other keys.
    may_grant: Vec<String>,
    /// Networks that its requests come from; empty: any.
    allowed_ips: Vec<String>,
    /// Origins of the pages that may use it; empty: any.
    allowed_origins: Vec<String>,
    rate_limit: Option<Rate>,
    quota: Option<QuotaShape>,
    /// The reversible switch.
    active: bool,
    state: StateWord,
    expires_at: Option<Moment>,
    created_at: Moment,
    /// A key id, or `local:<user>`; for all but operators `operator` in place of what is no key id.
    created_by: String,
    /// Written in batches, some seconds behind.
    last_used_at: Option<Moment>,
    revoked_at: Option<Moment>,
    /// The key it succeeded by rotation.
    replaces: Option<String>,
    /// Until when it is accepted beside its successor.
    grace_until: Option<Moment>,
    /// Whether its first use ends the grace of the key it succeeded.
    ends_on_use: bool,
    /// Notes of your own.
    metadata: BTreeMap<String, Value>,
    /// The store-wide revision that last changed it; its entity tag.
    revision: u64,
}

/// An owner's record.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
#[schemars(rename = "Owner", deny_unknown_fields, transform = all_required)]
pub struct OwnerShape {
    /// Its public name for ever.
    #[schemars(regex(pattern = "^own_[0-9a-f]{32}$"))]
    id: String,
    /// A label; not unique.
    name: String,
    /// While true, all its keys are refused.
    suspended: bool,
    rate_limit: Option<Rate>,
    quota: Option<QuotaShape>,
    /// How many keys it may have that are not revoked; `null`: any number.
    max_keys: Option<u32>,
    /// The ceiling of what its keys may be granted; `null`: none.
    may_grant: Option<Vec<String>>,
    created_at: Moment,
    /// Notes of your own.
    metadata: BTreeMap<String, Value>,
    /// The store-wide revision that last changed it; its entity tag.
    revision: u64,
}
