//! A shop platform: `X-API-Key`, prefixes that say live or test, lower limits for test keys, scopes by method and path.

use portcullis_testkit::KeySpec;

use super::Service;

const CONFIG: &str = r#"
auth: { brand: wk, accept: [{ header: X-API-Key }] }
environments: { test: { rate_limit: { requests: 2, per: 1h } } }
scopes:
  read:products: { title: "List and read products, variants" }
  write:products: { title: "Create, update, delete products" }
  read:orders: { title: List and read orders }
  write:orders: { title: Update order status }
routes:
  - path: /v1/products/**
    upstream: app
    methods:
      GET: { scopes: read:products }
      POST: { scopes: write:products }
      PATCH: { scopes: write:products }
      DELETE: { scopes: write:products }
  - path: /v1/orders/**
    upstream: app
    methods:
      GET: { scopes: read:orders }
      PATCH: { scopes: write:orders }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn keys_say_where_they_live_and_reach_what_their_scopes_name() {
    let service = Service::start(CONFIG).await;
    let gateway = &service.gateway;
    let live = gateway.key("live", "read:products,write:orders").await;
    let test = gateway.key_of(KeySpec::new("test", "read:products").environment("test")).await;
    assert!(live.text.starts_with("wk_live_") && test.text.starts_with("wk_test_"));

    gateway.get("/v1/products").api_key(&live).await.expect(200);
    gateway.get("/v1/products/7/variants").api_key(&live).await.expect(200);
    gateway.call("PATCH", "/v1/orders/7").api_key(&live).await.expect(200);
    for (method, path, missing) in [
        ("POST", "/v1/products", "write:products"),
        ("DELETE", "/v1/products/7", "write:products"),
        ("GET", "/v1/orders", "read:orders"),
    ] {
        let refused = gateway.call(method, path).api_key(&live).await.refused(403, "insufficient_scope");
        assert_eq!(refused.json()["missing_scopes"], serde_json::json!([missing]), "{method} {path}");
    }
    // Where the page names one header, no other is looked at.
    gateway.get("/v1/products").bearer(&live).await.refused(401, "missing_credential");

    // The same data, lower limits.
    for _ in 0..2 {
        gateway.get("/v1/products").api_key(&test).await.expect(200);
    }
    gateway.get("/v1/products").api_key(&test).await.refused(429, "rate_limited");
    for _ in 0..5 {
        gateway.get("/v1/products").api_key(&live).await.expect(200);
    }
}
