//! Backups and restores, held to every store: what is put back is what was there, and nothing that was taken away for good.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::fixtures::held_to_every_store;
use super::fixtures::{NOW, Place, by, hash, key, key_id, keys, owner, owner_id};
use super::*;
use crate::domain::{KeyRecord, Quota, QuotaHolder, QuotaPeriod, QuotaTerm, Revision, Timestamp};

held_to_every_store!(
    what_is_put_back_is_what_was_there,
    a_store_that_is_not_empty_is_replaced_only_when_that_is_said,
    what_was_revoked_since_stays_revoked,
    what_was_revoked_stays_revoked_when_its_row_is_gone,
    a_secret_that_was_replaced_stays_replaced,
    every_reader_takes_a_restore_for_another_history,
    a_trail_that_goes_on_from_the_backups_is_kept,
    a_trail_of_another_store_gives_way,
    a_refused_restore_leaves_everything,
    last_use_and_counts_are_raised_and_never_lowered,
    what_was_answered_before_a_restore_is_not_answered_again,
    a_copy_ends_when_nobody_wants_more,
);

/// Some moment after the backups of these tests.
const LATER: Timestamp = Timestamp::from_unix_ms(1_700_000_600_000);

async fn back_up(store: &Store) -> Vec<u8> {
    let mut file = Vec::new();
    super::back_up(store, &mut file, NOW).await.unwrap();
    file
}

fn read(file: &[u8]) -> Archive {
    read_archive(&mut &*file, &AuditSeal::default(), Proof::Sealed).unwrap()
}

async fn restore(store: &Store, file: &[u8], replace: bool) -> Result<Revision, StoreError> {
    put_back(store, &Arc::new(Restoration { archive: read(file), replace }), by(), LATER).await
}

async fn all_keys(store: &Store) -> Vec<KeyRecord> {
    store.reader().list_keys(KeyQuery { limit: 1_000, ..KeyQuery::default() }).await.unwrap().items
}

async fn trail(store: &Store) -> Vec<AuditEntry> {
    let query = AuditQuery { order: AuditOrder::OldestFirst, limit: 1_000, ..AuditQuery::default() };
    store.audit().list_audit(query).await.unwrap().items
}

/// What the trail's last entry says of the restore.
async fn told(store: &Store) -> Value {
    let last = trail(store).await.pop().unwrap();
    assert_eq!(
        (last.action.as_str(), last.subject.as_str(), last.actor.as_str()),
        ("store.restore", "store", "local:tester")
    );
    json!({
        "before": serde_json::from_str::<Value>(&last.before.unwrap()).unwrap(),
        "after": serde_json::from_str::<Value>(&last.after.unwrap()).unwrap(),
    })
}

async fn is_sound(store: &Store, head: Option<AuditHead>) {
    let found = store.audit().verify_audit(head).await.unwrap();
    assert!(found.is_sound(&[]), "{found:?}");
}

/// A record with something in every field.
fn full(number: u32) -> KeyRecord {
    KeyRecord {
        name: "näme\n\"quoted\"".to_owned(),
        description: "text".to_owned(),
        owner: Some(owner_id(1)),
        pepper: Some("one".to_owned()),
        scopes: vec!["read:orders".parse().unwrap(), "orders:*".parse().unwrap()],
        roles: vec!["clerk".to_owned()],
        may_grant: vec!["*".parse().unwrap()],
        bounds: crate::domain::Bounds {
            allowed_ips: vec!["10.0.0.0/8".parse().unwrap()],
            quota: Some(Quota::new(Some(5), None).unwrap()),
            ..Default::default()
        },
        paired: true,
        expires_at: Some(LATER),
        grace_until: Some(LATER),
        replaces: Some(key_id(1)),
        lineage: key_id(1),
        ends_on_use: true,
        metadata: [("a".to_owned(), json!({ "b": [1, null, "c"] }))].into(),
        ..key(number)
    }
}

