//! Keys that were made elsewhere, many in one request.

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;
use zeroize::Zeroizing;

use super::api::Api;
use super::call::{Call, is_json};
use super::exchange::{ApiAnswer, ApiError};
use super::fleet::{WAIT, Wait};
use super::query::Query;
use super::turns::Turn;
use crate::domain::Revision;
use crate::manage::{BadRow, Batch, Desk, Format, RowReader};

/// Largest body of an import, in bytes.
pub const MAX_IMPORT_BODY: usize = 16 << 20;
/// Most rows of one request: they are checked together, written in one transaction, and told one by one where they are
/// bad.
const MAX_ROWS: usize = 100_000;

impl Api {
    /// Imports all rows or none; with `skip_bad` those that are good. Nothing that was sent is repeated in the answer.
    pub(super) async fn import(&self, call: &Call<'_>, desk: &Desk<'_>) -> Result<ApiAnswer, ApiError> {
        if call.authority.is_at_data_door() {
            // Whoever may try a hundred thousand rows in a request finds out which keys others have.
            return Err(ApiError::OperatorsOnly { detail: "only management keys import keys".to_owned() });
        }
        let mut query = Query::read(call.request.query)?;
        let skip_bad = query.parsed("skip_bad")?.unwrap_or(false);
        let dry_run = query.parsed("dry_run")?.unwrap_or(false);
        let wait = Wait::take(&mut query)?;
        query.finish(&["skip_bad", "dry_run", WAIT[0], WAIT[1]])?;
        let format = format_of(call)?;
        let turn = self.imports.take(call.authority.is_operator()).await.ok_or(ApiError::ImportBusy)?;
        // What goes on when a client leaves keeps the turn until it is done.
        let turn = Arc::new(turn);
        let mut batch = read(call, format, Arc::clone(&turn)).await?;
        desk.sort_out(&mut batch).await?;
        if !batch.bad().is_empty() && !skip_bad {
            return Err(refused(batch.into_bad()));
        }
        let (good, skipped) = (batch.len(), batch.bad().to_vec());
        let revision = if dry_run { None } else { self.write(call, batch, turn).await? };
        let settled = match revision {
            // Nothing was changed: there is nothing to wait for.
            None => None,
            Some(revision) => Some(self.settle(call, wait, revision).await),
        };
        let status = match &settled {
            None if dry_run => StatusCode::OK,
            None => StatusCode::CREATED,
            Some(settled) => settled.status(StatusCode::CREATED),
        };
        let mut body = json!({ "imported": if dry_run { 0 } else { good }, "skipped": skipped, "revision": revision });
        if dry_run {
            body["would_import"] = good.into();
        }
        let body = match settled {
            None => body,
            Some(settled) => settled.told_in(body),
        };
        Ok(call.json(status, body, None))
    }

    async fn write(&self, call: &Call<'_>, batch: Batch, turn: Arc<Turn>) -> Result<Option<Revision>, ApiError> {
        let (store, rules) = (Arc::clone(&self.store), Arc::clone(&call.settings.rules));
        let (authority, now) = (call.authority.clone(), call.now);
        let written = tokio::spawn(async move {
            let _turn = turn;
            let desk = Desk { store: &store, settings: &rules.settings, authority: &authority, now };
            desk.import(batch).await
        });
        Ok(written.await.map_err(|error| ApiError::Internal { reason: error.to_string() })??)
    }
}

/// What the body holds, by its `Content-Type`.
fn format_of(call: &Call<'_>) -> Result<Format, ApiError> {
    let mut types = call.request.fields.named(&http::header::CONTENT_TYPE);
    let format = match (types.next(), types.next()) {
        (Some(kind), None) => {
            let name = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
            match name.as_slice() {
                b"application/x-ndjson" | b"application/jsonl" => Some(Format::Jsonl),
                b"text/csv" => Some(Format::Csv),
                _ => is_json(kind).then_some(Format::Json),
            }
        }
        _ => None,
    };
    let detail = "Send rows as application/x-ndjson, text/csv, or an array of them as application/json.";
    format.ok_or(ApiError::MediaType { detail })
}

/// Reads the rows beside the control runtime: hashing many keys takes a while.
async fn read(call: &Call<'_>, format: Format, turn: Arc<Turn>) -> Result<Batch, ApiError> {
    let (rules, authority, now) = (Arc::clone(&call.settings.rules), call.authority.clone(), call.now);
    let scopes = call.settings.profile.scopes_member();
    let body = Zeroizing::new(call.request.body.to_vec());
    let read = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let reader = RowReader::new(&rules.settings, &authority, now).calling_scopes(scopes);
        Batch::read(format, &mut &**body, &reader, MAX_ROWS, |_| {})
    });
    let read = read.await.map_err(|error| ApiError::Internal { reason: error.to_string() })?;
    read.map_err(|detail| ApiError::Unreadable { field: None, detail: format!("the body cannot be read: {detail}") })
}

fn refused(rows: Vec<BadRow>) -> ApiError {
    let first = rows.first().map(|BadRow { line, problem }| format!(", the first in line {line}: {problem}"));
    let detail = format!("nothing was imported; bad rows: {}{}", rows.len(), first.unwrap_or_default());
    ApiError::BadRows { rows, detail }
}
