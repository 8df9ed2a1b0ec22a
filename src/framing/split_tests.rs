//! Laws: however the network cuts the bytes, the verdict and what passes are the same.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::reading::{cut, read_answers, read_requests};
use super::{AnswerLimits, Asked, RequestLimits};

/// Whole requests and odd pieces of them; concatenations of these are near enough to HTTP to go deep.
const REQUEST_PARTS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
    "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: v\r\n\r\n",
    "GET http://a/d HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /e HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "POST /f HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
    "GET /w HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    "PUT /g HTTP/1.1\r\nhost: a\r\nx-long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n",
    "Content-Length: 4\r\n",
    "Transfer-Encoding: chunked\r\n",
    "GET /h HTTP/1.1\r\n",
    "\r\n",
    "0\r\n\r\n",
];

const ANSWER_PARTS: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.0 200\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "Content-Length: 4\r\n",
    "\r\n",
];

const ODD_BYTES: &[u8] = b"\r\n\0 \t:;,#/%\x7f\x800aA\"";

/// A change to one place of the bytes.
#[derive(Debug, Clone)]
enum Change {
    Replace(Index, u8),
    Insert(Index, u8),
    Remove(Index),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<Index>(), select(ODD_BYTES)).prop_map(|(at, byte)| Change::Replace(at, byte)),
        (any::<Index>(), select(ODD_BYTES)).prop_map(|(at, byte)| Change::Insert(at, byte)),
        any::<Index>().prop_map(Change::Remove),
    ]
}

/// Parts put together and then damaged in up to three places.
pub(super) fn damaged(parts: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    (vec(select(parts), 1..5), vec(change(), 0..4)).prop_map(|(parts, changes)| {
        let mut bytes = parts.concat().into_bytes();
        for change in changes {
            if bytes.is_empty() {
                break;
            }
            match change {
                Change::Replace(at, byte) => *at.get_mut(&mut bytes) = byte,
                Change::Insert(at, byte) => bytes.insert(at.index(bytes.len()), byte),
                Change::Remove(at) => drop(bytes.remove(at.index(bytes.len()))),
            }
        }
        bytes
    })
}

pub(super) fn damaged_requests() -> impl Strategy<Value = Vec<u8>> {
    damaged(REQUEST_PARTS)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cutting_requests_anywhere_changes_nothing(
        bytes in damaged_requests(),
        cuts in vec(0_usize..400, 0..6),
        room in 1_usize..200,
    ) {
        let limits = RequestLimits { head_bytes: 150, head_fields: 4, target_bytes: 40 };
        let whole = read_requests([bytes.clone()], 4096, limits);
        prop_assert!(bytes.starts_with(&whole.passed));
        prop_assert_eq!(read_requests(cut(&bytes, &cuts), room, limits), whole.clone());
        prop_assert_eq!(read_requests(bytes.iter().map(|byte| vec![*byte]), room, limits), whole);
    }

    #[test]
    fn cutting_answers_anywhere_changes_nothing(
        bytes in damaged(ANSWER_PARTS),
        cuts in vec(0_usize..200, 0..6),
        room in 1_usize..200,
        wants_upgrade in any::<bool>(),
        is_head in any::<bool>(),
    ) {
        let limits = AnswerLimits { head_bytes: 60, head_fields: 1, informational: 1 };
        let asked = Asked { is_head, wants_upgrade };
        let whole = read_answers([bytes.clone()], 4096, limits, asked);
        prop_assert!(bytes.starts_with(&whole.passed));
        prop_assert_eq!(read_answers(cut(&bytes, &cuts), room, limits, asked), whole.clone());
        prop_assert_eq!(read_answers(bytes.iter().map(|byte| vec![*byte]), room, limits, asked), whole);
    }
}
