//! Methods: HEAD follows GET, what is not listed is 405 with `Allow`, and nothing overrides the real one.

use crate::scene;

/// The methods of an `Allow` field, sorted.
fn allow(answer: &portcullis_testkit::Response) -> Vec<String> {
    let mut methods: Vec<String> =
        answer.header("allow").unwrap_or_default().split(',').map(|method| method.trim().to_owned()).collect();
    methods.sort();
    methods
}

#[tokio::test(flavor = "multi_thread")]
async fn head_is_judged_as_get() {
    let (gateway, origin) = scene::shop().await;
    let reader = gateway.key("reader", "read:orders").await;
    let writer = gateway.key("writer", "write:orders").await;
    let answer = gateway.call("HEAD", "/v1/orders/7").bearer(&reader).await.expect(200);
    assert!(answer.body.is_empty());
    assert_eq!(origin.only().method, "HEAD");
    gateway.call("HEAD", "/v1/orders/7").await.expect(401);
    gateway.call("HEAD", "/v1/orders/7").bearer(&writer).await.expect(403);
}

#[tokio::test(flavor = "multi_thread")]
async fn head_that_is_named_is_judged_by_its_own_rule() {
    let (gateway, _origin) = scene::shop_with(
        "  - path: /doc\n    upstream: shop\n    methods: { GET: { scopes: read:orders }, HEAD: { auth: none } }\n",
        "",
    )
    .await;
    gateway.call("HEAD", "/doc").await.expect(200);
    gateway.get("/doc").await.expect(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_not_listed_is_405_and_allow_names_those_that_are() {
    let (gateway, origin) = scene::shop().await;
    for method in ["PUT", "PATCH", "DELETE", "OPTIONS", "BREW", "get"] {
        let answer = gateway.call(method, "/v1/orders/7").await.refused(405, "method_not_allowed");
        assert_eq!(allow(&answer), ["GET", "HEAD", "POST"], "{method}");
    }
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_star_means_the_usual_methods_and_no_others() {
    let (gateway, origin) = scene::shop().await;
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        gateway.call(method, "/open/x").await.expect(200);
        assert_eq!(origin.last().method, method);
    }
    let before = origin.count();
    for method in ["TRACE", "PROPFIND", "BREW"] {
        gateway.call(method, "/open/x").await.refused(405, "method_not_allowed");
    }
    let mut raw = gateway.raw().await;
    raw.send("CONNECT shop.test:443 HTTP/1.1\r\nHost: shop.test:443\r\n\r\n").await;
    let answer = raw.response().await;
    assert!(matches!(answer.status, 400 | 405), "{answer:?}");
    assert_eq!(origin.count(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_missing_on_the_best_path_does_not_fall_through_to_a_wider_one() {
    let (gateway, origin) = scene::shop_with(
        r#"
  - { path: "/v1/**", upstream: shop, auth: none }
  - path: /v1/orders/{id}/lock
    upstream: shop
    methods: { PUT: { auth: any_key } }
"#,
        "",
    )
    .await;
    gateway.get("/v1/refunds").await.expect(200);
    origin.forget();
    gateway.get("/v1/orders/7/lock").await.refused(405, "method_not_allowed");
    gateway.get("/v1/orders/7").await.refused(401, "missing_credential");
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_override_the_method_are_neither_believed_nor_forwarded() {
    let (gateway, origin) = scene::shop().await;
    let reader = gateway.key("reader", "read:orders").await;
    for field in ["x-http-method-override", "x-http-method", "x-method-override"] {
        gateway.get("/v1/orders/7").bearer(&reader).header(field, "DELETE").await.expect(200);
        let seen = origin.last();
        assert_eq!(seen.method, "GET");
        assert!(!seen.has(field), "{field}");
        gateway.call("DELETE", "/v1/orders/7").bearer(&reader).header(field, "GET").await.expect(405);
    }
}
