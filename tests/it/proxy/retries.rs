//! Kept connections that the upstream closes: nothing is lost that can be repeated, nothing is done twice that cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portcullis_testkit::h2_frames::{END_STREAM, HEADERS};
use portcullis_testkit::h2_server::{INTERNAL_ERROR, MAX_STREAMS, OK, REFUSED_STREAM};
use portcullis_testkit::{Connection, Gateway, H2Server, Origin, RawPeer, Response, ScriptedOrigin, eventually};
use rustix::process::Signal;

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
        eventually!("the gateway holds no idle connection", {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_its_h2_connection_did_not_take_keeps_the_clients_host() {
    let origin = Origin::start().await;
    let config = r#"
workers: 1
listeners: [{ bind: "127.0.0.1:0" }]
upstreams: { far: { targets: [{ url: "http://{{far}}" }], protocol: h2c } }
routes: [{ path: "/**", upstream: far, auth: none }]
"#;
    let gateway = scene::site(config).upstream("far", &origin).start().await;
    let mut raw = gateway.raw().await;
    let mut taken_up_again = 0;
    for round in 1..=8 {
        raw.send("GET /before HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
        raw.response().await.expect(200);
        // The request and the end of the connection it will be given to arrive together.
        gateway.signal(Signal::STOP);
        let status = format!("/proc/{}/status", gateway.process_id());
        eventually!("the gateway stands still", std::fs::read_to_string(&status).unwrap().contains("T (stopped)"));
        raw.send("GET /after HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
        origin.break_connections();
        eventually!("the connection has ended", !is_established_to(origin.address()));
        gateway.signal(Signal::CONT);
        // Had the old connection taken the request already, nobody knows what became of it: that is a 502.
        let answer = raw.response().await;
        assert!(matches!(answer.status, 200 | 502), "round {round}: {answer:?}");
        taken_up_again += usize::from(answer.status == 200);
        let hosts: Vec<_> = origin.requests().into_iter().map(|seen| seen.host).collect();
        assert!(hosts.iter().all(|host| host == "shop.test"), "round {round}: {hosts:?}");
    }
    assert!(taken_up_again > 0, "no request met the end of its connection in time");
}

/// Whether any connection to `address` is open, as the kernel sees it from the near end.
fn is_established_to(address: std::net::SocketAddr) -> bool {
    const ESTABLISHED: &str = "01";
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let far = format!(":{:04X}", address.port());
    table.lines().any(|line| {
        let mut columns = line.split_whitespace().skip(2);
        columns.next().is_some_and(|remote| remote.ends_with(&far)) && columns.next() == Some(ESTABLISHED)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_the_upstream_breaks_off_is_never_begun_in_the_middle_elsewhere() {
    // Reads a part of the body, answers and closes; whatever begins a connection is noted.
    let upstream = ScriptedOrigin::start(|mut peer| async move {
        if peer.head().await.is_some() {
            let _some = peer.bytes(256 * 1024).await;
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        }
    })
    .await;
    let gateway = scene::open_door(&upstream.authority(), "workers: 1").await;
    for h2 in [false, true] {
        for _ in 0..10 {
            let call = gateway.post("/up").unsized_pattern(4 << 20);
            // Whatever the client sees, an answer or a broken connection, nothing of its body is taken for a request.
            let _seen = if h2 { call.h2().attempt().await } else { call.attempt().await };
        }
    }
    for head in upstream.heads() {
        assert!(head.starts_with("POST /up HTTP/1.1\r\n"), "{:?}", &head[..head.len().min(80)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interim_answer_is_an_answer_and_nothing_is_repeated_behind_it() {
    let upstream = ScriptedOrigin::start(|mut peer| async move {
        let mut served = 0;
        while peer.head().await.is_some() {
            served += 1;
            if served == 1 {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            } else {
                return peer.send("HTTP/1.1 102 Processing\r\n\r\n").await;
            }
        }
    })
    .await;
    let gateway = scene::open_door(&upstream.authority(), "workers: 1").await;
    gateway.get("/one").await.expect(200);
    gateway.call("DELETE", "/two").await.expect(502);
    assert_eq!(upstream.heads().len(), 2, "{:?}", upstream.heads());
}

/// A gateway in front of an upstream that speaks HTTP/2 in the clear, which any failure makes it doubt.
async fn doubting(upstream: &ScriptedOrigin) -> Gateway {
    let config = r#"
workers: 1
listeners: [{ bind: "127.0.0.1:0" }]
upstreams: { far: { targets: [{ url: "http://{{far}}" }], protocol: h2c, ejection: { failures: 1 } } }
routes: [{ path: "/**", upstream: far, auth: none }]
"#;
    scene::site(config).fill("far", upstream.authority()).start().await
}

fn is_doubted(gateway: &Gateway) -> bool {
    gateway.logs().text().contains("a target fails")
}

/// The access line of an answer comes after all that was said on the way to it.
async fn trusted_after(gateway: &Gateway, answer: &Response) {
    let _line = gateway.access_line(answer).await;
    assert!(!is_doubted(gateway), "{}", gateway.logs().text());
}

/// Asks with a body that comes only once the upstream has the head of a second try.
async fn with_a_late_body(gateway: &Gateway, tries: &AtomicUsize) -> Response {
    let mut raw = gateway.raw().await;
    raw.send("POST /order HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n").await;
    eventually!("it was tried twice", tries.load(Ordering::SeqCst) >= 2);
    raw.send(vec![b'x'; 20_000]).await;
    raw.response().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_h2_upstream_refuses_to_process_is_sent_again() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&tries);
    let upstream = ScriptedOrigin::start(move |peer: RawPeer| {
        let counter = Arc::clone(&counter);
        async move {
            let Some(mut server) = H2Server::begin(peer, &[]).await else { return };
            while let Some(frame) = server.frame().await {
                let ends = frame.flags & END_STREAM != 0;
                if frame.kind == HEADERS && counter.fetch_add(1, Ordering::SeqCst).is_multiple_of(2) {
                    server.reset(frame.stream, REFUSED_STREAM).await;
                } else if ends {
                    server.answer(frame.stream, OK).await;
                }
            }
        }
    })
    .await;
    let gateway = doubting(&upstream).await;
    for _ in 0..3 {
        gateway.get("/").await.expect(200);
    }
    tries.store(0, Ordering::SeqCst);
    with_a_late_body(&gateway, &tries).await.expect(200);
    // A short body is kept until there is an answer.
    for _ in 0..3 {
        gateway.post("/").body("hello").await.expect(200);
        let mut line = Connection::h2(gateway.data()).await;
        line.send(gateway.post("/").body("hello")).await.expect(200);
    }
    // What is on its way of a long one cannot be had back.
    let answer = gateway.post("/").body("x".repeat(17_000)).await;
    trusted_after(&gateway, &answer).await;
    answer.refused(502, "upstream_unreachable");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_h2_upstream_that_leaves_in_order_costs_no_request() {
    // Every connection answers one request and leaves before the next.
    let tries = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&tries);
    let upstream = ScriptedOrigin::start(move |peer: RawPeer| {
        let counter = Arc::clone(&counter);
        async move {
            let Some(mut server) = H2Server::begin(peer, &[]).await else { return };
            while let Some(frame) = server.frame().await {
                if frame.kind == HEADERS {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
                if frame.kind == HEADERS && frame.stream > 1 {
                    server.go_away(1).await;
                } else if frame.stream == 1 && frame.flags & END_STREAM != 0 {
                    server.answer(1, OK).await;
                }
            }
        }
    })
    .await;
    let gateway = doubting(&upstream).await;
    for _ in 0..5 {
        gateway.get("/").await.expect(200);
    }
    tries.store(0, Ordering::SeqCst);
    let answer = with_a_late_body(&gateway, &tries).await.expect(200);
    trusted_after(&gateway, &answer).await;
    for _ in 0..5 {
        gateway.post("/").body("hello").await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_h2_upstream_that_gives_a_request_up_has_failed() {
    let upstream = ScriptedOrigin::start(move |peer: RawPeer| async move {
        let Some(mut server) = H2Server::begin(peer, &[]).await else { return };
        while let Some(stream) = server.request().await {
            if stream == 1 {
                server.answer(stream, OK).await;
            } else {
                server.reset(stream, INTERNAL_ERROR).await;
            }
        }
    })
    .await;
    let gateway = doubting(&upstream).await;
    let answer = gateway.get("/").await.expect(200);
    trusted_after(&gateway, &answer).await;
    gateway.get("/").await.refused(502, "upstream_unreachable");
    eventually!("its target is doubted", is_doubted(&gateway));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_on_a_new_connection_is_answered_although_the_upstream_takes_few_at_a_time() {
    let upstream = ScriptedOrigin::start(move |peer: RawPeer| async move {
        let Some(mut server) = H2Server::begin(peer, &[(MAX_STREAMS, 10)]).await else { return };
        let mut taken = Vec::new();
        loop {
            match server.frame_within(Duration::from_millis(30)).await {
                Ok(None) => return,
                Ok(Some(frame)) if frame.kind == HEADERS && taken.len() == 10 => {
                    server.reset(frame.stream, REFUSED_STREAM).await;
                }
                Ok(Some(frame)) if frame.kind == HEADERS => taken.push(frame.stream),
                Ok(Some(_)) => {}
                Err(_) => {
                    for stream in taken.drain(..) {
                        server.answer(stream, OK).await;
                    }
                }
            }
        }
    })
    .await;
    let gateway = doubting(&upstream).await;
    let calls: Vec<_> = (0..40).map(|_| tokio::spawn(gateway.get("/").attempt())).collect();
    for call in calls {
        let answer = call.await.unwrap().unwrap().expect(200);
        trusted_after(&gateway, &answer).await;
    }
}
