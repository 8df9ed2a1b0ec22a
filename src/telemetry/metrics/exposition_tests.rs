//! Claims about the page that Prometheus scrapes.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};

use super::families::ALL;
use super::{
    ConnectionState, DecisionMode, DecisionResult, EventLabel, LimitLabel, Metrics, Reload, Retry, SharedLimits, Shed,
    UpstreamConnectionState,
};
use crate::domain::time::monotonic_now;
use crate::domain::{KeyState, Revision, Timestamp};

/// Metrics in which every family has a series, and the moment that a scrape should be made at.
fn filled() -> (Metrics, Instant) {
    let start = monotonic_now();
    let metrics = Metrics::new(500, start);
    let worker = metrics.worker();
    let route = metrics.route("/v1/\"quoted\"\\\n{id}");
    let live = metrics.environment("live");
    let shop = metrics.upstream("shop");
    let public = metrics.listener("127.0.0.1:8080");
    worker.request(public, route, &Method::GET, StatusCode::OK, Duration::from_millis(3));
    worker.decision(route, live, DecisionMode::Enforce, DecisionResult::Allowed, "key");
    worker.rate_limited(route, live, LimitLabel::KeyDay);
    worker.rate_limited(route, live, LimitLabel::KeyDay);
    metrics.set_rate_meters(11, 12);
    metrics.set_shared_limits(SharedLimits {
        up: true,
        outages: 21,
        leases: 22,
        granted: 23,
        refused: 24,
        failed: 25,
        waited: 33,
        late: 7,
    });
    worker.auth_duration(Duration::from_micros(3));
    worker.upstream_request(shop, Duration::from_millis(2));
    worker.connection(public, ConnectionState::Idle);
    worker.upstream_connection(shop, UpstreamConnectionState::Idle);
    worker.upstream_retry(shop, Retry::Made);
    metrics.connection_shed(Shed::Descriptors);
    metrics.set_memory(13, 14);
    metrics.panicked();
    metrics.panicked();
    metrics.set_upstream_targets([(shop, "http://127.0.0.1:9000".to_owned(), true)]);
    metrics.set_upstream_healthy(shop, "http://127.0.0.1:9000", || false);
    metrics.set_upstream_healthy(shop, "http://never.listed", || true);
    metrics.set_keys([
        ("live", KeyState::Active, 7),
        ("live", KeyState::Revoked, 2),
        ("test", KeyState::Active, 0),
        ("live", KeyState::Active, 1),
    ]);
    metrics.set_cache(9, Revision::new(42));
    metrics.sync_succeeded(Timestamp::from_unix_ms(1_768_478_400_250), start + Duration::from_secs(5));
    metrics.revocation_took_effect(Duration::from_millis(4));
    metrics.revocation_took_effect(Duration::from_secs(90_000));
    metrics.set_store_up(true);
    metrics.set_snapshot(true, 77);
    metrics.set_report_mode_routes(3);
    metrics.count_reload(Reload::Applied);
    metrics.count_reload(Reload::Refused);
    metrics.set_certificates([("edge".to_owned(), Timestamp::from_unix_seconds(1_800_000_000))]);
    metrics.log_lines_dropped().add(4);
    metrics.set_notes_dropped(6, 5);
    metrics.count_event(EventLabel::SecretKeyInBrowser);
    (metrics, start + Duration::from_secs(7))
}

fn page() -> String {
    let (metrics, now) = filled();
    metrics.render(now).unwrap()
}

