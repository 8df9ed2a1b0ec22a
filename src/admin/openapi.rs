//! The description of the API, made from the table and the types that requests are read with: as OpenAPI 3.1 for machines,
//! and as one page without scripts for people.

use std::fmt::Write;
use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::configuration::{Question, Reload, explanation, rule};
use super::exchange::CODES;
use super::fleet;
use super::lists::{AUDIT_FILTERS, AUDIT_ORDERS, KEY_FILTERS};
use super::profile::ApiProfile;
use super::table::{Name, Needs, Repeat, Row, TABLE, satisfied_by};
use super::usage::{REPORT_FILTERS, USAGE_FILTERS};
use super::usage_schema;
use crate::manage::{KeyChange, KeyShape, NewKey, NewOwner, OwnerChange, OwnerShape, Rotation, RowShape};

/// The OpenAPI 3.1 document, made once.
pub(super) fn document(profile: ApiProfile) -> &'static str {
    static STANDARD: LazyLock<String> = LazyLock::new(|| format!("{}\n", describe(ApiProfile::Standard)));
    static SUCCESS: LazyLock<String> = LazyLock::new(|| format!("{}\n", describe(ApiProfile::Success)));
    match profile {
        ApiProfile::Standard => &STANDARD,
        ApiProfile::Success => &SUCCESS,
    }
}

fn describe(profile: ApiProfile) -> Value {
    let mut schemas = Schemas(
        SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into()).into_generator(),
    );
    let mut paths: Map<String, Value> = Map::new();
    for row in TABLE {
        let item = paths.entry(row.path).or_insert_with(|| json!({}));
        if let Some(item) = item.as_object_mut() {
            item.insert(row.method.as_str().to_lowercase(), operation(row, &mut schemas, profile));
        }
    }
    let mut components = schemas.0.take_definitions(true);
    components.insert("Problem".to_owned(), problem(profile));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "portcullis management API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Keys and owners of a gateway. Every answer carries `X-Request-Id`.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "description": "A management key." },
            },
        },
    })
}

struct Schemas(SchemaGenerator);

impl Schemas {
    fn of<T: JsonSchema>(&mut self) -> Value {
        self.0.subschema_for::<T>().to_value()
    }

    /// A record that was changed: what may stand beside its members is among them, since the record itself allows no others.
    fn changed<T: JsonSchema>(&mut self, title: &str) -> Value {
        let _known = self.of::<T>();
        let mut schema = self.0.root_schema_for::<T>().to_value();
        if let Some(object) = schema.as_object_mut() {
            object.remove("$defs");
            object.remove("$schema");
            object.insert("title".to_owned(), title.into());
        }
        add_member(&mut schema, "fleet", fleet::answer());
        schema
    }
}

fn add_member(schema: &mut Value, name: &str, member: Value) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert(name.to_owned(), member);
    }
}

