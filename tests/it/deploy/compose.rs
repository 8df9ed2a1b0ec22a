//! The compose files: services that agree with the configuration, the balancer and the image.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::{Wanted, document, documents, image, path, seconds, strings, text};

const FILES: [&str; 2] = ["deploy/compose.yaml", "deploy/fleet/compose.yaml"];

fn services(compose: &Value) -> impl Iterator<Item = (&String, &Value)> {
    compose["services"].as_object().unwrap().iter()
}

/// What is mounted where: source, target, and whether it is read only.
fn mounts(service: &Value) -> Vec<(&str, &str, bool)> {
    service["volumes"].as_array().map_or_else(Vec::new, |volumes| {
        volumes
            .iter()
            .map(|volume| {
                let mut parts = volume.as_str().unwrap().split(':');
                (parts.next().unwrap(), parts.next().unwrap(), parts.next() == Some("ro"))
            })
            .collect()
    })
}

#[test]
fn images_of_others_are_pinned_and_files_that_are_mounted_exist() {
    for file in FILES {
        let compose = document(file);
        let here = file.rsplit_once('/').unwrap().0;
        for (name, service) in services(&compose) {
            let image = service["image"].as_str().unwrap();
            let is_pinned = image.rsplit_once(':').is_some_and(|(_, tag)| tag.chars().any(|c| c.is_ascii_digit()));
            assert!(is_pinned || image == "portcullis", "{file}: {name}");
            for (source, _, _) in mounts(service) {
                if source.starts_with('.') {
                    assert!(path(&format!("{here}/{source}")).exists(), "{file}: {name} mounts {source}");
                } else {
                    assert!(compose["volumes"].as_object().unwrap().contains_key(source), "{file}: {name}");
                }
            }
            for port in service["ports"].as_array().into_iter().flatten() {
                assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{file}: {name}");
            }
        }
    }
}

#[test]
fn gateways_of_compose_files_agree_with_their_configurations() {
    let (user, writable) = image();
    for (file, config) in FILES.iter().zip(["deploy/compose/portcullis.yaml", "deploy/fleet/portcullis.yaml"]) {
        let compose = document(file);
        let wanted = Wanted::by(&text(config));
        let gateways: Vec<_> = services(&compose)
            .filter(|(name, service)| service["image"] == "portcullis" && name.as_str() != "migrate")
            .collect();
        let mut own = BTreeSet::new();
        for (name, service) in &gateways {
            let place = format!("{file}: {name}");
            let grace = Duration::from_secs(seconds(service["stop_grace_period"].as_str().unwrap()));
            assert!(grace > wanted.leaving, "{place}: {grace:?} for {:?}", wanted.leaving);
            assert_eq!(service["read_only"], true, "{place}");
            assert_eq!(strings(&service["cap_drop"]), ["ALL"], "{place}");
            assert!(service["user"].is_null() || service["user"] == user.as_str(), "{place}");
            let mounts = mounts(service);
            let config_name = config.rsplit_once('/').unwrap().1;
            assert!(mounts.iter().any(|(source, target, ro)| {
                source.ends_with(config_name) && *target == "/etc/portcullis/portcullis.yaml" && *ro
            }));
            let (volume, _, _) = mounts.iter().find(|(_, target, ro)| *target == writable && !ro).unwrap();
            assert!(own.insert((*volume).to_owned()), "{place}: its volume is its own");
        }
        assert_eq!(gateways.len(), if *file == FILES[0] { 1 } else { 3 });
    }
}

#[test]
fn the_images_health_check_reads_the_configuration_that_the_image_runs_with() {
    let image = text("deploy/Dockerfile").replace("\\\n", " ");
    let list = |line: &str| -> Vec<String> { serde_json::from_str(&line[line.find('[').unwrap()..]).unwrap() };
    let line = |word: &str| list(image.lines().find(|line| line.starts_with(word)).unwrap());
    let (program, run, asked) = (line("ENTRYPOINT"), line("CMD"), line("HEALTHCHECK"));
    assert_eq!(run[0], "run");
    assert_eq!(asked, [&program[..], &["health".to_owned()], &run[1..]].concat());
    // What only takes steps of the schema listens nowhere.
    assert_eq!(document(FILES[1])["services"]["migrate"]["healthcheck"]["disable"], true);
}

