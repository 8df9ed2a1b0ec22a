//! The table against a plain list, also where many entries lead to one group.

use proptest::prelude::*;

use super::*;

/// What it is found by, and what tells it from others that are found by the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Numbered(u32, u16);

impl Entry for Numbered {
    fn bits(&self) -> u32 {
        self.0
    }
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Numbered),
    Remove(Numbered),
    Retain(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Bits at both ends, so that groups are full and the way goes from the last one to the first; and any others.
    let bits = prop_oneof![3 => u32::MAX - 2..=u32::MAX, 2 => 0..3u32, 2 => any::<u32>()];
    let entry = (bits, 0..4u16).prop_map(|(bits, number)| Numbered(bits, number)).boxed();
    let step = prop_oneof![
        6 => entry.clone().prop_map(Step::Insert),
        4 => entry.prop_map(Step::Remove),
        1 => (0..4u16).prop_map(Step::Retain),
    ];
    prop::collection::vec(step, 0..120)
}

fn holds_what_a_plain_list_holds<const N: usize>(room: usize, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut table = Table::<Numbered, N>::with_room(room);
    let mut model: Vec<Numbered> = Vec::new();
    for step in steps {
        match step {
            Step::Insert(entry) => {
                table.insert(*entry);
                model.push(*entry);
            }
            Step::Remove(entry) => {
                let at = model.iter().position(|known| known == entry);
                prop_assert_eq!(table.remove(entry.0, |known| known == entry), at.map(|at| model.swap_remove(at)));
            }
            Step::Retain(number) => {
                let mut asked = 0;
                let before = table.len();
                table.retain(|entry| {
                    asked += 1;
                    entry.1 != *number
                });
                prop_assert_eq!(asked, before, "each is asked about once");
                model.retain(|entry| entry.1 != *number);
            }
        }
        for entry in &model {
            prop_assert_eq!(table.find(entry.0, |known| known == entry), Some(entry));
        }
        let mut all: Vec<Numbered> = table.iter().copied().collect();
        all.sort_unstable();
        model.sort_unstable();
        prop_assert_eq!(&all, &model);
        prop_assert_eq!(table.len(), model.len());
        prop_assert!(table.len() <= table.room());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn it_holds_what_a_plain_list_holds(room in 0..40usize, steps in steps()) {
        holds_what_a_plain_list_holds::<2>(room, &steps)?;
        holds_what_a_plain_list_holds::<4>(room, &steps)?;
        holds_what_a_plain_list_holds::<8>(room, &steps)?;
    }
}

/// Bits as a hash would spread them: by chance, not evenly.
fn spread(number: u16) -> u32 {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    BuildHasherDefault::<DefaultHasher>::default().hash_one(number) as u32
}

#[test]
fn what_is_not_there_is_not_found() {
    let mut table = Table::<Numbered, 4>::default();
    assert_eq!(table.find(7, |_| true), None);
    assert_eq!(table.remove(7, |_| true), None);
    table.retain(|_| true);
    (0..1_000).for_each(|number| table.insert(Numbered(spread(number), number)));
    for number in 1_000..2_000 {
        assert_eq!(table.find(spread(number), |entry| entry.1 == number), None);
    }
}

#[test]
fn an_entry_is_changed_where_it_stands() {
    let mut table = Table::<Numbered, 4>::default();
    (0..100).for_each(|number| table.insert(Numbered(spread(number), 0)));
    table.find_mut(spread(7), |entry| entry.0 == spread(7)).unwrap().1 = 9;
    let changed: Vec<&Numbered> = table.iter().filter(|entry| entry.1 > 0).collect();
    assert_eq!(changed, [&Numbered(spread(7), 9)]);
}

/// How many of a hundred stand where their bits lead to, and in how many groups one looks for those that are there, and for
/// others, in hundredths.
fn looks<const N: usize>(entries: u16) -> (usize, usize, usize) {
    let mut table = Table::<Numbered, N>::with_room(entries.into());
    (0..entries).for_each(|number| table.insert(Numbered(spread(number), number)));
    let groups_to = |bits: u32, is_it: &dyn Fn(&Numbered) -> bool| {
        let mut group = table.home(bits);
        let mut looks = 1;
        while table.groups[group].is_full() && !table.groups[group].0.iter().flatten().any(is_it) {
            group = table.next(group);
            looks += 1;
        }
        looks
    };
    let known = |number| groups_to(spread(number), &|entry| entry.1 == number);
    let at_home = (0..entries).filter(|number| known(*number) == 1).count();
    let hits: usize = (0..entries).map(known).sum();
    let misses: usize = (0..entries).map(|number| groups_to(!spread(number), &|_| false)).sum();
    let hundredth = |sum: usize| sum * 100 / usize::from(entries);
    (hundredth(at_home), hundredth(hits), hundredth(misses))
}

#[test]
fn one_look_finds_most_however_full_it_is() {
    for entries in [10_000, 60_000] {
        let (at_home, hits, misses) = looks::<8>(entries);
        assert!(at_home >= 95 && hits <= 106 && misses <= 130, "{at_home} {hits} {misses}");
        let (at_home, hits, misses) = looks::<4>(entries);
        assert!(at_home >= 90 && hits <= 115 && misses <= 170, "{at_home} {hits} {misses}");
    }
}

#[test]
fn it_grows_by_half_and_gives_memory_back() {
    let mut table = Table::<Numbered, 8>::default();
    for number in 0..60_000 {
        table.insert(Numbered(spread(number), number));
        assert!(table.len() < 100 || table.room() <= table.len() * 8 / 5, "{} of {}", table.len(), table.room());
    }
    let room = table.room();
    table.retain(|entry| entry.1 < 300);
    assert!(table.len() == 300 && table.room() == room, "what ups and downs need again is kept");
    table.retain(|_| false);
    assert!(table.is_empty() && table.room() < 700, "{}", table.room());
    table.retain(|_| true);
    assert_eq!(table.room(), 0);
}
