//! The promises of the book of usage, held to every store.

use std::time::Duration;

use super::fixtures::{NOW, Place, held_to_every_store, key_id};
use super::*;
use crate::domain::{KeyId, Timestamp, network_of};

held_to_every_store!(
    an_empty_book_answers_with_nothing,
    requests_add_up_by_hour_rule_status_and_what_became_of_them,
    hours_become_days_and_days_end_with_the_retention,
    the_oldest_counts_go_first_beyond_the_bound,
    networks_are_new_once_and_bounded,
    events_keep_their_distance_and_are_bounded,
    findings_add_up_and_the_stale_go_first,
    findings_of_networks_are_few_and_drive_out_no_keys,
    usage_touches_no_revision,
);

#[tokio::test]
async fn a_file_keeps_its_book() {
    let place = Place::sqlite();
    let store = place.open();
    note(&store, vec![count(1, "GET /a", 200, Passage::Allowed, NOW, 3)]).await;
    drop(store);
    let usage = all_of(&place.open(), 1).await;
    assert_eq!(usage.totals, [(Passage::Allowed, 200, 3)]);
}

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn count(key: u32, rule: &str, status: u16, passage: Passage, at: Timestamp, requests: u64) -> UsageCount {
    UsageCount { key: key_id(key), rule: rule.into(), status, passage, at, requests }
}

async fn note(store: &Store, counts: Vec<UsageCount>) {
    let notes = UsageNotes { counts, ..UsageNotes::default() };
    assert_eq!(store.usage().note_usage(notes).await.unwrap(), []);
}

fn query(key: u32) -> UsageQuery {
    UsageQuery { key: key_id(key), since: Timestamp::default(), until: NOW.plus(400 * DAY), limit: 1_000 }
}

async fn all_of(store: &Store, key: u32) -> KeyUsage {
    store.usage().key_usage(query(key)).await.unwrap()
}

async fn buckets(store: &Store, query: UsageQuery) -> Vec<String> {
    let usage = store.usage().key_usage(query).await.unwrap();
    let text = |bucket: &UsageBucket| {
        let UsageBucket { begins, span, rule, status, passage, requests } = bucket;
        format!("{begins} {} {rule} {status} {} {requests}", span.text(), passage.text())
    };
    usage.buckets.iter().map(text).collect()
}

async fn an_empty_book_answers_with_nothing(place: Place) {
    let store = place.open();
    let book = store.usage();
    assert_eq!(all_of(&store, 1).await, KeyUsage::default());
    assert_eq!(book.rules_passed(vec![key_id(1)]).await.unwrap(), []);
    assert_eq!(book.findings().await.unwrap(), []);
    assert_eq!(book.list_events(EventQuery { key: None, limit: 10 }).await.unwrap(), []);
    assert_eq!(book.counted_since().await.unwrap(), None);
    assert_eq!(book.tidy_usage(DAY, NOW).await.unwrap(), Tidied::default());
}

async fn requests_add_up_by_hour_rule_status_and_what_became_of_them(place: Place) {
    let store = place.open();
    let (get, post) = ("GET /v1/orders/**", "POST /v1/orders/**");
    let later = NOW.plus(HOUR);
    note(
        &store,
        vec![
            count(1, get, 200, Passage::Allowed, NOW, 2),
            count(1, get, 403, Passage::Allowed, NOW, 1),
            count(1, post, 403, Passage::Refused, NOW, 5),
            count(2, get, 200, Passage::Allowed, NOW, 9),
        ],
    )
    .await;
    note(
        &store,
        vec![
            count(1, get, 200, Passage::Allowed, NOW, 1),
            count(1, get, 200, Passage::Allowed, later, 7),
            count(1, "GET /v1/**", 200, Passage::Allowed, later, 0),
        ],
    )
    .await;
    let expected = [
        "2023-11-14T23:00:00.000Z hour GET /v1/orders/** 200 allowed 7",
        "2023-11-14T22:00:00.000Z hour GET /v1/orders/** 200 allowed 3",
        "2023-11-14T22:00:00.000Z hour GET /v1/orders/** 403 allowed 1",
        "2023-11-14T22:00:00.000Z hour POST /v1/orders/** 403 refused 5",
    ];
    assert_eq!(buckets(&store, query(1)).await, expected);
    let usage = all_of(&store, 1).await;
    let totals = [(Passage::Allowed, 200, 10), (Passage::Allowed, 403, 1), (Passage::Refused, 403, 5)];
    assert_eq!((usage.totals.as_slice(), usage.more), (&totals[..], false));
    assert_eq!(buckets(&store, UsageQuery { since: later, ..query(1) }).await, expected[..1]);
    let until = Timestamp::from_unix_ms(NOW.unix_ms() - 1);
    assert_eq!(buckets(&store, UsageQuery { until, ..query(1) }).await, expected[1..], "a bucket is not divided");
    let page = store.usage().key_usage(UsageQuery { limit: 1, ..query(1) }).await.unwrap();
    assert_eq!((page.buckets.len(), page.more, page.totals.as_slice()), (1, true, &totals[..]));
    let passed = store.usage().rules_passed(vec![key_id(2), key_id(1), key_id(3)]).await.unwrap();
    let passed: Vec<(KeyId, &str)> = passed.iter().map(|(key, rule)| (*key, &**rule)).collect();
    assert_eq!(passed, [(key_id(2), get), (key_id(1), "GET /v1/**"), (key_id(1), get)], "refusals pass nothing");
    assert_eq!(store.usage().counted_since().await.unwrap().unwrap().to_string(), "2023-11-14T22:00:00.000Z");
}

