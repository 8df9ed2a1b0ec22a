//! A widget service: publishable keys for pages that only read, secret keys for servers, in a header or a parameter, and
//! rotation that disrupts nobody.

use portcullis_testkit::{KeySpec, eventually};
use serde_json::json;

use super::Service;
use crate::api::ALL;

const CONFIG: &str = r#"
scopes:
  widgets:read: { title: Read widgets }
  widgets:write: { title: Create and update widgets }
routes:
  - path: /v1/widgets/**
    upstream: app
    accept: [{ header: Authorization, scheme: Bearer }, { header: X-API-Key }, { query: api_key }]
    methods:
      GET: { scopes: widgets:read }
      POST: { scopes: widgets:write }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn publishable_keys_read_from_pages_and_secret_keys_do_the_rest() {
    let service = Service::start(CONFIG).await;
    let gateway = &service.gateway;
    let page = KeySpec::new("page", "widgets:read,widgets:write").kind("publishable");
    let page = gateway.key_of(page.option("--allowed-origins", "https://shop.example")).await;
    let secret = gateway.key("server", "widgets:read,widgets:write").await;
    assert!(page.text.starts_with("pc_live_pk_") && secret.text.starts_with("pc_live_sk_"));

    let from = |method: &str, origin: &str| {
        gateway.call(method, "/v1/widgets").bearer(&page).header("origin", origin).header("sec-fetch-mode", "cors")
    };
    from("GET", "https://shop.example").await.expect(200);
    from("GET", "https://evil.example").await.refused(403, "origin_not_allowed");
    from("POST", "https://shop.example").await.refused(403, "kind_not_allowed");
    gateway.post("/v1/widgets").bearer(&secret).await.expect(200);
    gateway
        .post("/v1/widgets")
        .bearer(&secret)
        .header("origin", "https://shop.example")
        .await
        .refused(403, "secret_key_in_browser");

    // As a query parameter, which goes no further.
    gateway.get(&format!("/v1/widgets?page=2&api_key={}", secret.text)).await.expect(200);
    assert_eq!(service.origin.last().target, "/v1/widgets?page=2");
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_disrupts_nobody() {
    let service = Service::start(CONFIG).await;
    let gateway = &service.gateway;
    let operator = gateway.key_of(KeySpec::new("operator", ALL).kind("management").option("--may-grant", "*")).await;
    let old = gateway.key("server", "widgets:read").await;
    let call = portcullis_testkit::Call::to(gateway.admin_address(), "POST", &format!("/v1/keys/{}/rotate", old.id));
    let call = call.bearer(&operator).header("content-type", "application/json");
    let answer = call.body(json!({ "grace": "1h" }).to_string()).await.expect(201);
    let new = service.taken(&answer, &answer.json());
    for key in [&old, &new] {
        gateway.get("/v1/widgets").bearer(key).await.expect(200);
    }
    let _revoked = gateway.site().cli(&["keys", "revoke", &old.id]).await.success();
    eventually!("the old key is refused", gateway.get("/v1/widgets").bearer(&old).await.status == 401);
    gateway.get("/v1/widgets").bearer(&new).await.expect(200);
}
