//! `POST /v1/keys/import`: keys that were made elsewhere move in over the network, by the rules for making each of them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use portcullis_testkit::{Call, Facts, Key, eventually};
use serde_json::{Value, json};

use super::Shop;

impl Shop {
    /// An import by `caller`, of rows as text.
    fn import_as(&self, caller: &Key, options: &str, media_type: &str, rows: impl Into<String>) -> Call {
        let call = self.ask("POST", &format!("/v1/keys/import{options}")).bearer(caller);
        call.header("content-type", media_type).body(rows.into()).watching(self.gateway.site().vault())
    }

    fn import(&self, options: &str, rows: &Value) -> Call {
        self.import_as(&self.operator, options, "application/json", rows.to_string())
    }

    async fn count(&self) -> usize {
        let list = self.tell("GET", "/v1/keys?limit=1000", &Value::Null).await.expect(200).json();
        list["data"].as_array().unwrap().len()
    }

    /// Secrets that must never be seen again.
    fn keep(&self, secrets: &[&str]) {
        secrets.iter().for_each(|secret| self.gateway.site().vault().keep(secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_every_type_become_keys_that_are_accepted_at_once() {
    let shop = Shop::open().await;
    shop.keep(&["legacy-over-the-wire-1", "legacy-over-the-wire-2", "legacy-over-the-wire-3"]);
    for (media_type, secret, rows) in [
        (
            "application/json",
            "legacy-over-the-wire-1",
            r#"[{"name":"one","scopes":["read:orders"],"key":"legacy-over-the-wire-1"}]"#,
        ),
        (
            "application/x-ndjson",
            "legacy-over-the-wire-2",
            "{\"name\":\"two\",\"scopes\":[\"read:orders\"],\"key\":\"legacy-over-the-wire-2\"}\n\n",
        ),
        (
            "text/csv; charset=utf-8",
            "legacy-over-the-wire-3",
            "name,scopes,key\nthree,read:orders,legacy-over-the-wire-3\n",
        ),
    ] {
        let answer = shop.import_as(&shop.operator, "", media_type, rows).await.expect(201).json();
        assert_eq!((&answer["imported"], &answer["skipped"]), (&json!(1), &json!([])), "{answer}");
        assert!(answer["revision"].is_u64(), "{answer}");
        shop.gateway.get("/v1/orders/1").header("x-api-key", secret).await.expect(200);
    }
    let trail =
        shop.tell("GET", "/v1/audit?action=key.import&order=oldest_first", &Value::Null).await.expect(200).json();
    let entries = trail["data"].as_array().unwrap();
    let names: Vec<&Value> = entries.iter().map(|entry| &entry["after"]["name"]).collect();
    assert_eq!(names, ["one", "two", "three"]);
    assert!(entries.iter().all(|entry| entry["actor"] == shop.operator.id.as_str()), "{trail}");
    shop.import_as(&shop.operator, "", "text/plain", "x").await.refused(415, "unsupported_media_type");
    shop.import_as(&shop.operator, "?skip=1", "text/csv", "name\n").await.refused(400, "invalid_field");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_row_keeps_all_out_unless_bad_rows_are_skipped() {
    let shop = Shop::open().await;
    let secret = "legacy-beside-a-bad-row";
    shop.keep(&[secret]);
    let before = shop.count().await;
    let rows = json!([
        { "name": "good", "scopes": [], "key": secret },
        { "name": "twice", "scopes": [], "key": secret },
        { "name": "typo", "scopes": ["raed:orders"], "key": format!("{secret}-2") },
        { "name": "none", "scopes": [] },
    ]);
    let refused = shop.import("", &rows).await.refused(422, "bad_rows").json();
    let lines: Vec<&Value> = refused["rows"].as_array().unwrap().iter().map(|row| &row["line"]).collect();
    assert_eq!(lines, [2, 3, 4], "{refused}");
    assert!(refused["rows"][1]["problem"].as_str().unwrap().contains("read:orders"), "{refused}");
    assert_eq!(shop.count().await, before);

    let tried = shop.import("?dry_run=true&skip_bad=true", &rows).await.expect(200).json();
    assert_eq!((&tried["imported"], &tried["revision"]), (&json!(0), &Value::Null), "{tried}");
    assert_eq!(tried["would_import"], 1, "{tried}");
    let nothing = shop.import("?dry_run=true", &json!([])).await.expect(200).json();
    assert_eq!(nothing["would_import"], 0, "{nothing}");
    assert_eq!(shop.count().await, before);

    let done = shop.import("?skip_bad=true", &rows).await.expect(201).json();
    assert_eq!((&done["imported"], &done["skipped"]), (&json!(1), &refused["rows"]), "{done}");
    assert_eq!(shop.count().await, before + 1);

    let again = shop.import("", &json!([rows[0]])).await.refused(422, "bad_rows").json();
    assert!(again["rows"][0]["problem"].as_str().unwrap().contains("in the store already"), "{again}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_a_key_is_not_repeated() {
    let shop = Shop::open().await;
    let ours = portcullis_testkit::key_text::forged("pc_live_sk_", 'I');
    let foreign = "Hunter2-in-the-wrong-place";
    shop.keep(&[&ours, foreign]);
    for (media_type, rows) in [
        ("text/csv", format!("{foreign},{foreign}\n")),
        ("text/csv", format!("name,{foreign}\nx,y\n")),
        ("text/csv", format!("name,scopes,key\nx,{ours},{foreign}\n")),
        ("application/x-ndjson", format!("{{\"name\":\"x\",\"key\":{foreign}}}\n")),
        ("application/json", format!("[\"{foreign}\"]")),
        ("application/json", format!("[{{\"name\":\"x\",\"scopes\":[],\"{foreign}\":\"{ours}\"}}]")),
    ] {
        let answer = shop.import_as(&shop.operator, "", media_type, rows).await;
        assert!(matches!(answer.status, 400 | 422), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_imports_what_they_could_not_make() {
    let shop = Shop::open_with("", "roles: { writer: [write:orders] }").await;
    let owner = async |terms: Value| -> String {
        let made = shop.tell("POST", "/v1/owners", &terms).await.expect(201).json();
        made["id"].as_str().unwrap().to_owned()
    };
    let acme = owner(json!({ "name": "ACME", "max_keys": 3, "may_grant": ["read:*", "portcullis:keys"] })).await;
    let rival = owner(json!({ "name": "rival" })).await;
    let bot = |owner: Option<&str>| json!({ "name": "bot", "kind": "management", "owner": owner, "scopes": ["portcullis:keys"], "may_grant": ["read:orders"] });
    let operator_bot = shop.make(bot(None)).await;
    let owner_bot = shop.make(bot(Some(&acme))).await;
    let mut number = 0;
    let mut row = |more: Value| {
        number += 1;
        let mut row = json!({ "name": "n", "scopes": [], "hash": format!("sha256:{number:064x}") });
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let widening = [
        json!({ "scopes": ["write:orders"] }),
        json!({ "scopes": ["*"] }),
        json!({ "roles": ["writer"] }),
        json!({ "kind": "management", "scopes": ["portcullis:audit"] }),
        json!({ "kind": "management", "may_grant": ["write:orders"] }),
    ];
    for caller in [&operator_bot, &owner_bot] {
        for more in &widening {
            let rows = json!([row(more.clone())]).to_string();
            let refused = shop.import_as(caller, "", "application/json", rows).await.refused(422, "bad_rows").json();
            assert!(refused["rows"][0]["problem"].as_str().unwrap().contains("not cover"), "{refused}");
        }
    }
    for more in [
        json!({ "owner": rival }),
        json!({ "rate_limit": { "requests": 1, "per": "1s" } }),
        json!({ "created_by": "local:root" }),
    ] {
        let rows = json!([row(more)]).to_string();
        shop.import_as(&owner_bot, "", "application/json", rows).await.refused(422, "bad_rows");
    }
    // The owner's ceiling binds an operator, too.
    let beyond = json!([row(json!({ "owner": acme, "scopes": ["write:orders"] }))]);
    let refused = shop.import("", &beyond).await.refused(422, "bad_rows").json();
    assert!(refused["rows"][0]["problem"].as_str().unwrap().contains("ceiling"), "{refused}");
    // The bot itself is one of three.
    let four = json!([row(json!({})), row(json!({})), row(json!({}))]);
    let done =
        shop.import_as(&owner_bot, "?skip_bad=true", "application/json", four.to_string()).await.expect(201).json();
    assert_eq!((&done["imported"], &done["skipped"][0]["line"]), (&json!(2), &json!(3)), "{done}");
    let owned = shop.tell("GET", &format!("/v1/keys?owner={acme}"), &Value::Null).await.expect(200).json();
    assert_eq!(owned["data"].as_array().unwrap().len(), 3, "{owned}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_an_import_by_who_may_import_is_large() {
    let shop = Shop::open().await;
    let rows = |count: usize| -> String {
        let padding = "x".repeat(1_900);
        let row = |n| {
            format!("{{\"name\":\"n\",\"scopes\":[],\"hash\":\"sha256:{n:064x}\",\"description\":\"{padding}\"}}\n")
        };
        (0..count).map(row).collect()
    };
    let large = rows(1_000);
    assert!(large.len() > 1 << 20);
    let done = shop.import_as(&shop.operator, "", "application/x-ndjson", large.clone()).await.expect(201).json();
    assert_eq!(done["imported"], 1_000);
    let reader = shop.make(json!({ "name": "r", "kind": "management", "scopes": ["portcullis:keys:read"] })).await;
    shop.import_as(&reader, "", "application/x-ndjson", large.clone()).await.refused(403, "insufficient_scope");
    let other =
        shop.ask("POST", "/v1/keys").bearer(&shop.operator).header("content-type", "application/json").body(large);
    other.await.refused(413, "body_too_large");
    eventually!("the imported keys are listed", shop.count().await > 900);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_shape_of_bodies_holds_for_imports() {
    let shop = Shop::open_with("", "api: { profile: success }").await;
    let rows = json!([{ "name": "n", "permissions": ["read:orders"], "hash": format!("sha256:{:064x}", 7) }]);
    let done = shop.import("", &rows).await.expect(201).json();
    assert_eq!((&done["success"], &done["data"]["imported"]), (&json!(true), &json!(1)), "{done}");
    let again = shop.import("", &rows).facts(Facts::success_profile()).await.expect(422);
    assert_eq!(again.json()["error"]["rows"][0]["line"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn imports_that_are_tried_hold_up_no_revocation() {
    let shop = Shop::open().await;
    let row = |n: usize| format!("{{\"name\":\"n\",\"scopes\":[],\"hash\":\"sha256:{n:064x}\"}}\n");
    let many: String = (0..20_000).map(row).collect();
    shop.import_as(&shop.operator, "", "application/x-ndjson", many).await.expect(201);
    let (done, tried) = (AtomicBool::new(false), AtomicUsize::new(0));
    let try_on = async |client: usize| {
        while !done.load(Relaxed) {
            let one = row(1_000_000 + client);
            shop.import_as(&shop.operator, "?dry_run=true", "application/x-ndjson", one).await.expect(200);
            tried.fetch_add(1, Relaxed);
        }
    };
    let revoke = async {
        let mut waits = Vec::new();
        for _ in 0..5 {
            let key = shop.make(json!({ "name": "short-lived", "scopes": ["read:orders"] })).await;
            let begun = Instant::now();
            shop.tell("DELETE", &format!("/v1/keys/{}", key.id), &Value::Null).await.expect(200);
            waits.push(begun.elapsed());
            shop.gateway.get("/v1/orders/1").bearer(&key).await.refused(401, "invalid_key");
        }
        done.store(true, Relaxed);
        waits
    };
    let (mut waits, _) = tokio::join!(revoke, join_all((0..8).map(try_on)));
    waits.sort();
    assert!(waits[2] < Duration::from_secs(1), "revocations took {waits:?} beside {tried:?} imports");
    assert!(tried.load(Relaxed) > 20, "{tried:?} imports were tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_an_array_is_bounded() {
    let shop = Shop::open().await;
    let numbers = "0,".repeat(2 << 20);
    let rows = format!("[{{\"name\":\"n\",\"scopes\":[],\"metadata\":[{numbers}0]}}]");
    let refused =
        shop.import_as(&shop.operator, "?skip_bad=true", "application/json", rows).await.refused(400, "invalid_field");
    assert!(refused.json()["detail"].as_str().unwrap().contains("row 1 is longer"), "{refused:?}");
}
