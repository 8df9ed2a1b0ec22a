//! `audit`: what was done is told, and tampering with it is found.

use std::time::Duration;

use portcullis_testkit::{Gateway, KeySpec, Outcome, Site, eventually};
use serde_json::{Value, json};

use super::{OTHER_PEPPER, PEPPER, closed};
use crate::scene;

const NEXT_PEPPER: &str = "auth: { peppers: [{ id: two, secret: \"pepper-two-of-thirty-two-letters\" }, \
                           { id: one, secret: \"pepper-one-of-thirty-two-letters\" }] }";

async fn listed(site: &Site, more: &[&str]) -> Vec<Value> {
    let mut args = vec!["audit", "list", "--output", "json"];
    args.extend_from_slice(more);
    site.cli(&args).await.success().json().as_array().unwrap().clone()
}

async fn verify(site: &Site, more: &[&str]) -> Outcome {
    let mut args = vec!["audit", "verify", "--output", "json"];
    args.extend_from_slice(more);
    site.cli(&args).await
}

/// What `audit verify` says of the trail in its first line.
async fn trail(site: &Site, more: &[&str]) -> String {
    let told = site.cli(&[&["audit", "verify"], more].concat()).await.stdout;
    told.lines().next().unwrap().strip_prefix("trail").unwrap().trim().to_owned()
}

