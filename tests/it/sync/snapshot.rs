//! A gateway that starts while its store is away: it knows what it acknowledged, takes nothing back, and catches up.
//!
//! `PORTCULLIS_TEST_SNAPSHOT_KILLS` says how often one is killed (default 25).

use std::time::Duration;

use portcullis_testkit::{Call, Gateway, Key, KeySpec, Site, eventually, key_text};
use serde_json::{Value, json};

use crate::besieged::scaled;
use crate::scene;

/// Moves the store's files out of the way, or back.
fn move_store(site: &Site, from: &str, to: &str) {
    std::fs::create_dir_all(site.path(to)).unwrap();
    for entry in std::fs::read_dir(site.path(from)).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("portcullis.db") || name.starts_with("portcullis-usage") || name.contains(".db") {
            std::fs::rename(entry.path(), site.path(to).join(&name)).unwrap();
        }
    }
}

async fn start(site: &Site) -> Gateway {
    let gateway = site.launch(&["run"]);
    gateway.ready().await;
    gateway
}

async fn operator(site: &Site) -> Key {
    site.create(KeySpec::new("operator", "portcullis:keys").kind("management").option("--may-grant", "*")).await
}

fn tell(gateway: &Gateway, operator: &Key, method: &str, path: &str, body: &Value) -> Call {
    let call = Call::to(gateway.admin_address(), method, path).bearer(operator);
    match body {
        Value::Null => call,
        body => call.header("content-type", "application/json").body(body.to_string()),
    }
}

