//! The table of refusals, row by row: status, code, challenge, and the truth in the log.

use portcullis_testkit::{Gateway, Key, KeySpec, Origin, Response, eventually, key_text};

use crate::scene;

/// One row: what is sent, what comes back, what the log says.
struct Row {
    claim: &'static str,
    method: &'static str,
    target: &'static str,
    fields: Vec<(&'static str, String)>,
    status: u16,
    code: &'static str,
    /// What must stand in the challenge; nothing: there is none.
    challenge: &'static [&'static str],
    reason: &'static str,
}

const INVALID_TOKEN: &[&str] = &["Bearer realm=\"portcullis\"", "error=\"invalid_token\""];
const INVALID_REQUEST: &[&str] = &["Bearer realm=\"portcullis\"", "error=\"invalid_request\""];
const INSUFFICIENT: &[&str] = &["error=\"insufficient_scope\"", "scope=\"write:orders\""];
const BARE: &[&str] = &["Bearer realm=\"portcullis\""];

async fn ask(gateway: &Gateway, row: &Row) -> Response {
    let call = gateway.call(row.method, row.target);
    row.fields.iter().fold(call, |call, (name, value)| call.header(name, value)).await
}

async fn check(gateway: &Gateway, origin: &Origin, rows: &[Row]) {
    for row in rows {
        let answer = ask(gateway, row).await;
        let told = (answer.status, answer.code());
        assert_eq!(told, (row.status, row.code.to_owned()), "{}: {answer:?}", row.claim);
        let challenge = answer.challenge();
        for part in row.challenge {
            assert!(challenge.contains(part), "{}: no {part} in {challenge:?}", row.claim);
        }
        assert_eq!(challenge.is_empty(), row.challenge.is_empty(), "{}: {challenge:?}", row.claim);
        if row.code == "missing_credential" {
            assert!(!challenge.contains("error"), "{}: {challenge:?}", row.claim);
        }
        let line = gateway.access_line(&answer).await;
        assert_eq!(line["status"], row.status, "{}: {line}", row.claim);
        assert_eq!(line["code"], row.code, "{}: {line}", row.claim);
        assert_eq!(line["reason"], row.reason, "{}: {line}", row.claim);
    }
    origin.untouched();
}

fn bearer(text: &str) -> Vec<(&'static str, String)> {
    vec![("authorization", format!("Bearer {text}"))]
}

