//! What a row looks like, for the API's description. Cells of a table are texts, so most members may be one.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// A key that was made elsewhere. `null` and an empty text are as good as absent.
#[derive(JsonSchema, Deserialize)]
#[expect(dead_code, reason = "only its schema is used")]
#[schemars(rename = "Row", deny_unknown_fields)]
pub struct RowShape {
    /// A label for people; need not be unique.
    #[schemars(length(min = 1, max = 200))]
    name: String,
    /// What it may use: a list, or one text with spaces or commas in between.
    scopes: Texts,
    /// The key itself; it is hashed at once and never stored. Either this or `hash`.
    key: Option<String>,
    /// `sha256:` and 64 hexadecimal digits. Either this or `key`.
    hash: Option<String>,
    /// The public beginning of a key that is imported by its hash.
    prefix: Option<String>,
    /// The last four characters of a key that is imported by its hash.
    last4: Option<String>,
    /// Free text.
    description: Option<String>,
    /// The account it belongs to. A caller with an owner imports keys of that owner.
    owner: Option<String>,
    /// Where it lives. Without it: what `key` says, else `live`, or where the caller lives.
    environment: Option<String>,
    /// `secret`, `publishable` or `management`. Without it: what `key` says, else `secret`.
    kind: Option<String>,
    /// Named bundles of scopes it holds too.
    roles: Option<Texts>,
    /// What it may hand out to other keys.
    may_grant: Option<Texts>,
    /// Networks that its requests come from, as CIDR; none: any.
    allowed_ips: Option<Texts>,
    /// Origins of the pages that may use it, for publishable keys; none: any.
    allowed_origins: Option<Texts>,
    /// Its own rate limit, as in a record, as JSON text, or as `10/1s` or `10/1s+20`. For operators.
    rate_limit: Option<Terms>,
    /// Its own quota, as in a record, as JSON text, or as `1000/day`, `20000/month` or both. For operators.
    quota: Option<Terms>,
    /// The reversible switch; `true` unless said.
    active: Option<Flag>,
    /// From then on it is refused.
    expires_at: Option<String>,
    /// When it was switched off for good.
    revoked_at: Option<String>,
    /// Until when it is accepted beside its successor.
    grace_until: Option<String>,
    /// Notes of your own, as an object or as JSON text.
    metadata: Option<Terms>,
    /// Its id. Without it: a new one. For operators, as all that follows.
    id: Option<String>,
    /// When it was made. Without it: now.
    created_at: Option<String>,
    /// Who made it. Without it: who imports it.
    created_by: Option<String>,
    /// When it was last used.
    last_used_at: Option<String>,
    /// The key that it succeeded.
    replaces: Option<String>,
}

/// A list of texts, or one text with spaces or commas in between.
#[derive(JsonSchema, Deserialize)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum Texts {
    List(Vec<String>),
    Text(String),
}

/// An object, or the same as JSON text.
#[derive(JsonSchema, Deserialize)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum Terms {
    Object(BTreeMap<String, Value>),
    Text(String),
}

/// Yes or no, or the same as a text.
#[derive(JsonSchema, Deserialize)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum Flag {
    Flag(bool),
    Text(String),
}
