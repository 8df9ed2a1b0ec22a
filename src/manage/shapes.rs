//! What records look like, for the API's description. A test holds what is shown to it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde_json::Value;

/// What a key may be used for.
#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum KindWord {
    /// Server to server.
    Secret,
    /// May stand in a web page.
    Publishable,
    /// Speaks to the management API.
    Management,
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

/// RFC 3339.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct Moment(#[schemars(extend("format" = "date-time"))] String);

/// So many requests in so long a time.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
#[schemars(deny_unknown_fields)]
pub(super) struct Rate {
    /// How many requests in `per`.
    #[schemars(range(min = 1))]
    requests: u32,
    /// `1s` to `24h`.
    #[schemars(regex(pattern = "^[0-9]+(ms|s|m|h|d)$"))]
    per: String,
    /// How many may come at once. Without it: `requests`.
    #[schemars(range(min = 1))]
    burst: Option<u32>,
}

/// So many requests in a day, in a month, or both, by the calendar of UTC.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
#[schemars(deny_unknown_fields)]
pub(super) struct QuotaShape {
    /// From midnight to midnight.
    #[schemars(range(min = 1))]
    per_day: Option<u64>,
    /// From the first of a month to the first of the next.
    #[schemars(range(min = 1))]
    per_month: Option<u64>,
}

/// A key's record: everything but the key.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
#[schemars(rename = "Key", deny_unknown_fields)]
pub struct KeyShape {
    /// Its public name for ever.
    #[schemars(regex(pattern = "^key_[0-9a-f]{32}$"))]
    id: String,
    /// A label; not unique.
    name: String,
    /// Free text.
    description: String,
    /// The account it belongs to; `null`: an operator's key.
    #[schemars(required)]
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
    #[schemars(required)]
    rate_limit: Option<Rate>,
    #[schemars(required)]
    quota: Option<QuotaShape>,
    /// The reversible switch.
    active: bool,
    state: StateWord,
    #[schemars(required)]
    expires_at: Option<Moment>,
    created_at: Moment,
    /// A key id, or `local:<user>`.
    created_by: String,
    /// Written in batches, some seconds behind.
    #[schemars(required)]
    last_used_at: Option<Moment>,
    #[schemars(required)]
    revoked_at: Option<Moment>,
    /// The key it succeeded by rotation.
    #[schemars(required)]
    replaces: Option<String>,
    /// Until when it is accepted beside its successor.
    #[schemars(required)]
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
#[schemars(rename = "Owner", deny_unknown_fields)]
pub struct OwnerShape {
    /// Its public name for ever.
    #[schemars(regex(pattern = "^own_[0-9a-f]{32}$"))]
    id: String,
    /// A label; not unique.
    name: String,
    /// While true, all its keys are refused.
    suspended: bool,
    #[schemars(required)]
    rate_limit: Option<Rate>,
    #[schemars(required)]
    quota: Option<QuotaShape>,
    /// How many keys it may have that are not revoked; `null`: any number.
    #[schemars(required)]
    max_keys: Option<u32>,
    /// The ceiling of what its keys may be granted; `null`: none.
    #[schemars(required)]
    may_grant: Option<Vec<String>>,
    created_at: Moment,
    /// Notes of your own.
    metadata: BTreeMap<String, Value>,
    /// The store-wide revision that last changed it; its entity tag.
    revision: u64,
}
