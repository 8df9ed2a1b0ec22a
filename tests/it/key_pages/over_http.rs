//! A payment service whose customers manage their keys by requests to its own API, with keys of its own make.

use portcullis_testkit::{Call, Facts, Key, KeySpec};
use serde_json::{Value, json};

use super::Service;

const CONFIG: &str = r#"
api: { profile: success }
errors: { profile: success }
auth: { brand: wp3 }
environments:
  live: { rate_limit: { requests: 1000, per: 1s } }
  test: { rate_limit: { requests: 3, per: 1h } }
scopes:
  onramp:create: { title: Create new onramp sessions }
  onramp:read: { title: Read session status }
  transactions:read: { title: List and view transactions }
  keys:manage: { title: Create and revoke API keys }
  webhooks:manage: { title: Configure webhook endpoints }
routes:
  - path: /v1/onramp
    upstream: app
    methods:
      POST: { scopes: onramp:create }
      GET: { scopes: onramp:read }
  - { path: /v1/transactions, upstream: app, methods: { GET: { scopes: transactions:read } } }
  - { path: /v1/webhooks, upstream: app, methods: { ALL: { scopes: webhooks:manage } } }
  - path: /v1/keys/**
    upstream: portcullis
    map: { keys:manage: portcullis:keys }
    methods: { ALL: { scopes: keys:manage } }
"#;

const ALL: &str = "onramp:create,onramp:read,transactions:read";

async fn customer(service: &Service, name: &str) -> Key {
    let owner = service.account(name).await;
    let spec = KeySpec::new(name, "keys:manage").option("--owner", &owner).option("--may-grant", ALL);
    service.gateway.key_of(spec).await
}

fn ask(service: &Service, caller: &Key, method: &str, target: &str, body: &Value) -> Call {
    let call = service.gateway.call(method, target).api_key(caller).facts(Facts::success_profile());
    if body.is_null() { call } else { call.header("content-type", "application/json").body(body.to_string()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_create_list_and_revoke_keys_at_the_service_itself() {
    let service = Service::start(CONFIG).await;
    let caller = customer(&service, "web3").await;
    assert!(caller.text.starts_with("wp3_live_sk_"));

    // Create: shown once.
    let permissions = json!(["onramp:create", "onramp:read", "transactions:read"]);
    let asked = json!({ "name": "Production API Key", "environment": "live", "permissions": permissions });
    let answer = ask(&service, &caller, "POST", "/v1/keys", &asked).await.expect(201);
    let body = answer.json();
    let data = &body["data"];
    assert_eq!(body["success"], true, "{body}");
    assert_eq!(data["name"], "Production API Key");
    assert_eq!(data["environment"], "live");
    assert_eq!(data["permissions"], permissions);
    let made = service.taken(&answer, data);
    assert!(made.id.starts_with("key_") && made.text.starts_with(&made.prefix), "{}", made.id);
    assert!(
        made.prefix.starts_with("wp3_live_sk_") && made.prefix.len() == "wp3_live_sk_".len() + 8,
        "{}",
        made.prefix
    );
    assert!(data["created_at"].as_str().unwrap().ends_with('Z'), "{body}");
    assert_eq!(answer.header("location"), Some(format!("/v1/keys/{}", made.id).as_str()));

    // It works at once, in either header, where its permissions reach, and nowhere else.
    service.gateway.get("/v1/onramp").api_key(&made).await.expect(200);
    service.gateway.post("/v1/onramp").bearer(&made).await.expect(200);
    service.gateway.get("/v1/transactions").api_key(&made).await.expect(200);
    let short = || Facts::success_profile();
    service.gateway.get("/v1/webhooks").api_key(&made).facts(short()).await.expect(403);
    ask(&service, &made, "GET", "/v1/keys", &Value::Null).await.expect(403);

    // A test key, and the list of both: prefixes and last use, no key.
    let asked = json!({ "name": "Test Key", "environment": "test", "permissions": ["onramp:read"] });
    let answer = ask(&service, &caller, "POST", "/v1/keys", &asked).await.expect(201);
    let test = service.taken(&answer, &answer.json()["data"]);
    assert!(test.text.starts_with("wp3_test_sk_"));
    let listed = ask(&service, &caller, "GET", "/v1/keys", &Value::Null);
    let listed = listed.watching(service.gateway.site().vault()).await.expect(200).json();
    let keys = listed["data"]["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 3, "{listed}");
    for key in keys {
        assert!(key["prefix"].as_str().unwrap().starts_with("wp3_") && key.get("key").is_none(), "{key}");
        assert!(key.get("last_used_at").is_some() && key["permissions"].is_array(), "{key}");
    }

    // Limits of test keys are their own.
    for _ in 0..3 {
        service.gateway.get("/v1/onramp").api_key(&test).await.expect(200);
    }
    service.gateway.get("/v1/onramp").api_key(&test).facts(short()).await.expect(429);
    service.gateway.get("/v1/onramp").api_key(&made).await.expect(200);

    // Revoke: the next request hears 401.
    let gone =
        ask(&service, &caller, "DELETE", &format!("/v1/keys/{}", made.id), &Value::Null).await.expect(200).json();
    assert_eq!(gone["data"]["message"], "API key revoked successfully", "{gone}");
    service.gateway.get("/v1/onramp").api_key(&made).facts(short()).await.expect(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_do_not_see_each_other() {
    let service = Service::start(CONFIG).await;
    let (acme, rival) = (customer(&service, "acme").await, customer(&service, "rival").await);
    for (method, path) in [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/rotate"),
        ("POST", "/secret"),
        ("POST", "/disable"),
        ("POST", "/enable"),
    ] {
        let body = if method == "PATCH" { json!({ "name": "mine" }) } else { Value::Null };
        let refused = ask(&service, &acme, method, &format!("/v1/keys/{}{path}", rival.id), &body).await.expect(404);
        assert_eq!(refused.json()["error"]["code"], "not_found", "{method} {path}");
    }
    let seen = ask(&service, &acme, "GET", "/v1/keys", &Value::Null).await.expect(200).json();
    let ids: Vec<&str> =
        seen["data"]["keys"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [acme.id.as_str()]);
    // Neither does anybody hand out what was not given to them.
    let asked = json!({ "name": "climb", "permissions": ["webhooks:manage"] });
    let refused = ask(&service, &acme, "POST", "/v1/keys", &asked).await.expect(403).json();
    assert_eq!(refused["error"]["code"], "grant_exceeded", "{refused}");
    assert_eq!(refused["error"]["missing_permissions"], json!(["webhooks:manage"]), "{refused}");
}
