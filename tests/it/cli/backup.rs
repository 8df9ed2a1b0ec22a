//! `store backup` and `store restore`: one file holds everything, and puts it back while a gateway runs.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use portcullis_testkit::{Gateway, Key, KeySpec, Outcome, Site, eventually};
use serde_json::{Value, json};

use super::{OTHER_PEPPER, PEPPER, closed};
use crate::scene;

async fn backup(site: &Site, name: &str) -> Value {
    let file = site.path(name);
    site.cli(&["store", "backup", file.to_str().unwrap(), "--output", "json"]).await.success().json()
}

/// Restores a file, with more flags.
async fn restore(site: &Site, file: &Path, more: &[&str]) -> Outcome {
    let mut args = vec!["store", "restore", file.to_str().unwrap(), "--output", "json"];
    args.extend_from_slice(more);
    site.cli(&args).await
}

async fn ids(site: &Site) -> Vec<String> {
    let listed = site.cli(&["keys", "list", "--output", "json"]).await.success().json();
    listed.as_array().unwrap().iter().map(|record| record["id"].as_str().unwrap().to_owned()).collect()
}

/// Everything that lies beside a path, sorted.
fn beside(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path.parent().unwrap()).unwrap().map(Result::unwrap);
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn gives(gateway: &Gateway, key: &Key, status: u16) -> bool {
    gateway.get("/v1/orders/1").bearer(key).await.status == status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_one_private_file_and_puts_everything_back_into_a_new_store() {
    for sections in ["", PEPPER] {
        let (site, _origin) = closed(sections).await;
        let owner = site.cli(&["owners", "create", "--name", "acme", "--output", "json"]).await.success().json();
        let owner = owner["id"].as_str().unwrap();
        let kept = site.create(KeySpec::new("kept", "read:orders").option("--owner", owner)).await;
        let gone = site.create_key("gone", "read:orders").await;
        let _ = site.cli(&["keys", "revoke", &gone.id]).await.success();
        let file = site.path("backups/one");
        std::fs::create_dir(site.path("backups")).unwrap();
        let told = backup(&site, "backups/one").await;
        assert_eq!((&told["keys"], &told["owners"], &told["entries"]), (&json!(2), &json!(1), &json!(4)));
        assert_eq!(told["sealed_with"], if sections.is_empty() { Value::Null } else { json!("one") });
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(beside(&file), ["one"]);
        let text = std::fs::read(&file).unwrap();
        assert_eq!(site.vault().find_in(&text), None, "no key and no pepper is in it");

        let head = site.cli(&["audit", "verify", "--output", "json"]).await.success().json()["head"].clone();
        std::fs::rename(site.path("data"), site.path("lost")).unwrap();
        let told = restore(&site, &file, &[]).await.success().json();
        assert_eq!((&told["keys"], &told["trail"], &told["revocations_kept"]), (&json!(2), &json!("taken"), &json!(0)));
        assert!(beside(&site.path("data/portcullis.db")).iter().all(|name| !name.starts_with('.')));
        assert_eq!(ids(&site).await.len(), 2);
        assert_eq!(site.show_key(&kept.id).await["owner"], owner);
        let _ = site.cli(&["audit", "verify", "--head", head.as_str().unwrap()]).await.success();
        let list = site.cli(&["audit", "list", "--limit", "1", "--output", "json"]).await.success().json();
        assert_eq!((&list[0]["action"], &list[0]["subject"]), (&json!("store.restore"), &json!("store")));

        let gateway = site.start().await;
        gateway.get("/v1/orders/1").bearer(&kept).await.expect(200);
        gateway.get("/v1/orders/1").bearer(&gone).await.refused(401, "invalid_key");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_over_a_running_gateway_is_a_new_beginning_that_revives_nothing() {
    let (gateway, _origin) = scene::shop().await;
    let (kept, revoked) = (gateway.key("kept", "read:orders").await, gateway.key("revoked", "read:orders").await);
    let dropped = gateway.key("dropped", "read:orders").await;
    let _ = backup(&gateway, "one").await;
    let later = gateway.key("later", "read:orders").await;
    let _ = gateway.cli(&["keys", "revoke", &revoked.id]).await.success();
    let _ = gateway.cli(&["keys", "disable", &dropped.id]).await.success();
    for (key, status) in [(&kept, 200), (&later, 200), (&revoked, 401), (&dropped, 401)] {
        eventually!("the key set is there", gives(&gateway, key, status).await);
    }

    let file = gateway.path("one");
    let _ = restore(&gateway, &file, &[]).await.exit(1).says(&["not empty", "4 keys", "--replace", "store backup"]);
    gateway.get("/v1/orders/1").bearer(&later).await.expect(200);
    let told = restore(&gateway, &file, &["--replace", "--wait-all"]).await.success();
    assert!(told.stderr.contains("enforces it"), "{told:?}");
    let told = told.json();
    assert_eq!((&told["revocations_kept"], &told["trail"]), (&json!(1), &json!("kept")));
    // Who waited for all has nothing to wait for any more.
    for (key, status) in [(&kept, 200), (&later, 401), (&revoked, 401), (&dropped, 200)] {
        assert!(gives(&gateway, key, status).await, "{}", key.id);
    }
    assert!(!ids(&gateway).await.contains(&later.id));
    assert!(!gateway.show_key(&revoked.id).await["revoked_at"].is_null());
    let _ = gateway.cli(&["audit", "verify"]).await.success();
    eventually!("it says so", gateway.logs().text().contains("the store lost commits"));
    // Things go on from there, and the next backup holds them.
    let next = gateway.key("next", "read:orders").await;
    eventually!("a new key works", gives(&gateway, &next, 200).await);
    assert_eq!(backup(&gateway, "two").await["keys"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_is_enforced_within_the_bound_of_every_change() {
    let (gateway, _origin) = scene::shop().await;
    let kept = gateway.key("kept", "read:orders").await;
    let _ = backup(&gateway, "one").await;
    let later = gateway.key("later", "read:orders").await;
    let _ = restore(&gateway, &gateway.path("one"), &["--replace"]).await.success();
    eventually!("what came later is gone", within Duration::from_millis(250), gives(&gateway, &later, 401).await);
    gateway.get("/v1/orders/1").bearer(&kept).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_taken_while_keys_are_made_is_one_moment() {
    let (site, _origin) = closed("").await;
    let _ = site.create_key("first", "").await;
    let rows = |batch: usize| -> String {
        let row = |n| format!("{{\"name\":\"b{batch}\",\"scopes\":[],\"key\":\"legacy-{batch:04}-{n:08}\"}}\n");
        (0..200).map(row).collect()
    };
    let writer = {
        let site = site.clone();
        tokio::spawn(async move {
            for batch in 0..12 {
                let file = site.write(format!("rows{batch}.jsonl"), rows(batch));
                let _ = site.cli(&["keys", "import", file.to_str().unwrap()]).await.success();
            }
        })
    };
    let mut seen = Vec::new();
    for number in 0.. {
        let told = backup(&site, &format!("backup{number}")).await;
        let keys = told["keys"].as_u64().unwrap();
        assert_eq!((keys - 1) % 200, 0, "an import is in it whole or not at all: {told}");
        assert_eq!(told["entries"], keys, "each key with its entry: {told}");
        seen.push(keys);
        if writer.is_finished() {
            break;
        }
    }
    writer.await.unwrap();
    assert!(seen.is_sorted(), "{seen:?}");
    let last = site.path(format!("backup{}", seen.len() - 1));
    std::fs::remove_dir_all(site.path("data")).unwrap();
    let told = restore(&site, &last, &[]).await.success().json();
    assert_eq!((&told["keys"], &told["entries"]), (&json!(seen.last()), &json!(seen.last())));
    let _ = site.cli(&["audit", "verify"]).await.success();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_over_and_what_goes_wrong_leaves_no_file() {
    let (site, _origin) = closed("").await;
    let file = site.path("one");
    let args = ["store", "backup", file.to_str().unwrap()];
    let _ = site.cli(&args).await.exit(4).says(&["there is no such file"]);
    assert!(!file.exists() && !site.path("data").exists());
    let _ = site.create_key("one", "").await;
    let _ = site.cli(&args).await.success().says(&["1 key, 0 owners and 1 entry", "auth.peppers"]);
    let before = std::fs::read(&file).unwrap();
    let _ = site.create_key("two", "").await;
    let _ = site.cli(&args).await.exit(1).says(&["exists already", "--overwrite"]);
    assert_eq!(std::fs::read(&file).unwrap(), before);
    let mut over = args.to_vec();
    over.push("--overwrite");
    let _ = site.cli(&over).await.success().says(&["2 keys"]);
    assert_ne!(std::fs::read(&file).unwrap(), before);
    let _ = site.cli(&["store", "backup", "/dev/null", "--overwrite"]).await.exit(1).says(&["not a file"]);
    let nowhere = site.path("nowhere/one");
    let _ = site.cli(&["store", "backup", nowhere.to_str().unwrap()]).await.exit(1).says(&["nowhere/one"]);
    assert!(beside(&file).iter().all(|name| !name.contains("partial")), "{:?}", beside(&file));

    // A disk that is full, as far as standard output is one.
    let config = site.config_path();
    let line = format!("exec {} -c {} store backup - >/dev/full", site.binary().display(), config.display());
    let (code, said) = crate::tools::run(Path::new("/bin/sh"), &["-c", &line], "").await;
    assert!(code == 1 && said.contains("cannot write the backup"), "{code}: {said}");

    let memory =
        scene::site(&scene::shop_config("", "store: { driver: memory }")).fill("shop", "127.0.0.1:1").prepare();
    let _ = memory.cli(&args).await.exit(2).says(&["memory"]);
    let _ = restore(&memory, &file, &[]).await.exit(2).says(&["memory"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_through_pipes() {
    let (site, _origin) = closed(PEPPER).await;
    let key = site.create_key("one", "").await;
    let _ = site.cli(&["store", "backup", "-", "--output", "json"]).await.exit(2);
    let backup = site.cli(&["store", "backup", "-"]).await.success().says(&["1 key, 0 owners", "pepper one"]);
    std::fs::remove_dir_all(site.path("data")).unwrap();
    let restored = site.cli_with_input(&["store", "restore", "-"], &backup.stdout).await.success();
    let _ = restored.says(&["restored 1 key and 0 owners", "audit verify"]);
    assert_eq!(ids(&site).await, [key.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_as_it_was_written_restores_nothing() {
    let (site, _origin) = closed(PEPPER).await;
    let key = site.create_key("one", "read:orders").await;
    let _ = backup(&site, "whole").await;
    let whole = std::fs::read_to_string(site.path("whole")).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let private = |name: &str, content: &str| {
        let file = site.write(name, content);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        file
    };
    for (name, content, word) in [
        ("cut", whole[..whole.len() / 2].to_owned(), "cut off"),
        ("short", lines[..lines.len() - 1].join("\n") + "\n", "cut off"),
        ("edited", whole.replacen("read:orders", "read:others", 1), "SHA-256"),
        ("newer", whole.replacen("\"format\":1", "\"format\":7", 1), "install a newer one"),
        ("strange", "{\"name\":\"a\",\"scopes\":[],\"key\":\"b\"}\n".to_owned(), "no backup"),
        ("empty", String::new(), "no backup"),
    ] {
        let file = private(name, &content);
        let _ = restore(&site, &file, &["--replace", "--unverified"]).await.exit(1).says(&[name, word, "Nothing"]);
    }
    let missing = site.path("missing");
    let _ = restore(&site, &missing, &[]).await.exit(1).says(&["cannot read", "missing"]);

    // Another pepper under the same name, one that is not there, and none.
    let file = site.path("whole");
    site.rewrite_config(&scene::shop_config("", OTHER_PEPPER));
    let _ = restore(&site, &file, &["--replace"]).await.exit(1).says(&["seal", "pepper `one`"]);
    site.rewrite_config(&scene::shop_config("", &OTHER_PEPPER.replace("id: one", "id: two")));
    let _ = restore(&site, &file, &["--replace"]).await.exit(1).says(&["pepper `one`", "auth.peppers", "--unverified"]);
    site.rewrite_config(&scene::shop_config("", ""));
    let _ = restore(&site, &file, &["--replace"]).await.exit(1).says(&["pepper `one`"]);
    let accepted = restore(&site, &file, &["--replace", "--unverified"]).await.success();
    let _ = accepted.says(&["1 key needs pepper one"]);
    let _ = backup(&site, "unsealed").await;
    site.rewrite_config(&scene::shop_config("", PEPPER));
    let _ = restore(&site, &site.path("unsealed"), &["--replace"]).await.exit(1).says(&["no seal", "--unverified"]);

    // Others' hands: a seal shows what they did, and without one nothing does.
    let mode = |file: &Path, mode| std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(&file, 0o660);
    let _ = restore(&site, &file, &["--replace"]).await.success().says(&["others may read", "chmod 600"]);
    let file = site.path("unsealed");
    mode(&file, 0o660);
    for more in [&["--replace", "--unverified"][..], &["--replace"]] {
        let _ = restore(&site, &file, more).await.exit(1).says(&["others may have changed", "chmod 600"]);
        site.rewrite_config(&scene::shop_config("", ""));
    }
    mode(&file, 0o644);
    let _ = restore(&site, &file, &["--replace"]).await.success().says(&["others may read", "chmod 600"]);
    assert_eq!(ids(&site).await, [key.id]);
}

/// A gateway that waits for its store never sees an empty one.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_lost_its_store_gets_it_back_without_a_gap() {
    let (gateway, _origin) = scene::shop().await;
    let key = gateway.key("kept", "read:orders").await;
    let _ = backup(&gateway, "one").await;
    eventually!("a snapshot is on the disk", {
        gateway.metrics().await.value("portcullis_snapshot_up", &[]) == Some(1.0)
    });
    assert_eq!(gateway.stop().await, 0);
    for name in beside(&gateway.path("data/portcullis.db")) {
        if name.contains(".db") {
            std::fs::remove_file(gateway.path("data").join(name)).unwrap();
        }
    }
    let gateway = gateway.site().start().await;
    gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
    let restoring = {
        let site = gateway.site().clone();
        tokio::spawn(async move { restore(&site, &site.path("one"), &[]).await })
    };
    while !restoring.is_finished() {
        gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
    }
    let _ = restoring.await.unwrap().success();
    eventually!("the store is used again", { gateway.metrics().await.value("portcullis_store_up", &[]) == Some(1.0) });
    let later = gateway.key("later", "read:orders").await;
    eventually!("a new key works", gives(&gateway, &later, 200).await);
    gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
}

/// Killed at any moment, a restore has done all of it or nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_killed_leaves_all_of_it_or_nothing() {
    let (site, _origin) = closed("").await;
    let rows: String = (0..20_000)
        .map(|n| format!("{{\"name\":\"n{n}\",\"scopes\":[],\"key\":\"legacy-of-old-{n:08}\"}}\n"))
        .collect();
    let rows = site.write("rows.jsonl", rows);
    let _ = site.cli(&["keys", "import", rows.to_str().unwrap()]).await.success();
    let _ = backup(&site, "many").await;
    std::fs::remove_dir_all(site.path("data")).unwrap();
    let _ = site.create_key("few", "").await;
    let file = site.path("many");
    let mut done = 0;
    for step in 0..8_u64 {
        let mut child = std::process::Command::new(site.binary())
            .args(["-c", site.config_path().to_str().unwrap(), "store", "restore", "--replace", file.to_str().unwrap()])
            .current_dir(site.directory())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(100 + 150 * step)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let count = rusqlite::Connection::open(site.path("data/portcullis.db"))
            .unwrap()
            .query_row("SELECT count(*) FROM keys", [], |row| row.get::<_, i64>(0))
            .unwrap();
        assert!(count == 1 || count == 20_000, "step {step}: {count}");
        done += usize::from(count == 20_000);
        let _ = site.cli(&["audit", "verify"]).await.success();
    }
    let _ = restore(&site, &file, &["--replace"]).await.success();
    assert_eq!(
        site.cli(&["keys", "list", "--output", "json"]).await.success().json().as_array().unwrap().len(),
        20_000
    );
    println!("{done} of 8 restores were done when they were killed");
}
