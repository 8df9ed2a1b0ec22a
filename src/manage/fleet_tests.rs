use std::sync::Arc;

use super::*;
use crate::domain::StoreHead;
use crate::store::fixtures::{NOW, Primary, by, key};
use crate::store::{AuditQuery, AuditSeal, NodeReport, OpenMode, StoreSettings};

fn store() -> Arc<Store> {
    crate::store::open(&StoreSettings::Memory, OpenMode::Create, AuditSeal::default()).unwrap()
}

fn id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

async fn tell(store: &Store, number: u8, applied: Option<StoreHead>, max_staleness: Option<Duration>) {
    let report = NodeReport {
        id: id(number),
        name: format!("host/{number}"),
        version: "1.2.3".to_owned(),
        started_at: NOW,
        applied,
        confirmed_ago: None,
        max_staleness,
    };
    store.nodes().report_node(report).await.unwrap();
}

/// A change made now, and where the store stands then.
async fn change(store: &Store, number: u32) -> StoreHead {
    store.writer().insert_keys(vec![key(number)], by(), crate::domain::time::now()).await.unwrap();
    store.feed().head().await.unwrap()
}

const DAY: Duration = Duration::from_secs(86_400);
const BLINK: Duration = Duration::from_millis(30);

fn names(nodes: &[NodeName]) -> Vec<&str> {
    nodes.iter().map(|node| node.name.as_str()).collect()
}

#[tokio::test]
async fn where_there_are_no_nodes_a_change_is_complete_at_once() {
    let store = store();
    let head = change(&store, 1).await;
    let answer = wait_for_fleet(&store, head.revision, DAY).await;
    assert_eq!((answer.complete, answer.acknowledged.len(), answer.pending.len()), (true, 0, 0));
}

#[tokio::test]
async fn a_node_that_does_not_acknowledge_is_pending_and_stops_in_time() {
    let store = store();
    let before = change(&store, 1).await;
    let begun = crate::domain::time::now();
    tell(&store, 1, Some(before), Some(DAY)).await;
    tell(&store, 2, Some(before), None).await;
    let head = change(&store, 2).await;
    tell(&store, 3, Some(head), Some(DAY)).await;
    let early = crate::domain::time::now();
    let answer = wait_for_fleet(&store, head.revision, BLINK).await;
    assert_eq!((answer.complete, names(&answer.acknowledged)), (false, vec!["host/3"]));
    let [first, second] = &answer.pending[..] else { panic!("{answer:?}") };
    assert_eq!(
        (first.node.id, second.node.id, second.stops_by),
        (id(1), id(2), None),
        "who serves for ever never stops"
    );
    let stops_by = first.stops_by.unwrap();
    assert!(stops_by.since(early) <= DAY + DAY / 1000 && stops_by >= begun.plus(DAY).minus(BLINK), "{answer:?}");
    // Asked again long after, the moment is the same or earlier, never later.
    let again = wait_for_fleet(&store, head.revision, Duration::ZERO).await;
    assert!(again.pending[0].stops_by.unwrap() >= stops_by.minus(BLINK));
    let shown = answer.json(Told::Names);
    assert_eq!((&shown["acknowledged"], &shown["pending"][0]["node"]), (&json!(["host/3"]), &json!("host/1")));
    let shown = answer.json(Told::Ids);
    assert_eq!((&shown["acknowledged"], &shown["pending"][0]["node"]), (&json!([id(3)]), &json!(id(1))));
}

#[tokio::test]
async fn waiting_ends_with_the_last_acknowledgement() {
    let store = store();
    tell(&store, 1, None, Some(DAY)).await;
    let head = change(&store, 1).await;
    let told = Arc::clone(&store);
    let later = tokio::spawn(async move {
        tokio::time::sleep(BLINK).await;
        tell(&told, 1, Some(head), Some(DAY)).await;
    });
    let answer = wait_for_fleet(&store, head.revision, DAY).await;
    assert_eq!((answer.complete, names(&answer.acknowledged)), (true, vec!["host/1"]));
    later.await.unwrap();
}

