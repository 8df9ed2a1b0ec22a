//! What a key that somebody shows is.

use http::StatusCode;
use serde_json::json;
use zeroize::Zeroizing;

use super::api::Api;
use super::call::Call;
use super::exchange::{ApiAnswer, ApiError};
use crate::authn::Rejection;
use crate::domain::{KeyRecord, PresentedKey, Scope};
use crate::gate::{self, GateSettings};
use crate::manage::{Desk, Refused};

impl Api {
    pub(super) async fn verify(&self, call: &Call<'_>, desk: &Desk<'_>) -> Result<ApiAnswer, ApiError> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Asked {
            key: Zeroizing<String>,
            #[serde(default)]
            scopes: Vec<String>,
        }
        call.no_query()?;
        let Asked { key, scopes } = call.body()?;
        let Some(presented) = PresentedKey::new(&key) else {
            return Err(ApiError::field("key", "is no single token of visible ASCII, at most 8 KiB"));
        };
        let (slot, mut rejection) = gate::examine(&presented, call.snapshot, &self.keys, call.now);
        // A key of somebody else is as unknown as one that does not exist.
        let record = match slot {
            None => None,
            Some(slot) => match desk.key(slot.id).await {
                Ok(record) => Some(record),
                Err(Refused::NoSuchKey(_)) => {
                    rejection = Some(Rejection::Unknown);
                    None
                }
                Err(refused) => return Err(refused.into()),
            },
        };
        let missing = match &record {
            None => scopes,
            Some(record) => missing(record, scopes, &call.settings.rules.settings)?,
        };
        let reason = rejection.map(Rejection::reason).or((!missing.is_empty()).then_some("insufficient_scope"));
        let body = json!({
            "valid": reason.is_none(),
            "reason": reason,
            "missing_scopes": missing,
            "form": presented.form_of_pair(&call.settings.rules.settings.brand).name(),
            "record": record.map(|record| call.shown(&record)),
        });
        Ok(call.json(StatusCode::OK, body, None))
    }
}

/// Those of some scopes that a key does not hold.
fn missing(record: &KeyRecord, asked: Vec<String>, settings: &GateSettings) -> Result<Vec<String>, ApiError> {
    let of_roles = record.roles.iter().filter_map(|role| settings.roles.get(role)).flatten();
    let holds: Vec<_> = record.scopes.iter().chain(of_roles).collect();
    let mut missing = Vec::new();
    for text in asked {
        let scope: Scope = text
            .parse()
            .map_err(|error| ApiError::Unacceptable { field: "scopes", detail: format!("{text:?}: {error}") })?;
        if !holds.iter().any(|held| held.covers(&scope)) {
            missing.push(text);
        }
    }
    Ok(missing)
}
