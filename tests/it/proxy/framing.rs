//! Messages without a single reading are refused on both sides and nothing of them goes on.

use std::time::Duration;

use portcullis_testkit::{Answer, H2Outcome, H2Peer, ScriptedOrigin};

use crate::scene;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_single_framing_is_400_and_the_connection_ends() {
    let (gateway, origin) = scene::shop().await;
    let post = |fields: &str, body: &str| format!("POST /open/x HTTP/1.1\r\nHost: shop.test\r\n{fields}\r\n\r\n{body}");
    let long_extension = "e".repeat(20_000);
    let rows = [
        ("both lengths", post("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n")),
        ("both lengths, other order", post("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n")),
        ("two different lengths", post("Content-Length: 5\r\nContent-Length: 6", "hello")),
        ("the same length twice", post("Content-Length: 5\r\nContent-Length: 5", "hello")),
        ("a list of lengths", post("Content-Length: 5, 5", "hello")),
        ("a signed length", post("Content-Length: +5", "hello")),
        ("a negative length", post("Content-Length: -5", "hello")),
        ("a hexadecimal length", post("Content-Length: 0x5", "hello")),
        ("an empty length", post("Content-Length:", "hello")),
        ("a length with a space inside", post("Content-Length: 1 0", "hello")),
        ("a huge length", post("Content-Length: 99999999999999999999", "hello")),
        ("an unknown coding", post("Transfer-Encoding: xchunked", "0\r\n\r\n")),
        ("chunked that is not last", post("Transfer-Encoding: chunked, identity", "0\r\n\r\n")),
        ("chunked twice", post("Transfer-Encoding: chunked, chunked", "0\r\n\r\n")),
        ("chunked in two fields", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "0\r\n\r\n")),
        ("gzip before chunked", post("Transfer-Encoding: gzip, chunked", "0\r\n\r\n")),
        ("a quoted coding", post("Transfer-Encoding: \"chunked\"", "0\r\n\r\n")),
        ("an empty coding", post("Transfer-Encoding:", "0\r\n\r\n")),
        ("a vertical tab in the coding", post("Transfer-Encoding: \x0bchunked", "0\r\n\r\n")),
        (
            "a coding in HTTP/1.0",
            "POST /open/x HTTP/1.0\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        ),
        ("a space before the colon", post("X-A : 1", "")),
        ("a folded line", post("X-A: 1\r\n  2", "")),
        ("a field before the first", "GET /open/x HTTP/1.1\r\n X: 1\r\nHost: shop.test\r\n\r\n".to_owned()),
        ("an empty name", post(": 1", "")),
        ("no colon", post("X-A", "")),
        ("a NUL in a value", post("X-A: a\0b", "")),
        ("a bare CR in a value", post("X-A: a\rb", "")),
        ("a bare LF between fields", post("X-A: 1\nX-B: 2", "")),
        ("a bare LF after the request line", "GET /open/x HTTP/1.1\nHost: shop.test\r\n\r\n".to_owned()),
        ("two spaces in the request line", "GET  /open/x HTTP/1.1\r\nHost: shop.test\r\n\r\n".to_owned()),
        ("an unknown version", "GET /open/x HTTP/1.2\r\nHost: shop.test\r\n\r\n".to_owned()),
        ("a version with a zero", "GET /open/x HTTP/01.1\r\nHost: shop.test\r\n\r\n".to_owned()),
        ("no version", "GET /open/x\r\nHost: shop.test\r\n\r\n".to_owned()),
        ("a chunk size with 0x", post("Transfer-Encoding: chunked", "0x5\r\nhello\r\n0\r\n\r\n")),
        ("a negative chunk size", post("Transfer-Encoding: chunked", "-1\r\nhello\r\n0\r\n\r\n")),
        ("an empty chunk size", post("Transfer-Encoding: chunked", "\r\nhello\r\n0\r\n\r\n")),
        ("a chunk size with a space", post("Transfer-Encoding: chunked", "5 \r\nhello\r\n0\r\n\r\n")),
        ("a chunk line that ends with LF", post("Transfer-Encoding: chunked", "5\nhello\r\n0\r\n\r\n")),
        ("an extension that ends with LF", post("Transfer-Encoding: chunked", "5;a\nhello\r\n0\r\n\r\n")),
        ("a chunk longer than its size", post("Transfer-Encoding: chunked", "4\r\nhello\r\n0\r\n\r\n")),
        ("an overflowing chunk size", post("Transfer-Encoding: chunked", "10000000000000005\r\nhello\r\n0\r\n\r\n")),
        ("a huge extension", post("Transfer-Encoding: chunked", &format!("5;{long_extension}\r\nhello\r\n0\r\n\r\n"))),
        ("a trailer without colon", post("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\nbad\r\n\r\n")),
    ];
    for (claim, request) in rows {
        origin.forget();
        let mut raw = gateway.raw().await;
        // What follows must never be taken for a request of its own.
        raw.send(format!("{request}GET /open/smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n")).await;
        let answers = raw.all().await;
        assert!(!answers.is_empty() && answers.len() <= 2, "{claim}: {answers:?}");
        let last = answers.last().unwrap();
        assert_eq!(last.status, 400, "{claim}: {answers:?}");
        assert_eq!(last.header("connection"), Some("close"), "{claim}: {last:?}");
        let seen = origin.requests();
        assert!(seen.iter().all(|request| request.path() != "/open/smuggled"), "{claim}: {seen:?}");
        assert!(seen.iter().all(|request| !request.complete), "{claim}: a whole request went on: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_strict_and_legal_goes_on() {
    let (gateway, origin) = scene::shop().await;
    for (claim, body) in [
        ("upper and lower case sizes", "A\r\n0123456789\r\n0\r\n\r\n"),
        ("leading zeros", "0005\r\nhello\r\n000\r\n\r\n"),
        ("a short extension", "5;name=value\r\nhello\r\n0;last\r\n\r\n"),
        ("a quoted extension", "5;name=\"va;lue\"\r\nhello\r\n0\r\n\r\n"),
        ("trailers", "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"),
    ] {
        let mut raw = gateway.raw().await;
        raw.send(format!("POST /open/x HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n{body}")).await;
        raw.response().await.expect(200);
        let seen = origin.last();
        assert!(seen.complete && seen.body_bytes >= 5, "{claim}: {seen:?}");
        assert!(seen.trailers.is_empty() && !seen.has("x-sum"), "{claim}: trailers are dropped: {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_before_a_broken_one_are_answered_first() {
    let (gateway, _origin) = scene::shop().await;
    let mut raw = gateway.raw().await;
    raw.send(
        "GET /open/1 HTTP/1.1\r\nHost: shop.test\r\n\r\nGET /open/2 HTTP/1.1\r\nHost: shop.test\r\n\r\n\
         GET /open/3 HTTP/1.1\r\nHost : shop.test\r\n\r\n",
    )
    .await;
    let statuses: Vec<u16> = raw.all().await.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 400]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_may_come_byte_by_byte_and_requests_may_be_pipelined() {
    let (gateway, origin) = scene::shop().await;
    let mut raw = gateway.raw().await;
    for byte in b"POST /open/slow HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\nhello" {
        raw.send([*byte]).await;
    }
    raw.response().await.expect(200);
    assert_eq!(origin.last().text(), "hello");
    raw.send("GET /open/a HTTP/1.1\r\nHost: shop.test\r\n\r\nGET /open/b HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    raw.response().await.expect(200);
    raw.response().await.expect(200);
    assert_eq!(origin.last().path(), "/open/b");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_body_of_a_refused_request_is_never_the_next_request() {
    let (gateway, origin) = scene::shop().await;
    let smuggled = "GET /open/smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    let mut raw = gateway.raw().await;
    raw.send(format!(
        "POST /v1/orders HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {}\r\n\r\n{smuggled}",
        smuggled.len()
    ))
    .await;
    raw.response().await.refused(401, "missing_credential");
    raw.send("GET /open/next HTTP/1.1\r\nHost: shop.test\r\n\r\n").await;
    let rest = raw.all().await;
    assert!(rest.len() <= 1, "{rest:?}");
    let seen = origin.requests();
    assert!(seen.iter().all(|request| request.path() != "/open/smuggled"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let (gateway, origin) = scene::shop().await;
    let mut raw = gateway.raw().await;
    raw.send("POST /v1/orders HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 200000\r\n\r\n").await;
    raw.send(vec![b'x'; 200_000]).await;
    raw.response().await.refused(401, "missing_credential");
    origin.untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn h2_heads_that_would_not_survive_a_translation_are_refused() {
    let (gateway, origin) = scene::shop().await;
    let head = [(":method", "GET"), (":scheme", "http"), (":path", "/open/x"), (":authority", "shop.test")];
    let with = |extra: &[(&'static str, &'static str)]| [head.as_slice(), extra].concat();
    let path = |path: &'static str| vec![head[0], head[1], (":path", path), head[3]];
    let host = |host: &'static str| vec![head[0], head[1], head[2], (":authority", host)];
    let rows = [
        // As over HTTP/1: what servers behind read differently.
        ("a host with an empty port", host("shop.test:")),
        ("a host with a port beyond all", host("shop.test:70000")),
        ("a host in percent-encoding", host("shop%2etest")),
        ("a host with a sub-delimiter", host("shop;test")),
        ("a host in brackets that is no address", host("[::]]")),
        ("a CR LF in a value", with(&[("x-a", "1\r\nx-evil: 1")])),
        ("a NUL in a value", with(&[("x-a", "a\0b")])),
        ("a colon in a name", with(&[("x:a", "1")])),
        ("a space in a name", with(&[("x a", "1")])),
        ("an upper case name", with(&[("X-A", "1")])),
        ("an empty name", with(&[("", "1")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("connection", with(&[("connection", "close")])),
        ("te other than trailers", with(&[("te", "gzip")])),
        ("a host that is not the authority", with(&[("host", "other.test")])),
        ("two hosts", with(&[("host", "shop.test"), ("host", "shop.test")])),
        ("a pseudo field behind a field", with(&[("x-a", "1"), (":path", "/open/y")])),
        ("two paths", with(&[(":path", "/open/y")])),
        ("an unknown pseudo field", with(&[(":protocol2", "x")])),
        ("an asterisk", path("*")),
        ("no slash", path("open/x")),
        ("a space in the path", path("/open/x HTTP/1.1")),
        ("an empty path", path("")),
        ("a query without a path", path("?x")),
        ("a byte beyond ASCII in the query", path("/open/x?a=\u{85}b")),
        ("a space beyond ASCII in the query", path("/open/x?a=\u{a0}b")),
        ("a byte beyond ASCII in the path", path("/open/\u{e9}")),
        ("a quotation mark in the query", path("/open/x?a=\"b")),
        ("a method that is no token", vec![(":method", "GET /x"), head[1], head[2], head[3]]),
        ("no method", vec![head[1], head[2], head[3]]),
        ("a wrong length", with(&[("content-length", "5")])),
    ];
    for (claim, fields) in rows {
        let mut peer = H2Peer::connect(gateway.data()).await;
        let outcome = peer.request(&fields, None).await;
        assert!(outcome.is_refused(), "{claim}: {outcome:?}");
    }
    origin.untouched();
    let mut peer = H2Peer::connect(gateway.data()).await;
    assert_eq!(peer.request(&with(&[("host", "shop.test")]), None).await, H2Outcome::Answered(Some(200)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_h2_body_must_have_the_length_it_announces() {
    let (gateway, origin) = scene::shop().await;
    let head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/open/x"),
        (":authority", "shop.test"),
        ("content-length", "5"),
    ];
    for body in [&b"hell"[..], b"hello!"] {
        let mut peer = H2Peer::connect(gateway.data()).await;
        let outcome = peer.request(&head, Some(body)).await;
        assert!(outcome.is_refused(), "{body:?}: {outcome:?}");
    }
    assert!(origin.requests().iter().all(|request| !request.complete));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_single_framing_is_502_and_its_connection_is_not_used_again() {
    for (claim, answer) in [
        ("both lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
        ("an odd length", "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello"),
        ("an unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("bare line feeds", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"),
        ("a folded field", "HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 5\r\n\r\nhello"),
        ("a space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello"),
        ("no status line", "hello\r\n\r\n"),
        ("a status of two digits", "HTTP/1.1 20 OK\r\n\r\n"),
        ("an unasked upgrade", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
    ] {
        let upstream = ScriptedOrigin::saying(answer).await;
        let gateway = scene::open_door(&upstream.authority(), "").await;
        gateway.get("/1").await.refused(502, "upstream_unreachable");
        gateway.get("/2").await.refused(502, "upstream_unreachable");
        assert!(upstream.heads().len() >= 2, "{claim}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_behind_an_answer_are_never_anybodys_answer() {
    let upstream = ScriptedOrigin::saying(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Evil: 1\r\n\r\nevil",
    )
    .await;
    let gateway = scene::open_door(&upstream.authority(), "").await;
    for _ in 0..5 {
        let answer = gateway.get("/").await;
        assert!(answer.text() == "hello" || answer.status == 502, "{answer:?}");
        assert!(answer.header("x-evil").is_none());
    }
    let headed = ScriptedOrigin::saying("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").await;
    let gateway = scene::open_door(&headed.authority(), "").await;
    let answer = gateway.call("HEAD", "/").await;
    assert!(answer.body.is_empty(), "{answer:?}");
    assert_eq!(gateway.get("/").await.text(), "evil", "a GET gets an answer of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_cut_short_is_cut_short_for_the_client_too() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let upstream = ScriptedOrigin::saying_and_closing(answer).await;
        let gateway = scene::open_door(&upstream.authority(), "").await;
        let got = gateway.get("/").attempt().await;
        assert!(got.is_err(), "a part must not look like the whole: {got:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn interim_answers_are_passed_on_or_dropped_and_a_flood_of_them_is_cut() {
    let upstream = ScriptedOrigin::saying(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    )
    .await;
    let gateway = scene::open_door(&upstream.authority(), "").await;
    assert_eq!(gateway.get("/").await.expect(200).text(), "hi");

    let flood = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(5_000) + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    let upstream = ScriptedOrigin::saying(flood).await;
    let gateway = scene::open_door(&upstream.authority(), "").await;
    gateway.get("/").await.refused(502, "upstream_unreachable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_answer_head_is_502() {
    let huge = format!("HTTP/1.1 200 OK\r\nX-Big: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(2 * 1024 * 1024));
    let upstream = ScriptedOrigin::saying(huge).await;
    let gateway = scene::open_door(&upstream.authority(), "").await;
    gateway.get("/").await.refused(502, "upstream_unreachable");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_end_of_the_request_is_passed_on() {
    let (gateway, origin) = scene::shop().await;
    origin.answer(Answer::status(413).body("too much").without_reading());
    let (call, feed) = gateway.post("/open/x").fed();
    let answer = tokio::spawn(call.stream());
    feed.send(vec![b'x'; 1000]).await;
    let streaming = tokio::time::timeout(Duration::from_secs(10), answer).await.unwrap().unwrap();
    assert_eq!(streaming.head.status, 413);
    assert!(streaming.head.is_from_origin());
}

#[tokio::test(flavor = "multi_thread")]
async fn content_codings_pass_through_undecoded() {
    let (gateway, origin) = scene::shop().await;
    let gzip =
        [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 7, 0, 0x86, 0xa6, 0x10, 0x36, 5, 0, 0, 0];
    origin.answer(Answer::status(200).header("content-encoding", "gzip").body(gzip.to_vec()));
    let answer = gateway.post("/open/x").header("content-encoding", "gzip").body(gzip.to_vec()).await.expect(200);
    assert_eq!((&answer.body[..], answer.header("content-encoding")), (&gzip[..], Some("gzip")));
    assert_eq!(&origin.only().body[..], &gzip[..]);
}
