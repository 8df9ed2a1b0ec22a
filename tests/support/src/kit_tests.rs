//! The instruments measured against each other: clients that speak to origins without a gateway between them.

use std::time::Duration;

use crate::*;

fn ask(origin: &Origin, target: &str) -> Call {
    Call::to(origin.address(), "GET", target).facts(Facts::none())
}

#[tokio::test]
async fn an_origin_writes_down_what_it_is_sent() {
    let origin = Origin::start().await;
    let answer = Call::to(origin.address(), "POST", "/a%2Fb?x=1&y")
        .facts(Facts::none())
        .header("x-one", "1")
        .body("hello")
        .await
        .expect(200);
    assert_eq!(answer.text(), "hello from the origin");
    let seen = origin.only();
    assert_eq!((seen.method.as_str(), seen.target.as_str(), seen.path()), ("POST", "/a%2Fb?x=1&y", "/a%2Fb"));
    assert_eq!((seen.header("x-one"), seen.text().as_str(), seen.complete), (Some("1"), "hello", true));
    assert_eq!(seen.host, origin.authority());
}

#[tokio::test]
async fn origins_speak_both_versions_with_trailers_both_ways() {
    let origin = Origin::start().await;
    origin.answer(Answer::echo().header("x-e", "1"));
    let answer = ask(&origin, "/h2").h2().body("abc").trailer("x-sum", "9").await.expect(200);
    assert_eq!(answer.text(), "abc");
    assert_eq!(answer.trailer("x-sum"), Some("9"), "{answer:?}");
    assert_eq!(origin.last().trailers["x-sum"], "9");

    origin.answer(Answer::ok("x").trailer("x-end", "yes"));
    assert_eq!(ask(&origin, "/").h2().await.trailer("x-end"), Some("yes"));
}

#[tokio::test]
async fn patterns_travel_without_being_held_and_are_verified_at_both_ends() {
    let origin = Origin::start().await;
    origin.answer(Answer::pattern(3_000_000));
    let mut streaming = ask(&origin, "/").stream().await;
    assert_eq!(streaming.count_pattern().await, 3_000_000);
    Call::to(origin.address(), "PUT", "/").facts(Facts::none()).unsized_pattern(2_000_000).await;
    let seen = origin.last();
    assert!(seen.complete && seen.body_is_pattern && seen.body_bytes == 2_000_000, "{} bytes", seen.body_bytes);
}

#[tokio::test]
async fn a_fed_body_arrives_piece_by_piece_and_can_break_off() {
    let origin = Origin::start().await;
    let (answer, feed) = Answer::fed();
    origin.answer(answer);
    let mut streaming = ask(&origin, "/").stream().await;
    for piece in ["one", "two"] {
        assert!(feed.send(piece).await);
        assert_eq!(streaming.piece().await.unwrap().unwrap(), piece);
    }
    feed.abort().await;
    assert!(streaming.piece().await.is_err());
}

#[tokio::test]
async fn a_latch_holds_answers_back_until_it_is_opened() {
    let origin = Origin::start().await;
    let (answer, latch) = Answer::ok("late").held();
    origin.answer(answer);
    let waiting = tokio::spawn(ask(&origin, "/").into_future());
    eventually!("the origin was asked", origin.count() == 1);
    assert!(!waiting.is_finished());
    latch.open();
    assert_eq!(waiting.await.unwrap().text(), "late");
}

#[tokio::test]
async fn the_raw_client_sends_bytes_and_reads_pipelined_answers() {
    let origin = Origin::start().await;
    let mut raw = RawClient::connect(origin.address()).await.facts(Facts::none());
    raw.send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!(raw.all().await.len(), 2);
    assert_eq!(origin.requests().iter().map(Recorded::path).collect::<Vec<_>>(), ["/1", "/2"]);
}

#[tokio::test]
async fn a_tunnel_sends_every_byte_back() {
    let origin = Origin::start().await;
    origin.answer(Answer::tunnel());
    let mut raw = RawClient::connect(origin.address()).await.facts(Facts::none());
    raw.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!(raw.response().await.status, 101);
    raw.send(b"\x00\xffping").await;
    assert_eq!(raw.bytes(6).await, b"\x00\xffping");
}