/// A store with an owner and three keys: plain, full, revoked.
async fn filled(place: &Place) -> Arc<Store> {
    let store = place.open();
    let terms = crate::domain::OwnerRecord { max_keys: Some(1), may_grant: Some(Vec::new()), ..owner(1) };
    store.writer().insert_owner(terms, by(), NOW).await.unwrap();
    store.writer().insert_keys(vec![key(1), full(2), key(3)], by(), NOW).await.unwrap();
    store.writer().revoke(key_id(3), by(), NOW).await.unwrap();
    store
}

async fn what_is_put_back_is_what_was_there(place: Place) {
    let store = filled(&place).await;
    let file = back_up(&store).await;
    let other = place.another();
    let empty = other.open();
    let revision = restore(&empty, &file, false).await.unwrap();
    let before = store.feed().head().await.unwrap().revision;
    assert_eq!((revision, empty.feed().head().await.unwrap().revision), (before.next(), before.next()));
    let stamped = |record: KeyRecord| KeyRecord { revision, ..record };
    let expected: Vec<KeyRecord> = all_keys(&store).await.into_iter().map(stamped).collect();
    assert_eq!(all_keys(&empty).await, expected);
    let owners = empty.reader().list_owners().await.unwrap();
    assert_eq!(owners.len(), 1);
    assert_eq!((owners[0].max_keys, owners[0].revision), (Some(1), revision));
    let (had, has) = (trail(&store).await, trail(&empty).await);
    assert_eq!(has[..has.len() - 1], had[..]);
    let head = store.audit().audit_extent().await.unwrap().head;
    is_sound(&empty, Some(head)).await;
    let told = told(&empty).await;
    assert_eq!(told["before"], json!({ "revision": 0, "keys": 0, "owners": 0, "head": null }));
    let digest = read(&file).digest;
    assert_eq!(
        told["after"],
        json!({
            "backup": { "made_at": NOW, "revision": before, "sha256": digest, "head": head.to_string() },
            "keys": 3, "owners": 1, "revocations_kept": 0, "secrets_kept": 0, "trail": "taken",
        })
    );
    // It goes on as any store does.
    empty.writer().insert_keys(vec![key(4)], by(), LATER).await.unwrap();
    is_sound(&empty, Some(head)).await;
    assert_eq!(read(&back_up(&empty).await).keys.len(), 4);
}

async fn a_store_that_is_not_empty_is_replaced_only_when_that_is_said(place: Place) {
    let store = filled(&place).await;
    let file = back_up(&store).await;
    store.writer().insert_keys(vec![key(5)], by(), NOW).await.unwrap();
    store.writer().set_active(key_id(1), false, by(), NOW).await.unwrap();
    let (head, keys) = (store.feed().head().await.unwrap(), all_keys(&store).await);
    match restore(&store, &file, false).await {
        Err(error @ StoreError::NotEmpty { keys: 4, owners: 1 }) => assert!(!error.is_trouble()),
        other => panic!("{other:?}"),
    }
    assert_eq!((store.feed().head().await.unwrap(), all_keys(&store).await), (head, keys));
    restore(&store, &file, true).await.unwrap();
    let ids: Vec<_> = all_keys(&store).await.iter().map(|record| (record.id, record.active)).collect();
    assert_eq!(ids, [(key_id(1), true), (key_id(2), true), (key_id(3), true)]);
}

