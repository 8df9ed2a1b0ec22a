//! Every kept input, and what is near to it, obeys its law.

use std::path::PathBuf;

use proptest::prelude::*;
use proptest::sample::Index;

use crate::cases;
use crate::laws::{LAWS, Law};

/// The inputs that are kept for a law.
fn kept(name: &str) -> Vec<Vec<u8>> {
    let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/corpus")).join(name);
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// One change to a kept input.
#[derive(Clone, Debug)]
enum Change {
    Replace(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    /// The beginning of one and the end of another.
    Cross(Index, Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, byte)| Change::Replace(at, byte)),
        (index(), any::<u8>()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        index().prop_map(Change::Remove),
        (index(), index(), index()).prop_map(|(other, end, begin)| Change::Cross(other, end, begin)),
    ]
}

fn changed(kept: &[Vec<u8>], seed: Index, changes: Vec<Change>) -> Vec<u8> {
    let mut bytes = seed.get(kept).clone();
    for change in changes {
        match change {
            Change::Insert(at, byte) => bytes.insert(at.index(bytes.len() + 1), byte),
            _ if bytes.is_empty() => {}
            Change::Replace(at, byte) => *at.get_mut(&mut bytes) = byte,
            Change::Remove(at) => drop(bytes.remove(at.index(bytes.len()))),
            Change::Cross(other, end, begin) => {
                let other = other.get(kept);
                bytes.truncate(end.index(bytes.len() + 1));
                bytes.extend_from_slice(&other[begin.index(other.len() + 1)..]);
            }
        }
    }
    bytes
}

fn hold((name, law): Law) {
    let kept = kept(name);
    assert!(!kept.is_empty(), "nothing is kept for {name}");
    kept.iter().for_each(|input| law(input));
    let near = (any::<Index>(), prop::collection::vec(change(), 0..6));
    proptest!(cases(500), |((seed, changes) in near)| law(&changed(&kept, seed, changes)));
}

#[test]
fn kept_inputs_and_their_neighbours_obey_the_laws() {
    LAWS.into_iter().for_each(hold);
}
