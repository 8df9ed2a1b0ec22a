//! What the table promises.

use super::{CHUNK, ChunkedTable};

#[test]
fn a_copy_never_sees_later_writes() {
    let mut table = ChunkedTable::default();
    for number in 0..CHUNK + 10 {
        assert_eq!(table.push(number), number);
    }
    let copy = table.clone();
    table.push(7_000);
    table.update(3, |entry| *entry = 99);
    table.update(CHUNK + 3, |entry| *entry = 98);

    assert_eq!(copy.iter().copied().collect::<Vec<_>>(), (0..CHUNK + 10).collect::<Vec<_>>());
    assert_eq!((table.get(3), table.get(CHUNK + 3), table.get(CHUNK + 10)), (Some(&99), Some(&98), Some(&7_000)));
    assert_eq!((copy.len(), table.len()), (CHUNK + 10, CHUNK + 11));
}

#[test]
fn writing_copies_one_chunk_and_shares_the_others() {
    let mut table = ChunkedTable::default();
    for number in 0..4 * CHUNK {
        table.push(number);
    }
    let copy = table.clone();
    table.update(CHUNK, |entry| *entry = 0);

    let shared = |number: usize| std::ptr::eq(table.get(number).unwrap(), copy.get(number).unwrap());
    assert_eq!([shared(0), shared(CHUNK), shared(2 * CHUNK), shared(3 * CHUNK)], [true, false, true, true]);
}

#[test]
fn iterating_from_a_number_skips_exactly_what_is_before_it() {
    let mut table = ChunkedTable::default();
    for number in 0..2 * CHUNK + 5 {
        table.push(number);
    }
    for first in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 4, 2 * CHUNK + 5, 9 * CHUNK] {
        let seen: Vec<usize> = table.iter_from(first).copied().collect();
        assert_eq!(seen, (first..2 * CHUNK + 5).collect::<Vec<_>>(), "from {first}");
    }
    assert!(ChunkedTable::<u8>::default().is_empty());
    assert_eq!(table.get(2 * CHUNK + 5), None);
}
