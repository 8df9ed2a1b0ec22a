//! Preflights are answered before authentication where a route says so, and nowhere else.

use crate::scene;

const PAGES: &str = r#"
  - path: /pages/**
    upstream: shop
    auth: any_key
    cors: { origins: ["https://app.example.com"], methods: [GET, PUT], headers: [authorization, x-custom], max_age: 10m }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_of_an_allowed_origin_is_answered_without_a_key() {
    let (gateway, origin) = scene::shop_with(PAGES, "").await;
    let answer = gateway
        .call("OPTIONS", "/pages/1")
        .header("origin", "https://app.example.com")
        .header("access-control-request-method", "PUT")
        .header("access-control-request-headers", "authorization")
        .await;
    assert!(matches!(answer.status, 200 | 204), "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example.com"));
    let methods = answer.header("access-control-allow-methods").unwrap();
    assert!(methods.contains("PUT") && methods.contains("GET") && !methods.contains("DELETE"), "{methods}");
    let fields = answer.header("access-control-allow-headers").unwrap().to_ascii_lowercase();
    assert!(fields.contains("authorization") && fields.contains("x-custom"), "{fields}");
    assert_eq!(answer.header("access-control-max-age"), Some("600"));
    assert!(answer.header("vary").unwrap_or_default().to_ascii_lowercase().contains("origin"), "{answer:?}");
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_no_permission() {
    let (gateway, origin) = scene::shop_with(PAGES, "").await;
    for stranger in ["https://evil.example.com", "https://app.example.com.evil.test", "null", "http://app.example.com"]
    {
        let answer = gateway
            .call("OPTIONS", "/pages/1")
            .header("origin", stranger)
            .header("access-control-request-method", "PUT")
            .await;
        assert!(answer.header("access-control-allow-origin").is_none(), "{stranger}: {answer:?}");
    }
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_options_request_that_is_no_preflight_is_judged_like_any_other() {
    let (gateway, origin) = scene::shop_with(PAGES, "").await;
    gateway.call("OPTIONS", "/pages/1").await.refused(401, "missing_credential");
    gateway
        .call("OPTIONS", "/any/1")
        .header("origin", "https://app.example.com")
        .header("access-control-request-method", "PUT")
        .await
        .refused(401, "missing_credential");
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_can_read_answers_and_refusals_alike() {
    let (gateway, _origin) = scene::shop_with(PAGES, "auth: { browser_guard: false }").await;
    let key = gateway.key("page", "").await;
    let page = "https://app.example.com";
    for answer in [
        gateway.get("/pages/1").header("origin", page).await.expect(401),
        gateway.get("/pages/1").header("origin", page).bearer(&key).await.expect(200),
    ] {
        assert_eq!(answer.header("access-control-allow-origin"), Some(page), "{answer:?}");
    }
}
