//! Where a caller stands, as header fields: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10
//! §3 and §4, structured fields of RFC 9651), and their three predecessors, which no document defines.

use super::meters::Standing;
use crate::domain::FieldLines;

/// Which fields answers carry where a limit applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LimitFields {
    /// `RateLimit-Policy` and `RateLimit`: every limit that applies.
    pub standard: bool,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`: the limit of which least is left. `-Reset` is in seconds from now.
    pub legacy: bool,
}

/// Adds what is left of each limit, in the order given; nothing where no limit applies.
///
/// The standard fields are lists: those of an upstream stay beside ours. Of the others there is one each: an upstream's
/// give way.
pub fn add_fields(lines: &mut FieldLines, standings: &[Standing], fields: LimitFields) {
    if standings.is_empty() {
        return;
    }
    if fields.standard {
        push_list(lines, b"ratelimit-policy", standings, |standing| {
            [(b";q=", standing.quota), (b";w=", u64::from(standing.window_seconds))]
        });
        push_list(lines, b"ratelimit", standings, |standing| {
            [(b";r=", standing.remaining), (b";t=", u64::from(standing.more_in_seconds))]
        });
    }
    // Of two that are equally used up, the one that takes longer.
    let least = |standing: &&Standing| (standing.remaining, u32::MAX - standing.more_in_seconds);
    if let (true, Some(least)) = (fields.legacy, standings.iter().min_by_key(least)) {
        for (name, number) in [
            ("x-ratelimit-limit", least.quota),
            ("x-ratelimit-remaining", least.remaining),
            ("x-ratelimit-reset", u64::from(least.more_in_seconds)),
        ] {
            lines.remove(name);
            lines.push_number(name.as_bytes(), number);
        }
    }
}

/// A list of strings with two integers each (RFC 9651 §3.1).
fn push_list(
    lines: &mut FieldLines,
    name: &[u8],
    standings: &[Standing],
    parameters: impl Fn(&Standing) -> [(&'static [u8; 3], u64); 2],
) {
    // The longest item is `"owner-month";q=…;w=…` with two numbers of at most 15 digits.
    let mut value = Vec::with_capacity(standings.len() * 56);
    for standing in standings {
        if !value.is_empty() {
            value.extend_from_slice(b", ");
        }
        value.push(b'"');
        value.extend_from_slice(standing.policy.name().as_bytes());
        value.push(b'"');
        for (name, number) in parameters(standing) {
            value.extend_from_slice(name);
            push_integer(&mut value, number);
        }
    }
    lines.push(name, &value);
}

/// Largest integer of a structured field (RFC 9651 §3.3.1).
const LARGEST_INTEGER: u64 = 999_999_999_999_999;

fn push_integer(value: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 15];
    let mut at = digits.len();
    let mut rest = number.min(LARGEST_INTEGER);
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    value.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Policy;

    fn standing(policy: Policy, quota: u64, window: u32, remaining: u64, more: u32) -> Standing {
        Standing { policy, quota, window_seconds: window, remaining, more_in_seconds: more }
    }

    fn lines(standings: &[Standing], standard: bool, legacy: bool) -> String {
        let mut lines = FieldLines::default();
        lines.push(b"X-RateLimit-Limit", b"7");
        add_fields(&mut lines, standings, LimitFields { standard, legacy });
        String::from_utf8(lines.into_memory()).unwrap()
    }

    #[test]
    fn every_limit_is_an_item_of_both_lists() {
        let standings = [
            standing(Policy::Key, 20, 2, 19, 1),
            standing(Policy::KeyDay, 1000, 86_400, 0, 3600),
            standing(Policy::OwnerMonth, u64::MAX, 2_678_400, 999_999_999_999_999, 0),
        ];
        assert_eq!(
            lines(&standings, true, false),
            "X-RateLimit-Limit: 7\r\n\
             ratelimit-policy: \"key\";q=20;w=2, \"key-day\";q=1000;w=86400, \
             \"owner-month\";q=999999999999999;w=2678400\r\n\
             ratelimit: \"key\";r=19;t=1, \"key-day\";r=0;t=3600, \"owner-month\";r=999999999999999;t=0\r\n"
        );
    }

    #[test]
    fn the_old_fields_tell_of_the_tightest_limit_alone_and_only_when_asked_for() {
        let standings = [
            standing(Policy::Key, 20, 2, 3, 1),
            standing(Policy::Route, 5, 1, 0, 1),
            standing(Policy::KeyDay, 1000, 86_400, 0, 3600),
        ];
        assert_eq!(
            lines(&standings, false, true),
            "x-ratelimit-limit: 1000\r\nx-ratelimit-remaining: 0\r\nx-ratelimit-reset: 3600\r\n"
        );
        assert_eq!(lines(&standings, false, false), "X-RateLimit-Limit: 7\r\n");
        assert_eq!(lines(&[], true, true), "X-RateLimit-Limit: 7\r\n");
    }
}
