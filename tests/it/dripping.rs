//! Clients that give or take a byte now and then: they are given up, with what they hold, and nobody who is merely slow
//! for a while is.

use std::time::{Duration, Instant};

use portcullis_testkit::h2_frames::{DATA, END_HEADERS, HEADERS, SETTINGS, WINDOW_UPDATE, block};
use portcullis_testkit::{Answer, Call, Gateway, H2Outcome, H2Peer, Origin, eventually, patient};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::scene;

/// A second is enough to be judged; 1,000 bytes are asked for in each.
const SECTIONS: &str = "workers: 1\nlimits: { stall_timeout: 1s, min_body_rate: 1000B }";

/// How far apart drops fall: the gateway never waits for as long as a pause may be.
const DROP: Duration = Duration::from_millis(250);

async fn let_go(gateway: &Gateway) {
    eventually!(
        "no upstream connection is held",
        gateway.metrics().await.sum("portcullis_upstream_connections", &[("state", "active")]) == 0.0
    );
}

fn head(gateway: &Gateway, method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let authority = gateway.data().to_string();
    let mut fields = vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", &authority)];
    fields.extend_from_slice(more);
    block(&fields)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_drips_is_408_and_holds_no_upstream_connection() {
    let (gateway, origin) = scene::shop_with("", SECTIONS).await;
    let mut raw = gateway.raw().await;
    let begun = Instant::now();
    raw.send("POST /open/x HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1000000\r\n\r\n").await;
    let answered = async {
        loop {
            raw.send("x").await;
            if let Ok(answer) = tokio::time::timeout(DROP, raw.response()).await {
                break answer;
            }
        }
    };
    let answer = tokio::time::timeout(patient(Duration::from_secs(6)), answered).await.expect("it does not drip on");
    answer.refused(408, "request_timeout");
    assert!(begun.elapsed() >= Duration::from_millis(900), "it is given a whole window: {:?}", begun.elapsed());
    assert!(raw.is_closed_within(Duration::from_secs(5)).await);
    let_go(&gateway).await;
    let line = gateway.access_line_where("it has a line", |line| line["path"] == "/open/x").await;
    assert_eq!((&line["status"], &line["code"]), (&408.into(), &"request_timeout".into()), "{line}");
    assert!(origin.requests().iter().all(|request| !request.complete));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_drips_over_h2_costs_its_stream_alone() {
    let (gateway, origin) = scene::shop_with("", SECTIONS).await;
    let mut peer = H2Peer::connect(gateway.data()).await;
    peer.frame(HEADERS, END_HEADERS, 1, &head(&gateway, "POST", "/open/x", &[])).await;
    for _ in 0..12 {
        tokio::time::sleep(DROP).await;
        peer.frame(DATA, 0, 1, b"x").await;
    }
    let outcome = peer.outcome(1).await;
    assert!(matches!(outcome, H2Outcome::Answered(Some(408)) | H2Outcome::Reset(_)), "{outcome:?}");
    let_go(&gateway).await;
    peer.frame(HEADERS, END_HEADERS | 1, 3, &head(&gateway, "GET", "/status", &[])).await;
    assert_eq!(peer.outcome(3).await, H2Outcome::Answered(Some(200)));
    assert!(origin.requests().iter().all(|request| request.path() != "/open/x" || !request.complete));
}

/// Sends a body in `pieces`, a pause of `DROP` before each.
async fn slowly(call: Call, pieces: usize, piece: &'static str) -> portcullis_testkit::Response {
    let (call, feed) = call.fed();
    let feeding = tokio::spawn(async move {
        for _ in 0..pieces {
            tokio::time::sleep(DROP).await;
            if !feed.send(piece).await {
                break;
            }
        }
    });
    let answer = call.await;
    feeding.await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_slow_but_not_that_slow_is_served() {
    static PIECE: [u8; 1000] = [b'x'; 1000];
    let piece = std::str::from_utf8(&PIECE).unwrap();
    let (gateway, _origin) = scene::shop_with("", SECTIONS).await;
    let (first, second) =
        tokio::join!(slowly(gateway.post("/open/x"), 12, piece), slowly(gateway.post("/open/x").h2(), 12, piece));
    first.expect(200);
    second.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_over_http2_on_both_sides_may_be_as_slow_as_it_likes() {
    let origin = Origin::start().await;
    let config = format!(
        r#"
{SECTIONS}
logging: {{ format: json }}
listeners: [{{ bind: "127.0.0.1:0", name: front }}]
upstreams:
  modern: {{ targets: [{{ url: "http://{{{{modern}}}}" }}], protocol: h2c }}
  plain: {{ targets: [{{ url: "http://{{{{modern}}}}" }}], protocol: h1 }}
routes:
  - {{ path: "/modern/**", upstream: modern, auth: none }}
  - {{ path: "/plain/**", upstream: plain, auth: none }}
"#
    );
    let gateway = scene::site(&config).upstream("modern", &origin).start().await;
    let ask = |call: Call| slowly(call.header("content-type", "application/grpc"), 8, "x");
    let (both, client, upstream, neither) = tokio::join!(
        ask(gateway.post("/modern/x").h2()),
        ask(gateway.post("/plain/x").h2()),
        ask(gateway.post("/modern/x")),
        ask(gateway.post("/plain/x")),
    );
    both.expect(200);
    // One side of HTTP/1 is a connection that is held.
    upstream.refused(408, "request_timeout");
    neither.refused(408, "request_timeout");
    assert_ne!(client.header("grpc-status").or(client.trailer("grpc-status")), Some("0"), "{client:?}");
    assert!(!client.is_from_origin(), "{client:?}");
    let_go(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_asked_everything_may_be_as_slow_as_it_likes() {
    let (gateway, _origin) = scene::shop_with("", "limits: { stall_timeout: 1s, min_body_rate: 0B }").await;
    let (first, second) =
        tokio::join!(slowly(gateway.post("/open/x"), 8, "x"), slowly(gateway.post("/open/x").h2(), 8, "x"));
    first.expect(200);
    second.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upstream_is_no_fault_of_its_client() {
    let (gateway, origin) = scene::shop_with("", SECTIONS).await;
    for h2 in [false, true] {
        let (answer, feed) = Answer::events();
        origin.answer_at("/open/events", answer);
        let call = gateway.get("/open/events");
        let mut streaming = if h2 { call.h2() } else { call }.stream().await;
        for _ in 0..8 {
            tokio::time::sleep(DROP).await;
            feed.send("x").await;
            assert_eq!(streaming.piece().await.unwrap().unwrap(), "x");
        }
        drop(feed);
        assert_eq!(streaming.piece().await, Ok(None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_sipped_over_h2_holds_no_upstream_connection() {
    let origin = Origin::start().await;
    origin.answer_at("/open/large", Answer::pattern(64 << 20));
    let gateway = scene::site(&scene::shop_config("", SECTIONS)).upstream("shop", &origin).start().await;
    let mut peer = H2Peer::connect(gateway.data()).await;
    // No window for anything but what is granted (RFC 9113 §6.5.2).
    peer.frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
    peer.frame(HEADERS, END_HEADERS | 1, 1, &head(&gateway, "GET", "/open/large", &[])).await;
    assert_eq!(peer.outcome(1).await, H2Outcome::Answered(Some(200)));
    let begun = Instant::now();
    loop {
        peer.frame(WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes()).await;
        tokio::time::sleep(DROP).await;
        let active = gateway.metrics().await.sum("portcullis_upstream_connections", &[("state", "active")]);
        if active == 0.0 {
            break;
        }
        assert!(begun.elapsed() < patient(Duration::from_secs(6)), "it is sipped on");
    }
}

/// Takes an answer in pieces of 64 KiB, one in so long, for a while; whether it is still being sent then.
async fn taken_steadily(gateway: &Gateway, pause: Duration, span: Duration) -> bool {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut stream = socket.connect(gateway.data()).await.unwrap();
    stream.write_all(b"GET /open/large HTTP/1.1\r\nHost: shop.test\r\n\r\n").await.unwrap();
    let begun = Instant::now();
    let mut piece = vec![0; 64 * 1024];
    let mut pauses = tokio::time::interval(pause);
    while begun.elapsed() < span {
        pauses.tick().await;
        if stream.read_exact(&mut piece).await.is_err() {
            return false;
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_be_taken_slowly_and_not_more_slowly_than_is_asked_for() {
    let origin = Origin::start().await;
    origin.answer_at("/open/large", Answer::pattern(1 << 30));
    let sections = "workers: 1\nlimits: { stall_timeout: 1s, min_body_rate: 800KiB }";
    let gateway = scene::site(&scene::shop_config("", sections)).upstream("shop", &origin).start().await;
    // 3 MB/s and 0.2 MB/s; what the kernel holds for the second lasts for some seconds.
    let (steady, slow) = tokio::join!(
        taken_steadily(&gateway, Duration::from_millis(20), Duration::from_secs(8)),
        taken_steadily(&gateway, Duration::from_millis(300), Duration::from_secs(60)),
    );
    assert!(steady, "it takes more than is asked for");
    assert!(!slow, "it takes less than is asked for");
}
