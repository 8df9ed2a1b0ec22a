//! RFC 9457, Problem Details for HTTP APIs.

use super::shop;

#[tokio::test(flavor = "multi_thread")]
async fn s3_every_refusal_is_a_problem_of_its_own_type() {
    let (gateway, _origin) = shop().await;
    let key = gateway.key("caller", "").await;
    let mut types = std::collections::BTreeSet::new();
    for call in [
        gateway.get("/me"),
        gateway.get("/me").header("x-api-key", "junk"),
        gateway.get("/me").header("x-api-key", "a b"),
        gateway.get("/v1/orders/1").bearer(&key),
        gateway.get("/nothing"),
        gateway.call("PATCH", "/v1/orders/1"),
        gateway.get("/open/a%2Fb"),
    ] {
        // Content type, status and request id are checked by the client on every answer.
        let problem = call.await.json();
        let kind = problem["type"].as_str().unwrap().to_owned();
        assert!(kind.ends_with(problem["code"].as_str().unwrap()), "the type is the page of the code: {problem}");
        assert!(types.insert(kind), "{problem}");
    }
    assert_eq!(types.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_1_3_the_title_is_the_same_every_time() {
    let (gateway, _origin) = shop().await;
    let title = |problem: serde_json::Value| problem["title"].as_str().unwrap().to_owned();
    let one = title(gateway.get("/nothing/1").await.expect(404).json());
    let two = title(gateway.get("/nothing/2").await.expect(404).json());
    assert_eq!(one, two);
}

#[tokio::test(flavor = "multi_thread")]
async fn s5_nothing_of_our_insides_is_told() {
    let gateway = crate::scene::open_door("127.0.0.1:9", "").await;
    let text = gateway.get("/").await.expect(502).text();
    for inside in ["127.0.0.1", "refused", "os error", ".rs", "far"] {
        assert!(!text.contains(inside), "{inside} in {text}");
    }
}