#[test]
fn only_the_balancer_of_the_fleet_is_published_and_the_database_reaches_nobody() {
    let compose = document(FILES[1]);
    let published: Vec<_> =
        services(&compose).filter(|(_, service)| !service["ports"].is_null()).map(|(name, _)| name.as_str()).collect();
    assert_eq!(published, ["balancer", "prometheus"]);
    assert_eq!(compose["services"]["prometheus"]["profiles"][0], "watch");
    assert_eq!(strings(&compose["services"]["postgres"]["networks"]), ["data"]);
    assert_eq!(compose["networks"]["data"]["internal"], true);
    for (name, service) in services(&compose) {
        assert_eq!(service["read_only"], true, "{name}");
        assert!(strings(&service["security_opt"]).contains(&"no-new-privileges:true"), "{name}");
        assert!(service["mem_limit"].is_string(), "{name}");
    }
}

#[test]
fn the_balancer_knows_every_gateway_and_leaves_it_in_time() {
    let compose = document(FILES[1]);
    let config_text = text("deploy/fleet/portcullis.yaml");
    let wanted = Wanted::by(&config_text);
    let balancer = text("deploy/fleet/haproxy.cfg");
    let known: BTreeSet<_> = balancer.lines().filter(|line| line.trim_start().starts_with("server ")).collect();
    let gateways: BTreeSet<_> = services(&compose)
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("gateway-"))
        .map(|name| format!("    server {name} {name}:{} check port {}", wanted.data, wanted.metrics))
        .collect();
    assert_eq!(known, gateways.iter().map(String::as_str).collect());
    assert!(balancer.contains("uri /readyz "));

    // Two checks, a quarter of a second apart, and the patience of each.
    let config = documents(&config_text, "configuration").remove(0);
    let checks = Duration::from_millis(500 + 250) + 2 * Duration::from_secs(2);
    assert!(balancer.contains("inter 500ms fastinter 250ms") && balancer.contains("fall 2"));
    assert!(balancer.contains("timeout check 2s"));
    assert!(Duration::from_secs(seconds(config["shutdown"]["delay"].as_str().unwrap())) > checks);

    let subnet = &compose["networks"]["edge"]["ipam"]["config"][0]["subnet"];
    assert_eq!(&config["auth"]["trusted_proxies"][0], subnet);
    assert!(strings(&compose["services"]["balancer"]["networks"]).contains(&"edge"));
    let scraped = document("deploy/fleet/scrape.yaml");
    let expected: Vec<_> = (1..=3).map(|number| format!("gateway-{number}:{}", wanted.metrics)).collect();
    assert_eq!(strings(&scraped["scrape_configs"][0]["static_configs"][0]["targets"]), expected);
}

#[test]
fn secrets_of_the_fleet_are_files_that_are_declared_and_mounted() {
    let compose = document(FILES[1]);
    let declared: BTreeSet<_> = compose["secrets"].as_object().unwrap().keys().cloned().collect();
    let mut used = BTreeSet::new();
    for (name, service) in services(&compose) {
        let mut mounted = BTreeSet::new();
        for secret in service["secrets"].as_array().into_iter().flatten() {
            let source = secret.as_str().or_else(|| secret["source"].as_str()).unwrap();
            used.insert(source.to_owned());
            mounted.insert(format!("/run/secrets/{}", secret["target"].as_str().unwrap_or(source)));
        }
        if service["image"] == "portcullis" {
            let wanted = Wanted::by(&text("deploy/fleet/portcullis.yaml")).secrets;
            assert_eq!(mounted, wanted.into_iter().collect(), "{name}");
        }
    }
    assert_eq!(used, declared);
    assert!(text("deploy/fleet/.gitignore").contains("secrets/"));
    let whole = text(FILES[1]);
    let head = whole.split("\nname:").next().unwrap();
    assert!(declared.iter().all(|name| head.contains(name.as_str())), "the head tells how each is made");
}
