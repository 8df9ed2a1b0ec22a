//! The promises of the three traits, held to every store: a new store adds one line to [`held_to_every_store`].

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use super::fixtures::held_to_every_store;
use super::fixtures::{NOW, Place, by, find, hash, head, insert, key, key_id, keys, later, owner, owner_id, since};
use super::*;
use crate::domain::{
    Bounds, KeyKind, KeyRecord, KeyState, OwnerRecord, Quota, QuotaHolder, QuotaPeriod, QuotaTerm, RateLimit, Revision,
    Timestamp,
};

held_to_every_store!(
    a_new_store_is_empty_and_at_revision_zero,
    two_stores_never_share_a_token,
    a_record_reads_back_as_it_was_written,
    an_owner_reads_back_as_it_was_written,
    a_refused_insertion_leaves_nothing,
    inserting_nothing_changes_nothing,
    every_change_is_one_revision_and_stamps_its_rows,
    what_is_already_so_commits_nothing,
    a_revoked_key_stays_revoked,
    unknown_ids_are_none,
    pages_follow_each_other_without_gap_or_overlap,
    every_filter_keeps_what_it_names,
    last_use_moves_forward_and_touches_no_revision,
    counts_of_quotas_add_up_are_kept_and_end_with_their_term,
    concurrent_writers_lose_nothing,
    a_change_of_what_was_read_takes_its_place_and_of_nothing_else,
    a_replaced_hash_is_fed_as_removed,
    a_rotation_adds_and_ends_in_one_revision,
    a_grace_ends_early_and_only_once,
    an_owner_has_no_more_keys_than_it_may,
    the_last_operator_key_stays_for_callers_over_the_network,
    what_was_answered_is_kept_under_its_name_for_a_while,
);

async fn counts_of_quotas_add_up_are_kept_and_end_with_their_term(place: Place) {
    let store = place.open();
    let before = head(&store).await;
    let (holder, other) = (QuotaHolder::Key(key_id(1)), QuotaHolder::Owner(owner_id(1)));
    let begins = Timestamp::from_unix_seconds(1_700_000_000 / 86_400 * 86_400);
    let term = |holder, period| QuotaTerm { holder, period, begins };
    let (day, month) = (term(holder, QuotaPeriod::Day), term(holder, QuotaPeriod::Month));
    let owners = term(other, QuotaPeriod::Day);
    let quotas = store.quotas();
    assert_eq!(quotas.current_counts(NOW).await.unwrap(), []);
    let first = quotas.count_requests(AdditionId::first(), vec![(month, 5), (day, 3)]).await.unwrap();
    assert_eq!(HashSet::from_iter(first), HashSet::from([(day, 3), (month, 5)]));
    let second = quotas.count_requests(AdditionId::first(), vec![(day, 4), (owners, 1)]).await.unwrap();
    assert_eq!(HashSet::from_iter(second), HashSet::from([(day, 7), (owners, 1)]));
    let kept = HashSet::from([(day, 7), (month, 5), (owners, 1)]);
    assert_eq!(HashSet::from_iter(quotas.current_counts(NOW).await.unwrap()), kept);
    assert_eq!(head(&store).await, before, "no revision is touched");
    if place.settings != StoreSettings::Memory {
        let neighbour = place.open();
        assert_eq!(neighbour.quotas().count_requests(AdditionId::first(), vec![(day, 1)]).await.unwrap(), [(day, 8)]);
        drop((store, neighbour));
        let reopened = place.open();
        let kept = HashSet::from([(day, 8), (month, 5), (owners, 1)]);
        assert_eq!(HashSet::from_iter(reopened.quotas().current_counts(NOW).await.unwrap()), kept);
        let next_day = begins.plus(Duration::from_secs(86_400));
        assert_eq!(reopened.quotas().current_counts(next_day).await.unwrap(), [(month, 5)]);
        assert_eq!(reopened.quotas().current_counts(NOW).await.unwrap(), [(month, 5)], "what is over is dropped");
    } else {
        let later = begins.plus(Duration::from_secs(31 * 86_400));
        assert_eq!(quotas.current_counts(later).await.unwrap(), []);
    }
}

