//! A budget of memory: what clients can make the gateway hold stays within it, and who was there is served.

use std::time::Duration;

use portcullis_testkit::h2_frames::{DATA, END_HEADERS, HEADERS, SETTINGS, block, frame};
use portcullis_testkit::{Answer, Connection, Facts, Flooded, Gateway, H2Outcome, H2Peer, Origin, eventually};

use crate::scene;

const BUDGET: u64 = 32 << 20;

/// The shop with a small budget and large windows: thirty streams could fill it.
async fn shop() -> (Gateway, Origin) {
    let origin = Origin::start().await;
    let config = r#"
workers: 2
logging: { format: json, access: { enabled: false } }
limits: { memory: 32MiB, h2_stream_window: 1MiB, h2_connection_window: 16MiB }
listeners: [{ bind: "127.0.0.1:0", name: front }]
upstreams:
  shop: { targets: [{ url: "http://{{shop}}" }] }
  narrow: { targets: [{ url: "http://{{shop}}" }], max_connections: 1, queue_timeout: 30s }
scopes: { read:orders: { title: Read orders } }
routes:
  - { path: "/v1/orders/**", upstream: shop, scopes: read:orders }
  - { path: /status, upstream: shop, auth: none }
  - { path: "/open/**", upstream: narrow, auth: none }
"#;
    (scene::site(config).upstream("shop", &origin).start().await, origin)
}

fn head(gateway: &Gateway, method: &str, path: &str) -> Vec<u8> {
    let authority = gateway.data().to_string();
    block(&[(":method", method), (":scheme", "http"), (":path", path), (":authority", &authority)])
}

async fn held(gateway: &Gateway) -> u64 {
    let held = gateway.metrics().await.value("portcullis_memory_held_bytes", &[]).expect("it is told");
    format!("{held:.0}").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_with_full_windows_do_not_go_beyond_the_budget() {
    let (gateway, origin) = shop().await;
    let key = gateway.key("customer", "read:orders").await;
    let mut connected = Connection::h1(gateway.data()).await;
    connected.send(gateway.get("/v1/orders/1").bearer(&key)).await.expect(200);
    // One request has the upstream for itself; all others wait, and fill their windows meanwhile.
    let (never, latch) = Answer::ok("never").without_reading().held();
    origin.answer_at("/open/x", never);
    let before = gateway.resident_bytes();
    let head = head(&gateway, "POST", "/open/x");
    let piece = vec![b'x'; 16 * 1024];
    let (mut peers, mut refused, mut most, mut grown) = (Vec::new(), 0, 0, 0);
    for _ in 0..10 {
        let mut peer = H2Peer::connect(gateway.data()).await;
        if !peer.ping().await {
            refused += 1;
            continue;
        }
        for id in (1..30).step_by(2) {
            peer.frame(HEADERS, END_HEADERS, id, &head).await;
        }
        // Round and round, so that all windows fill alike: 15 streams of 1 MiB.
        let mut frames = (0..64).flat_map(|_| (1..30).step_by(2)).map(|id| frame(DATA, 0, id, &piece));
        if peer.flood(|| frames.next()).await != Flooded::Taken {
            refused += 1;
        }
        peers.push(peer);
        most = most.max(held(&gateway).await);
        grown = grown.max(gateway.resident_bytes().saturating_sub(before));
    }
    assert!(most <= BUDGET, "{most} bytes were held");
    assert!(grown <= BUDGET, "it grew by {grown} bytes");
    connected.send(gateway.get("/v1/orders/2").bearer(&key)).await.expect(200);
    let limit = gateway.metrics().await.value("portcullis_memory_limit_bytes", &[]);
    assert_eq!(limit, Some(BUDGET as f64));
    let shed = gateway.metrics().await.sum("portcullis_connections_shed_total", &[("reason", "memory")]);
    assert!(shed > 0.0 || refused > 0, "nothing was in the way: {most} bytes were held");

    drop((peers, latch));
    eventually!("everything is given back", held(&gateway).await < BUDGET / 4);
    gateway.get("/status").h2().await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_streams_and_connections_are_told_to_come_back() {
    let (gateway, origin) = shop().await;
    let (never, latch) = Answer::ok("never").without_reading().held();
    origin.answer_at("/open/x", never);
    let mut other = Connection::h2(gateway.data()).await;
    other.send(gateway.get("/status")).await.expect(200);
    let head = head(&gateway, "POST", "/open/x");
    let mut peer = H2Peer::connect(gateway.data()).await;
    for id in (1..100).step_by(2) {
        peer.frame(HEADERS, END_HEADERS, id, &head).await;
    }
    assert!(peer.ping().await);
    eventually!("the budget is as good as used up", held(&gateway).await >= BUDGET / 10 * 9);
    // The other worker looks at this one's sum in every turn of its clock.
    let answer = eventually!("a stream is refused", within Duration::from_secs(5), {
        let answer = other.send(gateway.get("/status")).await;
        (answer.status == 503).then_some(answer)
    });
    let answer = answer.refused(503, "overloaded");
    assert_eq!(answer.header("retry-after"), Some("1"));
    let mut new = gateway.raw().await.facts(Facts::none());
    new.send("GET /status HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    let refused = new.response().await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    let (code, said) = gateway.health("/readyz").await;
    assert_eq!(code, 200, "operators are not concerned: {said}");
    drop((peer, latch));
    eventually!("it is over", gateway.get("/status").attempt().await.is_ok_and(|answer| answer.status == 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_does_not_fetch_counts_until_its_stream_ends() {
    let (gateway, origin) = shop().await;
    origin.answer_at("/open/large", Answer::pattern(8 << 20));
    let mut peer = H2Peer::connect(gateway.data()).await;
    peer.frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]).await;
    peer.frame(HEADERS, END_HEADERS | 1, 1, &head(&gateway, "GET", "/open/large")).await;
    assert_eq!(peer.outcome(1).await, H2Outcome::Answered(Some(200)));
    eventually!("what waits to be fetched counts", held(&gateway).await > 40 * 1024);
    peer.reset(1).await;
    drop(peer);
    eventually!("and then it does not", held(&gateway).await < 40 * 1024);
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_and_bodies_for_the_gateway_itself_count_as_well() {
    const KIB: u64 = 1024;
    let route =
        "  - { path: \"/account/**\", upstream: portcullis, strip_prefix: /account, add_prefix: /v1, auth: any_key }\n";
    let (gateway, origin) = scene::shop_with(route, "").await;
    origin.answer_at("/open/socket", Answer::tunnel());
    let key = gateway.key("customer", "read:orders").await;
    let idle = held(&gateway).await;
    let mut tunnels = Vec::new();
    for _ in 0..10 {
        let mut raw = gateway.raw().await;
        raw.send(
            "GET /open/socket HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
        raw.response().await.expect(101);
        tunnels.push(raw);
    }
    eventually!("tunnels are counted", held(&gateway).await >= idle + 10 * 32 * KIB);
    drop(tunnels);
    eventually!("and let go", held(&gateway).await < idle + 32 * KIB);

    // All but the last byte of it comes.
    let mut raw = gateway.raw().await;
    let head = format!(
        "POST /account/keys HTTP/1.1\r\nHost: shop.test\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        key.text,
        900 * KIB
    );
    raw.send(head).await;
    raw.send(vec![b' '; 899 * KIB as usize]).await;
    eventually!("the body is counted", held(&gateway).await >= idle + 899 * KIB);
    drop(raw);
    eventually!("and let go like that", held(&gateway).await < idle + 100 * KIB);
}
