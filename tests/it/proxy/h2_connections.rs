//! How many HTTP/2 connections there are to an upstream, whose they are, and when they end.

use std::sync::Arc;
use std::time::Duration;

use portcullis_testkit::h2_frames::WINDOW_UPDATE;
use portcullis_testkit::h2_server::{OK, WINDOW};
use portcullis_testkit::{Answer, Connection, Gateway, H2Server, Origin, RawPeer, ScriptedOrigin, TestCa, eventually};

use crate::scene;

/// A gateway in front of an origin that speaks HTTP/2 in the clear.
async fn in_front_of(authority: &str, workers: usize, settings: &str) -> Gateway {
    let config = format!(
        r#"
workers: {workers}
listeners: [{{ bind: "127.0.0.1:0" }}]
upstreams: {{ far: {{ targets: [{{ url: "http://{{{{far}}}}" }}], protocol: h2c, {settings} }} }}
routes: [{{ path: "/**", upstream: far, auth: none }}]
"#
    );
    scene::site(&config).fill("far", authority).start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_have_no_connection_get_one_that_another_does_not_use() {
    let origin = Origin::start().await;
    let gateway = in_front_of(&origin.authority(), 4, "max_connections: 1, queue_timeout: 3s").await;
    // Each connection that stays open has a worker of its own.
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Connection::h1(gateway.data()).await);
    }
    for _ in 0..2 {
        for client in &mut clients {
            client.send(gateway.get("/")).await.expect(200);
        }
    }
    assert!(origin.connections() > 4, "{} connections for all workers", origin.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_that_finds_out_that_http2_is_spoken_shares_what_it_opened() {
    let ca = TestCa::new("ours");
    let origin = Origin::tls(&ca, &["h2", "http/1.1"]).await;
    origin.answer(Answer::ok("late").after(Duration::from_millis(50)));
    let config = r#"
workers: 1
listeners: [{ bind: "127.0.0.1:0" }]
upstreams:
  far:
    targets: [{ url: "https://{{far}}" }]
    tls: { ca: ca.pem, server_name: localhost }
    max_connections: 4
routes: [{ path: "/**", upstream: far, auth: none }]
"#;
    let gateway = scene::site(config).upstream("far", &origin).file("ca.pem", ca.pem()).start().await;
    let calls: Vec<_> = (0..30).map(|_| tokio::spawn(gateway.get("/").attempt())).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status, 200);
    }
    assert!(origin.connections() <= 4, "{}", origin.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_old_gets_no_more_requests_although_it_is_never_idle() {
    let origin = Origin::start().await;
    for (settings, numbers) in [("", [1, 2]), ("max_connections: 1, ", [3, 3])] {
        let (answer, feed) = Answer::fed();
        origin.answer_at("/held", answer);
        let gateway = in_front_of(&origin.authority(), 1, &format!("{settings}max_lifetime: 1s")).await;
        let mut held = gateway.get("/held").stream().await;
        assert!(feed.send("some").await);
        held.piece().await.unwrap();
        gateway.get("/").await.expect(200);
        assert_eq!(origin.last().connection, numbers[0]);
        tokio::time::sleep(Duration::from_millis(1300)).await;
        // Where there may be no other, it is better than none.
        gateway.get("/").await.expect(200);
        assert_eq!(origin.last().connection, numbers[1]);
        drop(feed);
        assert_eq!(held.text().await.unwrap(), "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_its_upstream_leaves_counts_until_it_is_closed() {
    let latch = Arc::new(tokio::sync::Notify::new());
    let opened = Arc::clone(&latch);
    let upstream = ScriptedOrigin::start(move |peer: RawPeer| {
        let opened = Arc::clone(&opened);
        async move {
            let Some(mut server) = H2Server::begin(peer, &[]).await else { return };
            while let Some(stream) = server.request().await {
                if server.number() > 1 {
                    server.answer(stream, OK).await;
                    continue;
                }
                server.head(stream, OK).await;
                server.data(stream, b"some", false).await;
                server.go_away(stream).await;
                opened.notified().await;
                server.data(stream, b"more", true).await;
            }
        }
    })
    .await;
    let gateway = in_front_of(&upstream.authority(), 1, "max_connections: 1, queue_timeout: 200ms").await;
    let mut leaving = gateway.get("/").stream().await;
    assert_eq!(leaving.piece().await.unwrap().unwrap(), "some");
    for _ in 0..3 {
        gateway.get("/").await.refused(503, "upstream_busy");
    }
    latch.notify_one();
    assert_eq!(leaving.text().await.unwrap(), "more");
    eventually!("there is room for another", gateway.get("/").await.status == 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_upstream_takes_nothing_any_more_makes_room_in_the_end() {
    let upstream = ScriptedOrigin::start(move |peer: RawPeer| async move {
        let room = 1u32 << 30;
        let Some(mut server) = H2Server::begin(peer, &[(WINDOW, room)]).await else { return };
        if server.number() == 1 {
            server.say(WINDOW_UPDATE, 0, 0, &room.to_be_bytes()).await;
            // It reads no more, and does not close.
            return std::future::pending().await;
        }
        while let Some(stream) = server.request().await {
            server.answer(stream, OK).await;
        }
    })
    .await;
    let settings = "max_connections: 1, queue_timeout: 200ms, timeouts: { idle: 300ms, first_byte: 300ms }";
    let gateway = in_front_of(&upstream.authority(), 1, settings).await;
    drop(gateway.post("/up").pattern(64 << 20).attempt().await);
    gateway.get("/").await.refused(503, "upstream_busy");
    eventually!("there is room for another", within Duration::from_secs(20), gateway.get("/").await.status == 200);
}
