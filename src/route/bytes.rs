//! The bytes of a path: which may stand unescaped, and how the others are written.
//!
//! Owns the character classes of RFC 3986 §2 and percent-encoding. Must not know segments or routes.

/// `unreserved` of RFC 3986 §2.3: an escape of one of these means the same as the byte itself.
pub(super) const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `pchar` of RFC 3986 §3.3 without its escapes: what may stand unescaped in a segment.
pub(super) const fn is_pchar(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@')
}

/// C0 and DEL.
pub(super) const fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

const fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// The byte that the escape at the beginning of `text` stands for; `None` where no whole escape begins.
pub(super) fn read_escape(text: &[u8]) -> Option<u8> {
    let [b'%', high, low, ..] = text else { return None };
    Some(hex_value(*high)? << 4 | hex_value(*low)?)
}

/// Appends `byte` as `%XX`, with upper-case digits (RFC 3986 §2.1).
pub(super) fn push_escape(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// Appends `byte` as it stands in a path in normal form: itself where it may stand unescaped, else its escape.
pub(super) fn push_byte(out: &mut String, byte: u8) {
    if is_pchar(byte) || byte == b'/' {
        out.push(char::from(byte));
    } else {
        push_escape(out, byte);
    }
}

/// `text` with every byte outside `pchar` and `/` escaped.
pub(super) fn escape(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text {
        push_byte(&mut out, *byte);
    }
    out
}