#[tokio::test]
async fn a_scripted_origin_says_exactly_what_it_was_told() {
    let origin =
        ScriptedOrigin::saying_and_closing("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx").await;
    let mut raw = RawClient::connect(origin.address()).await.facts(Facts::none());
    raw.send("GET /odd HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(raw.rest().await.ends_with(b"\r\n\r\nx"));
    assert_eq!(origin.heads(), ["GET /odd HTTP/1.1\r\nHost: x\r\n\r\n"]);
}

#[tokio::test]
async fn tls_is_believed_only_with_the_right_authority_and_name() {
    let (ca, stranger) = (TestCa::new("ours"), TestCa::new("theirs"));
    let origin = Origin::tls(&ca, &["h2", "http/1.1"]).await;
    assert_eq!(ask(&origin, "/").tls(&ca.believer()).await.status, 200);
    assert_eq!(ask(&origin, "/").tls(&ca.believer()).h2().await.status, 200);
    assert!(ask(&origin, "/").tls(&stranger.believer()).attempt().await.is_err());
    assert!(ask(&origin, "/").tls(&ca.believer().server_name("elsewhere.test")).attempt().await.is_err());

    let strict = Origin::mutual_tls(&ca, &["http/1.1"]).await;
    assert!(ask(&strict, "/").tls(&ca.believer()).attempt().await.is_err());
    assert_eq!(ask(&strict, "/").tls(&ca.believer().showing(&ca.client("me"))).await.status, 200);
    assert_eq!(ask(&origin, "/").tls(&ca.believer().only_tls12()).await.status, 200);
}

#[tokio::test]
async fn a_wire_passes_slows_freezes_cuts_and_mends() {
    let origin = Origin::start().await;
    let wire = Wire::to(origin.address()).await;
    let call = || Call::to(wire.address(), "GET", "/").facts(Facts::none());
    assert_eq!(call().await.status, 200);

    wire.slow(Duration::from_millis(60));
    let started = std::time::Instant::now();
    assert_eq!(call().await.status, 200);
    assert!(started.elapsed() >= Duration::from_millis(120), "{:?}", started.elapsed());

    wire.freeze();
    let frozen = tokio::spawn(call().attempt());
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!frozen.is_finished());
    wire.cut();
    assert!(frozen.await.unwrap().is_err());
    assert!(call().attempt().await.is_err());
    wire.mend();
    assert_eq!(call().await.status, 200);
}

#[tokio::test]
async fn an_origin_can_close_politely_or_break_off_and_goes_on() {
    let origin = Origin::start().await;
    let mut connection = Connection::h1(origin.address()).await;
    connection.send(ask(&origin, "/")).await;
    origin.close_connections();
    eventually!("the idle connection is closed", connection.is_gone());
    assert_eq!(ask(&origin, "/").await.status, 200);

    let (answer, _latch) = Answer::ok("never").held();
    origin.answer(answer);
    let waiting = tokio::spawn(ask(&origin, "/held").attempt());
    eventually!("the origin was asked", origin.last().path() == "/held");
    origin.break_connections();
    assert!(waiting.await.unwrap().is_err());
}

#[tokio::test]
async fn frames_no_library_would_send_are_sent_and_the_verdict_is_read() {
    let origin = Origin::start().await;
    let authority = origin.authority();
    let head = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", authority.as_str())];
    let mut peer = H2Peer::connect(origin.address()).await;
    assert_eq!(peer.request(&head, None).await, H2Outcome::Answered(Some(200)));
    origin.answer(Answer::status(403));
    assert_eq!(peer.request(&head, None).await, H2Outcome::Answered(Some(403)));
    let bad = peer.request(&[head.as_slice(), &[("connection", "close")]].concat(), None).await;
    assert!(matches!(bad, H2Outcome::Reset(_)), "{bad:?}");
}

#[tokio::test]
#[should_panic(expected = "the credential pc_live_sk")]
async fn an_origin_complains_about_a_credential() {
    let origin = Origin::start().await;
    let vault = Vault::default();
    vault.keep("pc_live_sk_leaked");
    origin.watch(&vault);
    ask(&origin, "/").header("x-debug", "key=pc_live_sk_leaked").await;
    origin.requests();
}

#[tokio::test]
#[should_panic(expected = "x-portcullis-role")]
async fn an_origin_complains_about_identity_fields_that_are_not_ours() {
    let origin = Origin::start().await;
    ask(&origin, "/").header("x-portcullis-role", "admin").await;
    origin.requests();
}

#[tokio::test]
#[should_panic(expected = "X-Request-Id")]
async fn a_client_complains_about_an_answer_without_request_id() {
    let origin = Origin::start().await;
    Call::to(origin.address(), "GET", "/").await;
}

#[tokio::test]
#[should_panic(expected = "it never became true that pigs fly")]
async fn what_never_happens_is_not_waited_for_without_end() {
    eventually!("pigs fly", within Duration::from_millis(20), false);
}

/// What the executable would have said, said by a shell.
async fn a_gateway_that_says(line: &str) -> Gateway {
    let gateway = Site::with("/bin/sh").prepare().launch(&["-c", &format!("echo '{line}' >&2")]);
    assert_eq!(gateway.exited(Duration::from_secs(10)).await, 0);
    gateway
}

#[tokio::test]
#[should_panic(expected = "the gateway panicked")]
async fn a_panic_before_there_is_a_log_fails_the_test() {
    drop(a_gateway_that_says("thread main panicked at src/x.rs:1:1").await);
}

#[tokio::test]
#[should_panic(expected = "the gateway panicked")]
async fn a_panic_that_was_logged_fails_the_test() {
    drop(a_gateway_that_says(r#"{"level":"ERROR","message":"a panic was caught","place":"src/x.rs:1:1"}"#).await);
}

#[tokio::test]
#[should_panic(expected = "the gateway panicked")]
async fn a_panic_that_was_expected_and_did_not_come_fails_the_test() {
    let gateway = a_gateway_that_says("all is well").await;
    gateway.expect_panics(1);
    drop(gateway);
}

#[tokio::test]
async fn a_panic_that_a_test_is_about_does_not_fail_it() {
    let gateway = a_gateway_that_says(r#"{"message":"a panic was caught"}"#).await;
    gateway.expect_panics(1);
    drop(gateway);
}
