//! What becomes of notes: written once, kept while the store is away, told where they are unusual.

use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::*;
use crate::cache::KeySet;
use crate::cache::fixtures::key_set;
use crate::domain::{KeyRecord, Scope};
use crate::store::{
    AuditSeal, Effect, EventQuery, FoundCaller, KeyUsage, OpenMode, Order, Passage, StoreSettings, Tidied, UsageQuery,
    open,
};
use crate::usage::rules::RuleName;
use crate::usage::{Counted, Found, Visitor};

#[path = "ledger_run_tests.rs"]
mod run;

const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_123);

struct Desk {
    tally: Arc<Tally>,
    ledger: Ledger,
    store: Arc<Store>,
    masks: Arc<AtomicBool>,
    metrics: Metrics,
}

impl Desk {
    fn new() -> Self {
        let store = open(&StoreSettings::Memory, OpenMode::Create, AuditSeal::default()).unwrap();
        let (tally, masks) = (Tally::new(2), Arc::<AtomicBool>::default());
        let metrics = Metrics::new(10, time::monotonic_now());
        let names = Arc::<RuleNames>::default();
        let graces = Graces::new(KeySet::new(), Arc::clone(&tally), Arc::clone(store.writer()));
        let ledger = Ledger::new(Arc::clone(&tally), names, &store, graces, metrics.clone(), Arc::clone(&masks));
        Self { tally, ledger, store, masks, metrics }
    }

    fn visit(&self, worker: usize, kind: KeyKind, address: &str, at: Timestamp) {
        let address = Some(address.parse().unwrap());
        let agent = Some(&b"curl/8\n pc_live_sk_0123456789abcdefghijklmnopqrstuv012345"[..]);
        let visitor = Visitor { key: key(), kind, address, agent, is_browser_leak: false, is_accepted: true, at };
        self.tally.visit(worker, &visitor);
    }

    fn count(&self, passage: Passage, requests: u32) {
        let counted = Counted::new(key(), RuleName::OTHER, passage, NOW);
        self.tally.count(0, counted.answered(200), requests);
    }

    /// Counts a request of each of so many keys.
    fn count_of_each(&self, keys: usize) {
        for number in 0..keys {
            let counted = Counted::new(numbered(number), RuleName::OTHER, Passage::Allowed, NOW);
            self.tally.count(number, counted.answered(200), 1);
        }
    }

    async fn total(&self, key: KeyId) -> u64 {
        total(&self.store, key).await
    }

    async fn usage(&self) -> KeyUsage {
        let (since, until) = (Timestamp::default(), NOW.plus(Duration::from_secs(86_400)));
        self.store.usage().key_usage(UsageQuery { key: key(), since, until, limit: 100 }).await.unwrap()
    }

    async fn events(&self) -> Vec<String> {
        let events = self.store.usage().list_events(EventQuery { key: None, limit: 100 }).await.unwrap();
        let text = |event: &UsageEvent| {
            let address = event.address.map_or_else(|| "-".to_owned(), |address| address.to_string());
            format!("{} {address}: {}", event.kind.text(), event.detail)
        };
        events.iter().map(text).collect()
    }
}

async fn total(store: &Store, key: KeyId) -> u64 {
    let query = UsageQuery { key, since: Timestamp::default(), until: NOW.plus(APART), limit: 1 };
    store.usage().key_usage(query).await.unwrap().totals.iter().map(|(.., requests)| requests).sum()
}

async fn last_used(store: &Store, key: KeyId) -> Option<Timestamp> {
    store.reader().find_key(key).await.unwrap().unwrap().last_used_at
}

/// Puts a key into a store.
async fn with_key(store: &Store) -> KeyId {
    let key = crate::store::fixtures::key(1);
    store.writer().insert_keys(vec![key.clone()], crate::store::fixtures::by(), NOW).await.unwrap();
    key.id
}

