use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::*;
use crate::cache::fixtures::key_set;
use crate::config;
use crate::domain::time::monotonic_now;
use crate::domain::{KeyHash, KeyRecord, OwnedFields, OwnerRecord, PresentedKey};
use crate::gate::{Admission, Denial, Freshness, Identity, Keys, RequestHead, Rules, admit, judge};
use crate::limit::{Meters, Moment, Standing};
use crate::store::fixtures::{NOW, key, key_id, owner, owner_id};

const RULES: &str = r#"
version: 1
listeners: [{ bind: "127.0.0.1:0" }]
upstreams: { shop: { targets: [{ url: "http://127.0.0.1:9" }] } }
environments: { live: { rate_limit: { requests: 1, per: 24h, burst: 50 } } }
routes:
  - { path: /plain, upstream: shop, auth: any_key }
  - { path: /by-key, upstream: shop, auth: any_key, rate_limit: { requests: 1, per: 24h, burst: 3, by: key } }
  - { path: /by-owner, upstream: shop, auth: any_key, rate_limit: { requests: 1, per: 24h, burst: 3, by: owner } }
  - { path: /by-address, upstream: shop, auth: any_key, rate_limit: { requests: 1, per: 24h, burst: 3, by: address } }
  - { path: /open, upstream: shop, auth: none, rate_limit: { requests: 1, per: 24h, burst: 3, by: address } }
  - { path: "/shop/**", upstream: shop, auth: any_key }
  - { path: /shop/orders, name: orders, upstream: shop, auth: any_key, rate_limit: { requests: 1, per: 24h, burst: 2 } }
"#;

struct Scene {
    snapshot: Snapshot,
    keys: Arc<KeySet>,
    meters: Arc<Meters>,
    zero: std::time::Instant,
}

fn snapshot(text: &str, keys: &KeySet) -> Snapshot {
    let loaded = config::load_text(Path::new("test.yaml"), text, &|_| None);
    let settings = loaded.settings.unwrap_or_else(|| panic!("{:#?}", loaded.diagnostics));
    let rules = Rules::compile(settings.gate, &["shop"]).unwrap();
    Snapshot::join(Arc::new(rules), Arc::clone(&keys.directory()), None)
}

impl Scene {
    fn new(owners: Vec<OwnerRecord>, records: Vec<KeyRecord>) -> Self {
        let keys = key_set(owners, records);
        let zero = monotonic_now();
        Self { snapshot: snapshot(RULES, &keys), meters: Arc::new(Meters::new(100_000, zero)), keys, zero }
    }

    /// The same meters under other keys, owners and rules.
    fn after(&self, text: &str, owners: Vec<OwnerRecord>, records: Vec<KeyRecord>) -> Self {
        let keys = key_set(owners, records);
        Self { snapshot: snapshot(text, &keys), meters: Arc::clone(&self.meters), keys, zero: self.zero }
    }

    /// One request of the key with this number; of nobody when there is none.
    fn ask(&self, number: Option<u32>, path: &str, client: &str) -> (Result<(), Denial>, Vec<Standing>) {
        let mut fields = OwnedFields::default();
        if let Some(number) = number {
            fields.push(b"X-API-Key", text_of(number).as_bytes());
        }
        let client = Some(client.parse().unwrap());
        let head = RequestHead {
            method: &Method::GET,
            host: "",
            path,
            query: None,
            fields: fields.view(),
            client,
            is_upgrade: false,
        };
        let seen = Keys { set: &self.keys, freshness: Freshness::Confirmed(Duration::ZERO) };
        let mut verdict = judge(&head, &self.snapshot, seen, NOW).unwrap();
        let now = Moment { monotonic: self.zero, wall: NOW };
        let decided = admit(&mut verdict, &self.snapshot, &self.keys, client, &self.meters, now);
        let answer = match decided.admission {
            Admission::Forward(admitted) => {
                assert!(!matches!(admitted.identity(), Identity::Reported { .. }));
                Ok(())
            }
            Admission::Refuse(denial) => Err(denial),
            Admission::Preflight => panic!("nobody asked for one"),
        };
        (answer, decided.standings.to_vec())
    }

    /// How many of a hundred requests are let through.
    fn burst(&self, number: u32, path: &str) -> usize {
        (0..100).filter(|_| self.ask(Some(number), path, "192.0.2.1").0.is_ok()).count()
    }
}

fn text_of(number: u32) -> String {
    format!("a-key-of-our-own-making-{number}")
}

fn made(number: u32, change: impl FnOnce(&mut KeyRecord)) -> KeyRecord {
    let mut record = key(number);
    record.hash = KeyHash::sha256(&PresentedKey::new(&text_of(number)).unwrap());
    change(&mut record);
    record
}

fn daily(burst: u32) -> Option<RateLimit> {
    Some(RateLimit::new(1, Duration::from_secs(86_400), Some(burst)).unwrap())
}

fn allowing(number: u32, rate_limit: Option<RateLimit>, quota: Option<Quota>) -> OwnerRecord {
    OwnerRecord { rate_limit, quota, ..owner(number) }
}

