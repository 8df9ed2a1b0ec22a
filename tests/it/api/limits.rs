//! Limits of single keys and owners, given over the API.

use portcullis_testkit::{Key, key_text};
use serde_json::{Value, json};

use super::Shop;

/// Every live key may ask fifty times; afterwards once a day.
const USUAL: &str = "environments: { live: { rate_limit: { requests: 1, per: 24h, burst: 50 } } }";

/// How many of so many requests are let through.
async fn accepted(shop: &Shop, key: &Key, requests: usize) -> usize {
    let mut accepted = 0;
    for _ in 0..requests {
        let answer = shop.gateway.get("/any/x").bearer(key).await;
        assert!(matches!(answer.status, 200 | 429), "{answer:?}");
        accepted += usize::from(answer.status == 200);
    }
    accepted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keys_own_limits_hold_as_soon_as_they_are_given_and_neither_they_nor_a_rotation_refill_it() {
    let shop = Shop::open_with("", USUAL).await;
    let limit = |burst: u32| json!({ "requests": 1, "per": "24h", "burst": burst });
    let key = shop.make(json!({ "name": "erp", "rate_limit": limit(5) })).await;
    let other = shop.make(json!({ "name": "other" })).await;
    assert_eq!(accepted(&shop, &key, 10).await, 5);
    let path = format!("/v1/keys/{}", key.id);
    shop.tell("PATCH", &path, &json!({ "rate_limit": limit(7) })).await.expect(200);
    assert_eq!(accepted(&shop, &key, 10).await, 2, "two more than before");
    let rotated = shop.tell("POST", &format!("{path}/rotate"), &json!({ "grace": "1h" })).await.expect(201);
    let successor = shop.taken(rotated);
    assert_eq!(accepted(&shop, &successor, 10).await, 0);
    let path = format!("/v1/keys/{}", successor.id);
    shop.tell("PATCH", &path, &json!({ "rate_limit": Value::Null, "quota": { "per_day": 3 } })).await.expect(200);
    assert_eq!(accepted(&shop, &successor, 10).await, 3, "of 43 that its environment leaves it, as many as its quota");
    let refused = shop.gateway.get("/any/x").bearer(&successor).await.refused(429, "quota_exceeded");
    let told = refused.header("ratelimit").unwrap();
    assert!(told.starts_with("\"key\";r=40;t=") && told.contains("\"key-day\";r=0;t="), "{told}");
    assert_eq!(accepted(&shop, &other, 60).await, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owners_limit_counts_its_keys_together() {
    let shop = Shop::open_with("", USUAL).await;
    let limit = json!({ "requests": 1, "per": "24h", "burst": 6 });
    let acme =
        shop.tell("POST", "/v1/owners", &json!({ "name": "ACME", "rate_limit": limit })).await.expect(201).json();
    let one = shop.make(json!({ "name": "one", "owner": acme["id"] })).await;
    let other = shop.make(json!({ "name": "other", "owner": acme["id"] })).await;
    assert_eq!((accepted(&shop, &one, 4).await, accepted(&shop, &other, 10).await), (4, 2));
    let refused = shop.gateway.get("/any/x").bearer(&one).await.refused(429, "rate_limited");
    assert!(refused.header("ratelimit").unwrap().contains("\"owner\";r=0;t="), "{refused:?}");
    let path = format!("/v1/owners/{}", acme["id"].as_str().unwrap());
    shop.tell("PATCH", &path, &json!({ "rate_limit": Value::Null })).await.expect(200);
    assert_eq!(accepted(&shop, &one, 60).await, 46, "what is left of its environment's");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_whose_limit_a_leaked_key_used_up_can_still_revoke_it() {
    let shop = Shop::open_with("", "").await;
    let limit = json!({ "requests": 1, "per": "24h", "burst": 2 });
    let owner = json!({ "name": "ACME", "rate_limit": limit, "quota": { "per_day": 2 } });
    let acme = shop.tell("POST", "/v1/owners", &owner).await.expect(201).json();
    let leaked = shop.make(json!({ "name": "leaked", "owner": acme["id"] })).await;
    let manager = json!({
        "name": "manager", "kind": "management", "owner": acme["id"],
        "scopes": ["portcullis:keys"]
    });
    let manager = shop.make(manager).await;
    assert_eq!(accepted(&shop, &leaked, 6).await, 2);
    let path = format!("/v1/keys/{}", leaked.id);
    for _ in 0..6 {
        shop.tell_as(&manager, "GET", &path, &Value::Null).await.expect(200);
    }
    shop.tell_as(&manager, "DELETE", &path, &Value::Null).await.expect(200);
    shop.gateway.get("/any/x").bearer(&leaked).await.refused(401, "invalid_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environments_limits_keep_no_operator_out() {
    let sections = "environments: { live: { rate_limit: { requests: 1, per: 24h, burst: 1 }, quota: { per_day: 1 } } }";
    let shop = Shop::open_with("", sections).await;
    for _ in 0..20 {
        shop.tell("GET", "/v1/keys", &Value::Null).await.expect(200);
    }
    // One that the operator limited is limited here, too.
    let limit = json!({ "requests": 1, "per": "24h", "burst": 2 });
    let reader = json!({
        "name": "reader", "kind": "management", "scopes": ["portcullis:keys:read"], "rate_limit": limit
    });
    let reader = shop.make(reader).await;
    let ask = || shop.tell_as(&reader, "GET", "/v1/keys", &Value::Null);
    ask().await.expect(200);
    ask().await.expect(200);
    let refused = ask().await.refused(429, "rate_limited");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((86_000..=86_400).contains(&wait), "{refused:?}");
    // A stranger is told nothing of limits.
    let stranger = key_text::forged("pc_live_mk_", 'Q');
    shop.ask("GET", "/v1/keys")
        .header("authorization", &format!("Bearer {stranger}"))
        .await
        .refused(401, "invalid_key");
}
