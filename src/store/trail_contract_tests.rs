//! The promises of the audit trail, held to every store.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::fixtures::{
    NOW, Place, by, find, hash, head, held_to_every_store, insert, key, key_id, keys, later, owner, owner_id,
};
use super::*;
use crate::domain::KeyRecord;

held_to_every_store!(
    every_change_is_told_in_the_trail_and_nothing_else_is,
    the_trail_tells_who_from_where_and_what_changed,
    a_reload_is_told_with_digests,
    the_trail_is_read_in_pages_in_either_order,
    every_filter_of_the_trail_keeps_what_it_names,
    old_entries_go_from_the_front_and_the_rest_still_verifies,
    the_chain_goes_on_across_a_change_of_its_key,
    entries_whose_key_is_gone_are_never_called_good,
    a_head_shows_what_a_trail_cannot,
    another_secret_is_found_by_what_was_sealed,
);

/// A seal with keys of these names, the current one first.
fn seal(names: &[&'static str]) -> AuditSeal {
    let key = |name: &str| zeroize::Zeroizing::new([name.len() as u8 ^ name.as_bytes()[0]; 32]);
    AuditSeal::new(names.iter().map(|name| (*name, key(name))))
}

async fn trail(store: &Store) -> Vec<AuditEntry> {
    let query = AuditQuery { order: AuditOrder::OldestFirst, limit: 1_000, ..AuditQuery::default() };
    store.audit().list_audit(query).await.unwrap().items
}

async fn verify(store: &Store) -> Verification {
    store.audit().verify_audit(None).await.unwrap()
}

/// One order of each kind that does something, beside some that do nothing or are refused.
async fn do_everything(store: &Store) {
    let submit = async |command| store.writer().submit(Order::new(command, by(), NOW)).await;
    let change = async |number, change: &dyn Fn(&mut KeyRecord)| {
        let mut record = find(store, number).await;
        change(&mut record);
        submit(Command::ReplaceKey { record: Box::new(record) }).await.unwrap();
    };
    insert(store, keys([1])).await;
    store.writer().import_keys(keys([2]), by(), NOW).await.unwrap();
    store.writer().insert_keys(keys([3, 1]), by(), NOW).await.unwrap_err();
    change(1, &|record| record.name = "renamed".to_owned()).await;
    change(1, &|_| {}).await;
    change(1, &|record| record.hash = hash(77)).await;
    for active in [false, false, true] {
        store.writer().set_active(key_id(1), active, by(), NOW).await.unwrap();
    }
    let seen = find(store, 1).await.revision;
    let successor = Box::new(KeyRecord { replaces: Some(key_id(1)), ..key(4) });
    submit(Command::Rotate { successor, seen, grace_until: later(60) }).await.unwrap();
    for _ in 0..2 {
        submit(Command::EndGrace { id: key_id(1) }).await.unwrap();
        store.writer().revoke(key_id(2), by(), NOW).await.unwrap();
    }
    store.writer().insert_owner(owner(1), by(), NOW).await.unwrap();
    let mut record = store.reader().find_owner(owner_id(1)).await.unwrap().unwrap();
    record.max_keys = Some(9);
    submit(Command::ReplaceOwner { record }).await.unwrap();
    for suspended in [true, true, false] {
        store.writer().set_owner_suspended(owner_id(1), suspended, by(), NOW).await.unwrap();
    }
    store.writer().revoke(key_id(99), by(), NOW).await.unwrap();
    assert_eq!(store.writer().forget(later(1), by(), NOW).await.unwrap(), 1);
    store.writer().note(reload("old", "new"), by(), NOW).await.unwrap();
}

fn reload(before: &str, after: &str) -> Note {
    Note::ConfigReload { before: json!({ "p.yaml": before }), after: json!({ "p.yaml": after }) }
}

async fn every_change_is_told_in_the_trail_and_nothing_else_is(place: Place) {
    let store = place.open();
    do_everything(&store).await;
    let (one, two, four, owner) = (key_id(1).to_string(), key_id(2).to_string(), key_id(4).to_string(), owner_id(1));
    let owner = owner.to_string();
    let expected = [
        ("key.create", one.as_str(), 1),
        ("key.import", &two, 2),
        ("key.update", &one, 3),
        ("key.replace_secret", &one, 4),
        ("key.disable", &one, 5),
        ("key.enable", &one, 6),
        ("key.create", &four, 7),
        ("key.rotate", &one, 7),
        ("key.end_grace", &one, 8),
        ("key.revoke", &two, 9),
        ("owner.create", &owner, 10),
        ("owner.update", &owner, 11),
        ("owner.suspend", &owner, 12),
        ("owner.resume", &owner, 13),
        ("key.forget", &two, 14),
        ("config.reload", "config", 15),
    ];
    let entries = trail(&store).await;
    let told: Vec<_> = entries.iter().map(|e| (e.action.as_str(), e.subject.as_str(), e.revision.number())).collect();
    assert_eq!(told, expected);
    assert_eq!(entries.iter().map(|entry| entry.entry).collect::<Vec<_>>(), (1..=16).collect::<Vec<_>>());
    let found = verify(&store).await;
    assert!(found.is_sound(&[]), "{found:?}");
    assert_eq!((found.entries, found.first, found.unkeyed, found.unsealed), (16, Some(1), 16, 0));
    let extent = store.audit().audit_extent().await.unwrap();
    assert_eq!((extent.head, extent.entries), (found.head, 16));
}

async fn the_trail_tells_who_from_where_and_what_changed(place: Place) {
    let store = place.open();
    let from = Actor { name: key_id(9).to_string(), address: Some("2001:db8::7".parse().unwrap()) };
    let record = KeyRecord { description: "for nights".to_owned(), ..key(1) };
    store.writer().insert_keys(vec![record], from, NOW).await.unwrap();
    store.writer().set_active(key_id(1), false, by(), later(1)).await.unwrap();
    let [created, disabled] = &trail(&store).await[..] else { panic!("two entries") };
    assert_eq!((created.actor.as_str(), created.address.as_deref()), (&*key_id(9).to_string(), Some("2001:db8::7")));
    assert_eq!((created.at, &created.before), (NOW, &None));
    let told = created.after.as_deref().unwrap();
    assert!(told.contains("for nights") && told.contains("read:orders"), "{told}");
    let hexadecimal: String = hash(1).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!told.contains("hash") && !told.to_lowercase().contains(&hexadecimal), "{told}");
    assert_eq!((disabled.actor.as_str(), &disabled.address, disabled.at), (&*by().name, &None, later(1)));
    let change = (disabled.before.as_deref(), disabled.after.as_deref());
    assert_eq!(change, (Some(r#"{"active":true}"#), Some(r#"{"active":false}"#)));
}

async fn a_reload_is_told_with_digests(place: Place) {
    let store = place.open();
    let revision = store.writer().note(reload("sha256:1", "sha256:2"), by(), NOW).await.unwrap();
    let [entry] = &trail(&store).await[..] else { panic!("one entry") };
    assert_eq!((entry.action.as_str(), entry.subject.as_str(), entry.revision), ("config.reload", "config", revision));
    let change = (entry.before.as_deref(), entry.after.as_deref());
    assert_eq!(change, (Some(r#"{"p.yaml":"sha256:1"}"#), Some(r#"{"p.yaml":"sha256:2"}"#)));
}

async fn the_trail_is_read_in_pages_in_either_order(place: Place) {
    let store = place.open();
    insert(&store, keys(0..25)).await;
    for (order, expected) in
        [(AuditOrder::OldestFirst, (1..=25).collect::<Vec<u64>>()), (AuditOrder::NewestFirst, (1..=25).rev().collect())]
    {
        let mut query = AuditQuery { order, limit: 10, ..AuditQuery::default() };
        let mut seen = Vec::new();
        for page in 1..=3 {
            let found = store.audit().list_audit(query.clone()).await.unwrap();
            assert_eq!(found.more, page < 3, "page {page}");
            seen.extend(found.items.iter().map(|entry| entry.entry));
            query.after = seen.last().copied();
        }
        assert_eq!(seen, expected);
    }
    let newest = store.audit().list_audit(AuditQuery { limit: 1, ..AuditQuery::default() }).await.unwrap();
    assert_eq!(newest.items[0].entry, 25, "the newest comes first unless asked otherwise");
}

async fn every_filter_of_the_trail_keeps_what_it_names(place: Place) {
    let store = place.open();
    let other = Actor::named("gateway:sync");
    insert(&store, keys([1, 2])).await;
    store.writer().set_active(key_id(1), false, other.clone(), later(10)).await.unwrap();
    store.writer().insert_owner(owner(1), by(), later(20)).await.unwrap();
    let text = |text: &str| Some(text.to_owned());
    let all = AuditQuery { order: AuditOrder::OldestFirst, ..AuditQuery::default() };
    for (query, expected) in [
        (AuditQuery { since: Some(later(10)), ..all.clone() }, &[3, 4][..]),
        (AuditQuery { until: Some(later(10)), ..all.clone() }, &[1, 2]),
        (AuditQuery { since: Some(later(1)), until: Some(later(11)), ..all.clone() }, &[3]),
        (AuditQuery { actor: Some(other.name), ..all.clone() }, &[3]),
        (AuditQuery { action: text("key.create"), ..all.clone() }, &[1, 2]),
        (AuditQuery { action: text("key.*"), ..all.clone() }, &[1, 2, 3]),
        (AuditQuery { action: text("*"), ..all.clone() }, &[1, 2, 3, 4]),
        (AuditQuery { action: text("key"), ..all.clone() }, &[]),
        (AuditQuery { subject: Some(key_id(1).to_string()), ..all.clone() }, &[1, 3]),
        (AuditQuery { subject: Some(key_id(1).to_string()), action: text("key.disable"), ..all.clone() }, &[3]),
    ] {
        let found = store.audit().list_audit(query.clone()).await.unwrap().items;
        assert_eq!(found.iter().map(|entry| entry.entry).collect::<Vec<_>>(), expected, "{query:?}");
    }
}

async fn old_entries_go_from_the_front_and_the_rest_still_verifies(place: Place) {
    let store = place.open();
    store.seal_with(seal(&["one"]));
    let day = Duration::from_secs(86_400);
    let many = u32::try_from(MAX_FORGOTTEN_ENTRIES_AT_ONCE).unwrap() + 20;
    insert(&store, keys(0..many)).await;
    store.writer().set_active(key_id(0), false, by(), later(60)).await.unwrap();
    // Behind a younger entry: stays as long as that.
    store.writer().set_active(key_id(0), true, by(), NOW).await.unwrap();
    let head = head(&store).await;
    let now = NOW.plus(day).plus(Duration::from_secs(30));
    assert_eq!(forget_old_entries(store.writer(), 2 * day, now).await.unwrap(), 0);
    assert_eq!(self::head(&store).await, head, "what drops nothing commits nothing");
    assert_eq!(forget_old_entries(store.writer(), day, now).await.unwrap(), u64::from(many));

    let entries = trail(&store).await;
    let actions: Vec<_> = entries.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["key.disable", "key.enable", "audit.forget", "audit.forget"]);
    assert_eq!(entries[0].entry, u64::from(many) + 1);
    let found = verify(&store).await;
    assert!(found.is_sound(&[]), "{found:?}");
    let dropped = DroppedEntries { through: u64::from(many), newest: NOW, at: now, retention: day };
    assert_eq!(found.dropped, Some(dropped));
    assert_eq!(store.audit().audit_extent().await.unwrap().entries, 4);

    // All of it may go, once it is old enough; what says so stays.
    let late = now.plus(day).plus(Duration::from_secs(61));
    assert_eq!(forget_old_entries(store.writer(), day, late).await.unwrap(), 4);
    insert(&store, keys([9_999])).await;
    let entries: Vec<_> = trail(&store).await.iter().map(|entry| entry.entry).collect();
    assert_eq!(entries, [u64::from(many) + 5, u64::from(many) + 6]);
    let found = verify(&store).await;
    assert!(found.is_sound(&[]) && found.entries == 2, "{found:?}");
}

async fn the_chain_goes_on_across_a_change_of_its_key(place: Place) {
    let store = place.open();
    insert(&store, keys([1])).await;
    store.seal_with(seal(&["one"]));
    insert(&store, keys([2, 3])).await;
    store.seal_with(seal(&["two", "one"]));
    insert(&store, keys([4])).await;
    let found = verify(&store).await;
    assert!(found.is_sound(&[]), "{found:?}");
    assert_eq!(found.keyed, BTreeMap::from([("one".to_owned(), 2), ("two".to_owned(), 1)]));
    assert_eq!(found.unkeyed, 1);
    store.seal_with(seal(&[]));
    insert(&store, keys([5])).await;
    store.seal_with(seal(&["two", "one"]));
    let found = verify(&store).await;
    assert_eq!(found.breach, Some((5, Breach::Unkeyed)), "a key is not given up unseen");
}

async fn entries_whose_key_is_gone_are_never_called_good(place: Place) {
    let store = place.open();
    store.seal_with(seal(&["one"]));
    insert(&store, keys([1, 2])).await;
    store.seal_with(seal(&["two"]));
    insert(&store, keys([3])).await;
    let found = verify(&store).await;
    assert_eq!(found.unverifiable, BTreeMap::from([("one".to_owned(), 2)]));
    assert_eq!(found.keyed, BTreeMap::from([("two".to_owned(), 1)]));
    assert!(found.breach.is_none() && !found.is_sound(&[]) && !found.is_sound(&["two".to_owned()]), "{found:?}");
    assert!(found.is_sound(&["one".to_owned()]), "unless somebody takes them on trust");
    // A key of the same name that is another one.
    let forged = AuditSeal::new([("one", zeroize::Zeroizing::new([0; 32]))]);
    store.seal_with(forged);
    assert_eq!(verify(&store).await.breach, Some((1, Breach::Changed)));
}

async fn a_head_shows_what_a_trail_cannot(place: Place) {
    let store = place.open();
    insert(&store, keys([1, 2])).await;
    let noted = store.audit().audit_extent().await.unwrap().head;
    insert(&store, keys([3])).await;
    let against = async |head| store.audit().verify_audit(Some(head)).await.unwrap().breach;
    assert_eq!(against(noted).await, None);
    assert_eq!(against(AuditHead::default()).await, None, "before the first entry there was nothing to change");
    assert_eq!(against(AuditHead { entry: 1, ..noted }).await, Some((1, Breach::OtherHead)));
    assert_eq!(against(AuditHead { entry: 9, ..noted }).await, Some((4, Breach::CutOff { end: 3 })));
    let day = Duration::from_secs(86_400);
    forget_old_entries(store.writer(), day, NOW.plus(2 * day)).await.unwrap();
    assert_eq!(against(noted).await, Some((2, Breach::HeadDropped)));
    let last = verify(&store).await.dropped.unwrap().through;
    assert_eq!(against(AuditHead { entry: last, ..noted }).await, Some((last, Breach::OtherHead)));
}

async fn another_secret_is_found_by_what_was_sealed(place: Place) {
    let store = place.open();
    assert_eq!(store.find_other_secret().await.unwrap(), None, "without keys there is nothing to compare");
    store.seal_with(seal(&["one"]));
    assert_eq!(store.find_other_secret().await.unwrap(), None, "nothing is sealed yet");
    insert(&store, keys([1])).await;
    insert(&store, keys([2])).await;
    assert_eq!(store.find_other_secret().await.unwrap(), None);
    let other = AuditSeal::new([("one", zeroize::Zeroizing::new([0; 32]))]);
    let found = store.find_other_secret_of(&other).await.unwrap().unwrap();
    assert_eq!((found.pepper.as_str(), found.tried), ("one", 2));
    assert_eq!(store.find_other_secret().await.unwrap(), None, "which one is in use has not changed");
}
