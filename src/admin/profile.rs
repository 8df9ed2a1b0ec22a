//! The two shapes of bodies: this API's own, and the one that shops which answer `{"success": true}` already have.

use serde_json::{Map, Value, json};

/// Shape of the management API's bodies (`api.profile`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ApiProfile {
    /// Records as they are; errors as `application/problem+json` (RFC 9457).
    #[default]
    Standard,
    /// `{"success":true,"data":…}`, `data.keys[]`, `permissions` for `scopes`; errors as
    /// `{"success":false,"error":{"code","message"}}`.
    Success,
}

impl ApiProfile {
    /// An answer's body. `list` is what a list calls its records.
    pub(super) fn body(self, body: Value, list: Option<&str>) -> Value {
        match (self, list) {
            (Self::Standard, _) => body,
            (Self::Success, None) => json!({ "success": true, "data": renamed(body, "scopes", "permissions") }),
            (Self::Success, Some(list)) => {
                let mut data = body;
                if let Some(object) = data.as_object_mut()
                    && let Some(Value::Array(items)) = object.remove("data")
                {
                    let items = items.into_iter().map(|item| renamed(item, "scopes", "permissions")).collect();
                    object.insert(list.to_owned(), Value::Array(items));
                }
                json!({ "success": true, "data": data })
            }
        }
    }

    /// An answer that has records within it, none of which is made of names that others chose.
    pub(super) fn nested(self, body: Value) -> Value {
        match self {
            Self::Standard => body,
            Self::Success => renamed_throughout(body, "scopes", "permissions"),
        }
    }

    /// A request's body as the API itself names things.
    pub(super) fn request(self, body: Value) -> Value {
        match self {
            Self::Standard => body,
            Self::Success => renamed(body, "permissions", "scopes"),
        }
    }

    /// An error's media type and body.
    pub(super) fn problem(self, problem: Value) -> (&'static str, Value) {
        match self {
            Self::Standard => ("application/problem+json", problem),
            Self::Success => {
                let mut error = Map::new();
                for (from, to) in [
                    ("code", "code"),
                    ("detail", "message"),
                    ("field", "field"),
                    ("missing_scopes", "missing_permissions"),
                    ("problems", "problems"),
                    ("rows", "rows"),
                ] {
                    if let Some(value) = problem.get(from) {
                        error.insert(to.to_owned(), value.clone());
                    }
                }
                let body = json!({ "success": false, "error": error, "request_id": problem["request_id"] });
                ("application/json", body)
            }
        }
    }
}

fn renamed_throughout(value: Value, from: &str, to: &str) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, value)| (name, renamed_throughout(value, from, to)));
            renamed(Value::Object(members.collect()), from, to)
        }
        Value::Array(items) => items.into_iter().map(|item| renamed_throughout(item, from, to)).collect(),
        value @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => value,
    }
}

/// An object with one member under another name; where both are there, both stay, for whoever reads it to refuse.
fn renamed(value: Value, from: &str, to: &str) -> Value {
    match value {
        Value::Object(mut object) if object.contains_key(from) && !object.contains_key(to) => {
            if let Some(member) = object.remove(from) {
                object.insert(to.to_owned(), member);
            }
            Value::Object(object)
        }
        value => value,
    }
}