/// Changes the store's file behind the store's back.
fn tamper(site: &Site, sql: &str) {
    rusqlite::Connection::open(site.path("data/portcullis.db")).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_is_listed_newest_first_and_filtered() {
    let (site, _origin) = closed("").await;
    let key = site.create(KeySpec::new("reader", "read:orders")).await;
    let other = site.create_key("other", "").await;
    let _ = site.cli(&["keys", "disable", &key.id]).await.success();

    let entries = listed(&site, &[]).await;
    let told = |field: &str| entries.iter().map(|entry| entry[field].clone()).collect::<Vec<_>>();
    assert_eq!(told("entry"), [3, 2, 1]);
    assert_eq!(told("action"), ["key.disable", "key.create", "key.create"]);
    assert_eq!(told("subject"), [key.id.as_str(), &other.id, &key.id]);
    assert_eq!(
        (&entries[0]["before"], &entries[0]["after"]),
        (&json!({ "active": true }), &json!({ "active": false }))
    );
    assert_eq!((&entries[2]["before"], &entries[2]["after"]["scopes"]), (&Value::Null, &json!(["read:orders"])));
    assert!(entries[0]["actor"].as_str().unwrap().starts_with("local:"), "{}", entries[0]);
    assert_eq!(entries[0]["mac"].as_str().unwrap().len(), 64);

    assert_eq!(listed(&site, &["--limit", "1"]).await.len(), 1);
    assert_eq!(listed(&site, &["--subject", &other.id]).await.len(), 1);
    assert_eq!(listed(&site, &["--action", "key.create"]).await.len(), 2);
    assert_eq!(listed(&site, &["--action", "owner.*"]).await, Vec::<Value>::new());
    assert_eq!(listed(&site, &["--since", "1h"]).await.len(), 3);
    assert_eq!(listed(&site, &["--until", "1h"]).await.len(), 0);
    assert_eq!(listed(&site, &["--actor", "gateway:reload"]).await.len(), 0);
    let _ = site.cli(&["audit", "list", "--since", "yesterday"]).await.exit(2).says(&["--since", "24h"]);

    let table = site.cli(&["audit", "list"]).await.success();
    let lines: Vec<&str> = table.stdout.lines().collect();
    assert!(lines[0].starts_with("ENTRY") && lines[1].contains("active: true -> false"), "{table:?}");
    assert!(lines[3].contains("\"reader\""), "{table:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_exported_one_line_each_and_nothing_is_overwritten() {
    let (site, _origin) = closed("").await;
    let rows: String =
        (0..2_500).map(|n| format!("{{\"name\":\"n{n}\",\"scopes\":[],\"key\":\"legacy-of-old-{n:08}\"}}\n")).collect();
    let keys = site.write("keys.jsonl", rows);
    let _ = site.cli(&["keys", "import", keys.to_str().unwrap()]).await.success();
    let exported = site.cli(&["audit", "export"]).await.success();
    let entries: Vec<Value> = exported.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(entries.len(), 2_500);
    assert!(entries.iter().zip(1..).all(|(entry, number)| entry["entry"] == number), "the oldest first, without gaps");
    let file = site.path("trail.jsonl");
    let to_file = ["audit", "export", file.to_str().unwrap()];
    let _ = site.cli(&to_file).await.success().says(&["2500"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), exported.stdout);
    let _ = site.cli(&to_file).await.exit(1).says(&["trail.jsonl"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_verifies_until_somebody_touches_it() {
    let (site, _origin) = closed(PEPPER).await;
    let key = site.create_key("reader", "read:orders").await;
    for verb in ["disable", "enable", "revoke"] {
        let _ = site.cli(&["keys", verb, &key.id]).await.success();
    }
    let found = verify(&site, &[]).await.success().json();
    assert_eq!((&found["sound"], &found["entries"], &found["keyed"]), (&json!(true), &json!(4), &json!({ "one": 4 })));
    let head = found["head"].as_str().unwrap().to_owned();
    let _ = verify(&site, &["--head", &head]).await.success();
    let _ = site.cli(&["audit", "verify"]).await.success().says(&["4, 1 to 4", "pepper one", &head]);
    assert_eq!(trail(&site, &[]).await, "as it was written");
    let _ = verify(&site, &["--head", "4"]).await.exit(2).says(&["ENTRY:MAC"]);

    // The end, cut off: seen by the head alone.
    tamper(&site, "CREATE TABLE aside AS SELECT * FROM audit WHERE entry = 4; DELETE FROM audit WHERE entry = 4");
    let _ = verify(&site, &[]).await.success();
    let found = verify(&site, &["--head", &head]).await.exit(1);
    assert_eq!(found.json()["breach"]["reason"], "cut_off");
    tamper(&site, "INSERT INTO audit SELECT * FROM aside; DROP TABLE aside");
    let _ = verify(&site, &["--head", &head]).await.success();

    tamper(&site, "UPDATE audit SET actor = 'local:nobody' WHERE entry = 2");
    let found = verify(&site, &[]).await.exit(1).says(&["entry 2"]);
    assert_eq!((&found.json()["breach"]["entry"], &found.json()["breach"]["reason"]), (&json!(2), &json!("changed")));
    let _ = site.cli(&["audit", "verify"]).await.exit(1).says(&["error", "entry 2"]);
    assert_eq!(trail(&site, &[]).await, "not as it was written");
    tamper(&site, "DELETE FROM audit WHERE entry = 2");
    assert_eq!(verify(&site, &[]).await.exit(1).json()["breach"]["reason"], "missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_a_pepper_that_is_gone_are_named() {
    let (site, _origin) = closed(PEPPER).await;
    let _ = site.create_key("old", "").await;
    site.rewrite_config(&scene::shop_config("", NEXT_PEPPER));
    let _ = site.create_key("new", "").await;
    assert_eq!(verify(&site, &[]).await.success().json()["keyed"], json!({ "one": 1, "two": 1 }));
    site.rewrite_config(&scene::shop_config("", &PEPPER.replace("one", "two")));
    let found = verify(&site, &[]).await.exit(1).says(&["`one`", "auth.peppers"]);
    assert_eq!((&found.json()["sound"], &found.json()["unverifiable"]), (&json!(false), &json!({ "one": 1 })));
    let _ = verify(&site, &["--without-pepper", "one"]).await.success();
    assert_eq!(trail(&site, &[]).await, "not all of it can be verified");
    // What is taken on trust, and what anybody could have written, is not said to be as it was written.
    assert!(trail(&site, &["--without-pepper", "one"]).await.starts_with("no change was found"));
    let (unkeyed, _origin) = closed("").await;
    let _ = unkeyed.create_key("plain", "").await;
    let _ = verify(&unkeyed, &[]).await.success();
    assert!(trail(&unkeyed, &[]).await.starts_with("no change was found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_and_commands_append_to_one_trail_across_reloads_and_a_new_pepper() {
    let (site, origin) = closed(PEPPER).await;
    let first = site.create_key("first", "").await;
    let gateway: Gateway = site.start().await;
    eventually!("the head is noted", gateway.logs().events_saying("audit head").len() == 1);
    let noted = gateway.logs().events_saying("audit head");
    assert_eq!(noted[0]["entries"], 1);
    let noted = noted[0]["head"].as_str().unwrap().to_owned();

    assert!(gateway.reload_with(&scene::shop_config("", NEXT_PEPPER)).await);
    let _ = gateway.cli(&["keys", "revoke", &first.id]).await.success();
    let _ = gateway.cli(&["reload"]).await.success();
    let _ = gateway.cli(&["reload", "--dry-run"]).await.success();
    gateway.rewrite_config(&scene::shop_config("  - { path: /x, upstream: nowhere, auth: none }\n", NEXT_PEPPER));
    let _ = gateway.cli(&["reload"]).await.exit(3);
    gateway.rewrite_config(&scene::shop_config("", NEXT_PEPPER));
    eventually!("both reloads are told", listed(&gateway, &["--action", "config.reload"]).await.len() == 2);

    let reloads = listed(&gateway, &["--action", "config.reload"]).await;
    let by: Vec<&str> = reloads.iter().map(|entry| entry["actor"].as_str().unwrap()).collect();
    assert!(by[0].starts_with("local:") && by[1] == "gateway:reload", "{by:?}");
    let digest = |entry: &Value, side: &str| entry[side].as_object().unwrap().values().next().unwrap().clone();
    assert!(digest(&reloads[1], "before").as_str().unwrap().starts_with("sha256:"), "{}", reloads[1]);
    assert_ne!(digest(&reloads[1], "before"), digest(&reloads[1], "after"));
    assert_eq!(digest(&reloads[1], "after"), digest(&reloads[0], "before"));
    assert_eq!(
        (&reloads[0]["pepper"], &reloads[1]["pepper"]),
        (&json!("two"), &json!("two")),
        "taken over by the reload"
    );

    let found = verify(&gateway, &["--head", &noted]).await.success().json();
    assert_eq!(found["keyed"], json!({ "one": 1, "two": 3 }), "{found}");
    drop(origin);
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_at_the_same_time_and_commands_that_are_killed_leave_a_valid_chain() {
    let (site, _origin) = closed(PEPPER).await;
    let rows: String =
        (0..3_000).map(|n| format!("{{\"name\":\"n{n}\",\"scopes\":[],\"key\":\"legacy-of-old-{n:08}\"}}\n")).collect();
    let keys = site.write("keys.jsonl", rows);
    let import = ["-c", "portcullis.yaml", "keys", "import", keys.to_str().unwrap()].map(str::to_owned);
    let mut acknowledged = 0;
    for round in 0..6_u32 {
        let killed = site.launch(&import.each_ref().map(String::as_str));
        let creating = (0..2).map(|n| {
            let site = site.clone();
            tokio::spawn(async move { site.create_key(&format!("r{round}n{n}"), "").await })
        });
        let creating: Vec<_> = creating.collect();
        tokio::time::sleep(Duration::from_millis(u64::from(40 * round))).await;
        killed.kill();
        for task in creating {
            task.await.unwrap();
            acknowledged += 1;
        }
    }
    let found = verify(&site, &[]).await.success().json();
    let entries = found["entries"].as_u64().unwrap();
    assert!([acknowledged, acknowledged + 3_000].contains(&entries), "all of an import or none of it: {found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_needs_a_store_on_disk_and_never_makes_one() {
    let (site, _origin) = closed("").await;
    let _ = site.cli(&["audit", "verify"]).await.exit(4).says(&["portcullis.db"]);
    assert!(!site.path("data/portcullis.db").exists());
    let (site, _origin) = closed("store: { driver: memory }").await;
    for verb in ["list", "export", "verify"] {
        let _ = site.cli(&["audit", verb]).await.exit(2).says(&["memory"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_the_trail() {
    let (site, _origin) = closed(PEPPER).await;
    let key = site.create_key("reader", "read:orders").await;
    site.vault().keep("legacy-plaintext-0001");
    let keys = site.write("keys.jsonl", "{\"name\":\"one\",\"scopes\":[],\"key\":\"legacy-plaintext-0001\"}\n");
    let _ = site.cli(&["keys", "import", keys.to_str().unwrap()]).await.success();
    std::fs::remove_file(keys).unwrap();
    let gateway = site.start().await;
    let _ = gateway.cli(&["reload"]).await.success();
    eventually!("the reload is told", listed(&site, &[]).await.len() == 3);
    let raw = rusqlite::Connection::open(site.path("data/portcullis.db")).unwrap();
    let read = |sql: &str| -> Vec<String> {
        let mut select = raw.prepare(sql).unwrap();
        select.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let exported = site.cli(&["audit", "export"]).await.success().stdout.to_lowercase();
    assert!(exported.contains(&key.id), "there is something to search");
    for hash in read("SELECT hex(hash) FROM keys") {
        assert!(!exported.contains(&hash.to_lowercase()), "a hash is in the trail");
    }
    assert!(!exported.contains("hash"), "{exported}");
    // Keys and peppers: every command's output and the whole data directory are searched for them by the kit.
    assert_eq!(site.vault().find_in(exported.as_bytes()), None);
    assert_eq!(site.vault().find_below(&site.path("data")), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_secret_under_the_same_name_is_refused_before_anything_is_written() {
    let (site, _origin) = closed(PEPPER).await;
    let key = site.create_key("one", "read:orders").await;
    let gateway = site.start().await;
    gateway.get("/v1/orders/1").bearer(&key).await.expect(200);

    // A running gateway keeps the right one.
    assert!(!gateway.reload_with(&scene::shop_config("", OTHER_PEPPER)).await);
    let told = gateway.cli(&["reload", "--dry-run"]).await.exit(3).says(&["`one` has another secret", "audit verify"]);
    assert!(!told.everything().contains("letters"), "{}", told.everything());
    gateway.get("/v1/orders/1").bearer(&key).await.expect(200);

    // Nobody starts with the wrong one, looks for keys with it, or writes.
    let file = site.path("backup").display().to_string();
    let verbs: [&[&str]; 6] = [
        &["run"],
        &["keys", "create", "--name", "two", "--scopes", "read:orders"],
        &["keys", "revoke", &key.id],
        &["keys", "list"],
        &["owners", "create", "--name", "acme"],
        &["store", "backup", &file],
    ];
    for verb in verbs {
        let _ = gateway.cli(verb).await.exit(3).says(&["auth.peppers", "`one` has another secret", "newest entry"]);
    }
    assert!(!site.path("backup").exists());
    assert_eq!(verify(&site, &[]).await.exit(1).json()["breach"]["reason"], "changed");

    // With the right one nothing is the matter, also where one entry was changed; that is for `verify` to say.
    gateway.rewrite_config(&scene::shop_config("", PEPPER));
    let _ = gateway.cli(&["reload"]).await.success();
    let _ = verify(&site, &[]).await.success();
    let _ = site.create_key("two", "").await;
    tamper(&site, "UPDATE audit SET actor = 'local:nobody' WHERE entry = 2");
    let _ = site.create_key("three", "").await;
    let _ = verify(&site, &[]).await.exit(1);
}
