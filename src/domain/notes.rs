//! How much workers note of keys in use before it is written down.

/// Notes of one kind that all workers together make room for, as many as a table of 262,144 places takes before it grows.
const FOR_ALL: usize = 262_144 / 8 * 7;
/// The least that each has, however many they are: more than the keys that can come between two looks at the table.
const FOR_EACH: usize = 65_536 / 8 * 7;

/// How many keys each of so many workers may note between two flushes.
///
/// While the keys in use fit in, a flush is a matter of its interval; beyond that it comes sooner.
pub const fn room_per_worker(workers: usize) -> usize {
    let share = FOR_ALL / if workers == 0 { 1 } else { workers };
    if share > FOR_EACH { share } else { FOR_EACH }
}

/// Whether a worker with that room may run out of it before the next look.
pub const fn is_filling(noted: usize, room: usize) -> bool {
    noted >= room / 4 * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_workers_share_the_room_and_many_have_enough_each() {
        assert_eq!([0, 1, 2, 4, 64].map(room_per_worker), [229_376, 229_376, 114_688, 57_344, 57_344]);
        assert!(is_filling(172_032, 229_376) && !is_filling(172_031, 229_376));
    }
}