async fn a_new_store_is_empty_and_at_revision_zero(place: Place) {
    let store = place.open();
    let head = head(&store).await;
    assert_eq!(head.revision, Revision::ZERO);
    assert_eq!(store.reader().list_keys(KeyQuery::default()).await.unwrap().items, []);
    assert_eq!(store.reader().list_owners().await.unwrap(), []);
    assert_eq!(since(&store, head).await, (vec![], vec![], vec![], head));
}

async fn two_stores_never_share_a_token(place: Place) {
    let other = place.another();
    let (one, other) = (place.open(), other.open());
    assert_ne!(head(&one).await.token, head(&other).await.token);
    insert(&one, keys([1])).await;
    insert(&other, keys([1])).await;
    let (one, other) = (head(&one).await, head(&other).await);
    assert_eq!(one.revision, other.revision);
    assert_ne!(one.token, other.token);
}

fn full_record() -> KeyRecord {
    let at = |offset| Timestamp::from_unix_ms(NOW.unix_ms() + offset);
    KeyRecord {
        name: "billing, \"nightly\" — Ünïcode".to_owned(),
        description: "two\nlines".to_owned(),
        owner: Some(owner_id(1)),
        environment: "staging".to_owned(),
        kind: KeyKind::Management,
        pepper: Some("2026".to_owned()),
        scopes: vec!["orders:*".parse().unwrap(), "read:orders".parse().unwrap()],
        roles: vec!["clerk".to_owned(), "auditor".to_owned()],
        may_grant: vec!["*".parse().unwrap()],
        active: false,
        expires_at: Some(at(5)),
        created_at: at(-77),
        created_by: key_id(9).to_string(),
        revoked_at: Some(at(1)),
        replaces: Some(key_id(8)),
        lineage: key_id(7),
        ends_on_use: true,
        paired: true,
        bounds: Bounds {
            allowed_ips: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            allowed_origins: vec!["https://app.example.com".to_owned()],
            rate_limit: Some(RateLimit::new(10, Duration::from_secs(60), Some(20)).unwrap()),
            quota: Some(Quota::new(Some(1_000), None).unwrap()),
        },
        grace_until: Some(at(2)),
        metadata: BTreeMap::from([("team".to_owned(), json!({"cost centre": [1, 2.5, null]}))]),
        ..key(1)
    }
}

async fn a_record_reads_back_as_it_was_written(place: Place) {
    let store = place.open();
    store.writer().insert_owner(owner(1), by(), NOW).await.unwrap();
    let before = head(&store).await;
    let revision = insert(&store, vec![full_record(), key(2)]).await;
    assert_eq!(find(&store, 1).await, KeyRecord { revision, ..full_record() });
    assert_eq!(find(&store, 2).await, KeyRecord { revision, ..key(2) });

    let (_, facts, _, _) = since(&store, before).await;
    let full = full_record();
    let expected = KeyFacts {
        id: full.id,
        hash: full.hash,
        owner: full.owner,
        environment: "staging".into(),
        kind: full.kind,
        profile: Arc::new(Profile::of(&full)),
        active: full.active,
        revoked_at: full.revoked_at,
        dies_at: full.dies_at(),
        created_at: full.created_at,
        lineage: key_id(7),
        ends_on_use: Some(key_id(8)),
    };
    assert_eq!(facts.into_iter().find(|facts| facts.id == full.id), Some(expected));
}

