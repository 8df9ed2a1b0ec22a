//! Upgrades: gateways behind a balancer, restarted one after the other under load, and old ones on a newer schema.
//!
//! `PORTCULLIS_TEST_ROLLS` says how many restarts there are (default 6).

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use portcullis_testkit::{Call, Gateway, Key, Origin, Site, eventually, postgres_or_left_out};

use super::load::{Load, Wish};
use super::{prepare, site};
use crate::besieged::scaled;
use crate::tools;

const GATEWAYS: usize = 3;
const CLIENTS: usize = 6;
/// Longer than the balancer takes to notice that a gateway leaves; what is shipped has more.
const SECTIONS: &str = "shutdown: { delay: 2s, deadline: 20s }";

/// A gateway's place: it comes back at the same addresses, as behind every balancer.
struct Node {
    site: Site,
    data: SocketAddr,
    metrics: SocketAddr,
    running: Option<Gateway>,
}

impl Node {
    fn new(url: &str, origin: &Origin, database: &portcullis_testkit::Database) -> Self {
        let (data, metrics) = (free_address(), free_address());
        let sections = format!("{SECTIONS}\nmetrics: {{ bind: \"{metrics}\" }}");
        // The shop's listener takes any port; this one must be known before it starts.
        let config = super::config("", &sections).replacen("127.0.0.1:0", &data.to_string(), 1);
        let builder = site(url, "", "").config(&config);
        Self { site: prepare(builder, database, origin), data, metrics, running: None }
    }

    async fn start(&mut self) {
        self.running = Some(self.site.start().await);
    }

    fn gateway(&self) -> &Gateway {
        self.running.as_ref().unwrap()
    }

    async fn status(&self, key: &Key) -> u16 {
        Call::to(self.data, "GET", "/v1/orders/1").bearer(key).await.status
    }
}

/// What was free a moment ago almost certainly is.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// HAProxy with the configuration that is shipped, at addresses of this machine.
struct Balancer {
    process: Child,
    _directory: tempfile::TempDir,
    address: SocketAddr,
    watch: SocketAddr,
}

