//! Report mode: what would be refused goes on untouched, and is counted and logged.

use portcullis_testkit::{Gateway, Origin, eventually};

use crate::scene;

const REPORTED: &str = r#"
  - path: /trial/**
    name: trial
    upstream: shop
    mode: report
    scopes: read:orders
"#;

async fn trial() -> (Gateway, Origin) {
    let (gateway, origin) = scene::shop_with(REPORTED, "").await;
    origin.tolerate_credentials();
    (gateway, origin)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_goes_on_with_its_credential_untouched_and_without_identity() {
    let (gateway, origin) = trial().await;
    let writer = gateway.key("writer", "write:orders").await;
    let calls = [
        (gateway.get("/trial/1"), None, "missing_credential"),
        (gateway.get("/trial/2").header("authorization", "Bearer stranger"), Some("Bearer stranger"), "unknown_key"),
        (gateway.get("/trial/3").bearer(&writer), Some("Bearer"), "insufficient_scope"),
    ];
    for (call, credential, reason) in calls {
        let answer = call.await.expect(200);
        let seen = origin.last();
        assert_eq!(seen.header("x-portcullis-auth"), Some("reported"));
        assert!(!seen.has("x-portcullis-key-id") && !seen.has("x-portcullis-scopes"), "{seen:?}");
        match credential {
            None => assert!(!seen.has("authorization")),
            Some(start) => assert!(seen.header("authorization").unwrap().starts_with(start)),
        }
        let line = gateway.access_line(&answer).await;
        assert_eq!((&line["mode"], &line["reason"]), (&"report".into(), &reason.into()), "{line}");
    }
    let metrics = gateway.metrics().await;
    let reported = metrics.sum("portcullis_auth_decisions_total", &[("route", "trial"), ("mode", "report")]);
    assert_eq!(reported, 3.0, "{}", metrics.text);
    assert_eq!(metrics.value("portcullis_report_mode_routes", &[]), Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_allowed_goes_on_as_in_enforce_mode() {
    let (gateway, origin) = trial().await;
    let reader = gateway.key("reader", "read:orders").await;
    gateway.get("/trial/1").bearer(&reader).await.expect(200);
    let seen = origin.only();
    assert_eq!(seen.header("x-portcullis-auth"), Some("key"));
    assert!(!seen.has("authorization"));
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_methods_and_malformed_requests_are_never_relaxed() {
    let (gateway, origin) = trial().await;
    gateway.get("/trial/a%2Fb").await.refused(400, "bad_path");
    gateway.call("BREW", "/trial/a").await.refused(405, "method_not_allowed");
    gateway.get("/trial/a").header("x-api-key", "a b").await.refused(400, "invalid_request");
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_known_to_be_bad_is_refused_unless_the_operator_says_otherwise() {
    let (gateway, _origin) = trial().await;
    let key = gateway.key("gone", "read:orders").await;
    let _ = gateway.cli(&["keys", "revoke", &key.id]).await.success();
    eventually!("the revoked key is refused", gateway.get("/trial/1").bearer(&key).await.status == 401);

    let (lenient, origin) = scene::shop_with(REPORTED, "report: { known_bad: true }").await;
    origin.tolerate_credentials();
    let key = lenient.key("gone", "read:orders").await;
    let _ = lenient.cli(&["keys", "revoke", &key.id]).await.success();
    eventually!("the revoked key is refused where nothing is relaxed", {
        lenient.get("/v1/orders/1").bearer(&key).await.status == 401
    });
    lenient.get("/trial/1").bearer(&key).await.expect(200);
    assert_eq!(origin.last().header("x-portcullis-auth"), Some("reported"));
}

#[tokio::test(flavor = "multi_thread")]
async fn report_mode_that_has_run_out_enforces() {
    let (gateway, origin) = scene::shop_with(REPORTED, "report: { until: 2020-01-01 }").await;
    gateway.get("/trial/1").await.refused(401, "missing_credential");
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_gateway_can_report_and_single_routes_still_enforce() {
    let routes = "  - { path: /strict, upstream: shop, mode: enforce, auth: any_key }\n";
    let (gateway, origin) = scene::shop_with(routes, "mode: report").await;
    gateway.get("/v1/orders/1").await.expect(200);
    assert_eq!(origin.only().header("x-portcullis-auth"), Some("reported"));
    gateway.get("/strict").await.refused(401, "missing_credential");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_credential_that_would_be_refused_goes_on_where_it_stood() {
    let routes = r#"
  - { path: /linked, upstream: shop, mode: report, auth: any_key, accept: [{ query: api_key }] }
"#;
    let (gateway, origin) = scene::shop_with(routes, "").await;
    origin.tolerate_credentials();
    gateway.get("/linked?api_key=stranger&z=1").await.expect(200);
    let seen = origin.only();
    assert_eq!(seen.target, "/linked?api_key=stranger&z=1");
    assert_eq!(seen.header("x-portcullis-auth"), Some("reported"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reported_spelling_does_not_relax_a_rule_that_enforces() {
    let routes = r#"
  - { path: "/r/{any}", upstream: shop, mode: report, auth: any_key }
  - { path: /r/admin, upstream: shop, mode: enforce, auth: any_key }
"#;
    let (gateway, origin) = scene::shop_with(routes, "").await;
    gateway.get("/r/other").await.expect(200);
    origin.forget();
    for spelling in ["/r/admin", "/r/ADMIN", "/r/admin;x", "/r/%61DMIN"] {
        let status = gateway.get(spelling).await.status;
        assert!(matches!(status, 400 | 401), "{spelling}: {status}");
    }
    origin.untouched();
}
