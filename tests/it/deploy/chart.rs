//! The Helm chart: what can be told of it without Helm, and that it makes what the manifests say.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Wanted, assert_accepted, document, documents, files, text};

const CHART: &str = "deploy/helm/portcullis";

fn templates() -> Vec<(String, String)> {
    files(&format!("{CHART}/templates")).into_iter().map(|name| (name.clone(), text(&name))).collect()
}

fn values() -> Value {
    document(&format!("{CHART}/values.yaml"))
}

/// Every path of values that a template names.
fn named_values(template: &str) -> BTreeSet<String> {
    let is_path = |c: char| c.is_ascii_alphanumeric() || c == '.';
    template
        .split(".Values.")
        .skip(1)
        .map(|rest| rest[..rest.find(|c| !is_path(c)).unwrap_or(rest.len())].to_owned())
        .collect()
}

/// Every path of a value that has no more below it.
fn leaves(value: &Value, before: &str) -> Vec<String> {
    match value.as_object() {
        Some(fields) if !fields.is_empty() => {
            fields.iter().flat_map(|(name, value)| leaves(value, &format!("{before}.{name}"))).collect()
        }
        _ => vec![before.trim_start_matches('.').to_owned()],
    }
}

#[test]
fn templates_name_values_that_exist_and_all_of_them() {
    let values = values();
    let named: BTreeSet<String> = templates().iter().flat_map(|(_, template)| named_values(template)).collect();
    for path in &named {
        let found = path.split('.').try_fold(&values, |value, name| value.get(name));
        assert!(found.is_some(), ".Values.{path} is not in values.yaml");
    }
    for leaf in leaves(&values, "") {
        let is_used = named.iter().any(|path| leaf == *path || leaf.starts_with(&format!("{path}.")));
        assert!(is_used, "no template uses {leaf}");
    }
}

#[test]
fn templates_close_what_they_open() {
    for (name, template) in templates() {
        assert_eq!(template.matches("{{").count(), template.matches("}}").count(), "{name}");
        let mut depth = 0;
        for action in template.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap()) {
            match action.trim_start_matches('-').split_whitespace().next() {
                Some("if" | "with" | "range" | "define") => depth += 1,
                Some("end") => depth -= 1,
                _ => {}
            }
            assert!(depth >= 0, "{name}: one end too many");
        }
        assert_eq!(depth, 0, "{name}: an end is missing");
    }
}

#[test]
fn the_schema_accepts_the_values_and_no_others() {
    let schema: Value = serde_json::from_str(&text(&format!("{CHART}/values.schema.json"))).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let values = values();
    assert!(schema.is_valid(&values), "{:?}", schema.iter_errors(&values).map(|e| e.to_string()).collect::<Vec<_>>());
    for (path, wrong) in [
        ("/replicaCount", Value::from("three")),
        ("/image/digest", Value::from("latest")),
        ("/persistence/accessMode", Value::from("ReadWriteMany")),
        ("/config", Value::from("")),
    ] {
        let mut changed = values.clone();
        *changed.pointer_mut(path).unwrap() = wrong;
        assert!(!schema.is_valid(&changed), "{path}");
    }
    let mut changed = values;
    changed["replicas"] = Value::from(3);
    assert!(!schema.is_valid(&changed), "a value with a typing error");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_of_the_chart_is_that_of_the_manifests() {
    let values = values();
    let config = values["config"].as_str().unwrap();
    assert_accepted(config, "values.yaml").await;
    let manifests = text("deploy/kubernetes/fleet/config/portcullis.yaml");
    assert_eq!(documents(config, "values.yaml"), documents(&manifests, "manifests"));
    let grace = values["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(grace > Wanted::by(config).leaving.as_secs());
}

/// What the manifests say of pods, the chart says word for word; only what comes from values or is the release's own is not.
#[test]
fn pods_of_the_chart_are_those_of_the_manifests() {
    // Names, and what comes from values.
    let differs = [
        "name:",
        "replicas:",
        "serviceName:",
        "prometheus.io/",
        "annotations:",
        "terminationGracePeriodSeconds:",
        "labelSelector:",
        "image:",
        "requests:",
        "limits:",
        "configMap:",
        "secret:",
        "accessModes:",
        "labels:",
        "- { name: STORE_ROLE",
        "scaleTargetRef:",
        "minReplicas:",
        "maxReplicas:",
        "resource:",
        "- { name: http, port: 80",
    ];
    let said: BTreeSet<String> = templates()
        .iter()
        .flat_map(|(_, template)| template.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>())
        .collect();
    for manifest in ["statefulset.yaml", "migrate/job.yaml", "service.yaml", "autoscale/autoscaler.yaml"] {
        let manifest = text(&format!("deploy/kubernetes/fleet/{manifest}"));
        for line in manifest.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let may_differ = differs.iter().any(|begin| line.starts_with(begin));
            assert!(said.contains(line) || may_differ, "the chart does not say: {line}");
        }
    }
}

#[test]
fn the_chart_has_the_version_of_the_gateway() {
    let chart = document(&format!("{CHART}/Chart.yaml"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["apiVersion"], "v2");
}
