use std::path::Path;

use super::*;
use crate::cli::site::compile;
use crate::config;
use crate::domain::{Bounds, GrantedScope, KeyHash, KeyId, KeyKind, Revision, Timestamp};

fn record(kind: KeyKind, scopes: &str) -> KeyRecord {
    let id = KeyId::generate();
    KeyRecord {
        id,
        name: "k".to_owned(),
        description: String::new(),
        owner: None,
        environment: "live".to_owned(),
        kind,
        prefix: String::new(),
        last4: String::new(),
        paired: false,
        hash: KeyHash::from_bytes([0; 32]),
        pepper: None,
        scopes: scopes.split_whitespace().map(|scope| scope.parse::<GrantedScope>().unwrap()).collect(),
        roles: Vec::new(),
        may_grant: Vec::new(),
        bounds: Bounds::default(),
        active: true,
        expires_at: None,
        created_at: Timestamp::from_unix_seconds(1),
        created_by: String::new(),
        last_used_at: None,
        revoked_at: None,
        replaces: None,
        lineage: id,
        ends_on_use: false,
        grace_until: None,
        metadata: std::collections::BTreeMap::new(),
        revision: Revision::ZERO,
    }
}

/// The line for a key with these scopes, `K` in the key's place.
fn line(listeners: &str, routes: &str, kind: KeyKind, scopes: &str) -> Option<String> {
    call(listeners, routes, &record(kind, scopes)).map(|call| call.with_key("K"))
}

fn call(listeners: &str, routes: &str, record: &KeyRecord) -> Option<Call> {
    let text = format!(
        "version: 1\nlisteners: {listeners}\nupstreams: {{ u: {{ targets: [{{ url: \"http://127.0.0.1:9\" }}] }} }}\n\
         scopes: {{ read: {{ title: r }}, write: {{ title: w }} }}\nroutes:\n{routes}\n"
    );
    let loaded = config::load_text(Path::new("test.yaml"), &text, &|_| None);
    let settings = loaded.settings.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics));
    let rules = compile(&settings).unwrap();
    match try_key(&settings, &rules, record, Timestamp::from_unix_seconds(2)) {
        Trial::Line(call) => Some(call),
        Trial::NoRoute | Trial::NoListener => None,
    }
}

const HERE: &str = "[{ bind: 127.0.0.1:8080 }]";
const ORDERS: &str =
    "  - path: /v1/orders/{id}/**\n    upstream: u\n    methods: { GET: { scopes: read }, POST: { scopes: write } }\n";

#[test]
fn the_line_is_for_a_rule_that_lets_the_key_in() {
    let cases = [
        ("read", Some("curl -i http://127.0.0.1:8080/v1/orders/example -H 'Authorization: Bearer K'")),
        ("write", Some("curl -i -X POST http://127.0.0.1:8080/v1/orders/example -H 'Authorization: Bearer K'")),
        ("*", Some("curl -i http://127.0.0.1:8080/v1/orders/example -H 'Authorization: Bearer K'")),
        ("", None),
    ];
    for (scopes, expected) in cases {
        assert_eq!(line(HERE, ORDERS, KeyKind::Secret, scopes).as_deref(), expected, "{scopes}");
    }
    assert_eq!(line(HERE, ORDERS, KeyKind::Publishable, "write"), None, "unsafe methods are not for such keys");
    let own = "curl -i http://127.0.0.1:9901/v1/keys/self -H 'Authorization: Bearer K'";
    assert_eq!(line(HERE, ORDERS, KeyKind::Management, "*").as_deref(), Some(own), "every one may show itself");
    let any = format!(
        "{ORDERS}  - {{ path: /me, upstream: u, auth: any_key }}\n  - {{ path: /, upstream: u, auth: none }}\n"
    );
    let expected = "curl -i http://127.0.0.1:8080/me -H 'Authorization: Bearer K'";
    assert_eq!(line(HERE, &any, KeyKind::Secret, "").as_deref(), Some(expected), "and never for a public one");
}

