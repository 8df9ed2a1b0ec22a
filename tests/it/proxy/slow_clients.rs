//! Clients that take their time over a request's body, or over its answer: what they hold of an upstream, and what is left
//! for others.

use std::time::{Duration, Instant};

use portcullis_testkit::{Answer, Gateway, H2Outcome, H2Peer, Origin, RawClient, eventually, patient};

use crate::scene;

const CONFIG: &str = r#"
workers: 1
limits: { stall_timeout: {{stall}} }
listeners: [{ bind: "127.0.0.1:0" }]
upstreams:
  small: { targets: [{ url: "http://{{small}}" }], max_connections: 4, queue_timeout: {{queue}} }
routes: [{ path: "/**", upstream: small, auth: none }]
"#;

/// A gateway that has four connections to this server, and waits so long for more of a body.
async fn in_front_of(origin: &Origin, stall: &str) -> Gateway {
    patient_with(origin, stall, "300ms").await
}

/// The same, where requests wait so long for one of them.
async fn patient_with(origin: &Origin, stall: &str, queue: &str) -> Gateway {
    scene::site(CONFIG).upstream("small", origin).fill("stall", stall).fill("queue", queue).start().await
}

/// One that has said so much of a body, and ten bytes of it.
async fn owing(gateway: &Gateway, bytes: usize) -> RawClient {
    let mut raw = gateway.raw().await;
    raw.send(format!("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n0123456789")).await;
    raw
}

/// The beginning of a request over HTTP/2.
const fn head<'a>(method: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")]
}

/// How many connections of clients have a request under way.
async fn busy(gateway: &Gateway) -> f64 {
    gateway.metrics().await.sum("portcullis_connections", &[("state", "active")])
}

