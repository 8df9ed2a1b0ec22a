use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::config;
use crate::domain::{GrantedScope, Quota, RateLimit};
use crate::manage::authority::Caller;
use crate::store::Actor;

fn settings() -> GateSettings {
    let text = "version: 1\nlisteners: [{ bind: 127.0.0.1:0 }]\n\
                upstreams: { u: { targets: [{ url: \"http://127.0.0.1:9\" }] } }\n\
                scopes: { read: { title: r }, write: { title: w } }\n\
                environments: { live: { word: prod } }\n\
                routes: [{ path: /a, upstream: u, scopes: read }]\n";
    let loaded = config::load_text(Path::new("test.yaml"), text, &|_| None);
    loaded.settings.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics)).gate
}

fn record(row: Value) -> Result<KeyRecord, String> {
    record_for(&Authority::Local(Actor::named("local:test")), row)
}

fn record_for(authority: &Authority, row: Value) -> Result<KeyRecord, String> {
    let settings = settings();
    let Value::Object(fields) = row else { panic!("{row}") };
    RowReader::new(&settings, authority, Timestamp::from_unix_seconds(7)).record(fields)
}

const HASH: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789ABCDEF";

#[test]
fn a_row_becomes_the_record_it_describes() {
    let record = record(json!({
        "id": "key_0190a0b0c0d07e0f8000000000000000",
        "name": "old",
        "description": "from the other gateway",
        "environment": "test",
        "kind": "publishable",
        "prefix": "sk_old",
        "last4": "abcd",
        "hash": HASH,
        "scopes": ["read"],
        "active": false,
        "expires_at": "2030-01-01T00:00:00Z",
        "created_at": "2020-01-01T00:00:00Z",
        "created_by": "anna",
        "metadata": { "team": "a" },
        "owner": null,
    }))
    .unwrap();
    assert_eq!(record.id.to_string(), "key_0190a0b0c0d07e0f8000000000000000");
    assert_eq!((record.environment.as_str(), record.kind), ("test", KeyKind::Publishable));
    assert_eq!((record.prefix.as_str(), record.last4.as_str()), ("sk_old", "abcd"));
    assert_eq!(record.hash, HASH.parse().unwrap());
    assert!(!record.active && record.revoked_at.is_none() && record.owner.is_none());
    assert_eq!(record.created_at.to_string(), "2020-01-01T00:00:00.000Z");
    assert_eq!(record.expires_at.map(|at| at.to_string()).as_deref(), Some("2030-01-01T00:00:00.000Z"));
    assert_eq!((record.created_by.as_str(), &record.metadata["team"]), ("anna", &json!("a")));
}

#[test]
fn cells_of_a_table_mean_the_same_as_json() {
    let record = record(json!({
        "name": "cell", "key": "some-key-of-old-", "scopes": "read write,read", "active": "false",
        "expires_at": "", "metadata": "{\"a\":1}", "description": "",
    }))
    .unwrap();
    assert_eq!(record.scopes.len(), 2);
    assert!(!record.active && record.expires_at.is_none());
    assert_eq!(record.metadata["a"], 1);
    assert_eq!(record_of_scopes("").unwrap().scopes, []);
}

fn record_of_scopes(scopes: &str) -> Result<KeyRecord, String> {
    record(json!({ "name": "x", "key": "some-key-of-old-", "scopes": scopes }))
}

