//! The promises of looking up many keys and owners at once, held to every store.

use std::collections::{HashMap, HashSet};

use super::fixtures::{NOW, Place, by, hash, held_to_every_store, key, key_id, keys, owner, owner_id};
use super::*;
use crate::domain::{KeyRecord, OwnerRecord};

/// More than any store looks up in one go.
const MANY: u32 = 1_300;

held_to_every_store!(
    what_is_taken_is_told_and_nothing_else,
    owners_are_told_with_their_keys_as_far_as_their_bound_goes,
);

async fn what_is_taken_is_told_and_nothing_else(place: Place) {
    let store = place.open();
    let every_other = keys((0..MANY).filter(|number| number % 2 == 0));
    store.writer().insert_keys(every_other, by(), NOW).await.unwrap();
    store.writer().revoke(key_id(4), by(), NOW).await.unwrap();
    let (ids, hashes) = ((0..MANY).map(key_id).collect(), (0..MANY).map(hash).collect());
    let taken = store.reader().find_taken(ids, hashes).await.unwrap();
    let even = || (0..MANY).step_by(2);
    assert_eq!(taken.ids, even().map(key_id).collect::<HashSet<_>>());
    assert_eq!(taken.hashes, even().map(|number| (hash(number), key_id(number))).collect::<HashMap<_, _>>());
    assert_eq!(store.reader().find_taken(Vec::new(), Vec::new()).await.unwrap(), Taken::default());
    assert_eq!(store.reader().find_taken(vec![key_id(1)], vec![hash(3)]).await.unwrap(), Taken::default());
}

async fn owners_are_told_with_their_keys_as_far_as_their_bound_goes(place: Place) {
    let store = place.open();
    let bound = |number, most| OwnerRecord { max_keys: most, ..owner(number) };
    let others = (10..200).map(|number| bound(number, Some(1)));
    for record in [bound(1, Some(4)), bound(2, Some(3)), bound(3, None)].into_iter().chain(others) {
        store.writer().insert_owner(record, by(), NOW).await.unwrap();
    }
    let of = |holder, number| KeyRecord { owner: Some(owner_id(holder)), ..key(number) };
    let owned = vec![of(1, 1), of(1, 2), of(1, 3), of(2, 4), of(2, 5), of(2, 6), of(3, 7), key(8)];
    store.writer().insert_keys(owned, by(), NOW).await.unwrap();
    store.writer().revoke(key_id(2), by(), NOW).await.unwrap();
    let asked = (1..200).map(owner_id).collect();
    let found = store.reader().find_holdings(asked).await.unwrap();
    let counts: HashMap<_, _> = found.iter().map(|holding| (holding.owner.id, holding.keys)).collect();
    assert_eq!((found.len(), counts.len()), (193, 193), "those that there are, once");
    assert_eq!([1, 2, 3, 10].map(|number| counts[&owner_id(number)]), [2, 3, 0, 0]);
    assert!(found.iter().any(|holding| holding.owner.name == "owner 2" && holding.owner.max_keys == Some(3)));
}
