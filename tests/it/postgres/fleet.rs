//! A key's life on a database, alone and among several gateways.

use std::time::{Duration, Instant};

use portcullis_testkit::{Gateway, Key, eventually, own_postgres_or_left_out, patient, postgres_or_left_out};

use super::{operator, prepare, shop, site};

/// How long after a command's return the gateways may still not know, with the next poll seconds away.
const BOUND: Duration = Duration::from_millis(500);
/// So seldom that a change within the bound was heard of.
const SELDOM: &str = "sync: { poll_interval: 10s, last_used_flush: 1s }";

/// Asks until the answer has this status, and says how long that took.
async fn until(gateway: &Gateway, key: &Key, status: u16) -> Duration {
    let started = Instant::now();
    eventually!(format!("{status} is answered"), within Duration::from_secs(30), {
        gateway.get("/me").bearer(key).await.status == status
    });
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_lives_its_life_on_a_database() {
    let Some(server) = postgres_or_left_out() else { return };
    let database = server.database();
    let (gateway, _origin) = shop(&database, "sync: { last_used_flush: 1s }").await;
    let key = gateway.key("first", "read:orders").await;
    gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
    gateway.post("/v1/orders/1").bearer(&key).await.expect(403);
    eventually!("last use is written", gateway.show_key(&key.id).await["last_used_at"].is_string());
    eventually!("usage is counted", {
        let usage = gateway.cli(&["keys", "usage", &key.id, "--output", "json"]).await.success();
        usage.stdout.contains("GET /v1/orders/**")
    });
    let _ = gateway.cli(&["keys", "revoke", &key.id]).await.success();
    until(&gateway, &key, 401).await;
    let _ = gateway.cli(&["audit", "list"]).await.success().says(&["key.create", "key.revoke"]);
    let _ = gateway.cli(&["audit", "verify"]).await.success();
    let shown = gateway.cli(&["config", "show", "--effective"]).await.success();
    assert!(shown.stdout.contains("<redacted>@127.0.0.1"), "{}", shown.stdout);
    // Restarted, it is as it was.
    assert_eq!(gateway.stop().await, 0);
    let again = gateway.site().start().await;
    again.get("/v1/orders/1").bearer(&key).await.expect(401);
    let rows = server.sql(&database.name, "SELECT * FROM portcullis.keys, portcullis.audit");
    assert!(rows.contains("first") && !rows.contains(&key.text), "hashes alone are kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_found_without_a_look_at_every_key() {
    // Of a table that nobody has analysed the server thinks what it likes.
    let explain = ["session_preload_libraries = auto_explain", "auto_explain.log_min_duration = 0", "autovacuum = off"];
    let Some(server) = own_postgres_or_left_out(&explain) else { return };
    let (gateway, _origin) = shop(&server.database(), "").await;
    for name in ["one", "two", "three"] {
        let _ = gateway.key(name, "").await;
    }
    let log = server.log();
    let plans: Vec<&str> = log.split("Query Text: ").filter(|plan| plan.contains("k.revision > $1")).collect();
    assert!(plans.len() >= 3, "{log}");
    for plan in plans {
        let plan = plan.split("LOG: ").next().unwrap();
        assert!(plan.contains("keys_by_revision") && !plan.contains("Seq Scan"), "{plan}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_on_one_database_hear_of_each_others_changes() {
    let Some(server) = postgres_or_left_out() else { return };
    let database = server.database();
    let (one, origin) = shop(&database, SELDOM).await;
    let two = prepare(site(&database.url(), "", SELDOM), &database, &origin).start().await;
    // Both listen once they have waited for the first time.
    let first = one.create_key("first", "").await;
    until(&one, &first, 200).await;
    until(&two, &first, 200).await;
    let mut waits = Vec::new();
    for number in 0..5 {
        let key = one.create_key(&format!("shared {number}"), "").await;
        waits.push(until(&two, &key, 200).await);
        waits.push(until(&one, &key, 200).await);
        let _ = two.cli(&["keys", "revoke", &key.id]).await.success();
        waits.push(until(&one, &key, 401).await);
        waits.push(until(&two, &key, 401).await);
    }
    let slowest = waits.iter().max().unwrap();
    assert!(*slowest <= patient(BOUND), "the slowest took {slowest:?}: {waits:?}");

    // What the management API of one acknowledges is a change of the store; quotas and audit are one for both.
    let operator = operator(&one).await;
    until(&two, &operator, 403).await;
    let trail = two.cli(&["audit", "list", "--output", "json"]).await.success().json();
    assert!(trail.as_array().unwrap().len() >= 12, "{trail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_pepper_has_another_secret_does_not_join() {
    let Some(server) = postgres_or_left_out() else { return };
    let database = server.database();
    let pepper = |secret: &str| format!("auth: {{ peppers: [{{ id: one, secret: \"{secret}\" }}] }}");
    let (ours, others) = (pepper("pepper-one-of-thirty-two-letters"), pepper("pepper-two-of-thirty-two-letters"));
    let (one, origin) = shop(&database, &ours).await;
    // Nothing was written yet that would tell.
    let early = prepare(site(&database.url(), "", &others), &database, &origin).start().await;
    let key = one.create_key("first", "").await;
    until(&one, &key, 200).await;
    assert_eq!(early.stop().await, 0);
    let other = early.site().cli(&["run"]).await.exit(3).says(&["auth.peppers", "`one` has another secret"]);
    assert!(!other.everything().contains("letters"), "{}", other.everything());
    let _ = early.cli(&["keys", "revoke", &key.id]).await.exit(3);
    // With the right one it does.
    early.rewrite_config(&super::config("", &ours));
    let late = early.site().start().await;
    until(&late, &key, 200).await;
    let _ = one.cli(&["audit", "verify"]).await.success();
}
