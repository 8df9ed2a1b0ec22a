//! A key's record as it is shown: the fields of contract §3, never the key and never its hash.

use std::io;

use serde_json::Value;

use crate::cli::console::Console;
use crate::cli::output::{self, Output};
use crate::cli::record::Record;

/// The record as people read it: what is set, name and value.
pub(super) fn fields(key: &Value) -> Vec<(&'static str, String)> {
    let record = Record(key);
    let shown = |name: &str| record.shown(name).unwrap_or_default();
    let mut fields = vec![
        ("id", shown("id")),
        ("name", shown("name")),
        ("environment", shown("environment")),
        ("kind", shown("kind")),
        ("state", shown("state")),
        ("scopes", record.words("scopes").unwrap_or_else(|| "-".to_owned())),
    ];
    let mut set = |name, value: Option<String>| fields.extend(value.map(|value| (name, value)));
    set("roles", record.words("roles"));
    set("may grant", record.words("may_grant"));
    set("key", key_text(record));
    set("description", record.shown("description"));
    set("owner", record.shown("owner"));
    set("pair", record.says("paired").then(|| format!("{}:<secret>", shown("id"))));
    set("networks", record.words("allowed_ips"));
    set("origins", record.words("allowed_origins"));
    set("rate limit", record.rate_limit());
    set("quota", record.quota());
    set("created", Some(format!("{} by {}", shown("created_at"), shown("created_by"))));
    set("expires", Some(record.shown("expires_at").unwrap_or_else(|| "never".to_owned())));
    set("last used", record.shown("last_used_at"));
    set("revoked", record.shown("revoked_at"));
    set("replaces", record.shown("replaces"));
    set("grace until", record.shown("grace_until"));
    fields.extend(record.notes());
    fields
}

/// Writes a record for people or for scripts.
///
/// # Errors
/// The stream's.
pub(super) fn write(key: &Value, format: Output, console: &mut Console<'_>) -> io::Result<()> {
    match format {
        Output::Text => output::fields(console, &fields(key)),
        Output::Json => output::json(console, key),
    }
}

/// What of a key's text may be shown; none for keys imported by hash alone.
pub(super) fn key_text(record: Record<'_>) -> Option<String> {
    let (prefix, last4) = (record.shown("prefix"), record.shown("last4"));
    (prefix.is_some() || last4.is_some())
        .then(|| format!("{}…{}", prefix.unwrap_or_default(), last4.unwrap_or_default()))
}
