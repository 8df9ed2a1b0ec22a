//! RFC 6750, The OAuth 2.0 Bearer Token Usage.

use super::shop;

#[tokio::test(flavor = "multi_thread")]
async fn s2_1_a_token_is_taken_from_the_authorization_field() {
    let (gateway, _origin) = shop().await;
    let key = gateway.key("caller", "").await;
    gateway.get("/me").header("authorization", &format!("Bearer {}", key.text)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_2_and_s2_3_a_token_in_body_or_query_is_not_looked_for_by_default() {
    let (gateway, _origin) = shop().await;
    let key = gateway.key("caller", "").await;
    gateway.get(&format!("/me?access_token={}", key.text)).await.refused(401, "missing_credential");
    gateway
        .post("/any/x")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(format!("access_token={}", key.text))
        .await
        .refused(401, "missing_credential");
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_clients_must_not_use_more_than_one_method() {
    let (gateway, origin) = shop().await;
    let key = gateway.key("caller", "").await;
    gateway.get("/me").bearer(&key).api_key(&key).await.refused(400, "invalid_request");
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_a_refusal_carries_a_challenge_with_at_least_one_parameter() {
    let (gateway, _origin) = shop().await;
    let challenge = gateway.get("/me").await.expect(401).challenge();
    assert!(challenge.starts_with("Bearer ") && challenge.contains("realm=\""), "{challenge}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_realm_error_and_scope_appear_at_most_once_and_scope_is_well_formed() {
    let (gateway, _origin) = shop().await;
    let key = gateway.key("caller", "").await;
    let challenge = gateway.post("/v1/orders").bearer(&key).await.expect(403).challenge();
    for parameter in ["realm=", "error=", "scope="] {
        assert_eq!(challenge.matches(parameter).count(), 1, "{challenge}");
    }
    let scope = challenge.split("scope=\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(!scope.is_empty() && scope.bytes().all(|byte| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e)));
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_1_a_request_without_authentication_information_gets_no_error_code() {
    let (gateway, _origin) = shop().await;
    let challenge = gateway.get("/me").await.expect(401).challenge();
    assert!(!challenge.contains("error"), "{challenge}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_1_invalid_request_is_400_invalid_token_is_401_insufficient_scope_is_403() {
    let (gateway, _origin) = shop().await;
    let key = gateway.key("caller", "").await;
    for (call, status, error) in [
        (gateway.get("/me").header("authorization", "Bearer a b"), 400, "invalid_request"),
        (gateway.get("/me").header("authorization", "Bearer unknown"), 401, "invalid_token"),
        (gateway.get("/v1/orders/1").bearer(&key), 403, "insufficient_scope"),
    ] {
        let challenge = call.await.expect(status).challenge();
        assert!(challenge.contains(&format!("error=\"{error}\"")), "{challenge}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_3_answers_about_tokens_are_not_cached() {
    let (gateway, _origin) = shop().await;
    let answer = gateway.get("/me").header("authorization", "Bearer unknown").await.expect(401);
    assert!(answer.header("cache-control").unwrap().contains("no-store"));
}
