//! A record as JSON says it, read for a table: the same whether it comes from the store or over the network.
//!
//! Another machine may know members that this one does not, and lack some that it knows; neither is a fault.

use serde_json::Value;

use super::output::visible;
use crate::domain::time::show_duration;
use crate::domain::{Quota, RateLimit};

/// A key, an owner or an entry of the trail.
#[derive(Clone, Copy)]
pub(super) struct Record<'a>(pub(super) &'a Value);

impl<'a> Record<'a> {
    /// The text of a member; empty where there is none.
    pub(super) fn text(self, name: &str) -> &'a str {
        self.0[name].as_str().unwrap_or_default()
    }

    /// The text of a member as a terminal may show it, unless it is empty.
    pub(super) fn shown(self, name: &str) -> Option<String> {
        Some(visible(self.text(name))).filter(|text| !text.is_empty())
    }

    /// Whether a member is true.
    pub(super) fn says(self, name: &str) -> bool {
        self.0[name] == Value::Bool(true)
    }

    /// The texts of a list.
    pub(super) fn list(self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0[name].as_array().into_iter().flatten().filter_map(Value::as_str)
    }

    /// The texts of a list in one cell, unless there are none.
    pub(super) fn words(self, name: &str) -> Option<String> {
        let words: Vec<&str> = self.list(name).collect();
        (!words.is_empty()).then(|| visible(&words.join(" ")))
    }

    /// `10 in 1s, 20 at once`.
    pub(super) fn rate_limit(self) -> Option<String> {
        self.term("rate_limit", |limit: RateLimit| {
            format!("{} in {}, {} at once", limit.requests(), show_duration(limit.per()), limit.burst())
        })
    }

    /// `1000 a day, 20000 a month`.
    pub(super) fn quota(self) -> Option<String> {
        self.term("quota", |quota: Quota| {
            let day = quota.per_day().map(|most| format!("{most} a day"));
            let month = quota.per_month().map(|most| format!("{most} a month"));
            [day, month].into_iter().flatten().collect::<Vec<_>>().join(", ")
        })
    }

    /// What is agreed, in words; as it came where it is said in a way of another version.
    fn term<T: serde::de::DeserializeOwned>(self, name: &str, say: impl FnOnce(T) -> String) -> Option<String> {
        let value = self.0.get(name).filter(|value| !value.is_null())?;
        Some(serde_json::from_value(value.clone()).map_or_else(|_| visible(&value.to_string()), say))
    }

    /// The operator's own notes, a cell each.
    pub(super) fn notes(self) -> impl Iterator<Item = (&'static str, String)> {
        let notes = self.0["metadata"].as_object().into_iter().flatten();
        notes.map(|(name, value)| ("metadata", visible(&format!("{name}: {value}"))))
    }
}
