//! The database goes away: keys that are known go on working, and it is used again when it is back.

use std::time::{Duration, Instant};

use portcullis_testkit::{
    Call, Origin, Response, Side, Wire, eventually, key_text, own_postgres_or_left_out, patient, postgres_or_left_out,
};
use serde_json::json;

use super::{operator, prepare, shop, site};

#[tokio::test(flavor = "multi_thread")]
async fn known_keys_are_served_while_the_server_is_stopped_and_it_is_used_again() {
    let Some(server) = own_postgres_or_left_out(&[]) else { return };
    let database = server.database();
    let (gateway, _origin) = shop(&database, "").await;
    let key = gateway.key("known", "read:orders").await;
    let operator = operator(&gateway).await;
    let unknown = key_text::forged("pc_live_sk_", 'U');
    let create = || {
        Call::to(gateway.admin_address(), "POST", "/v1/keys")
            .bearer(&operator)
            .header("content-type", "application/json")
            .body(json!({ "name": "new", "scopes": [] }).to_string())
    };
    server.stop();
    eventually!("the gateway has noticed", { gateway.metrics().await.value("portcullis_store_up", &[]) == Some(0.0) });
    for _ in 0..20 {
        gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
        gateway.get("/v1/orders/1").header("x-api-key", &unknown).await.refused(401, "invalid_key");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = create().await.expect(503);
    assert!(!refused.text().contains(&database.name), "{}", refused.text());
    assert_eq!(gateway.health("/readyz").await.0, 200, "the key set is loaded");
    let _ = gateway.cli(&["keys", "list"]).await.exit(4).says(&["store.url"]);

    server.launch().unwrap();
    eventually!("it is used again", { gateway.metrics().await.value("portcullis_store_up", &[]) == Some(1.0) });
    let made = create().await.expect(201).json();
    gateway.site().vault().keep(made["key"].as_str().unwrap());
    let late = gateway.create_key("late", "read:orders").await;
    eventually!("changes arrive again", gateway.get("/v1/orders/1").bearer(&late).await.status == 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_left_in_order_is_not_ready_until_the_store_has_confirmed_what_it_knows() {
    let Some(server) = own_postgres_or_left_out(&[]) else { return };
    let database = server.database();
    let (gateway, _origin) = shop(&database, "").await;
    let key = gateway.key("known", "read:orders").await;
    let kept = || async { gateway.metrics().await.value("portcullis_snapshot_up", &[]) == Some(1.0) };
    eventually!("the key is on the disk", kept().await);
    assert_eq!(gateway.stop().await, 0);
    server.stop();
    let again = gateway.site().launch(&["run"]);
    let front = again.listener("front").await;
    let (status, why) = again.health("/readyz").await;
    assert!(status == 503 && why.contains("had left its fleet"), "{status} {why}");
    assert_eq!(again.health("/livez").await.0, 200);
    Call::to(front, "GET", "/v1/orders/1").bearer(&key).await.refused(503, "auth_unavailable");
    Call::to(front, "GET", "/status").await.expect(200);
    let lag = again.metrics().await.value("portcullis_sync_lag_seconds", &[]).unwrap();
    assert!((0.0..3600.0).contains(&lag), "{lag}");

    server.launch().unwrap();
    again.ready().await;
    Call::to(front, "GET", "/v1/orders/1").bearer(&key).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_may_not_be_among_the_nodes_hears_nothing_and_says_why() {
    let Some(server) = postgres_or_left_out() else { return };
    let database = server.database();
    let (gateway, _origin) = shop(&database, "").await;
    let key = gateway.key("known", "read:orders").await;
    let role = &database.name;
    let _ = server.sql(role, &format!("REVOKE INSERT, UPDATE ON portcullis.nodes FROM {role}"));
    // Something to report, whether or not it is heard of before the first report is refused.
    let first = gateway.create_key("first", "").await;
    eventually!("it is as if the store were away", within Duration::from_secs(20), {
        gateway.metrics().await.value("portcullis_store_up", &[]) == Some(0.0)
    });
    gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
    let log = gateway.logs();
    eventually!("it is told why", {
        let text = log.text();
        text.contains("permission denied") && text.contains("the list of nodes") && text.contains("docs/postgresql.md")
    });
    // Nor does one that was never listed: it begins with what it had on disk.
    gateway.kill();
    let _ = server.sql(role, "DELETE FROM portcullis.nodes");
    let gateway = gateway.site().start().await;
    gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
    let late = gateway.create_key("late", "").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    gateway.get("/me").bearer(&late).await.expect(401);
    assert_eq!(gateway.metrics().await.value("portcullis_store_up", &[]), Some(0.0));
    let _ = server.sql(role, &format!("GRANT INSERT, UPDATE ON portcullis.nodes TO {role}"));
    for key in [&first, &late] {
        eventually!("it hears of changes again", within Duration::from_secs(20), {
            gateway.get("/me").bearer(key).await.status == 200
        });
    }
    assert_eq!(server.sql(role, "SELECT count(*) FROM portcullis.nodes"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_dies_without_a_word_slows_no_request() {
    let Some(server) = postgres_or_left_out() else { return };
    let database = server.database();
    let wire = Wire::to(([127, 0, 0, 1], server.port()).into()).await;
    let origin = Origin::start().await;
    let through = database.url_at(&wire.address().to_string());
    let gateway = prepare(site(&through, ", connect_timeout: 1s", ""), &database, &origin).start().await;
    let key = gateway.key("known", "read:orders").await;
    wire.freeze();
    for _ in 0..20 {
        let started = Instant::now();
        gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
        assert!(started.elapsed() < patient(Duration::from_millis(500)), "{:?}", started.elapsed());
    }
    eventually!("the gateway has noticed", within Duration::from_secs(20), {
        gateway.metrics().await.value("portcullis_store_up", &[]) == Some(0.0)
    });
    gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
    // What is frozen stays so: only new connections help.
    wire.cut();
    wire.mend();
    let late = gateway.create_key("late", "read:orders").await;
    eventually!("changes arrive again", within Duration::from_secs(20), {
        gateway.get("/v1/orders/1").bearer(&late).await.status == 200
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wire_that_is_cut_at_any_moment_of_a_change_is_told_of_truthfully() {
    let Some(server) = postgres_or_left_out() else { return };
    let database = server.database();
    let wire = Wire::to(([127, 0, 0, 1], server.port()).into()).await;
    let origin = Origin::start().await;
    let through = database.url_at(&wire.address().to_string());
    let gateway = prepare(site(&through, "", ""), &database, &origin).start().await;
    let operator = operator(&gateway).await;
    let named = async |name: &str| {
        let listed = gateway.cli(&["keys", "list", "--output", "json"]).await.success().json();
        listed.as_array().unwrap().iter().filter(|key| key["name"] == name).count()
    };
    let create = |name: &str| {
        Call::to(gateway.admin_address(), "POST", "/v1/keys")
            .bearer(&operator)
            .header("content-type", "application/json")
            .header("idempotency-key", name)
            .body(json!({ "name": name, "scopes": [] }).to_string())
    };
    // What it said, and how many keys there were then.
    let judge = async |name: &str, answer: Response| {
        wire.mend();
        let code = match answer.status {
            // 202: made, and not heard of by this gateway itself, as the wire is cut.
            201 | 202 => "done".to_owned(),
            503 => answer.json()["code"].as_str().unwrap().to_owned(),
            _ => panic!("{answer:?}"),
        };
        let made = named(name).await;
        match code.as_str() {
            "store_unavailable" => assert_eq!(made, 0, "{name}: nothing was changed, it said"),
            "done" => assert_eq!(made, 1, "{name}: it is done, it said"),
            "outcome_unknown" => {}
            other => panic!("{other}"),
        }
        eventually!("it is done in the end", {
            let again = create(name).await;
            if again.status == 201 {
                gateway.site().vault().keep(again.json()["key"].as_str().unwrap());
            }
            again.status == 201
        });
        assert_eq!(named(name).await, 1, "{name}: once, whatever was told");
        (code, made)
    };

    // At any moment of it: every answer takes 20 ms.
    let mut told = Vec::new();
    for step in 0..14_u32 {
        let name = format!("moment-{step}");
        wire.slow(Duration::from_millis(10));
        let asked = tokio::spawn(create(&name).attempt());
        tokio::time::sleep(Duration::from_millis(90) * step).await;
        wire.cut();
        told.push(judge(&name, asked.await.unwrap().unwrap()).await.0);
    }
    assert!(told.iter().any(|code| code == "store_unavailable"), "{told:?}");

    // And at the one moment that nobody can tell from outside.
    for (side, in_the_store) in [(Side::Before, 0), (Side::After, 1)] {
        let name = format!("commit-{side:?}");
        wire.cut_at(&[&name, "COMMIT"], side);
        let answer = create(&name).await;
        assert_eq!(judge(&name, answer).await, ("outcome_unknown".to_owned(), in_the_store), "{side:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_counted_is_added_once_although_the_answer_to_its_commit_is_lost() {
    let Some(server) = postgres_or_left_out() else { return };
    for (table, requests) in [("quota_counts", 7), ("counts", 11)] {
        for side in [Side::Before, Side::After] {
            let database = server.database();
            let wire = Wire::to(([127, 0, 0, 1], server.port()).into()).await;
            let origin = Origin::start().await;
            let through = database.url_at(&wire.address().to_string());
            let quota = "environments: { live: { quota: { per_day: 1000 } } }\nsync: { last_used_flush: 1s }";
            let gateway = prepare(site(&through, "", quota), &database, &origin).start().await;
            let key = gateway.key("counted", "read:orders").await;
            wire.cut_at(&[&format!("INSERT INTO portcullis.{table} "), "COMMIT"], side);
            for _ in 0..requests {
                gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
            }
            let select = format!("SELECT coalesce(sum(requests), 0) FROM portcullis.{table}");
            let counted = || server.sql(&database.name, &select).trim().parse::<u64>().unwrap();
            eventually!("the wire is cut", within Duration::from_secs(20), wire.is_cut());
            let there = counted();
            assert_eq!(there > 0, side == Side::After, "{table}, {side:?}: {there}");
            wire.mend();
            gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
            eventually!("the rest arrives", within Duration::from_secs(30), counted() > requests);
            // Whatever would be added twice is by now.
            tokio::time::sleep(Duration::from_millis(2500)).await;
            assert_eq!(counted(), requests + 1, "{table}, {side:?}");
        }
    }
}
