//! The store goes away: keys that are known go on working, unknown ones are refused, and it comes back by itself.
//!
//! `PORTCULLIS_TEST_OUTAGE_SECONDS` says for how long it is gone under load (default 1).

use std::time::{Duration, Instant};

use portcullis_testkit::{Gateway, eventually, key_text};

use crate::besieged::scaled;
use crate::{figures, scene};

/// Moves the store's files out of the way, or back.
fn move_store(gateway: &Gateway, from: &str, to: &str) {
    std::fs::create_dir_all(gateway.path(to)).unwrap();
    for entry in std::fs::read_dir(gateway.path(from)).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with("portcullis.db") {
            std::fs::rename(entry.path(), gateway.path(to).join(&name)).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn known_keys_are_served_while_the_store_is_gone() {
    let (gateway, origin) = scene::shop().await;
    let key = gateway.key("known", "read:orders").await;
    let unknown = key_text::forged("pc_live_sk_", 'U');
    move_store(&gateway, "data", "elsewhere");
    let (gone, mut asked) = (Instant::now(), 0);
    let away = Duration::from_secs(scaled("PORTCULLIS_TEST_OUTAGE_SECONDS", 1) as u64);
    while gone.elapsed() < away {
        gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
        gateway.get("/v1/orders/1").header("x-api-key", &unknown).await.refused(401, "invalid_key");
        asked += 1;
        origin.forget();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    figures::note(&format!("no store for {away:?}"), "failed with known keys", format!("0 of {asked}"), "0", true);
    assert_eq!(gateway.health("/readyz").await.0, 200, "the key set is loaded");
    move_store(&gateway, "elsewhere", "data");
    let late = gateway.create_key("late", "read:orders").await;
    eventually!("changes arrive again", gateway.get("/v1/orders/1").bearer(&late).await.status == 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_store_does_not_slow_a_request() {
    let (gateway, _origin) = scene::shop().await;
    let key = gateway.key("known", "read:orders").await;
    let holder = rusqlite::Connection::open(gateway.path("data/portcullis.db")).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    for _ in 0..30 {
        let started = Instant::now();
        gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
        let took = started.elapsed();
        assert!(took < portcullis_testkit::patient(Duration::from_millis(500)), "{took:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    holder.execute_batch("ROLLBACK").unwrap();
    drop(holder);
    let late = gateway.create_key("late", "read:orders").await;
    eventually!("changes arrive again", gateway.get("/v1/orders/1").bearer(&late).await.status == 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_set_older_than_allowed_answers_503_and_never_401() {
    let (gateway, origin) = scene::shop_with("", "sync: { max_staleness: 1s, poll_interval: 50ms }").await;
    let key = gateway.key("known", "read:orders").await;
    move_store(&gateway, "data", "elsewhere");
    std::fs::write(gateway.path("data/portcullis.db"), "this is no database any more ".repeat(500)).unwrap();
    eventually!("the gateway stops deciding by it", { gateway.get("/v1/orders/1").bearer(&key).await.status == 503 });
    let refused = gateway.get("/v1/orders/1").bearer(&key).await.refused(503, "auth_unavailable");
    assert!(refused.header("retry-after").is_some());
    let unknown = key_text::forged("pc_live_sk_", 'U');
    gateway.get("/v1/orders/1").header("x-api-key", &unknown).await.refused(503, "auth_unavailable");
    origin.forget();
    gateway.get("/status").await.expect(200);
    assert_eq!(gateway.metrics().await.value("portcullis_store_up", &[]), Some(0.0));

    std::fs::remove_file(gateway.path("data/portcullis.db")).unwrap();
    move_store(&gateway, "elsewhere", "data");
    eventually!("it decides again", gateway.get("/v1/orders/1").bearer(&key).await.status == 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_says_for_itself_how_old_the_key_set_may_be() {
    let routes = r#"
  - { path: "/payments/**", upstream: shop, auth: any_key, max_staleness: 1s }
  - { path: "/catalogue/**", upstream: shop, auth: any_key, max_staleness: 1s, on_stale: serve }
  - { path: "/orders/**", upstream: shop, auth: any_key }
"#;
    let (gateway, _origin) = scene::shop_with(routes, "sync: { max_staleness: 1h, poll_interval: 50ms }").await;
    let key = gateway.key("known", "read:orders").await;
    move_store(&gateway, "data", "elsewhere");
    std::fs::write(gateway.path("data/portcullis.db"), "this is no database any more ".repeat(500)).unwrap();
    eventually!("payments stop", gateway.get("/payments/1").bearer(&key).await.status == 503);
    gateway.get("/payments/1").bearer(&key).await.refused(503, "auth_unavailable");
    gateway.get("/catalogue/1").bearer(&key).await.expect(200);
    gateway.get("/orders/1").bearer(&key).await.expect(200);
    let unknown = key_text::forged("pc_live_sk_", 'U');
    gateway.get("/catalogue/1").header("x-api-key", &unknown).await.refused(401, "invalid_key");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_store_starts_empty_and_has_no_command_line() {
    let (gateway, _origin) = scene::shop_with("", "store: { driver: memory }").await;
    let unknown = key_text::forged("pc_live_sk_", 'U');
    gateway.get("/me").header("x-api-key", &unknown).await.refused(401, "invalid_key");
    let _ = gateway.cli(&["keys", "create", "--name", "x", "--scopes", ""]).await.exit(2).says(&["memory"]);
    let _ = gateway.cli(&["keys", "list"]).await.exit(2).says(&["memory"]);
    assert!(!gateway.path("data/portcullis.db").exists());
}