fn api_key(text: &str) -> Vec<(&'static str, String)> {
    vec![("x-api-key", text.to_owned())]
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_and_malformed_credentials() {
    let (gateway, origin) = scene::shop().await;
    let key = gateway.key("reader", "read:orders").await;
    let other = gateway.key("other", "read:orders").await;
    let row = |claim, fields, status, code, challenge, reason| Row {
        claim,
        method: "GET",
        target: "/v1/orders/7",
        fields,
        status,
        code,
        challenge,
        reason,
    };
    let missing = |claim, fields| row(claim, fields, 401, "missing_credential", BARE, "missing_credential");
    let malformed = |claim, fields| row(claim, fields, 400, "invalid_request", INVALID_REQUEST, "invalid_request");
    check(
        &gateway,
        &origin,
        &[
            missing("nothing was sent", vec![]),
            missing("a scheme nobody accepts is nothing", vec![("authorization", "Negotiate abc".to_owned())]),
            missing("basic is not accepted unless configured", vec![("authorization", "Basic cGM6".to_owned())]),
            missing("a key in a cookie is not looked for", vec![("cookie", "api_key=pc_live_sk_x".to_owned())]),
            malformed("a scheme without token", vec![("authorization", "Bearer".to_owned())]),
            malformed("a scheme without token, with a space", vec![("authorization", "Bearer ".to_owned())]),
            malformed("two tokens", bearer("one two")),
            malformed("a list", bearer(&format!("{},{}", key.text, other.text))),
            malformed("an empty plain field", api_key("")),
            malformed("spaces in a plain field", api_key("a b")),
            malformed("more than 8 KiB", api_key(&"k".repeat(8 * 1024 + 1))),
            malformed("not ASCII", bearer("schlüssel")),
            malformed("the same key twice in two places", [bearer(&key.text), api_key(&key.text)].concat()),
            malformed("two keys in two places", [bearer(&key.text), api_key(&other.text)].concat()),
            malformed("the same field twice", [bearer(&key.text), bearer(&key.text)].concat()),
            malformed("the plain field twice", [api_key(&key.text), api_key(&key.text)].concat()),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_not_valid_look_alike_outside_and_differ_in_the_log() {
    let (gateway, origin) = scene::shop().await;
    let revoked = gateway.key("revoked", "read:orders").await;
    let disabled = gateway.key("disabled", "read:orders").await;
    let expired = gateway.key_of(KeySpec::new("expired", "read:orders").expires_in("1s")).await;
    for verb in [["keys", "revoke", &revoked.id], ["keys", "disable", &disabled.id]] {
        let _ = gateway.cli(&verb).await.success();
    }
    for key in [&revoked, &disabled, &expired] {
        eventually!("the key is refused", gateway.get("/v1/orders/7").bearer(key).await.status == 401);
    }
    origin.forget();

    let row = |claim, text: &str, reason| Row {
        claim,
        method: "GET",
        target: "/v1/orders/7",
        fields: bearer(text),
        status: 401,
        code: "invalid_key",
        challenge: INVALID_TOKEN,
        reason,
    };
    let unknown = key_text::forged("pc_live_sk_", 'Z');
    let rows = [
        row("unknown", &unknown, "unknown_key"),
        row("wrong checksum", &key_text::mistyped(&unknown), "bad_checksum"),
        row("a foreign text", "some-other-token", "unknown_key"),
        row("a JWT where none are accepted", "eyJhbGciOiJub25lIn0.e30.", "unknown_key"),
        row("revoked", &revoked.text, "key_revoked"),
        row("disabled", &disabled.text, "key_disabled"),
        row("expired", &expired.text, "key_expired"),
    ];
    check(&gateway, &origin, &rows).await;

    let mut bodies = std::collections::BTreeSet::new();
    for row in &rows {
        let answer = ask(&gateway, row).await;
        let mut body = answer.json();
        body["request_id"] = "".into();
        let fields: Vec<_> = answer
            .headers
            .iter()
            .filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()))
            .map(|(name, value)| format!("{name}: {value:?}"))
            .collect();
        bodies.insert(format!("{fields:?} {body}"));
    }
    assert_eq!(bodies.len(), 1, "a client can tell them apart: {bodies:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_key_that_is_refused_is_named_in_the_log_and_an_unknown_one_is_not() {
    let (gateway, _origin) = scene::shop().await;
    let reader = gateway.key("reader", "read:orders").await;
    let refused = gateway.post("/v1/orders/7").bearer(&reader).await.refused(403, "insufficient_scope");
    let line = gateway.access_line(&refused).await;
    assert_eq!(line["key_id"], reader.id.as_str(), "{line}");
    assert_eq!(line["environment"], "live", "{line}");
    assert_eq!(line["missing_scopes"], serde_json::json!(["write:orders"]), "{line}");

    let unknown = key_text::forged("pc_live_sk_", 'Y');
    let refused = gateway.get("/v1/orders/7").header("x-api-key", &unknown).await.refused(401, "invalid_key");
    let line = gateway.access_line(&refused).await;
    assert!(line["key_id"].is_null(), "{line}");
    assert!(!line.to_string().contains(&unknown), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_that_is_missing_is_named_and_nothing_else_is_asked_first() {
    let (gateway, origin) = scene::shop().await;
    let reader = gateway.key("reader", "read:orders").await;
    let nobody = gateway.key("nobody", "").await;
    let row = |claim, target, key: &Key| Row {
        claim,
        method: "POST",
        target,
        fields: bearer(&key.text),
        status: 403,
        code: "insufficient_scope",
        challenge: INSUFFICIENT,
        reason: "insufficient_scope",
    };
    check(
        &gateway,
        &origin,
        &[row("another scope", "/v1/orders/7", &reader), row("no scope at all", "/v1/orders", &nobody)],
    )
    .await;
    let answer = gateway.post("/v1/orders/7").bearer(&reader).await;
    let body = answer.json();
    assert_eq!(body["required_scopes"], serde_json::json!(["write:orders"]));
    assert_eq!(body["missing_scopes"], serde_json::json!(["write:orders"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_routes_and_methods_are_refused_before_any_credential_is_looked_at() {
    let (gateway, origin) = scene::shop().await;
    let key = gateway.key("reader", "read:orders").await;
    let twice = [bearer(&key.text), api_key(&key.text)].concat();
    let row = |claim, method, target, status, code| Row {
        claim,
        method,
        target,
        fields: twice.clone(),
        status,
        code,
        challenge: &[],
        reason: code,
    };
    check(
        &gateway,
        &origin,
        &[
            row("an ambiguous path", "GET", "/v1/orders/a%2Fb", 400, "bad_path"),
            row("no route", "GET", "/v1/refunds/1", 404, "no_route"),
            row("a wider neighbour is no route", "GET", "/v1/ordersandmore", 404, "no_route"),
            row("the parent is no route", "GET", "/v1", 404, "no_route"),
            row("a method not listed", "DELETE", "/v1/orders/7", 405, "method_not_allowed"),
            row("TRACE is never answered", "TRACE", "/open/x", 405, "method_not_allowed"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_right_key_is_let_through_and_named_to_the_upstream() {
    let (gateway, origin) = scene::shop().await;
    let reader = gateway.key("reader", "read:orders").await;
    let answer = gateway.get("/v1/orders/7?expand=lines").bearer(&reader).await.expect(200);
    assert_eq!(answer.text(), "hello from the origin");
    let seen = origin.only();
    assert_eq!(seen.target, "/v1/orders/7?expand=lines");
    assert_eq!(seen.header("x-portcullis-key-id"), Some(reader.id.as_str()));
    assert_eq!(seen.header("x-portcullis-scopes"), Some("read:orders"));
    assert_eq!(seen.header("x-portcullis-environment"), Some("live"));
    assert_eq!(seen.header("x-portcullis-auth"), Some("key"));
    for target in ["/v1/orders", "/v1/orders/", "/v1/orders/7/lines/1"] {
        gateway.get(target).api_key(&reader).await.expect(200);
        assert_eq!(origin.last().target, target);
    }
    let line = gateway.access_line(&answer).await;
    assert_eq!(line["route"], "orders", "{line}");
    assert_eq!(line["upstream"], "shop", "{line}");
    assert_eq!(line["path"], "/v1/orders/7", "no query: {line}");
    assert_eq!(line["key_prefix"], reader.prefix.as_str(), "{line}");
    assert!(line["reason"].is_null() && line["code"].is_null(), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_key_asks_for_a_valid_key_and_no_scope() {
    let (gateway, origin) = scene::shop().await;
    let nobody = gateway.key("nobody", "").await;
    gateway.get("/me").bearer(&nobody).await.expect(200);
    assert_eq!(origin.only().header("x-portcullis-scopes").unwrap_or_default(), "");
    gateway.get("/me").await.refused(401, "missing_credential");
    gateway.get("/me").header("x-api-key", "nonsense").await.refused(401, "invalid_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn public_routes_check_nothing_and_forward_no_credential() {
    let (gateway, origin) = scene::shop().await;
    let key = gateway.key("reader", "read:orders").await;
    gateway.get("/status").await.expect(200);
    assert_eq!(origin.last().header("x-portcullis-auth"), Some("anonymous"));
    assert!(!origin.last().has("x-portcullis-key-id"));
    gateway.get("/status").bearer(&key).await.expect(200);
    let seen = origin.last();
    assert_eq!(seen.header("x-portcullis-auth"), Some("anonymous"), "a key is not looked at where none is asked for");
    assert!(!seen.has("authorization"));
    gateway.get("/status").header("authorization", "Bearer one two").await.expect(200);
    assert!(!origin.last().has("authorization"), "accepted places are emptied");
}

#[tokio::test(flavor = "multi_thread")]
async fn granted_wildcards_and_roles_cover_what_is_below_them() {
    let (gateway, _origin) = scene::shop_with(
        r#"
  - { path: "/a", upstream: shop, scopes: { any: [read:orders, write:orders] } }
  - { path: "/b", upstream: shop, scopes: [read:orders, write:orders] }
"#,
        "roles: { clerk: [read:orders, write:orders] }",
    )
    .await;
    let all = gateway.key("all", "*").await;
    let readers = gateway.key("readers", "read:*").await;
    let clerk = gateway.key_of(KeySpec::new("clerk", "").option("--roles", "clerk")).await;
    let status = async |target: &str, key: &Key| gateway.get(target).bearer(key).await.status;
    assert_eq!((status("/a", &all).await, status("/b", &all).await), (200, 200));
    assert_eq!((status("/a", &readers).await, status("/b", &readers).await), (200, 403));
    assert_eq!((status("/a", &clerk).await, status("/b", &clerk).await), (200, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_routes_cannot_be_told_from_those_that_are_not_there() {
    let (gateway, origin) = scene::shop_with("", "auth: { hide_routes: true }").await;
    let key = gateway.key("nobody", "").await;
    for (method, target) in [("GET", "/nothing"), ("DELETE", "/v1/orders/7"), ("GET", "/v1/orders/7")] {
        let answer = gateway.call(method, target).await.refused(401, "missing_credential");
        assert!(answer.header("allow").is_none(), "{answer:?}");
        gateway.call(method, target).header("x-api-key", "junk").await.refused(401, "invalid_key");
    }
    gateway.get("/nothing").bearer(&key).await.refused(404, "no_route");
    gateway.call("DELETE", "/v1/orders/7").bearer(&key).await.refused(405, "method_not_allowed");
    gateway.get("/status").await.expect(200);
    assert_eq!(origin.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_request_id_is_ours_and_a_clients_own_is_only_logged() {
    let (gateway, _origin) = scene::shop().await;
    let answer = gateway.get("/status").header("x-request-id", "mine-123").await.expect(200);
    assert_ne!(answer.header("x-request-id"), Some("mine-123"));
    assert_eq!(gateway.access_line(&answer).await["client_request_id"], "mine-123");

    let (trusting, _origin) = scene::shop_with("", "auth: { trusted_proxies: [127.0.0.0/8] }").await;
    let answer = trusting.get("/status").header("x-request-id", "mine-123").await.expect(200);
    assert_eq!(answer.header("x-request-id"), Some("mine-123"));
}
