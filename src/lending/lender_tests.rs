use std::path::Path;

use portcullis_testkit::{RedisServer, eventually};
use proptest::prelude::*;

use super::*;
use crate::domain::{KeyId, RateLimit, Timestamp};
use crate::lending::RedisAddress;
use crate::limit::{Ask, Charge, Gcra, Grant, MeterId, Moment, OnOutage, Patience, Policy, RuleId, Subject, Withheld};

fn settings(url: &str) -> LendingSettings {
    LendingSettings {
        address: RedisAddress::parse(url).unwrap(),
        ca: None,
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        on_outage: OnOutage::Local,
        lease: Duration::from_millis(100),
        prefix: "test:".to_owned(),
    }
}

fn gcra(requests: u32, per: Duration) -> Gcra {
    Gcra::new(RateLimit::new(requests, per, None).unwrap())
}

fn meter(number: u8) -> MeterId {
    (Subject::Key(KeyId::from_bytes([number; 16])), RuleId::OWN)
}

fn want(gcra: Gcra, want: u32) -> Ask {
    Ask { gcra, want, in_hand: 0, owed: 0, back: 0, missing_ns: 0 }
}

async fn lend(link: &mut Link, number: u8, ask: Ask) -> Grant {
    link.lend(&[(meter(number), ask)]).await.unwrap()[0]
}

/// Everything that a server of each sort that is installed does.
#[tokio::test]
async fn the_script_lends_what_there_is_on_every_server_that_is_installed() {
    let _missing_is_told = RedisServer::start(&[]);
    for program in RedisServer::programs() {
        let server = RedisServer::of(&program, &[]);
        for url in [server.url() + "/3", server.socket_url()] {
            lends(&mut Link::open(&settings(&url)).await.unwrap(), &server).await;
            server.ask("FLUSHALL");
        }
    }
}

async fn lends(link: &mut Link, server: &RedisServer) {
    let slow = gcra(5, Duration::from_secs(3600));
    let interval = slow.interval_ns();
    assert_eq!(lend(link, 1, want(slow, 3)).await, Grant { tokens: 3, missing_ns: 3 * interval });
    let rest = lend(link, 1, want(slow, 3)).await;
    assert_eq!(rest.tokens, 2, "as many as there are");
    assert!(rest.missing_ns <= 5 * interval && rest.missing_ns > 5 * interval - 1_000_000_000, "{rest:?}");
    assert_eq!(lend(link, 1, want(slow, 1)).await.tokens, 0);
    // Another meter, given back as a whole.
    lend(link, 2, want(slow, 5)).await;
    assert_eq!(lend(link, 2, Ask { back: 5, ..want(slow, 0) }).await, Grant { tokens: 0, missing_ns: 0 });
    assert_eq!(lend(link, 2, want(slow, 5)).await.tokens, 5);
    // What was let through without asking is charged, up to an empty meter.
    let owing = lend(link, 3, Ask { owed: 2, ..want(slow, 5) }).await;
    assert_eq!(owing.tokens, 3);
    assert_eq!(lend(link, 4, Ask { owed: 200, ..want(slow, 5) }).await, Grant { tokens: 0, missing_ns: 5 * interval });
    // And so is what the node remembers and the server does not.
    assert_eq!(lend(link, 5, Ask { missing_ns: 4 * interval, ..want(slow, 5) }).await.tokens, 1);
    // Under another limit as many are missing as were.
    let fast = gcra(5, Duration::from_secs(60));
    let faster = lend(link, 3, want(fast, 0)).await;
    assert!(faster.missing_ns.abs_diff(5 * fast.interval_ns()) < 1_000_000_000, "{faster:?}");
    // Who has plenty is lent a part of it.
    let plenty = gcra(256_000, Duration::from_secs(86_400));
    assert_eq!(lend(link, 6, want(plenty, 1)).await.tokens, 1000);
    assert_eq!(lend(link, 6, Ask { in_hand: 900, ..want(plenty, 1) }).await.tokens, 96);
    // The longest and the finest limits are reckoned exactly enough.
    let longest = Gcra::new(RateLimit::new(1, RateLimit::LONGEST, Some(36_600)).unwrap());
    assert_eq!(lend(link, 7, want(longest, 36_600)).await.tokens, 36_600);
    assert_eq!(lend(link, 7, want(longest, 1)).await.tokens, 0);
    let finest = gcra(1_000_000, Duration::from_secs(1));
    assert_eq!(lend(link, 8, want(finest, 1_000_000)).await.tokens, 1_000_000);
    // It comes back with time, and what is full again is not kept.
    let quick = gcra(50, Duration::from_secs(1));
    assert_eq!(lend(link, 9, want(quick, 50)).await.tokens, 50);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!((8..=40).contains(&lend(link, 9, want(quick, 50)).await.tokens));
    // A server that forgot the script is told it again, in the middle of many.
    server.ask("SCRIPT FLUSH");
    let many: Vec<_> = (20..80).map(|number| (meter(number), want(slow, 2))).collect();
    assert!(link.lend(&many).await.unwrap().iter().all(|grant| grant.tokens == 2));
    link.ping().await.unwrap();
}

