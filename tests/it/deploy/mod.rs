//! The files of `deploy/`: configurations that the executable accepts, and objects around them that agree with these.

mod chart;
mod compose;
mod kubernetes;

use std::path::{Path, PathBuf};
use std::time::Duration;

use portcullis_testkit::Site;
use serde::Deserialize;
use serde_json::Value;

use crate::scene::BINARY;
use crate::tools;

/// Every configuration that is shipped for running, and where its secrets are mounted.
const CONFIGURATIONS: [&str; 4] = [
    "deploy/compose/portcullis.yaml",
    "deploy/fleet/portcullis.yaml",
    "deploy/kubernetes/portcullis.yaml",
    "deploy/kubernetes/fleet/config/portcullis.yaml",
];

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn text(relative: &str) -> String {
    std::fs::read_to_string(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// The documents of a YAML text, `<<` carried out.
fn documents(text: &str, place: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(text)
        .map(|document| {
            let mut value = serde_yaml::Value::deserialize(document).unwrap_or_else(|error| panic!("{place}: {error}"));
            // What is merged may merge something itself.
            for _ in 0..2 {
                value.apply_merge().unwrap_or_else(|error| panic!("{place}: {error}"));
            }
            serde_json::to_value(value).unwrap_or_else(|error| panic!("{place}: {error}"))
        })
        .collect()
}

fn document(relative: &str) -> Value {
    let mut all = documents(&text(relative), relative);
    assert_eq!(all.len(), 1, "{relative} is one document");
    all.remove(0)
}

/// Every file below a directory, by its path from the project's root.
fn files(below: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path(below)).unwrap().map(Result::unwrap) {
        let name = format!("{below}/{}", entry.file_name().to_str().unwrap());
        if !entry.file_type().unwrap().is_dir() {
            found.push(name);
        } else if entry.file_name() != "secrets" {
            found.extend(files(&name));
        }
    }
    found.sort();
    found
}

fn seconds(span: &str) -> u64 {
    span.strip_suffix('s').and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{span} is no span"))
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().unwrap_or_else(|| panic!("{list} is no list")).iter().map(|item| item.as_str().unwrap()).collect()
}

/// What a configuration wants of what is around it.
struct Wanted {
    data: u64,
    metrics: u64,
    /// From SIGTERM until the process has certainly ended.
    leaving: Duration,
    /// Files that it writes.
    written: Vec<String>,
    /// Secrets that it reads.
    secrets: Vec<String>,
}

impl Wanted {
    fn by(config: &str) -> Self {
        let value = documents(config, "configuration").remove(0);
        let port = |bind: &Value| bind.as_str().unwrap().rsplit_once(':').unwrap().1.parse().unwrap();
        let shutdown = |field: &str, usual: &str| seconds(value["shutdown"][field].as_str().unwrap_or(usual));
        let is_sqlite = value["store"]["driver"] == "sqlite";
        let store = if is_sqlite { &value["store"]["path"] } else { &value["sync"]["snapshot"]["path"] };
        let secrets = config.split("${file:").skip(1).map(|rest| rest.split_once('}').unwrap().0.to_owned()).collect();
        Self {
            data: port(&value["listeners"][0]["bind"]),
            metrics: port(&value["metrics"]["bind"]),
            leaving: Duration::from_secs(shutdown("delay", "0s") + shutdown("deadline", "30s")),
            written: [store, &value["admin"]["socket"]].map(|path| path.as_str().unwrap().to_owned()).to_vec(),
            secrets,
        }
    }
}

/// `USER` of the image, and the directory that it may write to.
fn image() -> (String, String) {
    let dockerfile = text("deploy/Dockerfile");
    let user = dockerfile.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    let volume = dockerfile.lines().find_map(|line| line.strip_prefix("VOLUME ")).unwrap();
    (user.to_owned(), volume.trim_matches(['[', ']', '"']).to_owned())
}

/// Asserts that `check` accepts a configuration with secrets in the place of those that are mounted.
async fn assert_accepted(config: &str, place: &str) {
    let names = Wanted::by(config).secrets;
    let mut builder = Site::with(BINARY).verbatim_config(&config.replace("${file:/run/secrets/", "${file:secrets/"));
    for name in &names {
        builder = builder.file(name.strip_prefix("/run/").unwrap(), "not-a-secret-but-as-long-as-one");
    }
    let said = builder.prepare().cli(&["check"]).await;
    assert_eq!(said.code, 0, "{place}: {}", said.everything());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_shipped_configuration_is_accepted() {
    for place in CONFIGURATIONS {
        assert_accepted(&text(place), place).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_release_is_tuned_for_is_answered_as_it_should_be() {
    for tool in ["curl", "openssl"] {
        if tools::find(tool).is_none() {
            return;
        }
    }
    let (code, said) = tools::run(&path("deploy/release/build"), &["--try", BINARY], "").await;
    assert_eq!(code, 0, "{said}");
    assert!(text("deploy/Dockerfile").contains("\n    deploy/release/build /out/portcullis"));
}

#[test]
fn image_and_unit_ask_for_large_pages_as_the_documentation_says() {
    let setting = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1";
    assert!(text("deploy/Dockerfile").contains(&format!("\nENV {setting}\n")));
    assert!(text("deploy/systemd/portcullis.service").contains(&format!("\nEnvironment={setting}\n")));
    assert!(text("docs/sizing.md").contains(&format!("`{setting}`")));
}

#[test]
fn every_yaml_file_can_be_read() {
    let is_yaml = |name: &String| name.ends_with(".yaml") && !name.contains("/templates/");
    let found: Vec<_> = files("deploy").into_iter().filter(is_yaml).collect();
    assert!(found.len() > 20, "{found:?}");
    for name in found {
        assert!(!documents(&text(&name), &name).is_empty(), "{name} is empty");
    }
}

#[test]
fn the_image_opens_the_ports_that_configurations_use() {
    let dockerfile = text("deploy/Dockerfile");
    let opened = dockerfile.lines().find_map(|line| line.strip_prefix("EXPOSE ")).unwrap();
    for place in CONFIGURATIONS {
        let wanted = Wanted::by(&text(place));
        assert_eq!(opened, format!("{} {}", wanted.data, wanted.metrics), "{place}");
        let (_, writable) = image();
        assert!(wanted.written.iter().all(|path| path.starts_with(&format!("{writable}/"))), "{place}");
    }
}
