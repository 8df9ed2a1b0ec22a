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

/// Members that are called otherwise under [`ApiProfile::Success`], and how.
const NAMES: [(&str, &str); 4] = [
    ("scopes", "permissions"),
    ("missing_scopes", "missing_permissions"),
    ("required_scopes", "required_permissions"),
    ("held_scopes", "held_permissions"),
];

impl ApiProfile {
    /// An answer's body. `list` is what a list calls its records.
    pub(super) fn body(self, body: Value, list: Option<&str>) -> Value {
        match (self, list) {
            (Self::Standard, _) => body,
            (Self::Success, None) => json!({ "success": true, "data": renamed_throughout(body) }),
            (Self::Success, Some(list)) => {
                let mut data = renamed_throughout(body);
                if let Some(object) = data.as_object_mut()
                    && let Some(items) = object.remove("data")
                {
                    object.insert(list.to_owned(), items);
                }
                json!({ "success": true, "data": data })
            }
        }
    }

    /// A request's body as the API itself names things.
    pub(super) fn request(self, body: Value) -> Value {
        match self {
            Self::Standard => body,
            Self::Success => renamed(body, "permissions", "scopes"),
        }
    }

    /// What the query calls the scope that it filters by.
    pub(super) const fn scope_parameter(self) -> &'static str {
        match self {
            Self::Standard => "scope",
            Self::Success => "permission",
        }
    }

    /// What bodies call scopes.
    pub(super) const fn scopes_member(self) -> &'static str {
        match self {
            Self::Standard => NAMES[0].0,
            Self::Success => NAMES[0].1,
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
                // `scopes`, or one of its entries.
                if let Some(rest) = problem["field"].as_str().and_then(|field| field.strip_prefix("scopes"))
                    && (rest.is_empty() || rest.starts_with('['))
                {
                    error.insert("field".to_owned(), format!("permissions{rest}").into());
                }
                if problem["field"] == "scope" {
                    error.insert("field".to_owned(), Self::Success.scope_parameter().into());
                }
                let body = json!({ "success": false, "error": error, "request_id": problem["request_id"] });
                ("application/json", body)
            }
        }
    }
}

/// An answer with the other names, save in what is made of names that people chose.
fn renamed_throughout(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let renamed = |(name, value): (String, Value)| {
                let other = NAMES.iter().find(|(own, _)| *own == name).map(|(_, other)| (*other).to_owned());
                let value = if name == "metadata" { value } else { renamed_throughout(value) };
                (other.unwrap_or(name), value)
            };
            Value::Object(members.into_iter().map(renamed).collect())
        }
        Value::Array(items) => items.into_iter().map(renamed_throughout).collect(),
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