impl Balancer {
    fn start(program: &Path, nodes: &[Node]) -> Self {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/fleet/haproxy.cfg");
        let mut config = std::fs::read_to_string(shipped).unwrap();
        let (address, watch) = (free_address(), free_address());
        let mut put = |from: String, to: String| {
            assert!(config.contains(&from), "the shipped configuration has no {from}");
            config = config.replace(&from, &to);
        };
        // As many as any machine has descriptors for.
        put("maxconn 10000".to_owned(), "maxconn 500".to_owned());
        put("bind :8080".to_owned(), format!("bind {address}"));
        put("bind :8405".to_owned(), format!("bind {watch}"));
        for (number, node) in (1..).zip(nodes) {
            put(
                format!("gateway-{number}:8080 check port 9902"),
                format!("{} check port {}", node.data, node.metrics.port()),
            );
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("haproxy.cfg");
        std::fs::write(&path, config).unwrap();
        let process = Command::new(program)
            .args(["-q", "-f", path.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self { process, _directory: directory, address, watch }
    }

    /// Whether it sends requests to this gateway.
    async fn uses(&self, number: usize) -> bool {
        let Ok(scrape) =
            Call::to(self.watch, "GET", "/metrics").facts(portcullis_testkit::Facts::none()).attempt().await
        else {
            return false;
        };
        let server = format!("haproxy_server_status{{proxy=\"gateways\",server=\"gateway-{number}\",state=\"UP\"}} 1");
        scrape.text().lines().any(|line| line == server)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_restarts_behind_a_balancer_lose_no_request_and_no_revocation() {
    let rolls = scaled("PORTCULLIS_TEST_ROLLS", 6);
    let Some(server) = postgres_or_left_out() else { return };
    let Some(haproxy) = tools::find("haproxy") else { return };
    let database = server.database();
    let origin = Origin::start().await;
    let mut nodes: Vec<Node> = (0..GATEWAYS).map(|_| Node::new(&database.url(), &origin, &database)).collect();
    for node in &mut nodes {
        node.start().await;
    }
    let balancer = Balancer::start(&haproxy, &nodes);
    for number in 1..=GATEWAYS {
        eventually!(format!("the balancer uses gateway {number}"), balancer.uses(number).await);
    }

    let good = nodes[0].site.create_key("good", "read:orders").await;
    let weak = nodes[0].site.create_key("weak", "").await;
    let gone = nodes[0].site.create_key("gone", "read:orders").await;
    let _ = nodes[0].site.cli(&["keys", "revoke", &gone.id]).await.success();
    for node in &nodes {
        eventually!("the keys are known", {
            (node.status(&good).await, node.status(&weak).await, node.status(&gone).await) == (200, 403, 401)
        });
    }
    let wishes = [
        Wish::get(&good, 200),
        Wish::post(&good, 200),
        Wish::get(&gone, 401),
        Wish::get(&weak, 403),
        Wish::post(&weak, 200),
    ];
    let load = Load::start(&[balancer.address], CLIENTS, Duration::from_millis(3), &wishes);

    let started = Instant::now();
    let mut dead: Vec<Key> = Vec::new();
    for roll in 0..rolls {
        let (leaving, other) = (roll % GATEWAYS, (roll + 1) % GATEWAYS);
        let late = nodes[other].site.create_key(&format!("late {roll}"), "read:orders").await;
        for node in &nodes {
            eventually!("a new key is known", node.status(&late).await == 200);
        }
        let before = load.answers();
        nodes[leaving].gateway().terminate();
        let _ = nodes[other].site.cli(&["keys", "revoke", &late.id]).await.success();
        dead.push(late);
        assert_eq!(nodes[leaving].gateway().exited(Duration::from_secs(30)).await, 0);
        assert!(!balancer.uses(leaving + 1).await, "it is gone, and the balancer knows");
        nodes[leaving].start().await;
        // Ready is caught up: what was revoked while it was away is refused by its first answer.
        assert_eq!(nodes[leaving].status(dead.last().unwrap()).await, 401, "roll {roll}");
        for node in &nodes {
            eventually!("the revocation holds", node.status(dead.last().unwrap()).await == 401);
        }
        eventually!("the balancer uses it again", balancer.uses(leaving + 1).await);
        assert!(load.answers() > before + 20, "clients are served meanwhile");
    }
    let took = started.elapsed();
    let counted = load.end().await;
    for key in &dead {
        for node in &nodes {
            assert_eq!(node.status(key).await, 401);
        }
    }
    counted.note(&format!("{rolls} restarts behind a balancer in {:.0} s", took.as_secs_f64()));
    counted.all_was_as_wished(100 * rolls as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_follows_changes_on_a_schema_of_after_and_makes_none() {
    let Some(server) = postgres_or_left_out() else { return };
    let database = server.database();
    let (gateway, _origin) = super::shop(&database, "").await;
    let key = gateway.key("known", "read:orders").await;
    let other = gateway.key("other", "read:orders").await;
    // What `migrate up` of a newer version does: a step that adds.
    let step = "ALTER TABLE portcullis.keys ADD COLUMN of_after text; \
                INSERT INTO portcullis.migrations (version, name, checksum, applied_at) \
                SELECT max(version) + 1, 'of after', 'c', 0 FROM portcullis.migrations";
    let _ = server.sql(&database.name, step);
    gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
    // What a newer gateway does when somebody revokes a key.
    super::revoke_by_sql(server, &database, &key);
    eventually!("the revocation is followed", gateway.get("/v1/orders/1").bearer(&key).await.status == 401);
    gateway.get("/v1/orders/1").bearer(&other).await.expect(200);
    let refused = gateway.cli(&["keys", "revoke", &other.id]).await.exit(4);
    assert!(refused.stderr.contains("newer"), "{}", refused.stderr);
    // Once it has left, it does not come back.
    assert_eq!(gateway.stop().await, 0);
    let again = gateway.site().launch(&["run"]);
    assert_eq!(again.exited(Duration::from_secs(30)).await, 4);
}
