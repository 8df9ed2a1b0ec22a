//! `explain`, `routes list` and `routes test`: the decision without a request.

use portcullis_testkit::KeySpec;

use crate::scene;

#[tokio::test(flavor = "multi_thread")]
async fn the_rule_that_decides_is_named_with_its_line() {
    let (site, _origin) = scene::closed_shop().await;
    let line = |needle: &str| {
        let text = std::fs::read_to_string(site.config_path()).unwrap();
        text.lines().position(|line| line.contains(needle)).unwrap() + 1
    };
    let get = format!("portcullis.yaml:{}", line("GET: { scopes: read:orders }"));
    let explain = async |args: &[&str]| site.cli(&[&["explain"][..], args].concat()).await.success();
    let allowed = explain(&["GET", "/v1/orders/7", "--scopes", "read:orders"]).await;
    let _ = allowed.says(&[&get, "/v1/orders/**", "read:orders"]);
    let _ = explain(&["GET", "/v1/orders/7"]).await.says(&["401", "missing_credential"]);
    let missing = explain(&["POST", "https://shop.test/v1/orders", "--scopes", "read:orders"]).await;
    let _ = missing.says(&["403", "insufficient_scope", "write:orders"]);
    let _ = explain(&["DELETE", "/v1/orders/7"]).await.says(&["405"]);
    let _ = explain(&["GET", "/nothing"]).await.says(&["404", "no_route"]);
    let _ = explain(&["GET", "/v1/orders/a%2Fb"]).await.says(&["400", "bad_path"]);
    let _ = explain(&["GET", "/status"]).await.says(&["/status"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_that_were_beaten_are_named_too() {
    let origin = portcullis_testkit::Origin::start().await;
    let config = scene::shop_config("  - { path: \"/v1/**\", name: wide, upstream: shop, auth: any_key }\n", "");
    let site = scene::site(&config).upstream("shop", &origin).prepare();
    let outcome = site.cli(&["explain", "GET", "/v1/orders/7", "--scopes", "read:orders"]).await.success();
    let _ = outcome.says(&["/v1/orders/**", "/v1/**"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_explained_by_its_id() {
    let (site, _origin) = scene::closed_shop().await;
    let key = site.create_key("reader", "read:orders").await;
    let explain =
        async |method: &str| site.cli(&["explain", method, "/v1/orders/7", "--key-id", &key.id]).await.success();
    let _ = explain("POST").await.says(&["write:orders", "insufficient_scope"]);
    let _ = site.cli(&["keys", "disable", &key.id]).await.success();
    let _ = explain("GET").await.says(&["disabled", "401"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_of_a_page_is_explained() {
    let (site, _origin) = scene::closed_shop().await;
    let spec = KeySpec::new("page", "read:orders").kind("publishable");
    let key = site.create(spec.option("--allowed-origins", "https://shop.example")).await;
    let ask = ["explain", "GET", "/v1/orders/7", "--key-id", &key.id];
    let from = async |origin: &str| site.cli(&[&ask[..], &["--origin", origin]].concat()).await;
    let _ = from("https://shop.example").await.success().says(&["forwarded"]);
    let _ = from("https://other.example").await.success().says(&["origin_not_allowed"]);
    let _ = site.cli(&ask).await.success().says(&["origin_not_allowed", "comes from none of them"]);
    let _ = from("shop.example").await.exit(2).says(&["--origin"]);
    let secret = ["explain", "GET", "/v1/orders/7", "--scopes", "read:orders", "--origin", "https://shop.example"];
    let _ = site.cli(&secret).await.success().says(&["secret_key_in_browser"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_route_table_can_be_listed() {
    let (site, _origin) = scene::closed_shop().await;
    let table = site.cli(&["routes", "list", "--output", "json"]).await.success().json();
    let rows = table.as_array().unwrap();
    let orders: Vec<_> = rows.iter().filter(|row| row["path"] == "/v1/orders/**").collect();
    assert!(!orders.is_empty(), "{table}");
    assert!(orders.iter().any(|row| row.to_string().contains("write:orders")), "{table}");
    let _ = site.cli(&["routes", "list"]).await.success().says(&["/v1/orders/**", "read:orders", "/status"]);
}

/// Expectations: what a request with these scopes is answered. Without `scopes` there is no key.
const EXPECTATIONS: &str = r#"
- { method: GET, url: /v1/orders/7, scopes: [read:orders], expect: allow }
- { method: GET, url: /v1/orders/7, expect: missing_credential }
- { method: POST, url: /v1/orders/7, scopes: [read:orders], expect: insufficient_scope }
- { method: GET, url: /status, expect: allow }
- { method: GET, url: /nothing, scopes: ["*"], expect: no_route }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn expectations_can_be_tested_in_ci() {
    let (site, _origin) = scene::closed_shop().await;
    let good = site.write("expect.yaml", EXPECTATIONS);
    let _ = site.cli(&["routes", "test", good.to_str().unwrap()]).await.success();
    let bad = site.write("wrong.yaml", EXPECTATIONS.replace("expect: no_route", "expect: allow"));
    let _ = site.cli(&["routes", "test", bad.to_str().unwrap()]).await.exit(1).says(&[
        "/nothing",
        "no_route",
        "wrong.yaml:6",
    ]);
}