async fn what_was_revoked_since_stays_revoked(place: Place) {
    let store = filled(&place).await;
    let writer = store.writer();
    let file = back_up(&store).await;
    writer.insert_owner(owner(2), by(), NOW).await.unwrap();
    let of_new_owner = KeyRecord { owner: Some(owner_id(2)), ..key(6) };
    writer.insert_keys(vec![of_new_owner, key(7)], by(), NOW).await.unwrap();
    let later = back_up(&store).await;
    writer.revoke(key_id(1), by(), LATER).await.unwrap();
    writer.revoke(key_id(6), by(), LATER).await.unwrap();
    restore(&store, &file, true).await.unwrap();
    let revoked = |records: Vec<KeyRecord>| -> Vec<_> {
        records.into_iter().map(|record| (record.id, record.revoked_at)).collect()
    };
    let expected = [(key_id(1), Some(LATER)), (key_id(2), None), (key_id(3), Some(NOW)), (key_id(6), Some(LATER))];
    assert_eq!(revoked(all_keys(&store).await), expected);
    assert_eq!(told(&store).await["after"]["revocations_kept"], 1);
    // The one that the backup did not have is known yet when another backup follows, in which it works.
    restore(&store, &later, true).await.unwrap();
    let [first, second, third, sixth] = expected;
    assert_eq!(revoked(all_keys(&store).await), [first, second, third, sixth, (key_id(7), None)]);
    assert_eq!(told(&store).await["after"]["revocations_kept"], 2);
    // Nor does it come back under another id.
    let foreign = place.another();
    let other = foreign.open();
    other.writer().insert_keys(vec![KeyRecord { id: key_id(9), ..key(1) }], by(), NOW).await.unwrap();
    let file = back_up(&other).await;
    restore(&store, &file, true).await.unwrap();
    let found = store.reader().find_taken(Vec::new(), vec![hash(1)]).await.unwrap();
    assert_eq!(found.hashes.get(&hash(1)), Some(&key_id(1)));
    assert!(store.reader().find_key(key_id(9)).await.unwrap().is_none());
    is_sound(&store, None).await;
}

async fn what_was_revoked_stays_revoked_when_its_row_is_gone(place: Place) {
    let store = filled(&place).await;
    let file = back_up(&store).await;
    store.writer().revoke(key_id(1), by(), NOW).await.unwrap();
    let month = Duration::from_secs(31 * 86_400);
    assert_eq!(store.writer().forget(NOW.plus(month), by(), NOW.plus(month)).await.unwrap(), 2);
    // The memory of hashes goes too; what remains is the trail.
    assert_eq!(store.writer().forget(NOW.plus(month * 2), by(), NOW.plus(month * 2)).await.unwrap(), 0);
    assert!(store.reader().find_key(key_id(1)).await.unwrap().is_none());
    restore(&store, &file, true).await.unwrap();
    assert_eq!(store.reader().find_key(key_id(1)).await.unwrap().unwrap().revoked_at, Some(NOW));
    assert_eq!(told(&store).await["after"]["revocations_kept"], 1);
}

async fn a_secret_that_was_replaced_stays_replaced(place: Place) {
    let store = filled(&place).await;
    let file = back_up(&store).await;
    let found = store.reader().find_key(key_id(1)).await.unwrap().unwrap();
    let renewed = KeyRecord { hash: hash(100), last4: "next".to_owned(), pepper: Some("two".to_owned()), ..found };
    store.writer().submit(Order::new(Command::ReplaceKey { record: Box::new(renewed) }, by(), NOW)).await.unwrap();
    restore(&store, &file, true).await.unwrap();
    let record = store.reader().find_key(key_id(1)).await.unwrap().unwrap();
    assert_eq!((record.hash, record.last4.as_str(), record.pepper.as_deref()), (hash(100), "next", Some("two")));
    assert_eq!((record.revoked_at, record.name.as_str()), (None, "key 1"));
    assert_eq!(told(&store).await["after"]["secrets_kept"], 1);
}

async fn every_reader_takes_a_restore_for_another_history(place: Place) {
    let store = filled(&place).await;
    let feed = store.feed();
    let file = back_up(&store).await;
    let mut heads = vec![feed.head().await.unwrap()];
    for number in 10..13 {
        store.writer().insert_keys(vec![key(number)], by(), NOW).await.unwrap();
        heads.push(feed.head().await.unwrap());
    }
    restore(&store, &file, true).await.unwrap();
    let head = feed.head().await.unwrap();
    for since in heads {
        assert!(matches!(feed.changes_since(since).await.unwrap(), Changes::OtherHistory), "{since:?}");
        assert!(since.revision < head.revision);
    }
    assert!(matches!(feed.changes_since(head).await.unwrap(), Changes::Since { .. }));
    let mut ids = HashSet::new();
    let mut sink = |batch| match batch {
        LoadBatch::Keys(keys) => ids.extend(keys.into_iter().map(|key| key.id)),
        LoadBatch::Expect { .. } | LoadBatch::Owners(_) => {}
    };
    assert_eq!(feed.load_all(&mut sink).await.unwrap(), head);
    assert_eq!(ids, HashSet::from([key_id(1), key_id(2), key_id(3)]));
}