async fn an_owner_reads_back_as_it_was_written(place: Place) {
    let store = place.open();
    let metadata = BTreeMap::from([("plan".to_owned(), json!("gold"))]);
    let written = OwnerRecord {
        metadata,
        suspended: true,
        rate_limit: Some(RateLimit::new(5, Duration::from_secs(1), None).unwrap()),
        quota: Some(Quota::new(None, Some(9)).unwrap()),
        max_keys: Some(3),
        may_grant: Some(vec!["orders:*".parse().unwrap()]),
        ..owner(2)
    };
    let second = store.writer().insert_owner(written.clone(), by(), NOW).await.unwrap();
    let first = store.writer().insert_owner(owner(1), by(), NOW).await.unwrap();
    let expected = [OwnerRecord { revision: first, ..owner(1) }, OwnerRecord { revision: second, ..written }];
    assert_eq!(store.reader().list_owners().await.unwrap(), expected, "in order of id");
}

async fn a_refused_insertion_leaves_nothing(place: Place) {
    let store = place.open();
    insert(&store, keys([1])).await;
    let before = head(&store).await;
    let same_hash = KeyRecord { hash: hash(1), ..key(12) };
    let same_id = KeyRecord { id: key_id(1), ..key(13) };
    let stray = KeyRecord { owner: Some(owner_id(7)), ..key(14) };
    let refused = [
        ("a hash that exists", vec![key(10), key(11), same_hash.clone()], "Duplicate { index: 2 }"),
        ("an id that exists", vec![key(10), same_id], "Duplicate { index: 1 }"),
        ("a hash twice in one call", vec![key(10), KeyRecord { hash: hash(10), ..key(11) }], "Duplicate { index: 1 }"),
        ("an id twice in one call", vec![key(10), KeyRecord { id: key_id(10), ..key(11) }], "Duplicate { index: 1 }"),
        ("an owner that does not exist", vec![key(10), stray.clone()], "UnknownOwner { index: 1 }"),
        ("the first of two faults", vec![stray, same_hash], "UnknownOwner { index: 0 }"),
    ];
    for (what, records, expected) in refused {
        let error = store.writer().insert_keys(records, by(), NOW).await.unwrap_err();
        assert_eq!(format!("{error:?}"), expected, "{what}");
    }
    assert_eq!(head(&store).await, before);
    let left = store.reader().list_keys(KeyQuery::default()).await.unwrap().items;
    assert_eq!(left.iter().map(|record| record.id).collect::<Vec<_>>(), [key_id(1)]);

    let twice = store.writer();
    twice.insert_owner(owner(1), by(), NOW).await.unwrap();
    let error = twice.insert_owner(owner(1), by(), NOW).await.unwrap_err();
    assert!(matches!(error, StoreError::Duplicate { index: 0 }), "{error:?}");
    insert(&store, keys([10, 11])).await;
}

async fn inserting_nothing_changes_nothing(place: Place) {
    let store = place.open();
    insert(&store, keys([1])).await;
    let before = head(&store).await;
    assert_eq!(insert(&store, vec![]).await, before.revision);
    assert_eq!(head(&store).await, before);
}

async fn every_change_is_one_revision_and_stamps_its_rows(place: Place) {
    let store = place.open();
    let writer = store.writer();
    let mut tokens = HashSet::new();
    let mut expected = 0;
    let mut check = async |revision: Revision| {
        expected += 1;
        let head = head(&store).await;
        assert_eq!((revision, head.revision), (Revision::new(expected), Revision::new(expected)));
        assert!(tokens.insert(head.token), "a token is drawn anew");
    };
    check(insert(&store, keys([1, 2])).await).await;
    check(writer.import_keys(keys([3]), by(), NOW).await.unwrap()).await;
    check(writer.insert_owner(owner(1), by(), NOW).await.unwrap()).await;
    check(writer.set_active(key_id(1), false, by(), NOW).await.unwrap().unwrap()).await;
    check(writer.set_active(key_id(1), true, by(), NOW).await.unwrap().unwrap()).await;
    check(writer.revoke(key_id(2), by(), NOW).await.unwrap().unwrap()).await;
    check(writer.set_owner_suspended(owner_id(1), true, by(), NOW).await.unwrap().unwrap()).await;
    check(writer.set_owner_suspended(owner_id(1), false, by(), NOW).await.unwrap().unwrap()).await;

    let stamps = [find(&store, 1).await.revision, find(&store, 2).await.revision, find(&store, 3).await.revision];
    assert_eq!(stamps, [Revision::new(5), Revision::new(6), Revision::new(2)]);
    assert_eq!(store.reader().list_owners().await.unwrap()[0].revision, Revision::new(8));
    assert!(find(&store, 1).await.active);
    assert_eq!(find(&store, 2).await.revoked_at, Some(NOW));
}

