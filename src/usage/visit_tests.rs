//! What is kept of where a key was used from.

use std::time::Duration;

use super::*;

const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_123);

fn after(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

fn visitor(seconds: u64, address: Option<&str>) -> Visitor<'static> {
    let address = address.map(|address| address.parse().unwrap());
    let (key, kind, agent) = (KeyId::from_bytes([1; 16]), KeyKind::Secret, Some(&b"curl/8.0"[..]));
    Visitor { key, kind, address, agent, is_browser_leak: false, is_accepted: true, at: after(seconds) }
}

/// Visits of one key.
fn visit(visitors: &[(u64, Option<&str>)]) -> Visit {
    let mut agents = HashSet::new();
    let mut visitors = visitors.iter().map(|(seconds, address)| visitor(*seconds, *address));
    let mut visit = Visit::first(&visitors.next().unwrap(), &mut agents);
    visitors.for_each(|visitor| visit.note(&visitor, &mut agents));
    visit
}

/// Networks with the seconds in which they were seen first and last.
fn seen(visit: &Visit) -> Vec<(String, u64, u64)> {
    let seconds = |at: Timestamp| at.since(NOW).as_secs();
    let networks = visit.networks().into_iter();
    let mut seen: Vec<_> =
        networks.map(|seen| (seen.network.to_string(), seconds(seen.first), seconds(seen.last))).collect();
    seen.sort();
    seen
}

const A: Option<&str> = Some("192.0.2.1");
const A_TOO: Option<&str> = Some("192.0.2.9");
const B: Option<&str> = Some("198.51.100.1");

#[test]
fn a_key_that_stays_in_one_network_needs_nothing_more() {
    let stays = visit(&[(1, A), (2, A_TOO), (5, A)]);
    assert!(stays.more.is_none());
    assert_eq!(seen(&stays), [("192.0.2.0/24".to_owned(), 1, 5)]);
    assert_eq!(seen(&visit(&[(1, None), (2, None)])), []);
}

#[test]
fn a_key_that_moves_is_seen_in_each_network_by_its_own_time() {
    let a = |first, last| ("192.0.2.0/24".to_owned(), first, last);
    let b = |first, last| ("198.51.100.0/24".to_owned(), first, last);
    assert_eq!(seen(&visit(&[(1, A), (3, B), (4, A_TOO), (6, B)])), [a(1, 4), b(3, 6)]);
    // A Unix socket is in no network, and takes none away.
    assert_eq!(seen(&visit(&[(1, A), (2, None), (3, None)])), [a(1, 1)]);
    assert_eq!(seen(&visit(&[(1, None), (2, A), (3, A)])), [a(2, 3)]);
    // A clock that goes back.
    assert_eq!(seen(&visit(&[(4, A), (2, A)])), [a(2, 4)]);
}

#[test]
fn what_several_workers_noted_is_one() {
    let a = |first, last| ("192.0.2.0/24".to_owned(), first, last);
    let b = |first, last| ("198.51.100.0/24".to_owned(), first, last);
    type Walk<'a> = &'a [(u64, Option<&'a str>)];
    type Seen<'a> = &'a [(String, u64, u64)];
    let cases: &[(Walk<'_>, Walk<'_>, Seen<'_>)] = &[
        (&[(1, A), (5, A)], &[(3, A), (9, A_TOO)], &[a(1, 9)]),
        (&[(5, A), (6, A)], &[(1, A), (2, A)], &[a(1, 6)]),
        (&[(1, A)], &[(2, B)], &[a(1, 1), b(2, 2)]),
        (&[(5, A), (6, A)], &[(1, A), (4, B), (7, A)], &[a(1, 7), b(4, 4)]),
        (&[(1, A), (4, B)], &[(5, A)], &[a(1, 5), b(4, 4)]),
        (&[(1, A)], &[(2, None)], &[a(1, 1)]),
        (&[(1, None)], &[(2, A)], &[a(2, 2)]),
        (&[(1, None)], &[(2, None)], &[]),
    ];
    for (one, other, expected) in cases {
        for (one, other) in [(one, other), (other, one)] {
            let mut sum = visit(one);
            sum.add(visit(other));
            assert_eq!(seen(&sum), *expected, "{one:?} and {other:?}");
            let last = one.iter().chain(*other).max_by_key(|(seconds, _)| seconds).unwrap();
            assert_eq!((sum.at, sum.address), (after(last.0), visitor(0, last.1).address), "{one:?} and {other:?}");
        }
    }
}

#[test]
fn keys_share_the_texts_of_their_clients() {
    let mut agents = HashSet::new();
    let (one, other) = (Agent::of(b"curl/8.0", &mut agents).unwrap(), Agent::of(b"curl/8.0", &mut agents).unwrap());
    assert!(Arc::ptr_eq(&one.0, &other.0));
    for number in 0..MAX_SHARED_AGENTS + 9 {
        assert_eq!(&**Agent::of(number.to_string().as_bytes(), &mut agents).unwrap().0, number.to_string().as_bytes());
    }
    assert_eq!(agents.len(), MAX_SHARED_AGENTS);
    assert!(Agent::of(b"", &mut agents).is_none());
}
