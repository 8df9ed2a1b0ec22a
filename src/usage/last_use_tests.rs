//! Nothing noted is lost while it fits, and nothing grows without bound.

use super::*;
use crate::store::fixtures::{NOW, by, key_id, keys};
use crate::store::{OpenMode, Store, StoreSettings};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

async fn store_with_keys(settings: &StoreSettings) -> Arc<Store> {
    let store = crate::store::open(settings, OpenMode::Create, crate::store::AuditSeal::default()).unwrap();
    store.writer().insert_keys(keys(0..3), by(), NOW).await.unwrap();
    store
}

async fn last_used(store: &Store, number: u32) -> Option<Timestamp> {
    store.reader().find_key(key_id(number)).await.unwrap().unwrap().last_used_at
}

#[tokio::test]
async fn the_latest_use_is_written() {
    let store = store_with_keys(&StoreSettings::Memory).await;
    let last_use = LastUse::new(Arc::clone(store.writer()));
    let uses = |uses: &[(u32, i64)]| {
        let uses = uses.iter().map(|(number, seconds)| (key_id(*number), at(*seconds)));
        assert_eq!(last_use.add(uses, 3), 0);
    };
    uses(&[(0, 10), (1, 5)]);
    // Of another worker.
    uses(&[(0, 12), (0, 11)]);
    last_use.flush().await.unwrap();
    let used = [last_used(&store, 0).await, last_used(&store, 1).await, last_used(&store, 2).await];
    assert_eq!(used, [Some(at(12)), Some(at(5)), None]);

    uses(&[(2, 20)]);
    last_use.flush().await.unwrap();
    assert_eq!(last_used(&store, 2).await, Some(at(20)));
}

#[tokio::test]
async fn uses_are_kept_while_the_store_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let store = store_with_keys(&StoreSettings::Sqlite { path: directory.path().join("keys.db") }).await;
    let in_the_way = directory.path().join("keys.usage.db");
    std::fs::create_dir(&in_the_way).unwrap();
    let last_use = LastUse::new(Arc::clone(store.writer()));
    last_use.add([(key_id(0), at(10))].into_iter(), 2);
    last_use.flush().await.unwrap_err();
    last_use.add([(key_id(1), at(11))].into_iter(), 2);
    last_use.flush().await.unwrap_err();
    std::fs::remove_dir(&in_the_way).unwrap();
    last_use.flush().await.unwrap();
    assert_eq!([last_used(&store, 0).await, last_used(&store, 1).await], [Some(at(10)), Some(at(11))]);
    assert!(last_use.pending.lock().is_empty());
}

#[tokio::test]
async fn what_comes_is_written_without_being_asked_for() {
    let store = store_with_keys(&StoreSettings::Memory).await;
    let last_use = LastUse::new(Arc::clone(store.writer()));
    let writing = tokio::spawn(Arc::clone(&last_use).run());
    for (number, seconds) in [(0, 10), (1, 11)] {
        last_use.add([(key_id(number), at(seconds))].into_iter(), 1);
        while last_used(&store, number).await != Some(at(seconds)) {
            tokio::task::yield_now().await;
        }
    }
    writing.abort();
    last_use.add([(key_id(0), at(20)), (key_id(1), at(21))].into_iter(), 1);
    assert_eq!(last_use.add([(key_id(2), at(22))].into_iter(), 1), 1, "the newest is kept");
}

#[test]
fn the_oldest_uses_go_first() {
    let notes = |seconds: &[i64]| -> HashMap<KeyId, Timestamp> {
        seconds.iter().zip(0..).map(|(seconds, number)| (key_id(number), at(*seconds))).collect()
    };
    for (given, most, kept) in [
        (&[5, 3, 9, 1, 7][..], 3, &[5, 7, 9][..]),
        (&[4, 4, 4, 4], 3, &[4, 4, 4]),
        (&[4, 4, 2, 9], 2, &[4, 9]),
        (&[1, 2], 2, &[1, 2]),
        (&[1, 2], 0, &[]),
    ] {
        let mut left = notes(given);
        assert_eq!(drop_oldest(&mut left, most), (given.len() - kept.len()) as u64);
        let mut left: Vec<_> = left.into_values().collect();
        left.sort_unstable();
        assert_eq!(left, kept.iter().map(|seconds| at(*seconds)).collect::<Vec<_>>(), "{given:?} to {most}");
    }
}