#[tokio::test]
async fn a_change_that_the_store_lost_is_never_complete_whoever_took_its_number() {
    let primary = Primary::new();
    let store = primary.store();
    let before = change(store, 1).await;
    tell(store, 1, Some(before), Some(DAY)).await;
    let standby = primary.standby();
    let lost = change(store, 2).await;
    let waited_in = Arc::clone(store);
    let waiting = tokio::spawn(async move { wait_for_fleet(&waited_in, lost.revision, 10 * BLINK).await });
    tokio::time::sleep(BLINK).await;
    primary.fail_over(standby);
    let nobody_has_it = wait_for_fleet(store, lost.revision, Duration::ZERO).await;
    assert_eq!((nobody_has_it.complete, nobody_has_it.pending.len()), (false, 0));
    let other = change(store, 3).await;
    tell(store, 1, Some(other), Some(DAY)).await;
    assert_eq!(other.revision, lost.revision);
    let answer = waiting.await.unwrap();
    assert_eq!((answer.complete, answer.acknowledged.len(), answer.pending.len()), (false, 0, 0));
    assert!(wait_for_fleet(store, other.revision, Duration::ZERO).await.complete);
}

#[tokio::test]
async fn who_must_have_stopped_is_waited_for_no_longer() {
    let store = store();
    let before = change(&store, 1).await;
    tell(&store, 1, Some(before), Some(BLINK)).await;
    let head = change(&store, 2).await;
    let answer = wait_for_fleet(&store, head.revision, DAY).await;
    assert_eq!((answer.complete, answer.acknowledged.len()), (true, 0));
}

#[tokio::test]
async fn a_forgotten_node_is_noted_and_gone() {
    let store = store();
    tell(&store, 1, None, None).await;
    let now = crate::domain::time::now();
    assert!(forget_node(&store, id(1), by(), now).await.unwrap());
    assert!(!forget_node(&store, id(1), by(), now).await.unwrap());
    assert_eq!(nodes_json(&store, None).await.unwrap(), Vec::<Value>::new());
    let trail = store.audit().list_audit(AuditQuery { limit: 9, ..AuditQuery::default() }).await.unwrap().items;
    let [entry] = &trail[..] else { panic!("{trail:?}") };
    assert_eq!((entry.action.as_str(), entry.subject.as_str()), ("node.forget", id(1).to_string().as_str()));
    assert!(entry.before.as_ref().unwrap().contains("host/1") && entry.after.is_none(), "{entry:?}");
}

#[tokio::test]
async fn a_list_tells_how_far_behind_each_is() {
    let store = store();
    let before = change(&store, 1).await;
    tell(&store, 1, Some(before), Some(DAY)).await;
    tell(&store, 2, Some(before), Some(DAY)).await;
    change(&store, 2).await;
    let head = change(&store, 3).await;
    let this = ThisNode {
        id: id(2),
        name: "host/2".to_owned(),
        started_at: NOW,
        revision: head.revision,
        lag: Some(BLINK),
        as_of: Some(NOW),
        max_staleness: Some(DAY),
    };
    let nodes = nodes_json(&store, Some(&this)).await.unwrap();
    let [first, second] = &nodes[..] else { panic!("{nodes:?}") };
    assert_eq!(
        (&first["behind"], &first["this"], &first["revision"]),
        (&json!(2), &json!(false), &json!(before.revision))
    );
    assert!(first["stops_by"].is_string() && first["last_seen"].is_string(), "{first}");
    assert_eq!((&second["behind"], &second["this"], &second["stops_by"]), (&json!(0), &json!(true), &Value::Null));
    assert_eq!((&second["lag_ms"], &second["max_staleness_seconds"]), (&json!(30), &json!(86_400)));
    let stranger = ThisNode { id: id(9), ..this };
    assert_eq!(nodes_json(&store, Some(&stranger)).await.unwrap()[2]["id"], json!(id(9)), "it is there all the same");
}
