//! Requests to the management API and answers of it, whatever door they came through.

use std::net::IpAddr;

use http::{HeaderName, Method, StatusCode};
use serde_json::{Value, json};

use super::door::Entrance;
use super::profile::ApiProfile;
use crate::domain::{Fields, Revision, Scope};
use crate::manage::{BadRow, Flaw, Refused};
use crate::store::StoreError;

/// A request that has arrived whole.
#[derive(Clone, Copy)]
pub struct ApiRequest<'a> {
    /// Which way it came.
    pub entrance: Entrance<'a>,
    /// The method.
    pub method: &'a Method,
    /// The authority asked for; empty where there was none.
    pub host: &'a str,
    /// The target's path.
    pub path: &'a str,
    /// The target's query.
    pub query: Option<&'a str>,
    /// All fields.
    pub fields: Fields<'a>,
    /// The body.
    pub body: &'a [u8],
    /// Where it came from.
    pub client: Option<IpAddr>,
    /// Its id.
    pub request_id: &'a str,
}

/// What is answered. Everything but documentation is JSON, and not to be stored by anybody on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiAnswer {
    /// The status.
    pub status: StatusCode,
    /// The fields, save `Content-Length`.
    pub fields: Vec<(HeaderName, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The code of a refusal.
    pub code: Option<&'static str>,
    /// Scopes that the caller lacks, as it knows them, where that is why.
    pub missing_scopes: Vec<Scope>,
}

/// Why the API does not do what it is asked. Closed: every code has its page in `docs/errors.md`.
#[derive(Debug)]
pub(super) enum ApiError {
    /// The body, the query or a field cannot be read.
    Unreadable {
        /// Where, when that is known.
        field: Option<String>,
        /// What is wrong, and how to mend it.
        detail: String,
    },
    /// A value that can be read, and cannot be.
    Unacceptable {
        /// Which member of the body.
        field: &'static str,
        /// What is wrong, and how to mend it.
        detail: String,
    },
    /// The body is of another type, by its `Content-Type`.
    MediaType {
        /// Which it should be.
        detail: &'static str,
    },
    /// Rows of an import cannot be imported.
    BadRows {
        /// Which, and why.
        rows: Vec<BadRow>,
        /// How many and the first of them, in words.
        detail: String,
    },
    /// There is nothing of that id.
    NotFound {
        /// What was looked for.
        detail: String,
    },
    /// The result would hold more than may be granted.
    GrantExceeded {
        /// What is not covered.
        missing: Vec<String>,
        /// In words.
        detail: String,
    },
    /// Only operators may do this.
    OperatorsOnly {
        /// In words.
        detail: String,
    },
    /// The configuration file cannot be taken over.
    ConfigRefused {
        /// Why not, each in words.
        problems: Vec<String>,
    },
    /// The record is in no state for this.
    Conflict {
        /// In words.
        detail: String,
    },
    /// The record is not the one of `If-Match`.
    PreconditionFailed,
    /// The same `Idempotency-Key` came with another request.
    IdempotencyKeyReused,
    /// Too many others import.
    ImportBusy,
    /// The store does not answer.
    StoreUnavailable {
        /// In words, for the log alone.
        reason: String,
    },
    /// Whether the change was made is not known.
    OutcomeUnknown {
        /// In words, for the log alone.
        reason: String,
    },
    /// The change was made, and what it made of the record cannot be read.
    OutcomeUnseen {
        /// In words, for the log alone.
        reason: String,
    },
    /// A bug of ours.
    Internal {
        /// In words, for the log alone.
        reason: String,
    },
}

/// The codes of this API, beside those of the gate.
pub(super) const CODES: [&str; 14] = [
    "invalid_field",
    "invalid_value",
    "unsupported_media_type",
    "bad_rows",
    "not_found",
    "grant_exceeded",
    "operators_only",
    "config_refused",
    "conflict",
    "precondition_failed",
    "idempotency_key_reused",
    "import_busy",
    "store_unavailable",
    "outcome_unknown",
];

