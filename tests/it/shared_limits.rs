//! Limits that gateways share: together they let through what one of them would, and an outage is stated and survived.

use std::time::{Duration, Instant};

use portcullis_testkit::{
    Connection, Gateway, Key, KeySpec, Origin, RedisServer, ServerKind, TestCa, Wire, eventually, patient,
};

use crate::besieged::scaled;
use crate::{figures, scene};

/// Who takes part.
const GATEWAYS: usize = 3;
/// The limit of each of the busy routes, in requests a second, and what comes at once.
const RATE: f64 = 100.0;
const BURST: f64 = 20.0;
/// Between two requests of one connection: all together they ask for far more than there is.
const PACE: Duration = Duration::from_millis(15);

const ROUTES: &str = r#"
  - { path: /by-key, upstream: shop, auth: any_key, rate_limit: { requests: 100, per: 1s, burst: 20 } }
  - { path: /by-owner, upstream: shop, auth: any_key, rate_limit: { requests: 100, per: 1s, burst: 20, by: owner } }
  - { path: /by-address, upstream: shop, auth: none, rate_limit: { requests: 100, per: 1s, burst: 20, by: address } }
  - { path: /small, upstream: shop, auth: any_key, rate_limit: { requests: 5, per: 1h } }
  - { path: /both, upstream: shop, auth: any_key, rate_limit: { requests: 3, per: 1h } }
"#;

/// Gateways with keys in one file, who share their limits at `url`.
struct Fleet {
    gateways: Vec<Gateway>,
    _origin: Origin,
    _directory: tempfile::TempDir,
}

impl Fleet {
    async fn start(gateways: usize, url: &str, fields: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let origin = Origin::start().await;
        // Machines that run tests are busier than those that serve.
        let sections = format!(
            "store: {{ driver: sqlite, path: {}/keys.db }}\n\
             environments: {{ live: {{ quota: {{ per_day: 1000000 }} }} }}\n\
             limits: {{ failures: {{ requests: 4, per: 1h }} }}\n\
             rate_limits: {{ quota_flush: 100ms, shared: {{ url: \"{url}\", timeout: 1s, {fields} }} }}",
            directory.path().display(),
        );
        let mut running = Vec::new();
        for _ in 0..gateways {
            let site = scene::site(&scene::shop_config(ROUTES, &sections)).upstream("shop", &origin);
            running.push(site.start().await);
        }
        Self { gateways: running, _origin: origin, _directory: directory }
    }

    async fn key(&self, spec: KeySpec) -> Key {
        let key = self.gateways[0].key_of(spec).await;
        for gateway in &self.gateways {
            eventually!("the key is known everywhere", gateway.get("/me").bearer(&key).await.status == 200);
        }
        key
    }

    async fn metric(&self, gateway: usize, name: &str) -> Option<f64> {
        self.gateways[gateway].metrics().await.value(name, &[])
    }
}

/// How many requests are let through at one gateway until then, one after the other.
async fn ask(gateway: &Gateway, path: &str, key: &Key, until: Instant) -> usize {
    let mut connection = Connection::h1(gateway.data()).await;
    let mut let_through = 0;
    while Instant::now() < until {
        let call = gateway.get(path);
        let call = if path == "/by-address" { call } else { call.bearer(key) };
        let status = connection.send(call).await.status;
        assert!(status == 200 || status == 429, "{status}");
        let_through += usize::from(status == 200);
        tokio::time::sleep(PACE).await;
    }
    let_through
}

/// How many of `requests` at one gateway have this status, sent over both versions of HTTP.
async fn count(gateway: &Gateway, path: &str, key: &Key, requests: usize, status: u16) -> usize {
    let mut counted = 0;
    for number in 0..requests {
        let call = gateway.get(path).bearer(key);
        let answer = if number % 2 == 0 { call.await } else { call.h2().await };
        counted += usize::from(answer.status == status);
    }
    counted
}

/// A test of each claim with each server.
macro_rules! held_to_each_server {
    ($($claim:ident),* $(,)?) => {
        mod redis {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $claim() {
                super::$claim(super::ServerKind::Redis).await;
            })*
        }
        mod valkey {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $claim() {
                super::$claim(super::ServerKind::Valkey).await;
            })*
        }
    };
}

held_to_each_server!(
    three_gateways_let_through_what_the_limit_allows,
    a_small_limit_is_exact_among_gateways_that_are_asked_at_once,
    without_its_server_each_gateway_goes_by_its_own_limits_and_says_so,
    who_refuses_without_its_server_answers_503_where_a_rate_applies,
    a_wrong_password_is_told_without_it_and_keeps_nobody_from_starting,
    limits_are_shared_over_tls_with_a_server_that_proves_who_it_is,
    with_a_server_that_does_not_prove_who_it_is_no_word_is_spoken,
);