async fn what_is_already_so_commits_nothing(place: Place) {
    let store = place.open();
    let writer = store.writer();
    let inserted = insert(&store, keys([1, 2])).await;
    let revoked = writer.revoke(key_id(2), by(), NOW).await.unwrap();
    let owned = writer.insert_owner(owner(1), by(), NOW).await.unwrap();
    let before = head(&store).await;
    let later = Timestamp::from_unix_ms(NOW.unix_ms() + 1_000);
    assert_eq!(writer.set_active(key_id(1), true, by(), later).await.unwrap(), Some(inserted));
    assert_eq!(writer.revoke(key_id(2), by(), later).await.unwrap(), revoked);
    assert_eq!(writer.set_owner_suspended(owner_id(1), false, by(), later).await.unwrap(), Some(owned));
    assert_eq!(head(&store).await, before);
    assert_eq!(find(&store, 2).await.revoked_at, Some(NOW), "the first moment stands");
}

async fn a_revoked_key_stays_revoked(place: Place) {
    let store = place.open();
    insert(&store, keys([1])).await;
    store.writer().revoke(key_id(1), by(), NOW).await.unwrap();
    for active in [true, false] {
        let error = store.writer().set_active(key_id(1), active, by(), NOW).await.unwrap_err();
        assert!(matches!(error, StoreError::Revoked), "{error:?}");
    }
    assert_eq!(find(&store, 1).await.state(NOW), KeyState::Revoked);
}

async fn unknown_ids_are_none(place: Place) {
    let store = place.open();
    assert_eq!(store.reader().find_key(key_id(1)).await.unwrap(), None);
    assert_eq!(store.writer().set_active(key_id(1), true, by(), NOW).await.unwrap(), None);
    assert_eq!(store.writer().revoke(key_id(1), by(), NOW).await.unwrap(), None);
    assert_eq!(store.writer().set_owner_suspended(owner_id(1), true, by(), NOW).await.unwrap(), None);
    assert_eq!(head(&store).await.revision, Revision::ZERO);
}

async fn pages_follow_each_other_without_gap_or_overlap(place: Place) {
    let store = place.open();
    // Inserted out of order: pages go by id.
    insert(&store, keys((0..250).rev())).await;
    let mut seen = Vec::new();
    let mut query = KeyQuery { limit: 100, ..KeyQuery::default() };
    loop {
        let page = store.reader().list_keys(query.clone()).await.unwrap();
        seen.extend(page.items.iter().map(|record| record.id));
        query.after = seen.last().copied();
        if !page.more {
            break;
        }
        assert_eq!(page.items.len(), 100);
    }
    assert_eq!(seen, (0..250).map(key_id).collect::<Vec<_>>());

    let page = async |limit| store.reader().list_keys(KeyQuery { limit, ..KeyQuery::default() }).await.unwrap();
    assert_eq!((page(0).await.items.len(), page(250).await.more, page(249).await.more), (100, false, true));
}