#[test]
fn a_keys_own_limits_stand_in_place_of_its_environments_each_for_itself() {
    let scene = Scene::new(
        vec![],
        vec![
            made(1, |_| ()),
            made(2, |key| key.bounds.rate_limit = daily(7)),
            made(3, |key| key.bounds.rate_limit = daily(70)),
            made(4, |key| key.bounds.quota = Quota::new(Some(9), None).ok()),
        ],
    );
    assert_eq!([1, 2, 3, 4].map(|number| scene.burst(number, "/plain")), [50, 7, 70, 9]);
    let (_, standings) = scene.ask(Some(4), "/plain", "192.0.2.1");
    let names: Vec<&str> = standings.iter().map(|standing| standing.policy.name()).collect();
    assert_eq!(names, ["key", "key-day"], "the environment's rate holds beside its own quota");
}

#[test]
fn an_owners_limits_count_all_its_keys_together_beside_their_own() {
    let (rate, quota) = (daily(20), Quota::new(None, Some(12)).ok());
    let owners = vec![allowing(1, rate, None), allowing(2, None, quota), owner(3)];
    let of = |number, owner| made(number, |key| key.owner = Some(owner_id(owner)));
    let scene = Scene::new(owners, vec![of(1, 1), of(2, 1), of(3, 2), of(4, 2), of(5, 3)]);
    assert_eq!([1, 2].map(|number| scene.burst(number, "/plain")), [20, 0]);
    assert_eq!([3, 4].map(|number| scene.burst(number, "/plain")), [12, 0]);
    assert_eq!(scene.burst(5, "/plain"), 50);
    let denial = |number| scene.ask(Some(number), "/plain", "192.0.2.1").0.unwrap_err();
    assert!(matches!(denial(2), Denial::RateLimited { policy: Policy::Owner, retry_after_seconds: 86_400 }));
    assert!(matches!(denial(4), Denial::QuotaExceeded { policy: Policy::OwnerMonth, .. }));
}

#[test]
fn a_routes_limit_counts_keys_owners_or_addresses() {
    let of = |number, owner| made(number, |key| key.owner = Some(owner_id(owner)));
    let scene = Scene::new(vec![owner(1)], vec![of(1, 1), of(2, 1), made(3, |_| ()), made(4, |_| ())]);
    assert_eq!([1, 2, 3].map(|number| scene.burst(number, "/by-key")), [3, 3, 3]);
    assert_eq!([1, 2, 3, 4].map(|number| scene.burst(number, "/by-owner")), [3, 0, 3, 3], "without an owner by itself");
    assert_eq!([1, 2, 3].map(|number| scene.burst(number, "/by-address")), [3, 0, 0]);
    assert!(scene.ask(Some(1), "/by-address", "192.0.2.2").0.is_ok());
    let anonymous = (0..9).filter(|_| scene.ask(None, "/open", "192.0.2.1").0.is_ok()).count();
    assert_eq!(anonymous, 3, "and each route by itself");
}

#[test]
fn another_spelling_of_a_path_is_no_way_around_its_limit() {
    let scene = Scene::new(vec![], vec![made(1, |_| ())]);
    // Some servers take it for /shop/orders; the gateway finds the wide route.
    for path in ["/shop/ORDERS", "/shop/orders;x", "/shop/Orders"] {
        let (_, standings) = scene.ask(Some(1), path, "192.0.2.1");
        assert!(standings.iter().any(|standing| standing.policy == Policy::Route), "{path}: {standings:?}");
    }
    assert_eq!(scene.burst(1, "/shop/orders"), 0);
    assert!(scene.ask(Some(1), "/shop/other", "192.0.2.1").0.is_ok());
}

#[test]
fn neither_a_rotation_nor_an_update_nor_a_new_load_refills_a_meter() {
    let scene = Scene::new(vec![owner(1)], vec![made(1, |key| key.bounds.quota = Quota::new(Some(30), None).ok())]);
    assert_eq!(scene.burst(1, "/plain"), 30);
    let successor = made(2, |key| {
        (key.replaces, key.lineage) = (Some(key_id(1)), key_id(1));
        (key.bounds.rate_limit, key.bounds.quota) = (daily(50), Quota::new(Some(31), None).ok());
        key.owner = Some(owner_id(1));
        key.scopes = Vec::new();
    });
    let rotated = scene.after(RULES, vec![owner(1)], vec![made(1, |_| ()), successor.clone()]);
    assert_eq!(rotated.burst(2, "/plain"), 1, "one more a day");
    let unlimited = made(2, |key| (key.lineage, key.bounds) = (key_id(1), crate::domain::Bounds::default()));
    let updated = scene.after(RULES, vec![owner(1)], vec![unlimited]);
    assert_eq!(updated.burst(2, "/plain"), 50 - 31);
    let changed = RULES
        .replace("burst: 50", "burst: 51")
        .replace("  - { path: /plain", "  - { path: /new, upstream: shop, auth: none }\n  - { path: /plain");
    assert_eq!(scene.after(&changed, vec![], vec![made(1, |_| ())]).burst(1, "/plain"), 1);
}

#[test]
fn where_nothing_is_limited_no_meter_is_made() {
    let scene = Scene::new(vec![], vec![made(1, |_| ())]);
    let free = scene.after(&RULES.replace("environments:", "#"), vec![], vec![made(1, |_| ())]);
    for _ in 0..100 {
        let (answer, standings) = free.ask(Some(1), "/plain", "192.0.2.1");
        assert_eq!((answer, standings), (Ok(()), Vec::new()));
    }
    assert!(free.meters.is_empty());
}
