//! Secret keys do not belong in browsers.

use portcullis_testkit::KeySpec;

use crate::scene;

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_key_from_a_browser_is_refused_and_says_why() {
    let (gateway, origin) = scene::shop().await;
    let secret = gateway.key("secret", "read:orders").await;
    for (name, value) in
        [("sec-fetch-mode", "cors"), ("sec-fetch-site", "same-origin"), ("origin", "https://app.example.com")]
    {
        let answer = gateway.get("/v1/orders/7").bearer(&secret).header(name, value).await;
        answer.refused(403, "secret_key_in_browser");
    }
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publishable_key_may_come_from_a_browser() {
    let (gateway, origin) = scene::shop().await;
    let page = gateway.key_of(KeySpec::new("page", "read:orders").kind("publishable")).await;
    gateway.get("/v1/orders/7").bearer(&page).header("sec-fetch-mode", "cors").await.expect(200);
    assert_eq!(origin.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guard_can_be_switched_off() {
    let (gateway, _origin) = scene::shop_with("", "auth: { browser_guard: false }").await;
    let secret = gateway.key("secret", "read:orders").await;
    gateway.get("/v1/orders/7").bearer(&secret).header("sec-fetch-mode", "cors").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_with_an_origin_is_no_browser_by_that_alone() {
    let (gateway, origin) = scene::shop().await;
    origin.answer(portcullis_testkit::Answer::tunnel());
    let secret = gateway.key("secret", "").await;
    let mut raw = gateway.raw().await;
    raw.send(format!(
        "GET /any/socket HTTP/1.1\r\nHost: shop.test\r\nAuthorization: Bearer {}\r\nOrigin: https://app.example.com\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        secret.text
    ))
    .await;
    raw.response().await.expect(101);
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_is_never_offered_to_a_browser() {
    let (gateway, _origin) = scene::shop_with(
        "",
        "auth: { accept: [{ header: Authorization, scheme: Bearer }, { header: Authorization, scheme: Basic }] }",
    )
    .await;
    let plain = gateway.get("/me").await.refused(401, "missing_credential");
    assert!(plain.challenge().contains("Basic realm="), "{}", plain.challenge());
    let browser = gateway.get("/me").header("sec-fetch-mode", "navigate").await.refused(401, "missing_credential");
    assert!(!browser.challenge().contains("Basic"), "{}", browser.challenge());
    assert!(browser.challenge().contains("Bearer"), "{}", browser.challenge());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_on_the_apis_own_site_is_known_by_its_site() {
    let (gateway, _origin) = scene::shop().await;
    let key = KeySpec::new("page", "read:orders").kind("publishable");
    let key = gateway.key_of(key.option("--allowed-origins", "https://shop.example")).await;
    let ask = |host: &str| gateway.get("/v1/orders/7").bearer(&key).host(host);
    ask("shop.example").header("sec-fetch-site", "same-origin").await.expect(200);
    ask("other.example").header("sec-fetch-site", "same-origin").await.refused(403, "origin_not_allowed");
    ask("shop.example").header("sec-fetch-site", "cross-site").await.refused(403, "origin_not_allowed");
    ask("shop.example").await.refused(403, "origin_not_allowed");
}
