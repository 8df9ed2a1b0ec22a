//! Floods of HTTP/2 frames: each ends the connection it comes over or is worth nothing, and costs nobody else anything.
//!
//! `PORTCULLIS_TEST_RESETS` says how many streams are reset (default 100000), `PORTCULLIS_TEST_FLOOD_SECONDS` for how long
//! each flood goes on, over one connection after the other (default 0: each comes once).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

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
    // The origin waits for a body, and notices that there will be no more of it; that is held which has none.
    let path = if method == "POST" { "/open/taken" } else { "/open/held" };
    let authority = gateway.data().to_string();
    block(&[(":method", method), (":scheme", "http"), (":path", path), (":authority", &authority)])
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

/// Waves of a flood, what came of each: one, or as many as come in the time that floods are to go on for. Then there are two
/// at once, so that no worker is spared.
async fn waves<T, F: Future<Output = T>>(wave: impl Fn() -> F) -> Vec<T> {
    let (begun, span) = (Instant::now(), Duration::from_secs(scaled("PORTCULLIS_TEST_FLOOD_SECONDS", 0) as u64));
    if span.is_zero() {
        return vec![wave().await];
    }
    let client = async || {
        let mut seen = Vec::new();
        while begun.elapsed() < span {
            seen.push(wave().await);
        }
        seen
    };
    let (one, other) = tokio::join!(client(), client());
    [one, other].into_iter().flatten().collect()
}

#[track_caller]
fn all_ended(waves: &[Flooded]) {
    assert!(waves.iter().all(|flooded| matches!(flooded, Flooded::Ended(_))), "a connection lives: {waves:?}");
}