#[test]
fn a_bound_key_is_tried_as_it_is_bound() {
    let mut page = record(KeyKind::Publishable, "read");
    page.bounds.allowed_origins = vec!["https://shop.example".to_owned()];
    let tried = call(HERE, ORDERS, &page).unwrap();
    assert!(tried.is_from_here() && tried.with_key("K").contains("-H 'Origin: https://shop.example'"), "{tried:?}");

    let mut far = record(KeyKind::Secret, "read");
    far.bounds.allowed_ips = vec!["10.1.0.0/16".parse().unwrap()];
    assert!(!call(HERE, ORDERS, &far).unwrap().is_from_here());
    let closed = "  - { path: /a, upstream: u, scopes: read, allow_ips: [10.1.2.0/24] }\n";
    assert!(!call(HERE, closed, &far).unwrap().is_from_here());
    assert!(!call(HERE, closed, &record(KeyKind::Secret, "read")).unwrap().is_from_here());
    far.bounds.allowed_ips = vec!["10.2.0.0/16".parse().unwrap()];
    assert!(call(HERE, closed, &far).is_none(), "what the two let in is nobody");
}

#[test]
fn the_key_goes_where_the_route_looks_for_it() {
    let cases = [
        ("{ header: X-API-Key }", "curl -i http://127.0.0.1:8080/a -H 'X-API-Key: K'"),
        ("{ header: Authorization, scheme: Basic }", "curl -i http://127.0.0.1:8080/a -u K:"),
        ("{ header: X-Auth, scheme: Token }", "curl -i http://127.0.0.1:8080/a -H 'X-Auth: Token K'"),
        ("{ cookie: session }", "curl -i http://127.0.0.1:8080/a -b session=K"),
        ("{ query: api_key }", "curl -i 'http://127.0.0.1:8080/a?api_key=K'"),
    ];
    for (place, expected) in cases {
        let routes = format!("  - {{ path: /a, upstream: u, scopes: read, accept: [{place}] }}\n");
        assert_eq!(line(HERE, &routes, KeyKind::Secret, "read").as_deref(), Some(expected), "{place}");
    }
}

#[test]
fn the_line_leads_to_a_listener_that_can_be_reached() {
    let routes = "  - { path: /a, upstream: u, scopes: read }\n";
    let cases = [
        ("[{ bind: 0.0.0.0:80 }]", "http://127.0.0.1:80/a"),
        ("[{ bind: \"[::]:80\" }]", "http://[::1]:80/a"),
        ("[{ bind: 127.0.0.1:0 }]", "http://127.0.0.1:PORT/a"),
        ("[{ bind: 127.0.0.1:81, proxy_protocol: { from: [10.0.0.0/8] } }, { bind: 127.0.0.1:82 }]", "127.0.0.1:82/a"),
        ("[{ bind: \"unix:/run/a b.sock\" }]", "http://localhost/a --unix-socket '/run/a b.sock'"),
    ];
    for (listeners, expected) in cases {
        let line = line(listeners, routes, KeyKind::Secret, "read").unwrap();
        assert!(line.contains(expected), "{listeners}: {line}");
    }
    let hosts = "  - { hosts: [\"*.example.com\"], path: /a, upstream: u, scopes: read }\n";
    let line = line(HERE, hosts, KeyKind::Secret, "read").unwrap();
    assert!(line.contains("http://127.0.0.1:8080/a -H 'Host: www.example.com'"), "{line}");
}

#[test]
fn words_survive_the_shell() {
    assert_eq!(shell_word("http://[::1]/a"), "'http://[::1]/a'");
    assert_eq!(shell_word("it's"), r"'it'\''s'");
    assert_eq!(shell_word(""), "''");
    assert_eq!(shell_word("http://h:1/a%20b"), "http://h:1/a%20b");
}