fn operation(row: &Row, schemas: &mut Schemas, profile: ApiProfile) -> Value {
    let mut operation = json!({ "operationId": row.name.text(), "summary": row.summary });
    let mut parameters = Vec::new();
    if row.path.contains("{id}") {
        let pattern = match row.path {
            path if path.starts_with("/v1/keys") => "^key_[0-9a-f]{32}$",
            path if path.starts_with("/v1/owners") => "^own_[0-9a-f]{32}$",
            path if path.starts_with("/v1/nodes") => "^node_[0-9a-f]{32}$",
            path if path.starts_with("/v1/requests") => "^[0-9A-Za-z][0-9A-Za-z._~-]{0,127}$",
            _ => "^[a-z_]+$",
        };
        parameters.push(
            json!({ "name": "id", "in": "path", "required": true, "schema": { "type": "string", "pattern": pattern } }),
        );
    }
    for (name, schema) in queries(row.name) {
        let name = if name == "scope" { profile.scope_parameter() } else { name };
        parameters.push(json!({ "name": name, "in": "query", "schema": schema }));
    }
    if row.waits_for_the_fleet() {
        let parameter = |(name, schema)| json!({ "name": name, "in": "query", "schema": schema });
        parameters.extend(fleet::parameters().map(parameter));
    }
    if row.changes_a_record() {
        let schema = json!({ "type": "string", "pattern": "^(\\*|\"[0-9]{1,19}\")$" });
        parameters.push(json!({ "name": "If-Match", "in": "header", "schema": schema, "description": "The entity tag of the record that was read." }));
    }
    if row.effect_repeat() == Some(Repeat::MakesAnother) {
        let schema = json!({ "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" });
        parameters.push(json!({ "name": "Idempotency-Key", "in": "header", "schema": schema, "description": "Makes it safe to ask again: the same is answered for 15 minutes, secrets included." }));
    }
    let body = body(row.name, schemas);
    let has_body = body.is_some();
    let mut responses = Map::new();
    let (status, description, media_type, schema) = success(row, schemas);
    let schema = if media_type == "application/json" { enveloped(schema, row.name, profile) } else { schema };
    if row.name == Name::ImportKeys {
        let told = json!({ "description": "What would be imported (`dry_run`).", "content": { media_type: { "schema": schema } } });
        responses.insert("200".to_owned(), told);
    }
    if row.waits_for_the_fleet() {
        let told = "Done; this gateway, or with `wait=all` another one, does not enforce it yet.";
        responses
            .insert("202".to_owned(), json!({ "description": told, "content": { media_type: { "schema": schema } } }));
    }
    responses.insert(
        status.to_owned(),
        json!({ "description": description, "content": { media_type: { "schema": schema } } }),
    );
    for status in problems(row, has_body) {
        let media_type = if profile == ApiProfile::Standard { "application/problem+json" } else { "application/json" };
        responses.insert(
            status.to_string(),
            json!({
                "description": described(status),
                "content": { media_type: { "schema": { "$ref": "#/components/schemas/Problem" } } },
            }),
        );
    }
    if let Some(object) = operation.as_object_mut() {
        if !parameters.is_empty() {
            object.insert("parameters".to_owned(), parameters.into());
        }
        if let Some((schema, required)) = body {
            let schema = renamed_schema(schema, profile);
            object.insert(
                "requestBody".to_owned(),
                json!({ "required": required, "content": contents(row.name, schema) }),
            );
        }
        object.insert("responses".to_owned(), responses.into());
        if row.needs != Needs::Nothing {
            object.insert("security".to_owned(), json!([{ "bearer": [] }]));
        }
        if let Needs::Scope(scope) = row.needs {
            object.insert("description".to_owned(), format!("Needs `{}`.", satisfied_by(scope).join("` or `")).into());
        }
    }
    operation
}

fn queries(name: Name) -> Vec<(&'static str, Value)> {
    let limit = || json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 });
    match name {
        Name::ListKeys => KEY_FILTERS
            .into_iter()
            .map(|filter| {
                let schema = match filter {
                    "cursor" => json!({ "type": "string", "pattern": "^key_[0-9a-f]{32}$" }),
                    "limit" => limit(),
                    "owner" => json!({ "type": "string", "pattern": "^own_[0-9a-f]{32}$" }),
                    "kind" => json!({ "type": "string", "enum": ["secret", "publishable", "management"] }),
                    "state" => {
                        let state = "(active|disabled|expired|revoked)";
                        json!({ "type": "string", "pattern": format!("^{state}(,{state})*$"), "description": "One, or several with commas between them." })
                    }
                    "scope" => json!({ "type": "string", "pattern": "^[!#-)+-\\[\\]-~]{1,128}$" }),
                    "unused_since" => json!({
                        "anyOf": [
                            { "type": "string", "format": "date-time" },
                            { "type": "string", "format": "date" },
                            { "type": "string", "pattern": "^(0|[0-9]{1,4}(ms|s|m|h|d))$" },
                        ],
                        "description": "A moment, or so long ago.",
                    }),
                    _ => json!({ "type": "string" }),
                };
                (filter, schema)
            })
            .collect(),
        Name::ListOwners => {
            vec![("cursor", json!({ "type": "string", "pattern": "^own_[0-9a-f]{32}$" })), ("limit", limit())]
        }
        Name::ListAudit => AUDIT_FILTERS
            .into_iter()
            .map(|filter| {
                let schema = match filter {
                    "limit" => limit(),
                    "cursor" => json!({ "type": "string", "pattern": "^[0-9]{1,18}$" }),
                    "order" => json!({ "type": "string", "enum": AUDIT_ORDERS.map(|(name, _)| name) }),
                    _ => json!({ "type": "string" }),
                };
                (filter, schema)
            })
            .collect(),
        Name::ImportKeys => {
            vec![("skip_bad", json!({ "type": "boolean" })), ("dry_run", json!({ "type": "boolean" }))]
        }
        Name::ShowUsage => USAGE_FILTERS.map(|filter| (filter, json!({ "type": "string" }))).to_vec(),
        Name::ShowReport => {
            let span = json!({ "type": "string", "pattern": "^(0|[0-9]{1,4}(ms|s|m|h|d))$", "default": "30d" });
            REPORT_FILTERS.map(|filter| (filter, span.clone())).to_vec()
        }
        _ => Vec::new(),
    }
}

