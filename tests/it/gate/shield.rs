//! The shield against guessing: it slows wrong keys down, and nobody else.

use portcullis_testkit::{Call, KeySpec, key_text};

use crate::scene;

/// Three wrong keys from an address, then one a day.
const SHIELD: &str = "limits: { failures: { requests: 1, per: 24h, burst: 3 } }";

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_from_an_address_are_slowed_down_and_valid_ones_never_notice() {
    let (gateway, origin) = scene::shop_with("", SHIELD).await;
    let valid = gateway.key("valid", "read:orders").await;
    let guess =
        |letter: char| gateway.get("/v1/orders/7").header("x-api-key", &key_text::forged("pc_live_sk_", letter));
    for letter in ['A', 'B', 'C'] {
        guess(letter).await.refused(401, "invalid_key");
    }
    let answer = guess('D').await.refused(429, "too_many_failures");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=86_400).contains(&wait), "{wait}");
    assert_eq!(answer.header("ratelimit"), None, "it is no limit of a caller's");
    // Another route, another spelling, another way to be wrong: the same address.
    gateway.get("/me").header("x-api-key", "junk").await.refused(429, "too_many_failures");
    gateway.get("/v1/orders/7").bearer(&valid).await.expect(200);
    gateway.post("/v1/orders/7").bearer(&valid).await.refused(403, "insufficient_scope");
    // Who shows nothing, or nothing that could be a key, has not guessed.
    gateway.get("/v1/orders/7").await.refused(401, "missing_credential");
    gateway.get("/v1/orders/7").header("x-api-key", "a b").await.refused(400, "invalid_request");
    // Other addresses are others.
    guess('E').from("127.0.0.2").await.refused(401, "invalid_key");
    assert_eq!(origin.count(), 1);

    let line = gateway.access_line(&answer).await;
    assert_eq!(line["reason"], "too_many_failures", "{line}");
    let metrics = gateway.metrics().await;
    let counted = metrics.sum("portcullis_rate_limited_total", &[("limit", "failures")]);
    assert_eq!(counted, 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stands_at_the_management_listener_too_and_no_revoked_key_gets_past() {
    let (gateway, _origin) = scene::shop_with("", SHIELD).await;
    let operator = gateway.key_of(KeySpec::new("operator", "portcullis:keys:read").kind("management")).await;
    let revoked = gateway.key("revoked", "read:orders").await;
    let _revoked = gateway.site().cli(&["keys", "revoke", &revoked.id]).await.success();
    let manage = || Call::to(gateway.admin_address(), "GET", "/v1/keys");
    for letter in ['A', 'B', 'C'] {
        manage().header("x-api-key", &key_text::forged("pc_live_mk_", letter)).await.refused(401, "invalid_key");
    }
    manage().header("x-api-key", &key_text::forged("pc_live_mk_", 'D')).await.refused(429, "too_many_failures");
    manage().bearer(&operator).await.expect(200);
    portcullis_testkit::eventually!(
        "the revoked key is as wrong as any",
        gateway.get("/v1/orders/7").bearer(&revoked).await.status == 429
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_it_there_is_no_bound() {
    let (gateway, _origin) = scene::shop().await;
    for _ in 0..200 {
        gateway.get("/me").header("x-api-key", "junk").await.refused(401, "invalid_key");
    }
}
