//! Pieces of a log line, appended to a buffer: JSON (RFC 8259) and text.
//!
//! Owns escaping and number formats. Must not know which fields there are.

use std::fmt::Write as _;
use std::time::Duration;

use super::visible::{is_harmful, push_visible};

/// Appends `text` as a JSON string with its quotes (RFC 8259 §7).
///
/// Beyond what JSON demands, every character that could steer a terminal is escaped too, so that a JSON log may be
/// read with `cat`.
pub(super) fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    if text.bytes().all(|byte| JSON_PLAIN[usize::from(byte)]) {
        out.push_str(text);
    } else {
        push_json_escaped(out, text);
    }
    out.push('"');
}

/// The bytes that stand for themselves in a JSON string and in UTF-8: most texts consist of nothing else.
static JSON_PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x7f {
        plain[byte] = byte != b'"' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    plain
};

fn push_json_escaped(out: &mut String, text: &str) {
    let mut plain_from = 0;
    for (at, c) in text.char_indices() {
        if c != '"' && c != '\\' && !is_harmful(c) {
            continue;
        }
        out.push_str(&text[plain_from..at]);
        plain_from = at + c.len_utf8();
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Every harmful character lies in the basic plane, so one escape says it. Writing cannot fail.
            c => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
        }
    }
    out.push_str(&text[plain_from..]);
}

/// Appends `text` for a reader: as it is where it is one plain word, else in quotes and escaped.
pub(super) fn push_text_value(out: &mut String, text: &str) {
    let is_word = |c: char| !(c.is_whitespace() || matches!(c, '"' | '\\' | '=') || is_harmful(c));
    let is_plain = !text.is_empty() && text.chars().all(is_word);
    if is_plain {
        out.push_str(text);
        return;
    }
    out.push('"');
    let mut pieces = text.split('"');
    push_visible(out, pieces.next().unwrap_or_default());
    for piece in pieces {
        out.push_str("\\\"");
        push_visible(out, piece);
    }
    out.push('"');
}

/// Appends `number` in decimal.
pub(super) fn push_number(out: &mut String, number: u64) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] += (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    push_ascii(out, &digits[at..]);
}

/// Appends `number` below 1000 with three digits.
pub(super) fn push_three_digits(out: &mut String, number: u64) {
    let digit = |place: u64| b'0' + (number / place % 10) as u8;
    push_ascii(out, &[digit(100), digit(10), digit(1)]);
}

/// Appends `duration` in milliseconds with three decimals, rounded down to a microsecond.
pub(super) fn push_ms(out: &mut String, duration: Duration) {
    let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    push_number(out, us / 1000);
    out.push('.');
    push_three_digits(out, us % 1000);
}

/// Appends bytes that are ASCII by construction; others would be left out.
fn push_ascii(out: &mut String, ascii: &[u8]) {
    out.push_str(std::str::from_utf8(ascii).unwrap_or_default());
}
