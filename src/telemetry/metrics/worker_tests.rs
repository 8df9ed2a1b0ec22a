//! Claims about what workers count.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};

use super::cells::{Bounds, DECISION_BOUNDS, EFFECT_BOUNDS, Histogram, HistogramTotal, REQUEST_BOUNDS};
use super::{
    ConnectionState, DecisionMode, DecisionResult, EnvironmentLabel, ListenerLabel, Metrics, RouteLabel,
    UpstreamConnectionState, UpstreamLabel, WorkerMetrics,
};
use crate::domain::time::monotonic_now;

const MS: Duration = Duration::from_millis(1);

fn metrics() -> Metrics {
    Metrics::new(500, monotonic_now())
}

/// The value of exactly this sample, if it is shown.
fn sample(metrics: &Metrics, sample: &str) -> Option<f64> {
    let page = metrics.render(monotonic_now()).unwrap();
    page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}

fn requests(listener: &str, route: &str, method: &str, code: u16) -> String {
    format!(
        "portcullis_http_requests_total{{listener=\"{listener}\",route=\"{route}\",method=\"{method}\",code=\"{code}\"}}"
    )
}

fn get(worker: &WorkerMetrics, metrics: &Metrics, route: RouteLabel) {
    worker.request(metrics.listener("public"), route, &Method::GET, StatusCode::OK, MS);
}

#[test]
fn requests_are_counted_by_listener_route_method_and_status() {
    let metrics = metrics();
    let worker = metrics.worker();
    let [public, private] = ["public", "private"].map(|name| metrics.listener(name));
    let [orders, users] = ["orders", "users"].map(|name| metrics.route(name));
    let cases = [
        (public, orders, Method::GET, 200, 5),
        (public, orders, Method::GET, 201, 1),
        (public, orders, Method::POST, 200, 2),
        (public, users, Method::GET, 200, 3),
        (private, orders, Method::GET, 200, 4),
        (public, orders, Method::GET, 999, 1),
        (public, orders, Method::GET, 100, 1),
    ];
    for round in 1..=5 {
        for (listener, route, method, status, times) in &cases {
            if round <= *times {
                worker.request(*listener, *route, method, StatusCode::from_u16(*status).unwrap(), MS);
            }
        }
    }
    for (listener, route, method, status, times) in cases {
        let listener = if listener == public { "public" } else { "private" };
        let route = if route == orders { "orders" } else { "users" };
        let name = requests(listener, route, method.as_str(), status);
        assert_eq!(sample(&metrics, &name), Some(f64::from(times)), "{name}");
    }
    assert_eq!(
        sample(&metrics, "portcullis_http_request_duration_seconds_count{route=\"orders\"}"),
        Some(f64::from(5 + 1 + 2 + 4 + 1 + 1))
    );
    assert_eq!(sample(&metrics, &requests("private", "users", "GET", 200)), None);
}

#[test]
fn methods_outside_the_known_set_share_one_label() {
    let metrics = metrics();
    let worker = metrics.worker();
    let (listener, route) = (metrics.listener("public"), metrics.route("orders"));
    for method in ["PURGE", "get", "PROPFIND", "\u{21}X"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        worker.request(listener, route, &method, StatusCode::OK, MS);
    }
    assert_eq!(sample(&metrics, &requests("public", "orders", "OTHER", 200)), Some(4.0));
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"] {
        worker.request(listener, route, &method.parse().unwrap(), StatusCode::OK, MS);
        assert_eq!(sample(&metrics, &requests("public", "orders", method, 200)), Some(1.0), "{method}");
    }
}

