//! Claims about what is remembered, for how long, and what never is.

use super::entry::MAX_PATH;
use super::*;

fn noted<'a>(id: &'a str, path: &'a str) -> Noted<'a> {
    Noted {
        ts: Timestamp::from_unix_ms(1),
        request_id: id,
        listener: "main",
        protocol: Version::HTTP_11,
        method: "GET",
        host: Some("api.example.com"),
        path: Some(path),
        route: Some("orders"),
        rule: Some(("portcullis.yaml", 14)),
        code: Some("insufficient_scope"),
        reason: Some("insufficient_scope"),
        missing_scopes: &[],
        mode: Some(DecisionMode::Enforce),
        key_id: None,
        owner: None,
        environment: Some("live"),
        client_ip: Some([203, 0, 113, 9].into()),
    }
}

#[test]
fn a_request_is_found_by_its_id_with_everything_that_was_noted() {
    let recall = Recall::new(2);
    let worker = recall.worker(1);
    let scopes: Vec<Scope> = ["read:orders", "write:orders"].map(|scope| scope.parse().unwrap()).into();
    let ticket = worker.note(Kind::Refusal, &Noted { missing_scopes: &scopes, ..noted("abc", "/v1/orders") });
    let under_way = recall.find("abc").unwrap();
    assert_eq!((under_way.status, under_way.duration), (None, None));
    worker.ended(ticket, 403, None, Duration::from_micros(7));
    let found = recall.find("abc").unwrap();
    assert_eq!(
        found,
        Remembered {
            ts: Timestamp::from_unix_ms(1),
            request_id: "abc".to_owned(),
            listener: "main".to_owned(),
            protocol: "HTTP/1.1",
            method: Some("GET".to_owned()),
            host: Some("api.example.com".to_owned()),
            path: Some("/v1/orders".to_owned()),
            is_whole: true,
            route: Some("orders".to_owned()),
            rule: Some(("portcullis.yaml".to_owned(), 14)),
            status: Some(403),
            code: Some("insufficient_scope"),
            reason: Some("insufficient_scope"),
            missing_scopes: vec!["read:orders".to_owned(), "write:orders".to_owned()],
            mode: Some("enforce"),
            key_id: None,
            owner: None,
            environment: Some("live".to_owned()),
            client_ip: Some([203, 0, 113, 9].into()),
            duration: Some(Duration::from_micros(7)),
        }
    );
    assert_eq!(found.masked().client_ip, Some([203, 0, 113, 0].into()));
    assert_eq!(recall.find("abcd"), None);
    assert_eq!(recall.find(""), None);
}

#[test]
fn the_key_that_a_request_came_with_may_be_noted_later() {
    let recall = Recall::new(1);
    let worker = recall.worker(0);
    let scopes: Vec<Scope> = vec!["read:orders".parse().unwrap()];
    let nobody = Noted { environment: None, missing_scopes: &scopes, ..noted("abc", "/v1/orders") };
    let ticket = worker.note(Kind::Refusal, &nobody);
    assert_eq!(recall.find("abc").unwrap().environment, None);
    let (key, owner) = (KeyId::from_bytes([1; 16]), OwnerId::from_bytes([2; 16]));
    worker.came_with(ticket, key, Some(owner), Some("test"));
    worker.ended(ticket, 401, None, Duration::ZERO);
    let found = recall.find("abc").unwrap();
    assert_eq!((found.key_id, found.owner, found.environment.as_deref()), (Some(key), Some(owner), Some("test")));
    assert_eq!((found.missing_scopes, found.status), (vec!["read:orders".to_owned()], Some(401)));
    // What stands there next has no part of it.
    for id in 0..REFUSALS_KEPT {
        worker.note(Kind::Refusal, &Noted { request_id: &id.to_string(), ..nobody });
    }
    worker.came_with(ticket, key, Some(owner), Some("test"));
    let last = recall.find(&(REFUSALS_KEPT - 1).to_string()).unwrap();
    assert_eq!((last.key_id, last.environment), (None, None));
}

