//! Who may do what: every kind of caller at every endpoint, and every way to climb.
//!
//! `tests/data/authority.tsv` is the table: a line an endpoint, a column an actor, the status in the cell;
//! `tests/data/authority-self-service.tsv` is that of a route which leads to the same endpoints.

use portcullis_testkit::{Call, Key};
use serde_json::{Value, json};

use super::{ALL, Shop};

/// The table as it is committed.
const TABLE: &str = include_str!("../../data/authority.tsv");

/// The table of a route with self-service, in which the columns are other actors.
const ROUTE_TABLE: &str = include_str!("../../data/authority-self-service.tsv");

/// Everybody who may call.
struct Cast {
    shop: Shop,
    acme: String,
    rival: String,
    actors: Vec<(&'static str, Option<Key>)>,
}

impl Cast {
    async fn gather() -> Self {
        let shop = Shop::open_with(super::self_service::ROUTE, "").await;
        let owner = async |name: &str| -> String {
            let made = shop.tell("POST", "/v1/owners", &json!({ "name": name })).await.expect(201);
            made.json()["id"].as_str().unwrap().to_owned()
        };
        let (acme, rival) = (owner("ACME").await, owner("rival").await);
        let management = async |owner: Option<&str>, scopes: &[&str], may_grant: &[&str]| {
            let body = json!({ "name": "actor", "kind": "management", "owner": owner, "scopes": scopes, "may_grant": may_grant });
            shop.make(body).await
        };
        let all: Vec<&str> = ALL.split(',').collect();
        let actors = vec![
            ("nobody", None),
            ("operator", Some(management(None, &all, &["*"]).await)),
            ("reader", Some(management(None, &["portcullis:keys:read"], &[]).await)),
            ("verifier", Some(management(None, &["portcullis:verify"], &[]).await)),
            ("bare", Some(management(None, &[], &[]).await)),
            ("owner", Some(management(Some(&acme), &["portcullis:keys"], &["read:orders"]).await)),
            ("auditor", Some(management(Some(&acme), &["portcullis:usage"], &[]).await)),
            ("secret", Some(shop.make(json!({ "name": "data", "scopes": ["read:orders"] })).await)),
        ];
        Self { shop, acme, rival, actors }
    }