/// A minute with `PORTCULLIS_TEST_SHARED_LIMITS=60`, and then within 2 %.
async fn three_gateways_let_through_what_the_limit_allows(kind: ServerKind) {
    let Some(server) = RedisServer::of_kind(kind, &[]) else { return };
    let seconds = scaled("PORTCULLIS_TEST_SHARED_LIMITS", 4);
    let fleet = Fleet::start(GATEWAYS, &server.url(), "").await;
    let made = fleet.gateways[0].cli(&["owners", "create", "--name", "ACME", "--output", "json"]).await.success();
    let owner = made.json()["id"].as_str().unwrap().to_owned();
    let mut keys = Vec::new();
    for name in ["one", "two", "three"] {
        keys.push(fleet.key(KeySpec::new(name, "").option("--owner", &owner)).await);
    }
    let begun = Instant::now();
    let until = begun + Duration::from_secs(seconds);
    let asks = |path: &'static str, own_key: bool| {
        let askers = fleet.gateways.iter().zip(&keys).map(move |(gateway, key)| (gateway, key, own_key));
        let keys = &keys;
        futures_util::future::join_all(askers.map(move |(gateway, key, own_key)| async move {
            let key = if own_key { key } else { &keys[0] };
            let (one, other) = tokio::join!(ask(gateway, path, key, until), ask(gateway, path, key, until));
            one + other
        }))
    };
    let (by_key, by_owner, by_address) =
        tokio::join!(asks("/by-key", false), asks("/by-owner", true), asks("/by-address", false));
    let elapsed = begun.elapsed().as_secs_f64();
    let most = BURST + RATE * elapsed;
    // What is asked last may be answered late on a busy machine.
    let least = BURST + RATE * seconds as f64;
    let tolerance = if seconds >= 60 { 0.02 } else { 0.15 };
    for (limit, counts) in [("key", by_key), ("owner", by_owner), ("address", by_address)] {
        let sum = counts.iter().sum::<usize>() as f64;
        let excess = format!("{:+.2} %", (sum / most - 1.0) * 100.0);
        let fits = (least * (1.0 - tolerance)..=most * 1.02 + 1.0).contains(&sum);
        let event = format!("three gateways at their limit by {limit} for {seconds} s");
        figures::note(&event, "let through, by what is allowed", excess, "within 2 %", fits);
        assert!(sum <= most * 1.02 + 1.0, "{limit}: {counts:?}, allowed {most}");
        assert!(sum >= least * (1.0 - tolerance), "{limit}: {counts:?}, allowed {least}");
    }
    let metrics = fleet.gateways[1].metrics().await;
    assert_eq!(metrics.value("portcullis_shared_limits_up", &[]), Some(1.0), "{}", metrics.text);
    assert!(metrics.value("portcullis_shared_limits_asks_total", &[("result", "granted")]) > Some(0.0));
    assert_eq!(metrics.value("portcullis_shared_limits_outages_total", &[]), Some(0.0));
    let keys_of_server = server.ask("KEYS *");
    assert!(!keys_of_server.contains("127.0.0.1") && !keys_of_server.contains("key_"), "{keys_of_server}");
}

async fn a_small_limit_is_exact_among_gateways_that_are_asked_at_once(kind: ServerKind) {
    let Some(server) = RedisServer::of_kind(kind, &[]) else { return };
    let fleet = Fleet::start(GATEWAYS, &server.socket_url(), "").await;
    let key = fleet.key(KeySpec::new("reader", "")).await;
    let counts =
        futures_util::future::join_all(fleet.gateways.iter().map(|gateway| count(gateway, "/small", &key, 8, 200)))
            .await;
    assert_eq!(counts.iter().sum::<usize>(), 5, "{counts:?}");
    let refused = fleet.gateways[2].get("/small").bearer(&key).await.refused(429, "rate_limited");
    assert!(
        refused.header("ratelimit-policy").unwrap().starts_with("\"key-day\";q=1000000;w=86400, \"route\";q=5;w=3600")
    );
    assert!(refused.header("ratelimit").unwrap().contains("\"route\";r=0;t=7"), "{refused:?}");
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((600..=720).contains(&wait), "{refused:?}");
    // Wrong keys are counted together as well, and nobody waits for that.
    let wrong = async |gateway: usize| fleet.gateways[gateway].get("/me").header("x-api-key", "stranger").await.status;
    for _ in 0..4 {
        assert_eq!(wrong(0).await, 401);
    }
    eventually!("another gateway has heard of it", wrong(1).await == 429);
    fleet.gateways[1].get("/me").bearer(&key).await.expect(200);
    // Explaining takes nothing.
    let site = fleet.gateways[0].site();
    let explained = site.cli(&["explain", "GET", "http://x/both", "--key-id", &key.id]).await.success();
    assert!(explained.stdout.contains("3"), "{}", explained.stdout);
    assert_eq!(count(&fleet.gateways[0], "/both", &key, 4, 200).await, 3);
}

