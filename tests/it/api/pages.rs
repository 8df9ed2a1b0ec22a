//! What the API says about itself.

use serde_json::{Value, json};

use super::Shop;

#[tokio::test(flavor = "multi_thread")]
async fn the_description_names_every_endpoint_and_what_it_needs() {
    let shop = Shop::open().await;
    let document = shop.ask("GET", "/v1/openapi.json").await.expect(200).json();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let what = format!("{method} {path}");
            assert!(operation["summary"].is_string() && operation["operationId"].is_string(), "{what}");
            let target = path.replace("{id}", "key_00000000000000000000000000000000");
            let status = shop.ask(&method.to_uppercase(), &target).await.status;
            let open = operation.get("security").is_none();
            assert_eq!(status == 401, !open, "{what} answers {status} to nobody");
        }
    }
    let page = shop.ask("GET", "/docs").await.expect(200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.text().contains("/v1/keys/{id}/rotate") && !page.text().contains("<script"));
    shop.ask("GET", "/docs/errors/grant_exceeded").await.expect(200);
    shop.ask("GET", "/docs/errors/nonsense").await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_and_the_state_of_the_gateway_can_be_asked_for() {
    let shop = Shop::open_with("", "roles: { clerk: [read:orders] }").await;
    let scopes = shop.tell("GET", "/v1/scopes", &Value::Null).await.expect(200).json();
    assert_eq!(scopes["scopes"][0], json!({ "name": "read:orders", "title": "Read orders" }));
    assert_eq!(scopes["roles"], json!([{ "name": "clerk", "scopes": ["read:orders"] }]));
    let status = shop.tell("GET", "/v1/status", &Value::Null).await.expect(200).json();
    assert_eq!((&status["store_up"], &status["keys"]), (&json!(true), &json!(1)));
    let own = shop.tell("GET", "/v1/keys/self", &Value::Null).await.expect(200).json();
    assert_eq!(own["id"], shop.operator.id.as_str());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_tells_who_changed_what_from_where() {
    let shop = Shop::open().await;
    let key = shop.make(json!({ "name": "erp", "scopes": ["read:orders"] })).await;
    let path = format!("/v1/keys/{}", key.id);
    shop.tell("PATCH", &path, &json!({ "scopes": [] })).await.expect(200);
    shop.tell("DELETE", &path, &Value::Null).await.expect(200);
    let trail = |query: String| shop.tell("GET", &format!("/v1/audit?{query}"), &Value::Null);
    let page = trail(format!("subject={}", key.id)).watching(shop.gateway.site().vault()).await.expect(200).json();
    let entries = page["data"].as_array().unwrap();
    let actions: Vec<&str> = entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["key.revoke", "key.update", "key.create"]);
    assert_eq!(entries[1]["before"], json!({ "scopes": ["read:orders"] }));
    assert_eq!(entries[1]["after"], json!({ "scopes": [] }));
    for entry in entries {
        assert_eq!((&entry["actor"], &entry["address"]), (&json!(shop.operator.id), &json!("127.0.0.1")));
    }
    let first = trail("limit=1".to_owned()).await.expect(200).json();
    let next = trail(format!("limit=1&cursor={}", first["next_cursor"].as_str().unwrap())).await.expect(200).json();
    assert_ne!(first["data"][0]["entry"], next["data"][0]["entry"]);
    for (query, status, code, field) in [
        ("since=yesterday", 422, "invalid_value", "since"),
        ("action=*.create", 422, "invalid_value", "action"),
        ("cursor=x", 400, "invalid_field", "cursor"),
    ] {
        let refused = trail(query.to_owned()).await.refused(status, code).json();
        assert_eq!(refused["field"], field);
    }
    let _ = shop.gateway.cli(&["audit", "verify"]).await.success();
}
