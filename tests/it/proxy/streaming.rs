//! Bodies of any length flow through without being held.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use portcullis_testkit::{Answer, Connection, ScriptedOrigin, eventually, patient};

use crate::scene;

const MIB: u64 = 1 << 20;

/// What the process may grow by while a hundred megabytes pass.
const GROWTH: u64 = 16 * MIB;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_flow_down_and_memory_stays_flat() {
    let (gateway, origin) = scene::shop().await;
    origin.answer(Answer::pattern(100 * MIB));
    gateway.get("/status").stream().await.count_pattern().await;
    let before = gateway.resident_bytes();
    let mut peak = before;
    let mut streaming = gateway.get("/open/x").stream().await;
    let mut read = 0;
    while let Some(piece) = streaming.piece().await.unwrap() {
        read += piece.len() as u64;
        peak = peak.max(if read % (8 * MIB) < 64 * 1024 { gateway.resident_bytes() } else { 0 });
    }
    assert_eq!(read, 100 * MIB);
    peak = peak.max(gateway.resident_bytes());
    assert!(peak < before + GROWTH, "resident memory grew from {before} to {peak}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_megabytes_flow_up_and_memory_stays_flat() {
    let (gateway, origin) = scene::shop().await;
    gateway.post("/open/x").pattern(MIB).await.expect(200);
    let before = gateway.resident_bytes();
    gateway.post("/open/x").unsized_pattern(100 * MIB).await.expect(200);
    let seen = origin.last();
    assert!(seen.complete && seen.body_is_pattern && seen.body_bytes == 100 * MIB, "{} bytes", seen.body_bytes);
    let after = gateway.resident_bytes();
    assert!(after < before + GROWTH, "resident memory grew from {before} to {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_directions_flow_at_once_over_both_versions() {
    let (gateway, origin) = scene::shop().await;
    origin.answer(Answer::echo());
    for h2 in [false, true] {
        let call = gateway.post("/open/x").unsized_pattern(20 * MIB);
        let call = if h2 { call.h2() } else { call };
        assert_eq!(call.stream().await.count_pattern().await, 20 * MIB, "h2: {h2}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_holds_the_upstream_back() {
    let (gateway, origin) = scene::shop().await;
    let (answer, feed) = Answer::fed();
    origin.answer(answer);
    let mut streaming = gateway.get("/open/x").stream().await;
    let before = gateway.resident_bytes();
    let mut sent = 0;
    // Fill every buffer on the way until nothing more is taken.
    while tokio::time::timeout(patient(Duration::from_millis(500)), feed.send(vec![b'x'; 256 * 1024])).await.is_ok() {
        sent += 256 * 1024;
        assert!(sent < 64 * MIB, "the gateway swallows a body that nobody reads");
    }
    assert!(gateway.resident_bytes() < before + GROWTH);
    drop(feed);
    let mut read = 0;
    while let Some(piece) = streaming.piece().await.unwrap() {
        read += piece.len() as u64;
    }
    assert!(read >= sent, "{read} of {sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_arrives_before_the_next_one_is_made() {
    let (gateway, origin) = scene::shop().await;
    let (answer, feed) = Answer::events();
    origin.answer(answer);
    let mut streaming = gateway.get("/open/events").header("accept", "text/event-stream").stream().await;
    assert_eq!(streaming.head.header("content-type"), Some("text/event-stream"));
    for number in 0..5 {
        let event = format!("id: {number}\ndata: tick\n\n");
        assert!(feed.send(event.clone()).await);
        let piece = tokio::time::timeout(patient(Duration::from_secs(2)), streaming.piece()).await;
        assert_eq!(piece.expect("the event arrives at once").unwrap().unwrap(), event);
    }
    drop(feed);
    assert_eq!(streaming.piece().await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_is_noticed_by_the_upstream() {
    let (gateway, origin) = scene::shop().await;
    let (answer, feed) = Answer::events();
    origin.answer(answer);
    let mut streaming = gateway.get("/open/events").stream().await;
    feed.send("data: 1\n\n").await;
    streaming.piece().await.unwrap();
    drop(streaming);
    let noticed = async {
        while feed.send("data: 2\n\n").await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(patient(Duration::from_secs(10)), noticed).await.expect("the upstream is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_breaks_off_breaks_the_answer_off() {
    let (gateway, origin) = scene::shop().await;
    for h2 in [false, true] {
        let (answer, feed) = Answer::fed();
        origin.answer(answer);
        let call = gateway.get("/open/x");
        let mut streaming = if h2 { call.h2() } else { call }.stream().await;
        feed.send("some").await;
        streaming.piece().await.unwrap();
        feed.abort().await;
        assert!(streaming.piece().await.is_err(), "h2: {h2}: a part must not look like the whole");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_invited_only_once_it_can_be_delivered() {
    let (gateway, origin) = scene::shop().await;
    let key = gateway.key("writer", "write:orders").await;
    let head = |key: &str| {
        format!(
            "POST /v1/orders HTTP/1.1\r\nHost: shop.test\r\nAuthorization: Bearer {key}\r\nContent-Length: 5\r\n\
             Expect: 100-continue\r\n\r\n"
        )
    };
    let mut raw = gateway.raw().await;
    raw.send(head(&key.text)).await;
    let interim = raw.next().await.expect("an invitation");
    assert_eq!(interim.status, 100, "{interim:?}");
    raw.send("hello").await;
    raw.response().await.expect(200);
    assert_eq!(origin.last().text(), "hello");

    let mut raw = gateway.raw().await;
    raw.send(head("stranger")).await;
    let answer = raw.next().await.expect("a refusal");
    assert_eq!(answer.status, 401, "no invitation goes before a refusal: {answer:?}");
    raw.send("GET /open/smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    raw.all().await;
    assert!(origin.requests().iter().all(|request| request.path() != "/open/smuggled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expectation_nobody_knows_is_refused() {
    let (gateway, origin) = scene::shop().await;
    for expectation in ["100-continue, x", "200-ok", " "] {
        let mut raw = gateway.raw().await;
        raw.send(format!(
            "POST /open/x HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\nExpect: {expectation}\r\n\r\nhi"
        ))
        .await;
        let answer = raw.response().await;
        assert_eq!(answer.status, 417, "{expectation:?}: {answer:?}");
    }
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_cut_when_its_key_is_gone() {
    let (gateway, origin) = scene::shop_with("", "auth: { recheck_interval: 1s }").await;
    let key = gateway.key("listener", "").await;
    let (answer, feed) = Answer::events();
    origin.answer(answer);
    let mut streaming = gateway.get("/any/events").bearer(&key).stream().await;
    assert_eq!(streaming.head.status, 200);
    feed.send("data: 1\n\n").await;
    streaming.piece().await.unwrap();
    let _ = gateway.cli(&["keys", "revoke", &key.id]).await.success();
    let cut = tokio::time::timeout(patient(Duration::from_secs(8)), streaming.piece()).await;
    assert!(matches!(cut, Ok(Err(_) | Ok(None))), "the stream outlives its key: {cut:?}");
    eventually!("the upstream is told", !feed.send("data: 2\n\n").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_ends_when_its_key_is_gone() {
    let (gateway, origin) = scene::shop_with("", "auth: { recheck_interval: 1s }").await;
    let key = gateway.key("sender", "").await;
    let mut raw = gateway.raw().await;
    raw.send(format!(
        "POST /any/upload HTTP/1.1\r\nHost: shop.test\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        key.text
    ))
    .await;
    raw.send("1\r\na\r\n").await;
    eventually!("the upload begins", origin.connections() == 1);
    let _ = gateway.cli(&["keys", "revoke", &key.id]).await.success();
    for _ in 0..30 {
        raw.send("1\r\na\r\n").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Its end would make it whole; what was said before that is an answer to a request that was not.
    let answer = raw.response().await.expect(401);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(answer.text().contains("invalid_key"), "{answer:?}");
    eventually!(
        "the upstream's connection is let go",
        gateway.metrics().await.sum("portcullis_upstream_connections", &[]) == 0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn white_space_hides_no_second_credential_over_h2() {
    let (gateway, origin) = scene::shop().await;
    let key = gateway.key("one", "").await;
    for hidden in [" Bearer another", "\tBearer another", "Bearer another "] {
        let call = gateway.get("/any/x").h2().header("x-api-key", &key.text).header("authorization", hidden);
        call.await.expect(400);
    }
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_beginning_of_an_answer_arrives_although_the_rest_never_does() {
    let upstream = ScriptedOrigin::start(|mut peer| async move {
        if peer.head().await.is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npartial").await;
        }
    })
    .await;
    let gateway = scene::open_door(&upstream.authority(), "workers: 1").await;
    for _ in 0..20 {
        let mut raw = gateway.raw().await;
        raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let received = String::from_utf8_lossy(&raw.rest().await).into_owned();
        assert!(received.starts_with("HTTP/1.1 200 OK\r\n") && received.ends_with("\r\n\r\npartial"), "{received:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_lets_go_of_its_upstream_even_when_it_owes_a_body() {
    let upstream = ScriptedOrigin::start(|mut peer| async move {
        if peer.head().await.is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
            peer.send(vec![b'x'; 64 << 20]).await;
            peer.until_end().await;
        }
    })
    .await;
    let sections = "workers: 1\nlimits: { stall_timeout: 1s }";
    let gateway = scene::open_door(&upstream.authority(), sections).await;
    let mut raw = gateway.raw().await;
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n0123456789").await;
    let open = [("upstream", "far")];
    eventually!("the exchange begins", gateway.metrics().await.sum("portcullis_upstream_connections", &open) == 1.0);
    eventually!(
        "the upstream's connection is let go",
        within Duration::from_secs(10),
        gateway.metrics().await.sum("portcullis_upstream_connections", &open) == 0.0
    );
    drop(raw);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_answers_at_once_still_gets_the_whole_body() {
    for (head, status) in [("202 Accepted\r\nContent-Length: 2\r\n\r\nok", 202), ("204 No Content\r\n\r\n", 204)] {
        the_whole_body_arrives_behind(head, status).await;
    }
}

async fn the_whole_body_arrives_behind(head: &'static str, status: u16) {
    let whole = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&whole);
    let upstream = ScriptedOrigin::start(move |mut peer| {
        let counter = Arc::clone(&counter);
        async move {
            if peer.head().await.is_some() {
                peer.send(format!("HTTP/1.1 {head}")).await;
                if peer.bytes(200_000).await.is_some() {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
                peer.until_end().await;
            }
        }
    })
    .await;
    let gateway = scene::open_door(&upstream.authority(), "workers: 1").await;
    let mut raw = gateway.raw().await;
    raw.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n").await;
    let answer = raw.response().await;
    assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{answer:?}");
    raw.send(vec![b'x'; 200_000]).await;
    eventually!("the upstream has the whole body", whole.load(Ordering::Relaxed) == 1);
    let mut h2 = Connection::h2(gateway.data()).await;
    h2.send(gateway.post("/").body(vec![b'x'; 200_000])).await.expect(status);
    eventually!("the upstream has the whole body over HTTP/2", whole.load(Ordering::Relaxed) == 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_large_answers_at_once_arrive_byte_for_byte_and_their_connections_are_used_again() {
    let (gateway, origin) = scene::shop_with("", "workers: 1").await;
    origin.answer(Answer::pattern(4 * MIB));
    // More than a worker keeps out of its own memory: the others go through buffers.
    let streams = join_all((0..40).map(|_| gateway.get("/open/x").stream())).await;
    let counted = streams.into_iter().map(|mut stream| async move { stream.count_pattern().await });
    assert_eq!(join_all(counted).await, [4 * MIB; 40]);
    let before = origin.connections();
    let mut connection = Connection::h1(gateway.data()).await;
    for length in [4 * MIB, 1, 256 * 1024, 4 * MIB + 1] {
        origin.answer(Answer::pattern(length));
        assert_eq!(connection.send(gateway.get("/open/x")).await.expect(200).body.len() as u64, length);
    }
    assert_eq!(origin.connections(), before);
    eventually!("nothing is held", gateway.metrics().await.sum("portcullis_memory_held_bytes", &[]) < MIB as f64);
}

/// A large answer that says it has a million bytes, and so many of them; then the upstream ends the connection.
async fn a_large_answer_that_is_wrong_about_its_length(sent: usize) -> Vec<u8> {
    let upstream = ScriptedOrigin::start(move |mut peer| async move {
        if peer.head().await.is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await;
            peer.send(vec![b'x'; sent]).await;
        }
    })
    .await;
    let gateway = scene::open_door(&upstream.authority(), "workers: 1").await;
    let mut raw = gateway.raw().await;
    raw.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let received = if sent < 1_000_000 {
        raw.rest().await
    } else {
        let answer = raw.response().await.expect(200);
        // What follows on either connection is no part of it.
        raw.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let next = String::from_utf8_lossy(&raw.rest().await).into_owned();
        assert!(next.starts_with("HTTP/1.1 200 OK\r\n") && next.ends_with("xxx"), "{} bytes", next.len());
        return answer.body.to_vec();
    };
    let end_of_head = received.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap();
    received[end_of_head + 4..].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_answer_is_neither_longer_than_it_says_nor_whole_when_it_is_not() {
    for (sent, arrives) in [(700_001, 700_001), (1_000_003, 1_000_000)] {
        let received = a_large_answer_that_is_wrong_about_its_length(sent).await;
        assert!(received.len() == arrives && received.iter().all(|byte| *byte == b'x'), "{} bytes", received.len());
    }
}
