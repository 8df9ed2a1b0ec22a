//! What was acknowledged survives a process that is killed.

use std::time::Duration;

use portcullis_testkit::{Key, Origin};
use serde_json::{Value, json};

use super::{ALL, Shop};
use crate::scene;

/// How often the gateway is killed; `PORTCULLIS_TEST_KILLS` makes it more.
fn kills() -> usize {
    std::env::var("PORTCULLIS_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_key_works_and_every_acknowledged_revocation_holds_after_kill_9() {
    let (site, _origin) = scene::closed_shop().await;
    let operator = portcullis_testkit::KeySpec::new("operator", ALL).kind("management").option("--may-grant", "*");
    let operator = site.create(operator).await;
    let (mut alive, mut dead): (Vec<Key>, Vec<Key>) = (Vec::new(), Vec::new());
    for round in 0..kills() {
        let gateway = site.launch(&["run"]);
        let shop = Shop { gateway, origin: Origin::start().await, operator: operator.clone() };
        shop.gateway.ready().await;
        for key in &dead {
            shop.gateway.get("/v1/orders/7").bearer(key).await.refused(401, "invalid_key");
        }
        for key in &alive {
            shop.gateway.get("/v1/orders/7").bearer(key).await.expect(200);
        }
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
        tokio::time::sleep(Duration::from_millis(35 * (round as u64 % 6))).await;
        shop.gateway.kill();
        for answer in under_way {
            if let Ok(Ok(answer)) = answer.await
                && answer.status == 201
            {
                alive.push(shop.taken(answer));
            }
        }
        for (key, answer) in revoking {
            match answer.await {
                Ok(Ok(answer)) if answer.status == 200 => dead.push(key),
                // Whether it was carried out is not known, so nothing is promised.
                _ => {}
            }
        }
        dead.truncate(40);
    }
    assert!(!alive.is_empty() && !dead.is_empty(), "{} alive, {} dead", alive.len(), dead.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_at_once_lose_nothing_under_load() {
    let shop = std::sync::Arc::new(Shop::open().await);
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let shop = std::sync::Arc::clone(&shop);
            tokio::spawn(async move {
                for number in 0..12 {
                    let key =
                        shop.make(json!({ "name": format!("{client}.{number}"), "scopes": ["read:orders"] })).await;
                    shop.gateway.get("/v1/orders/7").bearer(&key).await.expect(200);
                    let path = format!("/v1/keys/{}", key.id);
                    let rotated =
                        shop.tell("POST", &format!("{path}/rotate"), &json!({ "grace": "0" })).await.expect(201);
                    let rotated = shop.taken(rotated);
                    shop.gateway.get("/v1/orders/7").bearer(&key).await.refused(401, "invalid_key");
                    shop.gateway.get("/v1/orders/7").bearer(&rotated).await.expect(200);
                    shop.tell("DELETE", &format!("/v1/keys/{}", rotated.id), &Value::Null).await.expect(200);
                    shop.gateway.get("/v1/orders/7").bearer(&rotated).await.refused(401, "invalid_key");
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let list = shop.tell("GET", "/v1/keys?limit=1000", &Value::Null).await.expect(200).json();
    assert_eq!(list["data"].as_array().unwrap().len(), 1 + 2 * 8 * 12);
}