async fn a_trail_that_goes_on_from_the_backups_is_kept(place: Place) {
    let store = filled(&place).await;
    let file = back_up(&store).await;
    store.writer().insert_keys(vec![key(5)], by(), NOW).await.unwrap();
    let (noted, entries) = (store.audit().audit_extent().await.unwrap().head, trail(&store).await);
    restore(&store, &file, true).await.unwrap();
    let told = told(&store).await;
    assert_eq!((&told["after"]["trail"], &told["before"]["head"]), (&json!("kept"), &json!(noted.to_string())));
    let now = trail(&store).await;
    assert_eq!(now[..now.len() - 1], entries[..], "no entry is lost");
    is_sound(&store, Some(noted)).await;
}

async fn a_trail_of_another_store_gives_way(place: Place) {
    let store = filled(&place).await;
    let file = back_up(&store).await;
    let other = place.another();
    let strange = other.open();
    strange.writer().insert_keys(keys(50..60), by(), NOW).await.unwrap();
    let (noted, expected) = (strange.audit().audit_extent().await.unwrap().head, trail(&store).await);
    restore(&strange, &file, true).await.unwrap();
    let told = told(&strange).await;
    assert_eq!((&told["after"]["trail"], &told["before"]["head"]), (&json!("replaced"), &json!(noted.to_string())));
    let now = trail(&strange).await;
    assert_eq!(now[..now.len() - 1], expected[..]);
    is_sound(&strange, None).await;
    // A head that was noted before shows it.
    let found = strange.audit().verify_audit(Some(noted)).await.unwrap();
    assert!(found.breach.is_some(), "{found:?}");
}

async fn a_refused_restore_leaves_everything(place: Place) {
    let store = filled(&place).await;
    let (head, keys, entries) = (store.feed().head().await.unwrap(), all_keys(&store).await, trail(&store).await);
    // Its key names an owner that it does not hold; the reader would not have let it pass.
    let mut archive = read(&back_up(&store).await);
    archive.owners.clear();
    let restoration = Arc::new(Restoration { archive, replace: true });
    // A store in memory holds nobody to it.
    if place.settings != StoreSettings::Memory {
        let refused = put_back(&store, &restoration, by(), LATER).await;
        assert!(refused.is_err());
        assert_eq!(store.feed().head().await.unwrap(), head);
        assert_eq!((all_keys(&store).await, trail(&store).await), (keys, entries));
    }
}

async fn last_use_and_counts_are_raised_and_never_lowered(place: Place) {
    let store = filled(&place).await;
    let begins = Timestamp::from_unix_seconds(1_700_000_000 / 86_400 * 86_400);
    let term = |holder| QuotaTerm { holder, period: QuotaPeriod::Day, begins };
    let (of_key, of_owner) = (term(QuotaHolder::Key(key_id(1))), term(QuotaHolder::Owner(owner_id(1))));
    store.quotas().count_requests(AdditionId::first(), vec![(of_key, 5), (of_owner, 7)]).await.unwrap();
    store.writer().mark_used(vec![(key_id(1), NOW), (key_id(2), NOW)]).await.unwrap();
    let archive = read(&back_up(&store).await);
    store.quotas().count_requests(AdditionId::first(), vec![(of_key, 1)]).await.unwrap();
    store.writer().mark_used(vec![(key_id(1), LATER)]).await.unwrap();
    put_beside(&store, &archive, NOW).await.unwrap();
    let other = place.another();
    let empty = other.open();
    put_back(&empty, &Arc::new(Restoration { archive: archive.clone(), replace: false }), by(), NOW).await.unwrap();
    for _ in 0..2 {
        put_beside(&empty, &archive, NOW).await.unwrap();
    }
    for (store, count, used) in [(&store, 6, LATER), (&empty, 5, NOW)] {
        let counts: HashSet<_> = store.quotas().current_counts(NOW).await.unwrap().into_iter().collect();
        assert_eq!(counts, HashSet::from([(of_key, count), (of_owner, 7)]));
        let last_used = async |id| store.reader().find_key(id).await.unwrap().unwrap().last_used_at;
        assert_eq!((last_used(key_id(1)).await, last_used(key_id(2)).await), (Some(used), Some(NOW)));
    }
}

