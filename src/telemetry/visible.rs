//! Making text from outside harmless: control characters never reach a log or a terminal as they are.
//!
//! Owns what counts as harmful and how it is written instead. Must not know which texts come from outside: everything
//! that is logged passes through here.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether `c` could do something to a terminal or a reader instead of standing for itself: control characters
/// (C0, DEL, C1), line and paragraph separators, and characters that change the direction of the text around them.
pub(super) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// `text` with every harmful character written as an escape (`\n`, `\u{1b}`), and a backslash doubled, so that the
/// answer is one line, moves no cursor and can be read back. Borrows when there is nothing to do.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| c == '\\' || is_harmful(c)) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    push_visible(&mut escaped, text);
    Cow::Owned(escaped)
}

/// Appends [`visible`] text.
pub(super) fn push_visible(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if is_harmful(c) => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
}

/// `address` without the part that tells apart the people of one network: the last octet of IPv4 and the last 80 bits
/// of IPv6 become zero. An IPv4 address in IPv6 clothes (`::ffff:a.b.c.d`) is masked as IPv4.
pub fn mask_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}
