//! A gateway under load for as long as one likes, while its configuration, its keys and its upstreams change: it holds no more
//! than it held, and every failure has a reason.
//!
//! `PORTCULLIS_TEST_SOAK_SECONDS` says how long (default 15). Where `PORTCULLIS_TEST_LOAD` names the executable
//! `portcullis-load`, that makes half of the load that the gateway can take.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_testkit::{Call, Connection, Gateway, Key, KeySpec, Site, patient};
use serde_json::Value;

use crate::besieged::scaled;
use crate::figures::{self, mebibytes};
use crate::scene;
use crate::servers::{Server, free_port};

const CONFIG: &str = r#"
logging: { format: json, access: { enabled: false } }
listeners: [{ bind: "127.0.0.1:0", name: front }]
upstreams: { shop: { targets: [{ url: "http://127.0.0.1:{{first}}" }, { url: "http://127.0.0.1:{{second}}" }] } }
scopes: { read:orders: { title: Read orders } }
routes:
  - { path: "/v1/orders/**", name: orders, upstream: shop, scopes: read:orders }
  - { path: "/any/**", name: any, upstream: shop, auth: any_key }
  - { path: /status, upstream: shop, auth: none }
"#;

/// How long an upstream that restarts is away.
const AWAY: Duration = Duration::from_millis(400);
/// How long after it is back a request may still fail for it.
const AFTERWARDS: Duration = Duration::from_secs(3);
/// How often the gateway is looked at.
const LOOK: Duration = Duration::from_millis(500);

async fn upstream(port: u16) -> Option<Server> {
    Server::nginx(port, "access_log off; keepalive_requests 100000; location / { return 200 'ok'; }", "").await
}

/// The gateway at one moment.
struct Sample {
    at: Instant,
    resident: u64,
    descriptors: u64,
    /// Answers of 5xx until then.
    failures: f64,
}

impl Sample {
    async fn take(gateway: &Gateway) -> Self {
        let metrics = gateway.metrics().await;
        let failures = metrics.samples.iter().filter(|sample| sample.name == "portcullis_http_requests_total");
        let failures =
            failures.filter(|sample| sample.labels["code"].starts_with('5')).map(|sample| sample.value).sum();
        let open = std::fs::read_dir(format!("/proc/{}/fd", gateway.process_id())).unwrap().count();
        Self { at: Instant::now(), resident: gateway.resident_bytes(), descriptors: open as u64, failures }
    }
}

/// By how much the last quarter lies above everything in the first, by its median; nothing if it does not.
fn growth(values: impl Iterator<Item = u64>) -> u64 {
    let values: Vec<u64> = values.collect();
    let quarter = values.len() / 4;
    let mut last = values[values.len() - quarter..].to_vec();
    last.sort_unstable();
    last[quarter / 2].saturating_sub(*values[..quarter].iter().max().unwrap())
}

/// What clients have seen.
#[derive(Default)]
struct Seen {
    over: AtomicBool,
    answers: AtomicU64,
    failures: AtomicU64,
}

/// Asks for one thing after the other; panics where it is decided wrongly.
async fn client(address: std::net::SocketAddr, keys: [Key; 2], h2: bool, seen: Arc<Seen>) {
    let open = async || if h2 { Connection::h2(address).await } else { Connection::h1(address).await };
    let [reader, other] = keys;
    let mut connection = open().await;
    for turn in 0.. {
        if seen.over.load(Ordering::Relaxed) {
            return;
        }
        let (call, status) = match turn % 5 {
            0 => (Call::to(address, "GET", "/v1/orders/1").bearer(&reader), 200),
            1 => (Call::to(address, "GET", "/v1/orders/1").bearer(&other), 403),
            2 => (Call::to(address, "GET", "/v1/orders/1"), 401),
            3 => (Call::to(address, "POST", "/any/thing").bearer(&other).pattern(20_000), 200),
            _ => (Call::to(address, "GET", "/status"), 200),
        };
        match connection.attempt(call.facts(portcullis_testkit::Facts::none())).await {
            Ok(answer) if answer.status == status => drop(seen.answers.fetch_add(1, Ordering::Relaxed)),
            Ok(answer) if answer.status >= 500 => drop(seen.failures.fetch_add(1, Ordering::Relaxed)),
            Ok(answer) => panic!("turn {turn}: {status} was expected: {answer:?}"),
            // An answer may break off with its upstream, and ends its connection.
            Err(_) => drop(seen.failures.fetch_add(1, Ordering::Relaxed)),
        }
        if connection.is_closed() {
            connection = open().await;
        }
        tokio::time::sleep(Duration::from_millis(8)).await;
    }
}

