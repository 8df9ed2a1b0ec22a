//! How much workers note before it is taken over.

/// Keys of which a worker makes room to note something: as many as a table of 131,072 places takes before it grows.
const FOR_EACH: usize = 131_072 / 8 * 7;
/// The same for the only one.
const FOR_ONE: usize = 2 * FOR_EACH;

/// How many keys each of so many workers may note before its notes are taken.
pub(super) const fn room_per_worker(workers: usize) -> usize {
    if workers <= 1 { FOR_ONE } else { FOR_EACH }
}

/// How many notes so many workers may have together: each of a key, which several may have notes of.
pub const fn most_notes(workers: usize) -> usize {
    let workers = if workers == 0 { 1 } else { workers };
    workers.saturating_mul(room_per_worker(workers))
}

/// Whether a worker with that room may run out of it before the next look.
pub(super) const fn is_filling(noted: usize, room: usize) -> bool {
    noted >= room / 4 * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_has_room_for_what_two_have() {
        assert_eq!([0, 1, 2, 64].map(room_per_worker), [229_376, 229_376, 114_688, 114_688]);
        assert_eq!([0, 1, 2, 3].map(most_notes), [229_376, 229_376, 229_376, 344_064]);
        assert!(is_filling(172_032, 229_376) && !is_filling(172_031, 229_376));
    }
}