impl ApiError {
    /// A field of a body or a query that cannot be as it is.
    pub(super) fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Unreadable { field: Some(field.into()), detail: detail.into() }
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::Unreadable { .. } => StatusCode::BAD_REQUEST,
            Self::MediaType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::GrantExceeded { .. } | Self::OperatorsOnly { .. } => StatusCode::FORBIDDEN,
            Self::Conflict { .. } => StatusCode::CONFLICT,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::IdempotencyKeyReused
            | Self::Unacceptable { .. }
            | Self::ConfigRefused { .. }
            | Self::BadRows { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Self::ImportBusy
            | Self::StoreUnavailable { .. }
            | Self::OutcomeUnknown { .. }
            | Self::OutcomeUnseen { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The code; each has a page.
    pub(super) const fn code(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "invalid_field",
            Self::Unacceptable { .. } => "invalid_value",
            Self::BadRows { .. } => "bad_rows",
            Self::MediaType { .. } => "unsupported_media_type",
            Self::NotFound { .. } => "not_found",
            Self::GrantExceeded { .. } => "grant_exceeded",
            Self::OperatorsOnly { .. } => "operators_only",
            Self::ConfigRefused { .. } => "config_refused",
            Self::Conflict { .. } => "conflict",
            Self::PreconditionFailed => "precondition_failed",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::ImportBusy => "import_busy",
            Self::StoreUnavailable { .. } => "store_unavailable",
            Self::OutcomeUnknown { .. } | Self::OutcomeUnseen { .. } => "outcome_unknown",
            Self::Internal { .. } => "internal_error",
        }
    }

    const fn title(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "The request cannot be read",
            Self::Unacceptable { .. } => "A value cannot be",
            Self::BadRows { .. } => "Rows cannot be imported",
            Self::MediaType { .. } => "The body is of another media type",
            Self::NotFound { .. } => "There is no such record",
            Self::GrantExceeded { .. } => "More than may be granted",
            Self::OperatorsOnly { .. } => "Only operators may do this",
            Self::ConfigRefused { .. } => "The configuration cannot be taken over",
            Self::Conflict { .. } => "The record is in no state for this",
            Self::PreconditionFailed => "The record changed",
            Self::IdempotencyKeyReused => "The Idempotency-Key was used for another request",
            Self::ImportBusy => "Others import",
            Self::StoreUnavailable { .. } => "The store does not answer",
            Self::OutcomeUnknown { .. } => "Whether it was done is not known",
            Self::OutcomeUnseen { .. } => "It was done, and cannot be shown",
            Self::Internal { .. } => "The gateway failed",
        }
    }

    fn detail(&self) -> &str {
        match self {
            Self::Unreadable { detail, .. }
            | Self::Unacceptable { detail, .. }
            | Self::NotFound { detail }
            | Self::GrantExceeded { detail, .. }
            | Self::OperatorsOnly { detail }
            | Self::BadRows { detail, .. }
            | Self::Conflict { detail } => detail,
            Self::ConfigRefused { .. } => "The file has problems; the old configuration stays in force.",
            Self::MediaType { detail } => detail,
            Self::PreconditionFailed => "Another revision than the one of If-Match is in force; read the record again.",
            Self::IdempotencyKeyReused => "Use a new Idempotency-Key for another request.",
            Self::ImportBusy => "Nothing was changed. One import is worked on at a time; try again later.",
            Self::StoreUnavailable { .. } => "Nothing was changed. Requests with known keys go on; try again.",
            Self::OutcomeUnknown { .. } => {
                "The way to the store broke in the moment of the change. Repeat the request under the same \
                 Idempotency-Key, or look whether it was made before you repeat it."
            }
            Self::OutcomeUnseen { .. } => {
                "The change was made. Then the store went away, before the record could be read: read it later."
            }
            Self::Internal { .. } => "The log says more under this request id.",
        }
    }

