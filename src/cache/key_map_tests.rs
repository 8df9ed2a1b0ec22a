//! The map against a plain one, also where many keys have the same mark, and under readers.

use std::collections::HashMap as Model;
use std::sync::atomic::AtomicU32;

use proptest::prelude::*;

use super::super::directory::{EnvIx, OwnerIx, ProfileId};
use super::*;
use crate::domain::{KeyKind, Timestamp};
use crate::store::fixtures::{hash, key_id};

/// A map whose marks keep only these bits.
fn map_with_mask(mask: u64) -> KeyMap {
    KeyMap::with_mixer(16, Mixer { mask, ..Mixer::seeded() })
}

/// A slot in which every field tells the same number, so that a mixture would show.
fn slot(id: KeyId, number: u32) -> KeySlot {
    let bits = u64::from(number);
    let moment = Timestamp::from_unix_seconds(i64::from(number) + 1);
    let (profile, owner, environment) = (ProfileId::from_bits(bits), OwnerIx::from_bits(bits), EnvIx::from_bits(bits));
    KeySlot::new(id, profile, owner, environment, KeyKind::Secret, Some(moment), moment)
}

#[derive(Clone, Debug)]
enum Step {
    Insert { hash: u32, id: u32, slot: u32 },
    Remove { hash: u32, id: u32 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..12u32, 0..3u32, 1..4_000u32).prop_map(|(hash, id, slot)| Step::Insert { hash, id, slot }),
        2 => (0..12u32, 0..3u32).prop_map(|(hash, id)| Step::Remove { hash, id }),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn it_answers_like_a_plain_map_however_many_keys_have_the_same_mark(
        filled in prop::collection::vec((0..12u32, 0..3u32, 1..4_000u32), 0..20),
        steps in steps(),
        mask in prop_oneof![Just(0), Just(1), Just(1 << 31), Just(0b11 << 31), Just(u64::MAX)],
    ) {
        let map = map_with_mask(mask);
        let mut model = Model::new();
        let mut filling = map.fill(0);
        for (h, id, n) in filled {
            let new = slot(key_id(id), n);
            filling.put(&hash(h), &new).unwrap();
            model.insert(h, new);
        }
        filling.finish().unwrap();
        for h in 0..13 {
            prop_assert_eq!(map.get(&hash(h)), model.get(&h).copied());
        }
        for step in steps {
            match step {
                Step::Insert { hash: h, id, slot: n } => {
                    let new = slot(key_id(id), n);
                    prop_assert_eq!(map.insert(&hash(h), new).unwrap(), model.insert(h, new));
                }
                Step::Remove { hash: h, id } => {
                    let is_it = model.get(&h).is_some_and(|old: &KeySlot| old.id == key_id(id));
                    prop_assert_eq!(map.remove(&hash(h), key_id(id)), is_it);
                    if is_it {
                        model.remove(&h);
                    }
                }
            }
            for h in 0..13 {
                prop_assert_eq!(map.get(&hash(h)), model.get(&h).copied());
            }
            prop_assert_eq!(map.len(), model.len());
        }
        let mut visited = Vec::new();
        map.for_each(|seen, slot| visited.push((*seen.as_bytes(), *slot)));
        let mut expected: Vec<_> = model.iter().map(|(h, slot)| (*hash(*h).as_bytes(), *slot)).collect();
        visited.sort_unstable_by_key(|(seen, _)| *seen);
        expected.sort_unstable_by_key(|(seen, _)| *seen);
        prop_assert_eq!(visited, expected);
    }
}

#[test]
fn slots_are_used_again() {
    let map = KeyMap::with_capacity(0);
    for n in 0..3 * u32::try_from(CHUNK).unwrap() {
        map.insert(&hash(n), slot(key_id(n), 1)).unwrap();
        assert!(map.remove(&hash(n), key_id(n)));
    }
    assert_eq!(map.slots.spare.lock().given_out, 1);
    assert!(map.is_empty());
}

#[test]
fn two_maps_never_place_keys_alike() {
    let [one, other] = [Mixer::seeded(), Mixer::seeded()];
    let alike = (0..1_000).filter(|n| one.mark(&hash(*n)) == other.mark(&hash(*n))).count();
    assert_eq!(alike, 0);
}

#[test]
fn marks_spread_over_parts_and_groups_whichever_bytes_differ() {
    let mixer = Mixer::seeded();
    let group = |mark: Mark| (mark.tag >> 25) as usize;
    let at = |place: usize| {
        move |number: u32| {
            let mut bytes = [0; 32];
            bytes[place..place + 4].copy_from_slice(&number.to_be_bytes());
            KeyHash::from_bytes(bytes)
        }
    };
    let hashes: Vec<Box<dyn Fn(u32) -> KeyHash>> =
        vec![Box::new(hash), Box::new(at(0)), Box::new(at(12)), Box::new(at(16)), Box::new(at(28))];
    for hash in hashes {
        for place in [|mark: Mark| usize::from(mark.part), group] {
            let mut counts = [0u32; PARTS];
            for number in 0..u32::try_from(PARTS).unwrap() * 64 {
                counts[place(mixer.mark(&hash(number)))] += 1;
            }
            let most = counts.iter().max().unwrap();
            assert!(*most < 160, "64 on average, but {most}");
        }
    }
}

#[test]
fn a_reader_never_meets_a_half_written_slot() {
    let map = KeyMap::with_capacity(0);
    let written = AtomicU32::new(0);
    const ROUNDS: u32 = 4_000;
    map.insert(&hash(0), slot(key_id(0), 1)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..ROUNDS {
                map.insert(&hash(0), slot(key_id(round), round)).unwrap();
                // A key that comes and goes takes slots that were others' a moment ago.
                map.insert(&hash(1), slot(key_id(round), round)).unwrap();
                assert!(map.remove(&hash(1), key_id(round)));
                written.store(round, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            let mut newest = 0;
            while written.load(Ordering::Relaxed) + 1 < ROUNDS {
                for number in [0, 1] {
                    let Some(seen) = map.get(&hash(number)) else {
                        assert_eq!(number, 1, "a key that stays is always found");
                        continue;
                    };
                    let round = seen.profile.number();
                    if round > 1 {
                        assert_eq!(seen, slot(key_id(round), round));
                    }
                    assert!(number == 1 || round >= newest, "changes are seen in order");
                    newest = newest.max(round);
                }
            }
        });
    });
}

#[test]
fn keys_that_stay_are_found_while_others_come_and_go() {
    let map = KeyMap::with_capacity(0);
    const STAY: u32 = 2_000;
    const COME_AND_GO: u32 = 20_000;
    (0..STAY).for_each(|n| assert!(map.insert(&hash(n), slot(key_id(n), n + 1)).unwrap().is_none()));
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let others = STAY..STAY + COME_AND_GO;
            // Parts grow; then places in full groups become free, and others move there.
            others.clone().for_each(|n| assert!(map.insert(&hash(n), slot(key_id(n), 1)).unwrap().is_none()));
            others.for_each(|n| assert!(map.remove(&hash(n), key_id(n))));
            is_over.store(true, Ordering::Relaxed);
        });
        scope.spawn(|| {
            let mut rounds = 0;
            while !is_over.load(Ordering::Relaxed) || rounds == 0 {
                (0..STAY).for_each(|n| assert_eq!(map.get(&hash(n)), Some(slot(key_id(n), n + 1))));
                rounds += 1;
            }
        });
    });
    assert_eq!(map.len(), STAY as usize);
}