async fn every_filter_keeps_what_it_names(place: Place) {
    let store = place.open();
    store.writer().insert_owner(owner(1), by(), NOW).await.unwrap();
    let past = Timestamp::from_unix_ms(NOW.unix_ms() - 1);
    let records = vec![
        KeyRecord { owner: Some(owner_id(1)), ..key(1) },
        KeyRecord { environment: "test".to_owned(), ..key(2) },
        KeyRecord { kind: KeyKind::Publishable, ..key(3) },
        KeyRecord { active: false, ..key(4) },
        KeyRecord { expires_at: Some(NOW), active: false, ..key(5) },
        KeyRecord { grace_until: Some(past), ..key(6) },
        KeyRecord { revoked_at: Some(past), expires_at: Some(past), ..key(7) },
        KeyRecord { prefix: "pc_%_".to_owned(), name: "nightly".to_owned(), ..key(8) },
    ];
    insert(&store, records).await;
    let list = async |query: KeyQuery| -> Vec<u32> {
        let page = store.reader().list_keys(query).await.unwrap();
        let number = |record: &KeyRecord| u32::from_be_bytes(record.id.to_bytes()[1..5].try_into().unwrap());
        page.items.iter().map(number).collect()
    };
    let in_state = |state| KeyQuery { state: Some((state, NOW)), ..KeyQuery::default() };
    let all = KeyQuery::default;
    assert_eq!(list(KeyQuery { owner: Some(owner_id(1)), ..all() }).await, [1]);
    assert_eq!(list(KeyQuery { owner: Some(owner_id(9)), ..all() }).await, [0; 0]);
    let unowned = list(KeyQuery { unowned: true, ..all() }).await;
    assert!(!unowned.is_empty() && !unowned.contains(&1), "{unowned:?}");
    let customers = list(KeyQuery { no_management: true, ..all() }).await;
    assert_eq!(customers, list(all()).await, "there are no management keys yet");
    assert_eq!(list(KeyQuery { no_management: true, kind: Some(KeyKind::Management), ..all() }).await, [0; 0]);
    assert_eq!(list(KeyQuery { environment: Some("test".to_owned()), ..all() }).await, [2]);
    assert_eq!(list(KeyQuery { environment: Some("none".to_owned()), ..all() }).await, [0; 0]);
    assert_eq!(list(KeyQuery { kind: Some(KeyKind::Publishable), ..all() }).await, [3]);
    assert_eq!(list(in_state(KeyState::Active)).await, [1, 2, 3, 8]);
    assert_eq!(list(in_state(KeyState::Disabled)).await, [4]);
    assert_eq!(list(in_state(KeyState::Expired)).await, [5, 6]);
    assert_eq!(list(in_state(KeyState::Revoked)).await, [7]);
    assert_eq!(list(KeyQuery { name: Some("nightly".to_owned()), ..all() }).await, [8]);
    assert_eq!(list(KeyQuery { prefix: Some("pc_%".to_owned()), ..all() }).await, [8], "no pattern characters");
    assert_eq!(list(KeyQuery { prefix: Some("PC_".to_owned()), ..all() }).await, [0; 0], "case counts");
    assert_eq!(list(KeyQuery { after: Some(key_id(7)), ..in_state(KeyState::Active) }).await, [8]);
}

async fn last_use_moves_forward_and_touches_no_revision(place: Place) {
    let store = place.open();
    insert(&store, keys([1, 2])).await;
    let before = head(&store).await;
    let at = |seconds| Timestamp::from_unix_seconds(seconds);
    let mark = async |uses| store.writer().mark_used(uses).await.unwrap();
    mark(vec![(key_id(1), at(50)), (key_id(99), at(50))]).await;
    mark(vec![(key_id(1), at(40))]).await;
    assert_eq!(find(&store, 1).await.last_used_at, Some(at(50)));
    mark(vec![(key_id(1), at(60)), (key_id(1), at(55))]).await;
    let listed = store.reader().list_keys(KeyQuery::default()).await.unwrap().items;
    assert_eq!(listed.iter().map(|record| record.last_used_at).collect::<Vec<_>>(), [Some(at(60)), None]);
    assert_eq!(head(&store).await, before);
}

