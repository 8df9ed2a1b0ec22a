//! The use of one key, as it is asked for.

use std::time::Duration;

use serde_json::Value;

use super::shown::usage_json;
use crate::domain::time::{NotAMoment, moment_of_text};
use crate::domain::{KeyId, Timestamp};
use crate::store::{EventQuery, Store, StoreError, UsageQuery};

/// Most hours and days that are told of a key at once, and most events.
const MAX_BUCKETS: usize = 10_000;
const MAX_KEY_EVENTS: usize = 100;

/// What is told when no beginning is asked for.
const USUALLY: Duration = Duration::from_secs(7 * 86_400);

/// Between two moments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Period {
    /// From here on.
    pub since: Timestamp,
    /// Until here.
    pub until: Timestamp,
}

impl Period {
    /// The time between two moments as they were typed or sent; without them, seven days until now.
    ///
    /// # Errors
    /// The name of the field that is no moment.
    pub fn read(since: Option<&str>, until: Option<&str>, now: Timestamp) -> Result<Self, (&'static str, NotAMoment)> {
        let moment = |field, text: Option<&str>| {
            text.map(|text| moment_of_text(text, now).map_err(|error| (field, error))).transpose()
        };
        let until = moment("until", until)?.unwrap_or(now);
        Ok(Self { since: moment("since", since)?.unwrap_or_else(|| until.minus(USUALLY)), until })
    }
}

/// What is known of the use of a key in that time, as it is shown.
///
/// # Errors
/// When the store cannot be read.
pub async fn key_usage(store: &Store, key: KeyId, period: Period) -> Result<Value, StoreError> {
    let Period { since, until } = period;
    let usage = store.usage().key_usage(UsageQuery { key, since, until, limit: MAX_BUCKETS }).await?;
    let events = store.usage().list_events(EventQuery { key: Some(key), limit: MAX_KEY_EVENTS }).await?;
    Ok(usage_json(key, since, until, &usage, &events))
}
