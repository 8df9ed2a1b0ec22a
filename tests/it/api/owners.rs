//! Owners: accounts that keys belong to, suspended in one call, with bounds of their own.

use portcullis_testkit::Key;
use serde_json::{Value, json};

use super::Shop;

async fn owner(shop: &Shop, body: Value) -> String {
    shop.tell("POST", "/v1/owners", &body).await.expect(201).json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_refuses_all_keys_of_an_owner_and_another_accepts_them_again() {
    let shop = Shop::open().await;
    let acme = owner(&shop, json!({ "name": "ACME", "metadata": { "plan": "gold" } })).await;
    let mut keys: Vec<Key> = Vec::new();
    for number in 0..3 {
        keys.push(shop.make(json!({ "name": format!("k{number}"), "owner": acme, "scopes": ["read:orders"] })).await);
    }
    let other = shop.make(json!({ "name": "other", "scopes": ["read:orders"] })).await;
    let suspended = shop.tell("POST", &format!("/v1/owners/{acme}/suspend"), &Value::Null).await.expect(200).json();
    assert_eq!(suspended["suspended"], true);
    for key in &keys {
        shop.gateway.get("/v1/orders/7").bearer(key).await.refused(401, "invalid_key");
    }
    shop.gateway.get("/v1/orders/7").bearer(&other).await.expect(200);
    shop.tell("POST", &format!("/v1/owners/{acme}/resume"), &Value::Null).await.expect(200);
    for key in &keys {
        shop.gateway.get("/v1/orders/7").bearer(key).await.expect(200);
        assert_eq!(shop.origin.last().header("x-portcullis-owner"), Some(acme.as_str()));
    }
    let list = shop.tell("GET", &format!("/v1/keys?owner={acme}"), &Value::Null).await.expect(200).json();
    assert_eq!(list["data"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_has_no_more_keys_than_it_may_and_nothing_beyond_its_ceiling() {
    let shop = Shop::open().await;
    let acme = owner(&shop, json!({ "name": "ACME", "max_keys": 2, "may_grant": ["read:*"] })).await;
    let make = |scopes: Value| shop.tell("POST", "/v1/keys", &json!({ "name": "k", "owner": acme, "scopes": scopes }));
    let refused = make(json!(["read:orders", "write:orders"])).await.refused(403, "grant_exceeded").json();
    assert_eq!(refused["missing_scopes"], json!(["write:orders"]));
    make(json!(["*"])).await.refused(403, "grant_exceeded");
    let first = shop.taken(make(json!(["read:orders"])).await.expect(201));
    let _second = shop.taken(make(json!([])).await.expect(201));
    make(json!([])).await.refused(409, "conflict");
    let path = format!("/v1/keys/{}", first.id);
    shop.tell("PATCH", &path, &json!({ "scopes": ["read:orders", "write:orders"] }))
        .await
        .refused(403, "grant_exceeded");
    // A successor takes the place of its predecessor.
    shop.tell("POST", &format!("{path}/rotate"), &Value::Null).await.expect(201);
    shop.tell("PATCH", &format!("/v1/owners/{acme}"), &json!({ "max_keys": null, "may_grant": null }))
        .await
        .expect(200);
    make(json!(["write:orders"])).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_are_changed_as_they_were_read() {
    let shop = Shop::open().await;
    let acme = owner(&shop, json!({ "name": "ACME" })).await;
    let path = format!("/v1/owners/{acme}");
    let tag = shop.tell("GET", &path, &Value::Null).await.expect(200).header("etag").unwrap().to_owned();
    let change = |body: Value| shop.tell("PATCH", &path, &body).header("if-match", &tag);
    let changed =
        change(json!({ "name": "ACME Inc.", "rate_limit": { "requests": 5, "per": "1s" } })).await.expect(200).json();
    assert_eq!(changed["rate_limit"], json!({ "requests": 5, "per": "1s", "burst": 5 }));
    change(json!({ "name": "late" })).await.refused(412, "precondition_failed");
    for verb in ["suspend", "resume"] {
        let turn = shop.tell("POST", &format!("{path}/{verb}"), &Value::Null).header("if-match", &tag);
        turn.await.refused(412, "precondition_failed");
    }
    for (body, status, field) in [
        (json!({ "name": "" }), 422, "name"),
        (json!({ "suspended": true }), 400, "suspended"),
        (json!({ "max_keys": -1 }), 400, "max_keys"),
        (json!({ "may_grant": ["nothing:*"] }), 422, "may_grant"),
    ] {
        let code = if status == 400 { "invalid_field" } else { "invalid_value" };
        assert_eq!(shop.tell("PATCH", &path, &body).await.refused(status, code).json()["field"], field);
    }
    let again = shop.tell("POST", "/v1/owners", &json!({ "name": "twice" })).header("idempotency-key", "o");
    let first = again.await.expect(201).text();
    let again = shop.tell("POST", "/v1/owners", &json!({ "name": "twice" })).header("idempotency-key", "o");
    assert_eq!(again.await.expect(201).text(), first);
    shop.tell("GET", &format!("/v1/owners/own_{}", "0".repeat(32)), &Value::Null).await.refused(404, "not_found");
    let list = shop.tell("GET", "/v1/owners?limit=1", &Value::Null).await.expect(200).json();
    let next = list["next_cursor"].as_str().unwrap();
    let rest = shop.tell("GET", &format!("/v1/owners?cursor={next}"), &Value::Null).await.expect(200).json();
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["next_cursor"]), (1, &Value::Null));
}