/// Returns once a restart would find everything that this gateway acknowledged.
async fn until_kept(gateway: &Gateway) {
    eventually!("a snapshot is on the disk", {
        gateway.metrics().await.value("portcullis_snapshot_up", &[]) == Some(1.0)
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_starts_without_its_store_and_catches_up_when_it_is_back() {
    let (site, _origin) = scene::closed_shop().await;
    let operator = operator(&site).await;
    let known = site.create(KeySpec::new("known", "read:orders")).await;
    let revoked = site.create(KeySpec::new("revoked", "read:orders")).await;
    let later = site.create(KeySpec::new("later", "read:orders")).await;
    let gateway = start(&site).await;
    tell(&gateway, &operator, "DELETE", &format!("/v1/keys/{}", revoked.id), &Value::Null).await.expect(200);
    until_kept(&gateway).await;
    assert_eq!(gateway.stop().await, 0);
    move_store(&site, "data", "elsewhere");

    let gateway = start(&site).await;
    gateway.get("/v1/orders/1").bearer(&known).await.expect(200);
    gateway.get("/v1/orders/1").bearer(&later).await.expect(200);
    gateway.get("/v1/orders/1").bearer(&revoked).await.refused(401, "invalid_key");
    let unknown = key_text::forged("pc_live_sk_", 'U');
    gateway.get("/v1/orders/1").header("x-api-key", &unknown).await.refused(401, "invalid_key");
    gateway.get("/v1/orders/1").await.refused(401, "missing_credential");
    let body = json!({ "name": "new", "scopes": [] });
    let answer = tell(&gateway, &operator, "POST", "/v1/keys", &body).await.expect(503);
    assert_eq!(answer.json()["code"], "store_unavailable", "{}", answer.text());
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.value("portcullis_store_up", &[]), Some(0.0));
    assert_eq!(gateway.health("/readyz").await.0, 200, "it has keys to decide by");
    assert!(!site.path("data/portcullis.db").exists(), "a store that is missed is not made anew");

    move_store(&site, "elsewhere", "data");
    let _ = site.cli(&["keys", "revoke", &later.id]).await.success();
    eventually!("it is caught up with", gateway.get("/v1/orders/1").bearer(&later).await.status == 401);
    tell(&gateway, &operator, "POST", "/v1/keys", &body).await.expect(201);
    gateway.get("/v1/orders/1").bearer(&known).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_told_of_loudly_and_survived() {
    let (site, _origin) = scene::closed_shop().await;
    let known = site.create(KeySpec::new("known", "read:orders")).await;
    let gateway = start(&site).await;
    until_kept(&gateway).await;
    assert_eq!(gateway.stop().await, 0);
    move_store(&site, "data", "elsewhere");
    std::fs::write(site.path("data/portcullis.db"), "this is no database any more ".repeat(500)).unwrap();

    let gateway = start(&site).await;
    gateway.get("/v1/orders/1").bearer(&known).await.expect(200);
    eventually!("it is told", {
        let lines = gateway.logs().text();
        lines.contains("the store cannot be opened") && lines.contains("data/snapshot")
    });
    std::fs::remove_file(site.path("data/portcullis.db")).unwrap();
    move_store(&site, "elsewhere", "data");
    let late = gateway.key("late", "read:orders").await;
    eventually!("it is used again", gateway.get("/v1/orders/1").bearer(&late).await.status == 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_revocation_is_taken_back_by_a_kill_and_a_start_without_the_store() {
    let kills = scaled("PORTCULLIS_TEST_SNAPSHOT_KILLS", 25);
    let (site, _origin) = scene::closed_shop().await;
    let operator = operator(&site).await;
    let mut alive = Vec::new();
    for number in 0..kills + 4 {
        alive.push(site.create(KeySpec::new(&format!("k{number}"), "read:orders")).await);
    }
    let mut dead: Vec<Key> = Vec::new();
    for round in 0..kills {
        let gateway = start(&site).await;
        until_kept(&gateway).await;
        let going = alive.pop().unwrap();
        let mut under_way = Vec::new();
        for number in 0..4 {
            let body = json!({ "name": format!("{round}.{number}"), "scopes": ["read:orders"] });
            under_way.push(tokio::spawn(tell(&gateway, &operator, "POST", "/v1/keys", &body).attempt()));
        }
        tell(&gateway, &operator, "DELETE", &format!("/v1/keys/{}", going.id), &Value::Null).await.expect(200);
        gateway.kill();
        dead.push(going);
        for answer in under_way {
            if let Ok(Ok(answer)) = answer.await
                && answer.status == 201
            {
                site.vault().keep(answer.json()["key"].as_str().unwrap());
            }
        }
        move_store(&site, "data", "elsewhere");
        let gateway = start(&site).await;
        for key in dead.iter().rev().take(5) {
            gateway.get("/v1/orders/1").bearer(key).await.refused(401, "invalid_key");
        }
        gateway.get("/v1/orders/1").bearer(alive.last().unwrap()).await.expect(200);
        gateway.kill();
        move_store(&site, "elsewhere", "data");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_expires_while_the_store_is_away_is_refused_after_a_restart() {
    let (site, _origin) = scene::closed_shop().await;
    let short = site.create(KeySpec::new("short", "read:orders").option("--expires-in", "4s")).await;
    let gateway = start(&site).await;
    until_kept(&gateway).await;
    gateway.kill();
    move_store(&site, "data", "elsewhere");
    let gateway = start(&site).await;
    eventually!("it expires", gateway.get("/v1/orders/1").bearer(&short).await.status == 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_does_not_make_an_old_key_set_young() {
    let origin = portcullis_testkit::Origin::start().await;
    let config = scene::shop_config("", "sync: { max_staleness: 2s, poll_interval: 50ms }");
    let site = scene::site(&config).upstream("shop", &origin).prepare();
    let known = site.create(KeySpec::new("known", "read:orders")).await;
    let gateway = start(&site).await;
    until_kept(&gateway).await;
    gateway.kill();
    move_store(&site, "data", "elsewhere");
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let gateway = start(&site).await;
    gateway.get("/v1/orders/1").bearer(&known).await.refused(503, "auth_unavailable");
    gateway.get("/status").await.expect(200);
    move_store(&site, "elsewhere", "data");
    eventually!("it decides again", gateway.get("/v1/orders/1").bearer(&known).await.status == 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_can_keep_no_snapshot_says_so_and_runs() {
    let (site, _origin) = scene::closed_shop().await;
    let key = site.create(KeySpec::new("known", "read:orders")).await;
    std::fs::write(site.path("data/snapshot"), "a file where a directory should be").unwrap();
    let gateway = start(&site).await;
    gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
    eventually!("it is told", gateway.logs().text().contains("no snapshot can be kept in"));
    assert_eq!(gateway.metrics().await.value("portcullis_snapshot_up", &[]), Some(0.0));
    // And changes are acknowledged as ever.
    let late = gateway.key("late", "read:orders").await;
    gateway.get("/v1/orders/1").bearer(&late).await.expect(200);
}