async fn concurrent_writers_lose_nothing(place: Place) {
    let store = place.open();
    store.writer().insert_owner(owner(1), by(), NOW).await.unwrap();
    let start = head(&store).await;
    let inserts = (0..100).map(|n| {
        let writer = store.writer().clone();
        tokio::spawn(async move {
            let inserted = writer.insert_keys(keys([n]), by(), NOW).await.unwrap();
            let duplicate = writer.insert_keys(keys([n]), by(), NOW).await.unwrap_err();
            assert!(matches!(duplicate, StoreError::Duplicate { index: 0 }));
            let revoked = writer.revoke(key_id(n), by(), NOW).await.unwrap().unwrap();
            assert!(revoked > inserted, "an answer comes after its commit");
        })
    });
    for done in join_all(inserts.collect::<Vec<_>>()).await {
        done.unwrap();
    }
    let (_, changed, _, end) = since(&store, start).await;
    assert_eq!(changed.iter().map(|key| key.id).collect::<HashSet<_>>(), (0..100).map(key_id).collect());
    assert!(changed.iter().all(|key| key.revoked_at == Some(NOW)));
    assert!(end.revision.number() <= start.revision.number() + 200);
}

async fn submit(store: &Store, command: Command) -> Result<Effect, StoreError> {
    store.writer().submit(Order::new(command, by(), NOW)).await
}

fn replace(record: KeyRecord) -> Command {
    Command::ReplaceKey { record: Box::new(record) }
}

async fn a_change_of_what_was_read_takes_its_place_and_of_nothing_else(place: Place) {
    let store = place.open();
    store.writer().insert_owner(owner(1), by(), NOW).await.unwrap();
    let seen = insert(&store, keys([1])).await;
    let wanted =
        KeyRecord { owner: None, revision: seen, paired: false, hash: hash(1), lineage: key_id(1), ..full_record() };
    let wanted = KeyRecord { revoked_at: None, ..wanted };
    let effect = submit(&store, replace(wanted.clone())).await.unwrap();
    let Effect::Changed(revision, 1) = effect else { panic!("{effect:?}") };
    let now = find(&store, 1).await;
    assert_eq!(now, KeyRecord { revision, ..wanted.clone() });
    assert_eq!(submit(&store, replace(now.clone())).await.unwrap(), Effect::Unchanged(revision));

    let error = submit(&store, replace(wanted)).await.unwrap_err();
    assert!(matches!(error, StoreError::Stale { now_at } if now_at == revision), "{error:?}");
    let stray = KeyRecord { owner: Some(owner_id(9)), ..now.clone() };
    assert!(matches!(submit(&store, replace(stray)).await, Err(StoreError::UnknownOwner { .. })));
    assert_eq!(submit(&store, replace(key(7))).await.unwrap(), Effect::NotFound);
    store.writer().revoke(key_id(1), by(), NOW).await.unwrap();
    let revoked = find(&store, 1).await;
    assert!(matches!(submit(&store, replace(revoked)).await, Err(StoreError::Revoked)));

    let seen = store.reader().find_owner(owner_id(1)).await.unwrap().unwrap();
    let renamed = OwnerRecord { name: "new".to_owned(), max_keys: Some(2), ..seen.clone() };
    let effect = submit(&store, Command::ReplaceOwner { record: renamed.clone() }).await.unwrap();
    let found = store.reader().find_owner(owner_id(1)).await.unwrap().unwrap();
    assert_eq!(found, OwnerRecord { revision: effect.revision().unwrap(), ..renamed });
    let error = submit(&store, Command::ReplaceOwner { record: seen }).await.unwrap_err();
    assert!(matches!(error, StoreError::Stale { .. }), "{error:?}");
    assert_eq!(submit(&store, Command::ReplaceOwner { record: owner(8) }).await.unwrap(), Effect::NotFound);
}

