use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{schema, schema_text};
use crate::config::{effective, load, load_text};

fn config_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(config_directory().join(name)).unwrap()
}

/// A YAML text as JSON.
fn as_json(text: &str) -> Value {
    serde_json::to_value(serde_yaml::from_str::<serde_yaml::Value>(text).unwrap()).unwrap()
}

/// The example with the settings that are commented out: lines that begin with `#` and no space.
fn whole_example() -> String {
    let example = read("portcullis.example.yaml");
    let uncommented = example.lines().map(|line| {
        let text = line.trim_start();
        match text.strip_prefix('#') {
            Some(setting) if setting.starts_with(|c: char| !c.is_whitespace()) => {
                format!("{}{setting}\n", &line[..line.len() - text.len()])
            }
            _ => format!("{line}\n"),
        }
    });
    // The empty list gives way to the one that is commented out.
    uncommented.collect::<String>().replace("  peppers: []\n", "")
}

/// The committed schema is what editors read. To renew it: `PORTCULLIS_WRITE_SCHEMA=1 cargo test --lib config::schema`.
#[test]
fn the_committed_schema_is_the_one_the_code_has() {
    let path = config_directory().join("portcullis.schema.json");
    if std::env::var_os("PORTCULLIS_WRITE_SCHEMA").is_some() {
        std::fs::write(&path, schema_text()).unwrap();
    }
    assert!(read("portcullis.schema.json") == schema_text(), "config/portcullis.schema.json is not up to date");
}

#[test]
fn every_file_in_config_validates_and_loads_without_a_word() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let mut files: Vec<PathBuf> =
        glob::glob(&config_directory().join("**/*.yaml").display().to_string()).unwrap().map(Result::unwrap).collect();
    files.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/template.yaml"));
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let problems: Vec<_> =
            validator.iter_errors(&as_json(&text)).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert_eq!(problems, Vec::<String>::new(), "{}", file.display());
        let loaded = load(&file, &|_| None);
        assert_eq!(loaded.diagnostics, [], "{}", file.display());
        assert!(loaded.settings.is_some());
    }
}

#[test]
fn the_schema_refuses_what_the_code_refuses() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let good = as_json(&read("minimal.yaml"));
    assert!(validator.is_valid(&good));
    for (pointer, value) in [
        ("/version", serde_json::json!(2)),
        ("/routes/0/path", serde_json::json!(["/v1"])),
        ("/routes/0/methods/GET/scopes", serde_json::json!("a b")),
        ("/routes/0/methods/GET/scopes", serde_json::json!([])),
        ("/routes/0/methods/GET", serde_json::json!({ "scope": "a" })),
        ("/store/driver", serde_json::json!("oracle")),
        ("/listeners/0", serde_json::json!({})),
        ("/upstreams/shop/targets/0/url", serde_json::json!("http://u:p@h")),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value;
        assert!(!validator.is_valid(&bad), "{pointer}");
        let text = serde_yaml::to_string(&bad).unwrap();
        assert!(load_text(Path::new("p.yaml"), &text, &|_| None).settings.is_none(), "{pointer}");
    }
}

/// Walks a value beside the schema and collects `Definition.field = value` for every field it holds.
fn visit(schema: &Value, root: &Value, value: &Value, seen: &mut BTreeSet<(String, String)>) {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let name = reference.rsplit('/').next().unwrap();
        let definition = &root["$defs"][name];
        if let (Some(properties), Some(object)) = (definition["properties"].as_object(), value.as_object()) {
            for (field, property) in properties {
                if let Some(value) = object.get(field) {
                    seen.insert((format!("{name}.{field}"), value.to_string()));
                    visit(property, root, value, seen);
                }
            }
        }
        return;
    }
    for choice in schema.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
        visit(choice, root, value, seen);
    }
    if let (Some(items), Some(list)) = (schema.get("items"), value.as_array()) {
        list.iter().for_each(|item| visit(items, root, item, seen));
    }
    if let (Some(values), Some(object)) = (schema.get("additionalProperties"), value.as_object()) {
        object.values().for_each(|value| visit(values, root, value, seen));
    }
}

/// `Definition.field` and its default, for every field there is.
fn all_fields() -> Vec<(String, Option<Value>)> {
    let schema = schema();
    let definitions = schema["$defs"].as_object().unwrap();
    let fields = definitions.iter().flat_map(|(name, definition)| {
        let properties = definition["properties"].as_object().unwrap();
        properties.iter().map(move |(field, property)| (format!("{name}.{field}"), property.get("default").cloned()))
    });
    fields.collect()
}

#[test]
fn the_example_holds_every_key_with_its_default() {
    let root = schema();
    let mut seen = BTreeSet::new();
    visit(&root, &root, &as_json(&whole_example()), &mut seen);
    for (field, default) in all_fields() {
        let values: Vec<&str> =
            seen.iter().filter(|(name, _)| *name == field).map(|(_, value)| value.as_str()).collect();
        assert!(!values.is_empty(), "{field} is not in the example");
        // The two peppers stand in one list; the default is shown above it.
        if let Some(default) = default.filter(|_| field != "AuthFile.peppers") {
            assert!(values.contains(&default.to_string().as_str()), "{field}: {default} is not among {values:?}");
        }
    }
}

#[test]
fn what_is_commented_out_in_the_example_is_right_but_for_files_that_are_not_there() {
    let path = config_directory().join("portcullis.example.yaml");
    // Each driver has fields of its own.
    let example = whole_example().replace("  driver: sqlite\n", "  driver: postgres\n");
    let example = example.replace("  path: data/portcullis.db\n", "");
    let loaded = load_text(&path, &example, &|_| None);
    let others: Vec<_> = loaded
        .diagnostics
        .iter()
        .filter(|found| found.code != crate::config::Code::MissingFile)
        // The upstream whose `tls` is shown is a cleartext one.
        .filter(|found| !found.message.contains("no target of this upstream is https"))
        .map(ToString::to_string)
        .collect();
    assert_eq!(others, Vec::<String>::new());
}

/// What the schema promises is what holds when nothing is said.
#[test]
fn every_default_of_the_schema_is_the_one_that_holds() {
    let text = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\nupstreams: { app: { targets: [{ url: http://h }] } }\n\
                tls: {}\nroutes: [{ path: /**, upstream: app, auth: none }]\n";
    let settings = load_text(Path::new("p.yaml"), text, &|_| None).settings.unwrap();
    let root = schema();
    let mut seen = BTreeSet::new();
    visit(&root, &root, &serde_json::to_value(effective(&settings)).unwrap(), &mut seen);
    let mut checked = 0;
    for (field, default) in all_fields() {
        let Some(default) = default else { continue };
        for (_, value) in seen.iter().filter(|(name, _)| *name == field) {
            // Names of header fields ignore case.
            assert_eq!(value.to_lowercase(), default.to_string().to_lowercase(), "{field}");
            checked += 1;
        }
    }
    assert!(checked >= 55, "only {checked} defaults were met");
}

#[test]
fn every_field_is_documented() {
    let schema = schema();
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        for (field, property) in definition["properties"].as_object().unwrap() {
            let text = property["description"].as_str().unwrap_or_default();
            assert!(text.ends_with(['.', ':', '}']), "{name}.{field}: {text:?}");
        }
    }
}
