//! The use of keys, for those who may read it.

use std::time::Duration;

use http::StatusCode;

use super::call::Call;
use super::exchange::{ApiAnswer, ApiError};
use super::query::Query;
use crate::domain::KeyRecord;
use crate::domain::time::span_of_text;
use crate::manage::Desk;
use crate::store::{KeyQuery, Store};
use crate::usage::{About, Period, ReportQuery, UNUSED_FOR, key_usage, report, report_json};

/// Parameters of the use of one key.
pub(super) const USAGE_FILTERS: [&str; 2] = ["since", "until"];

/// Parameters of the report.
pub(super) const REPORT_FILTERS: [&str; 1] = ["unused_for"];

pub(super) async fn show_usage(call: &Call<'_>, desk: &Desk<'_>) -> Result<ApiAnswer, ApiError> {
    let mut query = Query::read(call.request.query)?;
    let (since, until) = (query.text("since"), query.text("until"));
    query.finish(&USAGE_FILTERS)?;
    let period = Period::read(since.as_deref(), until.as_deref(), call.now)
        .map_err(|(field, problem)| ApiError::Unacceptable { field, detail: problem.to_string() })?;
    let record = desk.key(call.key_id()?).await?;
    let usage = key_usage(desk.store, record.id, period).await?;
    Ok(call.json(StatusCode::OK, usage, None))
}

pub(super) async fn show_report(call: &Call<'_>, store: &Store) -> Result<ApiAnswer, ApiError> {
    let mut query = Query::read(call.request.query)?;
    let unused_for = query.text("unused_for");
    query.finish(&REPORT_FILTERS)?;
    let unused_for: Duration = match unused_for {
        None => UNUSED_FOR,
        Some(text) => span_of_text(&text)
            .map_err(|error| ApiError::Unacceptable { field: "unused_for", detail: format!("{text:?} {error}") })?,
    };
    let sight = call.authority.sight();
    let sees = |record: &KeyRecord| sight.sees_key(record);
    let mut among = KeyQuery::default();
    let can_be = sight.narrow(&mut among);
    let about = if call.authority.is_operator() {
        About::Everything
    } else {
        About::Keys { among: can_be.then_some(&among), sees: &sees }
    };
    let asked = ReportQuery { about, unused_for, now: call.now };
    let found = report(store, &call.settings.rules.settings, asked).await?;
    Ok(call.json(StatusCode::OK, report_json(&found), None))
}
