//! Servers behind the gateway: TLS towards them, several of them, and no more connections than they can take.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis_testkit::{Answer, Origin, ScriptedOrigin, TestCa, eventually, patient};

use crate::scene;

fn tls_config(extra: &str) -> String {
    format!(
        r#"
listeners: [{{ bind: "127.0.0.1:0" }}]
upstreams:
  far: {{ targets: [{{ url: "https://{{{{far}}}}" }}], tls: {{ ca: ca.pem{extra} }} }}
routes: [{{ path: "/**", upstream: far, auth: none }}]
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_must_prove_who_it_is() {
    let (ours, theirs) = (TestCa::new("ours"), TestCa::new("theirs"));
    let origin = Origin::tls(&ours, &["http/1.1"]).await;
    for (ca, extra, status) in [
        (&ours, "", 200),
        (&ours, ", server_name: localhost", 200),
        (&ours, ", server_name: other.test", 502),
        (&theirs, "", 502),
    ] {
        let gateway = scene::site(&tls_config(extra)).upstream("far", &origin).file("ca.pem", ca.pem()).start().await;
        gateway.get("/").await.expect(status);
    }
    assert_eq!(origin.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_can_ask_the_gateway_who_it_is() {
    let ca = TestCa::new("ours");
    let origin = Origin::mutual_tls(&ca, &["http/1.1"]).await;
    let own = ca.client("gateway");
    let gateway = scene::site(&tls_config(", client_certificate: { cert: own.pem, key: own.key }"))
        .upstream("far", &origin)
        .file("ca.pem", ca.pem())
        .file("own.pem", own.cert)
        .file("own.key", own.key)
        .start()
        .await;
    gateway.get("/").await.expect(200);
    let anonymous = scene::site(&tls_config("")).upstream("far", &origin).file("ca.pem", ca.pem()).start().await;
    anonymous.get("/").await.refused(502, "upstream_unreachable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_reads_the_files_about_upstreams_again_and_keeps_connections_where_they_are_the_same() {
    let (ours, theirs) = (TestCa::new("ours"), TestCa::new("theirs"));
    let origin = Origin::tls(&ours, &["http/1.1"]).await;
    // One worker, so that a connection which is kept is a connection that is used.
    let config = format!("{}workers: 1\n", tls_config(""));
    let gateway = scene::site(&config).upstream("far", &origin).file("ca.pem", ours.pem()).start().await;
    gateway.get("/").await.expect(200);
    let _ = gateway.cli(&["reload"]).await.success();
    gateway.get("/").await.expect(200);
    assert_eq!(origin.connections(), 1);

    gateway.write("ca.pem", theirs.pem());
    let _ = gateway.cli(&["reload"]).await.success();
    gateway.get("/").await.refused(502, "upstream_unreachable");

    gateway.write("ca.pem", "none");
    let _ = gateway.cli(&["reload"]).await.exit(3).says(&["ca.pem"]);
    gateway.write("ca.pem", ours.pem());
    let _ = gateway.cli(&["reload"]).await.success();
    gateway.get("/").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_targets_share_the_work_and_a_dead_one_costs_nobody_an_answer() {
    let (one, two) = (Origin::start().await, Origin::start().await);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = r#"
listeners: [{ bind: "127.0.0.1:0" }]
upstreams:
  both: { targets: [{ url: "http://{{one}}" }, { url: "http://{{two}}" }, { url: "http://{{dead}}" }] }
routes: [{ path: "/**", upstream: both, auth: none }]
"#;
    let gateway = scene::site(config).upstream("one", &one).upstream("two", &two).fill("dead", free).start().await;
    for _ in 0..40 {
        gateway.get("/").await.expect(200);
    }
    assert!(one.count() >= 5 && two.count() >= 5, "{} and {}", one.count(), two.count());
    let metrics = gateway.metrics().await;
    let dead =
        metrics.value("portcullis_upstream_healthy", &[("upstream", "both"), ("target", &format!("http://{free}"))]);
    assert!(dead.is_none_or(|healthy| healthy == 0.0), "{}", metrics.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_upstream_is_503_after_a_bounded_wait_and_never_sees_more_than_it_can_take() {
    let origin = Origin::start().await;
    let config = r#"
listeners: [{ bind: "127.0.0.1:0" }]
upstreams:
  small: { targets: [{ url: "http://{{small}}" }], max_connections: 2, queue_timeout: 300ms }
routes: [{ path: "/**", upstream: small, auth: none }]
# One worker, so that the queued request can only take over a connection that it sees come free.
workers: 1
"#;
    let gateway = scene::site(config).upstream("small", &origin).start().await;
    let (held, latch) = Answer::ok("done").held();
    origin.answer(held);
    let mut waiting: Vec<_> = (0..2).map(|_| tokio::spawn(gateway.get("/held").into_future())).collect();
    eventually!("both connections are in use", origin.count() == 2);
    gateway.get("/third").await.refused(503, "upstream_busy");
    let queued = tokio::spawn(gateway.get("/queued").into_future());
    tokio::time::sleep(Duration::from_millis(50)).await;
    latch.open();
    waiting.push(queued);
    for answer in waiting {
        let answer = answer.await.unwrap();
        assert!(answer.status == 200, "{answer:?}");
    }
    assert!(origin.connections() <= 2, "{} connections", origin.connections());
    assert!(origin.requests().iter().all(|request| request.path() != "/third"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_built_in_echo_shows_what_an_upstream_would_get() {
    let config = r#"
listeners: [{ bind: "127.0.0.1:0" }]
upstreams: { mirror: { kind: echo } }
routes: [{ path: "/**", upstream: mirror, auth: any_key }]
"#;
    let gateway = scene::site(config).start().await;
    let key = gateway.key("caller", "").await;
    let shown = gateway.post("/x?y=1").bearer(&key).body("hello").await.expect(200).json();
    assert_eq!(shown["method"], "POST", "{shown}");
    assert_eq!(shown["path"], "/x?y=1", "{shown}");
    assert_eq!(shown["headers"]["x-portcullis-key-id"], key.id.as_str(), "{shown}");
    assert!(shown["headers"]["authorization"].is_null(), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_request_to_an_upstream_without_http2_costs_nobody_else_an_answer() {
    let upstream = ScriptedOrigin::start(|mut peer| async move {
        while let Some(head) = peer.head().await {
            if head.starts_with("PRI ") {
                // As a server that waits for the rest of what it takes for a request.
                return peer.until_end().await;
            }
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Number: {}\r\n\r\nok", peer.number)).await;
        }
    })
    .await;
    let config = r#"
workers: 1
listeners: [{ bind: "127.0.0.1:0" }]
upstreams:
  far: { targets: [{ url: "http://{{far}}" }], protocol: auto, timeouts: { first_byte: 1s } }
routes: [{ path: "/**", upstream: far, auth: none }]
"#;
    let gateway = scene::site(config).fill("far", upstream.authority()).start().await;
    let mut numbers = BTreeSet::new();
    for _ in 0..2 {
        let grpc = gateway.post("/").h2().header("content-type", "application/grpc").body("x").await;
        assert!(!grpc.is_from_origin(), "{grpc:?}");
        assert!(upstream.heads().iter().any(|head| head.starts_with("PRI ")), "{:?}", upstream.heads());
        for _ in 0..10 {
            let started = Instant::now();
            let answer = gateway.get("/").await.expect(200);
            assert!(started.elapsed() < patient(Duration::from_millis(900)), "{:?}", started.elapsed());
            numbers.insert(answer.header("x-number").unwrap().to_owned());
        }
    }
    assert!(numbers.len() <= 2, "20 requests went over the connections {numbers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_upstream_answered_before_it_was_asked_whole_is_not_used_again() {
    // The first connection answers early, takes the body all the same, and then nothing more.
    let upstream = ScriptedOrigin::start(|mut peer| async move {
        while peer.head().await.is_some() {
            if peer.number > 1 {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                continue;
            }
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\ne").await;
            let _body = peer.bytes(40_000).await;
            peer.send("y").await;
            return peer.until_end().await;
        }
    })
    .await;
    let gateway = scene::open_door(&upstream.authority(), "workers: 1").await;
    let (call, feed) = gateway.post("/up").header("content-length", "40000").fed();
    assert!(feed.send(vec![b'h'; 20_000]).await);
    let mut early = call.stream().await;
    assert_eq!(early.head.status, 200, "{:?}", early.head);
    // Only now that the answer has begun, the rest is sent.
    assert!(feed.send(vec![b'o'; 20_000]).await);
    drop(feed);
    assert_eq!(early.text().await.unwrap(), "ey");
    let started = Instant::now();
    for _ in 0..5 {
        assert_eq!(gateway.get("/").await.expect(200).text(), "ok");
    }
    assert!(started.elapsed() < patient(Duration::from_secs(5)), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_opens_connections_in_waves_and_not_all_at_once() {
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&accepted);
    // Takes connections and never answers the TLS hello: each is being opened until its time is over.
    let upstream = ScriptedOrigin::start(move |mut peer| {
        noted.lock().unwrap().push(Instant::now());
        async move { peer.until_end().await }
    })
    .await;
    let ca = TestCa::new("ours");
    let config = format!("workers: 1\n{}", tls_config(", server_name: localhost"));
    // On a busy machine the two waves may be noticed together; without waves there is never a pause between them.
    let mut pauses = Vec::new();
    for _ in 0..5 {
        let site = scene::site(&config).fill("far", upstream.authority()).file("ca.pem", ca.pem());
        let gateway = site.start().await;
        accepted.lock().unwrap().clear();
        let calls: Vec<_> = (0..100).map(|_| tokio::spawn(gateway.get("/").attempt())).collect();
        eventually!("nobody waits for a turn for ever", accepted.lock().unwrap().len() == 100);
        calls.iter().for_each(tokio::task::JoinHandle::abort);
        let times = accepted.lock().unwrap().clone();
        pauses.push(times[32] - times[31]);
        if pauses.last().is_some_and(|pause| *pause > Duration::from_millis(50)) {
            return;
        }
    }
    panic!("between the first 32 connections and the rest: {pauses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_larger_than_a_wave_is_answered_whole() {
    let origin = Origin::start().await;
    origin.answer(Answer::ok("late").after(Duration::from_millis(50)));
    let gateway = scene::open_door(&origin.authority(), "workers: 1").await;
    let calls: Vec<_> = (0..200).map(|_| tokio::spawn(gateway.get("/").attempt())).collect();
    for call in calls {
        assert_eq!(call.await.unwrap().unwrap().status, 200);
    }
    assert!(origin.connections() <= 200, "{}", origin.connections());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_whose_connections_are_all_in_use_is_passed_over() {
    for (protocol, balance) in [("h1", "round_robin"), ("h1", "least_requests"), ("h2c", "round_robin")] {
        let (one, two) = (Origin::start().await, Origin::start().await);
        let config = format!(
            r#"
workers: 1
listeners: [{{ bind: "127.0.0.1:0" }}]
upstreams:
  both:
    targets: [{{ url: "http://{{{{one}}}}" }}, {{ url: "http://{{{{two}}}}" }}]
    protocol: {protocol}
    balance: {balance}
    max_connections: 1
    queue_timeout: 4s
routes: [{{ path: "/**", upstream: both, auth: none }}]
"#
        );
        let gateway = scene::site(&config).upstream("one", &one).upstream("two", &two).start().await;
        let (held, latch) = Answer::ok("done").held();
        one.answer_at("/held", held.clone());
        two.answer_at("/held", held);
        let first = tokio::spawn(gateway.get("/held").into_future());
        eventually!("a connection is in use", one.count() + two.count() == 1);
        let started = Instant::now();
        for _ in 0..6 {
            gateway.get("/").await.expect(200);
        }
        assert!(started.elapsed() < patient(Duration::from_secs(2)), "{protocol}: {:?}", started.elapsed());
        let counts = (one.count(), two.count());
        if protocol == "h1" {
            assert!(counts == (1, 6) || counts == (6, 1), "{counts:?}");
        }
        // Where all are in use, the request waits for one.
        let second = tokio::spawn(gateway.get("/held").into_future());
        eventually!("both are in use", one.count() + two.count() == 8);
        let queued = tokio::spawn(gateway.get("/queued").into_future());
        tokio::time::sleep(Duration::from_millis(100)).await;
        latch.open();
        for answer in [first, second, queued] {
            answer.await.unwrap().expect(200);
        }
    }
}
