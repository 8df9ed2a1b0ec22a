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

/// Everybody is asked before anybody answers.
async fn find(recall: &Recall, workers: &[WorkerRecall], id: &str) -> Option<Remembered> {
    ask(recall, workers, id).await.newest
}

async fn ask(recall: &Recall, workers: &[WorkerRecall], id: &str) -> Recollection {
    tokio::join!(biased; recall.find(id), async { workers.iter().for_each(WorkerRecall::answer) }).0
}

#[tokio::test]
async fn a_request_is_found_by_its_id_with_everything_that_was_noted() {
    let (recall, workers) = Recall::new(2);
    let worker = &workers[1];
    let scopes: Vec<Scope> = ["read:orders", "write:orders"].map(|scope| scope.parse().unwrap()).into();
    let ticket = worker.note(Kind::Refusal, &Noted { missing_scopes: &scopes, ..noted("abc", "/v1/orders") });
    let under_way = find(&recall, &workers, "abc").await.unwrap();
    assert_eq!((under_way.status, under_way.duration), (None, None));
    worker.ended(ticket, 403, None, Duration::from_micros(7));
    let found = find(&recall, &workers, "abc").await.unwrap();
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
    assert_eq!(find(&recall, &workers, "abcd").await, None);
    assert_eq!(find(&recall, &workers, "").await, None);
}

#[tokio::test]
async fn the_key_that_a_request_came_with_may_be_noted_later() {
    let (recall, workers) = Recall::new(1);
    let worker = &workers[0];
    let scopes: Vec<Scope> = vec!["read:orders".parse().unwrap()];
    let nobody = Noted { environment: None, missing_scopes: &scopes, ..noted("abc", "/v1/orders") };
    let ticket = worker.note(Kind::Refusal, &nobody);
    assert_eq!(find(&recall, &workers, "abc").await.unwrap().environment, None);
    let (key, owner) = (KeyId::from_bytes([1; 16]), OwnerId::from_bytes([2; 16]));
    worker.came_with(ticket, key, Some(owner), Some("test"));
    worker.ended(ticket, 401, None, Duration::ZERO);
    let found = find(&recall, &workers, "abc").await.unwrap();
    assert_eq!((found.key_id, found.owner, found.environment.as_deref()), (Some(key), Some(owner), Some("test")));
    assert_eq!((found.missing_scopes, found.status), (vec!["read:orders".to_owned()], Some(401)));
    // What stands there next has no part of it.
    for id in 0..REFUSALS_KEPT {
        worker.note(Kind::Refusal, &Noted { request_id: &id.to_string(), ..nobody });
    }
    worker.came_with(ticket, key, Some(owner), Some("test"));
    let last = find(&recall, &workers, &(REFUSALS_KEPT - 1).to_string()).await.unwrap();
    assert_eq!((last.key_id, last.environment), (None, None));
}

