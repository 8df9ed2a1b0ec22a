//! What goes through unchanged.

use portcullis_testkit::{Answer, Origin, ScriptedOrigin};

use crate::scene;

#[tokio::test(flavor = "multi_thread")]
async fn statuses_fields_and_bodies_of_the_upstream_are_the_answer() {
    let (gateway, origin) = scene::shop().await;
    for status in [200, 201, 204, 206, 301, 304, 400, 401, 403, 404, 409, 418, 429, 500, 503, 599] {
        let body = if matches!(status, 204 | 304) { "" } else { "from upstream" };
        origin.answer(
            Answer::status(status)
                .header("x-app", "1")
                .header("set-cookie", "a=1")
                .header("set-cookie", "b=2")
                .body(body),
        );
        let answer = gateway.get("/open/x").await.expect(status);
        assert!(answer.is_from_origin(), "{status}: an upstream's refusal is not ours to rewrite");
        assert_eq!((answer.text().as_str(), answer.header("x-app")), (body, Some("1")));
        assert_eq!(answer.header_all("set-cookie"), ["a=1", "b=2"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_and_its_length_arrive_as_they_were_sent() {
    let (gateway, origin) = scene::shop().await;
    gateway.post("/open/x").body("hello").await.expect(200);
    assert_eq!((origin.last().text().as_str(), origin.last().header("content-length")), ("hello", Some("5")));
    gateway.post("/open/x").unsized_pattern(100_000).await.expect(200);
    let seen = origin.last();
    assert!(seen.body_is_pattern && seen.body_bytes == 100_000 && !seen.has("content-length"), "{seen:?}");
    gateway.get("/open/x").await.expect(200);
    let seen = origin.last();
    assert!(!seen.has("content-length") && !seen.has("transfer-encoding"), "a GET stays without body: {seen:?}");
    gateway.post("/open/x").await.expect(200);
    assert_eq!(origin.last().header("content-length").unwrap_or("0"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_is_spoken_with_clients_and_with_upstreams() {
    let (gateway, _origin) = scene::shop().await;
    let mut raw = gateway.raw().await;
    raw.send("GET /open/x HTTP/1.0\r\nHost: shop.test\r\n\r\n").await;
    let answer = raw.response().await.expect(200);
    assert!(answer.header("transfer-encoding").is_none(), "HTTP/1.0 knows no chunks: {answer:?}");
    assert_eq!(answer.text(), "hello from the origin");
    assert!(raw.is_closed_within(std::time::Duration::from_secs(5)).await);

    let old = ScriptedOrigin::saying_and_closing("HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
    let gateway = scene::open_door(&old.authority(), "").await;
    assert_eq!(gateway.get("/").await.expect(200).text(), "until the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_connection_is_kept_for_the_next_request() {
    let (gateway, origin) = scene::shop().await;
    let mut connection = portcullis_testkit::Connection::h1(gateway.data()).await;
    for target in ["/open/1", "/nothing", "/v1/orders/1", "/open/2"] {
        connection.send(gateway.get(target)).await;
    }
    assert!(!connection.is_closed());
    assert_eq!(origin.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn request_trailers_are_dropped_and_answer_trailers_reach_h2_clients() {
    let (gateway, origin) = scene::shop().await;
    origin.answer(Answer::ok("x").trailer("x-sum", "9"));
    let answer = gateway.post("/open/x").h2().body("abc").trailer("x-portcullis-key-id", "key_evil").await.expect(200);
    assert_eq!(answer.text(), "x");
    assert!(origin.only().trailers.is_empty(), "{:?}", origin.only().trailers);
}

#[tokio::test(flavor = "multi_thread")]
async fn request_trailers_are_dropped_where_the_upstream_could_be_sent_some() {
    let origin = Origin::start().await;
    let config = r#"
listeners: [{ bind: "127.0.0.1:0", name: front }]
upstreams: { modern: { targets: [{ url: "http://{{modern}}" }], protocol: h2c } }
routes: [{ path: "/**", upstream: modern, auth: none }]
"#;
    let gateway = scene::site(config).upstream("modern", &origin).start().await;
    let ask = |call: portcullis_testkit::Call, kind: &str| {
        call.header("content-type", kind).body("abc").trailer("x-portcullis-key-id", "key_evil").trailer("x-sum", "9")
    };
    for call in [gateway.post("/x").h2(), gateway.post("/x")] {
        ask(call, "text/plain").await.expect(200);
        assert!(origin.last().trailers.is_empty(), "{:?}", origin.last().trailers);
    }
    // gRPC over HTTP/2 needs its own; what says who calls is ours.
    ask(gateway.post("/x").h2(), "application/grpc").await;
    let trailers = origin.last().trailers;
    assert!(trailers.len() == 1 && trailers["x-sum"] == "9", "{trailers:?}");
    // Over HTTP/1 nothing is gRPC, whatever it calls itself.
    ask(gateway.post("/x"), "application/grpc").await;
    assert!(origin.last().trailers.is_empty(), "{:?}", origin.last().trailers);
}

#[tokio::test(flavor = "multi_thread")]
async fn access_lines_count_bytes_and_time() {
    let (gateway, origin) = scene::shop().await;
    origin.answer(Answer::pattern(70_000).after(std::time::Duration::from_millis(30)));
    let answer = gateway.post("/open/x").pattern(40_000).await.expect(200);
    let line = gateway.access_line(&answer).await;
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&40_000.into(), &70_000.into()), "{line}");
    assert_eq!((&line["method"], &line["protocol"]), (&"POST".into(), &"HTTP/1.1".into()), "{line}");
    assert_eq!((&line["listener"], &line["client_ip"]), (&"front".into(), &"127.0.0.1".into()), "{line}");
    let (all, upstream) = (line["duration_ms"].as_f64().unwrap(), line["upstream_ms"].as_f64().unwrap());
    assert!(upstream >= 30.0 && all >= upstream, "{line}");
    assert_eq!(gateway.logs().access().iter().filter(|other| other["request_id"] == line["request_id"]).count(), 1);
}
