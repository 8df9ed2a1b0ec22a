//! HTTP/2 with clients and upstreams: many streams, gRPC with trailers, and an orderly goodbye.

use std::time::Duration;

use portcullis_testkit::{Answer, Connection, H2Outcome, H2Peer, Origin, eventually};

use crate::{scene, tools};

#[tokio::test(flavor = "multi_thread")]
async fn many_streams_share_a_connection() {
    let (gateway, origin) = scene::shop().await;
    let (held, latch) = Answer::ok("late").held();
    origin.answer_at("/open/held", held);
    let connection = Connection::h2(gateway.data()).await;
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let (mut handle, call) = (connection.stream_handle(), gateway.get("/open/held"));
        waiting.push(tokio::spawn(async move { handle.send(call).await }));
    }
    eventually!("all of them reached the origin", origin.count() == 20);
    let mut quick = connection.stream_handle();
    quick.send(gateway.get("/open/quick")).await.expect(200);
    latch.open();
    for answer in waiting {
        assert_eq!(answer.await.unwrap().expect(200).text(), "late");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_and_refusals_work_as_over_h1() {
    let (gateway, origin) = scene::shop().await;
    let reader = gateway.key("reader", "read:orders").await;
    let mut connection = Connection::h2(gateway.data()).await;
    connection.send(gateway.get("/v1/orders/7").bearer(&reader)).await.expect(200);
    assert_eq!(origin.last().header("x-portcullis-key-id"), Some(reader.id.as_str()));
    connection.send(gateway.post("/v1/orders/7").bearer(&reader)).await.refused(403, "insufficient_scope");
    connection.send(gateway.get("/v1/orders/7")).await.refused(401, "missing_credential");
    connection.send(gateway.get("/nothing")).await.refused(404, "no_route");
    connection
        .send(gateway.get("/me").bearer(&reader).header("cookie", "a=1").header("cookie", "b=2"))
        .await
        .expect(200);
    let seen = origin.last();
    let cookies = seen.header_all("cookie");
    assert_eq!(cookies, ["a=1; b=2"], "crumbs are joined for HTTP/1.1 (RFC 9113 §8.2.3)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_one_stream_leaves_the_others_alone() {
    let (gateway, _origin) = scene::shop().await;
    let mut connection = Connection::h2(gateway.data()).await;
    for _ in 0..10 {
        let call = gateway.post("/v1/orders").pattern(300_000);
        connection.send(call).await.refused(401, "missing_credential");
        connection.send(gateway.get("/status")).await.expect(200);
    }
    assert!(!connection.is_closed());
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_keeps_its_trailers_both_ways_over_h2_upstreams() {
    let origin = Origin::start().await;
    let config = r#"
listeners: [{ bind: "127.0.0.1:0" }]
upstreams:
  grpc: { targets: [{ url: "http://{{grpc}}" }], protocol: h2c }
  auto: { targets: [{ url: "http://{{grpc}}" }] }
routes:
  - { path: /orders.Orders/*, upstream: grpc, auth: any_key, methods: { POST: {} } }
  - { path: /auto.Orders/*, upstream: auto, auth: any_key, methods: { POST: {} } }
"#;
    let gateway = scene::site(config).upstream("grpc", &origin).start().await;
    let key = gateway.key("caller", "").await;
    origin.answer(
        Answer::status(200)
            .header("content-type", "application/grpc")
            .body(&b"\0\0\0\0\x02hi"[..])
            .trailer("grpc-status", "0")
            .trailer("grpc-message", "fine"),
    );
    for service in ["/orders.Orders/Get", "/auto.Orders/Get"] {
        let answer = gateway
            .post(service)
            .h2()
            .bearer(&key)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(&b"\0\0\0\0\x01x"[..])
            .trailer("x-checksum", "1")
            .trailer("x-portcullis-key-id", "key_evil")
            .trailer("x_user_id", "evil")
            .await
            .expect(200);
        assert_eq!((answer.trailer("grpc-status"), answer.trailer("grpc-message")), (Some("0"), Some("fine")));
        let seen = origin.last();
        assert_eq!(seen.version, http::Version::HTTP_2);
        assert_eq!(seen.header("te"), Some("trailers"), "gRPC servers ask for it");
        assert_eq!(seen.trailers.get("x-checksum").map(http::HeaderValue::as_bytes), Some(&b"1"[..]));
        assert_eq!(seen.trailers.len(), 1, "trailers are cleaned of the same names: {:?}", seen.trailers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_streams_flow_both_ways_at_once() {
    let origin = Origin::start().await;
    let config = r#"
listeners: [{ bind: "127.0.0.1:0" }]
upstreams: { grpc: { targets: [{ url: "http://{{grpc}}" }], protocol: h2c } }
routes: [{ path: "/**", upstream: grpc, auth: none }]
"#;
    let gateway = scene::site(config).upstream("grpc", &origin).start().await;
    origin.answer(Answer::echo().header("content-type", "application/grpc"));
    let (call, feed) = gateway.post("/chat.Chat/Talk").h2().header("content-type", "application/grpc").fed();
    feed.send("one").await;
    let mut streaming = call.stream().await;
    assert_eq!(streaming.piece().await.unwrap().unwrap(), "one");
    feed.send("two").await;
    assert_eq!(streaming.piece().await.unwrap().unwrap(), "two", "an answer before the request's end");
    drop(feed);
    assert_eq!(streaming.piece().await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn real_grpc_clients_and_servers_talk_through_the_gateway() {
    let Some(python) = tools::python_with("grpc").await else { return };
    let mut server = tokio::process::Command::new(&python)
        .args(["-c", GRPC_SERVER])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(server.stdout.take().unwrap()));
    let port = lines.next_line().await.unwrap().expect("the server prints its port");
    let config = r#"
listeners: [{ bind: "127.0.0.1:0" }]
upstreams: { grpc: { targets: [{ url: "http://127.0.0.1:{{port}}" }], protocol: h2c } }
scopes: { talk: { title: Talk } }
routes: [{ path: "/demo.Echo/**", upstream: grpc, methods: { POST: { scopes: talk } } }]
"#;
    let gateway = scene::site(config).fill("port", port).start().await;
    let talker = gateway.key("talker", "talk").await;
    let mute = gateway.key("mute", "").await;
    for (key, expected) in
        [(talker.text.as_str(), "OK hello"), (mute.text.as_str(), "PERMISSION_DENIED"), ("none", "UNAUTHENTICATED")]
    {
        let target = gateway.data().to_string();
        let (code, said) = tools::run(&python, &["-c", GRPC_CLIENT, &target], key).await;
        assert_eq!((code, said.trim()), (0, expected), "{said}");
    }
}

const GRPC_SERVER: &str = r#"
import grpc, sys
from concurrent import futures
class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request)
server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Echo()])
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
"#;

const GRPC_CLIENT: &str = r#"
import grpc, sys
key = sys.stdin.read()
with grpc.insecure_channel(sys.argv[1]) as channel:
    call = channel.unary_unary("/demo.Echo/Say")
    try:
        print("OK", call(b"hello", timeout=10, metadata=[("authorization", "Bearer " + key)]).decode())
    except grpc.RpcError as error:
        print(error.code().name)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_leaving_gateway_says_goaway_and_finishes_what_it_began() {
    let (gateway, origin) = scene::shop().await;
    let (held, latch) = Answer::ok("finished").held();
    origin.answer_at("/open/held", held);
    let mut connection = Connection::h2(gateway.data()).await;
    let (mut handle, call) = (connection.stream_handle(), gateway.get("/open/held"));
    let waiting = tokio::spawn(async move { handle.send(call).await });
    eventually!("the origin was asked", origin.count() == 1);
    let mut other = H2Peer::connect(gateway.data()).await;
    let authority = gateway.data().to_string();
    let head = [(":method", "GET"), (":scheme", "http"), (":path", "/status"), (":authority", authority.as_str())];
    assert_eq!(other.request(&head, None).await, H2Outcome::Answered(Some(200)));

    gateway.terminate();
    assert_eq!(other.goaway().await, Some(0), "NO_ERROR (RFC 9113 §6.8)");
    drop(other);
    // Its worker may hear of it a moment later than the other's.
    eventually!("nothing new is taken", connection.attempt(gateway.get("/status")).await.is_err());
    latch.open();
    assert_eq!(waiting.await.unwrap().expect(200).text(), "finished");
    assert_eq!(gateway.exited(Duration::from_secs(20)).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_that_no_longer_listens_does_not_hold_up_the_end() {
    let (gateway, _origin) = scene::shop().await;
    let mut dead = H2Peer::connect(gateway.data()).await;
    let authority = gateway.data().to_string();
    let head = [(":method", "GET"), (":scheme", "http"), (":path", "/status"), (":authority", authority.as_str())];
    assert_eq!(dead.request(&head, None).await, H2Outcome::Answered(Some(200)));
    // From here on it answers no ping, as a client whose network is gone.
    gateway.terminate();
    assert_eq!(gateway.exited(Duration::from_secs(8)).await, 0);
    drop(dead);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_h2_upstream_is_reached_over_tls_by_alpn() {
    let ca = portcullis_testkit::TestCa::new("test authority");
    let origin = Origin::tls(&ca, &["h2", "http/1.1"]).await;
    let config = r#"
listeners: [{ bind: "127.0.0.1:0" }]
upstreams:
  far: { targets: [{ url: "https://{{far}}" }], tls: { ca: ca.pem, server_name: localhost } }
routes: [{ path: "/**", upstream: far, auth: none }]
"#;
    let gateway = scene::site(config).upstream("far", &origin).file("ca.pem", ca.pem()).start().await;
    gateway.get("/").await.expect(200);
    assert_eq!(origin.last().version, http::Version::HTTP_2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_room_for_answers_does_not_keep_the_upstream_for_itself() {
    let origin = Origin::start().await;
    origin.answer_at("/large", Answer::pattern(8 << 20));
    let config = r#"
workers: 1
limits: { stall_timeout: 1s }
listeners: [{ bind: "127.0.0.1:0", name: front }]
upstreams:
  small: { targets: [{ url: "http://{{small}}" }], max_connections: 3, queue_timeout: 100ms, protocol: h1 }
routes: [{ path: "/**", upstream: small, auth: none }]
"#;
    let gateway = scene::site(config).upstream("small", &origin).start().await;
    let authority = gateway.data().to_string();
    let head = [(":method", "GET"), (":scheme", "http"), (":path", "/large"), (":authority", authority.as_str())];
    let mut greedy = H2Peer::connect(gateway.data()).await;
    // SETTINGS with INITIAL_WINDOW_SIZE 0 (RFC 9113 §6.5.2): heads may come, bodies may not.
    greedy.frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
    for _ in 0..3 {
        let id = greedy.open(&head, true).await;
        assert_eq!(greedy.outcome(id).await, H2Outcome::Answered(Some(200)));
    }
    gateway.get("/other").await.refused(503, "upstream_busy");
    eventually!("the stalled answers are given up", gateway.get("/other").await.status == 200);
    for _ in 0..5 {
        gateway.get("/other").await.expect(200);
    }
}
