//! Who frees a generation, and when.

use std::path::Path;
use std::sync::Weak;

use super::*;
use crate::config;
use crate::proxy::settings::UpstreamSettings;

const CONFIG: &str = r#"
version: 1
listeners: [{ bind: "127.0.0.1:0" }]
upstreams: { shop: { targets: [{ url: "http://127.0.0.1:9" }] } }
routes: [{ path: "/**", upstream: shop, auth: none }]
"#;

fn halves() -> (Arc<Rules>, Arc<Plan>) {
    let settings = config::load_text(Path::new("test.yaml"), CONFIG, &|_| None).settings.unwrap();
    let upstreams: Vec<UpstreamSettings> = settings.upstreams.clone();
    let plan = Plan {
        upstreams: upstreams.into_iter().map(|upstream| Arc::new(Upstream::open(upstream, None).unwrap())).collect(),
        headers: Arc::new(HeaderRules::new(&settings.headers)),
        labels: vec![RouteLabel::NONE],
        rule_numbers: RuleNumbers::default(),
        errors: settings.errors,
        error_type_base: String::new(),
        limit_fields: settings.rate_limits.fields,
        patience: BodyPatience::new(settings.limits.stall_timeout, settings.limits.min_body_rate),
    };
    (Arc::new(Rules::compile(settings.gate, &["shop"]).unwrap()), Arc::new(plan))
}

/// Shows whether a generation was freed.
struct Probe(Weak<Plan>);

impl Probe {
    fn is_freed(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// A first generation, a worker's reader that holds it, and what shows when it is freed.
fn first() -> (Arc<Live>, LiveReader, Probe) {
    let (rules, plan) = halves();
    let probe = Probe(Arc::downgrade(&plan));
    let live = Arc::new(Live::new(rules, plan, KeySet::new()));
    let reader = LiveReader::new(Arc::clone(&live));
    (live, reader, probe)
}

fn replace(live: &Live) {
    let (rules, plan) = halves();
    live.replace(rules, plan);
}

/// Lets the freeing task do what there is to do.
async fn let_free() {
    for _ in 0..5 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_last_worker_to_let_go_of_a_generation_does_not_free_it() {
    let (live, reader, probe) = first();
    tokio::spawn(Arc::clone(&live).free_replaced());
    replace(&live);
    let_free().await;
    assert!(!probe.is_freed(), "the worker has not looked yet");
    drop(reader.current());
    assert!(!probe.is_freed(), "the worker freed it");
    let_free().await;
    assert!(probe.is_freed(), "control did not free it");
}

#[tokio::test]
async fn a_request_under_way_keeps_its_generation_and_does_not_free_it() {
    let (live, reader, probe) = first();
    tokio::spawn(Arc::clone(&live).free_replaced());
    let of_the_request = reader.current();
    replace(&live);
    drop(reader.current());
    let_free().await;
    assert_eq!(of_the_request.plan.labels, [RouteLabel::NONE]);
    drop(of_the_request);
    assert!(!probe.is_freed(), "the request freed it");
    let_free().await;
    assert!(probe.is_freed(), "control did not free it");
}

#[test]
fn generations_that_nobody_read_are_freed_when_they_are_replaced() {
    let (live, _reader, probe) = first();
    for _ in 0..20 {
        replace(&live);
    }
    assert!(!probe.is_freed(), "the reader holds the first");
    assert_eq!(live.replaced.lock().len(), 1, "and nothing but the first is kept");
}
