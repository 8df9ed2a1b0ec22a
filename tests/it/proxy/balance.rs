//! Several targets: who gets how much, who is left out and for how long, and that a broken one costs nobody an answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use portcullis_testkit::{Answer, Gateway, Origin, ScriptedOrigin, Wire, eventually, patient};

use crate::scene;

/// A gateway with one worker in front of these targets, with more of the upstream's settings.
async fn in_front_of(targets: &[String], settings: &str) -> Gateway {
    let targets: Vec<_> = targets.iter().map(|target| format!("{{ {target} }}")).collect();
    let config = format!(
        r#"
workers: 1
listeners: [{{ bind: "127.0.0.1:0" }}]
upstreams:
  shop:
    targets: [{}]
{settings}
routes: [{{ path: "/**", upstream: shop, auth: none }}]
"#,
        targets.join(", ")
    );
    scene::site(&config).start().await
}

fn url(address: impl std::fmt::Display) -> String {
    format!("url: \"http://{address}\"")
}

fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Takes connections into a backlog that is full: nobody ever gets one.
struct BlackHole {
    _listener: tokio::net::TcpListener,
    fillers: Vec<tokio::task::JoinHandle<std::io::Result<tokio::net::TcpStream>>>,
    address: SocketAddr,
}

impl BlackHole {
    async fn open() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let fillers = (0..8).map(|_| tokio::spawn(tokio::net::TcpStream::connect(address))).collect();
        eventually!("the backlog is full", {
            tokio::time::timeout(Duration::from_millis(200), tokio::net::TcpStream::connect(address)).await.is_err()
        });
        Self { _listener: listener, fillers, address }
    }
}