async fn hours_become_days_and_days_end_with_the_retention(place: Place) {
    let store = place.open();
    let rule = "GET /v1/orders/**";
    let hours = (0..48u32).map(|hour| count(1, rule, 200, Passage::Allowed, NOW.plus(hour * HOUR), 1)).collect();
    note(&store, hours).await;
    let tidy = async |at: Timestamp| tidy_usage(store.usage(), 30 * DAY, at).await.unwrap();
    assert_eq!(tidy(NOW.plus(7 * DAY)).await, Tidied::default(), "the first day is not seven days over yet");
    // NOW is at 22:13; the first day has two hours of it.
    assert_eq!(tidy(NOW.plus(7 * DAY + 2 * HOUR)).await, Tidied { merged: 2, ..Tidied::default() });
    let usage = all_of(&store, 1).await;
    assert_eq!((usage.buckets.len(), usage.totals.as_slice()), (47, &[(Passage::Allowed, 200, 48)][..]));
    assert_eq!(tidy(NOW.plus(9 * DAY + 2 * HOUR)).await, Tidied { merged: 46, ..Tidied::default() });
    let days = [
        "2023-11-16T00:00:00.000Z day GET /v1/orders/** 200 allowed 22",
        "2023-11-15T00:00:00.000Z day GET /v1/orders/** 200 allowed 24",
        "2023-11-14T00:00:00.000Z day GET /v1/orders/** 200 allowed 2",
    ];
    assert_eq!(buckets(&store, query(1)).await, days);
    note(&store, vec![count(1, rule, 200, Passage::Allowed, NOW, 4)]).await;
    assert_eq!(tidy(NOW.plus(9 * DAY + 2 * HOUR)).await.merged, 1, "what comes late is merged as well");
    assert_eq!(all_of(&store, 1).await.totals, [(Passage::Allowed, 200, 52)]);
    assert_eq!(tidy(NOW.plus(30 * DAY)).await, Tidied::default(), "no day is given up before all of it is old");
    assert_eq!(tidy(NOW.plus(30 * DAY + 2 * HOUR)).await, Tidied { dropped: 1, ..Tidied::default() });
    assert_eq!(buckets(&store, query(1)).await, days[..2]);
}

async fn the_oldest_counts_go_first_beyond_the_bound(place: Place) {
    let store = place.open();
    let many = u32::try_from(MAX_COUNTS).unwrap() + 30;
    let counts = (0..many).map(|number| count(number, "GET /a", 200, Passage::Allowed, NOW.plus(number * HOUR), 1));
    note(&store, counts.collect()).await;
    let tidied = tidy_usage(store.usage(), 400 * DAY, NOW.plus(many * HOUR)).await.unwrap();
    assert_eq!((tidied.dropped, tidied.evicted), (0, 30));
    assert!(all_of(&store, 29).await.buckets.is_empty());
    assert!(!all_of(&store, 30).await.buckets.is_empty());
}

fn sighting(key: u32, address: &str, at: Timestamp) -> Sighting {
    let address = address.parse().unwrap();
    let networks = vec![NetworkSeen { network: network_of(address), first: at, last: at }];
    Sighting { key: key_id(key), at, address: Some(address), agent: Some(format!("agent at {address}")), networks }
}

async fn see(store: &Store, sighting: Sighting) -> Vec<NewNetwork> {
    store.usage().note_usage(UsageNotes { sightings: vec![sighting], ..UsageNotes::default() }).await.unwrap()
}

