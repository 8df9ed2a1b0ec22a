//! Upstreams that do not listen, do not answer, or stop in the middle: each costs its bound and no more.

use std::time::{Duration, Instant};

use portcullis_testkit::{Answer, Gateway, Origin, Wire, patient};

use crate::scene;

/// A gateway in front of one address with short bounds.
async fn hasty(authority: &str) -> Gateway {
    let config = r#"
listeners: [{ bind: "127.0.0.1:0" }]
upstreams:
  far:
    targets: [{ url: "http://{{far}}" }]
    timeouts: { connect: 300ms, first_byte: 400ms, idle: 500ms }
routes:
  - { path: "/**", upstream: far, auth: none }
  - { path: /patient, upstream: far, auth: none, timeouts: { first_byte: 10s } }
"#;
    scene::site(config).fill("far", authority).start().await
}

/// The answer must come, and within this.
async fn within<T>(limit: Duration, answer: impl Future<Output = T>) -> (T, Duration) {
    let started = Instant::now();
    let value = tokio::time::timeout(patient(limit), answer).await.expect("an answer in time");
    (value, started.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listening_is_502_at_once() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = hasty(&free.to_string()).await;
    let (answer, _) = within(Duration::from_secs(2), gateway.get("/").into_future()).await;
    let answer = answer.refused(502, "upstream_unreachable");
    let line = gateway.access_line(&answer).await;
    assert_eq!(line["reason"], "upstream_unreachable", "{line}");
    assert_eq!(line["upstream"], "far", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_never_made_is_504_in_time() {
    // A full backlog: the handshake is never finished.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut fillers = Vec::new();
    for _ in 0..8 {
        fillers.push(tokio::spawn(tokio::net::TcpStream::connect(address)));
    }
    portcullis_testkit::eventually!("the backlog is full", {
        tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(address)).await.is_err()
    });
    let gateway = hasty(&address.to_string()).await;
    let (answer, took) = within(Duration::from_secs(5), gateway.get("/").into_future()).await;
    let answer = answer.expect(504);
    assert_eq!(answer.code(), "upstream_timeout");
    assert!(took >= Duration::from_millis(280), "{took:?}");
    for filler in fillers {
        filler.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_upstream_is_504_after_first_byte_and_routes_may_be_more_patient() {
    let origin = Origin::start().await;
    let gateway = hasty(&origin.authority()).await;
    origin.answer(Answer::ok("late").after(Duration::from_millis(1500)));
    let (answer, took) = within(Duration::from_secs(4), gateway.get("/").into_future()).await;
    answer.refused(504, "upstream_timeout");
    assert!(took >= Duration::from_millis(390), "{took:?}");
    assert_eq!(gateway.get("/patient").await.expect(200).text(), "late");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_does_not_count_against_the_first_byte() {
    let origin = Origin::start().await;
    let gateway = hasty(&origin.authority()).await;
    let (call, feed) = gateway.post("/upload").fed();
    let answer = tokio::spawn(call.into_future());
    for _ in 0..8 {
        feed.send("piece").await;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    drop(feed);
    answer.await.unwrap().expect(200);
    assert_eq!(origin.only().text(), "piece".repeat(8));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_stops_in_the_middle_is_cut() {
    let origin = Origin::start().await;
    let gateway = hasty(&origin.authority()).await;
    let (answer, feed) = Answer::fed();
    origin.answer(answer);
    let mut streaming = gateway.get("/").stream().await;
    feed.send("the beginning").await;
    streaming.piece().await.unwrap();
    let (cut, took) = within(Duration::from_secs(5), streaming.piece()).await;
    assert!(cut.is_err(), "{cut:?}");
    assert!(took >= Duration::from_millis(400), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_but_steady_answer_is_not_cut() {
    let origin = Origin::start().await;
    let gateway = hasty(&origin.authority()).await;
    let (answer, feed) = Answer::fed();
    origin.answer(answer);
    let mut streaming = gateway.get("/").stream().await;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        assert!(feed.send("tick").await);
    }
    drop(feed);
    assert_eq!(streaming.text().await.unwrap(), "tick".repeat(6));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_dies_without_a_word_costs_its_bound_and_comes_back() {
    let origin = Origin::start().await;
    let wire = Wire::to(origin.address()).await;
    let gateway = hasty(&wire.address().to_string()).await;
    gateway.get("/").await.expect(200);
    wire.freeze();
    let (answer, _) = within(Duration::from_secs(5), gateway.get("/").into_future()).await;
    assert!(matches!(answer.status, 502 | 504), "{answer:?}");
    wire.cut();
    let (answer, _) = within(Duration::from_secs(5), gateway.get("/").into_future()).await;
    answer.refused(502, "upstream_unreachable");
    wire.mend();
    gateway.get("/").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_upstream_is_no_answer() {
    let upstream = portcullis_testkit::ScriptedOrigin::start(async |mut peer| {
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\nContent-Le").await;
        peer.half_close().await;
        peer.until_end().await;
    })
    .await;
    let gateway = hasty(&upstream.authority()).await;
    let (answer, _) = within(Duration::from_secs(5), gateway.get("/").into_future()).await;
    answer.refused(502, "upstream_unreachable");
}