    /// The answer (RFC 9457).
    pub(super) fn answer(&self, request_id: &str, profile: ApiProfile) -> ApiAnswer {
        match self {
            Self::StoreUnavailable { reason }
            | Self::OutcomeUnknown { reason }
            | Self::OutcomeUnseen { reason }
            | Self::Internal { reason } => {
                tracing::error!(request_id, code = self.code(), reason = %reason, "a management request failed");
            }
            _ => {}
        }
        let code = self.code();
        let mut body = json!({
            "type": format!("urn:portcullis:error:{code}"),
            "title": self.title(),
            "status": self.status().as_u16(),
            "detail": self.detail(),
            "code": code,
            "request_id": request_id,
        });
        if let Some(fields) = body.as_object_mut() {
            match self {
                Self::Unreadable { field: Some(field), .. } => drop(fields.insert("field".to_owned(), json!(field))),
                Self::Unacceptable { field, .. } => drop(fields.insert("field".to_owned(), json!(field))),
                Self::ConfigRefused { problems } => drop(fields.insert("problems".to_owned(), json!(problems))),
                Self::GrantExceeded { missing, .. } => {
                    drop(fields.insert("missing_scopes".to_owned(), json!(missing)));
                }
                Self::BadRows { rows, .. } => drop(fields.insert("rows".to_owned(), json!(rows))),
                _ => {}
            }
        }
        let (media_type, body) = profile.problem(body);
        let mut answer = ApiAnswer::json(self.status(), &body);
        answer.fields[0].1 = media_type.to_owned();
        answer.code = Some(code);
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            answer.fields.push((http::header::RETRY_AFTER, "1".to_owned()));
        }
        answer
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        match refused {
            Refused::Flawed(Flaw { field, problem }) => Self::Unacceptable { field, detail: problem },
            Refused::NoSuchKey(_) | Refused::NoSuchOwner(_) => Self::NotFound { detail },
            Refused::Exceeds { missing, .. } => {
                Self::GrantExceeded { missing: missing.iter().map(ToString::to_string).collect(), detail }
            }
            Refused::OperatorsOnly { .. } => Self::OperatorsOnly { detail },
            Refused::Conflict(_) => Self::Conflict { detail },
            Refused::Changed => Self::PreconditionFailed,
            Refused::Store(error) => error.into(),
            Refused::NoEntropy(reason) => Self::Internal { reason },
        }
    }
}

impl ApiError {
    /// The error for whoever has changed something already: nothing may tell them that nothing was changed.
    pub(super) fn after_change(refused: Refused) -> Self {
        match refused.into() {
            Self::StoreUnavailable { reason } => Self::OutcomeUnseen { reason },
            error => error,
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let detail = error.to_string();
        match error {
            StoreError::Uncertain { .. } => Self::OutcomeUnknown { reason: detail },
            error if error.is_trouble() => Self::StoreUnavailable { reason: detail },
            _ => Self::Conflict { detail },
        }
    }
}

impl ApiAnswer {
    /// A JSON body.
    pub(super) fn json(status: StatusCode, body: &Value) -> Self {
        let fields = vec![
            (http::header::CONTENT_TYPE, "application/json".to_owned()),
            (http::header::CACHE_CONTROL, "no-store".to_owned()),
        ];
        Self { status, fields, body: format!("{body}\n").into_bytes(), code: None, missing_scopes: Vec::new() }
    }

    /// A text.
    pub(super) fn text(media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let fields = vec![
            (http::header::CONTENT_TYPE, media_type.to_owned()),
            (http::header::CACHE_CONTROL, "no-store".to_owned()),
        ];
        Self { status: StatusCode::OK, fields, body: body.into(), code: None, missing_scopes: Vec::new() }
    }

    /// With the entity tag of a record (RFC 9110 §8.8.3): its revision.
    #[must_use]
    pub(super) fn tagged(mut self, revision: Revision) -> Self {
        self.fields.push((http::header::ETAG, format!("\"{revision}\"")));
        self
    }

    /// With the place of a record that was made.
    #[must_use]
    pub(super) fn located(mut self, path: String) -> Self {
        self.fields.push((http::header::LOCATION, path));
        self
    }
}