async fn networks_are_new_once_and_bounded(place: Place) {
    let store = place.open();
    assert_eq!(see(&store, sighting(1, "192.0.2.1", NOW)).await, [], "the first network is no news");
    assert_eq!(see(&store, sighting(1, "192.0.2.200", NOW.plus(HOUR))).await, []);
    let other = sighting(1, "2001:db8:1::7", NOW.plus(2 * HOUR));
    let network = other.networks[0].network;
    assert_eq!(see(&store, other).await, [NewNetwork { key: key_id(1), network, others: 1 }]);
    assert_eq!(see(&store, sighting(1, "2001:db8:1:2::9", NOW)).await, [], "what comes late changes little");
    let usage = all_of(&store, 1).await;
    let seen = usage.seen.unwrap();
    assert_eq!(seen.address.unwrap().to_string(), "2001:db8:1::7");
    assert_eq!(seen.agent.as_deref(), Some("agent at 2001:db8:1::7"));
    let networks = [
        NetworkSeen { network, first: NOW, last: NOW.plus(2 * HOUR) },
        NetworkSeen { network: "192.0.2.0/24".parse().unwrap(), first: NOW, last: NOW.plus(HOUR) },
    ];
    assert_eq!(usage.networks, networks);
    for number in 0..14u32 {
        see(&store, sighting(1, &format!("198.51.{number}.1"), NOW.plus(3 * HOUR))).await;
    }
    let crowded = see(&store, sighting(1, "203.0.113.1", NOW.plus(4 * HOUR))).await;
    assert!(matches!(crowded.as_slice(), [NewNetwork { others: MAX_NETWORKS, .. }]), "{crowded:?}");
    let usage = all_of(&store, 1).await;
    assert_eq!(usage.networks.len(), MAX_NETWORKS);
    assert!(!usage.networks.contains(&networks[1]), "the one that was not seen for longest goes");
    assert_eq!(tidy_usage(store.usage(), DAY, NOW.plus(4 * DAY)).await.unwrap().evicted, 0);
    assert_eq!(all_of(&store, 1).await, KeyUsage::default());
}

fn event(kind: EventKind, key: u32, at: Timestamp) -> NewEvent {
    let event = UsageEvent { kind, key: Some(key_id(key)), address: None, at, detail: "from somewhere".to_owned() };
    NewEvent { event, apart: HOUR }
}

async fn events_keep_their_distance_and_are_bounded(place: Place) {
    let store = place.open();
    let tell = async |events: Vec<NewEvent>| store.usage().note_events(AdditionId::first(), events).await.unwrap();
    let (browser, refusals) = (EventKind::SecretKeyInBrowser, EventKind::ManyRefusals);
    let first = vec![event(browser, 1, NOW), event(browser, 1, NOW), event(browser, 2, NOW), event(refusals, 1, NOW)];
    assert_eq!(tell(first).await, [true, false, true, true]);
    let almost = Timestamp::from_unix_ms(NOW.plus(HOUR).unix_ms() - 1);
    assert_eq!(tell(vec![event(browser, 1, almost), event(browser, 1, NOW.plus(HOUR))]).await, [false, true]);
    let at_once = NewEvent { apart: Duration::ZERO, ..event(browser, 1, NOW.plus(HOUR)) };
    assert_eq!(tell(vec![at_once]).await, [true]);
    let list = async |key: Option<u32>| {
        let query = EventQuery { key: key.map(key_id), limit: 100 };
        store.usage().list_events(query).await.unwrap()
    };
    assert_eq!(list(None).await.len(), 5);
    let of_second = list(Some(2)).await;
    assert_eq!(of_second, [event(browser, 2, NOW).event]);
    let many = u32::try_from(MAX_EVENTS).unwrap();
    tell((0..many).map(|number| event(refusals, 100 + number, NOW.plus(HOUR))).collect()).await;
    let kept = list(None).await;
    assert_eq!(kept.len(), MAX_EVENTS);
    assert_eq!(list(Some(100)).await, [], "the oldest of a kind go first");
    assert_eq!(list(Some(2)).await, of_second, "many of one kind drive out none of another");
    tell((0..many).map(|number| event(browser, 200 + number, NOW.plus(HOUR))).collect()).await;
    let kept = list(None).await;
    let is_browser = |event: &&UsageEvent| event.kind == browser;
    assert_eq!((kept.len(), kept.iter().filter(is_browser).count()), (MAX_EVENTS, MAX_EVENTS / 2));
}