#[test]
fn every_value_that_a_room_sets_is_shown() {
    let page = page();
    for line in [
        r#"portcullis_http_requests_total{listener="127.0.0.1:8080",route="/v1/\"quoted\"\\\n{id}",method="GET",code="200"} 1"#,
        r#"portcullis_upstream_healthy{upstream="shop",target="http://127.0.0.1:9000"} 0"#,
        r#"portcullis_upstream_connections{upstream="shop",state="idle"} 0"#,
        r#"portcullis_connections{listener="127.0.0.1:8080",state="idle"} 0"#,
        r#"portcullis_keys{environment="live",state="active"} 8"#,
        r#"portcullis_keys{environment="live",state="revoked"} 2"#,
        r#"portcullis_keys{environment="test",state="active"} 0"#,
        r#"portcullis_rate_limited_total{route="/v1/\"quoted\"\\\n{id}",environment="live",limit="key-day"} 2"#,
        "portcullis_rate_meters 11",
        "portcullis_rate_meters_evicted_total 12",
        "portcullis_shared_limits_up 1",
        "portcullis_shared_limits_outages_total 21",
        "portcullis_shared_limits_leases 22",
        r#"portcullis_shared_limits_asks_total{result="granted"} 23"#,
        r#"portcullis_shared_limits_asks_total{result="refused"} 24"#,
        r#"portcullis_shared_limits_asks_total{result="failed"} 25"#,
        r#"portcullis_shared_limits_waits_total{result="answered"} 26"#,
        r#"portcullis_shared_limits_waits_total{result="late"} 7"#,
        "portcullis_cache_entries 9",
        "portcullis_cache_revision 42",
        "portcullis_sync_lag_seconds 2",
        "portcullis_sync_last_success_timestamp_seconds 1768478400.25",
        r#"portcullis_revocation_effect_seconds_bucket{le="0.0025"} 0"#,
        r#"portcullis_revocation_effect_seconds_bucket{le="0.005"} 1"#,
        r#"portcullis_revocation_effect_seconds_bucket{le="86400"} 1"#,
        "portcullis_revocation_effect_seconds_count 2",
        "portcullis_store_up 1",
        "portcullis_snapshot_up 1",
        "portcullis_snapshot_size_bytes 77",
        "portcullis_report_mode_routes 3",
        r#"portcullis_config_reloads_total{result="success"} 1"#,
        r#"portcullis_config_reloads_total{result="failure"} 1"#,
        "portcullis_config_last_reload_successful 0",
        r#"portcullis_tls_certificate_not_after_timestamp_seconds{name="edge"} 1800000000"#,
        r#"portcullis_connections_shed_total{reason="descriptors"} 1"#,
        r#"portcullis_connections_shed_total{reason="listener"} 0"#,
        "portcullis_memory_held_bytes 13",
        "portcullis_memory_limit_bytes 14",
        "portcullis_panics_total 2",
        "portcullis_log_lines_dropped_total 4",
        "portcullis_last_use_marks_dropped_total 5",
        "portcullis_usage_notes_dropped_total 6",
        r#"portcullis_events_total{event="new_network"} 0"#,
        r#"portcullis_events_total{event="secret_key_in_browser"} 1"#,
        concat!("portcullis_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(page.lines().any(|shown| shown == line), "{line} is not in\n{page}");
    }
    assert!(!page.contains("never.listed"));
}

#[test]
fn what_is_no_longer_listed_is_no_longer_shown() {
    let (metrics, now) = filled();
    metrics.set_keys([]);
    metrics.set_upstream_targets([]);
    metrics.set_certificates([]);
    let page = metrics.render(now).unwrap();
    for name in ["portcullis_keys", "portcullis_upstream_healthy", "portcullis_tls_certificate"] {
        assert!(!page.contains(name), "{name} in\n{page}");
    }
}

#[test]
fn lag_grows_from_the_start_until_the_first_synchronisation() {
    let start = monotonic_now();
    let metrics = Metrics::new(500, start);
    let page = metrics.render(start + Duration::from_secs(60)).unwrap();
    assert!(page.contains("\nportcullis_sync_lag_seconds 60\n"), "{page}");
    assert!(page.contains("\nportcullis_sync_last_success_timestamp_seconds 0\n"), "{page}");
}

#[test]
fn every_family_is_shown_once_with_help_and_type() {
    let page = page();
    for family in ALL {
        let help = format!("# HELP {} {}", family.name, family.help);
        assert_eq!(page.lines().filter(|line| *line == help).count(), 1, "{help}\n{page}");
        let kind = format!("# TYPE {} {:?}", family.name, family.kind).to_lowercase();
        assert!(page.lines().any(|line| line.to_lowercase() == kind), "{kind}\n{page}");
    }
    let shown = page.lines().filter(|line| line.starts_with("# HELP portcullis_")).count();
    assert_eq!(shown, ALL.len(), "a family is shown that is not in the list");
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_itself_is_shown() {
    let page = page();
    for name in [
        "process_cpu_seconds_total ",
        "process_resident_memory_bytes ",
        "process_open_fds ",
        "process_start_time_seconds ",
    ] {
        let value =
            page.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}\n{page}"));
        assert!(value.parse::<f64>().is_ok(), "{name}{value}");
    }
}

#[test]
fn names_follow_the_conventions() {
    let names: BTreeSet<_> = ALL.iter().map(|family| family.name).collect();
    assert_eq!(names.len(), ALL.len(), "a name stands twice");
    for family in ALL {
        assert!(family.name.starts_with("portcullis_"), "{}", family.name);
        assert!(family.help.ends_with('.') && !family.help.starts_with(' '), "{}", family.help);
        let is_counter = family.kind == prometheus::proto::MetricType::COUNTER;
        assert_eq!(family.name.ends_with("_total"), is_counter, "{}", family.name);
        for label in family.labels {
            assert!(!["path", "key", "key_id", "client_ip", "address"].contains(label), "{}", family.name);
        }
    }
}

#[test]
fn promtool_finds_nothing_to_mend() {
    let check = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut check) = check else {
        assert!(std::env::var_os("CI").is_none(), "promtool must be installed where CI is set");
        return;
    };
    check.stdin.take().unwrap().write_all(page().as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}
