//! The life of a key over the API.

use std::time::Duration;

use portcullis_testkit::{Facts, eventually};
use serde_json::{Value, json};

use super::Shop;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_shown_once_works_at_once_and_is_refused_as_soon_as_it_is_revoked() {
    let shop = Shop::open().await;
    let answer = shop.tell("POST", "/v1/keys", &json!({ "name": "erp", "scopes": ["read:orders"] })).await.expect(201);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let location = answer.header("location").unwrap().to_owned();
    let tag = answer.header("etag").unwrap().to_owned();
    let key = shop.taken(answer);
    assert_eq!(location, format!("/v1/keys/{}", key.id));
    assert!(key.text.starts_with(&key.prefix) && key.record["created_at"].is_string());
    shop.gateway.get("/v1/orders/7").bearer(&key).await.expect(200);

    let shown = shop.tell("GET", &location, &Value::Null).watching(shop.gateway.site().vault()).await.expect(200);
    assert_eq!(shown.header("etag"), Some(tag.as_str()));
    assert_eq!(shown.json()["name"], "erp");
    assert!(shown.json().get("key").is_none());
    let list =
        shop.tell("GET", "/v1/keys", &Value::Null).watching(shop.gateway.site().vault()).await.expect(200).json();
    let ids: Vec<&str> = list["data"].as_array().unwrap().iter().map(|key| key["id"].as_str().unwrap()).collect();
    assert!(ids.contains(&key.id.as_str()) && list["next_cursor"].is_null(), "{list}");

    let gone = shop.tell("DELETE", &location, &Value::Null).await.expect(200).json();
    assert_eq!(gone["state"], "revoked");
    shop.gateway.get("/v1/orders/7").bearer(&key).await.refused(401, "invalid_key");
    let again = shop.tell("DELETE", &location, &Value::Null).await.expect(200).json();
    assert_eq!(again["revision"], gone["revision"], "doing it again changes nothing");
    shop.tell("POST", &format!("{location}/enable"), &Value::Null).await.refused(409, "conflict");
    shop.tell("PATCH", &location, &json!({ "name": "back" })).await.refused(409, "conflict");
    shop.tell("POST", &format!("{location}/rotate"), &Value::Null).await.refused(409, "conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_in_force_when_it_is_answered_and_says_what_it_left_alone() {
    let shop = Shop::open().await;
    let key = shop.make(json!({ "name": "erp", "scopes": ["read:orders"], "metadata": { "team": "a" } })).await;
    let path = format!("/v1/keys/{}", key.id);
    shop.gateway.post("/v1/orders/7").bearer(&key).await.refused(403, "insufficient_scope");
    let after =
        shop.tell("PATCH", &path, &json!({ "scopes": ["read:orders", "write:orders"] })).await.expect(200).json();
    assert_eq!((&after["name"], &after["metadata"]["team"]), (&json!("erp"), &json!("a")));
    shop.gateway.post("/v1/orders/7").bearer(&key).await.expect(200);

    shop.tell("POST", &format!("{path}/disable"), &Value::Null).await.expect(200);
    shop.gateway.get("/v1/orders/7").bearer(&key).await.refused(401, "invalid_key");
    shop.tell("POST", &format!("{path}/enable"), &Value::Null).await.expect(200);
    shop.gateway.get("/v1/orders/7").bearer(&key).await.expect(200);
    shop.tell("PATCH", &path, &json!({ "active": false })).await.expect(200);
    shop.gateway.get("/v1/orders/7").bearer(&key).await.refused(401, "invalid_key");
    shop.tell("PATCH", &path, &json!({ "active": true, "allowed_ips": ["10.0.0.0/8"] })).await.expect(200);
    shop.gateway.get("/v1/orders/7").bearer(&key).await.refused(403, "ip_not_allowed");
    let bounded = shop
        .tell("PATCH", &path, &json!({ "allowed_ips": [], "expires_at": "2999-01-01T00:00:00Z" }))
        .await
        .expect(200);
    assert_eq!(bounded.json()["expires_at"], "2999-01-01T00:00:00.000Z");
    let unbounded = shop.tell("PATCH", &path, &json!({ "expires_at": null })).await.expect(200).json();
    assert!(unbounded["expires_at"].is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_change_what_they_read_one_is_told_to_read_again() {
    let shop = Shop::open().await;
    let key = shop.make(json!({ "name": "erp" })).await;
    let path = format!("/v1/keys/{}", key.id);
    let tag = shop.tell("GET", &path, &Value::Null).await.header("etag").unwrap().to_owned();
    let rename = |name: &str| shop.tell("PATCH", &path, &json!({ "name": name })).header("if-match", &tag);
    let renamed = rename("first").await.expect(200);
    assert_ne!(renamed.header("etag"), Some(tag.as_str()));
    rename("second").await.refused(412, "precondition_failed");
    shop.tell("PATCH", &path, &json!({ "name": "x" }))
        .header("if-match", "W/\"1\"")
        .await
        .refused(412, "precondition_failed");
    shop.tell("PATCH", &path, &json!({ "name": "any" })).header("if-match", "*").await.expect(200);
    // Nor does anything else happen to a record that is not as it was read.
    for (method, verb) in
        [("DELETE", ""), ("POST", "/disable"), ("POST", "/enable"), ("POST", "/rotate"), ("POST", "/secret")]
    {
        let change = shop.tell(method, &format!("{path}{verb}"), &Value::Null).header("if-match", &tag);
        change.await.refused(412, "precondition_failed");
    }
    shop.tell("POST", "/v1/keys", &json!({ "name": "new" }))
        .header("if-match", &tag)
        .await
        .refused(412, "precondition_failed");
    shop.gateway.get("/me").bearer(&key).await.expect(200);
    // Using a key does not change its record.
    shop.gateway.get("/me").bearer(&key).await.expect(200);
    let now = shop.tell("GET", &path, &Value::Null).await.expect(200);
    assert_eq!(now.json()["name"], "any");
    // An answer that was lost is given again, although the record is another one since.
    let tag = now.header("etag").unwrap().to_owned();
    let rotate = || {
        let ask = shop.tell("POST", &format!("{path}/rotate"), &Value::Null);
        ask.header("if-match", &tag).header("idempotency-key", "once")
    };
    let (first, again) = (rotate().await.expect(201), rotate().await.expect(201));
    assert_eq!(first.text(), again.text());
    let new = shop.taken(first);
    let path = format!("/v1/keys/{}", new.id);
    let tag = new.record["revision"].to_string();
    let revoke = shop.tell("DELETE", &path, &Value::Null).header("if-match", &format!("\"{tag}\""));
    assert_eq!(revoke.await.expect(200).json()["state"], "revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_leaves_no_gap_and_ends_when_it_says() {
    let shop = Shop::open().await;
    let old = shop.make(json!({ "name": "erp", "scopes": ["read:orders"], "metadata": { "a": 1 } })).await;
    let new = shop.tell("POST", &format!("/v1/keys/{}/rotate", old.id), &json!({ "grace": "3s" })).await.expect(201);
    let new = shop.taken(new);
    assert_eq!((&new.record["replaces"], &new.record["metadata"]["a"]), (&json!(old.id), &json!(1)));
    let until =
        shop.tell("GET", &format!("/v1/keys/{}", old.id), &Value::Null).await.expect(200).json()["grace_until"].take();
    assert!(until.as_str().unwrap().ends_with(".000Z"), "a whole second, as the gateway counts: {until}");
    shop.gateway.get("/v1/orders/7").bearer(&old).await.expect(200);
    shop.gateway.get("/v1/orders/7").bearer(&new).await.expect(200);
    eventually!(
        "the grace ends",
        shop.gateway.get("/v1/orders/7").bearer(&old).attempt().await.is_ok_and(|answer| answer.status == 401)
    );
    shop.gateway.get("/v1/orders/7").bearer(&new).await.expect(200);
    shop.tell("POST", &format!("/v1/keys/{}/rotate", old.id), &Value::Null).await.refused(409, "conflict");
    let at_once = shop.tell("POST", &format!("/v1/keys/{}/rotate", new.id), &json!({ "grace": "0" })).await.expect(201);
    let newest = shop.taken(at_once);
    shop.gateway.get("/v1/orders/7").bearer(&new).await.refused(401, "invalid_key");
    shop.gateway.get("/v1/orders/7").bearer(&newest).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grace_lengthens_no_life() {
    let sections = "environments: { live: { max_key_age: 2d }, test: {} }";
    let shop = Shop::open_with("", sections).await;
    let old = shop.make(json!({ "name": "erp", "expires_at": "2099-01-01T00:00:00Z" })).await;
    let rotate =
        shop.tell("POST", &format!("/v1/keys/{}/rotate", old.id), &json!({ "grace": "90d", "expires_at": null }));
    let new = shop.taken(rotate.await.expect(201));
    assert_eq!(new.record["expires_at"], Value::Null);
    let until = shop.show(&old).await["grace_until"].as_str().unwrap().to_owned();
    let made = old.record["created_at"].as_str().unwrap();
    assert!(until.as_str() > made && until.as_str() < "2099", "{until} is two days after {made}");
    let days = |text: &str| text[8..10].parse::<i32>().unwrap();
    assert!([2, -29, -28, -27, -26].contains(&(days(&until) - days(made))), "{until} is two days after {made}");
    assert_eq!(until[10..], made[10..], "{until} is two days after {made}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_use_of_a_successor_can_end_the_grace() {
    let shop = Shop::open().await;
    let old = shop.make(json!({ "name": "erp", "scopes": ["read:orders"] })).await;
    let path = format!("/v1/keys/{}/rotate", old.id);
    let new = shop.tell("POST", &path, &json!({ "grace": "24h", "retire": "on_first_use" })).await.expect(201);
    let new = shop.taken(new);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    shop.gateway.get("/v1/orders/7").bearer(&old).await.expect(200);
    shop.gateway.get("/v1/orders/7").bearer(&new).await.expect(200);
    eventually!(
        "the old key is refused",
        shop.gateway.get("/v1/orders/7").bearer(&old).attempt().await.is_ok_and(|answer| answer.status == 401)
    );
    shop.gateway.get("/v1/orders/7").bearer(&new).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_replaced_and_the_id_stays() {
    let shop = Shop::open().await;
    let key = shop.make(json!({ "name": "erp", "scopes": ["read:orders"] })).await;
    let fresh = shop.tell("POST", &format!("/v1/keys/{}/secret", key.id), &Value::Null).await.expect(201);
    let fresh = shop.taken(fresh);
    assert_eq!(fresh.id, key.id);
    shop.gateway.get("/v1/orders/7").bearer(&key).await.refused(401, "invalid_key");
    shop.gateway.get("/v1/orders/7").bearer(&fresh).await.expect(200);
    assert!(shop.origin.last().header("x-portcullis-key-id").unwrap() == key.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_lost_can_be_asked_for_again() {
    let shop = Shop::open().await;
    let create = |body: Value, key: &str| shop.tell("POST", "/v1/keys", &body).header("idempotency-key", key);
    let body = json!({ "name": "once", "scopes": ["read:orders"] });
    let first = create(body.clone(), "abc").await.expect(201);
    let (etag, text) = (first.header("etag").unwrap().to_owned(), first.text());
    let again = create(body.clone(), "abc").await.expect(201);
    assert_eq!((again.header("etag").unwrap(), again.text()), (etag.as_str(), text), "to the byte");
    let key = shop.taken(again);
    shop.gateway.get("/v1/orders/7").bearer(&key).await.expect(200);
    create(json!({ "name": "other" }), "abc").await.refused(422, "idempotency_key_reused");
    let other = shop.taken(create(body.clone(), "abd").await.expect(201));
    assert_ne!(other.id, key.id);
    create(body.clone(), "").await.refused(400, "invalid_field");
    create(body.clone(), &"x".repeat(256)).await.refused(400, "invalid_field");

    // Many at once under one name make one key.
    let many: Vec<_> = (0..16).map(|_| tokio::spawn(create(body.clone(), "many").into_future())).collect();
    let mut ids = Vec::new();
    for answer in many {
        ids.push(answer.await.unwrap().expect(201).json()["id"].as_str().unwrap().to_owned());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");

    // Somebody else's answer is not given out.
    let second = shop.taken(
        shop.tell(
            "POST",
            "/v1/keys",
            &json!({ "name": "op 2", "kind": "management", "scopes": ["portcullis:keys"], "may_grant": ["*"] }),
        )
        .await
        .expect(201),
    );
    let theirs = shop.tell_as(&second, "POST", "/v1/keys", &body).header("idempotency-key", "abc").await.expect(201);
    assert_ne!(shop.taken(theirs).id, key.id);

    let path = format!("/v1/keys/{}/rotate", key.id);
    let rotate = || shop.tell("POST", &path, &json!({ "grace": "1h" })).header("idempotency-key", "rot");
    let (one, two) = (rotate().await.expect(201).text(), rotate().await.expect(201).text());
    assert_eq!(one, two);
    let on_disk = shop.gateway.site().vault().find_below(shop.gateway.site().directory());
    assert!(on_disk.is_empty(), "secrets are on the disk: {on_disk:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_filtered_and_paged_without_gap_or_overlap() {
    let shop = Shop::open().await;
    for number in 0..7 {
        let kind = if number % 2 == 0 { "secret" } else { "publishable" };
        let scopes = if number < 3 { json!(["write:orders"]) } else { json!(["read:orders"]) };
        let environment = if number == 6 { "test" } else { "live" };
        let body = json!({ "name": format!("k{number}"), "kind": kind, "scopes": scopes, "environment": environment });
        shop.make(body).await;
    }
    let names = async |query: &str| -> Vec<String> {
        let mut names = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = shop.tell("GET", &format!("/v1/keys?{query}{cursor}"), &Value::Null).await.expect(200).json();
            names.extend(page["data"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return names,
            }
        }
    };
    for limit in [1, 3, 100] {
        let all = names(&format!("limit={limit}")).await;
        assert_eq!(all, ["operator", "k0", "k1", "k2", "k3", "k4", "k5", "k6"], "limit {limit}");
        assert_eq!(names(&format!("limit={limit}&kind=publishable")).await, ["k1", "k3", "k5"]);
        assert_eq!(names(&format!("limit={limit}&scope=write:orders")).await, ["k0", "k1", "k2"]);
        assert_eq!(names(&format!("limit={limit}&environment=test")).await, ["k6"]);
    }
    assert_eq!(names("name=k4").await, ["k4"]);
    let unused = names("unused_since=2999-01-01T00:00:00Z&kind=secret&state=active").await;
    assert_eq!(unused, ["k0", "k2", "k4", "k6"], "{unused:?}");
    assert!(names("unused_since=2001-01-01T00:00:00Z").await.is_empty());
    assert!(names("unused_since=1h").await.is_empty());
    assert_eq!(names("unused_since=0s&kind=publishable").await, ["k1", "k3", "k5"]);
    for (key, verb) in [("k4", "disable"), ("k5", "")] {
        let list = shop.tell("GET", &format!("/v1/keys?name={key}"), &Value::Null).await.expect(200).json();
        let path = format!("/v1/keys/{}", list["data"][0]["id"].as_str().unwrap());
        let (method, path) = if verb.is_empty() { ("DELETE", path) } else { ("POST", format!("{path}/{verb}")) };
        shop.tell(method, &path, &Value::Null).await.expect(200);
    }
    for limit in [1, 100] {
        assert_eq!(names(&format!("limit={limit}&state=disabled,revoked")).await, ["k4", "k5"]);
        let rest = names(&format!("limit={limit}&state=active,disabled,expired")).await;
        assert_eq!(rest, ["operator", "k0", "k1", "k2", "k3", "k4", "k6"]);
    }
    let listed = shop.gateway.cli(&["keys", "list", "--state", "disabled,revoked", "--output", "json"]).await.success();
    assert_eq!(listed.json().as_array().unwrap().len(), 2);
    for (query, field, meant) in
        [("environment=tset", "environment", "test"), ("scope=raed:orders&kind=publishable", "scope", "read:orders")]
    {
        let refused = shop.tell("GET", &format!("/v1/keys?{query}"), &Value::Null).await.refused(422, "invalid_value");
        let told = refused.json();
        assert!(told["field"] == field && told["detail"].as_str().unwrap().contains(meant), "{told}");
    }
    let _ = shop.gateway.cli(&["keys", "list", "--environment", "tset"]).await.exit(2).says(&["test"]);
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("kind=x", "kind"),
        ("state=x", "state"),
        ("state=active,", "state"),
        ("cursor=x", "cursor"),
        ("owner=x", "owner"),
        ("sate=active", "sate"),
        ("limit=1&limit=2", "limit"),
        ("unused_since=yesterday", "unused_since"),
        ("scope=a%20b", "scope"),
    ] {
        let refused = shop.tell("GET", &format!("/v1/keys?{query}"), &Value::Null).await.refused(400, "invalid_field");
        assert_eq!(refused.json()["field"], field, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_by_the_name_of_its_field() {
    let shop = Shop::open().await;
    let long = "x".repeat(201);
    for (body, status, field) in [
        (json!({}), 400, "name"),
        (json!({ "name": "" }), 422, "name"),
        (json!({ "name": 7 }), 400, "name"),
        (json!({ "name": "a\u{7}b" }), 422, "name"),
        (json!({ "name": long }), 422, "name"),
        (json!({ "name": "x", "nmae": "x" }), 400, "nmae"),
        (json!({ "name": "x", "description": "x".repeat(2001) }), 422, "description"),
        (json!({ "name": "x", "scopes": ["raed:orders"] }), 422, "scopes"),
        (json!({ "name": "x", "scopes": "read:orders" }), 400, "scopes"),
        (json!({ "name": "x", "scopes": [1] }), 400, "scopes[0]"),
        (json!({ "name": "x", "scopes": ["portcullis:keys"] }), 422, "scopes"),
        (json!({ "name": "x", "scopes": vec!["read:orders*"; 201] }), 422, "scopes"),
        (json!({ "name": "x", "roles": ["nobody"] }), 422, "roles"),
        (json!({ "name": "x", "environment": "prod" }), 422, "environment"),
        (json!({ "name": "x", "kind": "public" }), 400, "kind"),
        (json!({ "name": "x", "may_grant": ["read:orders"] }), 422, "may_grant"),
        (json!({ "name": "x", "owner": "own_x" }), 422, "owner"),
        (json!({ "name": "x", "owner": format!("own_{}", "0".repeat(32)) }), 422, "owner"),
        (json!({ "name": "x", "expires_at": "tomorrow" }), 422, "expires_at"),
        (json!({ "name": "x", "expires_at": 7 }), 400, "expires_at"),
        (json!({ "name": "x", "expires_at": "2001-01-01T00:00:00Z" }), 422, "expires_at"),
        (json!({ "name": "x", "allowed_ips": ["10.0.0.0/33"] }), 422, "allowed_ips"),
        (json!({ "name": "x", "allowed_origins": ["https://a.example"] }), 422, "allowed_origins"),
        (
            json!({ "name": "x", "kind": "publishable", "allowed_origins": ["https://a.example/"] }),
            422,
            "allowed_origins",
        ),
        (json!({ "name": "x", "rate_limit": { "requests": 0, "per": "1s" } }), 422, "rate_limit"),
        (json!({ "name": "x", "rate_limit": { "requests": 1.5, "per": "1s" } }), 400, "rate_limit.requests"),
        (json!({ "name": "x", "rate_limit": { "requests": 1, "per": "1s", "by": "key" } }), 400, "by"),
        (json!({ "name": "x", "rate_limit": [5, "1s", 5] }), 400, "rate_limit"),
        (json!({ "name": "x", "quota": {} }), 422, "quota"),
        (json!({ "name": "x", "quota": [5, 6] }), 400, "quota"),
        (json!({ "name": "x", "metadata": { "a": "x".repeat(9000) } }), 422, "metadata"),
        (json!({ "name": "x", "metadata": [] }), 400, "metadata"),
    ] {
        let code = if status == 400 { "invalid_field" } else { "invalid_value" };
        let answer = shop.tell("POST", "/v1/keys", &body).await.refused(status, code).json();
        assert_eq!(answer["field"], field, "{body} -> {answer}");
    }
    shop.tell("POST", "/v1/keys", &json!(["x"])).await.refused(400, "invalid_field");
    shop.tell("POST", "/v1/config/reload", &json!([])).await.refused(400, "invalid_field");
    let whole = json!({ "name": "x", "rate_limit": { "requests": 5.0, "per": "1s" } });
    assert_eq!(shop.make(whole).await.record["rate_limit"]["requests"], 5);
    let key = shop.make(json!({ "name": "x" })).await;
    let path = format!("/v1/keys/{}", key.id);
    for (body, field) in [
        (json!({ "name": null }), "name"),
        (json!({ "id": "x" }), "id"),
        (json!({ "environment": "test" }), "environment"),
        (json!({ "kind": "secret" }), "kind"),
        (json!({ "hash": "x" }), "hash"),
        (json!({ "active": "yes" }), "active"),
    ] {
        let answer = shop.tell("PATCH", &path, &body).await.refused(400, "invalid_field").json();
        assert_eq!(answer["field"], field, "{body} -> {answer}");
    }
    let rotate = |body: Value| shop.tell("POST", &format!("{path}/rotate"), &body);
    for grace in ["1", "soon", "91d", "-1s"] {
        assert_eq!(rotate(json!({ "grace": grace })).await.refused(422, "invalid_value").json()["field"], "grace");
    }
    let post = |kind: &str, body: &str| {
        shop.ask("POST", "/v1/keys").bearer(&shop.operator).header("content-type", kind).body(body.to_owned())
    };
    post("text/plain", "{}").await.refused(415, "unsupported_media_type");
    for odd in ["", "{", "[]", "null", "{} {}", "{\"name\":\"x\",\"name\":\"y\"}"] {
        post("application/json", odd).await.refused(400, "invalid_field");
    }
    post("application/json; charset=utf-8", "{\"name\":\"fine\"}").await.expect(201);
    post("application/json", &format!("{{\"name\":\"{}\"}}", "x".repeat(1 << 20))).await.refused(413, "body_too_large");
    for id in ["x", "key_0", "key_ABCDEF00000000000000000000000000"] {
        shop.tell("GET", &format!("/v1/keys/{id}"), &Value::Null).await.refused(404, "not_found");
    }
    shop.tell("PUT", "/v1/keys", &Value::Null).await.refused(405, "method_not_allowed");
    shop.tell("GET", "/v1/nothing", &Value::Null).await.refused(404, "no_route");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_can_ask_whether_a_key_is_accepted() {
    let shop = Shop::open().await;
    let key = shop.make(json!({ "name": "x", "scopes": ["read:orders"] })).await;
    let verify = |text: &str, scopes: Value| {
        shop.tell("POST", "/v1/keys/verify", &json!({ "key": text, "scopes": scopes }))
            .watching(shop.gateway.site().vault())
    };
    let good = verify(&key.text, json!(["read:orders"])).await.expect(200).json();
    assert_eq!((&good["valid"], &good["record"]["id"]), (&json!(true), &json!(key.id)));
    let lacking = verify(&key.text, json!(["read:orders", "write:orders"])).await.expect(200).json();
    assert_eq!((&lacking["valid"], &lacking["missing_scopes"]), (&json!(false), &json!(["write:orders"])));
    assert_eq!(lacking["reason"], "insufficient_scope");
    assert_eq!(good["reason"], Value::Null);
    shop.tell("DELETE", &format!("/v1/keys/{}", key.id), &Value::Null).await.expect(200);
    let revoked = verify(&key.text, json!([])).await.expect(200).json();
    assert_eq!((&revoked["valid"], &revoked["reason"]), (&json!(false), &json!("key_revoked")));
    let unknown = verify("who-knows", json!([])).await.expect(200).json();
    assert_eq!(
        (&unknown["valid"], &unknown["reason"], &unknown["record"]),
        (&json!(false), &json!("unknown_key"), &Value::Null)
    );
    verify("a b", json!([])).await.refused(400, "invalid_field");
}

#[tokio::test(flavor = "multi_thread")]
async fn shops_that_answer_success_get_bodies_of_that_shape() {
    let shop = Shop::open_with("", "api: { profile: success }\nroles: { clerk: [read:orders] }").await;
    let body = json!({ "name": "Production API Key", "environment": "live", "permissions": ["read:orders"] });
    let create = shop.tell("POST", "/v1/keys", &body).facts(Facts::success_profile());
    let answer = create.await.expect(201).json();
    assert_eq!((&answer["success"], &answer["data"]["permissions"]), (&json!(true), &json!(["read:orders"])));
    assert!(answer["data"].get("scopes").is_none() && answer["data"]["key"].is_string(), "{answer}");
    let list = shop.tell("GET", "/v1/keys", &Value::Null).await.expect(200).json();
    assert!(list["data"]["keys"].as_array().unwrap().iter().all(|key| key["permissions"].is_array()), "{list}");
    let path = format!("/v1/keys/{}", answer["data"]["id"].as_str().unwrap());
    let gone = shop.tell("DELETE", &path, &Value::Null).await.expect(200).json();
    assert_eq!(gone["data"]["message"], "API key revoked successfully");
    let refused = shop.tell("POST", "/v1/keys", &json!({})).facts(Facts::success_profile()).await.expect(400).json();
    assert_eq!((&refused["success"], &refused["error"]["code"]), (&json!(false), &json!("invalid_field")));

    // Nothing is called scopes, wherever it stands; what people named stays.
    let body = json!({ "name": "clerk", "permissions": ["read:orders"], "metadata": { "scopes": "mine" } });
    let made = shop.tell("POST", "/v1/keys", &body).facts(Facts::success_profile()).await.expect(201).json();
    let (id, text) = (made["data"]["id"].as_str().unwrap(), made["data"]["key"].as_str().unwrap());
    assert_eq!(made["data"]["metadata"], json!({ "scopes": "mine" }));
    let success = async |method: &str, target: &str, body: Value| {
        let call = shop.tell(method, target, &body).facts(Facts::success_profile());
        call.await.json()
    };
    let asked = json!({ "key": text, "permissions": ["read:orders", "write:orders"] });
    let call = shop.tell("POST", "/v1/keys/verify", &asked).facts(Facts::success_profile());
    let verified = call.await.expect(200).json()["data"].take();
    assert_eq!(verified["missing_permissions"], json!(["write:orders"]), "{verified}");
    assert_eq!(verified["record"]["permissions"], json!(["read:orders"]), "{verified}");
    let known = success("GET", "/v1/scopes", Value::Null).await;
    assert!(known["data"]["permissions"].is_array() && known["data"]["roles"][0]["permissions"].is_array(), "{known}");
    let asked = json!({ "method": "POST", "url": "/v1/orders/7", "permissions": ["read:orders"] });
    let explained = success("POST", "/v1/explain", asked).await;
    assert_eq!(explained["data"]["missing_permissions"], json!(["write:orders"]), "{explained}");
    let trail = success("GET", &format!("/v1/audit?subject={id}"), Value::Null).await;
    assert_eq!(trail["data"]["entries"][0]["after"]["permissions"], json!(["read:orders"]), "{trail}");
    for query in ["permission=read:orders", "scope=read:orders"] {
        let list = success("GET", &format!("/v1/keys?{query}&name=clerk"), Value::Null).await;
        assert_eq!(list["data"]["keys"][0]["id"], id, "{query}");
    }
    for (body, field) in [
        (json!({ "name": "x", "permissions": ["raed:orders"] }), "permissions"),
        (json!({ "name": "x", "permissions": [1] }), "permissions[0]"),
    ] {
        let refused = success("POST", "/v1/keys", body).await;
        assert_eq!(refused["error"]["field"], field, "{refused}");
    }
    let refused = success("GET", "/v1/keys?permision=x", Value::Null).await;
    assert!(refused["error"]["message"].as_str().unwrap().contains("`permission`"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_was_not_done() {
    let shop = Shop::open().await;
    let key = shop.make(json!({ "name": "erp", "scopes": ["read:orders"] })).await;
    let path = format!("/v1/keys/{}", key.id);
    shop.tell("DELETE", &format!("{path}?dry_run=1"), &Value::Null).await.refused(400, "invalid_field");
    shop.tell("PATCH", &format!("{path}?x=1"), &json!({ "active": false })).await.refused(400, "invalid_field");
    shop.gateway.get("/v1/orders/7").bearer(&key).await.expect(200);
    let many: String = (0..40).map(|number| format!("p{number}=1&")).collect();
    shop.ask("GET", &format!("/v1/openapi.json?{many}")).await.refused(400, "invalid_field");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_the_place_of_an_id_reaches_no_log() {
    let shop = Shop::open().await;
    let key = shop.make(json!({ "name": "erp" })).await;
    let answer = shop.tell("DELETE", &format!("/v1/keys/{}", key.text), &Value::Null);
    answer.watching(shop.gateway.site().vault()).await.refused(404, "not_found");
    shop.tell("POST", &format!("/v1/keys/{}/disable", key.id), &Value::Null).await.expect(200);
    eventually!("the second request is logged", shop.gateway.logs().text().contains(&key.id));
    assert!(!shop.gateway.logs().text().contains(&key.text));
}

#[tokio::test(flavor = "multi_thread")]
async fn management_keys_are_used_too() {
    let shop = Shop::open_with("", "sync: { last_used_flush: 1s }").await;
    let used = async || shop.show(&shop.operator).await["last_used_at"].is_string();
    eventually!("the operator's last use is noted", used().await);
}
