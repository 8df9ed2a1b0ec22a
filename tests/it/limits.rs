//! The bounds every connection lives within.

use std::time::{Duration, Instant};

use portcullis_testkit::{Answer, Connection, Facts, Origin, eventually};

use crate::scene;

#[tokio::test(flavor = "multi_thread")]
async fn heads_fields_and_targets_have_bounds() {
    let (gateway, origin) = scene::shop().await;
    let long = |length: usize| "x".repeat(length);
    let many: String = (0..101).map(|number| format!("X-{number}: 1\r\n")).collect();
    for (claim, head, status, code) in [
        ("a long target", format!("GET /open/{} HTTP/1.1\r\n", long(8 * 1024)), 414, "target_too_long"),
        ("a long query", format!("GET /open/x?{} HTTP/1.1\r\n", long(8 * 1024)), 414, "target_too_long"),
        ("many fields", format!("GET /open/x HTTP/1.1\r\n{many}"), 431, "headers_too_large"),
        ("a large field", format!("GET /open/x HTTP/1.1\r\nX-Big: {}\r\n", long(33 * 1024)), 431, "headers_too_large"),
    ] {
        let mut raw = gateway.raw().await;
        raw.send(format!("{head}Host: shop.test\r\n\r\n")).await;
        let answer = raw.response().await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{claim}: {answer:?}");
    }
    origin.untouched();
    let mut raw = gateway.raw().await;
    raw.send(format!("GET /open/{} HTTP/1.1\r\nHost: shop.test\r\nX-Big: {}\r\n\r\n", long(8000), long(20_000))).await;
    raw.response().await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bounds_can_be_set() {
    let (gateway, _origin) =
        scene::shop_with("", "limits: { head_size: 4KiB, head_fields: 10, target_size: 256B }").await;
    gateway.get(&format!("/open/{}", "x".repeat(300))).await.refused(414, "target_too_long");
    let call = (0..12).fold(gateway.get("/open/x"), |call, number| call.header(&format!("x-{number}"), "1"));
    call.await.refused(431, "headers_too_large");
    gateway.get("/open/x").header("x-big", &"x".repeat(5000)).await.refused(431, "headers_too_large");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_h2_heads_are_refused_without_hurting_the_connection() {
    let (gateway, origin) = scene::shop().await;
    let mut connection = Connection::h2(gateway.data()).await;
    // Refused below us, while the fields are unpacked: that answer is bare, without request id or body.
    let call = gateway.get("/open/x").header("x-big", &"x".repeat(20_000)).facts(Facts::none());
    let refused = connection.attempt(call).await;
    assert!(refused.is_err() || refused.is_ok_and(|answer| answer.status == 431));
    origin.untouched();
    let mut again = if connection.is_closed() { Connection::h2(gateway.data()).await } else { connection };
    again.send(gateway.get("/open/x")).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_larger_than_the_route_allows_is_413() {
    let routes = "  - { path: /small, upstream: shop, auth: none, max_body: 1KiB }\n";
    let (gateway, origin) = scene::shop_with(routes, "").await;
    gateway.post("/small").body("x".repeat(1024)).await.expect(200);
    gateway.post("/small").h2().body("x".repeat(1024)).await.expect(200);
    origin.forget();
    for h2 in [false, true] {
        let sized = gateway.post("/small").pattern(1025);
        let answer = if h2 { sized.h2() } else { sized }.await;
        answer.refused(413, "body_too_large");
    }
    origin.untouched();
    let mut raw = gateway.raw().await;
    raw.send("POST /small HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    raw.send(format!("{:x}\r\n{}\r\n0\r\n\r\n", 5000, "x".repeat(5000))).await;
    raw.response().await.refused(413, "body_too_large");
    assert!(origin.requests().iter().all(|request| !request.complete), "a part must not look like the whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_dawdles_is_408_and_the_connection_ends() {
    let (gateway, origin) = scene::shop_with("", "limits: { head_timeout: 700ms }").await;
    let mut raw = gateway.raw().await;
    let started = Instant::now();
    raw.send("GET /open/x HTTP/1.1\r\nHost: sh").await;
    let answer = raw.response().await.expect(408);
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    assert!(started.elapsed() >= Duration::from_millis(600), "{:?}", started.elapsed());
    assert!(raw.is_closed_within(Duration::from_secs(5)).await);

    let mut dripping = gateway.raw().await;
    let started = Instant::now();
    for byte in "GET /open/x HTTP/1.1\r\nX: ".bytes().chain(std::iter::repeat_n(b'x', 100)) {
        dripping.send([byte]).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        if started.elapsed() > Duration::from_secs(2) {
            break;
        }
    }
    dripping.response().await.expect(408);
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_begins_like_http2_has_no_longer() {
    let (gateway, origin) = scene::shop_with("", "limits: { head_timeout: 1s }").await;
    // As long as it may still become the preface of HTTP/2, and then with what it turned out to be.
    for start in ["PRI * HTTP/2.0", "PO"] {
        let mut raw = gateway.raw().await;
        let started = Instant::now();
        let dripping = async {
            for byte in start.bytes().chain(std::iter::repeat_n(b'x', 100)) {
                raw.send([byte]).await;
                if let Ok(answer) = tokio::time::timeout(Duration::from_millis(700), raw.response()).await {
                    return answer;
                }
            }
            panic!("it drips on");
        };
        dripping.await.expect(408);
        let took = started.elapsed();
        assert!(took < portcullis_testkit::patient(Duration::from_secs(2)), "{start}: {took:?}");
    }
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_kept_longer_than_a_head_may_take() {
    let (gateway, _origin) = scene::shop_with("", "limits: { head_timeout: 300ms, keepalive_idle: 3s }").await;
    let mut raw = gateway.raw().await;
    raw.send("GET /open/x HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    raw.response().await.expect(200);
    tokio::time::sleep(Duration::from_millis(1000)).await;
    raw.send("GET /open/x HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    raw.response().await.expect(200);
    assert!(raw.is_closed_within(Duration::from_secs(8)).await, "and then it is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stalls_is_given_up() {
    let (gateway, origin) = scene::shop_with("", "limits: { stall_timeout: 1s }").await;
    let mut raw = gateway.raw().await;
    raw.send("POST /open/x HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100\r\n\r\nhello").await;
    let rest = tokio::time::timeout(portcullis_testkit::patient(Duration::from_secs(8)), raw.rest()).await;
    let said = rest.expect("the connection ends");
    assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&said));
    assert!(origin.requests().iter().all(|request| !request.complete));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_listener_are_counted() {
    let (gateway, _origin) = scene::shop_with("", "limits: { connections_per_listener: 5 }").await;
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut connection = Connection::h1(gateway.data()).await;
        connection.send(gateway.get("/status")).await.expect(200);
        open.push(connection);
    }
    // Turned away at the door, before anything is read: reset, or a bare 503.
    let sixth = gateway.get("/status").facts(Facts::none()).attempt();
    let sixth = tokio::time::timeout(Duration::from_secs(2), sixth).await;
    assert!(!matches!(&sixth, Ok(Ok(answer)) if answer.status == 200), "{sixth:?}");
    assert_eq!(gateway.health("/livez").await.0, 200, "the operator still gets in");
    drop(open);
    eventually!(
        "there is room again",
        gateway.get("/status").facts(Facts::none()).attempt().await.is_ok_and(|answer| answer.status == 200)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_address_are_counted_where_configured() {
    let (gateway, _origin) = scene::shop_with("", "limits: { connections_per_address: 2 }").await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut connection = Connection::h1(gateway.data()).await;
        connection.send(gateway.get("/status")).await.expect(200);
        open.push(connection);
    }
    let third = gateway.get("/status").facts(Facts::none()).attempt();
    let third = tokio::time::timeout(Duration::from_secs(2), third).await;
    assert!(!matches!(&third, Ok(Ok(answer)) if answer.status == 200), "{third:?}");
    gateway.get("/status").from("127.0.0.9").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_a_balancer_hands_on_count_as_their_clients() {
    let listener = "{ bind: \"127.0.0.1:0\", name: front, proxy_protocol: { from: [127.0.0.0/8] } }";
    let config = scene::shop_config("", "limits: { connections_per_address: 2 }")
        .replace("{ bind: \"127.0.0.1:0\", name: front }", listener);
    let origin = Origin::start().await;
    let gateway = scene::site(&config).upstream("shop", &origin).start().await;
    let ask = async |client: &str| {
        let family = if client.contains(':') { "TCP6" } else { "TCP4" };
        let ours = if client.contains(':') { "::1" } else { "127.0.0.1" };
        let mut raw = gateway.raw().await;
        raw.send(format!("PROXY {family} {client} {ours} 5000 80\r\nGET /status HTTP/1.1\r\nHost: shop.test\r\n\r\n"))
            .await;
        let answer = raw.next().await.map(|answer| answer.status);
        (raw, answer)
    };
    let mut open = Vec::new();
    // Two of each client, though all come from one address; of IPv6 a client is a whole /64.
    for (client, expected) in [
        ("203.0.113.7", Some(200)),
        ("203.0.113.7", Some(200)),
        ("203.0.113.7", None),
        ("203.0.113.8", Some(200)),
        ("2001:db8::1", Some(200)),
        ("2001:db8::2", Some(200)),
        ("2001:db8::3", None),
        ("2001:db8:0:1::1", Some(200)),
    ] {
        let (raw, answer) = ask(client).await;
        assert_eq!(answer, expected, "{client}");
        open.push(raw);
    }
    let shed = gateway.metrics().await.sum("portcullis_connections_shed_total", &[("reason", "address")]);
    assert!((shed - 2.0).abs() < f64::EPSILON, "{shed}");
    drop(open);
    eventually!("there is room again", ask("203.0.113.7").await.1 == Some(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_slow_clients_do_not_keep_others_waiting() {
    let (gateway, _origin) = scene::shop().await;
    let mut slow = Vec::new();
    for _ in 0..300 {
        let mut raw = gateway.raw().await;
        raw.send("GET /open/x HTTP/1.1\r\nHost: shop").await;
        slow.push(raw);
    }
    for _ in 0..50 {
        let started = Instant::now();
        gateway.get("/status").await.expect(200);
        assert!(started.elapsed() < portcullis_testkit::patient(Duration::from_secs(1)), "{:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_given_up() {
    let (gateway, origin) = scene::shop_with("", "limits: { stall_timeout: 1s }").await;
    origin.answer(Answer::pattern(256 << 20));
    let mut raw = gateway.raw().await;
    raw.send("GET /open/x HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    // Nothing is read here. The gateway must not wait for ever.
    eventually!("the connection is given up", {
        gateway.metrics().await.sum("portcullis_connections", &[("listener", "front")]) == 0.0
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_idle_again_holds_no_buffer() {
    const CONNECTIONS: u64 = 500;
    let (gateway, _origin) = scene::shop_with("", "workers: 1").await;
    let request = "GET /status HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    let mut open = Vec::new();
    let mut resident = Vec::new();
    // The first half makes room for what is shared; the second is what is measured.
    for _ in 0..2 {
        for _ in 0..CONNECTIONS {
            let mut client = gateway.raw().await;
            client.send(request).await;
            assert_eq!(client.response().await.status, 200);
            open.push(client);
        }
        resident.push(gateway.resident_bytes());
    }
    let each = resident[1].saturating_sub(resident[0]) / CONNECTIONS;
    assert!(each < 12 * 1024, "{each} bytes for each idle connection");
}
