//! What one note holds of a key.

use super::*;
use crate::domain::KeyKind;
use crate::store::Passage;
use crate::usage::Counted;
use crate::usage::rules::RuleName;

const KEY: KeyId = KeyId::from_bytes([1; 16]);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(seconds)
}

fn row(status: u16, seconds: i64) -> Row {
    Counted::new(KEY, RuleName::OTHER, Passage::Allowed, at(seconds)).answered(status).row
}

fn visitor(key: KeyId, is_accepted: bool, seconds: i64) -> Visitor<'static> {
    let kind = KeyKind::Secret;
    Visitor { key, kind, address: None, agent: Some(b"curl/8.0"), is_browser_leak: false, is_accepted, at: at(seconds) }
}

fn only(notes: KeyNotes) -> KeyNote {
    let mut notes = notes.into_iter();
    let (_, note) = notes.next().unwrap();
    assert!(notes.next().is_none());
    note
}

#[test]
fn only_accepted_keys_were_used() {
    let mut notes = KeyNotes::default();
    assert!(notes.visit(&visitor(KEY, false, 5), 1));
    assert!(!notes.was_used(&KEY));
    assert!(notes.visit(&visitor(KEY, true, 9), 1));
    // A refusal is noted when its answer is out, and says nothing of use.
    assert!(notes.visit(&visitor(KEY, false, 12), 1));
    assert!(notes.was_used(&KEY) && !notes.was_used(&NOBODY));
    let note = only(notes);
    assert_eq!((note.used_at(), note.visit.unwrap().at), (Some(at(9)), at(12)));
}

#[test]
fn the_last_use_counts_whoever_tells_of_it_first() {
    let mut notes = KeyNotes::default();
    for seconds in [7, 9, 8] {
        assert!(notes.mark(KEY, at(seconds), 1));
    }
    let note = only(notes);
    assert_eq!(note.used_at(), Some(at(9)));
    assert!(note.visit.is_none() && note.counted.is_none(), "nobody came through a route");
}

#[test]
fn one_kind_of_request_is_counted_beside_the_key_and_others_elsewhere() {
    let mut notes = KeyNotes::default();
    assert!(!notes.count(KEY, row(0, 0), 0, 1), "nothing was counted of it");
    assert!(notes.count(KEY, row(200, 0), 1, 1));
    assert!(notes.count(KEY, row(200, 3_599), 2, 1), "of the same hour");
    assert!(!notes.count(KEY, row(404, 0), 1, 1));
    assert!(!notes.count(KEY, row(200, 3_600), 1, 1), "of the next hour");
    assert_eq!(only(notes).counted, Some((row(200, 0), 3)));
}

#[test]
fn a_key_that_has_its_place_keeps_it_and_others_find_none() {
    let other = KeyId::from_bytes([2; 16]);
    let mut notes = KeyNotes::default();
    assert!(notes.visit(&visitor(KEY, true, 1), 1));
    assert!(!notes.visit(&visitor(other, true, 1), 1));
    assert!(!notes.mark(other, at(1), 1) && !notes.count(other, row(200, 0), 1, 1));
    assert!(notes.mark(KEY, at(2), 1) && notes.count(KEY, row(200, 0), 1, 1));
    assert!(notes.visit(&visitor(NOBODY, false, 1), 2));
    notes.forget_nobody();
    assert_eq!(notes.len(), 1);
}