impl Drop for BlackHole {
    fn drop(&mut self) {
        self.fillers.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// What the metrics say about a target.
async fn is_healthy(gateway: &Gateway, target: SocketAddr) -> bool {
    let target = format!("http://{target}");
    let metrics = gateway.metrics().await;
    metrics.value("portcullis_upstream_healthy", &[("upstream", "shop"), ("target", &target)]) == Some(1.0)
}

async fn ejections(gateway: &Gateway, target: SocketAddr) -> f64 {
    let target = format!("http://{target}");
    gateway.metrics().await.sum("portcullis_upstream_ejections_total", &[("target", &target)])
}

async fn retries(gateway: &Gateway, result: &str) -> f64 {
    gateway.metrics().await.sum("portcullis_upstream_retries_total", &[("upstream", "shop"), ("result", result)])
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_get_what_they_weigh() {
    let (one, two, three) = (Origin::start().await, Origin::start().await, Origin::start().await);
    let weighs = |origin: &Origin, weight: u32| format!("{}, weight: {weight}", url(origin.address()));
    let gateway = in_front_of(&[weighs(&one, 5), weighs(&two, 3), weighs(&three, 2)], "").await;
    for _ in 0..200 {
        gateway.get("/").await.expect(200);
    }
    for (origin, expected) in [(&one, 100), (&two, 60), (&three, 40)] {
        assert!(origin.count().abs_diff(expected) <= 4, "{} instead of {expected}", origin.count());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_target_gets_less_where_requests_under_way_are_counted() {
    let (slow, quick) = (Origin::start().await, Origin::start().await);
    slow.answer(Answer::ok("late").after(Duration::from_millis(300)));
    let targets = [url(slow.address()), url(quick.address())];
    let gateway = in_front_of(&targets, "    balance: least_requests").await;
    let asking: Vec<_> = (0..4)
        .map(|_| {
            let calls: Vec<_> = (0..40).map(|_| gateway.get("/")).collect();
            tokio::spawn(async move {
                for call in calls {
                    call.await.expect(200);
                }
            })
        })
        .collect();
    for asking in asking {
        asking.await.unwrap();
    }
    // In turn, each would get 80.
    assert_eq!(slow.count() + quick.count(), 160);
    assert!(slow.count() <= 50, "the slow one got {}", slow.count());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_nobody_can_connect_to_costs_few_requests_a_part_of_the_time_and_none_an_answer() {
    let hole = BlackHole::open().await;
    let (one, two) = (Origin::start().await, Origin::start().await);
    let targets = [url(hole.address), url(one.address()), url(two.address())];
    let settings = "    timeouts: { connect: 600ms }\n    ejection: { base_time: 1h, max_time: 1h }";
    let gateway = in_front_of(&targets, settings).await;
    let connect = Duration::from_millis(600);
    let mut delayed = 0;
    let begun = Instant::now();
    while begun.elapsed() < patient(Duration::from_secs(4)) {
        let started = Instant::now();
        gateway.get("/").await.expect(200);
        assert!(started.elapsed() < patient(connect), "{:?}", started.elapsed());
        delayed += usize::from(started.elapsed() >= connect / 2);
        if ejections(&gateway, hole.address).await > 0.0 {
            break;
        }
    }
    assert!((1..=8).contains(&delayed), "{delayed} requests waited for it");
    assert!(!is_healthy(&gateway, hole.address).await);
    assert!(is_healthy(&gateway, one.address()).await && is_healthy(&gateway, two.address()).await);
    for _ in 0..30 {
        let started = Instant::now();
        gateway.get("/").await.expect(200);
        assert!(started.elapsed() < patient(connect / 2), "{:?}", started.elapsed());
    }
    assert!(one.count().abs_diff(two.count()) <= 6, "{} and {}", one.count(), two.count());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_none_can_be_connected_to_it_takes_the_time_for_connecting_once() {
    let (one, two) = (BlackHole::open().await, BlackHole::open().await);
    let settings = "    timeouts: { connect: 600ms }";
    let gateway = in_front_of(&[url(one.address), url(two.address)], settings).await;
    for _ in 0..5 {
        let started = Instant::now();
        gateway.get("/").await.refused(504, "upstream_timeout");
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(580) && took < patient(Duration::from_millis(900)), "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_comes_back_is_tried_by_one_request_and_gets_its_share_again() {
    let (steady, other) = (Origin::start().await, Origin::start().await);
    let wire = Wire::to(other.address()).await;
    let settings = "    ejection: { base_time: 300ms, max_time: 300ms }";
    let gateway = in_front_of(&[url(steady.address()), url(wire.address())], settings).await;
    for _ in 0..4 {
        gateway.get("/").await.expect(200);
    }
    assert_eq!(other.count(), 2);
    wire.cut();
    // What was sent over a new connection is not repeated: some of these are 502.
    eventually!("the one that resets connections is left out", {
        let _answer = gateway.get("/").await;
        ejections(&gateway, wire.address()).await > 0.0
    });
    assert!(!is_healthy(&gateway, wire.address()).await);
    let before = steady.count();
    for _ in 0..50 {
        gateway.get("/").await.expect(200);
    }
    assert_eq!(steady.count(), before + 50);
    wire.mend();
    eventually!("it is in again", {
        gateway.get("/").await.expect(200);
        is_healthy(&gateway, wire.address()).await
    });
    let before = other.count();
    for _ in 0..20 {
        gateway.get("/").await.expect(200);
    }
    assert!(other.count() - before >= 9, "{}", other.count() - before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_repeated_brings_a_target_back_too() {
    let (steady, other) = (Origin::start().await, Origin::start().await);
    let wire = Wire::to(other.address()).await;
    let settings = "    ejection: { base_time: 200ms, max_time: 200ms }";
    let gateway = in_front_of(&[url(steady.address()), url(wire.address())], settings).await;
    wire.cut();
    eventually!("the one that resets connections is left out", {
        let _answer = gateway.post("/").body("order").await;
        ejections(&gateway, wire.address()).await > 0.0
    });
    wire.mend();
    eventually!("it is in again", {
        gateway.post("/").body("order").await;
        is_healthy(&gateway, wire.address()).await
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_target_is_never_left_out() {
    let origin = Origin::start().await;
    let wire = Wire::to(origin.address()).await;
    let dead = nobody();
    let settings = "    ejection: { failures: 1, base_time: 1h, max_time: 1h }";
    let gateway = in_front_of(&[url(dead), url(wire.address())], settings).await;
    for _ in 0..4 {
        gateway.get("/").await.expect(200);
    }
    assert!(ejections(&gateway, dead).await == 1.0);
    wire.cut();
    for _ in 0..6 {
        gateway.get("/").await.refused(502, "upstream_unreachable");
    }
    // Neither answers, and the metrics say so; but there is one that is asked.
    assert!(!is_healthy(&gateway, wire.address()).await && !is_healthy(&gateway, dead).await);
    assert_eq!(ejections(&gateway, wire.address()).await, 0.0);
    wire.mend();
    gateway.get("/").await.expect(200);
    assert!(is_healthy(&gateway, wire.address()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_target_that_fails_is_said_to_and_asked_all_the_same() {
    let origin = Origin::start().await;
    let wire = Wire::to(origin.address()).await;
    let gateway = in_front_of(&[url(wire.address())], "").await;
    gateway.get("/").await.expect(200);
    wire.cut();
    eventually!("it is said to fail", {
        gateway.get("/").await.refused(502, "upstream_unreachable");
        !is_healthy(&gateway, wire.address()).await
    });
    wire.mend();
    gateway.get("/").await.expect(200);
    assert!(is_healthy(&gateway, wire.address()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_500_count_only_where_they_are_said_to() {
    for (extra, is_left_out) in [("", false), (", server_errors: true", true)] {
        let (fine, broken) = (Origin::start().await, Origin::start().await);
        broken.answer(Answer::status(503));
        let settings = format!("    ejection: {{ base_time: 1h, max_time: 1h{extra} }}");
        let gateway = in_front_of(&[url(fine.address()), url(broken.address())], &settings).await;
        for _ in 0..20 {
            let answer = gateway.get("/").await;
            assert!(matches!(answer.status, 200 | 503), "{answer:?}");
        }
        let expected = if is_left_out { 3 } else { 10 };
        assert_eq!(broken.count(), expected, "{extra}");
        assert_eq!(is_healthy(&gateway, broken.address()).await, !is_left_out, "{extra}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_upstream_does_not_get_a_multiple_of_its_load() {
    // Nobody listens anywhere: without a bound each request would be tried at all of them.
    let mut origins = Vec::new();
    for _ in 0..4 {
        origins.push(nobody());
    }
    let targets: Vec<_> = origins.iter().map(url).collect();
    let settings = "    retry_budget: { percent: 20, min_per_second: 0 }\n    ejection: { failures: 0 }";
    let gateway = in_front_of(&targets, settings).await;
    for _ in 0..100 {
        gateway.get("/").await.refused(502, "upstream_unreachable");
    }
    let (made, refused) = (retries(&gateway, "made").await, retries(&gateway, "over_budget").await);
    assert!((15.0..=20.0).contains(&made), "{made} retries of 100 requests");
    assert!(refused >= 80.0, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_under_a_request_costs_it_no_failover() {
    // The first request of each connection is answered; behind it the connection ends, without a word.
    let moody = ScriptedOrigin::start(|mut peer| async move {
        if peer.head().await.is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            peer.head().await;
        }
    })
    .await;
    let dead = nobody();
    let settings = "    ejection: { failures: 0 }";
    let gateway = in_front_of(&[url(moody.address()), url(dead)], settings).await;
    for _ in 0..20 {
        // Sent again over another connection, and handed on by the target that nobody listens at.
        gateway.get("/").await.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_leave_a_target_out_that_no_request_has_found_to_fail_and_let_it_in_again() {
    let (steady, other) = (Origin::start().await, Origin::start().await);
    other.answer_at("/healthz", Answer::status(503));
    let settings = "    health: { path: /healthz, interval: 100ms, timeout: 1s, healthy_after: 2, unhealthy_after: 2 }";
    let gateway = in_front_of(&[url(steady.address()), url(other.address())], settings).await;
    eventually!("the probes say that it is down", !is_healthy(&gateway, other.address()).await);
    let asked = |origin: &Origin| origin.requests().iter().filter(|request| request.path() == "/").count();
    let before = asked(&other);
    for _ in 0..20 {
        gateway.get("/").await.expect(200);
    }
    assert_eq!(asked(&other), before, "it is given requests");
    other.answer_at("/healthz", Answer::status(204));
    eventually!("they say that it is up", is_healthy(&gateway, other.address()).await);
    for _ in 0..20 {
        gateway.get("/").await.expect(200);
    }
    assert!(asked(&other) >= before + 9);
    let probe = other.requests().into_iter().find(|request| request.path() == "/healthz").unwrap();
    assert!(probe.header("user-agent").unwrap().starts_with("portcullis/"), "{:?}", probe.header("user-agent"));
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_go_over_what_requests_go_over() {
    let ca = portcullis_testkit::TestCa::new("ours");
    let settings = "health: { path: /healthz, interval: 100ms, timeout: 1s, healthy_after: 1, unhealthy_after: 1 }";
    for (alpn, protocol, is_up) in
        [(["http/1.1"], "h1", true), (["h2"], "h2", true), (["h2"], "auto", true), (["http/1.1"], "h2", false)]
    {
        let origin = Origin::tls(&ca, &alpn).await;
        let config = format!(
            r#"
listeners: [{{ bind: "127.0.0.1:0" }}]
upstreams:
  shop:
    protocol: {protocol}
    targets: [{{ url: "https://{{{{shop}}}}" }}]
    tls: {{ ca: ca.pem, server_name: localhost }}
    headers: {{ set: {{ X-Backend-Token: for-the-backend }} }}
    {settings}
routes: [{{ path: "/**", upstream: shop, auth: none }}]
"#
        );
        let gateway = scene::site(&config).upstream("shop", &origin).file("ca.pem", ca.pem()).start().await;
        let labels = [("upstream", "shop"), ("target", &*format!("https://{}", origin.address()))];
        let healthy = async || gateway.metrics().await.value("portcullis_upstream_healthy", &labels);
        if is_up {
            eventually!("it was probed", origin.count() >= 3);
            assert_eq!(healthy().await, Some(1.0), "{alpn:?}, {protocol}");
            assert_eq!(origin.last().header("x-backend-token"), Some("for-the-backend"));
        } else {
            eventually!("it is said to be down", healthy().await == Some(0.0));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_without_probes_forgets_what_they_said() {
    let origin = Origin::start().await;
    origin.answer_at("/healthz", Answer::status(500));
    let config = |health: &str| {
        format!(
            "listeners: [{{ bind: \"127.0.0.1:0\" }}]\n\
             upstreams:\n  shop:\n    targets: [{{ url: \"http://{}\" }}]\n{health}\n\
             routes: [{{ path: \"/**\", upstream: shop, auth: none }}]\n",
            origin.address()
        )
    };
    let probed = "    health: { path: /healthz, interval: 100ms, unhealthy_after: 1 }";
    let gateway = scene::site(&config(probed)).start().await;
    eventually!("it is said to be down", !is_healthy(&gateway, origin.address()).await);
    // There is no other.
    gateway.get("/").await.expect(200);
    assert!(gateway.reload_with(&config("")).await);
    assert!(is_healthy(&gateway, origin.address()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_may_have_a_name_and_one_that_does_not_exist_costs_no_more_than_connecting() {
    let origin = Origin::start().await;
    let name = format!("localhost:{}", origin.address().port());
    let gateway = in_front_of(&[url(name)], "    dns_refresh: 1s").await;
    gateway.get("/").await.expect(200);
    origin.close_connections();
    gateway.get("/").await.expect(200);
    let gateway = in_front_of(&[url("no-such-host.invalid:80")], "    timeouts: { connect: 1s }").await;
    let started = Instant::now();
    // How long it takes to learn that there is no such name is the resolver's affair.
    let answer = gateway.get("/").await;
    assert!(matches!(answer.status, 502 | 504), "{answer:?}");
    assert!(started.elapsed() < patient(Duration::from_secs(3)), "{:?}", started.elapsed());
}
