//! The API behind a route of the application: who sees what there, and that nobody climbs.

use portcullis_testkit::{Call, Key, eventually};
use serde_json::{Value, json};

use super::Shop;

/// The management API below `/account`.
pub const ROUTE: &str = r#"  - path: /account/**
    upstream: portcullis
    strip_prefix: /account
    add_prefix: /v1
    auth: any_key
    map: { keys:manage: [portcullis:keys, portcullis:verify, portcullis:usage, portcullis:audit, portcullis:config], keys:look: portcullis:keys:read }
"#;

/// A shop whose customers manage their keys below `/account`.
struct Mall {
    shop: Shop,
    acme: String,
}

impl Mall {
    async fn open() -> Self {
        Self::open_with(ROUTE).await
    }

    async fn open_with(route: &str) -> Self {
        let shop = Shop::open_with(route, "").await;
        let made = shop.tell("POST", "/v1/owners", &json!({ "name": "ACME" })).await.expect(201);
        Self { acme: made.json()["id"].as_str().unwrap().to_owned(), shop }
    }

    async fn key(&self, body: Value) -> Key {
        let mut record = json!({ "name": "key" });
        record.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        self.shop.make(record).await
    }

    fn ask(&self, caller: &Key, method: &str, target: &str, body: &Value) -> Call {
        // Unwatched: a repeated answer shows its key again.
        let call = Call::to(self.shop.gateway.data(), method, target).bearer(caller);
        if body.is_null() { call } else { call.header("content-type", "application/json").body(body.to_string()) }
    }