fn body(name: Name, schemas: &mut Schemas) -> Option<(Value, bool)> {
    match name {
        Name::CreateKey => Some((schemas.of::<NewKey>(), true)),
        Name::ChangeKey => Some((schemas.of::<KeyChange>(), true)),
        Name::ImportKeys => Some((json!({ "type": "array", "items": schemas.of::<RowShape>() }), true)),
        Name::RotateKey | Name::RotateSelf => Some((schemas.of::<Rotation>(), false)),
        Name::CreateOwner => Some((schemas.of::<NewOwner>(), true)),
        Name::ChangeOwner => Some((schemas.of::<OwnerChange>(), true)),
        Name::Explain => Some((schemas.of::<Question>(), true)),
        Name::ReloadConfig => Some((schemas.of::<Reload>(), false)),
        Name::VerifyKey => {
            let scopes = json!({ "type": "array", "items": { "type": "string" }, "description": "What it must hold." });
            let text = "The key as its holder would send it.";
            let key = json!({ "type": "string", "pattern": "^[!-~]{1,8192}$", "description": text });
            let properties = json!({ "key": key, "scopes": scopes });
            Some((
                json!({ "type": "object", "properties": properties, "required": ["key"], "additionalProperties": false }),
                true,
            ))
        }
        _ => None,
    }
}

/// The body by media type.
fn contents(name: Name, schema: Value) -> Value {
    let mut contents = json!({ "application/json": { "schema": schema } });
    if name == Name::ImportKeys
        && let Some(contents) = contents.as_object_mut()
    {
        let text = |text: &str| json!({ "schema": { "type": "string", "description": text } });
        contents.insert("application/x-ndjson".to_owned(), text("One object a line."));
        contents.insert("text/csv".to_owned(), text("A heading, then one key a line (RFC 4180)."));
    }
    contents
}

