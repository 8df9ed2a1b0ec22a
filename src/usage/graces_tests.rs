//! A use is never forgotten before the grace has ended.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::cache::fixtures::key_set;
use crate::domain::{KeyRecord, Revision, Timestamp};
use crate::store::fixtures::{NOW, key, key_id};
use crate::store::{Answer, Effect};

/// Notes which graces it was told to end, unless it is away.
#[derive(Default)]
struct Notebook {
    is_away: AtomicBool,
    /// Keys whose records it cannot read.
    unreadable: Mutex<HashSet<KeyId>>,
    ended: Mutex<Vec<KeyId>>,
}

impl KeyWriter for Notebook {
    fn submit(&self, order: Order) -> Answer<'_, Effect> {
        let Command::EndGrace { id } = order.command else { panic!("{order:?} is not for ending a grace") };
        Box::pin(async move {
            if self.is_away.load(Ordering::Relaxed) {
                let source = "it is away".into();
                return Err(StoreError::Unavailable { doing: "ending a grace".to_owned(), source });
            }
            if self.unreadable.lock().contains(&id) {
                return Err(StoreError::Damaged { found: "something else".to_owned() });
            }
            self.ended.lock().push(id);
            Ok(Effect::Changed(Revision::ZERO, 1))
        })
    }

    fn mark_used(&self, _: Vec<(KeyId, Timestamp)>) -> Answer<'_, ()> {
        unreachable!("nobody asks for it")
    }
}

/// Key 2 succeeds key 1, and key 4 key 3.
fn desk() -> (Arc<Graces>, Arc<Tally>, Arc<Notebook>) {
    let successor = |number, old: KeyRecord| KeyRecord { replaces: Some(old.id), ends_on_use: true, ..key(number) };
    let keys = key_set(vec![], vec![key(1), successor(2, key(1)), key(3), successor(4, key(3))]);
    let (tally, notebook) = (Tally::new(2), Arc::<Notebook>::default());
    (Graces::new(keys, Arc::clone(&tally), Arc::clone(&notebook) as _), tally, notebook)
}

#[tokio::test]
async fn the_grace_of_a_key_ends_once_its_successor_is_used_and_no_other_does() {
    let (graces, tally, notebook) = desk();
    assert_eq!(graces.awaited(), HashSet::from_iter([key_id(2), key_id(4)]));
    tally.mark(0, key_id(1), NOW);
    tally.mark(1, key_id(2), NOW);
    for _ in 0..2 {
        graces.end().await.unwrap();
        assert_eq!(*notebook.ended.lock(), [key_id(1)]);
    }
    assert_eq!(graces.awaited(), HashSet::from_iter([key_id(4)]));
}

#[tokio::test]
async fn a_use_that_the_tally_has_forgotten_ends_the_grace_when_the_store_is_back() {
    let (graces, tally, notebook) = desk();
    notebook.is_away.store(true, Ordering::Relaxed);
    tally.mark(0, key_id(2), NOW);
    graces.end().await.unwrap_err();
    assert_eq!(tally.take().count(), 2);
    assert!(!tally.was_used(&key_id(2)));
    // Of another that was used between two looks, whoever takes the notes tells.
    graces.remember(key_id(4));
    graces.end().await.unwrap_err();
    notebook.is_away.store(false, Ordering::Relaxed);
    graces.end().await.unwrap();
    let mut ended = notebook.ended.lock().clone();
    ended.sort_unstable();
    let mut expected = [key_id(1), key_id(3)];
    expected.sort_unstable();
    assert_eq!(ended, expected);
    assert!(graces.used.lock().is_empty());
}

#[tokio::test]
async fn what_is_not_waited_for_is_not_remembered() {
    let (graces, _tally, notebook) = desk();
    graces.remember(key_id(1));
    graces.end().await.unwrap();
    assert!(graces.used.lock().is_empty() && notebook.ended.lock().is_empty());
}

#[tokio::test]
async fn a_grace_that_cannot_be_ended_keeps_none_of_the_others() {
    for unreadable in [1, 3] {
        let (graces, tally, notebook) = desk();
        notebook.unreadable.lock().insert(key_id(unreadable));
        [2, 4].iter().for_each(|successor| tally.mark(0, key_id(*successor), NOW));
        for _ in 0..2 {
            assert!(matches!(graces.end().await, Err(StoreError::Damaged { .. })));
            assert_eq!(*notebook.ended.lock(), [key_id(4 - unreadable)]);
        }
        assert!(graces.remembers(key_id(unreadable + 1)));
    }
}