#[test]
fn a_ring_is_bounded_and_forgets_the_oldest_first() {
    let recall = Recall::new(1);
    let worker = recall.worker(0);
    let first = worker.note(Kind::Refusal, &noted("0", "/"));
    for id in 1..=REFUSALS_KEPT {
        worker.note(Kind::Refusal, &noted(&id.to_string(), "/"));
    }
    assert_eq!(recall.find("0"), None);
    assert!(recall.find("1").is_some() && recall.find(&REFUSALS_KEPT.to_string()).is_some());
    // Whoever took its place is not told how it ended.
    worker.ended(first, 401, None, Duration::ZERO);
    worker.failed(first, "internal_error");
    let other = recall.find(&REFUSALS_KEPT.to_string()).unwrap();
    assert_eq!((other.status, other.code), (None, Some("insufficient_scope")));
    // Refusals do not push admissions out.
    worker.note(Kind::Admission, &noted("in", "/"));
    for id in 0..REFUSALS_KEPT {
        worker.note(Kind::Refusal, &noted(&id.to_string(), "/"));
    }
    assert!(recall.find("in").is_some());
    let rings = worker.rings().lock();
    assert_eq!((rings.refusals.entries.len(), rings.refusals.entries.capacity()), (REFUSALS_KEPT, REFUSALS_KEPT));
}

#[test]
fn a_warm_entry_uses_its_memory_again() {
    let mut ring = Ring::with_room(1);
    ring.note(&noted("a", &"/x".repeat(MAX_PATH)));
    let (place, capacity) = (ring.entries[0].texts.as_ptr(), ring.entries[0].texts.capacity());
    for _ in 0..3 {
        ring.note(&noted("b", "/short"));
    }
    assert_eq!((ring.entries[0].texts.as_ptr(), ring.entries[0].texts.capacity()), (place, capacity));
}

#[test]
fn of_two_requests_with_the_same_id_the_newer_is_told() {
    let recall = Recall::new(2);
    recall.worker(0).note(Kind::Refusal, &noted("same", "/first"));
    recall.worker(0).note(Kind::Refusal, &noted("same", "/second"));
    assert_eq!(recall.find("same").unwrap().path.unwrap(), "/second");
    let later = Timestamp::from_unix_ms(2);
    recall.worker(1).note(Kind::Admission, &Noted { ts: later, ..noted("same", "/third") });
    assert_eq!(recall.find("same").unwrap().path.unwrap(), "/third");
}

#[test]
fn long_texts_are_cut_and_keys_are_cut_before_them() {
    let recall = Recall::new(1);
    let worker = recall.worker(0);
    let long = format!("/{}ü", "a".repeat(MAX_PATH - 2));
    worker.note(Kind::Refusal, &noted("long", &long));
    let found = recall.find("long").unwrap();
    assert_eq!((found.path.unwrap().len(), found.is_whole), (MAX_PATH - 1, false));
    let key = "pc_live_sk_0123456789abcdefghijklmnopqrstuv012345";
    // Cut in its middle, what is left of a key is still shaped like none.
    let begun = format!("/{}/{key}", "a".repeat(MAX_PATH - 30));
    for (id, path) in [("plain", format!("/v1/{key}")), ("escaped", key.replace('_', "%5f")), ("begun", begun)] {
        worker.note(Kind::Refusal, &Noted { host: Some(key), ..noted(id, &path) });
        let found = recall.find(id).unwrap();
        assert!(!found.is_whole);
        let told = format!("{found:?}");
        assert!(!told.contains("89abcdef") && told.contains("pc_live_sk_01234567"), "{told}");
    }
    worker.note(Kind::Refusal, &noted(key, "/"));
    assert!(!format!("{:?}", recall.find(key)).contains("89abcdef"));
}

#[test]
fn a_failure_behind_the_decision_and_a_break_are_noted() {
    let recall = Recall::new(1);
    let worker = recall.worker(0);
    let admitted = Noted { code: None, reason: None, ..noted("a", "/") };
    let ticket = worker.note(Kind::Admission, &admitted);
    worker.failed(ticket, "upstream_timeout");
    worker.ended(ticket, 504, Some("client_gone"), Duration::ZERO);
    let found = recall.find("a").unwrap();
    assert_eq!(
        (found.status, found.code, found.reason),
        (Some(504), Some("upstream_timeout"), Some("upstream_timeout"))
    );
    let ticket = worker.note(Kind::Admission, &Noted { request_id: "b", ..admitted });
    worker.ended(ticket, 408, Some("client_gone"), Duration::ZERO);
    let found = recall.find("b").unwrap();
    assert_eq!((found.code, found.reason), (None, Some("client_gone")));
}
