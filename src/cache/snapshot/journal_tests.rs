//! Journals that were cut, changed and gone on with, against what was appended.

use std::fs;
use std::sync::Arc;

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::{Journal, replay};
use crate::cache::snapshot::place::Place;
use crate::cache::snapshot::record::Record;
use crate::cache::snapshot::seal::SnapshotSeal;
use crate::domain::{KeyKind, Revision, RevisionToken, StoreHead, Timestamp};
use crate::store::fixtures::{NOW, hash, key_id, owner_id};
use crate::store::{KeyFacts, Profile, Removed};

fn change(number: u64) -> Record {
    let number_of_key = u32::try_from(number).unwrap();
    let facts = KeyFacts {
        id: key_id(number_of_key),
        hash: hash(number_of_key),
        owner: number.is_multiple_of(2).then(|| owner_id(1)),
        environment: "live".into(),
        kind: KeyKind::Secret,
        profile: Arc::new(Profile { scopes: vec!["a:b".parse().unwrap()], ..Profile::default() }),
        active: !number.is_multiple_of(3),
        revoked_at: number.is_multiple_of(5).then_some(NOW),
        dies_at: number.is_multiple_of(7).then_some(NOW),
        created_at: NOW,
        lineage: key_id(0),
        ends_on_use: number.is_multiple_of(4).then(|| key_id(9)),
    };
    Record {
        head: StoreHead { revision: Revision::new(number), token: RevisionToken(number * 31) },
        as_of: Timestamp::from_unix_ms(i64::try_from(number).unwrap()),
        owners: vec![],
        keys: vec![facts],
        removed: vec![Removed { id: key_id(77), hash: hash(77) }],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Cut anywhere, a journal holds the records that were whole, in their order; zeros behind it change nothing.
    #[test]
    fn a_torn_journal_holds_what_was_whole(records in 1u64..12, cut in 0.0f64..1.0, zeros in 0usize..100) {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::new(directory.path().to_owned());
        let seal = SnapshotSeal::default();
        let mut journal = Journal::create(&place, 3, seal.current(), [5; 32]).unwrap();
        let start = journal.len;
        let mut ends = vec![start];
        for number in 1..=records {
            journal.append(&[change(number)]).unwrap();
            ends.push(journal.len);
        }
        let len = start + ((journal.len - start) as f64 * cut) as u64;
        let file = fs::OpenOptions::new().write(true).open(place.journal(3)).unwrap();
        file.set_len(len).unwrap();
        file.set_len(len + zeros as u64).unwrap();
        drop(file);
        let whole = ends.iter().filter(|end| **end <= len).count() as u64 - 1;
        let mut read = Vec::new();
        let replayed = replay(&place, 3, &seal, [5; 32], |record| read.push(record)).unwrap().unwrap();
        prop_assert_eq!(&read, &(1..=whole).map(change).collect::<Vec<_>>());
        // And it is gone on with where it was whole.
        let mut journal = replayed.journal;
        journal.append(&[change(50)]).unwrap();
        read.clear();
        let replayed = replay(&place, 3, &seal, [5; 32], |record| read.push(record)).unwrap().unwrap();
        prop_assert!(!replayed.torn);
        prop_assert_eq!(read.len() as u64, whole + 1);
    }

    /// A change to what was acknowledged is not taken for a torn end.
    #[test]
    fn a_changed_record_in_a_journal_is_noticed(at in 0.0f64..1.0, bit in 0u8..8) {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::new(directory.path().to_owned());
        let seal = SnapshotSeal::new([("a", Zeroizing::new([7; 32]))]);
        let mut journal = Journal::create(&place, 1, seal.current(), [0; 32]).unwrap();
        journal.append(&[change(1), change(2)]).unwrap();
        let before_last = journal.len;
        journal.append(&[change(3)]).unwrap();
        let mut bytes = fs::read(place.journal(1)).unwrap();
        let at = (before_last as f64 * at) as usize;
        bytes[at] ^= 1 << bit;
        fs::write(place.journal(1), bytes).unwrap();
        let read = replay(&place, 1, &seal, [0; 32], drop);
        prop_assert!(read.is_err(), "byte {} of {}", at, before_last);
    }
}