async fn findings_add_up_and_the_stale_go_first(place: Place) {
    let store = place.open();
    let finding = |caller, at: Timestamp, requests| Finding {
        rule: "GET /v1/orders/**".into(),
        reason: "insufficient_scope".into(),
        caller,
        missing: vec!["read:orders".to_owned(), "read:items".to_owned()],
        requests,
        first: at,
        last: at,
    };
    let find = async |found: Finding| {
        let notes = UsageNotes { findings: vec![found], ..UsageNotes::default() };
        assert_eq!(store.usage().note_usage(notes).await.unwrap(), []);
    };
    let network = FoundCaller::Network("192.0.2.0/24".parse().unwrap());
    find(finding(FoundCaller::Key(key_id(1)), NOW, 2)).await;
    find(finding(FoundCaller::Key(key_id(1)), NOW.plus(HOUR), 3)).await;
    find(finding(network, NOW.plus(2 * HOUR), 1)).await;
    find(finding(FoundCaller::Local, NOW, 1)).await;
    let expected = [
        finding(network, NOW.plus(2 * HOUR), 1),
        Finding { first: NOW, ..finding(FoundCaller::Key(key_id(1)), NOW.plus(HOUR), 5) },
        finding(FoundCaller::Local, NOW, 1),
    ];
    assert_eq!(store.usage().findings().await.unwrap(), expected);
    for number in 0..u32::try_from(MAX_FINDINGS).unwrap() {
        find(finding(FoundCaller::Key(key_id(100 + number)), NOW.plus(3 * HOUR), 1)).await;
    }
    let kept = store.usage().findings().await.unwrap();
    let (of_keys, others): (Vec<Finding>, Vec<Finding>) =
        kept.into_iter().partition(|finding| matches!(finding.caller, FoundCaller::Key(_)));
    assert_eq!(of_keys.len(), MAX_FINDINGS);
    assert!(of_keys.iter().all(|finding| finding.first == NOW.plus(3 * HOUR)), "{of_keys:?}");
    assert_eq!(others, [expected[0].clone(), expected[2].clone()], "keys drive out nobody else");
}

async fn findings_of_networks_are_few_and_drive_out_no_keys(place: Place) {
    let store = place.open();
    let finding = |reason: &'static str, caller, at: Timestamp| Finding {
        rule: "GET /a".into(),
        reason: reason.into(),
        caller,
        missing: Vec::new(),
        requests: 1,
        first: at,
        last: at,
    };
    let network = |number: usize| FoundCaller::Network(network_of(format!("198.51.{number}.1").parse().unwrap()));
    let many = MAX_FOUND_NETWORKS + 3;
    let mut findings = vec![finding("missing_credential", FoundCaller::Key(key_id(1)), NOW)];
    findings.extend((0..many).map(|number| finding("missing_credential", network(number), NOW.plus(HOUR))));
    let notes = |findings| UsageNotes { findings, ..UsageNotes::default() };
    store.usage().note_usage(notes(findings)).await.unwrap();
    let again = [0, many].map(|number| finding("missing_credential", network(number), NOW.plus(HOUR)));
    store.usage().note_usage(notes(again.to_vec())).await.unwrap();
    let kept = store.usage().findings().await.unwrap();
    let requests = |caller| kept.iter().find(|kept| kept.caller == caller).map(|kept| kept.requests);
    assert_eq!(kept.len(), MAX_FOUND_NETWORKS + 2);
    assert_eq!(requests(network(0)), Some(2), "a network that is known stays apart");
    assert_eq!(requests(FoundCaller::Other), Some(4));
    for (hours, reason) in ["invalid_key", "unknown_key", "key_revoked"].into_iter().enumerate() {
        let at = NOW.plus(Duration::from_secs(7_200 + 3_600 * hours as u64));
        store.usage().note_usage(notes((0..many).map(|n| finding(reason, network(n), at)).collect())).await.unwrap();
    }
    let kept = store.usage().findings().await.unwrap();
    assert_eq!(kept.len(), MAX_KEYLESS_FINDINGS + 1);
    assert!(kept.iter().any(|kept| kept.caller == FoundCaller::Key(key_id(1))), "{kept:?}");
}

async fn usage_touches_no_revision(place: Place) {
    let store = place.open();
    let head = store.feed().head().await.unwrap();
    note(&store, vec![count(1, "GET /a", 200, Passage::Allowed, NOW, 1)]).await;
    see(&store, sighting(1, "192.0.2.1", NOW)).await;
    assert_eq!(store.feed().head().await.unwrap(), head);
}
