//! What was acknowledged survives a process that is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portcullis_testkit::{Call, Connection, Gateway, Key, Origin, Response};
use serde_json::{Value, json};

use super::{ALL, Shop};
use crate::besieged::scaled;
use crate::scene;

/// How often the gateway is killed; `PORTCULLIS_TEST_KILLS` makes it more.
fn kills() -> usize {
    scaled("PORTCULLIS_TEST_KILLS", 200)
}

/// How many changes are made under load; `PORTCULLIS_TEST_CHANGES` makes it more.
fn changes() -> usize {
    scaled("PORTCULLIS_TEST_CHANGES", 600)
}

/// Asks with each of some keys, over one connection, and expects a status.
async fn ask_with(gateway: &Gateway, keys: &[Key], status: u16) {
    let mut connection = Connection::h1(gateway.data()).await;
    for key in keys {
        let answer = connection.send(Call::to(gateway.data(), "GET", "/v1/orders/7").bearer(key)).await;
        assert_eq!(answer.status, status, "{}: {answer:?}", key.id);
    }
}

/// The key that an answer shows. Nobody watches for it: there are more of them than answers can be searched for.
fn unwatched(answer: &Response) -> Key {
    let record = answer.json();
    let text = |field: &str| record[field].as_str().unwrap_or_else(|| panic!("no {field}: {record}")).to_owned();
    Key { id: text("id"), text: text("key"), prefix: text("prefix"), record: record.clone() }
}

/// The last of some keys: those that a kill may have lost.
fn last(keys: &[Key]) -> &[Key] {
    &keys[keys.len().saturating_sub(24)..]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_key_works_and_every_acknowledged_revocation_holds_after_kill_9() {
    let (site, _origin) = scene::closed_shop().await;
    let operator = portcullis_testkit::KeySpec::new("operator", ALL).kind("management").option("--may-grant", "*");
    let operator = site.create(operator).await;
    let open = async || {
        let gateway = site.launch(&["run"]);
        let shop = Shop { gateway, origin: Origin::start().await, operator: operator.clone() };
        shop.gateway.ready().await;
        shop
    };
    let (mut alive, mut dead): (Vec<Key>, Vec<Key>) = (Vec::new(), Vec::new());
    let mut created = 0;
    for round in 0..kills() {
        let shop = open().await;
        ask_with(&shop.gateway, last(&dead), 401).await;
        ask_with(&shop.gateway, last(&alive), 200).await;
        let mut under_way = Vec::new();
        for number in 0..8 {
            let body = json!({ "name": format!("{round}.{number}"), "scopes": ["read:orders"] });
            under_way.push(tokio::spawn(shop.tell("POST", "/v1/keys", &body).attempt()));
        }
        let leaving = alive.drain(..alive.len().min(4)).collect::<Vec<_>>();
        let mut revoking = Vec::new();
        for key in leaving {
            let call = shop.tell("DELETE", &format!("/v1/keys/{}", key.id), &Value::Null);
            revoking.push((key, tokio::spawn(call.attempt())));
        }
        tokio::time::sleep(Duration::from_millis(7 * (round as u64 % 12))).await;
        shop.gateway.kill();
        for answer in under_way {
            if let Ok(Ok(answer)) = answer.await
                && answer.status == 201
            {
                alive.push(unwatched(&answer));
                created += 1;
            }
        }
        for (key, answer) in revoking {
            match answer.await {
                Ok(Ok(answer)) if answer.status == 200 => dead.push(key),
                // Whether it was carried out is not known, so nothing is promised.
                _ => {}
            }
        }
    }
    let shop = open().await;
    ask_with(&shop.gateway, &dead, 401).await;
    ask_with(&shop.gateway, &alive, 200).await;
    assert!(created > 0 && !dead.is_empty(), "{created} created, {} revoked", dead.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_at_once_lose_nothing_under_load() {
    const CLIENTS: usize = 32;
    let each = changes().div_ceil(3 * CLIENTS);
    let shop = Arc::new(Shop::open().await);
    let reader = shop.make(json!({ "name": "reader", "scopes": ["read:orders"] })).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..2)
        .map(|_| {
            let (shop, reader, is_over) = (Arc::clone(&shop), reader.clone(), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut connection = Connection::h1(shop.gateway.data()).await;
                let mut answered = 0_u64;
                while !is_over.load(Ordering::Relaxed) {
                    let answer = connection.send(shop.gateway.get("/v1/orders/7").bearer(&reader)).await;
                    assert_eq!(answer.status, 200, "{answer:?}");
                    answered += 1;
                }
                answered
            })
        })
        .collect();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let shop = Arc::clone(&shop);
            tokio::spawn(async move {
                for number in 0..each {
                    let data = shop.gateway.data();
                    let ask = |key: &Key| Call::to(data, "GET", "/v1/orders/7").bearer(key);
                    let body = json!({ "name": format!("{client}.{number}"), "scopes": ["read:orders"] });
                    let key = unwatched(&shop.tell("POST", "/v1/keys", &body).await.expect(201));
                    ask(&key).await.expect(200);
                    let path = format!("/v1/keys/{}", key.id);
                    let rotated =
                        shop.tell("POST", &format!("{path}/rotate"), &json!({ "grace": "0" })).await.expect(201);
                    let rotated = unwatched(&rotated);
                    ask(&key).await.refused(401, "invalid_key");
                    ask(&rotated).await.expect(200);
                    shop.tell("DELETE", &format!("/v1/keys/{}", rotated.id), &Value::Null).await.expect(200);
                    ask(&rotated).await.refused(401, "invalid_key");
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    for load in load {
        assert!(load.await.unwrap() > 0);
    }
    let (mut seen, mut cursor) = (0, String::new());
    loop {
        let list = shop.tell("GET", &format!("/v1/keys?limit=1000{cursor}"), &Value::Null).await.expect(200).json();
        seen += list["data"].as_array().unwrap().len();
        match list["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, 2 + 2 * CLIENTS * each);
}
