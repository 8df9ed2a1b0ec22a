//! What the report finds, and what it suggests.

use std::path::Path;

use serde_json::json;

use super::*;
use crate::config;
use crate::domain::network_of;
use crate::store::fixtures::{NOW, by, key, key_id, owner, owner_id};
use crate::store::{AuditSeal, OpenMode, Passage, StoreSettings, UsageCount, UsageNotes, open};
use crate::usage::report_json;

const CONFIG: &str = r#"
version: 1
listeners: [{ bind: "127.0.0.1:0" }]
upstreams: { shop: { targets: [{ url: "http://127.0.0.1:9" }] } }
scopes: { keys:manage: {}, read:orders: {}, write:orders: {}, read:items: {}, read:bills: {} }
roles: { clerk: ["read:orders", "write:orders"], reader: ["read:*"] }
routes:
  - { path: /orders/**, upstream: shop, methods: { GET: { scopes: read:orders }, POST: { scopes: { all: [read:orders], any: [write:orders, read:bills] } } } }
  - { path: /items/**, upstream: shop, scopes: read:items }
  - { path: /keys/**, upstream: portcullis, auth: any_key, map: { "keys:manage": "portcullis:keys" } }
  - { path: /trial, upstream: shop, scopes: read:bills, mode: report, methods: { GET: {}, POST: {}, PUT: {} } }
"#;

fn settings() -> GateSettings {
    config::load_text(Path::new("test.yaml"), CONFIG, &|_| None).settings.unwrap().gate
}

/// Held scopes and roles, the rules passed; excess, used and suggested.
#[test]
fn the_smaller_set_lets_a_key_do_what_it_does() {
    let settings = settings();
    let demands = Demands::of(&settings);
    let text = |holding: &Holding| {
        let roles = holding.roles.iter().map(|role| format!("@{role}"));
        holding.scopes.iter().map(ToString::to_string).chain(roles).collect::<Vec<_>>().join(" ")
    };
    let (get, post, items) = ("GET /orders/**", "POST /orders/**", "* /items/**");
    for (held, rules, expected) in [
        ("read:orders", vec![get], None),
        ("read:orders write:orders", vec![get], Some("write:orders | read:orders | read:orders")),
        (
            "read:orders write:orders read:items",
            vec![get, post],
            Some("read:items | read:orders write:orders | read:orders write:orders"),
        ),
        ("read:*", vec![get], Some("read:* | read:orders | read:orders")),
        ("read:*", vec![get, items], Some("read:* | read:items read:orders | read:items read:orders")),
        ("read:*", vec![get, post, items], None),
        ("read:orders mail:send", vec![get], Some("mail:send | read:orders | read:orders")),
        ("* read:orders", vec![get], Some("* | read:orders | read:orders")),
        ("@clerk", vec![get], Some("@clerk | read:orders | read:orders")),
        ("@clerk", vec![get, post], None),
        ("@clerk read:*", vec![get, post], Some("read:* | read:bills read:orders write:orders | read:bills @clerk")),
        ("@clerk read:items", vec![get, post], Some("read:items | read:orders write:orders | @clerk")),
        ("@reader @gone", vec![items], Some("@gone @reader | read:items | read:items")),
        ("read:orders read:items", vec!["GET /no/longer/there"], Some("read:items read:orders |  | ")),
        ("read:orders keys:manage", vec![get], Some("keys:manage | read:orders | read:orders")),
        ("read:orders keys:manage", vec![get, "* /keys/**"], None),
        ("read:orders", vec![], None),
    ] {
        let mut record = key(1);
        (record.scopes, record.roles) = (Vec::new(), Vec::new());
        for word in held.split(' ') {
            match word.strip_prefix('@') {
                Some(role) => record.roles.push(role.to_owned()),
                None => record.scopes.push(word.parse().unwrap()),
            }
        }
        let rules: Vec<Arc<str>> = rules.into_iter().map(Arc::from).collect();
        let found = demands.excess(record, &rules, &settings).map(|found| {
            let used: Vec<&str> = found.used.iter().map(Scope::as_str).collect();
            format!("{} | {} | {}", text(&found.excess), used.join(" "), text(&found.suggested))
        });
        assert_eq!(found.as_deref(), expected, "{held} {rules:?}");
    }
}

#[tokio::test]
async fn owners_read_of_their_own_keys_alone() {
    let store = open(&StoreSettings::Memory, OpenMode::Create, AuditSeal::default()).unwrap();
    store.writer().insert_owner(owner(1), by(), NOW).await.unwrap();
    let mut owned = key(1);
    owned.owner = Some(owner_id(1));
    store.writer().insert_keys(vec![owned, key(2)], by(), NOW).await.unwrap();
    let later = NOW.plus(UNUSED_FOR);
    let finding = |caller| Finding {
        rule: "GET /trial".into(),
        reason: "insufficient_scope".into(),
        caller,
        missing: vec!["read:bills".to_owned()],
        requests: 2,
        first: NOW,
        last: NOW,
    };
    let network = FoundCaller::Network(network_of("192.0.2.1".parse().unwrap()));
    let callers = [FoundCaller::Key(key_id(1)), FoundCaller::Key(key_id(2)), network];
    let count = |number| UsageCount {
        key: key_id(number),
        rule: "GET /orders/**".into(),
        status: 200,
        passage: Passage::Allowed,
        at: NOW,
        requests: 1,
    };
    let let_in = UsageCount { rule: "POST /trial".into(), ..count(1) };
    let notes = UsageNotes {
        counts: vec![count(1), count(2), let_in],
        findings: callers.map(finding).to_vec(),
        ..UsageNotes::default()
    };
    store.usage().note_usage(notes).await.unwrap();
    let ask = async |about| {
        let query = ReportQuery { about, unused_for: UNUSED_FOR, now: later };
        report(&store, &settings(), query).await.unwrap()
    };
    let owner = Some(owner_id(1));
    let among = KeyQuery { owner, ..KeyQuery::default() };
    let sees = |record: &KeyRecord| record.owner == owner;
    let (all, own) = (ask(About::Everything).await, ask(About::Keys { among: Some(&among), sees: &sees }).await);
    let nobody = ask(About::Keys { among: None, sees: &|_| true }).await;
    assert!(nobody.unused_keys.is_empty() && nobody.report_mode.is_empty() && nobody.excess_scopes.is_empty());
    let without = KeyQuery { unowned: true, ..KeyQuery::default() };
    let unowned = ask(About::Keys { among: Some(&without), sees: &|_| true }).await;
    assert!(unowned.unused_keys.len() == 1 && unowned.unused_keys.iter().all(|key| key.owner.is_none()));
    assert_eq!((all.unused_keys.len(), own.unused_keys.len()), (2, 1));
    let rules = |report: &Report| {
        let trial = |trial: &Trial| format!("{} {} {}", trial.rule, trial.requests, trial.callers.len());
        report.report_mode.iter().map(trial).collect::<Vec<_>>()
    };
    assert_eq!(rules(&all), ["GET /trial 6 3", "POST /trial 0 0", "PUT /trial 0 0"]);
    assert_eq!(rules(&own), ["GET /trial 2 1"]);
    let shown = report_json(&all);
    let trial = |number: usize| (&shown["report_mode"][number]["ready"], &shown["report_mode"][number]["keys_let_in"]);
    assert_eq!(trial(0), (&json!(false), &json!(0)));
    assert_eq!(trial(1), (&json!(true), &json!(1)));
    assert_eq!(trial(2), (&json!(false), &json!(0)), "nobody asked it yet");
    let names: Vec<_> = all.report_mode[0].callers.iter().map(|caller| caller.key_name.as_deref()).collect();
    assert!(names.contains(&Some("key 2")) && names.contains(&None), "{names:?}");
    let early = ReportQuery { about: About::Everything, unused_for: UNUSED_FOR, now: NOW.plus(UNUSED_FOR / 2) };
    assert!(report(&store, &settings(), early).await.unwrap().unused_keys.is_empty());
}
