//! What answers about usage look like, for the API's description.

use serde_json::{Map, Value, json};

use crate::store::{EventKind, Passage, Span};

/// The use of one key.
pub(super) fn usage() -> Value {
    let status = object(&[("result", result()), ("status", number()), ("requests", number())]);
    let totals = object(&[
        ("requests", number()),
        ("allowed", number()),
        ("refused", number()),
        ("reported", number()),
        ("statuses", list(status)),
    ]);
    let bucket = object(&[
        ("begins", moment()),
        ("span", words([Span::Hour, Span::Day].map(Span::text))),
        ("rule", text()),
        ("status", number()),
        ("result", result()),
        ("requests", number()),
    ]);
    let seen = object(&[("at", moment()), ("address", or_null(text())), ("user_agent", or_null(text()))]);
    let network = object(&[("network", text()), ("first_seen", moment()), ("last_seen", moment())]);
    object(&[
        ("key_id", id("key_")),
        ("since", moment()),
        ("until", moment()),
        ("totals", totals),
        ("buckets", described(list(bucket), "Requests by hour or day, the newest first.")),
        ("truncated", described(json!({ "type": "boolean" }), "Whether there are more buckets.")),
        ("last_seen", or_null(seen)),
        ("networks", list(network)),
        ("events", list(event())),
    ])
}

/// The report.
pub(super) fn report() -> Value {
    let strings = || list(text());
    let holding = || object(&[("scopes", strings()), ("roles", strings())]);
    let key = [("id", id("key_")), ("name", text()), ("owner", or_null(id("own_"))), ("environment", text())];
    let mut unused = key.to_vec();
    unused.extend([("created_at", moment()), ("last_used_at", or_null(moment()))]);
    let mut excess = key.to_vec();
    excess.extend([
        ("held", holding()),
        ("excess", holding()),
        ("used", strings()),
        ("suggested", described(holding(), "What would do instead.")),
    ]);
    let caller = object(&[
        ("key_id", or_null(id("key_"))),
        ("key_name", or_null(text())),
        ("network", or_null(text())),
        ("reason", text()),
        ("missing_scopes", strings()),
        ("requests", number()),
        ("first_seen", moment()),
        ("last_seen", moment()),
    ]);
    let rule = object(&[
        ("rule", text()),
        (
            "ready",
            described(
                json!({ "type": "boolean" }),
                "Whether requests were seen, and enforcing would have refused none of them.",
            ),
        ),
        ("keys_let_in", described(number(), "How many keys the rule let in.")),
        ("requests", number()),
        ("callers", list(caller)),
    ]);
    object(&[
        ("counted_since", or_null(moment())),
        ("unused_keys", list(object(&unused))),
        ("excess_scopes", list(object(&excess))),
        ("report_mode", list(rule)),
        ("events", list(event())),
        ("truncated", described(strings(), "The lists that have more entries than are told.")),
    ])
}

fn event() -> Value {
    object(&[
        ("event", words(EventKind::ALL.map(EventKind::text))),
        ("key_id", or_null(id("key_"))),
        ("address", or_null(text())),
        ("at", moment()),
        ("detail", text()),
    ])
}

/// An object with all of these members and no others.
fn object(members: &[(&str, Value)]) -> Value {
    let properties: Map<String, Value> =
        members.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    let required: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn list(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn or_null(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

fn described(mut schema: Value, description: &str) -> Value {
    schema["description"] = description.into();
    schema
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn number() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn moment() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn id(prefix: &str) -> Value {
    json!({ "type": "string", "pattern": format!("^{prefix}[0-9a-f]{{32}}$") })
}

fn result() -> Value {
    words(Passage::ALL.map(Passage::text))
}

fn words<const MANY: usize>(words: [&str; MANY]) -> Value {
    json!({ "type": "string", "enum": words.as_slice() })
}
