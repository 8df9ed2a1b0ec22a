//! What a worker notes, and how much of it.

use std::time::Duration;

use super::*;
use crate::store::MAX_NETWORKS;
use crate::usage::MAX_AGENT_BYTES;
use crate::usage::key_notes::KeyNote;

const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_123);

fn key(number: u32) -> KeyId {
    let mut bytes = [7; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    KeyId::from_bytes(bytes)
}

fn counted(number: u32, status: u16) -> Counted {
    Counted::new(key(number), RuleName::OTHER, Passage::Allowed, NOW).answered(status)
}

fn visitor(number: u32, address: &str) -> Visitor<'static> {
    Visitor {
        key: key(number),
        kind: KeyKind::Secret,
        address: Some(address.parse().unwrap()),
        agent: Some(b"curl/8.0"),
        is_browser_leak: false,
        is_accepted: true,
        at: NOW,
    }
}

fn only(tally: &Tally) -> Noted {
    let mut noted: Vec<Noted> = tally.take().filter(|noted| noted.keys.len() > 0).collect();
    assert_eq!(noted.len(), 1);
    noted.pop().unwrap()
}

fn only_key(noted: Noted) -> KeyNote {
    let mut keys = noted.keys.into_iter();
    let (_, note) = keys.next().unwrap();
    assert!(keys.next().is_none());
    note
}

#[test]
fn requests_add_up_until_they_are_taken() {
    let tally = Tally::new(2);
    for status in [200, 200, 404] {
        tally.count(1, counted(1, status), 1);
    }
    tally.count(1, counted(1, 200), 0);
    let noted = only(&tally);
    assert_eq!(noted.counts[&counted(1, 404)], 1);
    assert_eq!(only_key(noted).counted, Some((counted(1, 200).row, 2)));
    assert_eq!(counted(1, 200).row.at(), Timestamp::from_unix_seconds(1_699_999_200));
    assert!(tally.take().all(|noted| noted.keys.len() == 0 && noted.counts.is_empty()));
}

#[test]
fn the_last_client_is_kept_and_every_network() {
    let tally = Tally::new(1);
    tally.visit(0, &visitor(1, "192.0.2.1"));
    tally.visit(0, &visitor(1, "2001:db8:1::1"));
    let later = NOW.plus(Duration::from_secs(5));
    let last = Visitor { agent: None, is_browser_leak: true, at: later, ..visitor(1, "192.0.2.9") };
    tally.visit(0, &last);
    let visit = only_key(only(&tally)).visit.unwrap();
    assert_eq!((visit.at, visit.address, visit.agent()), (later, last.address, &b""[..]));
    assert_eq!(visit.browser(), Some((last.address, later)));
    let seen = visit.networks();
    let networks: Vec<String> = seen.iter().map(|seen| seen.network.to_string()).collect();
    assert_eq!(networks, ["192.0.2.0/24", "2001:db8:1::/48"]);
    assert_eq!((seen[0].first, seen[0].last), (NOW, later));
}

#[test]
fn what_finds_no_room_is_dropped_and_counted() {
    let tally = Tally::new(1);
    let room = u32::try_from(tally.room).unwrap();
    for number in 0..room {
        tally.mark(0, key(number), NOW);
    }
    assert!(tally.is_filling());
    tally.mark(0, key(u32::MAX), NOW);
    tally.visit(0, &visitor(u32::MAX, "192.0.2.1"));
    tally.visit(0, &Visitor { is_accepted: false, ..visitor(u32::MAX, "192.0.2.1") });
    assert_eq!((tally.dropped(), tally.dropped_marks()), (2, 2));
    // Counts have a room of their own besides.
    for number in 0..=room {
        tally.count(0, counted(u32::MAX - number, 200), 1);
    }
    tally.count(0, counted(0, 200), 1);
    tally.mark(0, key(0), NOW);
    assert_eq!((tally.dropped(), tally.dropped_marks()), (3, 2), "what has its place keeps it");
}

#[test]
fn of_one_key_not_everything_is_kept() {
    let tally = Tally::new(1);
    for number in 0..100u8 {
        tally.visit(0, &visitor(1, &format!("192.0.{number}.1")));
    }
    let long = [b'x'; 4_000];
    tally.visit(0, &Visitor { agent: Some(&long), ..visitor(1, "192.0.2.1") });
    let visit = only_key(only(&tally)).visit.unwrap();
    assert_eq!((visit.networks().len(), visit.agent().len()), (MAX_NETWORKS, MAX_AGENT_BYTES));
}

#[test]
fn a_worker_that_does_not_exist_notes_with_one_that_does() {
    let tally = Tally::new(0);
    tally.mark(5, key(1), NOW);
    assert!(tally.was_used(&key(1)) && !tally.was_used(&key(2)));
}

#[test]
fn findings_of_one_kind_are_one() {
    let tally = Tally::new(1);
    let missing: Vec<Scope> = vec!["read:orders".parse().unwrap()];
    let caller = FoundCaller::Key(key(1));
    let found = Found { rule: RuleName::OTHER, reason: "insufficient_scope", caller, missing: &missing };
    tally.find(0, &found, NOW);
    tally.find(0, &found, NOW.plus(Duration::from_secs(1)));
    tally.find(0, &Found { missing: &[], ..found }, NOW);
    let noted = tally.take().next().unwrap();
    let mut requests: Vec<u64> = noted.findings.iter().map(|(_, count)| count.requests).collect();
    requests.sort_unstable();
    assert_eq!(requests, [1, 2]);
}

/// So many keys that their notes are fetched together, up to the edge of the room, and what came between.
#[test]
fn what_is_entered_together_is_what_would_be_entered_one_by_one() {
    let (tally, apart) = (Tally { room: 5_000, ..new() }, Tally { room: 5_000, ..new() });
    let came = |number: u32| Visitor { is_accepted: number.is_multiple_of(3), ..visitor(number, "192.0.2.1") };
    for number in (0..5_100).chain(4_000..5_200) {
        for (tally, is_apart) in [(&tally, false), (&apart, true)] {
            tally.visit(0, &came(number));
            if number.is_multiple_of(5) {
                tally.mark(0, key(number + 1), NOW.plus(Duration::from_secs(1)));
            }
            tally.count(0, counted(number, 200), 1);
            tally.count(0, counted(number, 404), 1);
            if is_apart {
                assert!(!tally.is_filling() || number > 3_000);
            }
        }
    }
    assert_eq!((tally.dropped(), tally.dropped_marks()), (apart.dropped(), apart.dropped_marks()));
    assert!(tally.dropped() > 0 && tally.dropped_marks() > 0);
    let told = |tally: &Tally| {
        let noted = only(tally);
        let mut counts: Vec<_> = noted.counts().map(|(key, _, requests)| (key, requests)).collect();
        counts.sort_unstable();
        let tell =
            |(key, note): (KeyId, KeyNote)| (key, note.used_at(), note.visit.map(|visit| (visit.at, visit.address)));
        let mut keys: Vec<_> = noted.keys.into_iter().map(tell).collect();
        keys.sort_unstable();
        (counts, keys)
    };
    let (together, apart) = (told(&tally), told(&apart));
    assert_eq!(together.1.len(), 5_000);
    assert_eq!(together, apart);
}

fn new() -> Tally {
    Arc::into_inner(Tally::new(1)).unwrap()
}
