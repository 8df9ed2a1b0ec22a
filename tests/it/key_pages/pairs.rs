//! A shop system: a public key and a secret, permissions to read and to write, a switch, and a secret that can be replaced.

use portcullis_testkit::{Call, Key, KeySpec};
use serde_json::{Value, json};

use super::Service;
use crate::api::ALL;

const CONFIG: &str = r#"
auth: { accept: [{ header: Authorization, scheme: Basic }, { header: X-API-Key, secret: X-API-Secret }] }
scopes:
  read:customers: { title: Read customers }
  write:customers: { title: Write customers }
  read:orders: { title: Read orders }
routes:
  - path: /customers/**
    upstream: app
    methods: { GET: { scopes: read:customers }, POST: { scopes: write:customers } }
  - { path: /orders/**, upstream: app, methods: { GET: { scopes: read:orders } } }
"#;

/// The operator of the shop system; its management API takes the same two headers, and a key of one part in the first.
struct Settings<'s> {
    service: &'s Service,
    operator: Key,
}

impl Settings<'_> {
    fn ask(&self, method: &str, target: &str, body: &Value) -> Call {
        let call = Call::to(self.service.gateway.admin_address(), method, target).api_key(&self.operator);
        if body.is_null() { call } else { call.header("content-type", "application/json").body(body.to_string()) }
    }
}

fn two_headers(service: &Service, target: &str, id: &str, secret: &str) -> Call {
    service.gateway.get(target).header("x-api-key", id).header("x-api-secret", secret)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_of_another_system_is_imported_as_its_two_halves() {
    let service = Service::start(CONFIG).await;
    let operator = KeySpec::new("operator", ALL).kind("management").option("--may-grant", "*");
    let settings = Settings { operator: service.gateway.key_of(operator).await, service: &service };
    let row = json!([{ "name": "till 7", "scopes": ["read:customers"], "key": "till-7:a-secret-of-old" }]);
    settings.ask("POST", "/v1/keys/import", &row).await.expect(201);
    two_headers(&service, "/customers/7", "till-7", "a-secret-of-old").await.expect(200);
    two_headers(&service, "/customers/7", "till-8", "a-secret-of-old").await.refused(401, "invalid_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_is_made_shown_masked_edited_and_deleted() {
    let service = Service::start(CONFIG).await;
    let operator = KeySpec::new("operator", ALL).kind("management").option("--may-grant", "*");
    let settings = Settings { operator: service.gateway.key_of(operator).await, service: &service };

    let asked = json!({ "name": "Mobile App Integration", "paired": true, "scopes": ["read:customers"] });
    let answer = settings.ask("POST", "/v1/keys", &asked).await.expect(201);
    let pair = service.taken(&answer, &answer.json());

    // Both halves, as `Basic` or in two headers; the id alone is worth nothing.
    two_headers(&service, "/customers/7", &pair.id, &pair.text).await.expect(200);
    let sent = service.origin.last();
    assert!(sent.header("x-api-key").is_none() && sent.header("x-api-secret").is_none(), "{sent:?}");
    two_headers(&service, "/orders/7", &pair.id, &pair.text).await.refused(403, "insufficient_scope");
    service.gateway.get("/customers/7").header("x-api-key", &pair.id).await.refused(401, "invalid_key");
    service.gateway.get("/customers/7").header("x-api-secret", &pair.text).await.refused(400, "invalid_request");
    two_headers(&service, "/customers/7", &pair.id, &settings.operator.text).await.refused(401, "invalid_key");

    // Listed masked.
    let listed = settings.ask("GET", "/v1/keys?name=Mobile%20App%20Integration", &Value::Null);
    let listed = listed.watching(service.gateway.site().vault()).await.expect(200).json();
    let record = &listed["data"][0];
    assert_eq!(record["active"], true, "{record}");
    assert_eq!(record["last4"].as_str().unwrap().len(), 4, "{record}");

    // Edited: description, permissions, switched off and on.
    let one = format!("/v1/keys/{}", pair.id);
    let edit = json!({ "description": "For the app", "scopes": ["read:orders"] });
    settings.ask("PATCH", &one, &edit).await.expect(200);
    two_headers(&service, "/orders/7", &pair.id, &pair.text).await.expect(200);
    settings.ask("PATCH", &one, &json!({ "active": false })).await.expect(200);
    two_headers(&service, "/orders/7", &pair.id, &pair.text).await.refused(401, "invalid_key");
    settings.ask("PATCH", &one, &json!({ "active": true })).await.expect(200);
    two_headers(&service, "/orders/7", &pair.id, &pair.text).await.expect(200);

    // Another secret under the same id.
    let answer = settings.ask("POST", &format!("{one}/secret"), &Value::Null).await.expect(201);
    let again = service.taken(&answer, &answer.json());
    assert_eq!(again.id, pair.id);
    two_headers(&service, "/orders/7", &pair.id, &pair.text).await.refused(401, "invalid_key");
    two_headers(&service, "/orders/7", &again.id, &again.text).await.expect(200);

    // Deleted: refused at once.
    settings.ask("DELETE", &one, &Value::Null).await.expect(200);
    two_headers(&service, "/orders/7", &again.id, &again.text).await.refused(401, "invalid_key");
}
