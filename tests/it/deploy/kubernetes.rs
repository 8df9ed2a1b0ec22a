//! The manifests: objects that agree with the configuration, the image and each other.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Wanted, document, documents, files, image, strings, text};

fn is_below(directory: &str, path: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with('/'))
}

/// Asserts what holds for the gateways' pods, wherever they are described.
pub fn assert_runs(pod: &Value, config: &str, place: &str) {
    let wanted = Wanted::by(config);
    let container = &pod["containers"][0];
    let ports = json!([
        { "name": "http", "containerPort": wanted.data },
        { "name": "metrics", "containerPort": wanted.metrics }
    ]);
    assert_eq!(container["ports"], ports, "{place}");
    assert_eq!(container["args"][0], "run", "{place}");
    for (probe, page) in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
        let asked = &container[probe]["httpGet"];
        // One gateway on a small store needs no longer start.
        if probe != "startupProbe" || !asked.is_null() {
            assert_eq!(asked, &json!({ "path": page, "port": "metrics" }), "{place}: {probe}");
        }
    }
    let grace = Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().unwrap());
    assert!(grace > wanted.leaving, "{place}: {grace:?} for {:?}", wanted.leaving);
    assert_confined(pod, place);
    assert_mounts(pod, &wanted, place);
}

/// Asserts that a pod may do nothing that it need not.
pub fn assert_confined(pod: &Value, place: &str) {
    let (user, _) = image();
    let (uid, gid) = user.split_once(':').unwrap();
    let context = &pod["securityContext"];
    let number = |text: &str| json!(text.parse::<u64>().unwrap());
    assert_eq!(context["runAsNonRoot"], true, "{place}");
    assert_eq!((&context["runAsUser"], &context["runAsGroup"]), (&number(uid), &number(gid)), "{place}");
    assert_eq!(context["fsGroup"], number(gid), "{place}");
    assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{place}");
    assert_eq!(pod["automountServiceAccountToken"], false, "{place}");
    for container in pod["containers"].as_array().unwrap() {
        let expected = json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] }
        });
        assert_eq!(container["securityContext"], expected, "{place}");
        assert!(container["resources"]["limits"]["memory"].is_string(), "{place}");
        assert!(container["resources"]["requests"]["cpu"].is_string(), "{place}");
    }
}

/// Asserts that what is read and written is mounted, and nothing more.
pub fn assert_mounts(pod: &Value, wanted: &Wanted, place: &str) {
    let container = &pod["containers"][0];
    let mounts = container["volumeMounts"].as_array().unwrap();
    let over = |path: &str, writes: bool| {
        let fits = |mount: &&Value| {
            is_below(mount["mountPath"].as_str().unwrap(), path) && (mount["readOnly"] == true) != writes
        };
        mounts.iter().find(fits).unwrap_or_else(|| panic!("{place}: nothing is mounted over {path}"))
    };
    let volume = |name: &Value| pod["volumes"].as_array().unwrap().iter().find(|volume| &volume["name"] == name);
    let config = strings(&container["args"]).into_iter().skip_while(|arg| *arg != "--config").nth(1).unwrap();
    assert!(volume(&over(config, false)["name"]).unwrap()["configMap"].is_object(), "{place}");
    for secret in &wanted.secrets {
        let volume = volume(&over(secret, false)["name"]).unwrap();
        assert_eq!(volume["secret"]["defaultMode"].as_u64(), Some(0o440), "{place}: readable by the group");
    }
    if container["args"][0] == "run" {
        for path in &wanted.written {
            over(path, true);
        }
    }
}

fn object<'a>(all: &'a [Value], kind: &str) -> &'a Value {
    all.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

#[test]
fn one_gateway_on_a_volume_agrees_with_its_configuration() {
    let all = documents(&text("deploy/kubernetes/deployment.yaml"), "deployment");
    let config = text("deploy/kubernetes/portcullis.yaml");
    assert_runs(&object(&all, "Deployment")["spec"]["template"]["spec"], &config, "deploy/kubernetes");
}

