//! What clients may make the process hold where nobody says how much.

use super::*;
use crate::cache::fixtures::{load_into, memory_store, now};
use crate::store::fixtures::{NOW, by, key};

const MIB: u64 = 1024 * 1024;

#[test]
fn keys_take_their_part_of_the_machine() {
    let all = 1024 * MIB;
    assert_eq!(usual(all, 0), 768 * MIB);
    assert_eq!(usual(all, 100_000), 768 * MIB - 100_000 * KEY_IN_USE / 4 * 3);
    // A million in use take 310 MB, and the process itself some more.
    let little = 512 * MIB;
    assert!(usual(little, 1_000_000) + 310_000_000 + 32 * MIB < little);
}

#[test]
fn very_many_keys_leave_clients_a_part() {
    let all = 1024 * MIB;
    assert_eq!(usual(all, 3_000_000), usual(all, u64::MAX));
    assert_eq!(usual(all, u64::MAX), 192 * MIB);
    assert_eq!(usual(u64::MAX, u64::MAX), u64::MAX / 4 - u64::MAX / 16);
}

#[test]
fn a_worker_follows_what_keys_leave_when_it_looks() {
    let unset = Limits { memory: None, ..Limits::default() };
    let keys = KeySet::new();
    let memory = Memory::new(1, Some(4 * MIB), Arc::clone(&keys));
    let worker = memory.worker(0);
    let held = worker.own.hold(2 * 1024 * 1024);
    assert!(!worker.is_nearly_full(&unset), "3 MiB are for clients");
    let store = memory_store();
    now(store.writer().insert_keys((0..5_243).map(key).collect(), by(), NOW)).unwrap();
    load_into(&keys, &store);
    worker.look();
    assert!(worker.is_full(&unset), "1.5 MiB are");
    assert_eq!(memory.limit(&unset), usual(4 * MIB, 5_243));
    let set = Limits { memory: Some(4 * MIB), ..Limits::default() };
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
