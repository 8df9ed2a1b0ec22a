//! The configuration that holds: every default filled in, secrets left out, and where each value came from.
//!
//! Owns how `Settings` are written as YAML again. Written without any secret: peppers and the values of set header
//! fields are [`REDACTED`], whatever they are.

mod changes;
mod parts;
mod routes;
mod values;

use std::collections::HashMap;

use serde_yaml::Value;

pub use changes::{MAX_CHANGED_SETTINGS, changed_settings};

use super::place::Sources;
use super::settings::Settings;
use crate::gate::SourceSpan;

/// What stands in the place of a secret.
pub const REDACTED: &str = "<redacted>";

/// Settings as a configuration file would say them, every default included.
pub fn effective(settings: &Settings) -> Value {
    parts::settings(settings)
}

/// [`effective`] as YAML text.
pub fn effective_text(settings: &Settings) -> String {
    // A tree of maps with text keys, lists and scalars is always YAML.
    serde_yaml::to_string(&effective(settings)).unwrap_or_default()
}

/// One value of the effective configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// `limits.head_timeout`.
    pub path: String,
    /// The value; secrets are [`REDACTED`].
    pub value: Value,
    /// Where it is written; none: it is a default.
    pub source: Option<SourceSpan>,
}

/// Every value of the effective configuration with where it came from, in the order of the file.
pub fn origins(settings: &Settings, sources: &Sources) -> Vec<Origin> {
    let written: HashMap<String, SourceSpan> = sources.paths(|at| routes_index(settings, at)).collect();
    let mut all = Vec::new();
    collect(&effective(settings), &mut String::new(), &mut |path, value| {
        all.push(Origin { path: path.to_owned(), value: value.clone(), source: find(&written, path) });
    });
    all
}

/// The number among all routes of the route that begins at `at`: included files count from 0 themselves.
fn routes_index(settings: &Settings, at: &SourceSpan) -> Option<usize> {
    settings.gate.routes.iter().position(|route| route.source == *at)
}

/// Where `path` is written, or what it was taken from: a method's demand may be its route's, `scopes: a` is what
/// `scopes.all[0]` was, and a route's places and mode may be the global ones.
fn find(written: &HashMap<String, SourceSpan>, path: &str) -> Option<SourceSpan> {
    let at = |path: &str| written.get(path).cloned();
    if let Some(span) = at(path) {
        return Some(span);
    }
    let (route, rest) = path
        .strip_prefix("routes[")
        .and_then(|rest| rest.split_once("]."))
        .map(|(index, rest)| (format!("routes[{index}]"), rest))?;
    if let Some(rest) = rest.strip_prefix("methods.") {
        let (method, _) = rest.split_once('.')?;
        return [format!("{route}.methods.{method}.scopes"), format!("{route}.scopes"), format!("{route}.auth")]
            .iter()
            .find_map(|path| at(path));
    }
    match rest {
        "mode" => at("mode"),
        rest if rest.starts_with("accept") && at(&format!("{route}.accept")).is_none() => at(&format!("auth.{rest}")),
        _ => None,
    }
}

fn collect(value: &Value, path: &mut String, visit: &mut impl FnMut(&str, &Value)) {
    use std::fmt::Write as _;
    let length = path.len();
    match value {
        Value::Mapping(map) if !map.is_empty() => {
            for (key, value) in map {
                super::place::push_key(path, key.as_str().unwrap_or_default());
                collect(value, path, visit);
                path.truncate(length);
            }
        }
        Value::Sequence(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                let _ = write!(path, "[{index}]");
                collect(item, path, visit);
                path.truncate(length);
            }
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Tagged(_)
        | Value::Mapping(_)
        | Value::Sequence(_) => visit(path, value),
    }
}

#[cfg(test)]
#[path = "effective_tests.rs"]
mod tests;
