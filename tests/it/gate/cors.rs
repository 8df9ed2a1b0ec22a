//! Preflights are answered before authentication where a route says so, and nowhere else.

use portcullis_testkit::eventually;

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

const SHOP_PAGE: &str = "https://shop.example";

/// A key for a page, on routes that say nothing about sharing.
async fn page_key(gateway: &portcullis_testkit::Gateway) -> portcullis_testkit::Key {
    let spec = portcullis_testkit::KeySpec::new("page", "read:orders").kind("publishable");
    gateway.key_of(spec.option("--allowed-origins", SHOP_PAGE)).await
}

fn preflight(
    gateway: &portcullis_testkit::Gateway,
    path: &str,
    origin: &str,
    method: &str,
) -> portcullis_testkit::Call {
    gateway
        .call("OPTIONS", path)
        .header("origin", origin)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", "authorization, x-app")
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_a_publishable_key_names_are_answered_where_such_keys_may_ask() {
    let (gateway, origin) = scene::shop().await;
    let key = page_key(&gateway).await;
    for path in ["/v1/orders/7", "/me", "/any/7"] {
        let answer = preflight(&gateway, path, SHOP_PAGE, "GET").await.expect(204);
        assert_eq!(answer.header("access-control-allow-origin"), Some(SHOP_PAGE), "{path}");
        assert_eq!(answer.header("access-control-allow-methods"), Some("GET"), "{path}");
        assert_eq!(answer.header("access-control-allow-headers"), Some("authorization, x-app"), "{path}");
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        assert_eq!(answer.header("vary"), Some("Origin"));
    }
    origin.untouched();
    let ask = |method: &str, page: &str| gateway.call(method, "/v1/orders/7").header("origin", page);
    let allowed =
        |answer: &portcullis_testkit::Response| answer.header("access-control-allow-origin").map(str::to_owned);
    // The page reads what its key gets, refusals and all.
    assert_eq!(allowed(&ask("GET", SHOP_PAGE).bearer(&key).await.expect(200)).as_deref(), Some(SHOP_PAGE));
    assert_eq!(allowed(&ask("GET", SHOP_PAGE).await.expect(401)).as_deref(), Some(SHOP_PAGE));
    // Other pages do not, with the same key or without.
    let stranger = ask("GET", "https://evil.example").bearer(&key).await.refused(403, "origin_not_allowed");
    assert_eq!(allowed(&stranger), None);
    // What such keys may not do is not offered to their pages.
    preflight(&gateway, "/v1/orders/7", SHOP_PAGE, "POST").await.refused(405, "method_not_allowed");
    preflight(&gateway, "/any/7", SHOP_PAGE, "POST").await.refused(401, "missing_credential");
    preflight(&gateway, "/any/7", "https://evil.example", "GET").await.refused(401, "missing_credential");
    // A public route is for its own `cors` to share.
    let public = gateway.get("/open/7").header("origin", SHOP_PAGE).await.expect(200);
    assert_eq!(allowed(&public), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_reads_as_much_of_a_key_that_was_revoked_as_of_one_that_nobody_has() {
    let (gateway, origin) = scene::shop().await;
    let _page = page_key(&gateway).await;
    let revoked = gateway.key("revoked", "read:orders").await;
    let _ = gateway.cli(&["keys", "revoke", &revoked.id]).await.success();
    let ask = |key: &str| {
        gateway.get("/v1/orders/7").header("origin", SHOP_PAGE).header("authorization", &format!("Bearer {key}"))
    };
    eventually!("it is refused", ask(&revoked.text).await.status == 401);
    let told = |answer: &portcullis_testkit::Response| {
        let fields = ["access-control-allow-origin", "access-control-expose-headers", "vary", "www-authenticate"];
        fields.map(|name| answer.header(name).map(str::to_owned))
    };
    let (revoked, unknown) =
        (ask(&revoked.text).await.expect(401), ask("a-key-that-nobody-has-0123456789").await.expect(401));
    assert_eq!(told(&revoked), told(&unknown));
    assert_eq!(unknown.header("access-control-allow-origin"), Some(SHOP_PAGE));
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_secret_key_gets_is_for_no_page_and_a_route_may_share_with_more() {
    let routes = r#"
  - { path: /form, upstream: shop, auth: any_key, publishable_unsafe_methods: true, cors: { origins: ["https://app.example.com"] } }
"#;
    let (gateway, _origin) = scene::shop_with(routes, "auth: { browser_guard: false }").await;
    let _page = page_key(&gateway).await;
    let secret = gateway.key("secret", "read:orders").await;
    let answer = gateway.get("/v1/orders/7").header("origin", SHOP_PAGE).bearer(&secret).await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), None);
    for page in ["https://app.example.com", SHOP_PAGE] {
        let answer = preflight(&gateway, "/form", page, "POST").await.expect(204);
        assert_eq!(answer.header("access-control-allow-origin"), Some(page));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_reads_for_the_sake_of_a_key_what_an_upstream_answers_to_somebody_else() {
    let routes = r#"
  - { path: /trial, upstream: shop, auth: any_key, mode: report }
  - { path: /query, upstream: shop, auth: any_key, accept: [{ query: key }] }
"#;
    let (gateway, origin) = scene::shop_with(routes, "").await;
    let key = page_key(&gateway).await;
    let own = "https://good.example";
    let shares = || {
        let answer = portcullis_testkit::Answer::ok("private").header("access-control-allow-origin", own);
        answer.header("access-control-allow-credentials", "true")
    };
    origin.answer_at("/trial", shares());
    origin.answer_at("/query", shares());
    // Report mode: nobody's key was proven, so whom the upstream trusts is its own affair.
    let answer = gateway.get("/trial").header("origin", SHOP_PAGE).header("cookie", "session=1").await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), Some(own));
    // A key in the query goes with the cookies of whoever opens the page: the answer may be read without them alone.
    let target = format!("/query?key={}", key.text);
    let answer = gateway.get(&target).header("origin", SHOP_PAGE).header("cookie", "session=1").await.expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), Some(SHOP_PAGE));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_route_is_not_found_by_preflights_of_known_pages() {
    let (gateway, _origin) = scene::shop_with("", "auth: { hide_routes: true }").await;
    let _key = page_key(&gateway).await;
    for path in ["/v1/orders/7", "/nothing"] {
        preflight(&gateway, path, SHOP_PAGE, "GET").await.refused(401, "missing_credential");
    }
}