/// The answer when it is done: status, in words, media type, schema.
fn success(row: &Row, schemas: &mut Schemas) -> (&'static str, &'static str, &'static str, Value) {
    let list = |items: Value, cursor: &str| {
        json!({
            "type": "object",
            "properties": {
                "data": { "type": "array", "items": items },
                "next_cursor": { "type": ["string", "null"], "pattern": cursor, "description": "`cursor` of the next page; `null`: there is none." },
            },
            "required": ["data", "next_cursor"],
        })
    };
    const JSON: &str = "application/json";
    match row.name {
        Name::CreateKey | Name::RotateKey | Name::RotateSelf | Name::ReplaceSecret => {
            let shown = json!({ "type": "string", "description": "The key. It is shown this once." });
            let mut with_key = schemas.changed::<KeyShape>("KeyWithSecret");
            add_member(&mut with_key, "key", shown);
            if let Some(required) = with_key.get_mut("required").and_then(Value::as_array_mut) {
                required.push("key".into());
            }
            ("201", "Made, and in force on this gateway.", JSON, with_key)
        }
        Name::CreateOwner => {
            ("201", "Made, and in force on this gateway.", JSON, schemas.changed::<OwnerShape>("ChangedOwner"))
        }
        Name::ListKeys => ("200", "A page of keys.", JSON, list(schemas.of::<KeyShape>(), "^key_[0-9a-f]{32}$")),
        Name::ListOwners => ("200", "A page of owners.", JSON, list(schemas.of::<OwnerShape>(), "^own_[0-9a-f]{32}$")),
        Name::ShowKey | Name::ShowSelf => ("200", "The key as it is now.", JSON, schemas.of::<KeyShape>()),
        Name::ChangeKey | Name::RevokeKey | Name::EnableKey | Name::DisableKey => {
            ("200", "The key as it is now.", JSON, schemas.changed::<KeyShape>("ChangedKey"))
        }
        Name::ShowOwner => ("200", "The owner as it is now.", JSON, schemas.of::<OwnerShape>()),
        Name::ChangeOwner | Name::SuspendOwner | Name::ResumeOwner => {
            ("200", "The owner as it is now.", JSON, schemas.changed::<OwnerShape>("ChangedOwner"))
        }
        Name::VerifyKey => {
            let properties = json!({
                "valid": { "type": "boolean" },
                "reason": { "type": ["string", "null"], "description": "Why it is not valid, as the log has it; `insufficient_scope` where it is accepted and lacks `scopes` that were asked for." },
                "missing_scopes": { "type": "array", "items": { "type": "string" } },
                "form": { "enum": ["ours", "bad_checksum", "foreign"] },
                "record": { "anyOf": [schemas.of::<KeyShape>(), { "type": "null" }] },
            });
            let required = json!(["valid", "reason", "missing_scopes", "form", "record"]);
            ("200", "What it is.", JSON, json!({ "type": "object", "properties": properties, "required": required }))
        }
        Name::ShowUsage => ("200", "What it was used for.", JSON, usage_schema::usage()),
        Name::ShowReport => ("200", "What could be taken from keys.", JSON, usage_schema::report()),
        Name::ImportKeys => {
            let properties = json!({
                "imported": { "type": "integer", "minimum": 0 },
                "would_import": { "type": "integer", "minimum": 0, "description": "Of a `dry_run`: how many rows are good." },
                "skipped": bad_rows(),
                "revision": { "type": ["integer", "null"], "description": "`null`: nothing was imported." },
                "fleet": fleet::answer(),
            });
            let required = json!(["imported", "skipped", "revision"]);
            let schema = json!({
                "type": "object", "properties": properties, "required": required, "additionalProperties": false,
            });
            ("201", "Imported, and in force on this gateway.", JSON, schema)
        }
        Name::ListAudit => ("200", "A page of entries.", JSON, list(json!({ "type": "object" }), "^[0-9]+$")),
        Name::Explain => ("200", "The decision, and how it came about.", JSON, explanation()),
        Name::ShowRequest => {
            let properties = json!({
                "request": { "type": "object", "description": "What became of it, in the names of the access line." },
                "now": { "anyOf": [explanation(), { "type": "null" }], "description": "What it would be answered now; `null`: too little of it is remembered." },
                "changed": { "type": ["boolean", "null"], "description": "Whether it would be decided otherwise; `null`: that cannot be said." },
                "note": { "type": "string" },
            });
            let required = json!(["request", "now", "changed", "note"]);
            (
                "200",
                "What became of it.",
                JSON,
                json!({ "type": "object", "properties": properties, "required": required }),
            )
        }
        Name::ListRoutes => ("200", "All rules, in the order of the file.", JSON, all(rule())),
        Name::ListNodes => ("200", "All nodes.", JSON, all(fleet::node())),
        Name::ForgetNode => {
            let id = json!({ "type": "string", "pattern": "^node_[0-9a-f]{32}$" });
            let properties = json!({ "id": id, "forgotten": { "const": true } });
            let required = json!(["id", "forgotten"]);
            ("200", "Forgotten.", JSON, json!({ "type": "object", "properties": properties, "required": required }))
        }
        Name::ReloadConfig => {
            let texts = json!({ "type": "array", "items": { "type": "string" } });
            let properties = json!({
                "ok": { "const": true },
                "file": { "type": "string" },
                "changed_routes": texts,
                "changed_settings": texts,
                "losing_keys": texts,
                "problems": texts,
            });
            let required = json!(["ok", "file", "changed_routes", "changed_settings", "losing_keys", "problems"]);
            (
                "200",
                "Taken over, unless it is a dry run.",
                JSON,
                json!({ "type": "object", "properties": properties, "required": required }),
            )
        }
        Name::ListScopes | Name::Status | Name::OpenApi => ("200", "As asked.", JSON, json!({ "type": "object" })),
        Name::Docs => ("200", "A page.", "text/html", json!({ "type": "string" })),
        Name::DocsErrors | Name::DocsError => ("200", "A page.", "text/markdown", json!({ "type": "string" })),
    }
}

/// All there are, on one page.
fn all(items: Value) -> Value {
    json!({ "type": "object", "properties": { "data": { "type": "array", "items": items } }, "required": ["data"] })
}

fn bad_rows() -> Value {
    let properties = json!({ "line": { "type": "integer", "minimum": 1 }, "problem": { "type": "string" } });
    json!({
        "type": "array",
        "items": { "type": "object", "properties": properties, "required": ["line", "problem"] },
    })
}

fn enveloped(schema: Value, name: Name, profile: ApiProfile) -> Value {
    match (profile, name) {
        (ApiProfile::Standard, _) | (_, Name::OpenApi) => schema,
        (ApiProfile::Success, _) => json!({
            "type": "object",
            "properties": { "success": { "const": true }, "data": { "type": "object" } },
            "required": ["success", "data"],
        }),
    }
}

