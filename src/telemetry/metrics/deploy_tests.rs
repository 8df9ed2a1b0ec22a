//! Claims about the files beside the code that speak of metrics: alerts, dashboard, documentation.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use prometheus::proto::MetricType;
use serde_json::Value;

use super::families::{ALL, Family};

/// What the `prometheus` crate says about the process.
const PROCESS: [&str; 7] = [
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
    "process_virtual_memory_bytes",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The family of a series name: its own, or that of the histogram it is a part of.
fn family_of(series: &str) -> Option<&'static Family> {
    ALL.iter().copied().find(|family| {
        let is_part = |suffix| series.strip_suffix(suffix) == Some(family.name);
        match family.kind {
            MetricType::HISTOGRAM => ["_bucket", "_sum", "_count"].into_iter().any(is_part),
            _ => family.name == series,
        }
    })
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Every word of `text` that begins like one of our metrics, with what follows it.
fn named_series(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let begins = |at: usize| text[..at].chars().next_back().is_none_or(|before| !is_name(before) && before != '/');
    ["portcullis_", "process_"].into_iter().flat_map(move |prefix| {
        text.match_indices(prefix).filter(move |(at, _)| begins(*at)).map(|(at, _)| {
            let rest = &text[at..];
            rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()))
        })
    })
}

/// The label names of a selector, `{name="…",…}`, at the beginning of `rest`. Braces inside values are not understood.
fn selected_labels(rest: &str) -> Vec<&str> {
    let Some(selector) = rest.strip_prefix('{').and_then(|rest| rest.split('}').next()) else { return Vec::new() };
    selector
        .split(',')
        .filter_map(|matcher| matcher.split_once(['=', '!']).map(|(name, _)| name.trim()))
        .filter(|name| !name.is_empty() && name.chars().all(is_name))
        .collect()
}

/// Asserts that every series that `text` names exists, and has the labels it is selected by.
fn assert_exists(text: &str, place: &str) {
    assert_found(text, place, family_of);
}

fn assert_found(text: &str, place: &str, find: impl Fn(&str) -> Option<&'static Family>) {
    for (series, rest) in named_series(text) {
        if PROCESS.contains(&series) {
            continue;
        }
        let family = find(series).unwrap_or_else(|| panic!("{place} names {series}, which does not exist"));
        for label in selected_labels(rest) {
            let is_known = family.labels.contains(&label) || ["job", "instance", "le"].contains(&label);
            assert!(is_known, "{place} selects {series} by {label}, which it does not have");
        }
    }
}

#[test]
fn every_metric_that_alerts_name_exists() {
    for path in ["deploy/prometheus/alerts.yaml", "deploy/prometheus/alerts_test.yaml"] {
        let text = read(path);
        assert!(named_series(&text).count() > 10, "{path} names metrics");
        assert_exists(&text, path);
    }
}

#[test]
fn every_metric_of_the_dashboard_exists_and_every_family_is_on_it() {
    let path = "deploy/grafana/portcullis.json";
    let dashboard: Value = serde_json::from_str(&read(path)).unwrap();
    let mut ids = BTreeSet::new();
    let mut shown = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        if panel["type"] == "row" {
            continue;
        }
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            assert_exists(expression, path);
            shown.extend(named_series(expression).filter_map(|(series, _)| family_of(series)).map(|f| f.name));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        assert_exists(&variable["query"].to_string(), path);
    }
    // The moment itself is not drawn: the lag says the same in a form that needs no clock.
    let drawn: BTreeSet<_> =
        ALL.iter().map(|f| f.name).filter(|n| *n != "portcullis_sync_last_success_timestamp_seconds").collect();
    assert_eq!(shown, drawn);
}

#[test]
fn the_documentation_has_one_row_for_each_family_and_no_other() {
    let text = read("docs/metrics.md");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `portcullis_")).collect();
    let expected: Vec<String> = ALL
        .iter()
        .map(|family| {
            let kind = format!("{:?}", family.kind).to_lowercase();
            let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{}` | {kind} | {} | {} |", family.name, labels.join(", "), family.help)
        })
        .collect();
    assert_eq!(rows, expected, "docs/metrics.md should read:\n{}", expected.join("\n"));
}

#[test]
fn every_metric_that_the_documentation_names_exists() {
    let pages: Vec<PathBuf> = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(pages.iter().any(|page| page.ends_with("metrics.md")));
    for page in pages.iter().filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        let place = page.display().to_string();
        // Prose speaks of a histogram by the name of its family, which no query can.
        let find = |name: &str| family_of(name).or_else(|| ALL.iter().copied().find(|family| family.name == name));
        assert_found(&fs::read_to_string(page).unwrap(), &place, find);
    }
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    for arguments in [["check", "config", "scrape.yaml"], ["test", "rules", "alerts_test.yaml"]] {
        let check = Command::new("promtool").args(arguments).current_dir(root().join("deploy/prometheus")).output();
        let Ok(output) = check else {
            assert!(std::env::var_os("CI").is_none(), "promtool must be installed where CI is set");
            return;
        };
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
    }
}

#[test]
fn a_metric_that_does_not_exist_would_be_found() {
    assert_eq!(named_series("rate(portcullis_nothing_total[5m])").count(), 1);
    assert!(family_of("portcullis_nothing_total").is_none());
    assert!(family_of("portcullis_store_up_bucket").is_none());
    assert!(
        family_of("portcullis_http_request_duration_seconds").is_none(),
        "a histogram has no series of its own name"
    );
    assert_eq!(selected_labels(r#"{route="a",code=~"5..",x!="y"}[5m]"#), ["route", "code", "x"]);
}
