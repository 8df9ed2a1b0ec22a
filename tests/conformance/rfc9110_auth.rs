//! RFC 9110, HTTP Semantics, section 11: authentication.

use super::shop;
use crate::scene;

#[tokio::test(flavor = "multi_thread")]
async fn s11_1_schemes_are_compared_without_regard_to_case() {
    let (gateway, _origin) = shop().await;
    let key = gateway.key("caller", "").await;
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        gateway.get("/me").header("authorization", &format!("{scheme} {}", key.text)).await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_4_one_or_more_spaces_stand_between_scheme_and_token() {
    let (gateway, _origin) = shop().await;
    let key = gateway.key("caller", "").await;
    let answer = gateway.get("/me").header("authorization", &format!("Bearer   {}", key.text)).await;
    assert!(matches!(answer.status, 200 | 400), "taken or refused as malformed, never unknown: {answer:?}");
    gateway.get("/me").header("authorization", &format!("Bearer{}", key.text)).await.expect(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_5_the_realm_is_a_quoted_string_and_one_that_cannot_be_quoted_is_refused() {
    let (gateway, _origin) = scene::shop_with("", "auth: { realm: the shop }").await;
    let challenge = gateway.get("/me").await.expect(401).challenge();
    assert!(challenge.contains(r#"realm="the shop""#), "{challenge}");
    let odd =
        scene::site(&scene::shop_config("", "auth: { realm: 'the \"shop\"' }")).fill("shop", "127.0.0.1:9").prepare();
    let _ = odd.cli(&["check"]).await.exit(3).says(&["realm"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_6_1_a_401_has_a_challenge_for_every_accepted_scheme() {
    let (gateway, _origin) = scene::shop_with(
        "",
        "auth: { accept: [{ header: Authorization, scheme: Bearer }, { header: Authorization, scheme: Basic }, { header: X-API-Key }] }",
    )
    .await;
    let challenge = gateway.get("/me").await.expect(401).challenge();
    assert!(challenge.contains("Bearer realm=") && challenge.contains("Basic realm="), "{challenge}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_6_1_a_401_has_a_challenge_even_where_no_scheme_is_accepted() {
    let routes = "  - { path: /plain, upstream: shop, auth: any_key, accept: [{ header: X-API-Key }] }\n";
    let (gateway, _origin) = scene::shop_with(routes, "").await;
    let challenge = gateway.get("/plain").await.expect(401).challenge();
    assert!(!challenge.is_empty() && !challenge.contains("Bearer") && !challenge.contains("Basic"), "{challenge}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_6_2_a_field_that_may_not_be_combined_is_refused_when_it_is_doubled() {
    let (gateway, origin) = shop().await;
    let key = gateway.key("caller", "").await;
    gateway.get("/me").bearer(&key).header("authorization", "Bearer another").await.refused(400, "invalid_request");
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn s11_7_1_a_407_is_never_ours() {
    let (gateway, _origin) = shop().await;
    let answer = gateway.get("/me").header("proxy-authorization", "Bearer x").await.expect(401);
    assert!(answer.header("proxy-authenticate").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn s15_5_6_allow_is_sent_with_405() {
    let (gateway, _origin) = shop().await;
    let answer = gateway.call("PATCH", "/v1/orders/1").await.expect(405);
    let allow = answer.header("allow").unwrap();
    assert!(["GET", "HEAD", "POST"].iter().all(|method| allow.contains(method)) && !allow.contains("PATCH"), "{allow}");
}
