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

#[test]
fn everything_comes_back_as_it_came_with_what_each_visitor_said() {
    let long = [b'x'; MAX_AGENT_BYTES + 1];
    let agents: [Option<&[u8]>; 6] =
        [None, Some(b"curl/8.0"), Some(b"curl/8.0"), Some(b""), Some(&long), Some(b"curl/8.0")];
    let mut recent = Recent::default();
    let mut expected = Vec::new();
    for (number, agent) in (0..).zip(agents) {
        let (key, at) = (key(number), Timestamp::from_unix_ms(i64::from(number)));
        let (is_browser_leak, is_accepted) = (number % 2 == 0, number % 3 == 0);
        let address = (number != 4).then(|| std::net::IpAddr::from([192, 0, 2, number]));
        let came = Visitor { key, kind: KeyKind::Publishable, address, agent, is_browser_leak, is_accepted, at };
        let counted = Counted::new(key, RuleName::OTHER, Passage::Refused, at).answered(400 + u16::from(number));
        let said = agent.unwrap_or_default();
        let heard = Visitor { agent: Some(&said[..said.len().min(MAX_AGENT_BYTES)]), ..came };
        for event in [Event::Visit(came), Event::Use(key, at), Event::Count(counted, number.into())] {
            recent.push(event);
        }
        expected.extend([Event::Visit(heard), Event::Use(key, at), Event::Count(counted, number.into())]);
    }
    assert_eq!(format!("{:?}", recent.iter().collect::<Vec<_>>()), format!("{expected:?}"));
    assert_eq!(recent.keys().collect::<Vec<_>>(), (0..6).flat_map(|number| [key(number); 3]).collect::<Vec<_>>());
    recent.clear();
    assert_eq!((recent.iter().count(), recent.texts.len()), (0, 0));
}

#[test]
fn what_is_said_in_a_row_is_kept_once_and_everything_that_may_come_has_a_place() {
    let mut recent = Recent::default();
    while !recent.is_full() {
        recent.push(Event::Visit(visitor(1, Some(b"curl/8.0"))));
        recent.push(Event::Use(key(1), NOW));
    }
    assert_eq!(recent.texts, b"curl/8.0");
    recent.clear();
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