async fn a_replaced_hash_is_fed_as_removed(place: Place) {
    let store = place.open();
    insert(&store, keys([1, 2])).await;
    let before = head(&store).await;
    let record = find(&store, 1).await;
    submit(&store, replace(KeyRecord { hash: hash(77), ..record.clone() })).await.unwrap();
    let (_, facts, removed, _) = since(&store, before).await;
    assert_eq!(facts.iter().map(|key| key.hash).collect::<Vec<_>>(), [hash(77)]);
    assert_eq!(removed, [Removed { id: key_id(1), hash: hash(1) }]);
    let taken = KeyRecord { hash: hash(2), ..find(&store, 1).await };
    assert!(matches!(submit(&store, replace(taken)).await, Err(StoreError::Duplicate { .. })));
    assert_eq!(insert(&store, vec![KeyRecord { hash: hash(1), ..key(3) }]).await, Revision::new(3), "it is free again");
}

fn rotate(old: &KeyRecord, number: u32) -> Command {
    let successor = KeyRecord { replaces: Some(old.id), lineage: old.lineage, ends_on_use: true, ..key(number) };
    Command::Rotate { successor: Box::new(successor), seen: old.revision, grace_until: later(60) }
}

async fn a_rotation_adds_and_ends_in_one_revision(place: Place) {
    let store = place.open();
    insert(&store, keys([1])).await;
    let before = head(&store).await;
    let old = find(&store, 1).await;
    let effect = submit(&store, rotate(&old, 2)).await.unwrap();
    assert_eq!(effect, Effect::Changed(Revision::new(2), 2));
    assert_eq!(find(&store, 1).await.grace_until, Some(later(60)));
    let new = find(&store, 2).await;
    assert_eq!((new.replaces, new.lineage, new.grace_until), (Some(key_id(1)), key_id(1), None));
    let (_, mut facts, _, _) = since(&store, before).await;
    facts.sort_by_key(|key| key.id);
    assert_eq!(facts.iter().map(|key| key.dies_at).collect::<Vec<_>>(), [Some(later(60)), None]);
    assert_eq!(facts.iter().map(|key| key.lineage).collect::<Vec<_>>(), [key_id(1), key_id(1)]);
    assert_eq!(facts.iter().map(|key| key.ends_on_use).collect::<Vec<_>>(), [None, Some(key_id(1))]);

    assert!(matches!(submit(&store, rotate(&old, 3)).await, Err(StoreError::Stale { .. })), "it changed meanwhile");
    assert_eq!(submit(&store, rotate(&key(9), 3)).await.unwrap(), Effect::NotFound);
    let twice = rotate(&find(&store, 1).await, 2);
    assert!(matches!(submit(&store, twice).await, Err(StoreError::Duplicate { .. })));
    assert_eq!(head(&store).await.revision, Revision::new(2), "what was refused left nothing");
}

async fn a_grace_ends_early_and_only_once(place: Place) {
    let store = place.open();
    insert(&store, keys([1])).await;
    let end = || Command::EndGrace { id: key_id(1) };
    assert_eq!(submit(&store, end()).await.unwrap(), Effect::Unchanged(Revision::new(1)), "there is no grace");
    submit(&store, rotate(&find(&store, 1).await, 2)).await.unwrap();
    assert_eq!(submit(&store, end()).await.unwrap(), Effect::Changed(Revision::new(3), 1));
    assert_eq!(find(&store, 1).await.grace_until, Some(NOW));
    assert_eq!(submit(&store, end()).await.unwrap(), Effect::Unchanged(Revision::new(3)));
    assert_eq!(submit(&store, Command::EndGrace { id: key_id(5) }).await.unwrap(), Effect::NotFound);
}

