//! The configuration in force, over the API: seen, asked, reloaded, by operators alone.

use std::time::{Duration, Instant};

use portcullis_testkit::{Origin, TestCa, eventually};
use serde_json::{Value, json};

use super::{ALL, Shop};
use crate::scene::{self, shop_config};

/// A rule that the shop has not.
const MORE: &str = "  - { path: /new, upstream: shop, auth: none }\n";

impl Shop {
    async fn read(&self, target: &str) -> Value {
        self.tell("GET", target, &Value::Null).await.expect(200).json()
    }

    async fn explained(&self, request_id: &str) -> Value {
        self.read(&format!("/v1/requests/{request_id}")).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_a_moment_ago_is_explained_and_so_is_what_changed() {
    let shop = Shop::open().await;
    let key = shop.make(json!({ "name": "reader", "scopes": ["read:orders"] })).await;
    let gateway = &shop.gateway;
    let missing = gateway.get("/v1/orders/1").await.refused(401, "missing_credential");
    let lacking = gateway.post("/v1/orders/1").bearer(&key).await.refused(403, "insufficient_scope");
    let nowhere = gateway.get("/nothing").await.refused(404, "no_route");
    for (answer, status, code) in
        [(&missing, 401, "missing_credential"), (&lacking, 403, "insufficient_scope"), (&nowhere, 404, "no_route")]
    {
        let told = shop.explained(answer.header("x-request-id").unwrap()).await;
        let found = (&told["request"]["status"], &told["request"]["code"], &told["now"]["code"], &told["changed"]);
        assert_eq!(found, (&json!(status), &json!(code), &json!(code), &json!(false)), "{told}");
    }
    let id = lacking.header("x-request-id").unwrap();
    let told = shop.explained(id).await;
    assert_eq!(told["request"]["missing_scopes"], json!(["write:orders"]));
    assert_eq!(told["now"]["held_scopes"], json!([]));
    let path = format!("/v1/keys/{}", key.id);
    shop.tell("PATCH", &path, &json!({ "scopes": ["write:orders"] })).await.expect(200);
    let told = shop.explained(id).await;
    assert_eq!((&told["now"]["decision"], &told["changed"]), (&json!("allow"), &json!(true)), "{told}");
    let unknown = shop.tell("GET", "/v1/requests/0123456789abcdef0123456789abcdef", &Value::Null).await;
    let _ = unknown.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_masked_where_the_log_masks_them() {
    let shop = Shop::open_with("", "logging: { mask_addresses: true }").await;
    let nowhere = shop.gateway.get("/nothing").await.refused(404, "no_route");
    let told = shop.explained(nowhere.header("x-request-id").unwrap()).await;
    assert_eq!(told["request"]["client_ip"], json!("127.0.0.0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_is_answered_as_on_the_command_line() {
    let shop = Shop::open().await;
    let key = shop.make(json!({ "name": "reader", "scopes": ["read:orders"] })).await;
    let cli = async |args: &[&str]| shop.gateway.cli(&[args, &["--output", "json"]].concat()).await.success().json();
    assert_eq!(shop.read("/v1/routes").await["data"], cli(&["routes", "list"]).await);
    let ask = async |body: Value| shop.tell("POST", "/v1/explain", &body).await.expect(200).json();
    for (body, args) in [
        (json!({ "method": "GET", "url": "/v1/orders/1" }), &["GET", "/v1/orders/1"][..]),
        (
            json!({ "method": "POST", "url": "https://a.test/v1/orders", "scopes": ["read:orders"] }),
            &["POST", "https://a.test/v1/orders", "--scopes", "read:orders"],
        ),
        (
            json!({ "method": "GET", "url": "/v1/orders/1", "key_id": key.id }),
            &["GET", "/v1/orders/1", "--key-id", &key.id],
        ),
    ] {
        assert_eq!(ask(body).await, cli(&[&["explain"], args].concat()).await);
    }
    for (body, field) in [
        (json!({ "method": "GE T", "url": "/" }), "method"),
        (json!({ "method": "GET", "url": "orders" }), "url"),
        (json!({ "method": "GET", "url": "/", "from": "here" }), "from"),
        (json!({ "method": "GET", "url": "/", "scopes": ["read:odrers"] }), "scopes"),
        (json!({ "method": "GET", "url": "/", "scopes": [], "key_id": key.id }), "scopes"),
        (json!({ "method": "GET", "url": "/", "scopes": [], "environment": "moon" }), "environment"),
        (json!({ "method": "GET", "url": "/", "kind": "secret" }), "kind"),
        (json!({ "method": "GET", "url": "/", "key_id": "key_00000000000000000000000000000000" }), "key_id"),
    ] {
        let refused = shop.tell("POST", "/v1/explain", &body).await.refused(422, "invalid_value");
        assert_eq!(refused.json()["field"], field, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_over_the_api_changes_a_route_and_names_its_caller() {
    let shop = Shop::open().await;
    let reload = async |body: Value| shop.tell("POST", "/v1/config/reload", &body).await;
    shop.gateway.rewrite_config(&shop_config(MORE, ""));
    let report = reload(json!({ "dry_run": true })).await.expect(200).json();
    assert_eq!((&report["ok"], &report["changed_routes"]), (&json!(true), &json!(["/new"])));
    shop.gateway.get("/new").await.refused(404, "no_route");
    let report = reload(Value::Null).await.expect(200).json();
    assert_eq!((&report["ok"], &report["changed_routes"]), (&json!(true), &json!(["/new"])));
    shop.gateway.get("/new").await.expect(200);
    let entries = shop.read("/v1/audit?action=config.reload").await;
    let entries = entries["data"].as_array().unwrap();
    assert_eq!((entries.len(), &entries[0]["actor"]), (1, &json!(shop.operator.id)), "{entries:?}");

    shop.gateway.rewrite_config(&shop_config("  - { path: /x, upstream: nowhere, auth: none }\n", ""));
    for body in [json!({}), json!({ "dry_run": true })] {
        let refused = reload(body).await.refused(422, "config_refused").json();
        let problem = refused["problems"][0].as_str().unwrap();
        assert!(problem.contains("nowhere") && problem.contains("portcullis.yaml:"), "{problem}");
    }
    shop.gateway.get("/new").await.expect(200);
    let entries = shop.read("/v1/audit?action=config.reload").await;
    assert_eq!(entries["data"].as_array().unwrap().len(), 1, "what was not taken over is no change");
}

/// A pipe that nobody writes to stands for a file system that does not answer: whoever opens it to read waits.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_read_to_its_end_holds_up_its_reload_and_nothing_else() {
    let (ca, origin) = (TestCa::new("test authority"), Origin::start().await);
    let pair = ca.server(&["localhost"]);
    let tls = "tls: { edge: { certificates: [{ cert: one.pem, key: one.key, ocsp: one.ocsp }] } }";
    let site = scene::site(&shop_config("", tls)).upstream("shop", &origin);
    let gateway = site.file("one.pem", pair.cert).file("one.key", pair.key).start().await;
    let shop = Shop::of(gateway, origin).await;
    let (revoked, kept) = (shop.gateway.key("b", "read:orders").await, shop.gateway.key("c", "read:orders").await);
    let pipe = shop.gateway.site().path("one.ocsp");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());

    // Who reads the configuration looks at the response, and finds an empty one. Who compiles it looks again.
    let path = pipe.clone();
    let read = tokio::task::spawn_blocking(move || drop(std::fs::OpenOptions::new().write(true).open(path).unwrap()));
    let reload = async || {
        let begun = Instant::now();
        let refused = shop.tell("POST", "/v1/config/reload", &json!({})).await.refused(422, "config_refused");
        assert!(refused.text().contains("the file system does not answer"), "{refused:?}");
        (begun.elapsed(), Instant::now())
    };
    let meanwhile = async {
        read.await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        shop.tell("DELETE", &format!("/v1/keys/{}", revoked.id), &Value::Null).await.expect(200);
        shop.gateway.get("/v1/orders/1").bearer(&revoked).await.expect(401);
        shop.gateway.get("/v1/orders/1").bearer(&kept).await.expect(200);
        Instant::now()
    };
    let (refused, (_, given_up)) = tokio::join!(meanwhile, reload());
    assert!(refused < given_up, "the revocation was in force while the file was waited for");
    // Nothing is begun beside it, and nobody waits once more.
    let (took, _) = reload().await;
    assert!(took < Duration::from_secs(10), "{took:?}");

    let writing = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    std::fs::remove_file(&pipe).unwrap();
    drop(writing);
    eventually!("it can be taken over", { shop.tell("POST", "/v1/config/reload", &json!({})).await.status == 200 });
    shop.gateway.get("/v1/orders/1").bearer(&kept).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_alone_is_the_only_node() {
    let shop = Shop::open().await;
    let nodes = shop.read("/v1/nodes").await;
    let node = &nodes["data"][0];
    let number = shop.gateway.process_id();
    assert!(node["name"].as_str().unwrap().ends_with(&format!("/{number}")), "{node}");
    assert_eq!(node["revision"], shop.read("/v1/status").await["revision"]);
    assert_eq!((nodes["data"].as_array().unwrap().len(), &node["this"], &node["behind"]), (1, &json!(true), &json!(0)));
    // A change waits for it alone, and says so in either shape of answers.
    let made = shop.tell("POST", "/v1/keys?wait=all", &json!({ "name": "k", "scopes": [] })).await.expect(201);
    let key = shop.taken(made.clone());
    assert_eq!(made.json()["fleet"]["acknowledged"], json!([node["name"]]));
    let patched =
        shop.tell("PATCH", &format!("/v1/keys/{}?wait=all", key.id), &json!({ "name": "l" })).await.expect(200);
    assert_eq!(patched.json()["fleet"]["complete"], json!(true));
    let owner = shop.tell("POST", "/v1/owners?wait=all", &json!({ "name": "ACME" })).await.expect(201).json();
    assert_eq!(owner["fleet"]["complete"], json!(true));
    // An owner's key is not told what machines are called.
    let bot = json!({ "name": "bot", "kind": "management", "owner": owner["id"], "scopes": ["portcullis:keys"] });
    let bot = shop.make(bot).await;
    let told = shop.tell_as(&bot, "POST", "/v1/keys?wait=all", &json!({ "name": "k", "scopes": [] })).await.expect(201);
    let _ = shop.taken(told.clone());
    assert_eq!(told.json()["fleet"]["acknowledged"], json!([node["id"]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_with_an_owner_see_nothing_of_it() {
    let shop = Shop::open().await;
    let owner = shop.tell("POST", "/v1/owners", &json!({ "name": "ACME" })).await.expect(201).json();
    let scopes: Vec<&str> = ALL.split(',').collect();
    let owned = json!({ "name": "bot", "kind": "management", "owner": owner["id"], "scopes": scopes });
    let owned = shop.make(owned).await;
    for (method, target, body) in [
        ("GET", "/v1/requests/abc", Value::Null),
        ("GET", "/v1/routes", Value::Null),
        ("POST", "/v1/explain", json!({ "method": "GET", "url": "/" })),
        ("POST", "/v1/config/reload", json!({})),
        ("GET", "/v1/nodes", Value::Null),
        ("DELETE", "/v1/nodes/node_00000000000000000000000000000000", Value::Null),
    ] {
        let _ = shop.tell_as(&owned, method, target, &body).await.refused(403, "operators_only");
    }
}
