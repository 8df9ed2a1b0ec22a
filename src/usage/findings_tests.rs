//! Whose findings find room.

use super::*;
use crate::domain::{KeyId, Timestamp, network_of};

const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_123);
const ONCE: FindingCount = FindingCount { requests: 1, first: NOW, last: NOW };

fn found(reason: &'static str, caller: FoundCaller) -> Found<'static> {
    Found { rule: RuleName::OTHER, reason, caller, missing: &[] }
}

fn key(number: u8) -> FoundCaller {
    FoundCaller::Key(KeyId::from_bytes([number; 16]))
}

fn network(number: usize) -> FoundCaller {
    FoundCaller::Network(network_of(format!("10.0.{number}.1").parse().unwrap()))
}

fn requests(findings: &Findings, found: &Found<'_>) -> u64 {
    findings.found.get(&found.to_name()).map_or(0, |count| count.requests)
}

#[test]
fn networks_beyond_the_bound_are_counted_together() {
    let mut findings = Findings::default();
    for number in 0..MAX_FOUND_NETWORKS + 3 {
        assert!(findings.add(&found("missing_credential", network(number)), ONCE, 1_000));
    }
    assert!(findings.add(&found("missing_credential", network(0)), ONCE, 1_000));
    assert!(findings.add(&found("unknown_key", network(99)), ONCE, 1_000));
    assert_eq!(findings.len(), MAX_FOUND_NETWORKS + 2);
    assert_eq!(requests(&findings, &found("missing_credential", FoundCaller::Other)), 3);
    assert_eq!(requests(&findings, &found("missing_credential", network(0))), 2);
}

#[test]
fn networks_take_no_room_of_keys_and_keys_none_of_networks() {
    let reasons = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut findings = Findings::default();
    for (number, reason) in reasons.into_iter().enumerate() {
        // Two by their network, two more together; the rest finds no room.
        assert_eq!(findings.add(&found(reason, network(number)), ONCE, 8), number < 4);
    }
    assert_eq!((findings.len(), findings.of_keys()), (4, 0));
    for number in 0..9 {
        assert_eq!(findings.add(&found("a", key(number)), ONCE, 8), number < 8);
    }
    assert_eq!((findings.len(), findings.of_keys()), (12, 8));
    assert!(findings.add(&found("d", network(50)), ONCE, 8));
    assert_eq!(requests(&findings, &found("d", FoundCaller::Other)), 2);
}
