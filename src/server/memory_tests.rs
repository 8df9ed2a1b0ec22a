//! What clients may make the process hold where nobody says how much.

use super::*;
use crate::cache::fixtures::{load_into, memory_store, now};
use crate::store::fixtures::{NOW, by, key};

const MIB: u64 = 1024 * 1024;

#[test]
fn keys_take_their_part_of_the_machine() {
    let all = 1024 * MIB;
    assert_eq!(usual(all, 1, 0), 768 * MIB);
    assert_eq!(usual(all, 1, 100_000), (all - 100_000 * (KEY_IN_USE + NOTE)) / 4 * 3);
    // A million in use took 310 MB with one worker, and the process itself takes some more.
    let little = 512 * MIB;
    assert!(usual(little, 1, 1_000_000) + 310_000_000 + 32 * MIB < little);
}

#[test]
fn workers_note_so_much_each() {
    let all = 4096 * MIB;
    assert_eq!(usual(all, 1, 1_000_000), usual(all, 2, 1_000_000), "one has room for what two have");
    assert_eq!(usual(all, 2, 1_000_000) - usual(all, 6, 1_000_000), 4 * 114_688 * NOTE / 4 * 3);
    assert_eq!(usual(all, 2, 1_000) - usual(all, 6, 1_000), 4 * 1_000 * NOTE / 4 * 3, "of keys that there are");
}

#[test]
fn very_many_keys_leave_clients_a_part() {
    let all = 1024 * MIB;
    assert_eq!(usual(all, 2, 4_000_000), usual(all, 2, usize::MAX));
    assert_eq!(usual(all, usize::MAX, usize::MAX), 192 * MIB);
    assert_eq!(usual(u64::MAX, 1, 0), u64::MAX - u64::MAX / 4);
    assert_eq!(usual(128 * MIB, 2, usize::MAX), LEAST, "no less than may be configured");
}

#[test]
fn a_worker_follows_what_keys_leave_when_it_looks() {
    let unset = Limits { memory: None, ..Limits::default() };
    let keys = KeySet::new();
    let memory = Memory::new(1, Some(64 * MIB), Arc::clone(&keys));
    let worker = memory.worker(0);
    let before = memory.limit(&unset);
    let held = worker.own.hold(usize::try_from(before).unwrap() - 1024);
    assert!(worker.is_nearly_full(&unset) && !worker.is_full(&unset));
    let store = memory_store();
    now(store.writer().insert_keys((0..1_000).map(key).collect(), by(), NOW)).unwrap();
    load_into(&keys, &store);
    worker.look();
    assert!(worker.is_full(&unset));
    assert_eq!(memory.limit(&unset), usual(64 * MIB, 1, 1_000));
    let set = Limits { memory: Some(64 * MIB), ..Limits::default() };
    assert!(!worker.is_nearly_full(&set), "whoever says how much gets that");
    drop(held);
    assert!(!worker.is_nearly_full(&unset));
}

#[test]
fn where_nobody_knows_the_machine_nothing_is_full() {
    let memory = Memory::new(1, None, KeySet::new());
    let worker = memory.worker(0);
    let _held = worker.own.hold(usize::MAX / 2);
    assert!(!worker.is_nearly_full(&Limits { memory: None, ..Limits::default() }));
}
