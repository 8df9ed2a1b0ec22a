//! Other shapes of refusals: the `success` profile, and gRPC by content type.

use portcullis_testkit::{Facts, key_text};

use crate::scene;

#[tokio::test(flavor = "multi_thread")]
async fn the_success_profile_keeps_statuses_and_changes_bodies() {
    let (gateway, _origin) = scene::shop_with("", "errors: { profile: success }").await;
    let reader = gateway.key("reader", "read:orders").await;
    let facts = Facts::success_profile;
    for (call, status, code) in [
        (gateway.get("/v1/orders/7"), 401, "missing_credential"),
        (gateway.get("/v1/orders/7").header("x-api-key", "junk"), 401, "invalid_key"),
        (gateway.post("/v1/orders/7").bearer(&reader), 403, "insufficient_scope"),
        (gateway.get("/nothing"), 404, "no_route"),
        (gateway.get("/v1/orders/a%2Fb"), 400, "bad_path"),
    ] {
        let answer = call.facts(facts()).await.expect(status);
        let body = answer.json();
        assert_eq!(body["error"]["code"], code, "{body}");
        assert!(answer.header("content-type").unwrap().starts_with("application/json"), "{answer:?}");
        assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
        let lacks = body["error"]["message"].as_str().unwrap().contains("write:orders");
        assert_eq!(lacks, code == "insufficient_scope", "what is missing is said where no member holds it: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_requests_get_grpc_statuses_by_their_content_type() {
    let (gateway, origin) = scene::shop().await;
    let reader = gateway.key("reader", "read:orders").await;
    let dead = scene::open_door("127.0.0.1:9", "").await;
    let unknown = key_text::forged("pc_live_sk_", 'Q');
    for (call, status) in [
        (gateway.post("/v1/orders/7"), "16"),
        (gateway.post("/v1/orders/7").header("x-api-key", &unknown), "16"),
        (gateway.post("/v1/orders/7").bearer(&reader), "7"),
        (dead.post("/orders.Orders/Get"), "14"),
    ] {
        let answer = call.h2().header("content-type", "application/grpc").header("te", "trailers").await.expect(200);
        let told = answer.header("grpc-status").or_else(|| answer.trailer("grpc-status"));
        assert_eq!(told, Some(status), "{answer:?}");
        assert!(answer.header("content-type").unwrap().starts_with("application/grpc"), "{answer:?}");
        assert!(answer.body.is_empty(), "{answer:?}");
    }
    origin.untouched();
}