fn renamed_schema(schema: Value, profile: ApiProfile) -> Value {
    match profile {
        ApiProfile::Standard => schema,
        ApiProfile::Success => json!({ "type": "object" }),
    }
}

fn problem(profile: ApiProfile) -> Value {
    match profile {
        ApiProfile::Standard => json!({
            "type": "object",
            "description": "RFC 9457.",
            "properties": {
                "type": { "type": "string", "format": "uri" },
                "title": { "type": "string" },
                "status": { "type": "integer" },
                "detail": { "type": "string" },
                "code": { "type": "string" },
                "request_id": { "type": "string" },
                "field": { "type": "string", "description": "Where the mistake is." },
                "required_scopes": { "type": "array", "items": { "type": "string" } },
                "missing_scopes": { "type": "array", "items": { "type": "string" } },
                "problems": { "type": "array", "items": { "type": "string" }, "description": "Of a configuration." },
                "rows": bad_rows(),
            },
            "required": ["type", "title", "status", "detail", "code", "request_id"],
        }),
        ApiProfile::Success => json!({
            "type": "object",
            "properties": { "success": { "const": false }, "error": { "type": "object" }, "request_id": { "type": "string" } },
            "required": ["success", "error"],
        }),
    }
}

/// The statuses an endpoint may refuse with.
fn problems(row: &Row, has_body: bool) -> Vec<u16> {
    let mut statuses = Vec::new();
    if row.needs != Needs::Nothing {
        statuses.extend([400, 401, 403, 503]);
    }
    if row.path.contains("{id}") {
        statuses.extend([400, 404]);
    }
    if matches!(row.name, Name::ListKeys | Name::ListAudit | Name::ShowUsage | Name::ShowReport) {
        statuses.push(422);
    }
    if has_body {
        statuses.extend([413, 415, 422]);
    }
    match row.effect_repeat() {
        None => {}
        Some(Repeat::Idempotent) => statuses.push(409),
        Some(Repeat::MakesAnother) => statuses.extend([404, 409, 412, 422]),
    }
    if row.changes_a_record() {
        statuses.push(412);
    }
    if row.name == Name::OpenApi {
        statuses.push(400);
    }
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

const fn described(status: u16) -> &'static str {
    match status {
        400 => "The request cannot be read, or says something that cannot be.",
        401 => "No key, or none that is accepted.",
        403 => "The key may not do this.",
        404 => "There is no such record, or it is not the caller's to see.",
        409 => "The record is in no state for this.",
        412 => "The record changed since it was read.",
        413 => "The body is too large.",
        415 => "The body is of another media type.",
        422 => "A value cannot be, or the Idempotency-Key was used for another request.",
        503 => "The store, or the key set, is not there, or too many others import; nothing was changed.",
        _ => "It is not done.",
    }
}

/// The API on one page, for people; needs no network and no scripts.
pub(super) fn page() -> String {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>portcullis management API</title>\n\
         <style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
         table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #8884;\
         vertical-align:top}code{font-size:.9em}</style>\n<h1>Management API</h1>\n\
         <p>Send a management key as <code>Authorization: Bearer …</code>. The machine-readable description is \
         <a href=\"/v1/openapi.json\">/v1/openapi.json</a>; what an error code means is under \
         <a href=\"/docs/errors\">/docs/errors</a>.</p>\n<table><tr><th>Request</th><th>Needs</th><th>Does</th></tr>\n",
    );
    for row in TABLE {
        let needs = match row.needs {
            Needs::Nothing => "nothing".to_owned(),
            Needs::AnyKey => "a management key".to_owned(),
            Needs::Scope(scope) => format!("<code>{}</code>", satisfied_by(scope).join("</code> or <code>")),
        };
        let written = writeln!(
            page,
            "<tr><td><code>{} {}</code></td><td>{needs}</td><td>{}</td></tr>",
            row.method, row.path, row.summary
        );
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }
    page.push_str("</table>\n<h2>Errors</h2>\n<ul>\n");
    for code in CODES {
        let written = writeln!(page, "<li><a href=\"/docs/errors/{code}\"><code>{code}</code></a></li>");
        debug_assert!(written.is_ok(), "writing to a string cannot fail");
    }
    page.push_str("</ul>\n</html>\n");
    page
}