#[tokio::test]
async fn keys_say_nothing_and_go_when_their_meter_is_full() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let mut link = Link::open(&settings(&server.url())).await.unwrap();
    lend(&mut link, 1, want(gcra(100, Duration::from_secs(1)), 20)).await;
    let address = (Subject::Network(crate::limit::Network::of(Some("192.0.2.1".parse().unwrap()))), RuleId::FAILURES);
    link.lend(&[(address, want(gcra(5, Duration::from_secs(3600)), 1))]).await.unwrap();
    let keys = server.ask("KEYS *");
    assert!(keys.starts_with("*2\r\n") && keys.matches("test:").count() == 2 && !keys.contains("192"), "{keys}");
    eventually!("the quick one is gone", server.ask("DBSIZE") == ":1\r\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever the numbers, as often as it is asked at one moment: never more than a burst.
    #[test]
    fn no_numbers_make_it_lend_more_than_a_burst(
        requests in 1_u32..1000,
        burst in 1_u32..5000,
        asks in proptest::collection::vec((0_u32..3000, 0_u32..300, 0_u32..20), 1..20),
    ) {
        let Some(server) = shared() else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let limit = Gcra::new(RateLimit::new(requests, Duration::from_secs(86_400), Some(burst)).unwrap());
        let lent = runtime.block_on(async {
            let mut link = Link::open(&settings(&server.url())).await.unwrap();
            let mut lent = 0;
            for (want, in_hand, owed) in asks {
                let ask = Ask { want, in_hand, owed, gcra: limit, back: 0, missing_ns: 0 };
                lent += lend(&mut link, 1, ask).await.tokens;
            }
            lent
        });
        server.ask("FLUSHALL");
        prop_assert!(lent <= limit.burst() + 1, "{} of {}", lent, limit.burst());
    }
}

fn shared() -> Option<&'static RedisServer> {
    static SHARED: std::sync::OnceLock<Option<RedisServer>> = std::sync::OnceLock::new();
    SHARED.get_or_init(|| RedisServer::start(&[])).as_ref()
}

#[tokio::test]
async fn who_is_refused_is_told_why_and_no_password() {
    let Some(server) = RedisServer::start(&["--requirepass", "right-one"]) else { return };
    let with = |who: &str| settings(&server.url().replace("redis://", &format!("redis://{who}")));
    Link::open(&with(":right-one@")).await.unwrap();
    Link::open(&with("default:right-one@")).await.unwrap();
    server
        .ask("AUTH right-one\r\nACL SETUSER gate on >s3cr3t ~test:* +evalsha +script|load +ping +time +get +set +del");
    let mut link = Link::open(&with("gate:s3cr3t@")).await.unwrap();
    assert_eq!(
        lend(&mut link, 1, want(gcra(5, Duration::from_secs(60)), 1)).await.tokens,
        1,
        "it needs no more rights"
    );
    for (who, word) in
        [("", "NOAUTH"), (":wr0ng@", "WRONGPASS"), ("gate:wr0ng@", "WRONGPASS"), ("nobody:wr0ng@", "WRONGPASS")]
    {
        let Err(trouble) = Link::open(&with(who)).await else { panic!("{who} is let in") };
        let said = trouble.to_string();
        assert!(said.contains(word) && !said.contains("wr0ng"), "{said}");
    }
}

#[tokio::test]
async fn what_is_no_redis_is_not_believed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answering = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        listener
    });
    let Err(trouble) = Link::open(&settings(&format!("redis://{address}"))).await else { panic!("it is believed") };
    assert!(matches!(trouble, Trouble::Foreign), "{trouble}");
    drop(answering.await.unwrap());
    assert!(matches!(Link::open(&settings(&format!("redis://{address}"))).await, Err(Trouble::Io(_))));
    let with_ca = LendingSettings { ca: Some("/nowhere/ca.pem".into()), ..settings("rediss://127.0.0.1:1") };
    assert!(Link::open(&with_ca).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lender_gives_back_what_it_holds_and_outlives_its_server() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let limit = gcra(1000, Duration::from_secs(86_400));
    let charge = Charge::Rate(Policy::Key, meter(1).0, meter(1).1, limit);
    let settings = settings(&server.url());
    let meters = Arc::new(Meters::new(10_000, monotonic_now()).shared(settings.terms()));
    let lender = Lender::start(settings.clone(), Arc::clone(&meters)).unwrap();
    lender.tried().await;
    let ask = async || {
        let now = || Moment { monotonic: monotonic_now(), wall: Timestamp::default() };
        loop {
            match meters.draw(&[charge], now(), Patience::Waits) {
                Err(Withheld::Awaited(awaited)) => meters.answer(awaited).await,
                other => break other.map(|standings| standings[0].remaining),
            }
        }
    };
    assert_eq!(ask().await.unwrap(), 999);
    assert!(lender.status().up.load(Relaxed));
    server.stop();
    eventually!("the lender notices", !lender.status().up.load(Relaxed));
    assert_eq!(ask().await.unwrap(), 998, "its own meter goes on");
    server.launch();
    eventually!("the lender is back", lender.status().up.load(Relaxed));
    assert_eq!(ask().await.unwrap(), 997, "the server forgot, and this node did not");
    let mut link = Link::open(&settings).await.unwrap();
    let held = lend(&mut link, 1, want(limit, 0)).await.missing_ns.div_ceil(limit.interval_ns());
    assert!(held >= 5, "three used, and some of the rest lent: {held}");
    lender.stop();
    let left = lend(&mut link, 1, want(limit, 0)).await.missing_ns.div_ceil(limit.interval_ns());
    assert_eq!(left, 3, "what was not used is back");
}

#[test]
fn authorities_that_cannot_be_read_are_named() {
    let said =
        Trouble::Authorities(Some(Path::new("/nowhere/ca.pem").to_owned()), "no such file".to_owned()).to_string();
    assert!(said.contains("/nowhere/ca.pem") && said.contains("rate_limits.shared.ca"), "{said}");
}
