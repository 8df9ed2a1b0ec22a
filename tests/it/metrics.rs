//! The scrape: every promised name, closed labels, and a text that `promtool` likes.

use portcullis_testkit::eventually;

use crate::{scene, tools};

/// Families of the contract that this release has, by type.
const PROMISED: &[(&str, &str)] = &[
    ("portcullis_http_requests_total", "counter"),
    ("portcullis_http_request_duration_seconds", "histogram"),
    ("portcullis_auth_decisions_total", "counter"),
    ("portcullis_auth_duration_seconds", "histogram"),
    ("portcullis_upstream_request_duration_seconds", "histogram"),
    ("portcullis_upstream_healthy", "gauge"),
    ("portcullis_upstream_connections", "gauge"),
    ("portcullis_keys", "gauge"),
    ("portcullis_cache_entries", "gauge"),
    ("portcullis_cache_revision", "gauge"),
    ("portcullis_sync_lag_seconds", "gauge"),
    ("portcullis_sync_last_success_timestamp_seconds", "gauge"),
    ("portcullis_revocation_effect_seconds", "histogram"),
    ("portcullis_store_up", "gauge"),
    ("portcullis_report_mode_routes", "gauge"),
    ("portcullis_config_reloads_total", "counter"),
    ("portcullis_config_last_reload_successful", "gauge"),
    ("portcullis_connections", "gauge"),
    ("portcullis_build_info", "gauge"),
    ("process_cpu_seconds_total", "counter"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_open_fds", "gauge"),
    ("process_start_time_seconds", "gauge"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_promised_family_is_there_after_some_traffic() {
    let (gateway, _origin) = scene::shop().await;
    let key = gateway.key("reader", "read:orders").await;
    gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
    gateway.get("/v1/orders/1").await.expect(401);
    assert!(gateway.reload_with(&scene::shop_config("", "")).await);
    let metrics = gateway.metrics().await;
    for (family, kind) in PROMISED {
        assert_eq!(metrics.types.get(*family).map(String::as_str), Some(*kind), "{family} in {}", metrics.text);
        let has_samples = metrics.samples.iter().any(|sample| sample.name.starts_with(family));
        assert!(has_samples, "{family} has no samples");
    }
    for name in metrics.types.keys() {
        assert!(name.starts_with("portcullis_") || name.starts_with("process_"), "{name}");
    }
    assert_eq!(metrics.value("portcullis_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), Some(1.0));
    assert_eq!(metrics.value("portcullis_store_up", &[]), Some(1.0));
    assert_eq!(metrics.sum("portcullis_keys", &[("environment", "live"), ("state", "active")]), 1.0);
    assert_eq!(metrics.value("portcullis_cache_entries", &[]), Some(1.0));
    let finest = metrics.matching("portcullis_auth_duration_seconds_bucket", &[]).next().unwrap();
    assert!(finest.labels["le"].parse::<f64>().unwrap() <= 1e-6, "buckets from 1 µs: {finest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_decisions_are_counted_under_their_route() {
    let (gateway, _origin) = scene::shop().await;
    let key = gateway.key("reader", "read:orders").await;
    for _ in 0..3 {
        gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
    }
    gateway.post("/v1/orders/1").bearer(&key).await.expect(403);
    gateway.get("/v1/orders/1").await.expect(401);
    gateway.call("BREW", "/v1/orders/1").await.expect(405);
    gateway.get("/nothing/at/all").await.expect(404);
    eventually!("all of them are counted", {
        gateway.metrics().await.sum("portcullis_http_requests_total", &[]) == 7.0
    });
    let metrics = gateway.metrics().await;
    let requests = |labels: &[(&str, &str)]| metrics.sum("portcullis_http_requests_total", labels);
    assert_eq!(requests(&[("listener", "front"), ("route", "orders"), ("method", "GET"), ("code", "200")]), 3.0);
    assert_eq!(requests(&[("route", "orders"), ("method", "POST"), ("code", "403")]), 1.0);
    assert_eq!(requests(&[("method", "OTHER"), ("code", "405")]), 1.0);
    assert_eq!(requests(&[("code", "404")]), 1.0);
    let decisions = |labels: &[(&str, &str)]| metrics.sum("portcullis_auth_decisions_total", labels);
    assert_eq!(decisions(&[("route", "orders"), ("environment", "live"), ("mode", "enforce"), ("reason", "key")]), 3.0);
    assert_eq!(decisions(&[("route", "orders"), ("reason", "insufficient_scope")]), 1.0);
    assert_eq!(decisions(&[("route", "orders"), ("reason", "missing_credential")]), 1.0);
    let timed = metrics.sum("portcullis_http_request_duration_seconds_count", &[("route", "orders")]);
    assert!(timed >= 5.0, "{}", metrics.text);
    assert_eq!(metrics.sum("portcullis_upstream_request_duration_seconds_count", &[("upstream", "shop")]), 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_label_can_be_made_up_by_a_client() {
    let (gateway, _origin) = scene::shop().await;
    let key = gateway.key("reader", "read:orders").await;
    let series = async || gateway.metrics().await.samples.len();
    gateway.get("/nothing").await.expect(404);
    gateway.get("/open/warm").await.expect(200);
    gateway.call("BREW", "/open/x").await.expect(405);
    gateway.get("/me").bearer(&key).await.expect(200);
    gateway.get("/me").header("x-api-key", "junk").await.expect(401);
    let before = series().await;
    for number in 0..30 {
        gateway.get(&format!("/nothing/{number}")).await.expect(404);
        gateway.get(&format!("/open/{number}")).host(&format!("host-{number}.test")).await.expect(200);
        gateway.call(&format!("M{number}"), "/open/x").await.expect(405);
        gateway.get("/me").header("x-api-key", &format!("junk-{number}")).await.expect(401);
    }
    let metrics = gateway.metrics().await;
    assert!(metrics.samples.len() <= before + 2, "{before} series became {}", metrics.samples.len());
    for forbidden in ["127.0.0.1:", "junk", "host-1", &key.id, &key.prefix, "/nothing"] {
        let labels =
            metrics.samples.iter().flat_map(|sample| sample.labels.iter()).filter(|(name, _)| *name != "target");
        let hit: Vec<_> = labels.filter(|(_, value)| value.contains(forbidden)).collect();
        assert!(hit.is_empty(), "{forbidden}: {hit:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_beyond_the_bound_share_a_label() {
    let routes: String =
        (0..10).map(|number| format!("  - {{ path: /r/{number}, upstream: shop, auth: none }}\n")).collect();
    let (gateway, _origin) = scene::shop_with(&routes, "metrics: { bind: \"127.0.0.1:0\", max_routes: 6 }").await;
    for number in 0..10 {
        gateway.get(&format!("/r/{number}")).await.expect(200);
    }
    eventually!("all of them are counted", {
        gateway.metrics().await.sum("portcullis_http_requests_total", &[("code", "200")]) == 10.0
    });
    let metrics = gateway.metrics().await;
    assert!(metrics.sum("portcullis_http_requests_total", &[("route", "other")]) >= 4.0, "{}", metrics.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_has_nothing_to_complain_about() {
    let Some(promtool) = tools::find("promtool") else { return };
    let (gateway, _origin) = scene::shop().await;
    let key = gateway.key("reader", "read:orders").await;
    gateway.get("/v1/orders/1").bearer(&key).await.expect(200);
    gateway.get("/nothing").await.expect(404);
    let scrape = gateway.metrics().await.text;
    let (code, said) = tools::run(&promtool, &["check", "metrics"], &scrape).await;
    assert_eq!((code, said.trim()), (0, ""), "{scrape}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_names_its_format() {
    let (gateway, _origin) = scene::shop().await;
    let call = portcullis_testkit::Call::to(gateway.metrics_address(), "GET", "/metrics");
    let answer = call.facts(portcullis_testkit::Facts::none()).await.expect(200);
    assert!(answer.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"), "{answer:?}");
}
