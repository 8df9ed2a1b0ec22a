//! What columns hold, whichever database has them: numbers that stand for words, and values as JSON.
//!
//! A number that was given is never given again: it stands in every store.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::usage::{FoundCaller, Passage};
use crate::domain::{
    GrantedScope, KeyId, KeyKind, KeyState, OwnerId, OwnerRecord, Quota, QuotaHolder, QuotaPeriod, RateLimit,
};

/// A column holds what no version of this program writes; says what.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Odd(pub(super) String);

/// What is agreed with an owner, as it stands in its row.
#[derive(Serialize, Deserialize, PartialEq, Default)]
#[serde(default)]
pub(super) struct Terms {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rate_limit: Option<RateLimit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) quota: Option<Quota>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_keys: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) may_grant: Option<Vec<GrantedScope>>,
}

impl Terms {
    /// The text of what is agreed with an owner; nothing where nothing is.
    pub(super) fn text_of(record: &OwnerRecord) -> Result<Option<String>, Odd> {
        let OwnerRecord { rate_limit, quota, max_keys, ref may_grant, .. } = *record;
        let terms = Self { rate_limit, quota, max_keys, may_grant: may_grant.clone() };
        if terms == Self::default() { Ok(None) } else { to_json(&terms).map(Some) }
    }

    /// The way back.
    pub(super) fn read(text: Option<&str>, id: OwnerId) -> Result<Self, Odd> {
        text.map_or_else(|| Ok(Self::default()), |text| from_json(text, || format!("terms of {id}")))
    }
}

/// The number that stands for a kind.
pub(super) const fn kind_number(kind: KeyKind) -> i64 {
    match kind {
        KeyKind::Secret => 1,
        KeyKind::Publishable => 2,
        KeyKind::Management => 3,
    }
}

/// The way back.
pub(super) fn kind_of(number: i64) -> Result<KeyKind, Odd> {
    KeyKind::ALL
        .into_iter()
        .find(|kind| kind_number(*kind) == number)
        .ok_or_else(|| Odd(format!("{number} is no kind of key")))
}

/// The numbers of states in queries; no column holds them.
pub(super) const fn state_number(state: KeyState) -> i64 {
    match state {
        KeyState::Active => 0,
        KeyState::Disabled => 1,
        KeyState::Expired => 2,
        KeyState::Revoked => 3,
    }
}

/// JSON text of a value that has one.
pub(super) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String, Odd> {
    serde_json::to_string(value).map_err(|error| Odd(format!("a record has no JSON form: {error}")))
}

/// As [`to_json`]; nothing for an empty list.
pub(super) fn list_to_json<T: Serialize>(list: &[T]) -> Result<Option<String>, Odd> {
    if list.is_empty() { Ok(None) } else { to_json(list).map(Some) }
}

/// As [`to_json`]; nothing for an empty map.
pub(super) fn metadata_to_json(map: &BTreeMap<String, serde_json::Value>) -> Result<Option<String>, Odd> {
    if map.is_empty() { Ok(None) } else { to_json(map).map(Some) }
}

/// The value of a JSON text; `what` names it where it is none.
pub(super) fn from_json<T: DeserializeOwned>(text: &str, what: impl Fn() -> String) -> Result<T, Odd> {
    serde_json::from_str(text).map_err(|error| Odd(format!("{}: {error}", what())))
}

/// As [`from_json`]; nothing is an empty list or map.
pub(super) fn from_json_or_empty<T: DeserializeOwned + Default>(
    text: Option<&str>,
    what: impl Fn() -> String,
) -> Result<T, Odd> {
    text.map_or_else(|| Ok(T::default()), |text| from_json(text, what))
}

/// Holders of quotas that are keys.
const KEY: i64 = 1;

/// The number of the sort of holder, and its id.
pub(super) const fn holder_columns(holder: QuotaHolder) -> (i64, [u8; 16]) {
    match holder {
        QuotaHolder::Key(id) => (KEY, id.to_bytes()),
        QuotaHolder::Owner(id) => (2, id.to_bytes()),
    }
}

/// The way back.
pub(super) const fn holder_of(number: i64, id: [u8; 16]) -> QuotaHolder {
    match number {
        KEY => QuotaHolder::Key(KeyId::from_bytes(id)),
        _ => QuotaHolder::Owner(OwnerId::from_bytes(id)),
    }
}

/// The number that stands for a period.
pub(super) const fn period_number(period: QuotaPeriod) -> i64 {
    match period {
        QuotaPeriod::Day => 1,
        QuotaPeriod::Month => 2,
    }
}

/// The way back.
pub(super) fn period_of(number: i64) -> QuotaPeriod {
    if number == period_number(QuotaPeriod::Day) { QuotaPeriod::Day } else { QuotaPeriod::Month }
}

/// The number that stands for what became of a request.
pub(super) const fn passage_number(passage: Passage) -> i64 {
    match passage {
        Passage::Allowed => 1,
        Passage::Refused => 2,
        Passage::Reported => 3,
    }
}

/// The way back.
pub(super) fn passage_of(number: i64) -> Option<Passage> {
    Passage::ALL.into_iter().find(|passage| passage_number(*passage) == number)
}

const LOCAL: &str = "local";
const OTHER: &str = "other";

/// The text that stands for who was found.
pub(super) fn caller_text(caller: FoundCaller) -> String {
    match caller {
        FoundCaller::Key(id) => id.to_string(),
        FoundCaller::Network(network) => network.to_string(),
        FoundCaller::Local => LOCAL.to_owned(),
        FoundCaller::Other => OTHER.to_owned(),
    }
}

/// The way back.
pub(super) fn caller_of(text: &str) -> Option<FoundCaller> {
    match text {
        LOCAL => Some(FoundCaller::Local),
        OTHER => Some(FoundCaller::Other),
        text => match text.parse() {
            Ok(id) => Some(FoundCaller::Key(id)),
            Err(_) => text.parse().map(FoundCaller::Network).ok(),
        },
    }
}

/// A bound of SQL.
pub(super) fn rows(most: usize) -> i64 {
    i64::try_from(most).unwrap_or(i64::MAX)
}

/// A count as a database keeps it.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The way back.
pub(super) fn unsigned(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}
