//! Bodies of HTTP/1 clients on their way to an upstream over HTTP/2, where another task than the connection's sends them:
//! it ends with the exchange, and nobody is blamed for what somebody else did.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portcullis_testkit::h2_frames::{DATA, END_STREAM, HEADERS, RST_STREAM, WINDOW_UPDATE};
use portcullis_testkit::h2_server::{NO_CONTENT, OK, WINDOW};
use portcullis_testkit::{Gateway, H2Server, Origin, RawPeer, ScriptedOrigin, eventually, patient};

use crate::scene;

/// A gateway in front of an upstream that speaks HTTP/2 in the clear.
async fn in_front_of(upstream: &ScriptedOrigin, settings: &str) -> Gateway {
    let config = format!(
        r#"
workers: 1
limits: {{ stall_timeout: 1s }}
listeners: [{{ bind: "127.0.0.1:0", name: front }}]
upstreams: {{ far: {{ targets: [{{ url: "http://{{{{far}}}}" }}], protocol: h2c{settings} }} }}
routes: [{{ path: "/**", upstream: far, auth: none }}]
"#
    );
    scene::site(&config).fill("far", upstream.authority()).start().await
}

/// An upstream whose every connection runs `script` once it has a request, and counts those that saw it reset.
async fn upstream<F>(script: impl Fn(H2Server, u32) -> F + Clone + Send + 'static) -> (ScriptedOrigin, Arc<AtomicUsize>)
where
    F: Future<Output = (H2Server, u32)> + Send,
{
    let resets = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&resets);
    let upstream = ScriptedOrigin::start(move |peer: RawPeer| {
        let (counter, script) = (Arc::clone(&counter), script.clone());
        async move {
            let Some(mut server) = H2Server::begin(peer, &[]).await else { return };
            while let Some(stream) = server.request().await {
                let (back, stream) = script(server, stream).await;
                server = back;
                if server.reset_of(stream).await.is_some() {
                    counter.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
    })
    .await;
    (upstream, resets)
}

/// Sockets that the process holds.
fn sockets(gateway: &Gateway) -> usize {
    let all = std::fs::read_dir(format!("/proc/{}/fd", gateway.process_id())).unwrap();
    let links = all.flatten().flat_map(|entry| std::fs::read_link(entry.path()));
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// One that owes all but ten bytes of its body.
async fn owing(gateway: &Gateway) -> portcullis_testkit::RawClient {
    let mut raw = gateway.raw().await;
    raw.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n0123456789").await;
    raw
}

/// Waits until nothing is held of a client that is gone; `before` is what was held when the first one was.
async fn let_go(gateway: &Gateway, before: &mut Option<usize>) {
    eventually!(
        "no stream to the upstream is held",
        gateway.metrics().await.sum("portcullis_upstream_connections", &[("state", "active")]) == 0.0
    );
    let before = *before.get_or_insert_with(|| sockets(gateway));
    eventually!("the client's socket is closed", sockets(gateway) <= before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_falls_silent_while_it_is_answered_is_let_go() {
    let (upstream, resets) = upstream(|mut server, stream| async move {
        server.head(stream, OK).await;
        server.data(stream, b"the beginning", false).await;
        (server, stream)
    })
    .await;
    let gateway = in_front_of(&upstream, "").await;
    let mut before = None;
    for round in 1..=3 {
        let mut raw = owing(&gateway).await;
        let received = String::from_utf8_lossy(&raw.rest().await).into_owned();
        assert!(received.starts_with("HTTP/1.1 200 OK\r\n") && received.contains("the beginning"), "{received:?}");
        eventually!("the upstream is told", resets.load(Ordering::SeqCst) == round);
        drop(raw);
        let_go(&gateway, &mut before).await;
    }
    gateway.access_line_where("the client is to blame", |line| line["reason"] == "request_timeout").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_owes_a_body_is_let_go_when_its_answer_has_none() {
    let (upstream, resets) = upstream(|mut server, stream| async move {
        server.answer(stream, NO_CONTENT).await;
        (server, stream)
    })
    .await;
    let gateway = in_front_of(&upstream, "").await;
    let mut before = None;
    for round in 1..=3 {
        let mut raw = owing(&gateway).await;
        assert_eq!(raw.response().await.expect(204).header("connection"), Some("close"));
        assert!(raw.is_closed_within(Duration::from_secs(10)).await);
        eventually!("the upstream is told", resets.load(Ordering::SeqCst) == round);
        drop(raw);
        let_go(&gateway, &mut before).await;
    }
    drop(owing(&gateway).await);
    eventually!("the upstream is told", resets.load(Ordering::SeqCst) == 4);
    let_go(&gateway, &mut before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_takes_nothing_is_told_when_the_client_leaves() {
    let told = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&told);
    let upstream = ScriptedOrigin::start(move |peer: RawPeer| {
        let counter = Arc::clone(&counter);
        async move {
            let Some(mut server) = H2Server::begin(peer, &[]).await else { return };
            while let Some(stream) = server.request().await {
                server.head(stream, OK).await;
                // It never gives room for the body, and talks until it is told.
                loop {
                    server.data(stream, b"tick", false).await;
                    match server.frame_within(Duration::from_millis(20)).await {
                        Ok(Some(frame)) if frame.kind == RST_STREAM => break,
                        Ok(None) => return,
                        Ok(Some(_)) | Err(_) => {}
                    }
                }
                counter.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    let gateway = in_front_of(&upstream, "").await;
    let mut before = None;
    for round in 1..=3 {
        let mut raw = gateway.raw().await;
        raw.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
        raw.send(vec![b'x'; 200_000]).await;
        raw.bytes(100).await;
        drop(raw);
        eventually!("the upstream is told", told.load(Ordering::SeqCst) == round);
        let_go(&gateway, &mut before).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_answers_at_once_still_gets_the_whole_body_byte_for_byte() {
    const LENGTH: usize = 300_000;
    let expected: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
    for block in [OK, NO_CONTENT] {
        let (whole, mut received) = tokio::sync::mpsc::unbounded_channel();
        let upstream = ScriptedOrigin::start(move |peer: RawPeer| {
            let whole = whole.clone();
            async move {
                let room = 1u32 << 20;
                let Some(mut server) = H2Server::begin(peer, &[(WINDOW, room)]).await else { return };
                server.say(WINDOW_UPDATE, 0, 0, &room.to_be_bytes()).await;
                let mut body = Vec::new();
                while let Some(frame) = server.frame().await {
                    match frame.kind {
                        HEADERS => server.answer(frame.stream, block).await,
                        DATA => body.extend_from_slice(&frame.payload),
                        _ => {}
                    }
                    if frame.kind == DATA && frame.flags & END_STREAM != 0 {
                        let _ = whole.send(std::mem::take(&mut body));
                    }
                }
            }
        })
        .await;
        let gateway = in_front_of(&upstream, "").await;
        for _ in 0..3 {
            let mut raw = gateway.raw().await;
            raw.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n")).await;
            let answer = raw.response().await;
            assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
            for piece in expected.chunks(30_000) {
                raw.send(piece).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let body = tokio::time::timeout(patient(Duration::from_secs(10)), received.recv()).await;
            assert!(body.expect("the whole body arrives") == Some(expected.clone()), "it is another body");
            assert!(raw.is_closed_within(Duration::from_secs(5)).await);
        }
    }
}

/// What a client is told that stalls, behind an upstream whose patience is this.
async fn stalled_behind(gateway: &Gateway) -> portcullis_testkit::Response {
    let begun = Instant::now();
    let answer = owing(gateway).await.response().await;
    assert!(begun.elapsed() >= Duration::from_millis(900), "it has all its time: {:?}", begun.elapsed());
    assert!(begun.elapsed() < patient(Duration::from_secs(4)), "{:?}", begun.elapsed());
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stalls_is_told_so_and_the_upstream_is_not_blamed() {
    // It takes everything, and answers what is whole.
    let upstream = ScriptedOrigin::start(move |peer: RawPeer| async move {
        let Some(mut server) = H2Server::begin(peer, &[]).await else { return };
        while let Some(frame) = server.frame().await {
            if frame.kind == HEADERS && frame.flags & END_STREAM != 0 {
                let number = [vec![0x88, 0, 8], b"x-number\x01".to_vec(), vec![b'0' + server.number() as u8]].concat();
                server.answer(frame.stream, &number).await;
            }
        }
    })
    .await;
    for idle in ["300ms", "30s"] {
        let settings = format!(", timeouts: {{ idle: {idle} }}, ejection: {{ failures: 1, server_errors: true }}");
        let gateway = in_front_of(&upstream, &settings).await;
        let number = gateway.get("/").await.expect(200).header("x-number").unwrap().to_owned();
        for _ in 0..2 {
            stalled_behind(&gateway).await.refused(408, "request_timeout");
        }
        let again = gateway.get("/").await.expect(200);
        assert_eq!(again.header("x-number"), Some(number.as_str()), "the connection goes on");
        assert!(!gateway.logs().text().contains("a target fails"), "{}", gateway.logs().text());
    }
    let origin = Origin::start().await;
    let config = r#"
limits: { stall_timeout: 1s }
listeners: [{ bind: "127.0.0.1:0" }]
upstreams: { far: { targets: [{ url: "http://{{far}}" }], timeouts: { idle: 300ms } } }
routes: [{ path: "/**", upstream: far, auth: none }]
"#;
    let gateway = scene::site(config).upstream("far", &origin).start().await;
    stalled_behind(&gateway).await.refused(408, "request_timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_takes_nothing_is_504_however_long_the_client_may_stall() {
    let upstream = ScriptedOrigin::start(move |peer: RawPeer| async move {
        let Some(mut server) = H2Server::begin(peer, &[(WINDOW, 10)]).await else { return };
        while server.frame().await.is_some() {}
    })
    .await;
    let gateway = in_front_of(&upstream, ", timeouts: { idle: 300ms }").await;
    let mut raw = gateway.raw().await;
    raw.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n").await;
    let begun = Instant::now();
    raw.send(vec![b'x'; 200_000]).await;
    raw.response().await.refused(504, "upstream_timeout");
    assert!(begun.elapsed() < patient(Duration::from_millis(900)), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_its_body_is_no_fault_of_the_upstream() {
    let (upstream, resets) = upstream(|server, stream| async move { (server, stream) }).await;
    let gateway = in_front_of(&upstream, ", ejection: { failures: 1, server_errors: true }").await;
    for round in 1..=3 {
        let mut raw = gateway.raw().await;
        raw.send("POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n0123456789").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(raw);
        eventually!("the upstream is told", resets.load(Ordering::SeqCst) == round);
    }
    let left = |line: &serde_json::Value| line["code"] == "request_timeout";
    gateway.access_line_where("the client is to blame", left).await;
    assert!(!gateway.logs().text().contains("a target fails"), "{}", gateway.logs().text());
    let connections = upstream.heads().iter().filter(|head| head.starts_with("PRI ")).count();
    assert_eq!(connections, 1, "the connection goes on");
}
