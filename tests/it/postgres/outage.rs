//! The database goes away: keys that are known go on working, and it is used again when it is back.

use std::time::{Duration, Instant};

use portcullis_testkit::{
    Call, Origin, Wire, eventually, key_text, own_postgres_or_left_out, patient, postgres_or_left_out,
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
    let mut told = std::collections::BTreeMap::new();
    // Every answer takes 20 ms, so the moment of a commit is that long. First all through a change, then nearer and nearer
    // to where it is committed.
    let (mut too_early, mut too_late) = (Duration::ZERO, Duration::from_millis(1_500));
    for step in 0..40_u32 {
        let name = format!("k{step}");
        let create = || {
            Call::to(gateway.admin_address(), "POST", "/v1/keys")
                .bearer(&operator)
                .header("content-type", "application/json")
                .header("idempotency-key", &name)
                .body(json!({ "name": name, "scopes": [] }).to_string())
        };
        let after = if step < 14 { Duration::from_millis(90) * step } else { (too_early + too_late) / 2 };
        wire.slow(Duration::from_millis(10));
        let asked = tokio::spawn(create().attempt());
        tokio::time::sleep(after).await;
        wire.cut();
        let answer = asked.await.unwrap().unwrap();
        wire.mend();
        let code = match answer.status {
            // 202: made, and not heard of by this gateway itself, as the wire is cut.
            201 | 202 => "done".to_owned(),
            503 => answer.json()["code"].as_str().unwrap().to_owned(),
            _ => panic!("{answer:?}"),
        };
        match code.as_str() {
            "store_unavailable" => {
                assert_eq!(named(&name).await, 0, "nothing was changed, it said after {after:?}");
                too_early = too_early.max(after.min(too_late));
            }
            "done" => {
                assert_eq!(named(&name).await, 1, "after {after:?}");
                too_late = too_late.min(after);
                too_early = too_early.min(too_late);
            }
            "outcome_unknown" => {}
            other => panic!("{other}"),
        }
        *told.entry(code).or_insert(0) += 1;
        eventually!("it is done in the end", {
            let again = create().await;
            if again.status == 201 {
                gateway.site().vault().keep(again.json()["key"].as_str().unwrap());
            }
            again.status == 201
        });
        assert_eq!(named(&name).await, 1, "once, whatever was told after {after:?}");
        if step >= 14 && told.contains_key("outcome_unknown") {
            break;
        }
        if too_late.saturating_sub(too_early) < Duration::from_millis(3) {
            // The machine is not equally quick each time: look in a wider place.
            too_early = too_early.saturating_sub(Duration::from_millis(30));
            too_late += Duration::from_millis(30);
        }
    }
    assert!(told.contains_key("outcome_unknown"), "no cut met a commit: {told:?}");
    assert!(told.contains_key("store_unavailable"), "{told:?}");
}
