use std::io;
use std::path::PathBuf;

use clap::CommandFactory;
use serde_json::Value;

use super::*;

/// What a verb said and how it ended.
struct Said {
    code: u8,
    out: String,
    talk: String,
}

/// Runs a command line on memory, with `portcullis.yaml` in a directory of its own.
fn say(config: &str, args: &[&str], input: &str) -> Said {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("portcullis.yaml");
    std::fs::write(&path, config).unwrap();
    let words = ["portcullis", "-c", path.to_str().unwrap()].into_iter().chain(args.iter().copied());
    let line = CommandLine::try_parse_from(words).unwrap();
    let (mut out, mut talk) = (Vec::new(), Vec::new());
    let mut console = Console {
        out: &mut out,
        talk: &mut talk,
        input: &mut input.as_bytes(),
        talk_is_watched: false,
        input_is_typed: false,
    };
    let answer = answer(line, &mut console);
    if let Err(failure) = &answer {
        write!(console.talk, "{failure}").unwrap();
    }
    let text = |bytes: Vec<u8>| anstream::adapter::strip_str(std::str::from_utf8(&bytes).unwrap()).to_string();
    Said { code: answer.err().map_or(0, |failure| failure.code()), out: text(out), talk: text(talk) }
}

const GOOD: &str = r#"
version: 1
listeners: [{ bind: "127.0.0.1:8080" }]
upstreams: { shop: { targets: [{ url: "http://127.0.0.1:9" }] } }
scopes: { read: { title: r }, write: { title: w } }
routes:
  - { path: /a, upstream: shop, methods: { GET: { scopes: read }, POST: { scopes: write } } }
  - { path: /me, upstream: shop, auth: any_key }
"#;

#[test]
fn the_command_line_makes_sense_to_its_parser() {
    CommandLine::command().debug_assert();
}

#[test]
fn the_configuration_is_named_before_or_after_the_verb() {
    for words in [&["portcullis", "-c", "x", "keys", "list"][..], &["portcullis", "keys", "list", "--config", "x"]] {
        assert_eq!(CommandLine::try_parse_from(words).unwrap().config, Some(PathBuf::from("x")), "{words:?}");
    }
}

#[test]
fn check_has_three_shapes_and_three_ends() {
    assert_eq!(say(GOOD, &["check", "--strict"], "").code, 0);
    let broken = GOOD.replace("scopes: read }", "scopes: [] }");
    for (format, name) in [("json", ""), ("sarif", "2.1.0")] {
        let said = say(&broken, &["validate", "--format", format], "");
        let value: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(said.code, 3);
        assert!(value.to_string().contains(name) && value.to_string().contains("portcullis.yaml"), "{value}");
    }
    let warned = GOOD.replace("write: { title: w }", "write: { title: w }, idle: { title: i }");
    let said = say(&warned, &["check"], "");
    assert!(said.code == 0 && said.out.contains("idle"), "{}", said.out);
    assert_eq!(say(&warned, &["check", "--strict"], "").code, 6);
}

#[test]
fn a_store_in_memory_is_out_of_reach_for_keys() {
    let memory = format!("{GOOD}store: {{ driver: memory }}\n");
    let verbs: [&[&str]; 6] = [
        &["keys", "list"],
        &["keys", "create", "--name", "x", "--scopes", "read"],
        &["keys", "revoke", "key_0190a0b0c0d07e0f8000000000000000"],
        &["keys", "verify"],
        &["keys", "import", "none.csv"],
        &["explain", "GET", "/a", "--key-id", "key_0190a0b0c0d07e0f8000000000000000"],
    ];
    for verb in verbs {
        let said = say(&memory, verb, "some-key\n");
        assert!(said.code == 2 && said.talk.contains("driver: memory"), "{verb:?}: {}", said.talk);
    }
}

#[test]
fn a_misspelt_scope_is_refused_before_a_store_is_made() {
    let said = say(GOOD, &["keys", "create", "--name", "x", "--scopes", "raed"], "");
    assert!(said.code == 2 && said.talk.contains("Did you mean \"read\"?"), "{}", said.talk);
    let said = say(GOOD, &["keys", "create", "--name", "x", "--scopes", "read", "--may-grant", "read"], "");
    assert!(said.code == 2 && said.talk.contains("only management keys"), "{}", said.talk);
}

