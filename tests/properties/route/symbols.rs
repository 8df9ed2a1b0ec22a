//! A path as characters that are either themselves or still escaped, and what servers make of them.
//!
//! The oracle's own idea of a path: the code under test works on text.

/// One character of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Symbol {
    /// The character, as far as this reading has decoded it.
    Plain(char),
    /// An ASCII character that this reading leaves escaped. A kept `%2F` is one in every reading.
    Escaped(char),
}

use Symbol::{Escaped, Plain};

/// A path in normal form as it stands, or a pattern's text: characters beyond ASCII cannot stand unescaped.
pub(super) fn as_sent(text: &str) -> Vec<Symbol> {
    symbols(&bytes_of(text), |is_escaped, c| if is_escaped && c.is_ascii() { Escaped(c) } else { Plain(c) }).unwrap()
}

/// Every escape decoded, save `%2F`.
pub(super) fn decoded(sent: &[Symbol]) -> Vec<Symbol> {
    sent.iter()
        .map(|symbol| {
            if let Escaped(c) = *symbol
                && c != '/'
            {
                Plain(c)
            } else {
                *symbol
            }
        })
        .collect()
}

/// What decoding left decoded again; `None` where that is no text.
pub(super) fn decoded_again(once: &[Symbol]) -> Option<Vec<Symbol>> {
    let mut bytes = Vec::new();
    let mut rest = once;
    while let [first, tail @ ..] = rest {
        if let [Plain('%'), Plain(high), Plain(low), ..] = rest
            && let (Some(high), Some(low)) = (high.to_digit(16), low.to_digit(16))
        {
            bytes.push((false, u8::try_from(high * 16 + low).unwrap()));
            rest = &rest[3..];
            continue;
        }
        match first {
            Plain(c) => bytes.extend(c.to_string().bytes().map(|byte| (false, byte))),
            Escaped(_) => bytes.push((true, b'/')),
        }
        rest = tail;
    }
    symbols(&bytes, |is_escaped, c| if is_escaped { Escaped(c) } else { Plain(c) })
}

pub(super) fn without_parameters(path: &[Symbol]) -> Vec<Symbol> {
    let segments = path.split(|symbol| *symbol == Plain('/'));
    let bare = segments.map(|segment| segment.split(|symbol| *symbol == Plain(';')).next().unwrap());
    bare.collect::<Vec<_>>().join(&Plain('/'))
}

pub(super) fn cut(path: &[Symbol]) -> Vec<Symbol> {
    path.iter().copied().take_while(|symbol| !matches!(symbol, Plain('?' | '#'))).collect()
}

pub(super) fn folded(path: &[Symbol]) -> Vec<Symbol> {
    let fold = |symbol: &Symbol| match *symbol {
        Escaped(c) => vec![Escaped(c)],
        Plain(c @ '\u{ff01}'..='\u{ff5e}') => {
            vec![Plain(char::from_u32(c as u32 - 0xff01 + 0x21).unwrap().to_ascii_lowercase())]
        }
        Plain(c) => {
            let upper: String = c.to_lowercase().flat_map(char::to_uppercase).collect();
            upper.to_lowercase().chars().map(Plain).collect()
        }
    };
    path.iter().flat_map(fold).collect()
}

/// Bytes with whether they were escaped. A `%` that begins no escape stays.
fn bytes_of(text: &str) -> Vec<(bool, u8)> {
    let mut parts = text.split('%');
    let mut bytes: Vec<(bool, u8)> = parts.next().unwrap().bytes().map(|byte| (false, byte)).collect();
    for part in parts {
        bytes.push((true, u8::from_str_radix(&part[..2], 16).unwrap()));
        bytes.extend(part[2..].bytes().map(|byte| (false, byte)));
    }
    bytes
}

fn symbols(bytes: &[(bool, u8)], symbol: impl Fn(bool, char) -> Symbol) -> Option<Vec<Symbol>> {
    let text = String::from_utf8(bytes.iter().map(|(_, byte)| *byte).collect()).ok()?;
    Some(text.char_indices().map(|(at, c)| symbol(bytes[at].0, c)).collect())
}
