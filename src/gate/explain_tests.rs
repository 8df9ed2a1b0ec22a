use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;

use super::*;
use crate::cache::{Directory, KeySet, Publish, SyncTask};
use crate::config::{self, Settings};
use crate::domain::{Bounds, Fields, KeyId, MintedKey, OwnedFields, Revision};
use crate::gate::{Freshness, Keys, Snapshot, judge};
use crate::store::{Actor, OpenMode, StoreSettings, SyncSettings};

const ROUTES: &str = r#"
version: 1
listeners: [{ bind: "127.0.0.1:0" }]
upstreams:
  shop: { targets: [{ url: "http://127.0.0.1:9" }] }
  other: { targets: [{ url: "http://127.0.0.1:9" }] }
scopes: { read: { title: r }, write: { title: w }, audit: { title: a } }
roles: { clerk: [read, write] }
environments: { old: { max_key_age: 1h } }
routes:
  - path: /v1/**
    upstream: shop
    auth: any_key
  - path: /v1/orders/**
    upstream: shop
    environments: [live]
    cors: { origins: ["https://app.test"] }
    methods:
      GET: { scopes: read }
      POST: { scopes: { all: [write], any: [audit, read] } }
      OPTIONS: { scopes: audit }
  - { path: /public, upstream: shop, auth: none }
  - { path: /near, upstream: shop, auth: any_key, allow_ips: [10.0.0.0/8] }
  - { path: /trial, upstream: shop, scopes: audit, mode: report }
  - { path: /private, upstream: shop, scopes: read, accept: [] }
  - { path: "/files/{name}", upstream: shop, scopes: read }
  - { path: /files/secret, upstream: other, scopes: audit }
  - { path: /docs/a, upstream: shop, scopes: read }
  - { path: /docs/**, upstream: shop, scopes: audit }
"#;

fn settings(text: &str) -> Settings {
    let loaded = config::load_text(Path::new("test.yaml"), text, &|_| None);
    loaded.settings.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics))
}

fn rules(text: &str) -> Rules {
    let settings = settings(text);
    Rules::compile(settings.gate, &["shop", "other"]).unwrap()
}

fn key(scopes: &[&str]) -> SupposedCaller {
    let scopes = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
    let environment = "live".into();
    let profile = Profile { scopes, ..Profile::default() };
    SupposedCaller::Key(SupposedKey { kind: KeyKind::Secret, environment, profile, rejection: None })
}

fn ask(rules: &Rules, request: &str, caller: &SupposedCaller) -> Explanation {
    let (method, path) = request.split_once(' ').unwrap();
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    explain(&head(&method, path, Fields::none()), rules, caller, NOW)
}

fn head<'a>(method: &'a Method, path: &'a str, fields: Fields<'a>) -> RequestHead<'a> {
    let client = Some(IpAddr::from([10, 1, 2, 3]));
    RequestHead { method, host: "shop.test", path, query: None, fields, client, is_upgrade: false }
}

const NOW: Timestamp = Timestamp::from_unix_seconds(1_700_000_000);

fn text(scopes: &[Scope]) -> Vec<&str> {
    scopes.iter().map(Scope::as_str).collect()
}

#[test]
fn scopes_are_sorted_into_held_and_missing() {
    let rules = rules(ROUTES);
    /// Request, granted, held, missing.
    type Case = (&'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str]);
    let cases: &[Case] = &[
        ("GET /v1/orders/7", &["read"], &["read"], &[]),
        ("GET /v1/orders/7", &["*"], &["read"], &[]),
        ("POST /v1/orders", &["read"], &["read"], &["write"]),
        ("POST /v1/orders", &["write"], &["write"], &["read", "audit"]),
        ("POST /v1/orders", &["write", "audit"], &["write", "audit"], &[]),
        ("GET /public", &[], &[], &[]),
    ];
    for (request, granted, held, missing) in cases {
        let explanation = ask(&rules, request, &key(granted));
        assert_eq!(text(&explanation.held), *held, "{request} {granted:?}");
        assert_eq!(text(&explanation.missing), *missing, "{request} {granted:?}");
        assert_eq!(explanation.answer == Answer::Forward, missing.is_empty(), "{request} {granted:?}");
    }
    let nobody = ask(&rules, "GET /v1/orders/7", &SupposedCaller::Nobody);
    assert_eq!((nobody.held.len(), text(&nobody.missing)), (0, vec!["read"]));
    assert_eq!(nobody.answer, Answer::Refuse(Denial::MissingCredential));
}

#[test]
fn roles_count_like_the_scopes_they_stand_for() {
    let SupposedCaller::Key(key) = key(&[]) else { unreachable!() };
    let clerk =
        SupposedCaller::Key(SupposedKey { profile: Profile { roles: vec!["clerk".to_owned()], ..key.profile }, ..key });
    assert_eq!(ask(&rules(ROUTES), "POST /v1/orders", &clerk).answer, Answer::Forward);
}

#[test]
fn the_rules_that_were_beaten_are_named_and_so_are_those_that_must_pass_too() {
    let rules = rules(ROUTES);
    let path_of = |rule: &RuleRef| rules.route(rule.route).settings.path.as_str().to_owned();
    let found = ask(&rules, "GET /v1/orders/7", &key(&["read"]));
    assert_eq!(found.rule.as_ref().map(path_of).as_deref(), Some("/v1/orders/**"));
    assert_eq!(found.beaten.iter().map(path_of).collect::<Vec<_>>(), ["/v1/**"]);
    // Some servers take `;x` away, and then another rule answers.
    let twofold = ask(&rules, "GET /docs/a;x", &key(&["audit"]));
    assert_eq!(twofold.also.iter().map(path_of).collect::<Vec<_>>(), ["/docs/a"]);
    assert!(matches!(twofold.answer, Answer::Refuse(Denial::BadPath { .. })), "{twofold:?}");
    assert_eq!(ask(&rules, "GET /docs/a;x", &key(&["audit", "read"])).answer, Answer::Forward);
    let elsewhere = ask(&rules, "GET /files/SECRET", &key(&["*"]));
    assert!(matches!(elsewhere.answer, Answer::Refuse(Denial::BadPath { .. })), "{elsewhere:?}");
}

#[test]
fn the_path_is_told_as_it_is_matched() {
    let rules = rules(ROUTES);
    assert_eq!(ask(&rules, "GET /v1/x/../orders/%37", &key(&["read"])).path, "/v1/orders/7");
    assert_eq!(ask(&rules, "GET /../x", &key(&["read"])).path, "/../x");
    let nowhere = ask(&rules, "DELETE /v1/orders/7", &key(&["read"]));
    assert_eq!((nowhere.rule, nowhere.route.is_some()), (None, true), "405 has a route and no rule");
}

/// What a verdict and an answer have in common.
fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Pass(_) => "forward".to_owned(),
        Outcome::Preflight => "preflight".to_owned(),
        Outcome::Deny(denial) => format!("{denial:?}"),
        Outcome::Report(denial) => format!("report {denial:?}"),
    }
}

fn explained(answer: &Answer) -> String {
    match answer {
        Answer::Forward => "forward".to_owned(),
        Answer::Preflight => "preflight".to_owned(),
        Answer::Refuse(denial) => format!("{denial:?}"),
        Answer::Report(denial) => format!("report {denial:?}"),
    }
}

/// Keeps the newest directory.
#[derive(Default)]
struct Newest(Mutex<Arc<Directory>>);

impl Publish for Newest {
    fn directory_changed(&self, directory: &Arc<Directory>) {
        *self.0.lock().unwrap() = Arc::clone(directory);
    }
}

/// Keys of every kind, state and holding that decisions tell apart.
fn records(settings: &Settings) -> Vec<(KeyRecord, MintedKey)> {
    let mut made = Vec::new();
    let mut add = |environment: &str, kind: KeyKind, scopes: &[&str], change: &dyn Fn(&mut KeyRecord)| {
        let key = MintedKey::mint(&settings.gate.brand, environment, kind).unwrap();
        let (hash, _) = settings.gate.hasher.hash_new(&key.as_presented());
        let id = KeyId::generate();
        let mut record = KeyRecord {
            id,
            name: "k".to_owned(),
            description: String::new(),
            owner: None,
            environment: environment.to_owned(),
            kind,
            prefix: key.prefix().to_owned(),
            last4: key.last4().to_owned(),
            paired: false,
            hash,
            pepper: None,
            scopes: scopes.iter().map(|scope| scope.parse().unwrap()).collect(),
            roles: Vec::new(),
            may_grant: Vec::new(),
            bounds: Bounds::default(),
            active: true,
            expires_at: None,
            created_at: NOW.minus(Duration::from_secs(7200)),
            created_by: "local:test".to_owned(),
            last_used_at: None,
            revoked_at: None,
            replaces: None,
            lineage: id,
            ends_on_use: false,
            grace_until: None,
            metadata: Default::default(),
            revision: Revision::ZERO,
        };
        change(&mut record);
        made.push((record, key));
    };
    for scopes in [&[][..], &["read"], &["read", "write"], &["audit"], &["*"]] {
        for environment in ["live", "test", "old"] {
            for kind in KeyKind::ALL {
                add(environment, kind, scopes, &|_| ());
            }
        }
    }
    let all = &["read", "write", "audit"];
    let past = Some(NOW.minus(Duration::from_secs(5)));
    add("live", KeyKind::Secret, all, &|key| key.active = false);
    add("live", KeyKind::Secret, all, &|key| key.revoked_at = past);
    add("live", KeyKind::Secret, all, &|key| key.expires_at = past);
    add("live", KeyKind::Secret, all, &|key| key.grace_until = past);
    add("live", KeyKind::Secret, &[], &|key| key.roles = vec!["clerk".to_owned()]);
    add("live", KeyKind::Secret, all, &|key| (key.active, key.revoked_at, key.expires_at) = (false, past, past));
    add("live", KeyKind::Secret, all, &|key| (key.active, key.expires_at) = (false, past));
    made
}

#[tokio::test]
async fn an_explanation_says_what_live_traffic_is_told() {
    for more in ["", "auth: { hide_routes: true }", "mode: report", "mode: report\nreport: { known_bad: true }"] {
        let settings = settings(&format!("{more}\n{ROUTES}"));
        let rules = Arc::new(Rules::compile(settings.gate.clone(), &["shop", "other"]).unwrap());
        let store =
            crate::store::open(&StoreSettings::Memory, OpenMode::Create, crate::store::AuditSeal::default()).unwrap();
        let keys = records(&settings);
        let inserted = keys.iter().map(|(record, _)| record.clone()).collect();
        let revision = store.writer().insert_keys(inserted, Actor::named("local:test"), NOW).await.unwrap();
        let (set, newest) = (KeySet::new(), Arc::new(Newest::default()));
        let pace = SyncSettings { poll_interval: Duration::from_millis(10), last_used_flush: Duration::from_secs(1) };
        let (task, mut handle) =
            SyncTask::new(Arc::clone(store.feed()), Arc::clone(&set), Arc::clone(&newest) as _, &pace, None);
        let following = tokio::spawn(task.run());
        handle.reach(revision).await.unwrap();
        let directory = Arc::clone(&newest.0.lock().unwrap());
        let snapshot = Snapshot::join(Arc::clone(&rules), directory, None);
        let seen = Keys { set: &set, freshness: Freshness::Confirmed(Duration::ZERO) };

        let credentials = keys.iter().map(|(record, key)| (Some(record), Some(key))).chain([(None, None)]);
        for (record, key) in credentials {
            let mut fields = OwnedFields::default();
            if let Some(key) = key {
                fields.push(b"Authorization", format!("Bearer {}", key.reveal()).as_bytes());
            }
            let caller = record.map_or(SupposedCaller::Nobody, |record| {
                SupposedCaller::Key(SupposedKey::of_record(record, false, &rules, NOW))
            });
            for method in [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS, Method::DELETE, Method::TRACE] {
                for path in [
                    "/v1/orders/7",
                    "/v1/ORDERS/7",
                    "/v1/x",
                    "/public",
                    "/near",
                    "/trial",
                    "/private",
                    "/files/a",
                    "/files/SECRET",
                    "/docs/a",
                    "/docs/b",
                    "/docs/a;x",
                    "/none",
                    "/v1/%2F",
                    "//",
                ] {
                    let head = head(&method, path, fields.view());
                    let live = judge(&head, &snapshot, seen, NOW).unwrap();
                    let explanation = explain(&head, &rules, &caller, NOW);
                    let claim = format!("{more:?} {method} {path} {record:?}");
                    assert_eq!(explained(&explanation.answer), told(&live.outcome), "{claim}");
                    assert_eq!((explanation.rule, explanation.route), (live.rule, live.route), "{claim}");
                    assert_eq!(explanation.path, live.path, "{claim}");
                }
            }
        }
        following.abort();
    }
}

#[test]
fn a_route_that_accepts_no_place_lets_no_key_in() {
    let explanation = ask(&rules(ROUTES), "GET /private", &key(&["read"]));
    assert_eq!(explanation.answer, Answer::Refuse(Denial::MissingCredential));
}

#[test]
fn a_suspended_owner_speaks_against_every_key() {
    let rules = rules(ROUTES);
    let (record, _) = records(&settings(ROUTES)).remove(0);
    let supposed = SupposedKey::of_record(&record, true, &rules, NOW);
    assert_eq!(supposed.rejection, Some(Rejection::OwnerSuspended));
    assert_eq!(SupposedKey::of_record(&record, false, &rules, NOW).rejection, None);
}

#[test]
fn hidden_routes_are_not_told_apart_by_a_key_set_that_is_not_loaded() {
    let settings = settings(&format!("auth: {{ hide_routes: true }}\n{ROUTES}"));
    let rules = Arc::new(Rules::compile(settings.gate, &["shop", "other"]).unwrap());
    let snapshot = Snapshot::join(rules, Arc::default(), None);
    let set = KeySet::new();
    for path in ["/none", "/v1/x"] {
        let keys = Keys { set: &set, freshness: Freshness::Unloaded };
        let verdict = judge(&head(&Method::GET, path, Fields::none()), &snapshot, keys, NOW).unwrap();
        assert!(matches!(verdict.outcome, Outcome::Deny(Denial::AuthUnavailable)), "{path}: {verdict:?}");
    }
}
