//! What is kept of notes, in which order it leaves, and what finds no room.

use super::*;
use crate::domain::KeyKind;
use crate::store::Passage;
use crate::usage::Visitor;
use crate::usage::key_notes::KeyNotes;
use crate::usage::rules::RuleName;

fn key(number: u8) -> KeyId {
    KeyId::from_bytes([number; 16])
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn counted(number: u8, status: u16) -> Counted {
    Counted::new(key(number), RuleName::OTHER, Passage::Allowed, at(0)).answered(status)
}

/// Of keys that were accepted then, each with a request that was answered so.
fn batch(uses: &[(u8, i64, u16)], counts: Vec<(Counted, u64)>) -> Batch {
    let mut notes = KeyNotes::default();
    for (number, seconds, status) in uses {
        let (kind, at) = (KeyKind::Secret, at(*seconds));
        let key = key(*number);
        let visitor = Visitor { key, kind, address: None, agent: None, is_browser_leak: false, is_accepted: true, at };
        assert!(notes.visit(&visitor, 9) && notes.count(key, counted(*number, *status).row, 1, 9));
    }
    Batch { keys: notes.into_iter().collect(), counts }
}

/// Batch by batch its keys, and of which key which status was counted how often.
type Drained = Vec<(Vec<u8>, Vec<(u8, u16, u64)>)>;

fn drained(queue: &mut Queue, most: usize) -> Drained {
    let mut batches = Vec::new();
    loop {
        let batch = queue.next(most);
        if batch.is_empty() {
            return batches;
        }
        let Batch { keys, counts: others } = batch;
        let first =
            keys.iter().filter_map(|(key, note)| note.counted.map(|(row, requests)| (key, row, requests.into())));
        let others = others.iter().map(|(counted, requests)| (&counted.key, counted.row, *requests));
        let counts = first.chain(others).map(|(key, row, requests)| (key.to_bytes()[0], row.status, requests));
        batches.push((keys.iter().map(|(key, _)| key.to_bytes()[0]).collect(), counts.collect()));
    }
}

#[test]
fn notes_of_a_key_become_one_and_its_other_counts_go_with_it() {
    let mut pending = Pending::default();
    let whole = Dropped::default();
    assert_eq!(pending.add(batch(&[(3, 10, 200), (1, 10, 200)], vec![(counted(1, 404), 7)]), 9), whole);
    assert_eq!(pending.add(batch(&[(1, 12, 200), (2, 5, 500), (3, 8, 404)], vec![(counted(1, 404), 1)]), 9), whole);
    assert_eq!(pending.len(), 3);
    assert_eq!(pending.visit(&key(1)).map(|visit| visit.at), Some(at(12)));
    let uses = [(1, 12), (2, 5), (3, 10)].map(|(number, seconds)| (key(number), at(seconds)));
    assert_eq!(pending.take_uses().collect::<Vec<_>>(), uses);
    assert_eq!(pending.take_uses().count(), 0);
    let first = (vec![1], vec![(1, 200, 2), (1, 404, 8)]);
    let rest = vec![(vec![2], vec![(2, 500, 1)]), (vec![3], vec![(3, 200, 1), (3, 404, 1)])];
    assert_eq!(drained(&mut pending.take(), 1), [vec![first], rest].concat());
    assert_eq!((pending.len(), drained(&mut pending.take(), 1).len()), (0, 0));
}

#[test]
fn counts_beyond_a_batch_come_with_the_next() {
    let mut pending = Pending::default();
    let counts = [(1, 401), (1, 402), (1, 403), (2, 401)].map(|(number, status)| (counted(number, status), 1));
    pending.add(batch(&[(1, 0, 200), (2, 0, 200)], counts.to_vec()), 9);
    let batches = [
        (vec![1], vec![(1, 200, 1), (1, 401, 1)]),
        (vec![2], vec![(2, 200, 1), (1, 402, 1)]),
        (vec![], vec![(1, 403, 1)]),
        (vec![], vec![(2, 401, 1)]),
    ];
    assert_eq!(drained(&mut pending.take(), 1), batches);
}

#[test]
fn a_use_that_was_taken_out_comes_back_only_by_itself() {
    let mut pending = Pending::default();
    pending.add(batch(&[(1, 10, 200), (2, 10, 200)], vec![]), 9);
    assert_eq!(pending.take_uses().count(), 2);
    // The notes come back.
    let left = pending.take().next(9);
    pending.add(left, 9);
    assert_eq!((pending.take_uses().count(), pending.len()), (0, 2));
    assert_eq!(pending.add_uses(vec![(key(2), at(11)), (key(1), at(10)), (key(2), at(9))], 1), 1);
    assert_eq!(pending.take_uses().collect::<Vec<_>>(), [(key(1), at(10))]);
}

#[test]
fn what_finds_no_room_is_counted() {
    let mut pending = Pending::default();
    pending.add(batch(&[(5, 10, 200)], vec![(counted(5, 401), 1)]), 2);
    let dropped = pending.add(batch(&[(1, 10, 200), (5, 11, 402), (9, 11, 200)], vec![(counted(5, 401), 1)]), 2);
    assert_eq!(dropped, Dropped { notes: 2, marks: 1 }, "of a third key: who came with it and one count");
    let dropped = pending.add(batch(&[], vec![(counted(5, 403), 1), (counted(5, 402), 1)]), 2);
    assert_eq!(dropped, Dropped { notes: 1, marks: 0 });
    assert_eq!(
        drained(&mut pending.take(), 9),
        [(vec![1, 5], vec![(1, 200, 1), (5, 200, 1), (5, 401, 2), (5, 402, 2)])]
    );
}
