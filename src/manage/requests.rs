//! What can be asked for, as JSON says it. Reading is strict: a field that nobody knows is an error.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::shapes::{KindWord, Moment, QuotaShape, Rate, Whole};

/// A key to be made.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Default, Clone)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// A label for people; need not be unique.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
    /// Free text.
    #[serde(default)]
    #[schemars(length(max = 2000))]
    pub description: String,
    /// The account it belongs to. A caller with an owner makes keys of that owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^own_[0-9a-f]{32}$"))]
    pub owner: Option<String>,
    /// Where it lives. Without it: `live`, or where the caller lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// What it may be used for. Without it: `secret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<KindWord>,
    /// What it may use. `orders:*` covers everything below.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub scopes: Vec<String>,
    /// Named bundles of scopes it holds too.
    #[serde(default)]
    #[schemars(length(max = 50))]
    pub roles: Vec<String>,
    /// What it may hand out to other keys.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub may_grant: Vec<String>,
    /// From then on it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Moment>,
    /// Networks that its requests come from, as CIDR; none: any.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub allowed_ips: Vec<String>,
    /// Origins of the pages that may use it, for publishable keys; none: any.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub allowed_origins: Vec<String>,
    /// Its own rate limit. For operators.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Rate>,
    /// Its own quota. For operators.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaShape>,
    /// Notes of your own.
    #[serde(default)]
    pub metadata: BTreeMap<String, Value>,
    /// Make a pair: the credential is the key's id, a colon and a secret that can be replaced.
    #[serde(default)]
    pub paired: bool,
}

/// What shall be different about a key. What is left out stays.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Default, Clone)]
#[serde(deny_unknown_fields, default)]
pub struct KeyChange {
    /// See the record.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 200))]
    pub name: Option<String>,
    /// See the record.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 2000))]
    pub description: Option<String>,
    /// In place of those it has.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>", length(max = 200))]
    pub scopes: Option<Vec<String>>,
    /// In place of those it has.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>", length(max = 50))]
    pub roles: Option<Vec<String>>,
    /// In place of those it has.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>", length(max = 200))]
    pub may_grant: Option<Vec<String>>,
    /// The reversible switch.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    pub active: Option<bool>,
    /// `null`: never.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Option<Moment>>,
    /// In place of those it has.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>", length(max = 100))]
    pub allowed_ips: Option<Vec<String>>,
    /// In place of those it has.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>", length(max = 100))]
    pub allowed_origins: Option<Vec<String>>,
    /// `null`: its environment's. For operators.
    #[serde(deserialize_with = "given_object", skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Option<Rate>>,
    /// `null`: its environment's. For operators.
    #[serde(deserialize_with = "given_object", skip_serializing_if = "Option::is_none")]
    pub quota: Option<Option<QuotaShape>>,
    /// In place of what it has.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BTreeMap<String, Value>")]
    pub metadata: Option<BTreeMap<String, Value>>,
}

/// How a key gives way to its successor.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Default, Clone)]
#[serde(deny_unknown_fields, default)]
pub struct Rotation {
    /// How long the old key is still accepted, `0` to `90d`, and no longer than it would have been anyway. Without it: `24h`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^(0|[0-9]+(ms|s|m|h|d))$"))]
    pub grace: Option<String>,
    /// Whether the first use of the new key ends the grace early.
    pub retire: Retire,
    /// When the new key expires; `null`: never. Without it: as the old one does.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Option<Moment>>,
}

/// When a key that was rotated is refused.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Retire {
    /// At the end of the grace.
    #[default]
    AfterGrace,
    /// As soon as its successor is used, within some seconds; at the latest at the end of the grace.
    OnFirstUse,
}

/// An owner to be made.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Default, Clone)]
#[serde(deny_unknown_fields)]
pub struct NewOwner {
    /// A label for people; need not be unique.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
    /// What its keys may ask for together.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Rate>,
    /// What its keys may ask for together in a day or a month.
    #[serde(default, deserialize_with = "object", skip_serializing_if = "Option::is_none")]
    pub quota: Option<QuotaShape>,
    /// How many keys it may have that are not revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_keys: Option<Whole>,
    /// The ceiling of what its keys may be granted. Without it: no ceiling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_grant: Option<Vec<String>>,
    /// Notes of your own.
    #[serde(default)]
    pub metadata: BTreeMap<String, Value>,
}

/// What shall be different about an owner. What is left out stays.
#[derive(Serialize, Deserialize, JsonSchema, Debug, Default, Clone)]
#[serde(deny_unknown_fields, default)]
pub struct OwnerChange {
    /// See the record.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 200))]
    pub name: Option<String>,
    /// `null`: none.
    #[serde(deserialize_with = "given_object", skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<Option<Rate>>,
    /// `null`: none.
    #[serde(deserialize_with = "given_object", skip_serializing_if = "Option::is_none")]
    pub quota: Option<Option<QuotaShape>>,
    /// `null`: as many as it likes.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub max_keys: Option<Option<Whole>>,
    /// `null`: no ceiling.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub may_grant: Option<Option<Vec<String>>>,
    /// In place of what it has.
    #[serde(deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "BTreeMap<String, Value>")]
    pub metadata: Option<BTreeMap<String, Value>>,
}

/// A field that is there; `null` is whatever it means to the field itself.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|Object(value)| value))
}

fn given_object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    object(deserializer).map(Some)
}

/// What is written as an object. Without it an array would do, its items taken for members in their order.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members))
            }
        }

        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}
