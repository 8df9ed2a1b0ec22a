//! Kept connections that the upstream closes: nothing is lost that can be repeated, nothing is done twice that cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use portcullis_testkit::{Connection, Origin, ScriptedOrigin};

use crate::scene;

const FINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An upstream whose every connection answers once, then takes one more request and closes without a word.
async fn moody() -> (ScriptedOrigin, Arc<AtomicUsize>) {
    let swallowed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&swallowed);
    let upstream = ScriptedOrigin::start(move |mut peer| {
        let counter = Arc::clone(&counter);
        async move {
            if peer.head().await.is_some() {
                peer.send(FINE).await;
                if peer.head().await.is_some() {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    })
    .await;
    (upstream, swallowed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_on_a_connection_that_closes_under_it_is_repeated() {
    let (upstream, swallowed) = moody().await;
    let gateway = scene::open_door(&upstream.authority(), "workers: 1").await;
    for _ in 0..6 {
        assert_eq!(gateway.get("/").await.expect(200).text(), "ok");
    }
    assert!(swallowed.load(Ordering::SeqCst) > 0, "no kept connection was used");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_never_sent_twice() {
    let (upstream, _) = moody().await;
    let gateway = scene::open_door(&upstream.authority(), "workers: 1").await;
    let mut answered = 0;
    for number in 0..10 {
        let answer = gateway.post(&format!("/order/{number}")).body("one order").await;
        assert!(matches!(answer.status, 200 | 502), "{answer:?}");
        answered += usize::from(answer.status == 200);
    }
    assert!(answered > 0);
    let heads = upstream.heads();
    for number in 0..10 {
        let line = format!("POST /order/{number} ");
        let times = heads.iter().filter(|head| head.starts_with(&line)).count();
        assert!(times <= 1, "{line} was sent {times} times");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_that_the_upstream_closed_are_not_used() {
    let origin = Origin::start().await;
    let gateway = scene::open_door(&origin.authority(), "workers: 1").await;
    for round in 1..=20 {
        gateway.post("/order").body("x").await.expect(200);
        assert_eq!(origin.count(), round);
        origin.close_connections();
        // The close must have arrived before the next request chooses a connection.
        portcullis_testkit::eventually!("the gateway holds no idle connection", {
            let metrics = gateway.metrics().await;
            metrics.sum("portcullis_upstream_connections", &[("state", "idle")]) == 0.0
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_used_again() {
    let origin = Origin::start().await;
    let gateway = scene::open_door(&origin.authority(), "workers: 1").await;
    let mut connection = Connection::h1(gateway.data()).await;
    for _ in 0..50 {
        connection.send(gateway.get("/")).await.expect(200);
    }
    assert!(origin.connections() <= 2, "{} connections for 50 requests", origin.connections());
}
