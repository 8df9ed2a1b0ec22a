//! Floods of HTTP/2 frames: each ends the connection it comes over or is worth nothing, and costs nobody else anything.
//!
//! `PORTCULLIS_TEST_RESETS` says how many streams are reset (default 100000).

use std::time::Duration;

use portcullis_testkit::h2_frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame,
};
use portcullis_testkit::{Answer, Flooded, Gateway, H2Peer, Key, Origin, eventually, patient};

use crate::besieged::{during, scaled};
use crate::scene;

/// How much the gateway may grow under any of them: what its allocator keeps after a burst.
const GROWTH: u64 = 32 << 20;

async fn shop() -> (Gateway, Origin, Key) {
    let (gateway, origin) = scene::shop_with("", "logging: { format: json, access: { enabled: false } }").await;
    let key = gateway.key("neighbour", "read:orders").await;
    let (held, latch) = Answer::ok("never").held();
    origin.answer_at("/open/held", held);
    // For as long as the test runs nobody opens it.
    std::mem::forget(latch);
    gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
    (gateway, origin, key)
}

fn head(gateway: &Gateway, method: &str) -> Vec<u8> {
    let authority = gateway.data().to_string();
    block(&[(":method", method), (":scheme", "http"), (":path", "/open/held"), (":authority", &authority)])
}

/// Sends the same frame `times` over.
fn repeated(frame: Vec<u8>, times: usize) -> impl FnMut() -> Option<Vec<u8>> {
    let mut left = times;
    move || {
        left = left.checked_sub(1)?;
        Some(frame.clone())
    }
}

/// Sends what `of` makes of the numbers of client streams, `times` over.
fn by_stream(times: usize, of: impl Fn(u32) -> Vec<u8>) -> impl FnMut() -> Option<Vec<u8>> {
    let mut id = 1;
    let mut left = times;
    move || {
        left = left.checked_sub(1)?;
        id += 2;
        Some(of(id - 2))
    }
}