/// The longest body that is waited for.
const SHORT: usize = 16 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_short_body_takes_a_connection_once_it_is_whole() {
    let origin = Origin::start().await;
    let gateway = in_front_of(&origin, "60s").await;
    let mut over_h1 = Vec::new();
    for _ in 0..8 {
        over_h1.push(owing(&gateway, SHORT).await);
    }
    let length = SHORT.to_string();
    let mut over_h2 = H2Peer::connect(gateway.data()).await;
    let head = [&head("POST", "/up")[..], &[("content-length", &length)]].concat();
    let mut streams = Vec::new();
    for _ in 0..8 {
        let id = over_h2.open(&head, false).await;
        over_h2.data(id, b"0123456789", false).await;
        streams.push(id);
    }
    assert!(over_h2.ping().await);
    eventually!("all of them are under way", busy(&gateway).await >= 9.0);
    assert_eq!(origin.connections(), 0);
    gateway.get("/others").await.expect(200);

    // Each piece behind the one before, in whatever sizes they come.
    let rest: Vec<u8> = (10..SHORT).map(|at| b'a' + (at % 26) as u8).collect();
    let whole = [b"0123456789", &rest[..]].concat();
    let mut raw = over_h1.pop().unwrap();
    for piece in rest.chunks(3000) {
        raw.send(piece).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    raw.response().await.expect(200);
    assert!(origin.last().body == whole, "{} bytes", origin.last().body.len());
    let id = streams.pop().unwrap();
    let mut pieces = rest.chunks(3000).peekable();
    while let Some(piece) = pieces.next() {
        over_h2.data(id, piece, pieces.peek().is_none()).await;
    }
    assert_eq!(over_h2.outcome(id).await, H2Outcome::Answered(Some(200)));
    assert!(origin.last().body == whole, "{} bytes", origin.last().body.len());
    assert_eq!(origin.connections(), 1, "one after the other");

    // Whoever leaves before leaves nothing behind.
    drop((over_h1, over_h2));
    eventually!("nothing is under way", busy(&gateway).await == 0.0);
    assert_eq!(origin.requests().iter().filter(|request| request.path() == "/up").count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_stalls_in_a_short_body_is_told_so_and_the_upstream_hears_nothing() {
    let origin = Origin::start().await;
    let gateway = in_front_of(&origin, "1s").await;
    let begun = Instant::now();
    let mut raw = owing(&gateway, 400).await;
    // A byte now and then keeps nobody in time for ever: there is a floor.
    tokio::time::sleep(Duration::from_millis(600)).await;
    raw.send("x").await;
    raw.response().await.refused(408, "request_timeout");
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < patient(Duration::from_secs(4)), "{:?}", begun.elapsed());
    assert_eq!(origin.connections(), 0);

    let mut raw = gateway.raw().await;
    raw.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 400\r\nExpect: 100-continue\r\n\r\n").await;
    let interim = raw.next().await.expect("an invitation");
    assert_eq!(interim.status, 100, "{interim:?}");
    raw.response().await.refused(408, "request_timeout");
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_reset_as_if_nothing_were_wrong_has_no_whole_body() {
    let origin = Origin::start().await;
    let gateway = in_front_of(&origin, "60s").await;
    for (length, body) in [("400", 100), ("100000", 20_000), ("", 300)] {
        let mut peer = H2Peer::connect(gateway.data()).await;
        let mut head = head("POST", "/up").to_vec();
        if !length.is_empty() {
            head.push(("content-length", length));
        }
        let id = peer.open(&head, false).await;
        peer.data(id, &vec![b'x'; body], false).await;
        // RST_STREAM with NO_ERROR (RFC 9113 §6.4, §7).
        peer.frame(3, 0, id, &[0; 4]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        eventually!("it is let go", busy(&gateway).await == 0.0);
        gateway.get("/others").await.expect(200);
    }
    let whole =
        origin.requests().into_iter().filter(|request| request.path() == "/up" && request.complete).collect::<Vec<_>>();
    assert!(whole.is_empty(), "{whole:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn longer_bodies_that_are_still_coming_leave_connections_for_others() {
    let origin = Origin::start().await;
    let gateway = in_front_of(&origin, "60s").await;
    let mut holding = Vec::new();
    for _ in 0..3 {
        holding.push(owing(&gateway, SHORT + 1).await);
    }
    eventually!("each has a connection", origin.connections() == 3);
    let chunked = "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let mut raw = gateway.raw().await;
    raw.send(chunked).await;
    raw.response().await.refused(503, "upstream_busy");
    owing(&gateway, 1 << 20).await.response().await.refused(503, "upstream_busy");
    for _ in 0..3 {
        gateway.get("/others").await.expect(200);
        let mut raw = owing(&gateway, 20).await;
        raw.send("0123456789").await;
        raw.response().await.expect(200);
    }
    assert_eq!(origin.connections(), 4);

    // Once one of them is whole, its place is another's, however long the answer takes.
    let mut whole = holding.pop().unwrap();
    whole.send(vec![b'x'; SHORT - 9]).await;
    eventually!("it arrived", origin.requests().iter().any(|request| request.body.len() == SHORT + 1));
    let mut raw = gateway.raw().await;
    raw.send([chunked, "0\r\n\r\n"].concat()).await;
    raw.response().await.expect(200);
    assert_eq!(origin.last().text(), "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_takes_nothing_of_an_answer_lets_others_have_its_connection_once_they_want_it() {
    let origin = Origin::start().await;
    origin.answer_at("/large", Answer::pattern(64 << 20));
    let gateway = patient_with(&origin, "60s", "10s").await;
    let get = "GET /large HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut over_h1 = Vec::new();
    for _ in 0..2 {
        let mut raw = gateway.raw().await;
        raw.send(get).await;
        over_h1.push(raw);
    }
    let mut over_h2 = H2Peer::connect(gateway.data()).await;
    // SETTINGS with INITIAL_WINDOW_SIZE 0 (RFC 9113 §6.5.2): heads may come, bodies may not.
    over_h2.frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
    for _ in 0..2 {
        let id = over_h2.open(&head("GET", "/large"), true).await;
        assert_eq!(over_h2.outcome(id).await, H2Outcome::Answered(Some(200)));
    }
    let active = async || gateway.metrics().await.sum("portcullis_upstream_connections", &[("state", "active")]);
    eventually!("they have all of them", active().await == 4.0);
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert_eq!(active().await, 4.0, "nobody wants them");

    for _ in 0..4 {
        gateway.get("/others").await.expect(200);
    }
    // One client gave way to the one that waited, or two where the second look came before it was gone.
    assert!((2.0..4.0).contains(&active().await), "{} are left", active().await);
    drop((over_h1, over_h2));
}