#[tokio::test]
async fn a_ring_is_bounded_and_forgets_the_oldest_first() {
    let (recall, workers) = Recall::new(1);
    let worker = &workers[0];
    let first = worker.note(Kind::Refusal, &noted("0", "/"));
    for id in 1..=REFUSALS_KEPT {
        worker.note(Kind::Refusal, &noted(&id.to_string(), "/"));
    }
    assert_eq!(find(&recall, &workers, "0").await, None);
    assert!(
        find(&recall, &workers, "1").await.is_some()
            && find(&recall, &workers, &REFUSALS_KEPT.to_string()).await.is_some()
    );
    // Whoever took its place is not told how it ended.
    worker.ended(first, 401, None, Duration::ZERO);
    worker.failed(first, "internal_error");
    let other = find(&recall, &workers, &REFUSALS_KEPT.to_string()).await.unwrap();
    assert_eq!((other.status, other.code), (None, Some("insufficient_scope")));
    // Refusals do not push admissions out.
    worker.note(Kind::Admission, &noted("in", "/"));
    for id in 0..REFUSALS_KEPT {
        worker.note(Kind::Refusal, &noted(&id.to_string(), "/"));
    }
    assert!(find(&recall, &workers, "in").await.is_some());
    let rings = worker.rings.borrow();
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

#[tokio::test]
async fn of_two_requests_with_the_same_id_the_newer_is_told() {
    let (recall, workers) = Recall::new(2);
    workers[0].note(Kind::Refusal, &noted("same", "/first"));
    workers[0].note(Kind::Refusal, &noted("same", "/second"));
    assert_eq!(find(&recall, &workers, "same").await.unwrap().path.unwrap(), "/second");
    let later = Timestamp::from_unix_ms(2);
    workers[1].note(Kind::Admission, &Noted { ts: later, ..noted("same", "/third") });
    assert_eq!(find(&recall, &workers, "same").await.unwrap().path.unwrap(), "/third");
}

#[tokio::test]
async fn long_texts_are_cut_and_keys_are_cut_before_them() {
    let (recall, workers) = Recall::new(1);
    let worker = &workers[0];
    let long = format!("/{}ü", "a".repeat(MAX_PATH - 2));
    worker.note(Kind::Refusal, &noted("long", &long));
    let found = find(&recall, &workers, "long").await.unwrap();
    assert_eq!((found.path.unwrap().len(), found.is_whole), (MAX_PATH - 1, false));
    let key = "pc_live_sk_0123456789abcdefghijklmnopqrstuv012345";
    // Cut in its middle, what is left of a key is still shaped like none.
    let begun = format!("/{}/{key}", "a".repeat(MAX_PATH - 30));
    for (id, path) in [("plain", format!("/v1/{key}")), ("escaped", key.replace('_', "%5f")), ("begun", begun)] {
        worker.note(Kind::Refusal, &Noted { host: Some(key), ..noted(id, &path) });
        let found = find(&recall, &workers, id).await.unwrap();
        assert!(!found.is_whole);
        let told = format!("{found:?}");
        assert!(!told.contains("89abcdef") && told.contains("pc_live_sk_01234567"), "{told}");
    }
    worker.note(Kind::Refusal, &noted(key, "/"));
    assert!(!format!("{:?}", find(&recall, &workers, key).await).contains("89abcdef"));
}

#[tokio::test]
async fn a_failure_behind_the_decision_and_a_break_are_noted() {
    let (recall, workers) = Recall::new(1);
    let worker = &workers[0];
    let admitted = Noted { code: None, reason: None, ..noted("a", "/") };
    let ticket = worker.note(Kind::Admission, &admitted);
    worker.failed(ticket, "upstream_timeout");
    worker.ended(ticket, 504, Some("client_gone"), Duration::ZERO);
    let found = find(&recall, &workers, "a").await.unwrap();
    assert_eq!(
        (found.status, found.code, found.reason),
        (Some(504), Some("upstream_timeout"), Some("upstream_timeout"))
    );
    let ticket = worker.note(Kind::Admission, &Noted { request_id: "b", ..admitted });
    worker.ended(ticket, 408, Some("client_gone"), Duration::ZERO);
    let found = find(&recall, &workers, "b").await.unwrap();
    assert_eq!((found.code, found.reason), (None, Some("client_gone")));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_stuck_or_gone_keeps_no_answer_from_others() {
    let (recall, mut workers) = Recall::new(3);
    drop(workers.pop());
    workers[1].note(Kind::Refusal, &noted("a", "/"));
    let told = ask(&recall, &workers[1..], "a").await;
    assert!(told.newest.is_some() && told.silent == [0, 2], "{told:?}");
    let told = ask(&recall, &workers[..1], "a").await;
    assert!(told.newest.is_none() && told.silent == [1, 2], "{told:?}");
    let objection = "workers 1, 2 do not answer, and what they remember cannot be told";
    assert_eq!(told.objection().as_deref(), Some(objection));
    // What was asked in vain is passed over.
    workers[1].answer();
    let told = ask(&recall, &workers, "a").await;
    assert!(told.newest.is_some() && told.silent == [2], "{told:?}");
    let objection = "worker 2 does not answer, and what it remembers cannot be told";
    assert_eq!(told.objection().as_deref(), Some(objection));
    drop(workers.remove(0));
    assert_eq!(ask(&recall, &workers, "b").await, Recollection { newest: None, silent: vec![0, 2] });
}

#[tokio::test(start_paused = true)]
async fn more_may_ask_at_once_than_wait_at_a_worker() {
    let (recall, workers) = Recall::new(1);
    workers[0].note(Kind::Admission, &noted("a", "/"));
    let asking = join_all((0..3 * MOST_QUESTIONS).map(|_| recall.find("a")));
    let looking = async {
        loop {
            workers[0].answer();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        found = asking => assert!(found.iter().all(|told| told.newest.is_some() && told.objection().is_none())),
        () = looking => {}
    }
}