#[track_caller]
fn ended(flooded: Flooded) {
    assert!(matches!(flooded, Flooded::Ended(_)), "the connection lives: {flooded:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_never_end_are_cut_off() {
    let (gateway, origin, key) = shop().await;
    let field = block(&[("x-more", "of the same")]);
    for more in [field, Vec::new()] {
        let (mut peer, head) = (H2Peer::connect(gateway.data()).await, head(&gateway, "GET"));
        let attack = async move {
            peer.frame(HEADERS, END_STREAM, 1, &head).await;
            peer.flood(repeated(frame(CONTINUATION, 0, 1, &more), 200_000)).await
        };
        let (flooded, noticed) = during(&gateway, &key, attack).await;
        ended(flooded);
        noticed.holds(GROWTH);
    }
    assert!(origin.requests().iter().all(|request| request.path() != "/open/held"), "it never was a request");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_pieces_of_a_body_are_worth_what_they_carry() {
    let (gateway, _origin, key) = shop().await;
    // Empty ones carry nothing: they are thrown away, and the body stalls.
    let empty = frame(DATA, 0, 1, &[]);
    let padded = frame(DATA, 8, 1, &[3, 0, 0, 0]);
    for (piece, count) in [(empty, 200_000), (padded, 100_000), (frame(DATA, 0, 1, b"x"), 60_000)] {
        let (mut peer, head) = (H2Peer::connect(gateway.data()).await, head(&gateway, "POST"));
        let attack = async move {
            peer.frame(HEADERS, END_HEADERS, 1, &head).await;
            peer.flood(repeated(piece, count)).await
        };
        let (_flooded, noticed) = during(&gateway, &key, attack).await;
        noticed.holds(GROWTH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn storms_of_settings_and_pings_leave_nothing_behind() {
    let (gateway, _origin, key) = shop().await;
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0x40, 0]);
    let ping = frame(PING, 0, 0, b"flooded!");
    for storm in [settings, ping] {
        for reads in [true, false] {
            let (mut peer, storm) = (H2Peer::connect(gateway.data()).await, storm.clone());
            let attack = async move {
                let frames = repeated(storm, 300_000);
                if reads { peer.flood(frames).await } else { peer.flood_unread(frames).await }
            };
            let (_flooded, noticed) = during(&gateway, &key, attack).await;
            noticed.holds(GROWTH);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_makes_us_reset_its_streams_is_given_up() {
    let (gateway, origin, key) = shop().await;
    let head = head(&gateway, "GET");
    type Breach = fn(u32) -> Vec<u8>;
    let breaches: [(&str, Breach); 3] = [
        ("a window update of nothing", |id| frame(WINDOW_UPDATE, 0, id, &[0; 4])),
        ("a window that overflows", |id| frame(WINDOW_UPDATE, 0, id, &0x7fff_ffffu32.to_be_bytes())),
        ("data behind the end", |id| frame(DATA, 0, id, b"x")),
    ];
    for (breach, of) in breaches {
        origin.forget();
        let (mut peer, head) = (H2Peer::connect(gateway.data()).await, head.clone());
        let attack = async move {
            let frames = by_stream(100_000, |id| {
                let mut frames = frame(HEADERS, END_HEADERS | END_STREAM, id, &head);
                frames.extend_from_slice(&of(id));
                frames
            });
            peer.flood(frames).await
        };
        let (flooded, noticed) = during(&gateway, &key, attack).await;
        assert!(matches!(flooded, Flooded::Ended(_)), "{breach}: {flooded:?}");
        noticed.holds(GROWTH);
        let reached = origin.requests().iter().filter(|request| request.path() == "/open/held").count();
        assert!(reached <= 1024 + 100, "{breach}: {reached} requests reached the origin");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_block_that_unpacks_to_a_large_head_is_no_request() {
    let (gateway, origin, key) = shop().await;
    // One field of 4,000 bytes goes to the dynamic table (RFC 7541 §6.2.1); each further byte names it again.
    let mut bomb = head(&gateway, "GET");
    bomb.extend_from_slice(&[0x40, 1, b'x', 127, 0xa1, 0x1e]);
    bomb.extend_from_slice(&[b'a'; 4000]);
    bomb.extend_from_slice(&[0xbe; 12_000]);
    let mut peer = H2Peer::connect(gateway.data()).await;
    let attack =
        async move { peer.flood(by_stream(300, |id| frame(HEADERS, END_HEADERS | END_STREAM, id, &bomb))).await };
    let (_flooded, noticed) = during(&gateway, &key, attack).await;
    noticed.holds(GROWTH);
    assert!(origin.requests().iter().all(|request| request.path() != "/open/held"), "it never was a request");
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_end_their_connections_and_reach_no_upstream_in_numbers() {
    let (gateway, origin, key) = shop().await;
    origin.forget();
    let total = scaled("PORTCULLIS_TEST_RESETS", 100_000);
    let (address, head) = (gateway.data(), head(&gateway, "GET"));
    let attack = async move {
        let (mut left, mut connections) = (total, 0);
        while left > 0 {
            let mut peer = H2Peer::connect(address).await;
            let mut sent = 0;
            let mut frames = by_stream(left, |id| {
                let mut frames = frame(HEADERS, END_HEADERS | END_STREAM, id, &head);
                frames.extend_from_slice(&frame(RST_STREAM, 0, id, &8u32.to_be_bytes()));
                frames
            });
            ended_or_all(peer.flood(|| frames().inspect(|_| sent += 1)).await, sent == left);
            left -= sent;
            connections += 1;
        }
        connections
    };
    let (connections, noticed) = during(&gateway, &key, attack).await;
    noticed.holds(GROWTH);
    let reached = origin.requests().iter().filter(|request| request.path() == "/open/held").count();
    assert!(
        reached < total / 50,
        "{reached} of {total} reset streams reached the origin over {connections} connections"
    );
    upstream_is_quiet(&gateway).await;
}

#[track_caller]
fn ended_or_all(flooded: Flooded, all: bool) {
    assert!(all || matches!(flooded, Flooded::Ended(_)), "the connection lives: {flooded:?}");
}

/// Nothing of what was reset is under way any more.
async fn upstream_is_quiet(gateway: &Gateway) {
    eventually!("no upstream connection is in use", within patient(Duration::from_secs(5)), {
        gateway.metrics().await.sum("portcullis_upstream_connections", &[("state", "active")]) == 0.0
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_resets_ends_its_connection_and_nobody_elses() {
    let (gateway, origin, key) = shop().await;
    let head = head(&gateway, "GET");
    let mut storm = H2Peer::connect(gateway.data()).await;
    let attack = async move {
        for id in (1..20_001).step_by(2) {
            storm.frame(HEADERS, END_HEADERS | END_STREAM, id, &head).await;
            // An answer to a ping says that the head in front of it was read, so this is no rapid reset.
            if !storm.ping().await {
                return Some(id / 2);
            }
            storm.reset(id).await;
        }
        None
    };
    let (ended_after, noticed) = during(&gateway, &key, attack).await;
    noticed.holds(GROWTH);
    let ended_after = ended_after.expect("the connection of the storm ends");
    assert!((500..700).contains(&ended_after), "after {ended_after} resets");
    let reached = origin.requests().iter().filter(|request| request.path() == "/open/held").count();
    assert!(reached <= 700, "{reached} reset streams reached the origin");
    upstream_is_quiet(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gives_up_now_and_then_keeps_its_connection() {
    let (gateway, _origin, _key) = shop().await;
    let authority = gateway.data().to_string();
    let head = |path| [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", authority.as_str())];
    let mut peer = H2Peer::connect(gateway.data()).await;
    for _ in 0..600 {
        let id = peer.open(&head("/open/held"), true).await;
        assert!(peer.ping().await);
        peer.reset(id).await;
        for _ in 0..2 {
            let outcome = peer.request(&head("/status"), None).await;
            assert!(!outcome.is_refused(), "{outcome:?}");
        }
    }
}
