//! One request on its way through an endpoint, and what endpoints read from it.

use http::StatusCode;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::api::ApiSettings;
use super::door::Door;
use super::exchange::{ApiAnswer, ApiError, ApiRequest};
use super::fleet::{WAIT, Wait};
use super::profile::ApiProfile;
use super::query::Query;
use super::table::Row;
use crate::domain::{KeyId, KeyRecord, NodeId, OwnerId, Revision, Scope, Timestamp};
use crate::gate::Snapshot;
use crate::manage::{Authority, Caller, Desk, Object, key_json_told_to};
use crate::store::Store;

/// One request on its way through an endpoint.
pub(super) struct Call<'a> {
    pub(super) request: ApiRequest<'a>,
    pub(super) row: &'static Row,
    /// The `{id}` of the path.
    pub(super) id: &'a str,
    pub(super) settings: &'a ApiSettings,
    pub(super) door: &'a Door,
    pub(super) snapshot: &'a Snapshot,
    /// Nobody at endpoints that need nothing.
    pub(super) authority: Authority,
    pub(super) now: Timestamp,
}

impl<'a> Call<'a> {
    pub(super) fn desk(&'a self, store: &'a Store) -> Desk<'a> {
        Desk { store, settings: &self.settings.rules.settings, authority: &self.authority, now: self.now }
    }

    pub(super) fn json(&self, status: StatusCode, body: Value, list: Option<&str>) -> ApiAnswer {
        ApiAnswer::json(status, &self.settings.profile.body(body, list))
    }

    /// The `{id}` of the path where it is one: a key that was sent in its place must not reach the log.
    pub(super) fn subject(&self) -> &'a str {
        let is_id = self.id.parse::<KeyId>().is_ok()
            || self.id.parse::<OwnerId>().is_ok()
            || self.id.parse::<NodeId>().is_ok()
            || self.id == "self";
        if is_id { self.id } else { "" }
    }

    pub(super) fn key_id(&self) -> Result<KeyId, ApiError> {
        self.id.parse().map_err(|_| ApiError::NotFound { detail: "there is no key of this id".to_owned() })
    }

    pub(super) fn owner_id(&self) -> Result<OwnerId, ApiError> {
        self.id.parse().map_err(|_| ApiError::NotFound { detail: "there is no owner of this id".to_owned() })
    }

    /// A key as the caller is shown it.
    pub(super) fn shown(&self, record: &KeyRecord) -> Value {
        key_json_told_to(&self.authority, record, self.now)
    }

    pub(super) fn manages_keys(&self) -> bool {
        let manages = |caller: &Caller| self.door.grants(&caller.holds, Scope::MANAGE_KEYS);
        matches!(&self.authority, Authority::Caller(caller) if manages(caller))
    }

    pub(super) fn own_key(&self) -> Result<KeyId, ApiError> {
        match &self.authority {
            Authority::Caller(caller) => Ok(caller.key),
            Authority::Local(_) | Authority::Nobody => {
                Err(ApiError::Internal { reason: "nobody has no key".to_owned() })
            }
        }
    }

    /// The body as what it should be.
    pub(super) fn body<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let is_json = self.request.fields.named(&http::header::CONTENT_TYPE).all(is_json);
        if !is_json || self.request.fields.named(&http::header::CONTENT_TYPE).next().is_none() {
            return Err(ApiError::MediaType { detail: "Send the body as application/json." });
        }
        let Object(read) = match self.settings.profile {
            ApiProfile::Standard => {
                let mut json = serde_json::Deserializer::from_slice(self.request.body);
                let value = serde_path_to_error::deserialize(&mut json).map_err(unreadable)?;
                json.end().map_err(|error| ApiError::Unreadable { field: None, detail: error.to_string() })?;
                value
            }
            ApiProfile::Success => {
                let value: Value = serde_json::from_slice(self.request.body)
                    .map_err(|error| ApiError::Unreadable { field: None, detail: error.to_string() })?;
                serde_path_to_error::deserialize(self.settings.profile.request(value)).map_err(unreadable)?
            }
        };
        Ok(read)
    }

    /// As [`Self::body`]; nothing says what an empty object says.
    pub(super) fn optional_body<T: DeserializeOwned + Default>(&self) -> Result<T, ApiError> {
        if self.request.body.is_empty() { Ok(T::default()) } else { self.body() }
    }

    pub(super) fn no_body(&self) -> Result<(), ApiError> {
        #[derive(serde::Deserialize, Default)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        self.optional_body().map(|Nothing {}| ())
    }

    pub(super) fn no_query(&self) -> Result<(), ApiError> {
        Query::read(self.request.query)?.finish(&[])
    }

    /// Whether a change waits for the fleet; nothing else is said in its query.
    pub(super) fn wait(&self) -> Result<Wait, ApiError> {
        let mut query = Query::read(self.request.query)?;
        let waits = self.row.waits_for_the_fleet();
        let wait = if waits { Wait::take(&mut query)? } else { Wait::ForThisNode };
        query.finish(if waits { &WAIT } else { &[] })?;
        Ok(wait)
    }

    /// The revisions that `If-Match` names (RFC 9110 §13.1.1); `None` for `*` and where there is none.
    pub(super) fn if_match(&self) -> Result<Option<Vec<Revision>>, ApiError> {
        let mut revisions = None;
        for value in self.request.fields.named(&http::header::IF_MATCH) {
            let odd = |_| ApiError::field("If-Match", "is no list of entity tags; send the ETag as it came");
            let tags = std::str::from_utf8(value).map_err(odd)?.trim();
            if tags == "*" {
                continue;
            }
            // An empty list is one, and matches nothing.
            if tags.is_empty() {
                revisions.get_or_insert_with(Vec::new);
                continue;
            }
            for tag in tags.split(',').map(str::trim) {
                let strong = tag.strip_prefix("W/").unwrap_or(tag);
                let text = strong.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
                let Some(text) = text.filter(|text| !text.contains('"')) else {
                    return Err(ApiError::field(
                        "If-Match",
                        format!("{tag:?} is no entity tag; send the ETag as it came"),
                    ));
                };
                // A tag of another shape, or a weak one, is none that was ever given out: it matches nothing.
                let named = if strong == tag { text.parse().ok().map(Revision::new) } else { None };
                revisions.get_or_insert_with(Vec::new).extend(named);
            }
        }
        Ok(revisions)
    }
}

fn unreadable(error: serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let path = error.path().to_string();
    let detail = error.into_inner().to_string();
    // A field that nobody knows is named by the message alone.
    let unknown = detail.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next()).map(str::to_owned);
    let missing = detail.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()).map(str::to_owned);
    let field = unknown.or(missing).or_else(|| (path != "." && path != "?").then_some(path));
    ApiError::Unreadable { field, detail }
}

/// `application/json`, or a type that is JSON by its name (RFC 6839 §3.1).
pub(super) fn is_json(value: &[u8]) -> bool {
    let kind = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    kind == b"application/json" || (kind.starts_with(b"application/") && kind.ends_with(b"+json"))
}

/// What stands in a path where a pattern has `{id}`.
pub(super) fn variable<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    pattern.split('/').zip(path.split('/')).find(|(known, _)| *known == "{id}").map(|(_, found)| found)
}
