//! What a panic costs: provoked in the executable itself, which has wires to trip over where it was built with debug
//! assertions and the environment asks for them.

use portcullis_testkit::{Answer, Connection, Gateway, H2Outcome, H2Peer, Key, Origin, eventually};

use crate::scene;

async fn shop_with_tripwires() -> (Gateway, Origin) {
    let origin = Origin::start().await;
    let config = scene::shop_config("", "workers: 1\nlogging: { format: json, level: trace }");
    let site = scene::site(&config).upstream("shop", &origin).env("PORTCULLIS_TEST_TRIPWIRES", "1");
    (site.start().await, origin)
}

/// A request that takes its time on a connection of its own and on one it shares: both end as if nothing had happened.
struct Siblings {
    answers: Vec<tokio::task::JoinHandle<portcullis_testkit::Response>>,
    latch: portcullis_testkit::Latch,
    shared: Connection,
}

impl Siblings {
    async fn begin(gateway: &Gateway, origin: &Origin) -> Self {
        let (held, latch) = Answer::ok("late").held();
        origin.answer_at("/open/held", held);
        let shared = Connection::h2(gateway.data()).await;
        let mut own = Connection::h1(gateway.data()).await;
        let (mut stream, calls) = (shared.stream_handle(), [gateway.get("/open/held"), gateway.get("/open/held")]);
        let [first, second] = calls;
        let answers = vec![
            tokio::spawn(async move { own.send(first).await }),
            tokio::spawn(async move { stream.send(second).await }),
        ];
        eventually!(
            "both reached the origin",
            origin.requests().iter().filter(|r| r.path() == "/open/held").count() == 2
        );
        Self { answers, latch, shared }
    }

    async fn are_well(mut self, gateway: &Gateway) {
        assert!(!self.shared.is_closed(), "the connection it was shared with is open");
        self.shared.send(gateway.get("/status")).await.expect(200);
        self.latch.open();
        for answer in self.answers {
            assert_eq!(answer.await.unwrap().expect(200).text(), "late");
        }
    }
}

async fn is_counted_once_more(gateway: &Gateway, before: f64) {
    let after = gateway.metrics().await.sum("portcullis_panics_total", &[]);
    assert_eq!(after, before + 1.0);
}

/// A request that panics in `place`, with a credential in what the panic is about.
async fn refused_in(gateway: &Gateway, siblings: &mut Siblings, key: &Key, place: &str, h2: bool) {
    let before = gateway.metrics().await.sum("portcullis_panics_total", &[]);
    let words = format!("panic in {place}");
    let call = match place {
        "upload" => gateway.post("/v1/orders/1").body(words),
        _ => gateway.get("/v1/orders/1").header("x-words", &words),
    };
    let call = call.bearer(key);
    let answer = if h2 { siblings.shared.send(call).await } else { call.await };
    let answer = answer.refused(500, "internal_error");
    assert!(!answer.text().contains("panic"), "{answer:?}");
    is_counted_once_more(gateway, before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_before_the_answer_is_a_500_for_that_request_alone() {
    let (gateway, origin) = shop_with_tripwires().await;
    let key = gateway.key("caller", "read:orders,write:orders").await;
    gateway.expect_panics(6);
    for place in ["begin", "forward", "upload"] {
        for h2 in [false, true] {
            let mut siblings = Siblings::begin(&gateway, &origin).await;
            refused_in(&gateway, &mut siblings, &key, place, h2).await;
            siblings.are_well(&gateway).await;
            origin.forget();
        }
    }
    gateway
        .access_line_where("the request has a line of its own", |line| {
            line["path"] == "/v1/orders/1" && line["status"] == 500
        })
        .await;
    let said = gateway.logs().events_saying("a panic was caught");
    assert!(said.iter().all(|event| event["place"].as_str().is_some_and(|place| place.contains(".rs:"))), "{said:?}");
    assert!(!gateway.logs().text().contains("panic in "), "its words stay where they are: they may be a credential");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_within_an_answer_ends_that_answer_alone() {
    let (gateway, origin) = shop_with_tripwires().await;
    gateway.expect_panics(2);
    for h2 in [false, true] {
        let (answer, feed) = Answer::fed();
        origin.answer_at("/open/broken", answer);
        let mut siblings = Siblings::begin(&gateway, &origin).await;
        let before = gateway.metrics().await.sum("portcullis_panics_total", &[]);
        let call = gateway.get("/open/broken");
        let mut streaming = if h2 { siblings.shared.stream(call).await } else { call.stream().await };
        feed.send("as usual").await;
        assert_eq!(streaming.piece().await.unwrap().unwrap(), "as usual");
        feed.send("panic in download").await;
        assert!(streaming.piece().await.is_err(), "it breaks off, and does not seem to end");
        is_counted_once_more(&gateway, before).await;
        siblings.are_well(&gateway).await;
        let line = gateway.access_line_where("it has a line", |line| line["path"] == "/open/broken").await;
        assert_eq!((&line["status"], &line["reason"]), (&200.into(), &"internal_error".into()), "{line}");
        origin.forget();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_trips_where_the_environment_does_not_ask_for_it() {
    let (gateway, _origin) = scene::shop().await;
    for place in ["begin", "forward"] {
        gateway.get("/open/x").header("x-words", &format!("panic in {place}")).await.expect(200);
    }
    gateway.post("/open/x").body("panic in upload").await.expect(200);
}

#[test]
fn no_release_is_built_with_what_a_test_can_trip_over() {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    let release = manifest.split("[profile.release]").nth(1).expect("there is a release profile");
    assert!(!release.contains("debug-assertions"), "the wires of `proxy/tripwire.rs` would be in it");
    let source = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/proxy/tripwire.rs")).unwrap();
    let guarded = source.split("#[cfg(debug_assertions)]").count() - 1;
    assert_eq!(guarded, 2, "the call and what it calls");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_panics_leaves_the_worker_serving() {
    let (gateway, _origin) = shop_with_tripwires().await;
    gateway.expect_panics(50);
    let authority = gateway.data().to_string();
    let mut peer = H2Peer::connect(gateway.data()).await;
    let head = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/open/x"),
        (":authority", authority.as_str()),
        ("x-words", "panic in begin"),
    ];
    for _ in 0..50 {
        assert_eq!(peer.request(&head, None).await, H2Outcome::Answered(Some(500)));
    }
    gateway.get("/status").await.expect(200);
}