    async fn listed(&self, caller: &Key) -> Vec<String> {
        let page = self.ask(caller, "GET", "/account/keys", &Value::Null).await.expect(200).json();
        page["data"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_names_of_the_application_stand_for_scopes_of_the_gateway() {
    let mall = Mall::open().await;
    let own = |scopes: Value| json!({ "owner": mall.acme, "scopes": scopes });
    let manager = mall.key(own(json!(["keys:manage", "read:orders"]))).await;
    let reader = mall.key(own(json!(["keys:look"]))).await;
    let plain = mall.key(own(json!(["read:orders"]))).await;
    let asked = json!({ "name": "n", "scopes": ["read:orders"] });

    let answer = mall.ask(&manager, "POST", "/account/keys", &asked).await.expect(201);
    let made = mall.shop.taken(answer.clone());
    assert_eq!(answer.json()["owner"], json!(mall.acme));
    assert_eq!(answer.json()["created_by"], json!(manager.id));
    assert_eq!(answer.header("location"), Some(format!("/account/keys/{}", made.id).as_str()));
    mall.shop.gateway.get("/v1/orders/7").bearer(&made).await.expect(200);
    mall.ask(&manager, "POST", "/account/keys/import", &json!([])).await.refused(403, "operators_only");

    assert_eq!(mall.listed(&reader).await.len(), 4);
    let refused = mall.ask(&reader, "POST", "/account/keys", &asked).await.refused(403, "insufficient_scope");
    assert_eq!(refused.json()["missing_scopes"], json!(["keys:manage"]), "the application's own name");
    mall.ask(&plain, "GET", "/account/keys", &Value::Null).await.refused(403, "insufficient_scope");

    // Every key may look at itself and take a successor, with no more life than it had.
    let own = mall.ask(&plain, "GET", "/account/keys/self", &Value::Null).await.expect(200).json();
    assert_eq!(own["id"], json!(plain.id));
    let later = json!({ "expires_at": "2099-01-01T00:00:00Z" });
    mall.ask(&plain, "POST", "/account/keys/self/rotate", &later).await.refused(422, "invalid_value");
    let answer = mall.ask(&plain, "POST", "/account/keys/self/rotate", &Value::Null).await.expect(201);
    let successor = mall.shop.taken(answer);
    mall.shop.gateway.get("/v1/orders/7").bearer(&successor).await.expect(200);

    // What is not the API's is nobody's, and without a key there is nothing to see.
    mall.ask(&manager, "GET", "/account/nothing", &Value::Null).await.refused(404, "no_route");
    mall.ask(&manager, "PUT", "/account/keys", &Value::Null).await.refused(405, "method_not_allowed");
    mall.shop.gateway.get("/account/keys").await.refused(401, "missing_credential");
    let body = "x".repeat((1 << 20) + 1);
    let big = mall.ask(&manager, "POST", "/account/keys", &Value::Null).header("content-type", "application/json");
    big.body(body).await.refused(413, "body_too_large");
    // The management listener lets nobody in who is no management key.
    mall.shop.tell_as(&manager, "GET", "/v1/keys", &Value::Null).await.refused(403, "kind_not_allowed");
    // Nor does the route let management keys in.
    mall.ask(&mall.shop.operator, "GET", "/account/keys", &Value::Null).await.refused(403, "kind_not_allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_do_is_not_done_by_customers() {
    let mall = Mall::open().await;
    let owned = mall.key(json!({ "owner": mall.acme, "scopes": ["keys:manage"] })).await;
    let unowned = mall.key(json!({ "scopes": ["keys:manage"] })).await;
    let one = format!("/account/keys/{}", owned.id);
    let owner = format!("/account/owners/{}", mall.acme);
    for (caller, method, target, body) in [
        (&owned, "PATCH", one.as_str(), json!({ "rate_limit": null })),
        (&owned, "PATCH", &one, json!({ "quota": null })),
        (&owned, "POST", "/account/owners", json!({ "name": "n" })),
        (&owned, "PATCH", &owner, json!({ "max_keys": null })),
        (&owned, "POST", &format!("{owner}/suspend"), Value::Null),
        (&owned, "GET", "/account/audit", Value::Null),
        (&unowned, "POST", "/account/owners", json!({ "name": "n" })),
        (&unowned, "GET", "/account/audit", Value::Null),
    ] {
        mall.ask(caller, method, target, &body).await.refused(403, "operators_only");
    }
    // A key without an owner is none of an operator's here: it sees those that have none either.
    mall.ask(&unowned, "GET", &one, &Value::Null).await.refused(404, "not_found");
    mall.ask(&unowned, "GET", &owner, &Value::Null).await.refused(404, "not_found");
    assert_eq!(mall.listed(&unowned).await, std::slice::from_ref(&unowned.id), "and never management keys");
    let status = mall.ask(&unowned, "GET", "/account/status", &Value::Null).await.expect(200).json();
    assert_eq!(status["keys"], Value::Null, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_climbs_to_another_environment_kind_or_scope() {
    let mall = Mall::open().await;
    let of = |environment: &str| json!({ "owner": mall.acme, "environment": environment, "scopes": ["keys:manage"] });
    let (live, test) = (mall.key(of("live")).await, mall.key(of("test")).await);
    let manager = json!({ "owner": mall.acme, "kind": "management", "scopes": ["portcullis:keys"] });
    let manager = mall.key(manager).await;

    // A test key never gets hold of a live one, nor makes one.
    let asked = |environment: &str| json!({ "name": "n", "environment": environment, "scopes": ["keys:manage"] });
    mall.ask(&test, "POST", "/account/keys", &asked("live")).await.refused(422, "invalid_value");
    assert_eq!(mall.listed(&test).await, std::slice::from_ref(&test.id));
    for (method, path) in [("POST", "/rotate"), ("POST", "/secret"), ("DELETE", ""), ("POST", "/disable")] {
        mall.ask(&test, method, &format!("/account/keys/{}{path}", live.id), &Value::Null)
            .await
            .refused(404, "not_found");
        // Management keys belong to another door.
        mall.ask(&live, method, &format!("/account/keys/{}{path}", manager.id), &Value::Null)
            .await
            .refused(404, "not_found");
    }
    // What a live key makes lives where it says.
    let answer = mall.ask(&live, "POST", "/account/keys", &asked("test")).await.expect(201);
    assert_eq!(answer.json()["environment"], "test");
    let _kept = mall.shop.taken(answer);

    for body in [
        json!({ "name": "n", "kind": "management" }),
        json!({ "name": "n", "scopes": ["portcullis:keys"] }),
        json!({ "name": "n", "scopes": ["portcullis:*"] }),
    ] {
        mall.ask(&live, "POST", "/account/keys", &body).await.refused(422, "invalid_value");
    }
    for body in [
        json!({ "name": "n", "scopes": ["write:orders"] }),
        json!({ "name": "n", "scopes": ["*"] }),
        json!({ "name": "n", "may_grant": ["read:orders"] }),
    ] {
        mall.ask(&live, "POST", "/account/keys", &body).await.refused(403, "grant_exceeded");
    }
    let own = format!("/account/keys/{}", live.id);
    mall.ask(&live, "PATCH", &own, &json!({ "scopes": ["keys:manage", "write:orders"] }))
        .await
        .refused(403, "grant_exceeded");
    mall.ask(&live, "PATCH", &own, &json!({ "may_grant": ["*"] })).await.refused(403, "grant_exceeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_are_told_what_they_can_mend_and_nothing_of_the_operators() {
    let narrow =
        "  - { path: /v1/keys/**, upstream: portcullis, auth: any_key, map: { keys:manage: portcullis:keys } }\n";
    let mall = Mall::open_with(narrow).await;
    let manager =
        mall.key(json!({ "owner": mall.acme, "scopes": ["keys:manage"], "may_grant": ["read:orders"] })).await;
    for (body, meant) in [
        (json!({ "name": "n", "scopes": ["portcullis:keys"] }), ""),
        (json!({ "name": "n", "scopes": ["portcullis:kyes"] }), ""),
        (json!({ "name": "n", "scopes": ["raed:orders"] }), "read:orders"),
        (json!({ "name": "n", "roles": ["clerk"] }), ""),
        (json!({ "name": "n", "environment": "prod" }), ""),
    ] {
        let refused = mall.ask(&manager, "POST", "/v1/keys", &body).await.refused(422, "invalid_value").json();
        let detail = refused["detail"].as_str().unwrap();
        for word in ["--", "configuration", "section", "catalogue", "management"] {
            assert!(!detail.contains(word), "{word}: {detail}");
        }
        assert!(detail.contains(meant), "{detail}");
    }
    // What has no name at this door is not there, and no scope of the gateway's is named.
    let verify = mall.ask(&manager, "POST", "/v1/keys/verify", &json!({ "key": "x" })).await;
    assert!(matches!(verify.status, 404 | 405) && !verify.text().contains("portcullis:verify"), "{verify:?}");
    let made = ["keys", "create", "--name", "by hand", "--scopes", "", "--owner", &mall.acme, "--output", "json"];
    let made = mall.shop.gateway.cli(&made).await.success().json();
    mall.shop.gateway.site().vault().keep(made["key"].as_str().unwrap());
    assert!(made["created_by"].as_str().unwrap().starts_with("local:"));
    let path = format!("/v1/keys/{}", made["id"].as_str().unwrap());
    eventually!("the gateway knows it", mall.shop.tell("GET", &path, &Value::Null).await.status == 200);
    let shown = mall.ask(&manager, "GET", &path, &Value::Null).await.expect(200).json();
    assert_eq!(shown["created_by"], "operator");
    assert_eq!(mall.shop.tell("GET", &path, &Value::Null).await.expect(200).json()["created_by"], made["created_by"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_owner_manages_nothing_and_one_at_its_limit_still_revokes() {
    let mall = Mall::open().await;
    let manager = mall.key(json!({ "owner": mall.acme, "scopes": ["keys:manage"] })).await;
    let leaked = mall.key(json!({ "owner": mall.acme, "scopes": ["read:orders"] })).await;
    let owner = format!("/v1/owners/{}", mall.acme);
    let limit = json!({ "rate_limit": { "requests": 1, "per": "1h" } });
    mall.shop.tell("PATCH", &owner, &limit).await.expect(200);
    mall.shop.gateway.get("/v1/orders/7").bearer(&leaked).await.expect(200);
    mall.shop.gateway.get("/v1/orders/7").bearer(&leaked).await.refused(429, "rate_limited");
    mall.ask(&manager, "DELETE", &format!("/account/keys/{}", leaked.id), &Value::Null).await.expect(200);
    mall.shop.gateway.get("/v1/orders/7").bearer(&leaked).await.refused(401, "invalid_key");

    mall.shop.tell("POST", &format!("{owner}/suspend"), &Value::Null).await.expect(200);
    mall.ask(&manager, "GET", "/account/keys", &Value::Null).await.refused(401, "invalid_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_repeated_there_too_and_the_trail_says_who() {
    let mall = Mall::open().await;
    let manager = mall.key(json!({ "owner": mall.acme, "scopes": ["keys:manage"] })).await;
    let asked = json!({ "name": "once", "scopes": ["keys:manage"] });
    let again = || mall.ask(&manager, "POST", "/account/keys", &asked).header("idempotency-key", "one");
    let first = mall.shop.taken(again().await.expect(201));
    let second = again().await.expect(201).json();
    assert!(second["key"] == json!(first.text), "the same key");
    let trail = mall.shop.tell("GET", &format!("/v1/audit?subject={}", first.id), &Value::Null).await.expect(200);
    let entries = trail.json()["data"].as_array().unwrap().clone();
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0]["actor"], json!(manager.id), "{entries:?}");
    assert_eq!(entries[0]["address"], "127.0.0.1", "{entries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_cannot_be_is_refused_with_what_to_do() {
    let (site, _origin) = crate::scene::closed_shop().await;
    let config = |route: &str| crate::scene::shop_config(route, "");
    for (route, words) in [
        ("  - { path: /a, upstream: portcullis, auth: any_key, map: { keys: portcullis:nope } }\n", "portcullis:keys"),
        (
            "  - { path: /a, upstream: portcullis, auth: any_key, map: { portcullis:keys: portcullis:keys } }\n",
            "keys:manage",
        ),
        ("  - { path: /a, upstream: shop, auth: any_key, map: { k: portcullis:keys } }\n", "upstream is `portcullis`"),
        ("  - { path: /a, upstream: portcullis, auth: any_key, timeouts: { idle: 5s } }\n", "do not leave the gateway"),
        ("  - { path: /a, upstream: portcullis, auth: any_key, accept: [{ query: k }] }\n", "no key from the query"),
        ("  - { path: /a, upstream: portcullis, auth: none }\n", "manages keys without one"),
        ("  - { path: /a, upstream: portcullis, auth: any_key, mode: report }\n", "never only reported"),
        ("  - { path: /a, upstream: shop, auth: any_key, accept: [{ header: X-K, secret: X-K }] }\n", "a field each"),
        ("  - { path: /a, upstream: shop, auth: any_key, accept: [{ secret: X-K }] }\n", "beside the id"),
    ] {
        site.rewrite_config(&config(route));
        let _said = site.cli(&["check"]).await.exit(3).says(&[words]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_line_says_why_a_customer_was_refused() {
    let mall = Mall::open().await;
    let manager = mall.key(json!({ "owner": mall.acme, "scopes": ["keys:manage"] })).await;
    let asked = json!({ "name": "n", "scopes": ["write:orders"] });
    let answer = mall.ask(&manager, "POST", "/account/keys", &asked).await.refused(403, "grant_exceeded");
    let line = mall.shop.gateway.access_line(&answer).await;
    assert_eq!((&line["status"], &line["code"]), (&json!(403), &json!("grant_exceeded")), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_by_the_api_is_explained_by_its_request_id() {
    let mall = Mall::open().await;
    let plain = mall.key(json!({ "owner": mall.acme, "scopes": ["read:orders"] })).await;
    let refused = mall.ask(&plain, "GET", "/account/keys", &Value::Null).await.refused(403, "insufficient_scope");
    let id = refused.header("x-request-id").unwrap();
    let told = mall.shop.gateway.cli(&["explain", id, "--output", "json"]).await.success().json();
    let names = ["status", "code", "missing_scopes", "key_id", "path", "route"];
    assert_eq!(
        names.map(|name| told["request"][name].clone()),
        [
            json!(403),
            json!("insufficient_scope"),
            json!(["keys:manage", "keys:look"]),
            json!(plain.id),
            json!("/account/keys"),
            json!("/account/**"),
        ]
    );
    let line = mall.shop.gateway.access_line(&refused).await;
    assert_eq!(line["missing_scopes"], json!(["keys:manage", "keys:look"]), "the application's own names");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_customer_keeps_nobody_else_out() {
    let mall = Mall::open().await;
    let noisy = mall.key(json!({ "owner": mall.acme, "scopes": ["keys:manage"] })).await;
    let other = mall.key(json!({ "scopes": ["keys:manage"] })).await;
    // Bodies that do not end hold places: more of them than one owner has.
    let mut held = Vec::new();
    for _ in 0..16 {
        let (call, feed) = mall.ask(&noisy, "POST", "/account/keys", &Value::Null).fed();
        let asking = tokio::spawn(call.header("content-type", "application/json").attempt());
        let _wanted = feed.send("{").await;
        held.push((asking, feed));
    }
    let refused = || held.iter().filter(|(asking, _)| asking.is_finished()).count();
    portcullis_testkit::eventually!("half of them are refused", refused() == 8);
    mall.ask(&noisy, "GET", "/account/keys/self", &Value::Null).await.expect(503);
    mall.ask(&other, "GET", "/account/keys/self", &Value::Null).await.expect(200);
    held.iter().for_each(|(asking, _)| asking.abort());
    drop(held);
    portcullis_testkit::eventually!(
        "places are given back",
        mall.ask(&noisy, "GET", "/account/keys/self", &Value::Null).await.status == 200
    );
}
