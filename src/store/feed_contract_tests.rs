//! What every store promises to those who follow its changes: the answers of its [`ChangeFeed`].

use std::time::Duration;

use super::fixtures::held_to_every_store;
use super::fixtures::{NOW, Place, by, hash, head, insert, key, key_id, keys, owner, owner_id, since};
use super::*;
use crate::domain::{KeyId, KeyRecord, OwnerRecord, RevisionToken, StoreHead, Timestamp};

held_to_every_store!(
    changes_come_in_order_with_additions_before_removals,
    a_head_of_another_history_is_recognised,
    what_is_forgotten_is_fed_as_removed,
    readers_behind_what_is_remembered_are_told,
    forgetting_goes_in_bounded_steps,
    more_changes_than_fit_one_answer_are_too_old,
    loading_hands_over_everything_once,
    waiting_ends_with_a_commit_and_not_before,
);

fn ids(keys: &[KeyFacts]) -> Vec<KeyId> {
    keys.iter().map(|key| key.id).collect()
}

fn days_later(days: i64) -> Timestamp {
    Timestamp::from_unix_ms(NOW.unix_ms() + days * 86_400_000)
}

async fn changes_come_in_order_with_additions_before_removals(place: Place) {
    let store = place.open();
    insert(&store, keys([1, 2, 3])).await;
    store.writer().insert_owner(owner(1), by(), NOW).await.unwrap();
    let start = head(&store).await;
    assert_eq!(since(&store, start).await, (vec![], vec![], vec![], start));

    // One transaction in which a key that is off comes before keys that work.
    insert(&store, vec![KeyRecord { revoked_at: Some(NOW), ..key(4) }, key(5), key(6)]).await;
    let middle = head(&store).await;
    store.writer().revoke(key_id(1), by(), NOW).await.unwrap();
    store.writer().set_active(key_id(2), false, by(), NOW).await.unwrap();
    store.writer().set_active(key_id(2), true, by(), NOW).await.unwrap();
    store.writer().set_owner_suspended(owner_id(1), true, by(), NOW).await.unwrap();

    let (owners, changed, removed, end) = since(&store, start).await;
    assert_eq!(owners, [OwnerFacts { suspended: true, ..OwnerFacts::of(&owner(1)) }]);
    assert_eq!(ids(&changed), [5, 6, 4, 1, 2].map(key_id));
    assert_eq!(changed.iter().map(KeyFacts::is_off).collect::<Vec<_>>(), [false, false, true, true, false]);
    assert_eq!((removed, end), (vec![], head(&store).await));
    assert_eq!(ids(&since(&store, middle).await.1), [1, 2].map(key_id));
}

async fn a_head_of_another_history_is_recognised(place: Place) {
    let store = place.open();
    insert(&store, keys([1])).await;
    let before = head(&store).await;
    insert(&store, keys([2])).await;
    let now = head(&store).await;
    let other = |head: StoreHead| StoreHead { token: RevisionToken(head.token.0 ^ 1), ..head };
    let ahead = StoreHead { revision: now.revision.next(), ..now };
    for stranger in [other(now), other(before), ahead] {
        let answer = store.feed().changes_since(stranger).await.unwrap();
        assert!(matches!(answer, Changes::OtherHistory), "{stranger:?}: {answer:?}");
    }
    assert_eq!(ids(&since(&store, before).await.1), [key_id(2)]);
}

async fn what_is_forgotten_is_fed_as_removed(place: Place) {
    let store = place.open();
    insert(&store, keys([1, 2, 3])).await;
    store.writer().revoke(key_id(1), by(), days_later(0)).await.unwrap();
    store.writer().revoke(key_id(2), by(), days_later(2)).await.unwrap();
    let before = head(&store).await;
    assert_eq!(store.writer().forget(days_later(1), by(), days_later(31)).await.unwrap(), 1);
    let (_, changed, removed, end) = since(&store, before).await;
    assert_eq!((changed.len(), removed), (0, vec![Removed { id: key_id(1), hash: hash(1) }]));
    assert_eq!(end.revision, before.revision.next());
    assert_eq!(store.reader().find_key(key_id(1)).await.unwrap(), None);
    assert_eq!(store.writer().forget(days_later(1), by(), days_later(31)).await.unwrap(), 0);
    assert_eq!(head(&store).await, end, "forgetting nothing commits nothing");
    assert_eq!(since(&store, before).await.2.len(), 1, "who has not heard of it yet still will");
    insert(&store, vec![KeyRecord { hash: hash(1), ..key(9) }]).await;
}