async fn without_its_server_each_gateway_goes_by_its_own_limits_and_says_so(kind: ServerKind) {
    let Some(server) = RedisServer::of_kind(kind, &[]) else { return };
    let wire = Wire::to(server.address()).await;
    let fleet = Fleet::start(2, &format!("redis://{}", wire.address()), "on_outage: local").await;
    let key = fleet.key(KeySpec::new("reader", "")).await;
    assert_eq!(count(&fleet.gateways[0], "/both", &key, 2, 200).await, 2);
    wire.cut();
    for gateway in 0..2 {
        eventually!("it is noticed", fleet.metric(gateway, "portcullis_shared_limits_up").await == Some(0.0));
    }
    // What was used up here stays so; the other begins with a limit of its own. Nobody waits.
    let begun = Instant::now();
    assert_eq!(count(&fleet.gateways[0], "/both", &key, 5, 200).await, 1);
    assert_eq!(count(&fleet.gateways[1], "/both", &key, 5, 200).await, 3);
    assert!(begun.elapsed() < patient(Duration::from_secs(5)), "{:?}", begun.elapsed());
    wire.mend();
    for gateway in 0..2 {
        eventually!("it is back", fleet.metric(gateway, "portcullis_shared_limits_up").await == Some(1.0));
    }
    assert_eq!(fleet.metric(0, "portcullis_shared_limits_outages_total").await, Some(1.0));
    assert_eq!(count(&fleet.gateways[1], "/small", &key, 4, 200).await, 4);
    assert_eq!(count(&fleet.gateways[0], "/small", &key, 4, 200).await, 1, "shared again");
    // A server that dies without a word costs each request its patience at most, and soon nothing.
    wire.freeze();
    let begun = Instant::now();
    count(&fleet.gateways[0], "/both", &key, 3, 200).await;
    assert!(begun.elapsed() < patient(Duration::from_secs(8)), "{:?}", begun.elapsed());
    eventually!("silence is noticed", fleet.metric(0, "portcullis_shared_limits_up").await == Some(0.0));
    let log = fleet.gateways[0].logs();
    eventually!("it is told", log.text().matches("limits are not shared").count() == 2);
}

async fn who_refuses_without_its_server_answers_503_where_a_rate_applies(kind: ServerKind) {
    let Some(server) = RedisServer::of_kind(kind, &["--requirepass", "canary-of-redis"]) else { return };
    let url = server.url().replace("redis://", "redis://:canary-of-redis@");
    let fleet = Fleet::start(1, &url, "on_outage: refuse").await;
    let (gateway, key) = (&fleet.gateways[0], fleet.key(KeySpec::new("reader", "")).await);
    gateway.get("/small").bearer(&key).await.expect(200);
    server.stop();
    eventually!("it is noticed", fleet.metric(0, "portcullis_shared_limits_up").await == Some(0.0));
    let refused = gateway.get("/small").bearer(&key).await.refused(503, "limits_unavailable");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(refused.header("www-authenticate").is_none(), "{refused:?}");
    gateway.get("/me").bearer(&key).await.expect(200);
    gateway.get("/by-address").await.refused(503, "limits_unavailable");
    server.launch();
    eventually!("it is back", gateway.get("/small").bearer(&key).await.status == 200);
    let shown = gateway.cli(&["config", "show", "--effective"]).await.success();
    assert!(shown.stdout.contains("redis://:<redacted>@"), "{}", shown.stdout);
    for text in [shown.everything(), gateway.logs().text(), gateway.metrics().await.text] {
        assert!(!text.contains("canary-of-redis"), "{text}");
    }
}

async fn a_wrong_password_is_told_without_it_and_keeps_nobody_from_starting(kind: ServerKind) {
    let Some(server) = RedisServer::of_kind(kind, &["--requirepass", "right"]) else { return };
    let fleet = Fleet::start(1, &server.url().replace("redis://", "redis://:wr0ng-one@"), "").await;
    let log = fleet.gateways[0].logs();
    eventually!("the log says why", log.text().contains("WRONGPASS"));
    assert!(!log.text().contains("wr0ng-one"), "{}", log.text());
    fleet.gateways[0].get("/by-address").await.expect(200);
}