/// Load from another process: `portcullis-load`, if there is one.
struct Load {
    program: PathBuf,
    keys: tempfile::NamedTempFile,
}

impl Load {
    fn with(key: &Key) -> Option<Self> {
        let program = PathBuf::from(std::env::var_os("PORTCULLIS_TEST_LOAD")?);
        let keys = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(keys.path(), &key.text).unwrap();
        Some(Self { program, keys })
    }

    /// What it reports after so many seconds at this rate, or at any.
    async fn run(&self, port: u16, seconds: u64, rate: Option<u64>) -> Value {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(["--port", &port.to_string(), "--path", "/v1/orders/1", "--seconds", &seconds.to_string()]);
        command.arg("--keys").arg(self.keys.path()).args(["--connections", "64"]);
        if let Some(rate) = rate {
            command.args(["--rate", &rate.to_string()]);
        }
        let output = command.kill_on_drop(true).stdin(Stdio::null()).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// What happens to the gateway meanwhile, one after the other.
struct Events {
    ports: [u16; 2],
    upstreams: [Option<Server>; 2],
    operator: Key,
    /// From when to when an upstream was away.
    away: Vec<(Instant, Instant)>,
    number: usize,
}

impl Events {
    async fn next(&mut self, gateway: &Gateway) {
        self.number += 1;
        match self.number % 5 {
            0 => self.restart(&[0]).await,
            1 => self.reload(gateway).await,
            2 => self.restart(&[1]).await,
            3 => self.revoke(gateway).await,
            _ => self.restart(&[0, 1]).await,
        }
    }

    async fn restart(&mut self, which: &[usize]) {
        let begun = Instant::now();
        for &one in which {
            self.upstreams[one] = None;
        }
        tokio::time::sleep(AWAY).await;
        for &one in which {
            self.upstreams[one] = upstream(self.ports[one]).await;
        }
        self.away.push((begun, Instant::now()));
    }

    async fn reload(&self, gateway: &Gateway) {
        let more = format!("  - {{ path: /round/{}, upstream: shop, auth: none }}\n", self.number);
        assert!(gateway.reload_with(&format!("{CONFIG}{more}")).await, "reload {}", self.number);
    }

    async fn revoke(&self, gateway: &Gateway) {
        let tell =
            |method: &str, target: &str| Call::to(gateway.admin_address(), method, target).bearer(&self.operator);
        let body = format!("{{\"name\":\"of round {}\",\"scopes\":[\"read:orders\"]}}", self.number);
        let made =
            tell("POST", "/v1/keys").header("content-type", "application/json").body(body).await.expect(201).json();
        let key = format!("Bearer {}", made["key"].as_str().unwrap());
        let ask = || gateway.get("/v1/orders/1").header("authorization", &key);
        let before = ask().await.status;
        assert!(before == 200 || before >= 500, "a new key is valid: {before}");
        tell("DELETE", &format!("/v1/keys/{}", made["id"].as_str().unwrap())).await.expect(200);
        ask().await.expect(401);
    }

    /// Whether something was away between these moments, or shortly before.
    fn explain(&self, from: Instant, to: Instant) -> bool {
        self.away.iter().any(|(begun, ended)| *begun <= to && from <= *ended + patient(AFTERWARDS))
    }
}

async fn key(site: &Site, name: &str, scopes: &str) -> Key {
    site.create(KeySpec::new(name, scopes)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_works_for_long_holds_no_more_and_every_failure_has_a_reason() {
    let span = Duration::from_secs(scaled("PORTCULLIS_TEST_SOAK_SECONDS", 15) as u64);
    let is_long = span >= Duration::from_secs(300);
    let ports = [free_port(), free_port()];
    let [Some(first), Some(second)] = [upstream(ports[0]).await, upstream(ports[1]).await] else { return };
    let site = scene::site(CONFIG).fill("first", ports[0]).fill("second", ports[1]).prepare();
    let operator = KeySpec::new("operator", "portcullis:keys").kind("management").option("--may-grant", "*");
    let operator = site.create(operator).await;
    let (reader, other) = (key(&site, "reader", "read:orders").await, key(&site, "other", "").await);
    let gateway = site.start().await;
    let mut events = Events { ports, upstreams: [Some(first), Some(second)], operator, away: Vec::new(), number: 0 };

    let load = Load::with(&reader);
    let mut rate = None;
    if let Some(load) = &load {
        let full = load.run(gateway.data().port(), 3, None).await;
        rate = Some((full["requests"].as_f64().unwrap() / full["seconds"].as_f64().unwrap() / 2.0) as u64);
    }
    let port = gateway.data().port();
    let loading = tokio::spawn(async move {
        match load {
            Some(load) => Some(load.run(port, span.as_secs(), rate).await),
            None => None,
        }
    });
    let seen = Arc::new(Seen::default());
    let clients: Vec<_> = [false, false, true]
        .map(|h2| tokio::spawn(client(gateway.data(), [reader.clone(), other.clone()], h2, Arc::clone(&seen))))
        .into();

    let (begun, pause) = (Instant::now(), (span / 60).clamp(Duration::from_secs(1), Duration::from_secs(10)));
    let (mut samples, mut next) = (vec![Sample::take(&gateway).await], begun + pause);
    while begun.elapsed() < span {
        if Instant::now() >= next {
            events.next(&gateway).await;
            next = Instant::now() + pause;
        }
        samples.push(Sample::take(&gateway).await);
        tokio::time::sleep(LOOK).await;
    }
    seen.over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let report = loading.await.unwrap();

    // What it needs it has after a third of the time.
    let steady: Vec<&Sample> = samples.iter().filter(|sample| sample.at >= begun + span / 3).collect();
    let slack = if is_long { 2 << 20 } else { 16 << 20 };
    let resident = growth(steady.iter().map(|sample| sample.resident));
    let descriptors = growth(steady.iter().map(|sample| sample.descriptors));
    let unexplained: f64 = samples
        .windows(2)
        .filter(|pair| !events.explain(pair[0].at, pair[1].at))
        .map(|pair| pair[1].failures - pair[0].failures)
        .sum();
    let attack = format!("{} s at half load", span.as_secs());
    let asked =
        seen.answers.load(Ordering::Relaxed) + report.as_ref().map_or(0, |report| report["requests"].as_u64().unwrap());
    let most = mebibytes(samples.iter().map(|sample| sample.resident).max().unwrap());
    let failures = samples.last().unwrap().failures;
    let rate = rate.map_or_else(String::new, |rate| format!("{rate}/s, "));
    figures::note(&attack, "requests", format!("{asked} ({rate}{} events)", events.number), "", true);
    figures::note(&attack, "most memory", most, "", true);
    let (bound, holds) = (format!("<= {}", mebibytes(slack)), resident <= slack);
    figures::note(&attack, "growth of the last two thirds", mebibytes(resident), &bound, holds);
    figures::note(&attack, "growth in descriptors", descriptors, "<= 16", descriptors <= 16);
    figures::note(&attack, "5xx without a reason", format!("{unexplained} of {failures}"), "0", unexplained == 0.0);
    assert!(holds, "it grew by {resident} bytes");
    assert!(descriptors <= 16, "{descriptors} more descriptors are open");
    assert_eq!(unexplained, 0.0, "of {failures} answers of 5xx");
    assert!(seen.answers.load(Ordering::Relaxed) > span.as_secs() * 10, "clients are served");
    if let Some(report) = report {
        let known = |status: &String| status == "200" || status.starts_with('5');
        assert!(report["statuses"].as_object().unwrap().keys().all(known), "{report}");
        assert_eq!((&report["errors"], &report["unanswered"]), (&0.into(), &0.into()), "{report}");
    }
}

#[test]
fn growth_is_what_goes_beyond_all_that_was_seen_at_first() {
    assert_eq!(growth([10, 14, 12, 12, 11, 13, 14, 10].into_iter()), 0);
    assert_eq!(growth([10, 14, 12, 12, 11, 13, 20, 24].into_iter()), 10);
}