async fn an_owner_has_no_more_keys_than_it_may(place: Place) {
    let store = place.open();
    store.writer().insert_owner(OwnerRecord { max_keys: Some(3), ..owner(1) }, by(), NOW).await.unwrap();
    let of_owner = |number| KeyRecord { owner: Some(owner_id(1)), ..key(number) };
    insert(&store, vec![of_owner(1), of_owner(2)]).await;
    let error = store.writer().insert_keys(vec![of_owner(3), of_owner(4)], by(), NOW).await.unwrap_err();
    assert!(matches!(error, StoreError::TooManyKeys { index: 1, most: 3 }), "{error:?}");
    insert(&store, vec![of_owner(3), KeyRecord { revoked_at: Some(NOW), ..of_owner(5) }]).await;
    let error = store.writer().insert_keys(vec![key(8), of_owner(4)], by(), NOW).await.unwrap_err();
    assert!(matches!(error, StoreError::TooManyKeys { index: 1, most: 3 }), "{error:?}");
    // A successor takes the place of a key that is on its way out.
    let old = find(&store, 1).await;
    let successor = KeyRecord { replaces: Some(old.id), ..of_owner(6) };
    let rotate = Command::Rotate { successor: Box::new(successor), seen: old.revision, grace_until: later(1) };
    submit(&store, rotate).await.unwrap();
    store.writer().revoke(key_id(1), by(), NOW).await.unwrap();
    store.writer().revoke(key_id(2), by(), NOW).await.unwrap();
    insert(&store, vec![of_owner(4)]).await;
}

async fn the_last_operator_key_stays_for_callers_over_the_network(place: Place) {
    let store = place.open();
    let operator = |number| KeyRecord {
        kind: KeyKind::Management,
        scopes: vec!["portcullis:keys".parse().unwrap()],
        ..key(number)
    };
    let reader = KeyRecord { scopes: vec!["portcullis:keys:read".parse().unwrap()], ..operator(3) };
    insert(&store, vec![operator(1), operator(2), reader]).await;
    let caller = || Actor { name: key_id(1).to_string(), address: Some([192, 0, 2, 1].into()) };
    let guarded = async |command| store.writer().submit(Order::new(command, caller(), NOW)).await;
    guarded(Command::Revoke { id: key_id(2) }).await.unwrap();
    let last = find(&store, 1).await;
    let weaker = KeyRecord { scopes: Vec::new(), ..last.clone() };
    let ways = [
        Command::Revoke { id: key_id(1) },
        Command::SetActive { id: key_id(1), active: false },
        replace(weaker),
        replace(KeyRecord { active: false, ..last.clone() }),
        rotate(&last, 4),
    ];
    for command in ways {
        let what = format!("{command:?}");
        assert!(matches!(guarded(command).await, Err(StoreError::LastOperator)), "{what}");
    }
    assert_eq!(find(&store, 1).await, last, "what was refused left nothing");
    let successor = KeyRecord { replaces: Some(last.id), ..operator(5) };
    let good = Command::Rotate { successor: Box::new(successor), seen: last.revision, grace_until: later(60) };
    guarded(good).await.unwrap();
    guarded(Command::Revoke { id: key_id(1) }).await.unwrap();
    guarded(Command::Revoke { id: key_id(3) }).await.unwrap();
    submit(&store, Command::Revoke { id: key_id(5) }).await.expect("who has the store may do as they please");
}

async fn what_was_answered_is_kept_under_its_name_for_a_while(place: Place) {
    let store = place.open();
    let kept = || Repeatable { request: [1; 32], sealed: b"sealed".to_vec() };
    let insert_once = |number, now| Order {
        repeatable: Some(([7; 32], kept())),
        ..Order::new(Command::InsertKeys { records: keys([number]), origin: Origin::Minted }, by(), now)
    };
    let found = async |now| store.reader().find_repeatable([7; 32], now).await.unwrap();
    assert_eq!(found(NOW).await, None);
    // What is refused is not kept either.
    insert(&store, keys([1])).await;
    assert!(matches!(store.writer().submit(insert_once(1, NOW)).await, Err(StoreError::Duplicate { .. })));
    assert_eq!(found(NOW).await, None);
    store.writer().submit(insert_once(2, NOW)).await.unwrap();
    assert_eq!(found(NOW).await, Some((kept(), Revision::new(2))));
    assert!(matches!(store.writer().submit(insert_once(3, later(1))).await, Err(StoreError::Repeated)));
    assert_eq!(found(later(15 * 60 + 1)).await, None);
    store.writer().submit(insert_once(3, later(15 * 60 + 1))).await.unwrap();
}