#[test]
fn limits_are_written_as_in_a_record_or_as_on_a_command_line() {
    let limits = |rate_limit: Value, quota: Value| {
        record(json!({ "name": "x", "scopes": [], "hash": HASH, "rate_limit": rate_limit, "quota": quota }))
    };
    let per_second = RateLimit::new(5, Duration::from_secs(1), None).unwrap();
    let daily = Quota::new(Some(1000), Some(20_000)).unwrap();
    for (rate_limit, quota) in [
        (json!({ "requests": 5, "per": "1s" }), json!({ "per_day": 1000, "per_month": 20000 })),
        (json!("{\"requests\":5,\"per\":\"1s\"}"), json!("{\"per_day\":1000,\"per_month\":20000}")),
        (json!("5/1s"), json!("1000/day, 20000/month")),
        (json!(" 5/1s+5 "), json!("1000/day,20000/month")),
    ] {
        let bounds =
            limits(rate_limit.clone(), quota).unwrap_or_else(|problem| panic!("{rate_limit}: {problem}")).bounds;
        assert_eq!((bounds.rate_limit, bounds.quota), (Some(per_second), Some(daily)), "{rate_limit}");
    }
    for bad in
        [json!("hunter2-hunter22"), json!("{\"requests\":1}"), json!(7), json!(["5", "1s"]), json!("0/1s"), json!("{")]
    {
        for problem in [limits(bad.clone(), Value::Null).unwrap_err(), limits(Value::Null, bad.clone()).unwrap_err()] {
            assert!(problem.contains("rate_limit") || problem.contains("quota"), "{problem}");
            for word in ["struct", "expected", "column", "hunter2"] {
                assert!(!problem.contains(word), "{bad}: {problem}");
            }
        }
    }
}

#[test]
fn a_key_of_ours_says_its_environment_and_kind_itself() {
    let settings = settings();
    let key = crate::domain::MintedKey::mint(&settings.brand, "prod", KeyKind::Publishable).unwrap();
    let text = key.reveal();
    let imported = record(json!({ "name": "x", "scopes": [], "key": text })).unwrap();
    assert_eq!((imported.environment.as_str(), imported.kind), ("live", KeyKind::Publishable));
    assert_eq!((imported.prefix.as_str(), imported.last4.as_str()), (key.prefix(), key.last4()));
    for (field, value) in [("environment", "test"), ("kind", "secret")] {
        let problem = record(json!({ "name": "x", "scopes": [], "key": text, field: value })).unwrap_err();
        assert!(problem.contains(value) && !problem.contains(text), "{problem}");
    }
    let mut broken = text.to_owned();
    broken.replace_range(text.len() - 1.., if text.ends_with('0') { "1" } else { "0" });
    let problem = record(json!({ "name": "x", "scopes": [], "key": broken })).unwrap_err();
    assert!(problem.contains("checksum") && !problem.contains(&broken), "{problem}");
}