#[test]
fn workers_write_apart_and_are_summed() {
    let metrics = metrics();
    let route = metrics.route("orders");
    let threads: Vec<_> = (1..=4)
        .map(|times| {
            let (worker, metrics) = (metrics.worker(), metrics.clone());
            std::thread::spawn(move || (0..times * 1000).for_each(|_| get(&worker, &metrics, route)))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(sample(&metrics, &requests("public", "orders", "GET", 200)), Some(10_000.0));
}

#[test]
fn a_scrape_during_traffic_never_sees_a_count_go_down_or_a_histogram_that_disagrees() {
    let metrics = metrics();
    let route = metrics.route("orders");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let worker = metrics.worker();
        let (metrics, is_over) = (&metrics, &is_over);
        scope.spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                get(&worker, metrics, route);
            }
        });
        let mut last = 0.0;
        for _ in 0..200 {
            let page = metrics.render(monotonic_now()).unwrap();
            let value = |name: &str| -> f64 {
                page.lines().find_map(|line| line.strip_prefix(name)).map_or(0.0, |value| value.trim().parse().unwrap())
            };
            let count = value(&requests("public", "orders", "GET", 200));
            assert!(count >= last, "{count} after {last}");
            last = count;
            let observed = value("portcullis_http_request_duration_seconds_count{route=\"orders\"}");
            let in_all = value("portcullis_http_request_duration_seconds_bucket{route=\"orders\",le=\"+Inf\"}");
            assert!((observed - in_all).abs() < f64::EPSILON);
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn counts_of_a_worker_that_ended_stay_and_its_cells_are_used_again() {
    let metrics = metrics();
    let route = metrics.route("orders");
    for _ in 0..100 {
        get(&metrics.worker(), &metrics, route);
    }
    assert_eq!(sample(&metrics, &requests("public", "orders", "GET", 200)), Some(100.0));
    assert_eq!(metrics.inner.workers.lock().len(), 1);
    let _two_at_a_time = [metrics.worker(), metrics.worker()];
    assert_eq!(metrics.inner.workers.lock().len(), 2);
}

#[test]
fn cells_are_not_used_again_while_a_gauge_still_writes_to_them() {
    let metrics = metrics();
    let worker = metrics.worker();
    let gauge = worker.connection(metrics.listener("public"), ConnectionState::Idle);
    drop(worker);
    let _next = metrics.worker();
    assert_eq!(metrics.inner.workers.lock().len(), 2);
    drop(gauge);
    let _another = metrics.worker();
    assert_eq!(metrics.inner.workers.lock().len(), 2);
}

#[test]
fn routes_beyond_the_bound_are_counted_as_other_and_known_ones_keep_their_label() {
    let metrics = Metrics::new(2, monotonic_now());
    let worker = metrics.worker();
    for name in ["a", "b", "c", "d", "a"] {
        get(&worker, &metrics, metrics.route(name));
    }
    get(&worker, &metrics, RouteLabel::NONE);
    let count = |route: &str| sample(&metrics, &requests("public", route, "GET", 200));
    assert_eq!(count("a"), Some(2.0));
    assert_eq!(count("b"), Some(1.0));
    assert_eq!(count("other"), Some(2.0));
    assert_eq!(count("none"), Some(1.0));
    assert_eq!(count("c"), None);

    metrics.set_max_routes(3);
    assert_ne!(metrics.route("c"), RouteLabel::OTHER);
    metrics.set_max_routes(0);
    assert_ne!(metrics.route("c"), RouteLabel::OTHER);
    assert_eq!(metrics.route("d"), RouteLabel::OTHER);
}

#[test]
fn every_other_set_of_names_is_bounded_too() {
    let metrics = metrics();
    for n in 0..1000 {
        let name = n.to_string();
        assert_ne!(metrics.listener(&name), ListenerLabel::OTHER);
        assert_ne!(metrics.environment(&name), EnvironmentLabel::OTHER);
        assert_ne!(metrics.upstream(&name), UpstreamLabel::OTHER);
    }
    assert_eq!(metrics.listener("one more"), ListenerLabel::OTHER);
    assert_eq!(metrics.environment("one more"), EnvironmentLabel::OTHER);
    assert_eq!(metrics.upstream("one more"), UpstreamLabel::OTHER);
}

#[test]
fn decisions_are_counted_by_everything_that_tells_them_apart() {
    let metrics = metrics();
    let worker = metrics.worker();
    let route = metrics.route("orders");
    let [live, test] = ["live", "test"].map(|name| metrics.environment(name));
    use DecisionMode::{Enforce, Report};
    use DecisionResult::{Allowed, Refused, Reported};
    let cases = [
        (live, Enforce, Allowed, "key", "live", "enforce", "allowed"),
        (test, Enforce, Allowed, "key", "test", "enforce", "allowed"),
        (EnvironmentLabel::NONE, Enforce, Refused, "unknown_key", "none", "enforce", "refused"),
        (live, Enforce, Refused, "revoked", "live", "enforce", "refused"),
        (live, Report, Reported, "revoked", "live", "report", "reported"),
    ];
    for times in 1..=3 {
        for (environment, mode, result, reason, ..) in cases {
            worker.decision(route, environment, mode, result, reason);
        }
        for (.., reason, environment, mode, result) in cases {
            let name = format!(
                "portcullis_auth_decisions_total{{route=\"orders\",environment=\"{environment}\",mode=\"{mode}\",result=\"{result}\",reason=\"{reason}\"}}"
            );
            assert_eq!(sample(&metrics, &name), Some(f64::from(times)), "{name}");
        }
    }
}

#[test]
fn the_same_reason_at_two_addresses_is_one_series() {
    static TWICE: &str = "revokedrevoked";
    let metrics = metrics();
    let worker = metrics.worker();
    for reason in [&TWICE[..7], &TWICE[7..], &TWICE[..7]] {
        let (mode, result) = (DecisionMode::Enforce, DecisionResult::Refused);
        worker.decision(metrics.route("orders"), EnvironmentLabel::NONE, mode, result, reason);
    }
    let page = metrics.render(monotonic_now()).unwrap();
    let series: Vec<_> = page.lines().filter(|line| line.contains("reason=\"revoked\"")).collect();
    assert_eq!(series.len(), 1, "{series:?}");
    assert!(series[0].ends_with(" 3"), "{series:?}");
}

#[test]
fn a_duration_counts_in_the_first_bucket_that_is_not_below_it() {
    for bounds in [&REQUEST_BOUNDS, &DECISION_BOUNDS, &EFFECT_BOUNDS] as [&'static Bounds; 3] {
        assert!(bounds.is_sorted_by(|a, b| a < b));
        for (bucket, bound) in bounds.iter().enumerate() {
            assert_eq!(bucket_of(bounds, *bound), bucket, "{bound} ns");
            assert_eq!(bucket_of(bounds, bound + 1), bucket + 1, "{bound} ns and one");
        }
        assert_eq!(bucket_of(bounds, 0), 0);
        assert_eq!(bucket_of(bounds, u64::MAX), 15);
    }
}

fn bucket_of(bounds: &'static Bounds, ns: u64) -> usize {
    let histogram = Histogram::new(bounds);
    histogram.observe(Duration::from_nanos(ns));
    let mut total = HistogramTotal::default();
    histogram.add_to(&mut total);
    assert_eq!(total.counts.iter().sum::<u64>(), 1);
    total.counts.iter().position(|count| *count == 1).unwrap()
}

#[test]
fn durations_are_summed_in_seconds_and_cumulated() {
    let metrics = metrics();
    let [first, second] = [metrics.worker(), metrics.worker()];
    first.auth_duration(Duration::from_nanos(1_000));
    second.auth_duration(Duration::from_nanos(1_001));
    second.auth_duration(Duration::from_secs(2));
    let upstream = metrics.upstream("shop");
    first.upstream_request(upstream, Duration::from_millis(250));
    second.upstream_request(upstream, Duration::from_millis(250));
    second.upstream_request(upstream, Duration::from_millis(500));
    for (name, value) in [
        ("portcullis_auth_duration_seconds_bucket{le=\"0.000001\"}", 1.0),
        ("portcullis_auth_duration_seconds_bucket{le=\"0.0000025\"}", 2.0),
        ("portcullis_auth_duration_seconds_bucket{le=\"1\"}", 2.0),
        ("portcullis_auth_duration_seconds_bucket{le=\"+Inf\"}", 3.0),
        ("portcullis_auth_duration_seconds_count", 3.0),
        ("portcullis_auth_duration_seconds_sum", 2.000_002_001),
        ("portcullis_upstream_request_duration_seconds_bucket{upstream=\"shop\",le=\"0.25\"}", 2.0),
        ("portcullis_upstream_request_duration_seconds_sum{upstream=\"shop\"}", 1.0),
    ] {
        let shown = sample(&metrics, name).unwrap_or(f64::NAN);
        assert!((shown - value).abs() < 1e-9, "{name} is {shown}");
    }
}

#[test]
fn a_connection_counts_under_the_state_it_is_in_until_it_is_gone() {
    let metrics = metrics();
    let [first, second] = [metrics.worker(), metrics.worker()];
    let public = metrics.listener("public");
    let state = |state: &str| {
        sample(&metrics, &format!("portcullis_connections{{listener=\"public\",state=\"{state}\"}}")).unwrap()
    };
    let one = first.connection(public, ConnectionState::Handshake);
    let two = second.connection(public, ConnectionState::Idle);
    assert_eq!(["handshake", "idle", "active", "tunnel"].map(state), [1.0, 1.0, 0.0, 0.0]);
    one.set(ConnectionState::Active);
    one.set(ConnectionState::Active);
    two.set(ConnectionState::Tunnel);
    assert_eq!(["handshake", "idle", "active", "tunnel"].map(state), [0.0, 0.0, 1.0, 1.0]);
    drop((one, two));
    assert_eq!(["handshake", "idle", "active", "tunnel"].map(state), [0.0; 4]);

    let upstream = first.upstream_connection(metrics.upstream("shop"), UpstreamConnectionState::Active);
    upstream.set(UpstreamConnectionState::Idle);
    let idle = "portcullis_upstream_connections{upstream=\"shop\",state=\"idle\"}";
    assert_eq!(sample(&metrics, idle), Some(1.0));
    drop(upstream);
    assert_eq!(sample(&metrics, idle), Some(0.0));
}

#[test]
fn a_worker_may_move_to_its_thread() {
    fn is_send<T: Send>() {}
    is_send::<WorkerMetrics>();
}
