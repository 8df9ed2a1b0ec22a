//! Backups and PostgreSQL: keys move in with one from SQLite, and a fleet takes a restore for what it is.

use std::time::Duration;

use portcullis_testkit::{Gateway, Key, KeySpec, Origin, Site, eventually, postgres_or_left_out};
use serde_json::{Value, json};

use super::{prepare, shop, site};
use crate::scene;

async fn backup(site: &Site, name: &str) -> Value {
    let file = site.path(name);
    site.cli(&["store", "backup", file.to_str().unwrap(), "--output", "json"]).await.success().json()
}

async fn gives(gateway: &Gateway, key: &Key, status: u16) -> bool {
    gateway.get("/v1/orders/1").bearer(key).await.status == status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_moves_keys_from_one_sort_of_store_to_the_other_and_back() {
    let Some(server) = postgres_or_left_out() else { return };
    let database = server.database();
    let (embedded, _origin) = scene::closed_shop().await;
    let owner = embedded.cli(&["owners", "create", "--name", "acme", "--output", "json"]).await.success().json();
    let spec = KeySpec::new("moved", "read:orders").option("--owner", owner["id"].as_str().unwrap());
    let moved = embedded.create(spec.option("--allowed-ips", "127.0.0.0/8")).await;
    let gone = embedded.create_key("gone", "").await;
    let _ = embedded.cli(&["keys", "revoke", &gone.id]).await.success();
    let told = backup(&embedded, "one").await;
    let head = embedded.cli(&["audit", "verify", "--output", "json"]).await.success().json()["head"].clone();
    let record = embedded.show_key(&moved.id).await;

    let origin = Origin::start().await;
    let fleet = prepare(site(&database.url(), "", ""), &database, &origin);
    fleet.vault().keep(&moved.text);
    let file = embedded.path("one");
    let restored = fleet.cli(&["store", "restore", file.to_str().unwrap(), "--output", "json"]).await.success().json();
    assert_eq!((&restored["sha256"], &restored["trail"]), (&told["sha256"], &json!("taken")));
    let without_revision = |mut record: Value| {
        record.as_object_mut().unwrap().remove("revision");
        record
    };
    assert_eq!(without_revision(fleet.show_key(&moved.id).await), without_revision(record.clone()));
    let _ = fleet.cli(&["audit", "verify", "--head", head.as_str().unwrap()]).await.success();
    let gateway = fleet.start().await;
    gateway.get("/v1/orders/1").bearer(&moved).await.expect(200);
    gateway.get("/v1/orders/1").bearer(&gone).await.refused(401, "invalid_key");

    let later = gateway.key("later", "read:orders").await;
    let _ = backup(&gateway, "two").await;
    let back = gateway.path("two");
    let _ = embedded.cli(&["store", "restore", back.to_str().unwrap()]).await.exit(1).says(&["--replace"]);
    let restored = ["store", "restore", back.to_str().unwrap(), "--replace", "--output", "json"];
    let restored = embedded.cli(&restored).await.success().json();
    // Its own trail ends where that of the backup goes on.
    assert_eq!((&restored["keys"], &restored["trail"]), (&json!(3), &json!("replaced")));
    assert_eq!(embedded.show_key(&later.id).await["name"], "later");
    assert_eq!(without_revision(embedded.show_key(&moved.id).await)["owner"], record["owner"]);
    let _ = embedded.cli(&["audit", "verify", "--head", head.as_str().unwrap()]).await.success();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_gateway_of_a_fleet_takes_a_restore_and_revives_nothing() {
    let Some(server) = postgres_or_left_out() else { return };
    let database = server.database();
    let (first, _one) = shop(&database, "").await;
    let (second, _two) = shop(&database, "").await;
    let (kept, revoked) = (first.key("kept", "read:orders").await, first.key("revoked", "read:orders").await);
    let _ = backup(&first, "one").await;
    let later = first.key("later", "read:orders").await;
    let _ = first.cli(&["keys", "revoke", &revoked.id, "--wait-all"]).await.success();
    for gateway in [&first, &second] {
        eventually!("the fleet is there", gives(gateway, &later, 200).await);
    }
    let file = first.path("one");
    let args = ["store", "restore", file.to_str().unwrap(), "--replace", "--wait-all", "--output", "json"];
    let told = first.cli(&args).await.success().says(&["all 2 gateways enforce it"]).json();
    assert_eq!((&told["revocations_kept"], &told["trail"]), (&json!(1), &json!("kept")));
    for gateway in [&first, &second] {
        for (key, status) in [(&kept, 200), (&later, 401), (&revoked, 401)] {
            assert!(gives(gateway, key, status).await, "{}", key.id);
        }
        eventually!("it says so", gateway.logs().text().contains("the store lost commits"));
    }
    let _ = first.cli(&["audit", "verify"]).await.success();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_the_database_forgot_holds_and_is_named() {
    let Some(server) = postgres_or_left_out() else { return };
    let database = server.database();
    let (gateway, _origin) = shop(&database, "").await;
    let key = gateway.key("revoked", "").await;
    let _ = gateway.cli(&["keys", "revoke", &key.id, "--wait-all"]).await.success();
    gateway.get("/me").bearer(&key).await.expect(401);
    // As a backup from before the revocation, in which things went on.
    let uuid = key.id.rsplit_once('_').unwrap().1;
    let forget = format!(
        "UPDATE portcullis.keys SET revoked_at = NULL WHERE id = '{uuid}'; UPDATE portcullis.head SET token = 43; \
         UPDATE portcullis.revisions SET token = 43 WHERE revision = (SELECT revision FROM portcullis.head)"
    );
    let _ = server.sql(&database.name, &forget);
    let log = gateway.logs();
    eventually!("it is told which", within Duration::from_secs(20), {
        log.text().lines().any(|line| line.contains("revoke again") && line.contains(&key.id))
    });
    gateway.get("/me").bearer(&key).await.expect(401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_and_a_restore_need_the_schema_and_say_so() {
    let Some(server) = postgres_or_left_out() else { return };
    let database = server.database();
    let origin = Origin::start().await;
    let fleet = prepare(site(&database.url(), "", ""), &database, &origin);
    let file = fleet.path("one");
    let _ = fleet.cli(&["store", "backup", file.to_str().unwrap()]).await.exit(4).says(&["migrate up"]);
    let _ = fleet.create_key("one", "").await;
    let _ = backup(&fleet, "one").await;
    server.sql(&database.name, "INSERT INTO portcullis.migrations VALUES (5, 'later', 'x', 0)");
    for args in [&["store", "backup", "two"][..], &["store", "restore", "one", "--replace"]] {
        let _ = fleet.cli(args).await.exit(4).says(&["schema 5", "install a newer portcullis"]);
    }
    assert!(!fleet.path("two").exists());
}
