//! What is told again is what was told.

use super::*;
use crate::domain::KeyKind;
use crate::store::Passage;
use crate::usage::RuleName;

const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_123);

fn key(number: u8) -> KeyId {
    KeyId::from_bytes([number; 16])
}

fn visitor(number: u8, agent: Option<&[u8]>) -> Visitor<'_> {
    Visitor {
        key: key(number),
        kind: KeyKind::Secret,
        address: Some("192.0.2.1".parse().unwrap()),
        agent,
        is_browser_leak: false,
        is_accepted: true,
        at: NOW,
    }
}

fn told(recent: &Recent) -> Vec<String> {
    let tell = |event: Event<'_>| match event {
        Event::Visit(visitor) => {
            format!("{} came with {}", visitor.key, String::from_utf8_lossy(visitor.agent.unwrap()))
        }
        Event::Use(key, _) => format!("{key} was used"),
        Event::Count(counted, requests) => format!("{requests} of {}", counted.key),
    };
    recent.iter().map(tell).collect()
}

#[test]
fn everything_comes_back_in_its_order_with_what_each_visitor_said() {
    let long = "x".repeat(MAX_AGENT_BYTES + 1);
    let agents = [None, Some("curl/8.0"), Some("curl/8.0"), Some(""), Some(&long), Some("curl/8.0")];
    let mut recent = Recent::default();
    let mut expected = Vec::new();
    for (number, agent) in (0..).zip(agents) {
        recent.push(Event::Visit(visitor(number, agent.map(str::as_bytes))));
        recent.push(Event::Use(key(number), NOW));
        recent.push(Event::Count(Counted::new(key(number), RuleName::OTHER, Passage::Allowed, NOW), 3));
        let said = agent.unwrap_or_default();
        expected.push(format!("{} came with {}", key(number), &said[..said.len().min(MAX_AGENT_BYTES)]));
        expected.push(format!("{} was used", key(number)));
        expected.push(format!("3 of {}", key(number)));
    }
    assert_eq!(told(&recent), expected);
    assert_eq!(recent.keys().collect::<Vec<_>>(), (0..6).flat_map(|number| [key(number); 3]).collect::<Vec<_>>());
    assert!(told(&recent.emptied()).is_empty());
}

#[test]
fn what_is_said_in_a_row_is_kept_once_and_everything_that_may_come_has_a_place() {
    let mut recent = Recent::default();
    while !recent.is_full() {
        recent.push(Event::Visit(visitor(1, Some(b"curl/8.0"))));
        recent.push(Event::Use(key(1), NOW));
    }
    assert_eq!(recent.texts, b"curl/8.0");
    let mut recent = recent.emptied();
    let agents = [[b'a'; MAX_AGENT_BYTES], [b'b'; MAX_AGENT_BYTES]];
    let mut turns = agents.iter().cycle();
    while !recent.is_full() {
        recent.push(Event::Visit(visitor(1, turns.next().map(|agent| &agent[..]))));
    }
    assert_eq!(recent.texts.len(), TOGETHER * MAX_AGENT_BYTES);
    for (event, agent) in recent.iter().zip(agents.iter().cycle()) {
        assert!(matches!(event, Event::Visit(visitor) if visitor.agent == Some(agent)));
    }
}