#[test]
fn a_fleet_agrees_with_its_configuration() {
    let config = text("deploy/kubernetes/fleet/config/portcullis.yaml");
    let set = document("deploy/kubernetes/fleet/statefulset.yaml");
    let spec = &set["spec"];
    let mut pod = spec["template"]["spec"].clone();
    assert_runs(&pod, &config, "the fleet");
    assert!(pod["containers"][0]["startupProbe"].is_object());
    // Each pod has a volume of its own for what it writes.
    let claim = spec["volumeClaimTemplates"][0]["metadata"]["name"].as_str().unwrap();
    let mounts = pod["containers"][0]["volumeMounts"].as_array_mut().unwrap();
    assert!(mounts.iter().any(|mount| mount["name"] == claim && mount["readOnly"].is_null()));
    assert!(spec["replicas"].as_u64().unwrap() >= 3);

    let services = documents(&text("deploy/kubernetes/fleet/service.yaml"), "service");
    let named = |name: &Value| services.iter().find(|service| &service["metadata"]["name"] == name).unwrap();
    assert_eq!(named(&spec["serviceName"])["spec"]["clusterIP"], "None");
    let monitor = document("deploy/kubernetes/fleet/monitor/service-monitor.yaml");
    let component = &named(&spec["serviceName"])["metadata"]["labels"]["app.kubernetes.io/component"];
    assert_eq!(&monitor["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"], component);
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], named(&spec["serviceName"])["spec"]["ports"][0]["name"]);
    let scaler = document("deploy/kubernetes/fleet/autoscale/autoscaler.yaml");
    assert_eq!(scaler["spec"]["scaleTargetRef"]["name"], set["metadata"]["name"]);
    assert_eq!(scaler["spec"]["scaleTargetRef"]["kind"], "StatefulSet");
    let budget = document("deploy/kubernetes/fleet/disruption.yaml");
    assert_eq!(budget["spec"]["maxUnavailable"], 1);

    // What the overlay's label gives to the pods is what the others select.
    let base = document("deploy/kubernetes/fleet/kustomization.yaml");
    let label = &base["labels"][0]["pairs"];
    let policy = document("deploy/kubernetes/fleet/network-policy.yaml");
    for selector in [
        &budget["spec"]["selector"],
        &policy["spec"]["podSelector"],
        &pod["topologySpreadConstraints"][0]["labelSelector"],
        &pod["topologySpreadConstraints"][1]["labelSelector"],
    ] {
        assert_eq!(&selector["matchLabels"], label);
    }
}

#[test]
fn the_migration_runs_with_other_rights_than_gateways() {
    let config = text("deploy/kubernetes/fleet/config/portcullis.yaml");
    let job = document("deploy/kubernetes/fleet/migrate/job.yaml");
    let pod = &job["spec"]["template"]["spec"];
    assert_confined(pod, "the migration");
    assert_mounts(pod, &Wanted::by(&config), "the migration");
    assert_eq!(strings(&pod["containers"][0]["args"])[..2], ["migrate", "up"]);
    let secret = |pod: &Value| {
        let volumes = pod["volumes"].as_array().unwrap();
        volumes.iter().find_map(|volume| volume["secret"]["secretName"].as_str().map(str::to_owned)).unwrap()
    };
    let set = document("deploy/kubernetes/fleet/statefulset.yaml");
    assert_ne!(secret(pod), secret(&set["spec"]["template"]["spec"]), "the owner's password is its own");
    // No service and no policy of the gateways means it.
    let label = &document("deploy/kubernetes/fleet/kustomization.yaml")["labels"][0]["pairs"];
    assert_ne!(&job["spec"]["template"]["metadata"]["labels"], label);
    let variable = pod["containers"][0]["env"][0]["name"].as_str().unwrap();
    assert!(config.contains(&format!("${{{variable}:-")), "{variable} is what the configuration reads");
}

#[test]
fn kustomizations_name_every_file_beside_them_and_no_other() {
    let all = files("deploy/kubernetes");
    for name in all.iter().filter(|name| name.ends_with("/kustomization.yaml")) {
        let here = name.strip_suffix("kustomization.yaml").unwrap();
        let kustomization = document(name);
        let mut named: Vec<String> = Vec::new();
        for resource in kustomization["resources"].as_array().into_iter().flatten() {
            let resource = resource.as_str().unwrap();
            if !resource.ends_with(".yaml") {
                assert!(super::path(&format!("{here}{resource}/kustomization.yaml")).is_file(), "{name}: {resource}");
                continue;
            }
            named.push(format!("{here}{resource}"));
        }
        for generator in kustomization["configMapGenerator"].as_array().into_iter().flatten() {
            named.extend(strings(&generator["files"]).iter().map(|file| format!("{here}{file}")));
        }
        named.push(name.clone());
        named.sort();
        let beside: Vec<_> = all.iter().filter(|file| !file[here.len().min(file.len())..].contains('/')).collect();
        let beside: Vec<_> = beside.into_iter().filter(|file| file.starts_with(here)).cloned().collect();
        assert_eq!(named, beside, "{name}");
    }
}
