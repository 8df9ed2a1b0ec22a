//! A key's record as it is shown: the fields of contract §3, never the key and never its hash.

use std::io;

use serde_json::Value;

use crate::cli::console::Console;
use crate::cli::output::{self, Output, visible};
use crate::domain::time::show_duration;
use crate::domain::{GrantedScope, KeyRecord, Quota, RateLimit, Timestamp};
use crate::manage::key_json;

/// A record at a moment, which decides its state.
pub(in crate::cli) struct Shown<'a> {
    pub(in crate::cli) record: &'a KeyRecord,
    pub(in crate::cli) now: Timestamp,
}

impl Shown<'_> {
    /// The record as scripts read it.
    pub(in crate::cli) fn json(&self) -> Value {
        key_json(self.record, self.now)
    }

    /// The record as people read it: what is set, name and value.
    pub(in crate::cli) fn fields(&self) -> Vec<(&'static str, String)> {
        let record = self.record;
        let mut fields = vec![
            ("id", record.id.to_string()),
            ("name", visible(&record.name)),
            ("environment", visible(&record.environment)),
            ("kind", record.kind.to_string()),
            ("state", record.state(self.now).name().to_owned()),
            ("scopes", scopes_text(&record.scopes)),
        ];
        let mut set = |name, value: Option<String>| fields.extend(value.map(|value| (name, value)));
        let moment = |moment: Option<Timestamp>| moment.map(|moment| moment.to_string());
        let words = |words: &[String]| (!words.is_empty()).then(|| visible(&words.join(" ")));
        set("roles", words(&record.roles));
        set("may grant", (!record.may_grant.is_empty()).then(|| scopes_text(&record.may_grant)));
        set("key", key_text(record));
        set("description", (!record.description.is_empty()).then(|| visible(&record.description)));
        set("owner", record.owner.map(|owner| owner.to_string()));
        set("pair", record.paired.then(|| format!("{}:<secret>", record.id)));
        set("networks", (!record.bounds.allowed_ips.is_empty()).then(|| joined(&record.bounds.allowed_ips)));
        set("origins", words(&record.bounds.allowed_origins));
        set("rate limit", record.bounds.rate_limit.map(|limit| rate_text(&limit)));
        set("quota", record.bounds.quota.map(|quota| quota_text(&quota)));
        set("created", Some(format!("{} by {}", record.created_at, visible(&record.created_by))));
        set("expires", Some(record.expires_at.map_or_else(|| "never".to_owned(), |moment| moment.to_string())));
        set("last used", moment(record.last_used_at));
        set("revoked", moment(record.revoked_at));
        set("replaces", record.replaces.map(|id| id.to_string()));
        set("grace until", moment(record.grace_until));
        for (name, value) in &record.metadata {
            fields.push(("metadata", visible(&format!("{name}: {value}"))));
        }
        fields
    }

    /// Writes the one or the other.
    ///
    /// # Errors
    /// The stream's.
    pub(in crate::cli) fn write(&self, format: Output, console: &mut Console<'_>) -> io::Result<()> {
        match format {
            Output::Text => output::fields(console, &self.fields()),
            Output::Json => output::json(console, &self.json()),
        }
    }
}

fn joined<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// `10 in 1s, 20 at once`.
pub(in crate::cli) fn rate_text(limit: &RateLimit) -> String {
    format!("{} in {}, {} at once", limit.requests(), show_duration(limit.per()), limit.burst())
}

/// `1000 a day, 20000 a month`.
pub(in crate::cli) fn quota_text(quota: &Quota) -> String {
    let parts =
        [quota.per_day().map(|most| format!("{most} a day")), quota.per_month().map(|most| format!("{most} a month"))];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// Scopes in one cell; `-` when there are none.
fn scopes_text(scopes: &[GrantedScope]) -> String {
    if scopes.is_empty() {
        return "-".to_owned();
    }
    scopes.iter().map(GrantedScope::as_str).collect::<Vec<_>>().join(" ")
}

/// What of a key's text may be shown; none for keys imported by hash alone.
pub(super) fn key_text(record: &KeyRecord) -> Option<String> {
    let KeyRecord { prefix, last4, .. } = record;
    (!prefix.is_empty() || !last4.is_empty()).then(|| visible(&format!("{prefix}…{last4}")))
}
