//! Values of several sections as YAML.

use std::path::Path;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde_yaml::{Mapping, Value};

use super::REDACTED;
use crate::config::shape::numbers::ByteSize;
use crate::credential::Place;
use crate::domain::time::show_duration;
use crate::domain::{Quota, RateLimit};
use crate::gate::{LimitBy, OnStale};

/// A map of what is there.
pub(super) fn map<'k>(entries: impl IntoIterator<Item = (&'k str, Option<Value>)>) -> Value {
    let present = entries.into_iter().filter_map(|(key, value)| Some((text(key), value?)));
    Value::Mapping(present.collect::<Mapping>())
}

pub(super) fn text(text: impl AsRef<str>) -> Value {
    Value::String(text.as_ref().to_owned())
}

pub(super) fn list<T>(items: impl IntoIterator<Item = T>, show: impl Fn(T) -> Value) -> Option<Value> {
    Some(Value::Sequence(items.into_iter().map(show).collect()))
}

/// A list that means something else when it is empty, and is left out then.
pub(super) fn filled<T>(items: impl IntoIterator<Item = T>, show: impl Fn(T) -> Value) -> Option<Value> {
    let items: Vec<Value> = items.into_iter().map(show).collect();
    (!items.is_empty()).then_some(Value::Sequence(items))
}

pub(super) fn span(span: Duration) -> Option<Value> {
    Some(text(show_duration(span)))
}

pub(super) fn size(bytes: impl TryInto<u64>) -> Option<Value> {
    bytes.try_into().ok().map(|bytes| text(ByteSize::show(bytes)))
}

pub(super) fn count(number: impl TryInto<u64>) -> Option<Value> {
    number.try_into().ok().map(|number| Value::Number(number.into()))
}

pub(super) fn flag(flag: bool) -> Option<Value> {
    Some(Value::Bool(flag))
}

pub(super) fn word(word: &str) -> Option<Value> {
    Some(text(word))
}

/// `on_stale`.
pub(super) fn on_stale(then: OnStale) -> Option<Value> {
    word(match then {
        OnStale::Deny => "deny",
        OnStale::Serve => "serve",
    })
}

pub(super) fn path(path: &Path) -> Value {
    text(path.display().to_string())
}

pub(super) fn place(place: &Place) -> Value {
    match place {
        Place::Header { name, scheme } => {
            map([("header", word(name.as_str())), ("scheme", scheme.as_ref().map(|scheme| text(scheme.name())))])
        }
        Place::Pair { id, secret } => map([("header", word(id.as_str())), ("secret", word(secret.as_str()))]),
        Place::Cookie { name } => map([("cookie", word(name))]),
        Place::Query { name } => map([("query", word(name))]),
    }
}

pub(super) fn rate_limit(limit: RateLimit, by: Option<LimitBy>) -> Value {
    map([
        ("requests", count(limit.requests().get())),
        ("per", span(limit.per())),
        ("burst", count(limit.burst().get())),
        (
            "by",
            by.and_then(|by| {
                word(match by {
                    LimitBy::Key => "key",
                    LimitBy::Owner => "owner",
                    LimitBy::Address => "address",
                })
            }),
        ),
    ])
}

pub(super) fn quota(quota: Quota) -> Value {
    let number = |most: Option<std::num::NonZeroU64>| most.and_then(|most| count(most.get()));
    map([("per_day", number(quota.per_day())), ("per_month", number(quota.per_month()))])
}

/// Values that are set may be credentials of the gateway itself.
pub(super) fn header_edit(set: &[(HeaderName, HeaderValue)], remove: &[HeaderName]) -> Value {
    map([
        ("set", Some(map(set.iter().map(|(name, _)| (name.as_str(), word(REDACTED)))))),
        ("remove", list(remove, |name| text(name.as_str()))),
    ])
}