#[test]
fn so_little_of_a_foreign_key_is_kept_that_it_stays_secret() {
    for (text, prefix, last4) in [
        ("short-legacy-key", "", ""),
        ("a-key-of-twenty-eight-chars!", "a-ke", "ars!"),
        ("a-key-that-is-long-enough-to-show-a-bit-of-it", "a-key-th", "f-it"),
    ] {
        let record = record(json!({ "name": "x", "scopes": [], "key": text })).unwrap();
        assert_eq!((record.prefix.as_str(), record.last4.as_str()), (prefix, last4), "{text}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_a_reason_and_without_the_key() {
    let secret = "hunter2-hunter22";
    let cases = [
        (json!({ "scopes": [], "key": secret }), "`name` is missing"),
        (json!({ "name": "x", "key": secret }), "`scopes` is missing"),
        (json!({ "name": "x", "scopes": [] }), "neither `key` nor `hash`"),
        (json!({ "name": "x", "scopes": [], "key": secret, "hash": HASH }), "both there"),
        (json!({ "name": "x", "scopes": [], "key": secret, "prefix": "hunter2-" }), "leave them out"),
        (json!({ "name": "x", "scopes": [], "hash": "md5:00" }), "sha256:"),
        (json!({ "name": "x", "scopes": [], "key": "with space" }), "visible ASCII"),
        (json!({ "name": "x", "scopes": [], "key": "hunter2-hunter2" }), "fewer than 16"),
        (json!({ "name": "x", "scopes": ["raed"], "key": secret }), "Did you mean \"read\"?"),
        (json!({ "name": "x", "scopes": [1], "key": secret }), "not a list of texts"),
        (json!({ "name": "x", "scopes": ["portcullis:keys"], "key": secret }), "management"),
        (json!({ "name": "x", "scopes": [], "key": secret, "environment": "prod" }), "environment"),
        (json!({ "name": "x", "scopes": [], "key": secret, "kind": "golden" }), "secret, publishable"),
        (json!({ "name": "x", "scopes": [], "key": secret, "active": "yes" }), "neither true nor false"),
        (json!({ "name": "x", "scopes": [], "key": secret, "expires_at": "soon" }), "RFC 3339"),
        (json!({ "name": "x", "scopes": [], "key": secret, "owner": "anna" }), "own_"),
        (json!({ "name": "x", "scopes": [], "key": secret, "expire_at": "x" }), "did you mean `expires_at`?"),
        (json!({ "name": "x", "scopes": [], "key": [secret] }), "`key` is not a text"),
        (json!({ "name": "x", "scopes": [], "hash": HASH, "last4": "abcde" }), "`last4` has 4"),
        (json!({ "name": "x", "scopes": [], "key": secret, "metadata": { "a": "x".repeat(9000) } }), "bytes"),
    ];
    for (row, word) in cases {
        let problem = record(row.clone()).unwrap_err();
        assert!(problem.contains(word) && !problem.contains(secret), "{row}: {problem}");
    }
}

#[test]
fn a_caller_with_an_owner_makes_new_keys_of_that_owner_where_it_lives() {
    let owner = OwnerId::from_bytes([7; 16]);
    let caller = |kind, owner| {
        Authority::Caller(Box::new(Caller {
            actor: Actor::named("key_1"),
            key: KeyId::from_bytes([1; 16]),
            owner,
            kind,
            environment: "test".to_owned(),
            holds: Vec::<GrantedScope>::new(),
            may_grant: Vec::new(),
        }))
    };
    let row = |more: Value| {
        let mut row = json!({ "name": "x", "scopes": [], "hash": HASH });
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let confined = caller(KeyKind::Secret, Some(owner));
    let made = record_for(&confined, row(json!({}))).unwrap();
    assert_eq!((made.owner, made.environment.as_str(), made.created_by.as_str()), (Some(owner), "test", "key_1"));
    assert!(record_for(&confined, row(json!({ "owner": owner.to_string() }))).is_ok());
    for (more, word) in [
        (json!({ "owner": OwnerId::from_bytes([8; 16]).to_string() }), "there is no owner"),
        (json!({ "environment": "live" }), "makes keys of `test` only"),
        (json!({ "created_by": "local:root" }), "only operators"),
        (json!({ "id": KeyId::from_bytes([2; 16]).to_string() }), "only operators"),
        (json!({ "replaces": KeyId::from_bytes([2; 16]).to_string() }), "only operators"),
        (json!({ "kind": "management" }), "made by management keys"),
        (json!({ "rate_limit": { "requests": 1, "per": "1s" } }), "only operators"),
    ] {
        let problem = record_for(&confined, row(more.clone())).unwrap_err();
        assert!(problem.contains(word), "{more}: {problem}");
    }
    let operator = caller(KeyKind::Management, None);
    let told = row(json!({ "created_by": "anna", "id": KeyId::from_bytes([2; 16]).to_string() }));
    assert_eq!(record_for(&operator, told).unwrap().created_by, "anna");
}

#[test]
fn a_key_is_imported_with_no_more_power_than_its_kind_may_have() {
    for (more, word) in [
        (json!({ "may_grant": ["read"] }), "may_grant"),
        (json!({ "allowed_origins": ["https://a.example"] }), "publishable"),
        (json!({ "allowed_ips": ["10.0.0.0/33"] }), "no network"),
    ] {
        let mut row = json!({ "name": "x", "scopes": [], "hash": HASH });
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let problem = record(row).unwrap_err();
        assert!(problem.contains(word), "{more}: {problem}");
    }
}