async fn what_was_answered_before_a_restore_is_not_answered_again(place: Place) {
    let store = filled(&place).await;
    let file = back_up(&store).await;
    let repeatable = Repeatable { request: [1; 32], sealed: vec![1] };
    let command = Command::InsertKeys { records: vec![key(8)], origin: Origin::Minted };
    let order = Order { repeatable: Some(([7; 32], repeatable)), ..Order::new(command, by(), NOW) };
    store.writer().submit(order).await.unwrap();
    assert!(store.reader().find_repeatable([7; 32], NOW).await.unwrap().is_some());
    restore(&store, &file, true).await.unwrap();
    assert!(store.reader().find_repeatable([7; 32], NOW).await.unwrap().is_none(), "its key is gone");
}

async fn a_copy_ends_when_nobody_wants_more(place: Place) {
    let store = filled(&place).await;
    let mut seen = 0;
    let mut sink = |piece| {
        seen += 1;
        assert!(matches!(piece, Piece::Stand(_)));
        false
    };
    store.reader().copy_all(&mut sink).await.unwrap();
    assert_eq!(seen, 1);
    // And the next one begins anew.
    assert_eq!(read(&back_up(&store).await).keys.len(), 3);
}

/// Seals go with the trail: what was sealed elsewhere verifies here, and new entries are sealed with the key of now.
#[tokio::test]
async fn a_sealed_trail_goes_on_under_its_seal() {
    let seal = || AuditSeal::new([("one", Zeroizing::new([9; 32]))]);
    let (from, to) = (Place::sqlite(), Place::sqlite());
    let store = open(&from.settings, OpenMode::Create, seal()).unwrap();
    store.writer().insert_keys(keys(1..4), by(), NOW).await.unwrap();
    let mut file = Vec::new();
    let written = super::back_up(&store, &mut file, NOW).await.unwrap();
    assert_eq!(written.sealed_with.as_deref(), Some("one"));
    let archive = read_archive(&mut &*file, &seal(), Proof::Sealed).unwrap();
    let other = open(&to.settings, OpenMode::Create, seal()).unwrap();
    put_back(&other, &Arc::new(Restoration { archive, replace: false }), by(), NOW).await.unwrap();
    let found = other.audit().verify_audit(None).await.unwrap();
    assert_eq!((found.keyed.get("one"), found.unkeyed, found.breach.clone()), (Some(&4), 0, None), "{found:?}");
}

/// Entries from before the chain are in backups of old stores, and no store takes such entries any more.
#[tokio::test]
async fn entries_from_before_the_chain_are_left_out_and_told() {
    let store = Place::memory().open();
    store.writer().insert_keys(keys(1..4), by(), NOW).await.unwrap();
    let archive = read(&back_up(&store).await);
    for unsealed in [1, 2, 3] {
        let mut archive = archive.clone();
        archive.entries.iter_mut().take(unsealed).for_each(|entry| entry.sealed = None);
        // What is chained begins behind what is not.
        let mut last = AuditMac::default();
        for entry in archive.entries.iter_mut().skip(unsealed) {
            AuditSeal::default().close(last, entry);
            last = entry.head().mac;
        }
        let place = Place::sqlite();
        let store = place.open();
        put_back(&store, &Arc::new(Restoration { archive, replace: false }), by(), NOW).await.unwrap();
        let found = store.audit().verify_audit(None).await.unwrap();
        assert!(found.is_sound(&[]), "{unsealed}: {found:?}");
        assert_eq!(found.dropped.map(|dropped| dropped.through), Some(unsealed as u64));
        assert_eq!(found.entries, 3 - unsealed as u64 + 2, "what is left, what was dropped, and the restore");
    }
}