#[test]
fn a_new_key_is_verified_from_standard_input() {
    let directory = tempfile::tempdir().unwrap();
    let store = format!("{GOOD}store: {{ path: {} }}\n", directory.path().join("keys.db").display());
    let key = say(&store, &["keys", "create", "--name", "x", "--scopes", "read", "--quiet"], "").out;
    for end in ["\n", "\r\n", ""] {
        let said = say(&store, &["keys", "verify", "--output", "json"], &format!("{}{end}", key.trim()));
        let value: Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!((said.code, &value["valid"], &value["record"]["name"]), (0, &true.into(), &"x".into()), "{value}");
    }
    let mut mistyped = key.trim().to_owned();
    let last = if mistyped.pop() == Some('0') { '1' } else { '0' };
    let said = say(&store, &["keys", "verify"], &format!("{mistyped}{last}"));
    assert!(said.code == 1 && said.out.contains("typing error") && !said.out.contains(&mistyped), "{}", said.out);
    assert_eq!(say(&store, &["keys", "verify"], "").code, 2);
    assert_eq!(say(&store, &["keys", "verify"], "two words").code, 2);
}

#[test]
fn lists_are_arrays_even_when_there_is_nothing_or_much() {
    let directory = tempfile::tempdir().unwrap();
    let store = format!("{GOOD}store: {{ path: {} }}\n", directory.path().join("keys.db").display());
    let list = |args: &[&str]| -> Vec<Value> {
        let said = say(&store, &[&["keys", "list", "--output", "json"], args].concat(), "");
        serde_json::from_str(&said.out).unwrap()
    };
    let none = say(&store, &["keys", "import", "-", "--format", "jsonl"], "");
    assert_eq!(none.code, 0, "{}", none.talk);
    assert_eq!(list(&[]), Vec::<Value>::new());
    let rows: String =
        (0..1_234).map(|i| format!("{{\"name\":\"n{i}\",\"scopes\":[],\"key\":\"old-key-of-ours-{i}\"}}\n")).collect();
    let said = say(&store, &["keys", "import", "-", "--format", "jsonl"], &rows);
    assert_eq!((said.code, said.out.as_str()), (0, "imported 1234 keys\n"), "{}", said.talk);
    assert_eq!(list(&[]).len(), 1_234, "more than a page");
    assert_eq!(list(&["--name", "n7"]).len(), 1);
    assert_eq!(list(&["--state", "revoked"]).len(), 0);
    let again = say(&store, &["keys", "import", "-", "--format", "jsonl"], &rows);
    assert!(again.code == 1 && again.talk.contains("standard input:1: this key is in the store already"));
    assert_eq!(list(&[]).len(), 1_234);
}

#[test]
fn explain_answers_scripts_too() {
    let said = say(GOOD, &["explain", "POST", "/a", "--scopes", "read", "--output", "json"], "");
    let value: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(value["decision"], "deny");
    assert_eq!((&value["status"], &value["code"]), (&403.into(), &"insufficient_scope".into()));
    assert_eq!(value["missing_scopes"], serde_json::json!(["write"]));
    assert_eq!(value["rule"]["line"], 7);
    let said = say(GOOD, &["explain", "GET", "/me", "--scopes", "", "--output", "json"], "");
    let value: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&value["decision"], &value["status"]), (&"allow".into(), &Value::Null));
}

#[test]
fn what_cannot_be_asked_ends_with_2() {
    for args in [
        &["explain", "GET", "v1/orders"][..],
        &["explain", "G ET", "/"],
        &["explain", "GET", "/", "--scopes", "nonsense"],
        &["explain", "GET", "/", "--scopes", "read", "--environment", "nowhere"],
        &["routes", "test", "/nowhere/expect.yaml"],
        &["dev", "--upstream", "nowhere"],
    ] {
        let said = say(GOOD, args, "");
        assert!(said.code == 2 && said.talk.starts_with("error: "), "{args:?}: {}", said.talk);
    }
}

#[test]
fn a_reader_that_has_left_is_no_failure() {
    let gone = io::Error::from(io::ErrorKind::BrokenPipe);
    assert_eq!(Failure::from(gone).code(), 0);
    assert_eq!(Failure::from(io::Error::from(io::ErrorKind::StorageFull)).code(), 1);
}