async fn readers_behind_what_is_remembered_are_told(place: Place) {
    let store = place.open();
    let mut heads = Vec::new();
    for day in 0..4 {
        let number = u32::try_from(day).unwrap();
        store.writer().insert_keys(keys([number]), by(), days_later(day)).await.unwrap();
        heads.push(head(&store).await);
    }
    store.writer().forget(days_later(2), by(), days_later(32)).await.unwrap();
    let answer = store.feed().changes_since(heads[0]).await.unwrap();
    assert!(matches!(answer, Changes::TooOld), "{answer:?}");
    // The head of day 1 was the newest until day 2, so a reader that has it is not behind by more than that.
    assert_eq!(ids(&since(&store, heads[1]).await.1), [2, 3].map(key_id));

    // However long nothing happens, the newest head is known.
    store.writer().forget(days_later(400), by(), days_later(430)).await.unwrap();
    assert_eq!(since(&store, heads[3]).await.3, heads[3]);
}

async fn forgetting_goes_in_bounded_steps(place: Place) {
    let store = place.open();
    let count = u32::try_from(MAX_FORGOTTEN_AT_ONCE).unwrap() + 5;
    insert(&store, (0..count).map(|n| KeyRecord { revoked_at: Some(NOW), ..key(n) }).collect()).await;
    let first = store.writer().forget(days_later(1), by(), days_later(31)).await.unwrap();
    assert_eq!(first, MAX_FORGOTTEN_AT_ONCE as u64);
    let now = days_later(i64::try_from(RETENTION.as_secs() / 86_400).unwrap() + 1);
    assert_eq!(forget_what_is_old(store.writer(), now).await.unwrap(), 5);
    assert_eq!(store.reader().list_keys(KeyQuery::default()).await.unwrap().items, []);
}

async fn more_changes_than_fit_one_answer_are_too_old(place: Place) {
    let store = place.open();
    let start = head(&store).await;
    let most = u32::try_from(MAX_CHANGED_KEYS).unwrap();
    insert(&store, keys(0..most)).await;
    assert_eq!(since(&store, start).await.1.len(), MAX_CHANGED_KEYS);
    insert(&store, keys([most])).await;
    let answer = store.feed().changes_since(start).await.unwrap();
    assert!(matches!(answer, Changes::TooOld), "{answer:?}");
}

async fn loading_hands_over_everything_once(place: Place) {
    let store = place.open();
    let count = 10_000;
    store.writer().insert_owner(owner(1), by(), NOW).await.unwrap();
    store.writer().insert_owner(OwnerRecord { suspended: true, ..owner(2) }, by(), NOW).await.unwrap();
    insert(&store, (0..count).map(|n| KeyRecord { owner: Some(owner_id(1 + n % 2)), ..key(n) }).collect()).await;
    store.writer().revoke(key_id(5), by(), NOW).await.unwrap();

    let (mut expected, mut owners, mut keys) = (None, Vec::new(), Vec::new());
    let mut sink = |batch| match batch {
        LoadBatch::Expect { keys: count } => {
            assert!(owners.is_empty() && keys.is_empty() && expected.is_none(), "the size comes first, once");
            expected = Some(count);
        }
        LoadBatch::Owners(batch) => {
            assert!(keys.is_empty(), "owners come before keys");
            owners.extend(batch);
        }
        LoadBatch::Keys(batch) => keys.extend(batch),
    };
    let loaded = store.feed().load_all(&mut sink).await.unwrap();
    assert_eq!(loaded, head(&store).await);
    assert_eq!(expected, Some(keys.len()));
    owners.sort_by_key(|owner| owner.id);
    let suspended = |number, suspended| OwnerFacts { suspended, ..OwnerFacts::of(&owner(number)) };
    assert_eq!(owners, [suspended(1, false), suspended(2, true)]);
    keys.sort_by_key(|key| key.id);
    assert_eq!(ids(&keys), (0..count).map(key_id).collect::<Vec<_>>());
    let revoked: Vec<KeyId> = keys.iter().filter(|key| key.revoked_at.is_some()).map(|key| key.id).collect();
    assert_eq!(revoked, [key_id(5)]);
    let (first, last) = (&keys[0], &keys[keys.len() - 1]);
    assert!(Arc::ptr_eq(&first.profile, &last.profile), "keys that hold the same share it");
}

async fn waiting_ends_with_a_commit_and_not_before(place: Place) {
    let store = place.open();
    let seen = head(&store).await;
    let patience = Duration::from_secs(20);
    let feed = store.feed().clone();
    let waiter = tokio::spawn(async move { feed.wait_for_change(seen, patience).await });
    tokio::task::yield_now().await;
    assert!(!waiter.is_finished());
    insert(&store, keys([1])).await;
    let woken = tokio::time::timeout(Duration::from_secs(10), waiter).await;
    woken.expect("a commit wakes who waits").unwrap().unwrap();

    let late = tokio::time::timeout(Duration::from_secs(10), store.feed().wait_for_change(seen, patience)).await;
    late.expect("what was committed before the call counts").unwrap();

    let seen = head(&store).await;
    store.feed().wait_for_change(seen, Duration::from_millis(1)).await.expect("running out of patience is no error");
}