/// How many requests that are part of a flood have reached the origin.
fn reached(origin: &Origin) -> usize {
    origin.requests().iter().filter(|request| request.path() == "/open/held").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_never_end_are_cut_off() {
    let (gateway, origin, key) = shop().await;
    let field = block(&[("x-more", "of the same")]);
    for (what, more) in [("fields", field), ("nothing", Vec::new())] {
        let (address, head) = (gateway.data(), head(&gateway, "GET"));
        let attack = waves(move || {
            let (head, more) = (head.clone(), more.clone());
            async move {
                let mut peer = H2Peer::connect(address).await;
                peer.frame(HEADERS, END_STREAM, 1, &head).await;
                peer.flood(repeated(frame(CONTINUATION, 0, 1, &more), 200_000)).await
            }
        });
        let (waves, noticed) = during(&gateway, &key, attack).await;
        all_ended(&waves);
        noticed.holds(&format!("CONTINUATION with {what}"), GROWTH);
    }
    assert_eq!(reached(&origin), 0, "it never was a request");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_pieces_of_a_body_are_worth_what_they_carry() {
    let (gateway, _origin, key) = shop().await;
    // Empty ones carry nothing: they are thrown away, and the body stalls.
    let empty = frame(DATA, 0, 1, &[]);
    let padded = frame(DATA, 8, 1, &[3, 0, 0, 0]);
    let pieces = [("empty", empty, 200_000), ("padded", padded, 100_000), ("tiny", frame(DATA, 0, 1, b"x"), 60_000)];
    for (what, piece, count) in pieces {
        let (address, head) = (gateway.data(), head(&gateway, "POST"));
        let attack = waves(move || {
            let (head, piece) = (head.clone(), piece.clone());
            async move {
                let mut peer = H2Peer::connect(address).await;
                peer.frame(HEADERS, END_HEADERS, 1, &head).await;
                peer.flood(repeated(piece, count)).await
            }
        });
        let (_waves, noticed) = during(&gateway, &key, attack).await;
        noticed.holds(&format!("{what} DATA"), GROWTH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn storms_of_settings_and_pings_leave_nothing_behind() {
    let (gateway, _origin, key) = shop().await;
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0x40, 0]);
    let ping = frame(PING, 0, 0, b"flooded!");
    for (what, storm) in [("SETTINGS", settings), ("PING", ping)] {
        for (how, reads) in [("", true), (" of one who reads nothing", false)] {
            let (address, storm) = (gateway.data(), storm.clone());
            let attack = waves(move || {
                let frames = repeated(storm.clone(), 300_000);
                async move {
                    let mut peer = H2Peer::connect(address).await;
                    if reads { peer.flood(frames).await } else { peer.flood_unread(frames).await }
                }
            });
            let (_waves, noticed) = during(&gateway, &key, attack).await;
            noticed.holds(&format!("{what}{how}"), GROWTH);
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
    let origin = Arc::new(origin);
    for (breach, of) in breaches {
        origin.forget();
        let (address, head, behind) = (gateway.data(), head.clone(), Arc::clone(&origin));
        let attack = waves(move || {
            let (head, behind) = (head.clone(), Arc::clone(&behind));
            async move {
                let mut peer = H2Peer::connect(address).await;
                let frames = by_stream(100_000, |id| {
                    let mut frames = frame(HEADERS, END_HEADERS | END_STREAM, id, &head);
                    frames.extend_from_slice(&of(id));
                    frames
                });
                let flooded = peer.flood(frames).await;
                let reached = reached(&behind);
                behind.forget();
                (flooded, reached)
            }
        });
        let (waves, noticed) = during(&gateway, &key, attack).await;
        let (waves, reached): (Vec<Flooded>, Vec<usize>) = waves.into_iter().unzip();
        all_ended(&waves);
        noticed.holds(breach, GROWTH);
        let (reached, most) = (reached.iter().sum::<usize>(), waves.len() * (1024 + 100));
        assert!(reached <= most, "{breach}: {reached} requests reached the origin over {} connections", waves.len());
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
    let address = gateway.data();
    let attack = waves(move || {
        let bomb = bomb.clone();
        async move {
            let mut peer = H2Peer::connect(address).await;
            peer.flood(by_stream(300, |id| frame(HEADERS, END_HEADERS | END_STREAM, id, &bomb))).await
        }
    });
    let (_waves, noticed) = during(&gateway, &key, attack).await;
    noticed.holds("HPACK bomb", GROWTH);
    assert_eq!(reached(&origin), 0, "it never was a request");
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_end_their_connections_and_reach_no_upstream_in_numbers() {
    let (gateway, origin, key) = shop().await;
    origin.forget();
    let (total, origin) = (scaled("PORTCULLIS_TEST_RESETS", 100_000), Arc::new(origin));
    let (sent, arrived) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (address, head) = (gateway.data(), head(&gateway, "GET"));
    let (behind, counts) = (Arc::clone(&origin), (Arc::clone(&sent), Arc::clone(&arrived)));
    let attack = async move {
        let wave = || async {
            let mut peer = H2Peer::connect(address).await;
            let mut resets = 0;
            let mut frames = by_stream(total, |id| {
                let mut frames = frame(HEADERS, END_HEADERS | END_STREAM, id, &head);
                frames.extend_from_slice(&frame(RST_STREAM, 0, id, &8u32.to_be_bytes()));
                frames
            });
            ended_or_all(peer.flood(|| frames().inspect(|_| resets += 1)).await, resets == total);
            counts.0.fetch_add(resets, Ordering::Relaxed);
            counts.1.fetch_add(reached(&behind), Ordering::Relaxed);
            behind.forget();
        };
        let mut connections = waves(wave).await.len();
        while counts.0.load(Ordering::Relaxed) < total {
            wave().await;
            connections += 1;
        }
        connections
    };
    let (connections, noticed) = during(&gateway, &key, attack).await;
    let sent = sent.load(Ordering::Relaxed);
    noticed.holds(&format!("{sent} rapid resets"), GROWTH);
    let reached = arrived.load(Ordering::Relaxed) + reached(&origin);
    assert!(reached < sent / 50, "{reached} of {sent} reset streams reached the origin over {connections} connections");
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
    noticed.holds("resets one by one", GROWTH);
    let ended_after = ended_after.expect("the connection of the storm ends");
    assert!((500..700).contains(&ended_after), "after {ended_after} resets");
    let reached = reached(&origin);
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
