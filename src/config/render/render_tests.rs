use std::path::Path;

use super::{Colour, json, sarif, text};
use crate::config::{Code, Loaded, load_text};

const BROKEN: &str = "\
version: 1
listeners: [{ bind: 127.0.0.1:0 }]
upstreams: { app: { kind: echo } }
auth: { peppers: [{ id: p, secret: tiny }] }
routes:
  - path: /exercise   # übung
    upstream: app
    scopes: orders read
  - path: /b
    upstream: ap
    auth: none
";

fn broken() -> Loaded {
    load_text(Path::new("conf/p.yaml"), BROKEN, &|_| None)
}

#[test]
fn text_shows_the_line_a_caret_and_a_way_out_and_hides_secrets() {
    let Loaded { diagnostics, sources, .. } = broken();
    let expected = "\
error[bad-value]: conf/p.yaml:4:36 auth.peppers[0].secret: this secret is shorter than 16 bytes. Make one with \
`openssl rand -hex 32`, and refer to it as ${file:PATH}.
  |
4 | auth: { peppers: [{ id: p, secret: **** }] }
  |                                    ^^^^

error[bad-value]: conf/p.yaml:8:13 routes[0].scopes: \"orders read\" is not a scope: a space separates scopes \
(RFC 6749 §3.3). Write one entry each: [\"orders\", \"read\"].
  |
8 |     scopes: orders read
  |             ^^^^^^^^^^^

error[unknown-reference]: conf/p.yaml:10:15 routes[1].upstream: there is no upstream called \"ap\". Did you mean `app`?
   |
10 |     upstream: ap
   |               ^^

3 errors, 0 warnings
";
    assert_eq!(text(&diagnostics, &sources, Colour::Never), expected);
}

#[test]
fn text_shows_both_places_of_a_tie() {
    let tie = "\
version: 1
listeners: [{ bind: 127.0.0.1:0 }]
upstreams: { app: { kind: echo } }
routes:
  - { path: /a, upstream: app, auth: none }
  - { path: /b, upstream: app, auth: none }
  - { path: /a, upstream: app, auth: any_key }
";
    let Loaded { diagnostics, sources, .. } = load_text(Path::new("p.yaml"), tie, &|_| None);
    let expected = "\
error[tie]: p.yaml:7:5 routes[2]: \"*\" /a is defined twice. Remove one, or give the two different hosts, paths or methods.
  |
5 |   - { path: /a, upstream: app, auth: none }
  |     - first defined here
6 |   - { path: /b, upstream: app, auth: none }
7 |   - { path: /a, upstream: app, auth: any_key }
  |     ^

1 error, 0 warnings
";
    assert_eq!(text(&diagnostics, &sources, Colour::Never), expected);
}

#[test]
fn nothing_found_is_nothing_said() {
    let sources = crate::config::Sources::default();
    assert_eq!(text(&[], &sources, Colour::Always), "");
    assert_eq!(json(&[]), serde_json::json!([]));
}

#[test]
fn only_colour_brings_escape_sequences() {
    let Loaded { diagnostics, sources, .. } = broken();
    assert!(text(&diagnostics, &sources, Colour::Always).contains('\u{1b}'));
    assert!(!text(&diagnostics, &sources, Colour::Never).contains('\u{1b}'));
}

#[test]
fn json_is_an_array_of_records() {
    let records = json(&broken().diagnostics);
    let expected = serde_json::json!({
        "severity": "error",
        "code": "unknown-reference",
        "message": "there is no upstream called \"ap\"",
        "fix": "Did you mean `app`?",
        "path": "routes[1].upstream",
        "file": "conf/p.yaml",
        "line": 10,
        "column": 15,
        "end_line": 10,
        "end_column": 17,
        "labels": [],
    });
    assert_eq!(records[2], expected);
}

/// The parts of SARIF 2.1.0 that readers rely on (§3.14, §3.27, §3.30).
#[test]
fn sarif_names_rules_and_regions() {
    let log = sarif(&broken().diagnostics);
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), Code::ALL.len());
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 3);
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(rules[index]["id"], result["ruleId"]);
        assert_eq!(result["level"], "error");
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "conf/p.yaml");
        assert!(place["region"]["startLine"].as_u64().unwrap() >= 1);
        assert!(place["region"]["startColumn"].as_u64().unwrap() >= 1);
        assert!(result["message"]["text"].as_str().unwrap().ends_with(['.', '?']));
    }
}

#[test]
fn every_code_has_its_own_word_and_a_sentence() {
    let mut words: Vec<_> = Code::ALL.iter().map(|code| code.word()).collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), Code::ALL.len());
    assert!(Code::ALL.iter().all(|code| code.summary().ends_with('.') && !code.summary().starts_with(' ')));
}
