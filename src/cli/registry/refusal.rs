//! A refusal of the management API, in either shape of its bodies.

use std::fmt;

use http::StatusCode;
use serde_json::Value;

use crate::cli::output::visible;
use crate::manage::BadRow;

/// What was refused, and why.
#[derive(Debug)]
pub(in crate::cli) struct ApiRefusal {
    status: StatusCode,
    /// The code; empty where what answers is no management API.
    pub(super) code: String,
    detail: String,
    field: Option<String>,
    missing: Vec<String>,
    request_id: Option<String>,
    /// Rows of an import that are bad.
    pub(super) rows: Vec<BadRow>,
}

impl ApiRefusal {
    /// Reads the body of an answer that is no success: a problem (RFC 9457), or the error of `api.profile: success`.
    pub(super) fn read(status: StatusCode, request_id: Option<String>, body: &Value) -> Self {
        let error = if body["error"].is_object() { &body["error"] } else { body };
        let text = |names: [&str; 2]| names.iter().find_map(|name| error[*name].as_str()).map(str::to_owned);
        let list = |names: [&str; 2]| -> Vec<String> {
            let found = names.iter().find_map(|name| error[*name].as_array());
            found.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let row =
            |row: &Value| Some(BadRow { line: row["line"].as_u64()?, problem: row["problem"].as_str()?.to_owned() });
        let unknown = || format!("what answers does not look like a management API (status {})", status.as_u16());
        Self {
            status,
            code: text(["code", "code"]).unwrap_or_default(),
            detail: text(["detail", "message"]).unwrap_or_else(unknown),
            field: text(["field", "field"]),
            missing: list(["missing_scopes", "missing_permissions"]),
            request_id: request_id.or_else(|| body["request_id"].as_str().map(str::to_owned)),
            rows: error["rows"].as_array().into_iter().flatten().filter_map(row).collect(),
        }
    }

    /// A success that makes no sense.
    pub(super) fn nonsense(status: StatusCode, request_id: Option<String>) -> Self {
        Self::read(status, request_id, &Value::Null)
    }

    /// Whether nothing was decided: the server, or what it needs, is not there at the moment.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self.status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
    }
}

impl fmt::Display for ApiRefusal {
    /// Nothing of it steers the terminal it is shown on.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: the management API refused: {}", visible(&self.detail))?;
        let mut line = |name: &str, value: &str| {
            if value.is_empty() { Ok(()) } else { writeln!(f, "  {name}: {}", visible(value)) }
        };
        line("code", &self.code)?;
        line("field", self.field.as_deref().unwrap_or_default())?;
        line("missing scopes", &self.missing.join(" "))?;
        line("request id", self.request_id.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(status: u16, body: &Value) -> String {
        ApiRefusal::read(StatusCode::from_u16(status).unwrap(), Some("r-1".to_owned()), body).to_string()
    }

    #[test]
    fn both_shapes_are_told_alike() {
        let standard =
            json!({ "code": "invalid_value", "detail": "no such scope", "field": "scopes", "missing_scopes": ["a"] });
        let success = json!({ "success": false, "error": {
            "code": "invalid_value", "message": "no such scope", "field": "scopes", "missing_permissions": ["a"],
        } });
        let said = told(422, &standard);
        assert_eq!(said, told(422, &success));
        assert_eq!(
            said,
            "error: the management API refused: no such scope\n  code: invalid_value\n  field: scopes\n  \
             missing scopes: a\n  request id: r-1\n"
        );
    }

    #[test]
    fn what_is_no_management_api_is_told_and_steers_no_terminal() {
        assert!(told(404, &Value::Null).contains("does not look like a management API (status 404)"));
        assert!(!told(400, &json!({ "detail": "\u{1b}[2J" })).contains('\u{1b}'));
    }
}
