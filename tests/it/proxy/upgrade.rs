//! Upgrades: a WebSocket becomes a tunnel after the upstream agreed, and nothing else does.

use std::time::Duration;

use portcullis_testkit::{Answer, Gateway, Key, Origin, RawClient, TestCa, eventually, patient};

use crate::{scene, tools};

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

async fn sockets() -> (Gateway, Origin, Key) {
    let (gateway, origin) = scene::shop_with("", "auth: { recheck_interval: 1s }").await;
    origin.answer(Answer::tunnel());
    let key = gateway.key("caller", "").await;
    (gateway, origin, key)
}

async fn open(gateway: &Gateway, key: &Key) -> RawClient {
    let mut raw = gateway.raw().await;
    raw.send(format!("GET /any/socket HTTP/1.1\r\nHost: shop.test\r\nX-API-Key: {}\r\n{HANDSHAKE}\r\n", key.text))
        .await;
    let answer = raw.response().await.expect(101);
    assert!(answer.header("upgrade").is_some_and(|protocol| protocol.eq_ignore_ascii_case("websocket")), "{answer:?}");
    assert!(answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("upgrade")), "{answer:?}");
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    raw
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_goes_through_in_both_directions() {
    let (gateway, origin, key) = sockets().await;
    let mut raw = open(&gateway, &key).await;
    let seen = origin.only();
    assert_eq!(seen.header("x-portcullis-key-id"), Some(key.id.as_str()));
    assert_eq!(seen.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert!(!seen.has("x-api-key"));
    for size in [1, 125, 70_000] {
        let bytes: Vec<u8> = (0..size).map(|at| (at % 256) as u8).collect();
        raw.send(&bytes).await;
        assert_eq!(raw.bytes(size).await, bytes);
    }
    raw.half_close().await;
    assert!(raw.rest().await.is_empty());
    gateway.access_line_where("the tunnel has an access line", |line| line["status"] == 101).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_sent_before_the_answer_are_not_lost_and_not_a_request() {
    let (gateway, origin, key) = sockets().await;
    let mut raw = gateway.raw().await;
    raw.send(format!(
        "GET /any/socket HTTP/1.1\r\nHost: shop.test\r\nX-API-Key: {}\r\n{HANDSHAKE}\r\n\
         GET /open/smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n",
        key.text
    ))
    .await;
    raw.response().await.expect(101);
    assert!(raw.bytes(18).await.starts_with(b"GET /open/smuggled"), "they are the tunnel's first bytes");
    assert!(origin.requests().iter().all(|request| request.path() != "/open/smuggled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_without_a_right_is_refused_before_the_upstream_hears_of_it() {
    let (gateway, origin, _key) = sockets().await;
    let mut raw = gateway.raw().await;
    raw.send(format!("GET /any/socket HTTP/1.1\r\nHost: shop.test\r\n{HANDSHAKE}\r\n")).await;
    raw.response().await.refused(401, "missing_credential");
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn other_upgrades_go_on_as_ordinary_requests() {
    let (gateway, origin) =
        scene::shop_with("  - { path: \"/flat/**\", upstream: shop, auth: none, upgrade: [] }\n", "").await;
    for (claim, head) in [
        (
            "h2c",
            "GET /open/x HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        ),
        (
            "an unknown protocol",
            "GET /open/x HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: irc/6.9\r\n\r\n",
        ),
        ("no connection option", "GET /open/x HTTP/1.1\r\nHost: shop.test\r\nUpgrade: websocket\r\n\r\n"),
        (
            "not GET",
            "POST /open/x HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
        ),
        ("HTTP/1.0", "GET /open/x HTTP/1.0\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        (
            "a route without upgrades",
            "GET /flat/x HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        ),
        (
            "two protocols",
            "GET /open/x HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
        ),
    ] {
        let mut raw = gateway.raw().await;
        raw.send(head).await;
        let answer = raw.response().await;
        assert_eq!(answer.status, 200, "{claim}: {answer:?}");
        let seen = origin.last();
        assert!(!seen.has("upgrade") && !seen.has("http2-settings"), "{claim}: {seen:?}");
        assert!(
            seen.header("connection").unwrap_or("keep-alive").eq_ignore_ascii_case("keep-alive"),
            "{claim}: {seen:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_with_a_body_is_refused() {
    let (gateway, origin, key) = sockets().await;
    for body in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"] {
        let mut raw = gateway.raw().await;
        raw.send(format!(
            "GET /any/socket HTTP/1.1\r\nHost: shop.test\r\nX-API-Key: {}\r\n{HANDSHAKE}{body}",
            key.text
        ))
        .await;
        assert_eq!(raw.response().await.status, 400);
    }
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_declines_answers_like_any_other() {
    let (gateway, origin, key) = sockets().await;
    origin.answer(Answer::status(426).header("x-why", "no").body("not here"));
    let mut raw = gateway.raw().await;
    raw.send(format!("GET /any/socket HTTP/1.1\r\nHost: shop.test\r\nX-API-Key: {}\r\n{HANDSHAKE}\r\n", key.text))
        .await;
    let answer = raw.response().await.expect(426);
    assert_eq!((answer.text().as_str(), answer.header("x-why")), ("not here", Some("no")));
    raw.send("GET /open/next HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    assert_eq!(raw.response().await.status, 426, "the connection still speaks HTTP");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_agrees_to_something_else_opens_no_tunnel() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: close\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
    ] {
        let upstream = portcullis_testkit::ScriptedOrigin::saying(answer).await;
        let gateway = scene::open_door(&upstream.authority(), "").await;
        let mut raw = gateway.raw().await;
        raw.send(format!("GET /socket HTTP/1.1\r\nHost: shop.test\r\n{HANDSHAKE}\r\n")).await;
        raw.response().await.refused(502, "upstream_unreachable");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_begins_in_http1_also_where_requests_go_over_http2() {
    let ca = TestCa::new("ours");
    let origin = Origin::tls(&ca, &["h2", "http/1.1"]).await;
    origin.answer_at("/socket", Answer::tunnel());
    let gateway = behind_tls(&origin, &ca).await;
    for _ in 0..2 {
        gateway.get("/").await.expect(200);
        assert_eq!(origin.last().version, http::Version::HTTP_2);
        let mut raw = gateway.raw().await;
        raw.send(format!("GET /socket HTTP/1.1\r\nHost: shop.test\r\n{HANDSHAKE}\r\n")).await;
        raw.response().await.expect(101);
        raw.send("ping").await;
        assert_eq!(raw.bytes(4).await, b"ping");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_http2_alone_is_spoken_a_handshake_is_answered_and_is_no_fault_of_the_server() {
    let ca = TestCa::new("ours");
    let origin = Origin::tls(&ca, &["h2"]).await;
    let gateway = behind_tls(&origin, &ca).await;
    let fixed = Origin::start().await;
    let config = r#"
listeners: [{ bind: "127.0.0.1:0" }]
upstreams: { far: { targets: [{ url: "http://{{far}}" }], protocol: h2c } }
routes: [{ path: "/**", upstream: far, auth: none, upgrade: [websocket] }]
"#;
    let fixed_gateway = scene::site(config).upstream("far", &fixed).start().await;
    for gateway in [&gateway, &fixed_gateway] {
        for _ in 0..4 {
            let mut raw = gateway.raw().await;
            raw.send(format!("GET /socket HTTP/1.1\r\nHost: shop.test\r\n{HANDSHAKE}\r\n")).await;
            let answer = raw.response().await.refused(400, "bad_request");
            assert!(answer.text().contains("HTTP/2 alone"), "{answer:?}");
        }
        gateway.get("/").await.expect(200);
        let metrics = gateway.metrics().await;
        assert_eq!(metrics.sum("portcullis_upstream_ejections_total", &[]), 0.0);
        assert!(!gateway.logs().text().contains("a target fails"), "{}", gateway.logs().text());
    }
    assert!(origin.requests().iter().chain(&fixed.requests()).all(|request| request.path() == "/"));
}

/// A gateway in front of an origin that speaks TLS.
async fn behind_tls(origin: &Origin, ca: &TestCa) -> Gateway {
    let config = r#"
workers: 1
listeners: [{ bind: "127.0.0.1:0" }]
upstreams: { far: { targets: [{ url: "https://{{far}}" }], tls: { ca: ca.pem, server_name: localhost } } }
routes: [{ path: "/**", upstream: far, auth: none }]
"#;
    scene::site(config).upstream("far", origin).file("ca.pem", ca.pem()).start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_cut_when_its_key_is_gone() {
    let (gateway, _origin, key) = sockets().await;
    let mut raw = open(&gateway, &key).await;
    raw.send("ping").await;
    assert_eq!(raw.bytes(4).await, b"ping");
    let _ = gateway.cli(&["keys", "revoke", &key.id]).await.success();
    assert!(raw.is_closed_within(Duration::from_secs(8)).await, "the tunnel outlives its key");
}

#[tokio::test(flavor = "multi_thread")]
async fn either_end_can_close_a_tunnel() {
    let (gateway, _origin, key) = sockets().await;
    let raw = open(&gateway, &key).await;
    drop(raw);
    let open_tunnels = async || gateway.metrics().await.sum("portcullis_connections", &[("listener", "front")]);
    eventually!("the connection is gone", open_tunnels().await == 0.0);

    let upstream = portcullis_testkit::ScriptedOrigin::saying_and_closing(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nlast words",
    )
    .await;
    let gateway = scene::open_door(&upstream.authority(), "").await;
    let mut raw = gateway.raw().await;
    raw.send(format!("GET /socket HTTP/1.1\r\nHost: shop.test\r\n{HANDSHAKE}\r\n")).await;
    raw.response().await.expect(101);
    let rest = tokio::time::timeout(patient(Duration::from_secs(10)), raw.rest()).await;
    assert_eq!(rest.as_deref(), Ok(&b"last words"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_websocket_client_and_server_talk_through_the_gateway() {
    let Some(python) = tools::python_with("websockets").await else { return };
    let mut server = tokio::process::Command::new(&python)
        .args(["-c", SERVER])
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(server.stdout.take().unwrap()));
    let port = lines.next_line().await.unwrap().expect("the server prints its port");
    let gateway = scene::open_door(&format!("127.0.0.1:{port}"), "").await;
    let url = format!("ws://{}/chat", gateway.data());
    let (code, said) = tools::run(&python, &["-c", CLIENT, &url], "").await;
    assert_eq!((code, said.trim()), (0, "echoed 200001 characters, closed 1000"), "{said}");
}

const SERVER: &str = r#"
import asyncio
from websockets.asyncio.server import serve
async def echo(connection):
    async for message in connection:
        await connection.send(message)
async def main():
    async with serve(echo, "127.0.0.1", 0) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()
asyncio.run(main())
"#;

const CLIENT: &str = r#"
import asyncio, sys
from websockets.asyncio.client import connect
async def main():
    async with connect(sys.argv[1]) as connection:
        total = 0
        for text in ["x", "y" * 200000]:
            await connection.send(text)
            answer = await connection.recv()
            assert answer == text
            total += len(answer)
        pong = await connection.ping()
        await pong
    print(f"echoed {total} characters, closed {connection.close_code}")
asyncio.run(main())
"#;
