//! A database that is killed keeps what was acknowledged, and nothing by halves.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portcullis_testkit::{Call, Key, Response, eventually, own_postgres_or_left_out};
use rustix::process::Signal;
use serde_json::json;

use super::{operator, shop};
use crate::besieged::scaled;
use crate::figures;

/// What was said about a change.
enum Said {
    Done(Box<Response>),
    /// Nothing was changed.
    Refused,
    /// Nobody can know.
    Unknown,
}

fn said(answer: Response) -> Said {
    match answer.status {
        // 202: done, and not heard of by this gateway itself, as the database is away.
        200..=202 => Said::Done(Box::new(answer)),
        503 if answer.json()["code"] == "store_unavailable" => Said::Refused,
        503 if answer.json()["code"] == "outcome_unknown" => Said::Unknown,
        _ => panic!("{answer:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_listed_is_waited_for_after_kill_9_of_the_database() {
    // Nothing is written but by who waits for it, so what is there afterwards was waited for.
    let Some(server) = own_postgres_or_left_out(&["synchronous_commit = on", "wal_writer_delay = 10s"]) else { return };
    let database = server.database();
    let (gateway, _origin) = shop(&database, "").await;
    // It is cut off from then on.
    gateway.signal(Signal::STOP);
    tokio::task::block_in_place(|| server.crash());
    let listed = server.sql(&database.name, "SELECT count(*) FROM portcullis.nodes");
    gateway.signal(Signal::CONT);
    assert_eq!(listed, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_change_holds_after_kill_9_of_the_database() {
    // Acknowledged is what is written; that of other tests may be lost.
    let Some(server) = own_postgres_or_left_out(&["synchronous_commit = on"]) else { return };
    let database = server.database();
    let (gateway, _origin) = shop(&database, "").await;
    let operator = operator(&gateway).await;
    let answered = Arc::new(AtomicUsize::new(0));
    let tell = |method: &str, target: &str, body: String| {
        let answered = Arc::clone(&answered);
        let call = Call::to(gateway.admin_address(), method, target).bearer(&operator);
        let call = if body.is_empty() { call } else { call.header("content-type", "application/json").body(body) };
        tokio::spawn(async move {
            let answer = call.attempt().await;
            answered.fetch_add(1, Ordering::SeqCst);
            answer
        })
    };
    // Of each sort one that was acknowledged, whatever is under way when the first kill comes.
    let (mut alive, mut dead) = (vec![gateway.key("kept", "").await], vec![gateway.key("revoked", "").await]);
    tell("DELETE", &format!("/v1/keys/{}", dead[0].id), String::new()).await.unwrap().unwrap().expect(200);
    let mut told = HashMap::new();
    let kills = scaled("PORTCULLIS_TEST_DATABASE_KILLS", 8_u64);
    for round in 0..kills {
        answered.store(0, Ordering::SeqCst);
        let mut leaving = alive.drain(..alive.len().min(4)).collect::<Vec<Key>>();
        let revoke = |key: Key| (tell("DELETE", &format!("/v1/keys/{}", key.id), String::new()), key);
        let create = |name: String| (tell("POST", "/v1/keys", json!({ "name": name, "scopes": [] }).to_string()), name);
        let names = (0..8).map(|number| format!("{round}.{number}"));
        // Each sort is asked first in every other round: what is asked first is answered first, mostly.
        let early: Vec<_> = if round % 2 == 0 { Vec::new() } else { leaving.drain(..).map(revoke).collect() };
        let creating: Vec<_> = names.map(create).collect();
        let revoking: Vec<_> = early.into_iter().chain(leaving.into_iter().map(revoke)).collect();
        // Some are acknowledged, some are under way, and some are on their way to a pool that is busy.
        eventually!("some are answered", answered.load(Ordering::SeqCst) >= (round % 8) as usize);
        tokio::task::block_in_place(|| server.crash());
        for (answer, name) in creating {
            let expected = match said(answer.await.unwrap().unwrap()) {
                Said::Done(answer) => {
                    let record = answer.json();
                    let text = |field: &str| record[field].as_str().unwrap().to_owned();
                    let (id, text, prefix) = (text("id"), text("key"), text("prefix"));
                    alive.push(Key { id, text, prefix, record: record.clone() });
                    Some(1)
                }
                Said::Refused => Some(0),
                Said::Unknown => None,
            };
            told.insert(name, expected);
        }
        for (answer, key) in revoking {
            match said(answer.await.unwrap().unwrap()) {
                Said::Done(_) => dead.push(key),
                Said::Refused => alive.push(key),
                Said::Unknown => {}
            }
        }
        eventually!("the database is used again", within Duration::from_secs(20), {
            gateway.metrics().await.value("portcullis_store_up", &[]) == Some(1.0)
        });
        let status = async |key: &Key| gateway.get("/me").bearer(key).await.status;
        for key in alive.iter().rev().take(16) {
            eventually!("an acknowledged key works", status(key).await == 200);
        }
        for key in dead.iter().rev().take(8) {
            eventually!("an acknowledged revocation holds", status(key).await == 401);
        }
    }
    let listed = gateway.cli(&["keys", "list", "--output", "json"]).await.success().json();
    let mut found: HashMap<&str, usize> = HashMap::new();
    for key in listed.as_array().unwrap() {
        *found.entry(key["name"].as_str().unwrap()).or_default() += 1;
    }
    for (name, expected) in &told {
        let number = found.get(name.as_str()).copied().unwrap_or(0);
        assert!(expected.map_or(number <= 1, |expected| number == expected), "{name}: {number}, not {expected:?}");
    }
    // Another gateway reads the whole of it, and the trail of changes leads to the end.
    assert_eq!(gateway.stop().await, 0);
    let again = gateway.site().start().await;
    for (keys, status) in [(&alive, 200), (&dead, 401)] {
        for key in keys {
            again.get("/me").bearer(key).await.expect(status);
        }
    }
    let _ = gateway.cli(&["audit", "verify"]).await.success();
    let event = format!("{kills} times kill -9 of the database");
    let said = format!("0 of {} keys", told.len() + dead.len());
    figures::note(&event, "acknowledged and lost, or half written", said, "0", true);
    assert!(!alive.is_empty() && !dead.is_empty(), "{} alive, {} dead", alive.len(), dead.len());
}
