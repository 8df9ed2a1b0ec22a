use std::path::Path;

use super::*;
use crate::config;

fn settings() -> GateSettings {
    let text = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\n\
                upstreams: { u: { targets: [{ url: \"http://127.0.0.1:9\" }] } }\n\
                scopes: { orders:read: { title: r }, orders:write: { title: w } }\n\
                roles: { clerk: [orders:read] }\n\
                routes: [{ path: /a, upstream: u, scopes: { all: [orders:read], any: [stock:read] } }]\n";
    let loaded = config::load_text(Path::new("test.yaml"), text, &|_| None);
    loaded.settings.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics)).gate
}

fn list(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn scopes_are_those_declared_or_demanded_and_wildcards_that_cover_one() {
    let settings = settings();
    let vocabulary = Vocabulary::of(&settings);
    let granted = |text: &str, kind| vocabulary.scopes(&list(&[text]), kind);
    for known in ["orders:read", "stock:read", "orders:*", "stock:*", "*"] {
        assert!(granted(known, KeyKind::Secret).is_ok(), "{known}");
    }
    let refused = [
        ("orders:raed", "Did you mean \"orders:read\"?"),
        ("billing:*", "covers no scope"),
        ("orders read", "a space separates scopes"),
        ("or*", "`*` stands alone or last"),
        ("portcullis:keys", "the kind `management`"),
    ];
    for (unknown, word) in refused {
        let error = granted(unknown, KeyKind::Secret).unwrap_err();
        assert!(error.contains(word), "{unknown}: {error}");
    }
    assert!(granted("portcullis:keys", KeyKind::Management).is_ok());
    let error = granted("portcullis:key", KeyKind::Management).unwrap_err();
    assert!(error.contains("Did you mean \"portcullis:keys\"?"), "{error}");
    let error = granted("portcullis:*", KeyKind::Management).unwrap_err();
    assert!(error.contains("`*`"), "no wildcard covers the gateway's own: {error}");
}

#[test]
fn a_scope_named_twice_is_held_once_and_their_number_is_bounded() {
    let settings = settings();
    let vocabulary = Vocabulary::of(&settings);
    let twice = vocabulary.scopes(&list(&["orders:read", "orders:read"]), KeyKind::Secret).unwrap();
    assert_eq!(twice.len(), 1);
    let many: Vec<String> = std::iter::once("*".to_owned()).chain((0..300).map(|_| "orders:read".to_owned())).collect();
    assert!(vocabulary.scopes(&many, KeyKind::Secret).is_ok(), "repetitions do not count");
}

#[test]
fn roles_and_environments_must_exist() {
    let settings = settings();
    let vocabulary = Vocabulary::of(&settings);
    assert_eq!(vocabulary.roles(&list(&["clerk"])), Ok(list(&["clerk"])));
    assert!(vocabulary.roles(&list(&["clrek"])).unwrap_err().contains("Did you mean \"clerk\"?"));
    assert_eq!(vocabulary.environment_word("test"), Ok("test"));
    assert!(vocabulary.environment_word("production").unwrap_err().contains("There are: live, test."));
    assert_eq!(vocabulary.environment_of_word("live"), Some("live"));
    assert_eq!(vocabulary.environment_of_word("prod"), None);
}

#[test]
fn labels_are_bounded_and_hold_nothing_that_steers_a_terminal() {
    assert!(check_name("Ünïcode is fine").is_ok());
    for bad in ["", "  ", "a\nb", "a\u{1b}[31m", &"x".repeat(201)] {
        assert!(check_name(bad).is_err(), "{bad:?}");
    }
    assert!(check_description(&"x".repeat(2_000)).is_ok());
    assert!(check_description("two\nlines\tand \u{1}").is_ok());
    assert!(check_description("a\0b").is_err());
    assert!(check_description(&"x".repeat(2_001)).is_err());
}

#[test]
fn an_empty_list_is_a_list_of_nothing() {
    assert_eq!(split_list(""), list(&[]));
    assert_eq!(split_list(" a, b ,,c"), list(&["a", "b", "c"]));
}