async fn limits_are_shared_over_tls_with_a_server_that_proves_who_it_is(kind: ServerKind) {
    let ca = TestCa::new("an authority of the house");
    let Some(server) = RedisServer::with_tls(kind, &ca.server(&["127.0.0.1"]), &[]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let believed = directory.path().join("ca.pem");
    std::fs::write(&believed, ca.pem()).unwrap();
    let fleet = Fleet::start(GATEWAYS, &server.tls_url(), &format!("ca: {}", believed.display())).await;
    let key = fleet.key(KeySpec::new("reader", "")).await;
    for gateway in 0..GATEWAYS {
        eventually!("it is shared", fleet.metric(gateway, "portcullis_shared_limits_up").await == Some(1.0));
    }
    let counts =
        futures_util::future::join_all(fleet.gateways.iter().map(|gateway| count(gateway, "/small", &key, 8, 200)))
            .await;
    assert_eq!(counts.iter().sum::<usize>(), 5, "{counts:?}");
    let (clients, over_tls) = (server.ask("CLIENT LIST"), format!("laddr={}", server.tls_address()));
    assert_eq!(clients.matches(&over_tls).count(), GATEWAYS, "{clients}");
    // It goes, and comes back with a certificate of the same authority.
    server.stop();
    eventually!("it is noticed", fleet.metric(0, "portcullis_shared_limits_up").await == Some(0.0));
    server.launch();
    eventually!("it is back", fleet.metric(0, "portcullis_shared_limits_up").await == Some(1.0));
}

async fn with_a_server_that_does_not_prove_who_it_is_no_word_is_spoken(kind: ServerKind) {
    let (ca, stranger) = (TestCa::new("an authority of the house"), TestCa::new("somebody else"));
    let Some(server) = RedisServer::with_tls(kind, &ca.server(&["127.0.0.1"]), &[]) else { return };
    let directory = tempfile::tempdir().unwrap();
    let (believed, other) = (directory.path().join("ca.pem"), directory.path().join("other.pem"));
    std::fs::write(&believed, ca.pem()).unwrap();
    std::fs::write(&other, stranger.pem()).unwrap();
    let by_name = server.tls_url().replace("127.0.0.1", "localhost");
    let plain = format!("rediss://{}", server.address());
    for (url, ca, why) in [
        (server.tls_url(), Some(&other), "UnknownIssuer"),
        // Without `ca` those of the system count, which do not know this one either.
        (server.tls_url(), None, "certificate"),
        (by_name, Some(&believed), "not valid for name"),
        // It speaks no TLS there.
        (plain, Some(&believed), "limits are not shared"),
    ] {
        let fields = ca.map(|ca| format!("ca: {}", ca.display())).unwrap_or_default();
        let fleet = Fleet::start(1, &url.replace("rediss://", "rediss://:canary-of-tls@"), &fields).await;
        let (gateway, log) = (&fleet.gateways[0], fleet.gateways[0].logs());
        eventually!("the log says why", log.text().contains("limits are not shared") && log.text().contains(why));
        assert_eq!(fleet.metric(0, "portcullis_shared_limits_up").await, Some(0.0));
        gateway.get("/by-address").await.expect(200);
        assert!(!log.text().contains("canary-of-tls"), "{}", log.text());
    }
    let commands = server.ask("INFO commandstats");
    assert!(!commands.contains("cmdstat_auth") && !commands.contains("cmdstat_script"), "{commands}");
}

/// Without any server besides the store: what quotas allow is counted there.
#[tokio::test(flavor = "multi_thread")]
async fn quotas_add_up_over_the_gateways_of_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let origin = Origin::start().await;
    let sections = format!(
        "store: {{ driver: sqlite, path: {}/keys.db }}\nenvironments: {{ live: {{ quota: {{ per_day: 20 }} }} }}\n\
         rate_limits: {{ quota_flush: 100ms }}",
        directory.path().display(),
    );
    let site = || scene::site(&scene::shop_config("", &sections)).upstream("shop", &origin);
    let (one, two) = (site().start().await, site().start().await);
    let key = one.key("reader", "").await;
    assert_eq!(count(&one, "/me", &key, 15, 200).await, 15);
    eventually!("the key is known", two.get("/me").header("x-api-key", &key.text).await.status == 200);
    let mut let_through = 1;
    let begun = Instant::now();
    while two.get("/me").bearer(&key).await.status == 200 {
        let_through += 1;
        assert!(begun.elapsed() < patient(Duration::from_secs(20)), "{let_through}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What comes within one write is too much at most.
    assert!((5..=15).contains(&let_through), "{let_through}");
    eventually!("the first has heard of it", one.get("/me").bearer(&key).await.status == 429);
}
