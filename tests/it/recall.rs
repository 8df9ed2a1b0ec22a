//! What became of a request a moment ago, asked by the id of its answer.

use std::os::unix::fs::symlink;

use portcullis_testkit::{Gateway, Origin, Response, eventually};
use serde_json::{Value, json};

use crate::scene;

/// What `explain REQUEST_ID` says, for scripts.
async fn explained(gateway: &Gateway, answer: &Response) -> Value {
    let id = answer.header("x-request-id").unwrap();
    let told = gateway.cli(&["explain", id, "--output", "json"]).await.success().json();
    assert_eq!(told["request"]["request_id"], id);
    told
}

/// Some members of the request that is remembered.
fn was<const N: usize>(told: &Value, names: [&str; N]) -> [Value; N] {
    names.map(|name| told["request"][name].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_explained_by_their_request_ids() {
    let (gateway, _origin) = scene::shop().await;
    let key = gateway.key("reader", "read:orders").await;
    let nobody = gateway.get("/v1/orders/7?card=4111").await.refused(401, "missing_credential");
    let told = explained(&gateway, &nobody).await;
    assert_eq!(
        was(&told, ["method", "path", "route", "status", "code", "key_id", "listener", "protocol", "client_ip"]),
        [
            json!("GET"),
            json!("/v1/orders/7"),
            json!("orders"),
            json!(401),
            json!("missing_credential"),
            Value::Null,
            json!("front"),
            json!("HTTP/1.1"),
            json!("127.0.0.1")
        ]
    );
    assert!(!told.to_string().contains("4111"), "a query is kept nowhere: {told}");
    assert_eq!((&told["changed"], &told["now"]["code"]), (&json!(false), &json!("missing_credential")));

    let lacking = gateway.post("/v1/orders/7").bearer(&key).await.refused(403, "insufficient_scope");
    let told = explained(&gateway, &lacking).await;
    let names = ["status", "reason", "missing_scopes", "key_id", "environment", "mode"];
    let found = was(&told, names);
    assert_eq!(found[..3], [json!(403), json!("insufficient_scope"), json!(["write:orders"])]);
    assert_eq!(found[3..], [json!(key.id), json!("live"), json!("enforce")]);
    let line = told["request"]["rule"]["line"].as_u64().unwrap();
    assert_eq!(told["now"]["rule"]["line"], line, "the rule that decided still does: {told}");
    let text = std::fs::read_to_string(gateway.site().config_path()).unwrap();
    assert!(text.lines().nth(line as usize - 1).unwrap().contains("POST: { scopes: write:orders }"));

    let nowhere = gateway.get("/nothing").bearer(&key).await.refused(404, "no_route");
    let told = explained(&gateway, &nowhere).await;
    assert_eq!(
        was(&told, ["status", "code", "route", "rule"]),
        [json!(404), json!("no_route"), Value::Null, Value::Null]
    );
    let h2 = gateway.get("/nothing").h2().await.refused(404, "no_route");
    assert_eq!(was(&explained(&gateway, &h2).await, ["protocol"]), [json!("HTTP/2.0")]);

    let id = lacking.header("x-request-id").unwrap();
    let told = gateway.cli(&["explain", id]).await.success();
    let _ =
        told.says(&["403 insufficient_scope", "write:orders", &key.id, "The same request now:", "Nothing has changed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_since_then_is_said() {
    let (gateway, _origin) = scene::shop().await;
    let key = gateway.key("writer", "read:orders").await;
    let lacking = gateway.post("/v1/orders/7").bearer(&key).await.refused(403, "insufficient_scope");
    let _ = gateway.cli(&["keys", "update", &key.id, "--scopes", "write:orders"]).await.success();
    let told = explained(&gateway, &lacking).await;
    assert_eq!((&told["changed"], &told["now"]["decision"]), (&json!(true), &json!("allow")), "{told}");
    assert_eq!(was(&told, ["status"]), [json!(403)]);
    let _ = gateway.cli(&["keys", "revoke", &key.id]).await.success();
    let told = explained(&gateway, &lacking).await;
    assert_eq!((&told["changed"], &told["now"]["reason"]), (&json!(true), &json!("key_revoked")), "{told}");

    let nowhere = gateway.get("/new").await.refused(404, "no_route");
    let more = "  - { path: /new, upstream: shop, auth: none }\n";
    assert!(gateway.reload_with(&scene::shop_config(more, "")).await);
    let told = explained(&gateway, &nowhere).await;
    assert_eq!((&told["changed"], &told["now"]["decision"]), (&json!(true), &json!("allow")), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_report_mode_lets_pass_and_a_sample_of_the_rest_is_remembered() {
    let routes = "  - { path: /trial, upstream: shop, auth: any_key, mode: report }\n";
    let (gateway, _origin) = scene::shop_with(routes, "workers: 1").await;
    let reported = gateway.get("/trial").await.expect(200);
    let told = explained(&gateway, &reported).await;
    assert_eq!(
        was(&told, ["status", "code", "reason", "mode"]),
        [json!(200), Value::Null, json!("missing_credential"), json!("report")]
    );
    assert_eq!(told["changed"], json!(false), "{told}");
    let first = gateway.get("/status").await.expect(200);
    let told = explained(&gateway, &first).await;
    assert_eq!(was(&told, ["status", "code", "reason"]), [json!(200), Value::Null, Value::Null]);
    assert_eq!((&told["changed"], &told["now"]["decision"]), (&json!(false), &json!("allow")));
    let second = gateway.get("/status").await.expect(200);
    let id = second.header("x-request-id").unwrap();
    let _ = gateway.cli(&["explain", id]).await.exit(1).says(&["no request of this id is remembered"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_behind_the_decision_is_told_apart_from_it() {
    let config = scene::shop_config("  - { path: \"/small\", upstream: shop, auth: none, max_body: 10B }\n", "");
    let gateway = scene::site(&config).fill("shop", "127.0.0.1:1").start().await;
    let _sampled = gateway.get("/status").await.refused(502, "upstream_unreachable");
    let down = gateway.get("/status").await.refused(502, "upstream_unreachable");
    let told = explained(&gateway, &down).await;
    assert_eq!(was(&told, ["status", "reason", "path"]), [json!(502), json!("upstream_unreachable"), json!("/status")]);
    assert_eq!(told["changed"], json!(false), "{told}");
    let key = gateway.key("reader", "read:orders").await;
    let down = gateway.get("/me").bearer(&key).await.refused(502, "upstream_unreachable");
    let told = explained(&gateway, &down).await;
    assert_eq!(was(&told, ["status", "key_id"]), [json!(502), json!(key.id)]);
    assert_eq!((&told["now"]["decision"], &told["changed"]), (&json!("allow"), &json!(false)), "{told}");
    let large = gateway.post("/small").body("more than ten bytes").await.refused(413, "body_too_large");
    let told = explained(&gateway, &large).await;
    assert_eq!(was(&told, ["status", "code", "path"]), [json!(413), json!("body_too_large"), json!("/small")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_trusted_proxies_are_kept_and_keys_in_paths_are_not() {
    let (gateway, _origin) = scene::shop_with("", "auth: { trusted_proxies: [127.0.0.1/32] }").await;
    let key = gateway.key("reader", "read:orders").await;
    let call = gateway.get(&format!("/lost/{}/x", key.text)).header("x-request-id", "from-the-edge-1");
    let _ = call.attempt().await.unwrap();
    let told = gateway.cli(&["explain", "from-the-edge-1", "--output", "json"]).await.success().json();
    assert_eq!(told["request"]["path"], json!(format!("/lost/{}…/x", key.prefix)));
    assert_eq!((&told["now"], &told["changed"]), (&Value::Null, &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_says_what_it_takes() {
    let (gateway, _origin) = scene::shop().await;
    let _ = gateway.cli(&["explain", "GET"]).await.exit(2).says(&["which URL"]);
    let _ = gateway.cli(&["explain", "abc", "--scopes", "read:orders"]).await.exit(2);
    let _ = gateway.cli(&["explain", "abc"]).await.exit(1).says(&["2048", "one in 64"]);
    let _ = gateway.cli(&["explain", "GET", "/v1/orders/7"]).await.success().says(&["missing_credential"]);
    let (site, _origin) = scene::closed_shop().await;
    let _ = site.cli(&["explain", "abc"]).await.exit(1).says(&["portcullis.sock"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_lists_this_gateway() {
    let (gateway, _origin) = scene::shop().await;
    let nodes = gateway.cli(&["nodes", "--output", "json"]).await.success().json();
    let node = &nodes.as_array().unwrap()[0];
    assert!(node["name"].as_str().unwrap().ends_with(&format!("/{}", gateway.process_id())), "{node}");
    assert!(node["lag_ms"].is_u64() && node["started_at"].is_string() && node["as_of"].is_string(), "{node}");
    let _ = gateway.cli(&["nodes"]).await.success().says(&["NAME", "REVISION", " ms"]);
}

/// As after a failover, or where a file was put back: the store would have the key working.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_stays_refused_after_lost_commits_is_explained_as_refused() {
    let origin = Origin::start().await;
    let config = scene::shop_config("", "store: { driver: sqlite, path: store/portcullis.db }");
    let site = scene::site(&config).upstream("shop", &origin).prepare();
    std::fs::create_dir(site.path("one")).unwrap();
    symlink("one", site.path("store")).unwrap();
    let key = site.create_key("reader", "read:orders").await;
    std::fs::create_dir(site.path("two")).unwrap();
    std::fs::copy(site.path("one/portcullis.db"), site.path("two/portcullis.db")).unwrap();
    let gateway = site.start().await;
    gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
    let _ = gateway.cli(&["keys", "revoke", &key.id]).await.success();
    eventually!("it is revoked", gateway.get("/v1/orders/1").bearer(&key).await.status == 401);

    symlink("two", site.path("next")).unwrap();
    std::fs::rename(site.path("next"), site.path("store")).unwrap();
    let _ = site.create_key("another", "").await;
    eventually!("it says so", gateway.logs().text().contains("the store lost commits"));
    assert!(site.show_key(&key.id).await["revoked_at"].is_null(), "the store has it working");
    let refused = gateway.get("/v1/orders/1").bearer(&key).await.refused(401, "invalid_key");
    let told = explained(&gateway, &refused).await;
    assert_eq!((&told["now"]["reason"], &told["changed"]), (&json!("key_revoked"), &json!(false)), "{told}");
    let id = refused.header("x-request-id").unwrap();
    let _ = gateway.cli(&["explain", id]).await.success().says(&["before the store lost commits"]);
}
