//! The promises of the book of nodes, held to every store.

use std::time::Duration;

use super::fixtures::{NOW, Place, by, held_to_every_store, key};
use super::*;
use crate::domain::{NodeId, Revision, RevisionToken, StoreHead, time};

held_to_every_store!(
    a_node_is_as_it_last_reported_until_it_is_struck_out,
    what_is_not_of_this_history_is_not_acknowledged,
    a_change_was_visible_by_a_moment_that_does_not_move,
    the_silent_go_when_they_must_have_stopped,
    the_silent_go_first_where_there_are_too_many,
    reports_touch_no_revision,
);

fn id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn report(number: u8) -> NodeReport {
    NodeReport {
        id: id(number),
        name: format!("host/{number}"),
        version: "1.2.3".to_owned(),
        started_at: NOW.plus(Duration::from_secs(number.into())),
        applied: None,
        confirmed_ago: None,
        max_staleness: Some(Duration::from_secs(86_400)),
    }
}

async fn tell(store: &Store, report: NodeReport) {
    store.nodes().report_node(report).await.unwrap();
}

async fn roll(store: &Store) -> Roll {
    store.nodes().list_nodes().await.unwrap()
}

async fn a_node_is_as_it_last_reported_until_it_is_struck_out(place: Place) {
    let store = place.open();
    assert_eq!(roll(&store).await.nodes, []);
    let head = store.feed().head().await.unwrap();
    let before = time::now();
    tell(&store, report(2)).await;
    tell(&store, report(1)).await;
    let later = NodeReport {
        version: "1.2.4".to_owned(),
        applied: Some(head),
        confirmed_ago: Some(Duration::from_millis(70)),
        max_staleness: None,
        ..report(2)
    };
    tell(&store, later.clone()).await;
    let found = roll(&store).await;
    assert_eq!((found.newest, found.nodes.len()), (Revision::ZERO, 2));
    let [first, second] = &found.nodes[..] else { panic!("{found:?}") };
    let expected = Node::of(report(1), first.seen, |_| true);
    assert_eq!((first, first.acknowledged), (&expected, None));
    let expected = Node::of(later, second.seen, |_| true);
    assert_eq!((second, second.acknowledged, second.max_staleness), (&expected, Some(Revision::ZERO), None));
    assert!(first.seen <= second.seen && second.seen <= found.now, "{found:?}");
    // The database is on this machine.
    assert!(found.now.since(before) < Duration::from_secs(60) && before.since(found.now) < Duration::from_secs(1));
    assert!(store.nodes().strike_node(id(1)).await.unwrap());
    assert!(!store.nodes().strike_node(id(1)).await.unwrap());
    assert_eq!(roll(&store).await.nodes.len(), 1);
    if place.settings != StoreSettings::Memory {
        assert_eq!(roll(&place.open()).await.nodes[0].id, id(2), "others read the same");
    }
}

async fn what_is_not_of_this_history_is_not_acknowledged(place: Place) {
    let store = place.open();
    let revision = store.writer().insert_keys(vec![key(1)], by(), NOW).await.unwrap();
    let head = store.feed().head().await.unwrap();
    for (applied, acknowledged) in [
        (head, Some(revision)),
        (StoreHead { token: RevisionToken(head.token.0 ^ 1), ..head }, None),
        (StoreHead { revision: Revision::new(9), ..head }, None),
    ] {
        tell(&store, NodeReport { applied: Some(applied), ..report(1) }).await;
        assert_eq!(roll(&store).await.nodes[0].acknowledged, acknowledged, "{applied:?}");
    }
}

async fn a_change_was_visible_by_a_moment_that_does_not_move(place: Place) {
    let store = place.open();
    let before = time::now();
    let revision = store.writer().insert_keys(vec![key(1)], by(), before).await.unwrap();
    let by_then = async |revision| store.nodes().committed_by(revision).await.unwrap();
    let first = by_then(revision).await.unwrap();
    assert!(first >= before && first.since(before) < Duration::from_secs(120), "{before} {first}");
    assert_eq!(by_then(revision).await, Some(first));
    assert_eq!(by_then(revision.next()).await, None);
    let second = store.writer().insert_keys(vec![key(2)], by(), time::now()).await.unwrap();
    assert!(by_then(second).await.unwrap() >= first);
    assert_eq!(by_then(revision).await, Some(first));
}

async fn the_silent_go_when_they_must_have_stopped(place: Place) {
    let store = place.open();
    for (number, max_staleness) in [(1, Some(Duration::ZERO)), (2, None)] {
        tell(&store, NodeReport { max_staleness, ..report(number) }).await;
    }
    assert_eq!(store.nodes().tidy_nodes().await.unwrap(), 0, "they were just seen");
    let Roll { now, nodes, .. } = roll(&store).await;
    let over = |after: Duration| nodes.iter().filter(|node| node.is_over(now.plus(after))).count();
    assert_eq!(over(STRUCK_AFTER - Duration::from_secs(60)), 0);
    assert_eq!(over(STRUCK_AFTER + Duration::from_secs(60)), 1, "who serves for ever never stops");
    assert_eq!(surplus(nodes.clone(), now.plus(2 * STRUCK_AFTER)), [id(1)]);
}

async fn the_silent_go_first_where_there_are_too_many(place: Place) {
    let store = place.open();
    let many = u8::try_from(MAX_NODES).unwrap() + 3;
    for number in 1..=many {
        tell(&store, report(number)).await;
        // The clock must move on in between.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    tell(&store, report(1)).await;
    assert_eq!(store.nodes().tidy_nodes().await.unwrap(), 3);
    let kept: Vec<NodeId> = roll(&store).await.nodes.iter().map(|node| node.id).collect();
    let expected: Vec<NodeId> = [1].into_iter().chain(5..=many).map(id).collect();
    assert_eq!(kept, expected);
}

async fn reports_touch_no_revision(place: Place) {
    let store = place.open();
    let head = store.feed().head().await.unwrap();
    tell(&store, report(1)).await;
    store.nodes().strike_node(id(1)).await.unwrap();
    assert_eq!(store.feed().head().await.unwrap(), head);
    assert_eq!(store.audit().audit_extent().await.unwrap().entries, 0);
}
