//! Names are looked up beside requests, answers that fail change nothing, and connections are spread.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::domain::time::monotonic_now;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn known(addresses: &Addresses) -> Vec<SocketAddr> {
    match &*addresses.known.borrow() {
        Known::Addresses(all) => all.to_vec(),
        Known::Nothing | Known::Failed(_) => Vec::new(),
    }
}

#[test]
fn an_address_is_never_looked_up() {
    for (host, expected) in [("127.0.0.1", "127.0.0.1:80"), ("::1", "[::1]:80")] {
        let addresses = Addresses::new(host.to_owned(), 80);
        assert!(!addresses.is_name());
        assert_eq!(known(&addresses), [address(expected)]);
    }
    assert!(Addresses::new("shop.internal".to_owned(), 80).is_name());
}

#[test]
fn connections_begin_at_each_address_of_the_preferred_family_in_turn() {
    let all = ["10.0.0.1:80", "10.0.0.2:80", "[::1]:80", "10.0.0.3:80"].map(address);
    let firsts: Vec<_> = (0..6).map(|turn| in_turn(&all, turn)[0]).collect();
    let three = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"].map(address);
    assert_eq!(firsts, [three, three].concat());
    for turn in 0..6 {
        let order = in_turn(&all, turn);
        assert_eq!((order.len(), order[3]), (4, address("[::1]:80")));
    }
}

#[test]
fn a_failed_lookup_leaves_the_last_good_answer() {
    let addresses = Addresses::new("shop.internal".to_owned(), 80);
    let failure = || Err(io::Error::other("no server"));
    assert!(!addresses.learn(failure()));
    assert!(matches!(&*addresses.known.borrow(), Known::Failed(_)));
    assert!(addresses.learn(Ok(vec![address("10.0.0.1:80"), address("10.0.0.1:80")])));
    assert!(!addresses.learn(failure()));
    assert!(!addresses.learn(Ok(Vec::new())));
    assert_eq!(known(&addresses), [address("10.0.0.1:80")]);
    assert!(addresses.has(address("10.0.0.1:80")));
    assert!(addresses.learn(Ok(vec![address("10.0.0.2:80")])));
    assert!(!addresses.has(address("10.0.0.1:80")));
}

#[tokio::test]
async fn a_name_is_looked_up_again_sooner_when_asked_and_never_twice_at_once() {
    // Without being asked, once an hour.
    let addresses = Arc::new(Addresses::new("shop.internal".to_owned(), 80));
    let lookups = Arc::new(AtomicUsize::new(0));
    let is_busy = Arc::new(AtomicBool::new(false));
    let (kept, counted) = (Arc::clone(&addresses), Arc::clone(&lookups));
    let begun = monotonic_now();
    let looking = tokio::spawn(async move {
        kept.keep_looking(Duration::from_secs(3600), |host, port| {
            assert_eq!((host.as_str(), port), ("shop.internal", 80));
            let (counted, is_busy) = (Arc::clone(&counted), Arc::clone(&is_busy));
            async move {
                assert!(!is_busy.swap(true, Ordering::SeqCst));
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(100)).await;
                is_busy.store(false, Ordering::SeqCst);
                Ok(vec![address("10.0.0.1:80")])
            }
        })
        .await;
    });
    // Whoever connects before the first answer waits for it.
    assert_eq!(addresses.known().await.unwrap().len(), 1);
    assert!(begun.elapsed() >= Duration::from_millis(100));
    for _ in 0..10 {
        addresses.look_again();
    }
    while lookups.load(Ordering::SeqCst) < 2 {
        assert!(begun.elapsed() < Duration::from_secs(30), "nobody looks again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(begun.elapsed() >= PAUSE);
    tokio::time::sleep(PAUSE * 3 / 2).await;
    assert_eq!(lookups.load(Ordering::SeqCst), 2, "ten who ask are one");
    assert!(!looking.is_finished());
    looking.abort();
}

#[tokio::test]
async fn an_address_where_nobody_listens_costs_a_connection_nothing() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap();
    let closed = SocketAddr::new("127.0.0.2".parse().unwrap(), open.port());
    let addresses = Addresses::new("shop.internal".to_owned(), open.port());
    assert!(addresses.learn(Ok(vec![closed, open])));
    let mut led_to = BTreeMap::new();
    for _ in 0..10 {
        let (_stream, address) = addresses.connect(Duration::from_secs(5)).await.unwrap();
        *led_to.entry(address).or_insert(0) += 1;
    }
    assert_eq!(led_to, BTreeMap::from([(open, 10)]));
}
