//! The configuration file: examples are valid, absence never grants, and mistakes are explained where they stand.

use std::path::{Path, PathBuf};

use portcullis_testkit::{Outcome, Site};
use serde_json::Value;

use crate::scene::{self, shop_config, site};

/// Checks a text as it stands.
async fn check(config: &str) -> Outcome {
    Site::with(scene::BINARY).verbatim_config(config).prepare().cli(&["check"]).await
}

/// The findings of a text as records.
async fn findings(config: &str) -> Vec<Value> {
    let outcome = Site::with(scene::BINARY).verbatim_config(config).prepare().cli(&["check", "--format", "json"]).await;
    outcome.json().as_array().unwrap_or_else(|| panic!("no array: {outcome:?}")).clone()
}

const SMALLEST: &str = r#"version: 1
listeners:
  - bind: 127.0.0.1:8080
upstreams:
  shop: { targets: [{ url: "http://127.0.0.1:9000" }] }
scopes:
  read:orders: { title: Read orders }
  write:orders: { title: Create and change orders }
routes:
  - path: /v1/orders/**
    upstream: shop
    methods:
      GET:  { scopes: read:orders }
      POST: { scopes: write:orders }
  - path: /status
    upstream: shop
    auth: none
    methods: { GET: {} }
store: { driver: sqlite, path: data/portcullis.db }
"#;

fn examples() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut found = Vec::new();
    let mut open = vec![directory];
    while let Some(directory) = open.pop() {
        let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        for entry in entries.map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Examples that stand on their own; what is below a `*.d` directory is included by one of them.
fn whole_examples() -> Vec<PathBuf> {
    examples().into_iter().filter(|path| !path.iter().any(|part| part.to_str().unwrap().ends_with(".d"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_valid() {
    let examples = whole_examples();
    assert!(examples.len() >= 2, "{examples:?}");
    let anywhere = Site::with(scene::BINARY).prepare();
    for example in examples {
        let outcome = anywhere.bare_cli(&["check", "-c", example.to_str().unwrap()], "").await;
        let _ = outcome.success();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_fits_the_printed_schema_and_the_committed_one_is_the_printed_one() {
    let anywhere = Site::with(scene::BINARY).prepare();
    let schema = anywhere.bare_cli(&["schema"], "").await.success().json();
    let validator = jsonschema::validator_for(&schema).expect("the schema is a schema");
    for example in whole_examples() {
        let text = std::fs::read_to_string(&example).unwrap();
        let value: Value = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", example.display()));
        let errors: Vec<String> =
            validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{}: {errors:#?}", example.display());
    }
    let mut broken: Value = serde_yaml::from_str(SMALLEST).unwrap();
    broken["listners"] = Value::Null;
    assert!(!validator.is_valid(&broken), "the schema knows no unknown section");

    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/portcullis.schema.json");
    let committed: Value = serde_json::from_str(&std::fs::read_to_string(committed).unwrap()).unwrap();
    assert_eq!(committed, schema, "run `portcullis schema > config/portcullis.schema.json`");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_names_every_key_with_its_default() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let example = std::fs::read_to_string(directory.join("portcullis.example.yaml")).unwrap();
    let anywhere = Site::with(scene::BINARY).prepare();
    let schema = anywhere.bare_cli(&["schema"], "").await.success().json();
    let mut names = std::collections::BTreeSet::new();
    collect_names(&schema, &mut names);
    let missing: Vec<&String> = names.iter().filter(|name| !example.contains(&format!("{name}:"))).collect();
    assert!(names.len() > 60, "{names:?}");
    assert!(missing.is_empty(), "the example does not show {missing:?}");
}

fn collect_names(schema: &Value, names: &mut std::collections::BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get("properties") {
                names.extend(properties.keys().cloned());
            }
            members.values().for_each(|member| collect_names(member, names));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_names(item, names)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_useful_file_is_enough() {
    let _ = check(SMALLEST).await.success();
    let _ = Site::with(scene::BINARY).verbatim_config(SMALLEST).prepare().cli(&["check", "--strict"]).await.success();
}

/// One mistake: what is replaced, by what, where it is found, and what the message must say.
struct Mistake(&'static str, &'static str, u64, &'static [&'static str]);

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_is_found_where_it_stands() {
    let mistakes = [
        Mistake("upstreams:", "upstrems:", 4, &["upstrems", "upstreams"]),
        Mistake("bind:", "bnd:", 3, &["bnd", "bind"]),
        Mistake("GET:  { scopes", "GET:  { scope", 13, &["scope", "scopes"]),
        Mistake("upstream: shop\n    auth", "upstream: shopp\n    auth", 16, &["shopp", "shop"]),
        Mistake("auth: none", "auth: nobody", 17, &["nobody", "none"]),
        Mistake("version: 1", "version: 2", 1, &["version"]),
        Mistake("127.0.0.1:8080", "127.0.0.1", 3, &["127.0.0.1"]),
        Mistake("http://127.0.0.1:9000", "127.0.0.1:9000", 5, &["http://"]),
        Mistake("http://127.0.0.1:9000", "http://127.0.0.1:9000/api", 5, &["path"]),
        Mistake("scopes: read:orders }", "scopes: [] }", 13, &["scope"]),
        Mistake("scopes: read:orders }", "scopes: read orders }", 13, &["read orders", "space"]),
        Mistake("scopes: read:orders }", "scopes: read:* }", 13, &["*"]),
        Mistake("    auth: none\n", "", 17, &["GET"]),
        Mistake("path: /status", "path: /v1/orders/**", 18, &["/v1/orders/**", "twice"]),
        Mistake("path: /status", "path: status", 15, &["status", "/"]),
        Mistake("path: /status", "path: /a/**/b", 15, &["**"]),
        Mistake("path: /status", "path: /a/../b", 15, &["/a/../b"]),
        Mistake("path: /status", "path: /a//b", 15, &["/a//b"]),
        Mistake("driver: sqlite", "driver: sqlight", 19, &["sqlight", "sqlite"]),
        Mistake("/portcullis.db", "/${NOT_SET_ANYWHERE}.db", 19, &["NOT_SET_ANYWHERE"]),
        Mistake("/portcullis.db", "/${file:not-there}.db", 19, &["not-there"]),
        Mistake("  - path: /status", "  - hosts: [*.example.com]\n    path: /status", 15, &["\"*.example.com\""]),
    ];
    for Mistake(old, new, line, words) in mistakes {
        let broken = SMALLEST.replacen(old, new, 1);
        assert_ne!(broken, SMALLEST, "{old:?} is not in the text");
        let outcome = check(&broken).await.exit(3);
        let everything = outcome.everything();
        for word in words {
            assert!(everything.contains(word), "{new:?}: no {word:?} in\n{everything}");
        }
        let found = findings(&broken).await;
        let lines: Vec<_> = found.iter().map(|finding| finding["line"].clone()).collect();
        assert!(lines.contains(&line.into()), "{new:?} was found on lines {lines:?}, not {line}:\n{everything}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicate_keys_and_ties_name_both_places() {
    let twice = SMALLEST.replace("store:", "scopes: { a: {} }\nstore:");
    let _ = check(&twice).await.exit(3).says(&["portcullis.yaml:19:1", "6"]);
    let tied = SMALLEST
        .replace("path: /status", "path: /v1/{any}/**")
        .replace("store:", "  - { path: \"/v1/*/**\", upstream: shop, auth: any_key, methods: { GET: {} } }\nstore:");
    let _ = check(&tied).await.exit(3).says(&["portcullis.yaml:19", "18 |", "/v1/{any}/**"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_problem_is_reported_at_once_with_its_place_a_caret_and_a_fix() {
    let broken = SMALLEST
        .replace("bind: 127.0.0.1:8080", "bind: everywhere")
        .replace("upstream: shop\n    methods:", "upstream: shopp\n    methods:")
        .replace("auth: none", "auth: nobody")
        .replace("driver: sqlite", "driver: sqlight");
    let outcome = check(&broken).await.exit(3).says(&["everywhere", "shopp", "nobody", "sqlight", "^"]);
    for place in ["portcullis.yaml:3:11", "portcullis.yaml:11:15", "portcullis.yaml:17:11", "portcullis.yaml:19:"] {
        assert!(outcome.everything().contains(place), "{place} in\n{}", outcome.everything());
    }
    assert!(!outcome.everything().contains('\u{1b}'), "no colour on pipes");
    let found = findings(&broken).await;
    assert_eq!(found.iter().filter(|finding| finding["severity"] == "error").count(), 4, "{found:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_formats_are_for_machines() {
    let broken = Site::with(scene::BINARY).verbatim_config(&SMALLEST.replace("auth: none", "auth: nobody")).prepare();
    let outcome = broken.cli(&["check", "--format", "json"]).await.exit(3);
    let found = &outcome.json()[0];
    assert_eq!((&found["line"], &found["column"]), (&17.into(), &11.into()), "{found}");
    assert!(found["message"].is_string() && found["file"].as_str().unwrap().ends_with("portcullis.yaml"), "{found}");

    let outcome = broken.cli(&["check", "--format", "sarif"]).await.exit(3);
    let sarif = outcome.json();
    assert_eq!(sarif["version"], "2.1.0");
    let result = &sarif["runs"][0]["results"][0];
    let region = &result["locations"][0]["physicalLocation"]["region"];
    assert_eq!((&result["level"], &region["startLine"]), (&"error".into(), &17.into()), "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn warnings_are_6_when_they_are_asked_to_matter() {
    for (config, word) in [
        (SMALLEST.replace("  write:orders: { title: Create and change orders }\n", ""), "write:orders"),
        (SMALLEST.replace("routes:", "  spare: { title: Nobody asks }\nroutes:"), "spare"),
        (format!("{SMALLEST}mode: report\n"), "report"),
        (SMALLEST.replace("path: /status", "path: \"/v1/orders/{id}\""), "/v1/orders/{id}"),
    ] {
        let site = Site::with(scene::BINARY).verbatim_config(&config).prepare();
        let _ = site.cli(&["check"]).await.success().says(&[word]);
        let _ = site.cli(&["check", "--strict"]).await.exit(6).says(&[word]);
        let _ = site.cli(&["validate", "--strict"]).await.exit(6);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_and_files_are_put_into_values() {
    let origin = portcullis_testkit::Origin::start().await;
    let config = shop_config(
        "  - { path: \"/${PART:-fallback}\", upstream: shop, auth: none, headers: { set: { X-Cost: \"5$$\", X-From: \"${file:from.txt}\" } } }\n  - { path: \"/${SET}\", upstream: shop, auth: none }\n",
        "",
    );
    let gateway =
        site(&config).upstream("shop", &origin).env("SET", "from-env").file("from.txt", "a file\n").start().await;
    gateway.get("/fallback").await.expect(200);
    assert_eq!((origin.last().header("x-cost"), origin.last().header("x-from")), (Some("5$"), Some("a file")));
    gateway.get("/from-env").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_cannot_bring_structure_along() {
    let origin = portcullis_testkit::Origin::start().await;
    let config = shop_config("  - { path: /x, upstream: shop, auth: \"${WORD}\" }\n", "");
    let site = site(&config).upstream("shop", &origin).env("WORD", "any_key, mode: report").prepare();
    let _ = site.cli(&["check"]).await.exit(3);
}

#[tokio::test(flavor = "multi_thread")]
async fn included_files_add_routes_and_are_named_in_messages() {
    let origin = portcullis_testkit::Origin::start().await;
    let config = shop_config("", "include: [\"routes.d/*.yaml\"]");
    let site = site(&config)
        .upstream("shop", &origin)
        .file("routes.d/one.yaml", "routes:\n  - { path: /one, upstream: shop, auth: none }\n")
        .file("routes.d/two.yaml", "routes:\n  - { path: /two, upstream: shop, auth: none }\n")
        .prepare();
    let gateway = site.start().await;
    gateway.get("/one").await.expect(200);
    gateway.get("/two").await.expect(200);
    site.write("routes.d/two.yaml", "routes:\n  - { path: /two, upstream: shopp, auth: none }\n");
    let _ = site.cli(&["check"]).await.exit(3).says(&["two.yaml:2:", "shopp"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_files_are_refused_quickly() {
    let bomb = {
        let mut text = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
        for (next, previous) in
            ["b", "c", "d", "e", "f", "g", "h", "i"].iter().zip(["a", "b", "c", "d", "e", "f", "g", "h"])
        {
            text.push_str(&format!("{next}: &{next} [{}]\n", vec![format!("*{previous}"); 9].join(", ")));
        }
        text
    };
    for text in [bomb, "[".repeat(50_000), format!("routes: \"{}\"", "x".repeat(20 << 20)), "\u{feff}\u{0}".to_owned()]
    {
        let started = std::time::Instant::now();
        let _ = check(&text).await.exit(3);
        let took = started.elapsed();
        assert!(took < portcullis_testkit::patient(std::time::Duration::from_secs(10)), "{took:?}");
    }
    let words = SMALLEST.replace("methods: { GET: {} }", "methods: { GET: {} }\n    forward_credential: no");
    let _ = check(&words).await.exit(3).says(&["false"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_there_is_named() {
    let nowhere = Site::with(scene::BINARY).prepare();
    for verb in ["check", "run"] {
        let outcome = nowhere.bare_cli(&["-c", "not-there.yaml", verb], "").await.exit(3);
        let _ = outcome.says(&["not-there.yaml"]);
    }
}