fn numbered(number: usize) -> KeyId {
    let mut bytes = [9; 16];
    bytes[..8].copy_from_slice(&(number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    KeyId::from_bytes(bytes)
}

fn key() -> KeyId {
    KeyId::from_bytes([7; 16])
}

#[tokio::test]
async fn notes_of_all_workers_are_written_once() {
    let mut desk = Desk::new();
    desk.count(Passage::Allowed, 3);
    desk.visit(0, KeyKind::Secret, "192.0.2.1", NOW);
    desk.visit(1, KeyKind::Secret, "192.0.2.2", NOW.plus(Duration::from_secs(1)));
    desk.ledger.flush(NOW).await.unwrap();
    desk.ledger.flush(NOW).await.unwrap();
    let usage = desk.usage().await;
    assert_eq!(usage.totals, [(Passage::Allowed, 200, 3)]);
    let seen = usage.seen.unwrap();
    assert_eq!(seen.address.unwrap().to_string(), "192.0.2.2");
    assert_eq!(seen.agent.as_deref(), Some("curl/8\\n pc_live_sk_01234567…"), "no key, and nothing harmful");
    assert_eq!(usage.networks.len(), 1);
    assert!(desk.events().await.is_empty(), "the first network is no news");
}

#[tokio::test]
async fn the_last_use_of_all_workers_is_told_and_successors_are_remembered() {
    let mut desk = Desk::new();
    let [old, new] = [1, 2].map(crate::store::fixtures::key);
    let (first, second) = (old.id, new.id);
    desk.store.writer().insert_keys(vec![old.clone(), new.clone()], crate::store::fixtures::by(), NOW).await.unwrap();
    let keys = key_set(vec![], vec![old, KeyRecord { replaces: Some(first), ends_on_use: true, ..new }]);
    desk.ledger.graces = Graces::new(keys, Arc::clone(&desk.tally), Arc::clone(desk.store.writer()));
    let later = NOW.plus(Duration::from_secs(3));
    for (worker, key, at) in [(1, first, later), (0, first, NOW), (1, second, NOW)] {
        desk.tally.mark(worker, key, at);
    }
    desk.count(Passage::Refused, 1);
    desk.ledger.flush(NOW).await.unwrap();
    for (key, at) in [(first, later), (second, NOW)] {
        assert_eq!(desk.store.reader().find_key(key).await.unwrap().unwrap().last_used_at, Some(at));
    }
    assert!(desk.ledger.graces.remembers(second) && !desk.ledger.graces.remembers(first));
}

#[tokio::test]
async fn a_second_network_is_told_of_once_and_not_for_keys_that_everybody_has() {
    let mut desk = Desk::new();
    desk.visit(0, KeyKind::Secret, "192.0.2.1", NOW);
    desk.ledger.flush(NOW).await.unwrap();
    for _ in 0..2 {
        desk.visit(0, KeyKind::Secret, "198.51.100.7", NOW);
        desk.ledger.flush(NOW).await.unwrap();
    }
    desk.visit(0, KeyKind::Publishable, "203.0.113.7", NOW);
    desk.ledger.flush(NOW).await.unwrap();
    assert_eq!(desk.events().await, ["new_network 198.51.100.7: first use from 198.51.100.0/24"]);
    let page = desk.metrics.render(time::monotonic_now()).unwrap();
    assert!(page.contains("portcullis_events_total{event=\"new_network\"} 1\n"), "{page}");
}

#[tokio::test]
async fn from_the_third_network_on_they_are_told_of_once_an_hour() {
    let mut desk = Desk::new();
    for (number, minutes) in [(1, 0), (2, 1), (3, 2), (4, 61), (5, 62)] {
        let at = NOW.plus(Duration::from_secs(60) * minutes);
        desk.visit(0, KeyKind::Secret, &format!("192.0.{number}.1"), at);
        desk.ledger.flush(at).await.unwrap();
    }
    let told = [4, 2].map(|number| format!("new_network 192.0.{number}.1: first use from 192.0.{number}.0/24"));
    assert_eq!(desk.events().await, told);
}

#[tokio::test]
async fn many_events_of_one_kind_leave_room_for_others() {
    let mut desk = Desk::new();
    let told = |kind, detail: usize| event(kind, key(), None, NOW, detail.to_string(), APART);
    desk.ledger.keep_events(vec![told(EventKind::SecretKeyInBrowser, 0)]);
    let many = 0..MAX_PENDING_EVENTS + 10;
    desk.ledger.keep_events(many.map(|number| told(EventKind::NewNetwork, number)).collect());
    let details: Vec<&str> = desk.ledger.events.iter().map(|new| new.event.detail.as_str()).collect();
    assert_eq!((details.len(), details[0], details[1]), (MAX_PENDING_EVENTS, "0", "11"));
    assert_eq!(desk.tally.dropped(), 11);
}

#[tokio::test]
async fn many_refusals_and_a_browser_are_told_of_once_an_hour() {
    let mut desk = Desk::new();
    let leak = |at| Visitor {
        key: key(),
        kind: KeyKind::Secret,
        address: Some("192.0.2.9".parse().unwrap()),
        agent: None,
        is_browser_leak: true,
        is_accepted: false,
        at,
    };
    for minute in 0..3u32 {
        let at = NOW.plus(Duration::from_secs(60) * minute);
        desk.count(Passage::Refused, 60);
        desk.tally.visit(0, &leak(at));
        desk.ledger.flush(at).await.unwrap();
    }
    let told = [
        "many_refusals 192.0.2.9: 120 of 120 requests of the last hour were refused",
        "secret_key_in_browser 192.0.2.9: a browser sent this secret key: whoever sees the page can read it",
    ];
    assert_eq!(desk.events().await, told);
    let later = NOW.plus(Duration::from_secs(3_600));
    desk.tally.visit(0, &leak(later));
    desk.masks.store(true, Ordering::Relaxed);
    desk.ledger.flush(later).await.unwrap();
    assert_eq!(desk.events().await[0], told[1].replace("192.0.2.9", "192.0.2.0"));
    assert_eq!(desk.usage().await.seen.unwrap().address.unwrap().to_string(), "192.0.2.0");
}

#[tokio::test]
async fn what_is_too_much_for_one_write_goes_in_several() {
    let mut desk = Desk::new();
    let keys = BATCH + 100;
    desk.count_of_each(keys);
    desk.ledger.flush(NOW).await.unwrap();
    // As many as the book of a test keeps once it is tidied, and what was too much.
    let tidied = crate::store::tidy_usage(desk.store.usage(), Duration::from_secs(86_400), NOW).await.unwrap();
    assert_eq!(tidied.evicted + crate::store::MAX_COUNTS, keys);
}

#[tokio::test]
async fn what_is_written_at_once_are_neighbours() {
    let mut desk = Desk::new();
    desk.count_of_each(2 * BATCH);
    for number in 0..2 * BATCH {
        let (key, kind) = (numbered(number), KeyKind::Secret);
        let visitor =
            Visitor { key, kind, address: None, agent: None, is_browser_leak: false, is_accepted: true, at: NOW };
        desk.tally.visit(number, &visitor);
    }
    desk.ledger.gather(NOW);
    desk.ledger.queue = desk.ledger.pending.take();
    let mut written: Vec<KeyId> = Vec::new();
    for _ in 0..2 {
        let notes = desk.ledger.set_out().unwrap().notes;
        let counted: Vec<KeyId> = notes.counts.iter().map(|count| count.key).collect();
        assert_eq!(counted, notes.sightings.iter().map(|seen| seen.key).collect::<Vec<_>>(), "of the same keys");
        assert_eq!(counted.len(), BATCH);
        written.extend(counted);
    }
    assert!(written.is_sorted() && desk.ledger.set_out().is_none());
}

#[tokio::test]
async fn what_report_mode_found_is_written() {
    let mut desk = Desk::new();
    let missing: Vec<Scope> = vec!["read:orders".parse().unwrap()];
    let caller = FoundCaller::Key(key());
    let found = Found { rule: RuleName::OTHER, reason: "insufficient_scope", caller, missing: &missing };
    desk.tally.find(0, &found, NOW);
    desk.tally.find(1, &found, NOW);
    desk.ledger.flush(NOW).await.unwrap();
    let kept = desk.store.usage().findings().await.unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(
        (kept[0].requests, &*kept[0].rule, kept[0].missing.as_slice()),
        (2, "other", &["read:orders".to_owned()][..])
    );
}

#[tokio::test]
async fn what_cannot_be_written_is_kept_and_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("portcullis.db");
    let settings = StoreSettings::Sqlite { path: path.clone() };
    let mut desk = Desk::new();
    desk.store = open(&settings, OpenMode::Create, AuditSeal::default()).unwrap();
    let first = with_key(&desk.store).await;
    (desk.ledger.writer, desk.ledger.book) = (Arc::clone(desk.store.writer()), Arc::clone(desk.store.usage()));
    // A directory where the file should be.
    let file = path.with_extension("usage.db");
    std::fs::create_dir(&file).unwrap();
    desk.count(Passage::Allowed, 2);
    desk.tally.mark(0, first, NOW);
    let keys = BATCH + 10;
    desk.count_of_each(keys);
    for _ in 0..2 {
        assert!(desk.ledger.flush(NOW).await.is_err());
    }
    std::fs::remove_dir(&file).unwrap();
    desk.count(Passage::Allowed, 3);
    desk.ledger.flush(NOW).await.unwrap();
    assert_eq!(desk.usage().await.totals, [(Passage::Allowed, 200, 5)]);
    assert_eq!(last_used(&desk.store, first).await, Some(NOW));
    for number in 0..keys {
        assert_eq!(desk.total(numbered(number)).await, 1);
    }
    assert_eq!((desk.tally.dropped(), desk.tally.dropped_marks()), (0, 0));
}

#[tokio::test]
async fn a_book_that_takes_nothing_keeps_no_last_use_back() {
    let mut desk = Desk::new();
    let first = with_key(&desk.store).await;
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings::Sqlite { path: directory.path().join("portcullis.db") };
    let broken = open(&settings, OpenMode::Create, AuditSeal::default()).unwrap();
    std::fs::create_dir(directory.path().join("portcullis.usage.db")).unwrap();
    desk.ledger.book = Arc::clone(broken.usage());
    desk.tally.mark(0, first, NOW);
    desk.count_of_each(BATCH + 10);
    assert!(desk.ledger.flush(NOW).await.is_err());
    assert_eq!(last_used(&desk.store, first).await, Some(NOW));
    desk.ledger.book = Arc::clone(desk.store.usage());
    desk.ledger.flush(NOW).await.unwrap();
    for number in 0..BATCH + 10 {
        assert_eq!(desk.total(numbered(number)).await, 1);
    }
}

#[tokio::test]
async fn of_many_keys_those_in_new_networks_are_told() {
    let mut desk = Desk::new();
    let see = |desk: &Desk, number: usize, address: &str| {
        let (kind, address) = (KeyKind::Secret, Some(address.parse().unwrap()));
        let key = numbered(number);
        let visitor = Visitor { key, kind, address, agent: None, is_browser_leak: false, is_accepted: true, at: NOW };
        desk.tally.visit(0, &visitor);
    };
    (0..9).for_each(|number| see(&desk, number, "192.0.2.1"));
    desk.ledger.flush(NOW).await.unwrap();
    (0..9).for_each(|number| see(&desk, number, if number % 4 == 1 { "198.51.100.7" } else { "192.0.2.1" }));
    desk.ledger.flush(NOW).await.unwrap();
    let events = desk.store.usage().list_events(EventQuery { key: None, limit: 100 }).await.unwrap();
    let mut told: Vec<KeyId> = events.iter().filter_map(|event| event.key).collect();
    told.sort_unstable();
    let mut roamed = [1, 5].map(numbered);
    roamed.sort_unstable();
    assert_eq!(told, roamed);
}