    async fn victim(&self, owner: Option<&str>) -> Key {
        self.shop.make(json!({ "name": "victim", "owner": owner, "scopes": ["read:orders"] })).await
    }
}

/// Method, path, body and whose record it is about.
const ASKED: [(&str, &str, &str, &str); 41] = [
    ("GET", "/v1/keys", "", ""),
    ("POST", "/v1/keys", r#"{"name":"n","scopes":["read:orders"]}"#, ""),
    ("GET", "/v1/keys/{id}", "", "operators"),
    ("GET", "/v1/keys/{id}", "", "acme"),
    ("GET", "/v1/keys/{id}", "", "rival"),
    ("PATCH", "/v1/keys/{id}", r#"{"name":"n"}"#, "operators"),
    ("PATCH", "/v1/keys/{id}", r#"{"name":"n"}"#, "acme"),
    ("PATCH", "/v1/keys/{id}", r#"{"name":"n"}"#, "rival"),
    ("PATCH", "/v1/keys/{id}", r#"{"rate_limit":null}"#, "acme"),
    ("POST", "/v1/keys/{id}/rotate", "{}", "operators"),
    ("POST", "/v1/keys/{id}/rotate", "{}", "acme"),
    ("POST", "/v1/keys/{id}/rotate", "{}", "rival"),
    ("POST", "/v1/keys/{id}/secret", "", "acme"),
    ("POST", "/v1/keys/{id}/secret", "", "rival"),
    ("POST", "/v1/keys/{id}/disable", "", "acme"),
    ("POST", "/v1/keys/{id}/disable", "", "rival"),
    ("POST", "/v1/keys/{id}/enable", "", "acme"),
    ("POST", "/v1/keys/{id}/enable", "", "rival"),
    ("DELETE", "/v1/keys/{id}", "", "acme"),
    ("DELETE", "/v1/keys/{id}", "", "rival"),
    ("POST", "/v1/keys/verify", r#"{"key":"x"}"#, ""),
    (
        "POST",
        "/v1/keys/import?dry_run=true",
        r#"[{"name":"n","scopes":["read:orders"],"hash":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}]"#,
        "",
    ),
    ("GET", "/v1/keys/self", "", ""),
    ("GET", "/v1/owners", "", ""),
    ("POST", "/v1/owners", r#"{"name":"n"}"#, ""),
    ("GET", "/v1/owners/{id}", "", "rival"),
    ("PATCH", "/v1/owners/{id}", r#"{"max_keys":null}"#, "acme"),
    ("POST", "/v1/owners/{id}/suspend", "", "rival"),
    ("GET", "/v1/keys/{id}/usage", "", "operators"),
    ("GET", "/v1/keys/{id}/usage", "", "acme"),
    ("GET", "/v1/keys/{id}/usage", "", "rival"),
    ("GET", "/v1/usage/report", "", ""),
    ("GET", "/v1/scopes", "", ""),
    ("GET", "/v1/audit", "", ""),
    ("GET", "/v1/requests/{id}", "", ""),
    ("GET", "/v1/routes", "", ""),
    ("POST", "/v1/explain", r#"{"method":"GET","url":"/"}"#, ""),
    ("POST", "/v1/config/reload", "{}", ""),
    ("GET", "/v1/nodes", "", ""),
    ("DELETE", "/v1/nodes/{id}", "", "operators"),
    ("GET", "/v1/status", "", ""),
];

/// What each actor is answered by each endpoint, as `ask` reaches it.
async fn table(cast: &Cast, actors: &[(&str, Option<Key>)], ask: impl Fn(&str, &str) -> Call) -> String {
    let mut found = String::from("endpoint\tabout");
    for (name, _) in actors {
        found.push('\t');
        found.push_str(name);
    }
    found.push('\n');
    for (method, path, body, about) in ASKED {
        found.push_str(&format!("{method} {path} {body}\t{about}"));
        for (_, key) in actors {
            let owner = match about {
                "acme" => Some(cast.acme.as_str()),
                "rival" => Some(cast.rival.as_str()),
                _ => None,
            };
            let id = match path {
                path if path.starts_with("/v1/owners") => owner.unwrap_or_default().to_owned(),
                path if path.contains("{id}") => cast.victim(owner).await.id,
                _ => String::new(),
            };
            let mut call = ask(method, &path.replace("{id}", &id));
            if !body.is_empty() {
                call = call.header("content-type", "application/json").body(body);
            }
            if let Some(key) = key {
                call = call.bearer(key);
            }
            let answer = call.await;
            if answer.status == 201 && method == "POST" && path.starts_with("/v1/keys") {
                let _kept = cast.shop.taken(answer.clone());
            }
            found.push_str(&format!("\t{}", answer.status));
        }
        found.push('\n');
    }
    found
}

#[track_caller]
fn is_as_committed(found: &str, committed: &str, variable: &str) {
    if let Ok(path) = std::env::var(variable) {
        std::fs::write(path, found).unwrap();
    }
    assert_eq!(found, committed, "set {variable} to a file to look at what is found");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_actors_and_endpoints_is_what_it_was() {
    let cast = Cast::gather().await;
    let found = table(&cast, &cast.actors, |method, path| cast.shop.ask(method, path)).await;
    is_as_committed(&found, TABLE, "PORTCULLIS_TEST_WRITE_TABLE");
}

/// The same endpoints behind a route of the application, asked by its keys.
#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_a_route_with_self_service_is_what_it_was() {
    let cast = Cast::gather().await;
    let make = async |owner: Option<&str>, environment: &str, scopes: &[&str]| {
        let body = json!({ "name": "actor", "owner": owner, "environment": environment, "scopes": scopes });
        Some(cast.shop.make(body).await)
    };
    let acme = Some(cast.acme.as_str());
    let all = ["keys:manage", "read:orders"];
    let operator = cast.actors.iter().find(|(name, _)| *name == "operator").and_then(|(_, key)| key.clone());
    let actors = [
        ("nobody", None),
        ("operator", operator),
        ("manager", make(acme, "live", &all).await),
        ("looker", make(acme, "live", &["keys:look"]).await),
        ("plain", make(acme, "live", &["read:orders"]).await),
        ("test", make(acme, "test", &all).await),
        ("unowned", make(None, "live", &all).await),
    ];
    let data = cast.shop.gateway.data();
    let ask = |method: &str, path: &str| Call::to(data, method, &path.replacen("/v1", "/account", 1));
    let found = table(&cast, &actors, ask).await;
    is_as_committed(&found, ROUTE_TABLE, "PORTCULLIS_TEST_WRITE_ROUTE_TABLE");
}

/// A caller who holds and may grant `read:orders` alone, and everything that it might try to get `write:orders`.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_climbs() {
    let shop = Shop::open_with("", "roles: { clerk: [read:orders], writer: [write:orders] }").await;
    let made = shop.tell("POST", "/v1/owners", &json!({ "name": "ACME" })).await.expect(201).json();
    let acme = made["id"].as_str().unwrap();
    let bot =
        json!({ "name": "bot", "kind": "management", "scopes": ["portcullis:keys"], "may_grant": ["read:orders"] });
    let operator_bot = shop.make(bot.clone()).await;
    let mut owned = bot;
    owned["owner"] = json!(acme);
    let owner_bot = shop.make(owned).await;
    for bot in [&operator_bot, &owner_bot] {
        let owner = if bot.id == owner_bot.id { json!(acme) } else { Value::Null };
        let refused = |method: &'static str, path: String, body: Value| {
            let call = shop.tell_as(bot, method, &path, &body);
            async move {
                let answer = call.await;
                assert!(matches!(answer.status, 403 | 404 | 422), "{method} {path} {body}: {answer:?}");
            }
        };
        let low = shop.taken(
            shop.tell_as(bot, "POST", "/v1/keys", &json!({ "name": "low", "scopes": ["read:orders"] }))
                .await
                .expect(201),
        );
        for more in [
            json!({ "scopes": ["write:orders"] }),
            json!({ "scopes": ["read:orders", "write:orders"] }),
            json!({ "scopes": ["*"] }),
            json!({ "scopes": ["write:*"] }),
            json!({ "roles": ["writer"] }),
            json!({ "kind": "management", "scopes": ["portcullis:config"] }),
            json!({ "kind": "management", "scopes": ["portcullis:keys"], "may_grant": ["write:orders"] }),
            json!({ "kind": "management", "may_grant": ["*"] }),
        ] {
            let mut create = more.clone();
            create["name"] = json!("high");
            refused("POST", "/v1/keys".to_owned(), create).await;
            if more.get("kind").is_none() {
                refused("PATCH", format!("/v1/keys/{}", low.id), more).await;
            }
        }
        // A key of more power than the bot's, which it sees: it may switch it off, and not on, nor get hold of it.
        let high = shop.make(json!({ "name": "high", "owner": owner, "scopes": ["write:orders"], "allowed_ips": ["10.0.0.0/8"], "expires_at": "2999-01-01T00:00:00Z" })).await;
        let path = format!("/v1/keys/{}", high.id);
        refused("POST", format!("{path}/rotate"), json!({})).await;
        refused("POST", format!("{path}/secret"), Value::Null).await;
        refused("PATCH", path.clone(), json!({ "allowed_ips": [] })).await;
        refused("PATCH", path.clone(), json!({ "allowed_ips": ["0.0.0.0/0"] })).await;
        refused("PATCH", path.clone(), json!({ "expires_at": null })).await;
        refused("PATCH", path.clone(), json!({ "expires_at": "3000-01-01T00:00:00Z" })).await;
        shop.tell_as(bot, "PATCH", &path, &json!({ "name": "renamed", "allowed_ips": ["10.1.0.0/16"] }))
            .await
            .expect(200);
        shop.tell_as(bot, "POST", &format!("{path}/disable"), &Value::Null).await.expect(200);
        refused("POST", format!("{path}/enable"), Value::Null).await;
        refused("PATCH", path.clone(), json!({ "active": true })).await;
        // Its own key is not more to it than others.
        refused("PATCH", format!("/v1/keys/{}", bot.id), json!({ "may_grant": ["read:orders", "write:orders"] })).await;
        refused("PATCH", format!("/v1/keys/{}", bot.id), json!({ "scopes": ["portcullis:keys", "portcullis:config"] }))
            .await;
        let own = shop.tell_as(bot, "POST", "/v1/keys/self/rotate", &json!({})).await.expect(201);
        let successor = shop.taken(own);
        assert_eq!(successor.record["may_grant"], json!(["read:orders"]));
        // A role of what it may grant is fine.
        shop.tell_as(&successor, "POST", "/v1/keys", &json!({ "name": "clerk", "roles": ["clerk"] })).await.expect(201);
    }
    // What belongs to another owner is not there, by any way.
    let foreign = shop.make(json!({ "name": "foreign", "scopes": ["read:orders"] })).await;
    for (method, tail) in
        [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/rotate"), ("POST", "/secret"), ("POST", "/enable")]
    {
        let body = if method == "PATCH" { json!({ "name": "x" }) } else { Value::Null };
        let call = shop.tell_as(&owner_bot, method, &format!("/v1/keys/{}{tail}", foreign.id), &body);
        let answer = call.await;
        assert!(answer.status == 404, "{method} {tail}: {answer:?}");
    }
    let list = shop.tell_as(&owner_bot, "GET", "/v1/keys?limit=1000", &Value::Null).await.expect(200).json();
    assert!(list["data"].as_array().unwrap().iter().all(|key| key["owner"] == acme), "{list}");
    let verified = shop.tell("POST", "/v1/keys/verify", &json!({ "key": foreign.text })).await.expect(200).json();
    assert_eq!(verified["valid"], true);
    shop.gateway.get("/v1/orders/7").bearer(&foreign).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_operator_cannot_lock_everybody_out() {
    let shop = Shop::open().await;
    let path = format!("/v1/keys/{}", shop.operator.id);
    shop.tell("DELETE", &path, &Value::Null).await.refused(409, "conflict");
    shop.tell("POST", &format!("{path}/disable"), &Value::Null).await.refused(409, "conflict");
    shop.tell("PATCH", &path, &json!({ "scopes": ["portcullis:keys:read"] })).await.refused(409, "conflict");
    shop.tell("PATCH", &path, &json!({ "active": false })).await.refused(409, "conflict");
    // Nor be left with a key that is about to die, or that nobody can use.
    shop.tell("PATCH", &path, &json!({ "expires_at": "2999-01-01T00:00:00Z" })).await.refused(409, "conflict");
    shop.tell("PATCH", &path, &json!({ "allowed_ips": ["192.0.2.1/32"] })).await.refused(409, "conflict");
    let soon = json!({ "grace": "0", "expires_at": "2999-01-01T00:00:00Z" });
    shop.tell("POST", &format!("{path}/rotate"), &soon).await.refused(409, "conflict");
    let heir = json!({ "name": "heir", "kind": "management", "scopes": ["portcullis:keys"] });
    let heir = shop.make(heir).await;
    shop.tell("DELETE", &path, &Value::Null).await.expect(200);
    shop.tell_as(&heir, "DELETE", &format!("/v1/keys/{}", heir.id), &Value::Null).await.refused(409, "conflict");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_the_operators_to_set() {
    let shop = Shop::open().await;
    let acme = shop.tell("POST", "/v1/owners", &json!({ "name": "ACME" })).await.expect(201).json();
    let bot = shop
        .make(json!({ "name": "bot", "kind": "management", "owner": acme["id"], "scopes": ["portcullis:keys"] }))
        .await;
    let limit = json!({ "requests": 1_000_000, "per": "1s" });
    for body in
        [json!({ "name": "k", "rate_limit": limit }), json!({ "name": "k", "quota": { "per_day": 1_000_000_000 } })]
    {
        shop.tell_as(&bot, "POST", "/v1/keys", &body).await.refused(403, "operators_only");
        let key = shop.taken(shop.tell_as(&bot, "POST", "/v1/keys", &json!({ "name": "k" })).await.expect(201));
        let mut change = body;
        change.as_object_mut().unwrap().remove("name");
        shop.tell_as(&bot, "PATCH", &format!("/v1/keys/{}", key.id), &change).await.refused(403, "operators_only");
        shop.tell("PATCH", &format!("/v1/keys/{}", key.id), &change).await.expect(200);
    }
    let path = format!("/v1/owners/{}", acme["id"].as_str().unwrap());
    shop.tell_as(&bot, "PATCH", &path, &json!({ "max_keys": 9 })).await.refused(403, "operators_only");
    shop.tell_as(&bot, "GET", &path, &Value::Null).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_store_has_switched_off_manages_nothing_from_that_moment_on() {
    let shop = Shop::open().await;
    let thief = shop.make(json!({ "name": "stolen", "kind": "management", "scopes": ["portcullis:keys"] })).await;
    let _ = shop.gateway.cli(&["keys", "disable", &thief.id]).await.success();
    // At once: whether this gateway has heard of it or not.
    shop.tell_as(&thief, "POST", "/v1/keys/self/rotate", &json!({})).await.refused(401, "invalid_key");
    shop.tell_as(&thief, "GET", "/v1/keys/self", &Value::Null).await.refused(401, "invalid_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn rotating_oneself_neither_lengthens_a_life_nor_multiplies_it() {
    let shop = Shop::open().await;
    let body = json!({ "name": "v", "kind": "management", "scopes": ["portcullis:verify"], "expires_at": "2999-01-01T00:00:00Z" });
    let verifier = shop.make(body).await;
    let rotate = |key: &Key, body: Value| shop.tell_as(key, "POST", "/v1/keys/self/rotate", &body);
    rotate(&verifier, json!({ "expires_at": "3000-01-01T00:00:00Z" })).await.refused(422, "invalid_value");
    let second = shop.taken(rotate(&verifier, json!({ "grace": "90d" })).await.expect(201));
    assert_eq!(second.record["expires_at"], "2999-01-01T00:00:00.000Z");
    rotate(&second, json!({ "grace": "90d" })).await.refused(409, "conflict");
    shop.tell("DELETE", &format!("/v1/keys/{}", verifier.id), &Value::Null).await.expect(200);
    let _third = shop.taken(rotate(&second, json!({})).await.expect(201));
}
