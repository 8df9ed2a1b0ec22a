//! Claims about selectors and about which rule of one path a method finds.

use super::*;

#[test]
fn names_and_both_spellings_of_all_are_selectors() {
    assert_eq!(MethodSelector::parse("GET"), Ok(MethodSelector::Named(Method::GET)));
    assert_eq!(MethodSelector::parse("*"), Ok(MethodSelector::All));
    assert_eq!(MethodSelector::parse("ALL"), Ok(MethodSelector::All));
    assert_eq!(MethodSelector::parse("PURGE").unwrap(), MethodSelector::Named(Method::from_bytes(b"PURGE").unwrap()));
    assert_eq!(
        MethodSelector::parse("m-search").unwrap(),
        MethodSelector::Named(Method::from_bytes(b"m-search").unwrap())
    );
}

#[test]
fn a12_what_could_never_be_meant_is_an_error_with_a_fix() {
    for (text, fix) in [
        ("get", "write GET"),
        ("Post", "write POST"),
        ("all", "write ALL"),
        ("trace", "remove the entry"),
        ("TRACE", "remove the entry"),
        ("CONNECT", "remove the entry"),
    ] {
        assert_eq!(MethodSelector::parse(text).unwrap_err().fix, fix, "{text}");
    }
    for text in ["", "GET POST", "GET,POST", "a/b", "é"] {
        let error = MethodSelector::parse(text).unwrap_err();
        assert!(error.problem.contains("not a method name"), "{text}: {}", error.problem);
    }
}

fn rules(names: &[&str]) -> MethodRules<usize> {
    let selectors: Vec<_> = names.iter().map(|name| MethodSelector::parse(name).unwrap()).collect();
    MethodRules::new(selectors.iter().zip(0..))
}

#[test]
fn named_comes_before_all_and_head_follows_get_unless_named() {
    let purge = Method::from_bytes(b"PURGE").unwrap();
    for (names, method, expected) in [
        (&["*", "GET"][..], Method::GET, Some(1)),
        (&["*", "GET"], Method::HEAD, Some(1)),
        (&["*", "GET", "HEAD"], Method::HEAD, Some(2)),
        (&["*"], Method::HEAD, Some(0)),
        (&["*", "GET"], Method::OPTIONS, Some(0)),
        (&["HEAD"], Method::GET, None),
        (&["POST"], Method::HEAD, None),
        (&["*"], Method::TRACE, None),
        (&["*"], purge.clone(), None),
        (&["*", "PURGE"], purge.clone(), Some(1)),
        (&["LINK", "PURGE"], purge, Some(1)),
    ] {
        assert_eq!(rules(names).find(&method), expected, "{names:?} {method}");
    }
}

#[test]
fn allow_names_every_method_that_is_answered_and_no_other() {
    for (names, expected) in [
        (&["GET"][..], "GET, HEAD"),
        (&["HEAD"], "HEAD"),
        (&["PURGE", "POST"], "POST, PURGE"),
        (&["*", "PURGE", "GET"], "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, PURGE"),
    ] {
        let rules = rules(names);
        assert_eq!(rules.allow().header(), expected);
        let answered = rules.allow().methods().iter().all(|method| rules.find(method).is_some());
        assert!(answered, "{names:?}");
    }
}

#[test]
fn covering_agrees_with_finding() {
    let methods = [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS, Method::TRACE];
    for name in ["GET", "HEAD", "POST", "*", "PURGE"] {
        let selector = MethodSelector::parse(name).unwrap();
        for method in &methods {
            assert_eq!(selector.covers(method), rules(&[name]).find(method).is_some(), "{name} {method}");
        }
    }
}
