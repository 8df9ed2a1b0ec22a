//! The life of a key, without any server running.

use portcullis_testkit::{KeySpec, key_text};
use serde_json::json;

use crate::scene;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_shown_once_with_its_record() {
    let (site, _origin) = scene::closed_shop().await;
    let key = site.create(KeySpec::new("reader", "read:orders").expires_in("90d")).await;
    assert!(key_text::is_well_formed(&key.text, "pc_live_sk_"), "32 characters and the checksum of what is before it");
    assert!(key.id.starts_with("key_") && key.id.len() > 20, "{}", key.id);
    assert_eq!(key.record["name"], "reader");
    assert_eq!(key.record["scopes"], json!(["read:orders"]));
    assert_eq!(key.record["environment"], "live");
    assert_eq!(key.record["kind"], "secret");
    assert_eq!(key.record["active"], true);
    assert_eq!(key.record["last4"], key.text[key.text.len() - 4..]);
    assert!(key.record["created_by"].as_str().unwrap().starts_with("local:"), "{}", key.record);
    let expires = key.record["expires_at"].as_str().unwrap();
    assert!(expires.ends_with('Z') && expires.contains('T'), "RFC 3339 in UTC: {expires}");
    for secret_field in ["hash", "pepper", "secret"] {
        assert!(key.record.get(secret_field).is_none(), "{secret_field}");
    }
    let shown = site.show_key(&key.id).await;
    assert!(shown.get("key").is_none(), "{shown}");
    assert_eq!((&shown["id"], &shown["prefix"]), (&json!(key.id), &json!(key.prefix)));
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_prints_the_key_alone_and_text_adds_a_line_to_paste() {
    let (site, _origin) = scene::closed_shop().await;
    let quiet = site.cli(&["keys", "create", "--name", "q", "--scopes", "read:orders", "--quiet"]).await.success();
    let text = quiet.stdout.strip_suffix('\n').unwrap();
    assert!(key_text::is_well_formed(text, "pc_live_sk_"), "{} characters", text.len());

    let talkative = site.cli(&["keys", "create", "--name", "t", "--scopes", "read:orders"]).await.success();
    let curl = talkative.everything().lines().find(|line| line.trim_start().starts_with("curl ")).map(str::to_owned);
    let curl = curl.unwrap_or_else(|| panic!("no curl line: {talkative:?}"));
    assert!(curl.contains("/v1/orders") && curl.contains("pc_live_sk_"), "a route that key may call: {curl}");
    assert!(talkative.everything().matches("pc_live_sk_").count() >= 2, "the key and the line: {talkative:?}");
    let none = site.cli(&["keys", "create", "--name", "n", "--scopes", ""]).await.success();
    let curl = none.everything().lines().find(|line| line.trim_start().starts_with("curl ")).map(str::to_owned);
    assert!(curl.is_some_and(|curl| !curl.contains("/v1/orders")), "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_show_records_and_filter() {
    let (site, _origin) = scene::closed_shop().await;
    // Whoever looks by the wrong configuration, or as somebody else, leaves nothing behind.
    for look in [&["keys", "list"][..], &["owners", "list"], &["keys", "show", "key_0190a0b0c0d07e0f8000000000000000"]]
    {
        let _ = site.cli(look).await.exit(4).says(&["there is no such file", "keys create"]);
    }
    assert!(!site.path("data").exists());
    let one = site.create(KeySpec::new("one", "read:orders")).await;
    let two = site.create(KeySpec::new("two", "").environment("test")).await;
    let same_name = site.create(KeySpec::new("one", "")).await;
    let listed = site.cli(&["keys", "list", "--output", "json"]).await.success().json();
    let ids: Vec<_> = listed.as_array().unwrap().iter().map(|record| record["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [&one.id, &two.id, &same_name.id], "in order of creation; names are labels, not unique");
    let tests = site.cli(&["keys", "list", "--environment", "test", "--output", "json"]).await.success().json();
    assert_eq!(tests.as_array().unwrap().len(), 1, "{tests}");
    let table = site.cli(&["keys", "list"]).await.success();
    assert!(table.stdout.contains(&one.id) && table.stdout.contains("two"), "{table:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn disabling_is_reversible_and_revoking_is_final() {
    let (site, _origin) = scene::closed_shop().await;
    let key = site.create_key("key", "").await;
    let active = async || site.show_key(&key.id).await["active"].clone();
    let _ = site.cli(&["keys", "disable", &key.id]).await.success();
    assert_eq!(active().await, false);
    let _ = site.cli(&["keys", "enable", &key.id]).await.success();
    assert_eq!(active().await, true);
    let _ = site.cli(&["keys", "revoke", &key.id]).await.success();
    let revoked = site.show_key(&key.id).await;
    assert!(revoked["revoked_at"].is_string(), "{revoked}");
    let _ = site.cli(&["keys", "revoke", &key.id]).await.success();
    assert_eq!(site.show_key(&key.id).await["revoked_at"], revoked["revoked_at"], "again changes nothing");
    let _ = site.cli(&["keys", "enable", &key.id]).await.exit(1).says(&["revoked"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_reads_the_key_from_standard_input() {
    let (site, _origin) = scene::closed_shop().await;
    let key = site.create_key("key", "read:orders").await;
    let verified = site.cli_with_input(&["keys", "verify"], &format!("{}\n", key.text)).await.success();
    assert!(verified.stdout.contains(&key.id), "{verified:?}");
    let unknown = site.cli_with_input(&["keys", "verify"], &key_text::forged("pc_live_sk_", 'V')).await;
    assert_ne!(unknown.code, 0, "{unknown:?}");
    let _ = site.cli(&["keys", "revoke", &key.id]).await.success();
    let revoked = site.cli_with_input(&["keys", "verify"], &key.text).await;
    assert_ne!(revoked.code, 0, "{revoked:?}");
    let _ = revoked.says(&["revoked"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_a_reason() {
    let (site, _origin) = scene::closed_shop().await;
    let _some = site.create(KeySpec::new("some", "")).await;
    let _ = site.cli(&["keys", "show", "key_0190a0b0c0d07e0f8000000000000000"]).await.exit(1);
    let _ = site.cli(&["keys", "revoke", "nonsense"]).await.exit(2).says(&["nonsense"]);
    for bad in [
        &["keys", "create", "--scopes", "a"][..],
        &["keys", "create", "--name", "x"],
        &["keys", "create", "--name", "x", "--scopes", "with space"],
        &["keys", "create", "--name", "x", "--scopes", "a", "--kind", "golden"],
        &["keys", "create", "--name", "x", "--scopes", "a", "--environment", "nowhere"],
        &["keys", "create", "--name", "x", "--scopes", "a", "--expires-in", "soon"],
        &["keys", "burn"],
        &["nonsense"],
        &["keys", "list", "--output", "xml"],
    ] {
        let _ = site.cli(bad).await.exit(2);
    }
    let listed = site.cli(&["keys", "list", "--output", "json"]).await.success().json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "nothing came of it: {listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_stands_where_an_id_belongs_is_not_repeated() {
    let (site, _origin) = scene::closed_shop().await;
    let key = site.create_key("slip", "read:orders").await;
    for words in [
        ["keys", "revoke", &key.text].as_slice(),
        &["keys", "show", &key.text],
        &["keys", "verify", &key.text],
        &["explain", "GET", "/v1/orders/1", "--key-id", &key.text],
    ] {
        let outcome = site.cli(words).await.exit(2);
        assert!(!outcome.everything().contains(&key.text), "{} repeats the key", words[1]);
        assert!(outcome.everything().contains(&key.prefix), "it says which key: {}", outcome.everything());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_changed_rotated_and_given_another_secret() {
    let (site, _origin) = scene::closed_shop().await;
    let key = site.create(KeySpec::new("erp", "read:orders")).await;
    let change = ["keys", "update", &key.id, "--scopes", "read:orders,write:orders", "--rate-limit", "10/1s+20"];
    let changed =
        site.cli(&[&change[..], &["--expires-in", "90d", "--output", "json"]].concat()).await.success().json();
    assert_eq!(changed["scopes"], json!(["read:orders", "write:orders"]));
    assert_eq!(changed["rate_limit"], json!({ "requests": 10, "per": "1s", "burst": 20 }));
    assert_eq!(changed["name"], "erp");
    let dated = ["keys", "update", &key.id, "--expires-at", "2099-01-15", "--output", "json"];
    assert_eq!(site.cli(&dated).await.success().json()["expires_at"], "2099-01-15T00:00:00.000Z");
    let freed = ["keys", "update", &key.id, "--no-expiry", "--no-rate-limit", "--output", "json"];
    let freed = site.cli(&freed).await.success().json();
    assert!(freed["expires_at"].is_null() && freed["rate_limit"].is_null(), "{freed}");
    let _ = site.cli(&["keys", "update", &key.id]).await.exit(2);
    let _ = site.cli(&["keys", "update", &key.id, "--scopes", "raed:orders"]).await.exit(2).says(&["read:orders"]);

    let rotated = site.cli(&["keys", "rotate", &key.id, "--grace", "7d", "--output", "json"]).await.success().json();
    site.vault().keep(rotated["key"].as_str().unwrap());
    assert_eq!((&rotated["replaces"], &rotated["scopes"]), (&json!(key.id), &changed["scopes"]));
    let until = site.show_key(&key.id).await["grace_until"].as_str().unwrap().to_owned();
    let _ = site.cli(&["keys", "list"]).await.success().says(&[&until]);
    let _ = site.cli(&["keys", "rotate", &key.id]).await.exit(1).says(&["successor"]);

    let id = rotated["id"].as_str().unwrap();
    assert!(rotated["expires_at"].is_null(), "as the old one");
    let _ = site.cli(&["keys", "rotate", id, "--grace", "1y"]).await.exit(2).says(&["90d"]);
    let replaced = site.cli(&["keys", "replace-secret", id, "--output", "json"]).await.success().json();
    site.vault().keep(replaced["key"].as_str().unwrap());
    assert_eq!(replaced["id"], rotated["id"]);
    assert_ne!(replaced["key"], rotated["key"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_says_when_either_key_ends_and_lengthens_no_life() {
    let (site, _origin) = scene::closed_shop().await;
    let key = site.create(KeySpec::new("erp", "read:orders").expires_in("1h")).await;
    let end = key.record["expires_at"].as_str().unwrap();
    let rotated = site.cli(&["keys", "rotate", &key.id, "--grace", "7d"]).await.success();
    let _ = rotated
        .says(&[&format!("The new key expires at {end}, as the old one"), &format!("until {end}, when it expires")]);
    assert_eq!(site.show_key(&key.id).await["grace_until"], end);

    for (flags, expires) in
        [(&["--no-expiry"][..], false), (&["--expires-in", "90d"], true), (&["--expires-at", "2099-01-15"], true)]
    {
        let key = site.create(KeySpec::new("erp", "").expires_in("1h")).await;
        let args = [&["keys", "rotate", &key.id, "--grace", "0", "--output", "json"], flags].concat();
        let rotated = site.cli(&args).await.success().json();
        site.vault().keep(rotated["key"].as_str().unwrap());
        assert_eq!(rotated["expires_at"].is_string(), expires, "{rotated}");
        assert_ne!(rotated["expires_at"], key.record["expires_at"], "{rotated}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_have_keys_bounds_and_a_switch() {
    let (site, _origin) = scene::closed_shop().await;
    let create = ["owners", "create", "--name", "ACME", "--max-keys", "1", "--may-grant", "read:*", "--output", "json"];
    let acme = site.cli(&create).await.success().json();
    let id = acme["id"].as_str().unwrap();
    let key = site.create(KeySpec::new("k", "read:orders").option("--owner", id)).await;
    assert_eq!(key.record["owner"], id);
    let second = ["keys", "create", "--name", "k2", "--scopes", "", "--owner", id];
    let _ = site.cli(&second).await.exit(1).says(&["max_keys"]);
    let beyond = ["keys", "update", &key.id, "--scopes", "read:orders,write:orders"];
    let _ = site.cli(&beyond).await.exit(1).says(&["ceiling", "write:orders"]);
    let rows = site.write("rows.csv", format!("name,scopes,owner,key\nx,write:orders,{id},legacy-beyond-a-ceiling\n"));
    let _ = site.cli(&["keys", "import", rows.to_str().unwrap()]).await.exit(1).says(&["ceiling", "write:orders"]);
    let suspended = site.cli(&["owners", "suspend", id, "--output", "json"]).await.success().json();
    assert_eq!(suspended["suspended"], true);
    let _ = site.cli(&["keys", "list"]).await.success().says(&["active, owner suspended"]);
    let resumed = site.cli(&["owners", "resume", id, "--output", "json"]).await.success().json();
    assert_eq!(resumed["suspended"], false);
    let update = ["owners", "update", id, "--name", "ACME Inc.", "--without", "max-keys,may-grant", "--output", "json"];
    let updated = site.cli(&update).await.success().json();
    assert!(updated["name"] == "ACME Inc." && updated["max_keys"].is_null() && updated["may_grant"].is_null());
    let _ = site.cli(&second).await.success();
    let list = site.cli(&["owners", "list", "--output", "json"]).await.success().json();
    assert_eq!(list.as_array().unwrap().len(), 1);
    let _ = site.cli(&["owners", "show", id]).await.success().says(&["ACME Inc."]);
    let unknown = format!("own_{}", "0".repeat(32));
    let _ = site.cli(&["owners", "show", &unknown]).await.exit(1).says(&["owners list"]);
    let _ = site.cli(&["keys", "create", "--name", "x", "--scopes", "", "--owner", &unknown]).await.exit(2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_is_printed_with_a_line_that_sends_both_halves() {
    let (site, _origin) = scene::closed_shop().await;
    let config = std::fs::read_to_string(site.config_path()).unwrap();
    let routes =
        "  - { path: /pairs, upstream: shop, auth: any_key, accept: [{ header: Authorization, scheme: Basic }] }\n";
    std::fs::write(site.config_path(), config + routes).unwrap();
    let pair = site.cli(&["keys", "create", "--name", "p", "--scopes", "", "--paired"]).await.success();
    let id = pair.stdout.split_whitespace().find(|word| word.starts_with("key_")).unwrap().to_owned();
    let line = pair.stdout.lines().find(|line| line.starts_with("curl ")).unwrap();
    assert!(line.contains("/pairs") && line.contains(&format!("-u {id}:pc_live_sk_")), "{line}");

    let quiet = site.cli(&["keys", "create", "--name", "p", "--scopes", "", "--paired", "--quiet"]).await.success();
    let credential = quiet.stdout.trim_end();
    let (id, secret) = credential.split_once(':').unwrap();
    assert!(key_text::is_well_formed(secret, "pc_live_sk_"), "{} characters", secret.len());
    let whole = site.cli_with_input(&["keys", "verify"], credential).await.success();
    let _ = whole.says(&["a secret key of ours, live", id]);
    let _ = site.cli_with_input(&["keys", "verify"], secret).await.exit(1).says(&["ID:SECRET"]);
    let rotated = site.cli(&["keys", "rotate", id, "--quiet"]).await.success();
    let rotated = rotated.stdout.trim_end();
    assert!(rotated.starts_with("key_") && rotated.contains(":pc_live_sk_"), "{} characters", rotated.len());
    let _ = site.cli_with_input(&["keys", "verify"], rotated).await.success();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_that_nobody_declared_is_refused_unless_the_catalogue_is_open() {
    let (site, _origin) = scene::closed_shop().await;
    let create = ["keys", "create", "--name", "k", "--scopes", "read:order", "--output", "json"];
    let _said = site.cli(&create).await.exit(2).says(&["read:orders", "catalogue"]);
    site.rewrite_config(&scene::shop_config("", "auth: { catalogue: open }"));
    let made = site.cli(&create).await.success().json();
    assert_eq!(made["scopes"], serde_json::json!(["read:order"]));
    // The gateway's own are never anybody's to invent.
    let invented = ["keys", "create", "--name", "k", "--scopes", "portcullis:nothing"];
    let _said = site.cli(&invented).await.exit(2).says(&["portcullis:keys"]);
}
