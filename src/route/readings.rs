//! The ways in which servers read one and the same path.
//!
//! Owns the transformations. Must not know routes: the table looks every reading up.
//! Start at [`of`].

use super::bad_path::{BadPath, Reading};
use super::bytes::{escape, is_control, push_byte, push_escape, read_escape};

/// Stands for a `%2F` that the route keeps as data. Decoding refuses control characters, so nothing else yields it.
const KEPT_SLASH: u8 = 0;

/// Every reading of `text` (a path in normal form) other than itself, each text once, before folding.
///
/// Let *d* decode every escape (a `%` that begins none stays; `%2F` in `text` itself stays data, because the route
/// that matched keeps it), *s* remove everything from a `;` to the end of its segment, and *c* cut at the first `?`
/// or `#`. The readings are s, d, sd, ds, cd, and with a second decoding dd, sdd, dsd, dds, cdd (the rightmost
/// first), written as paths in normal form again. Dot segments are resolved, and also left, by whoever looks up.
///
/// # Errors
/// [`BadPath::ReadDifferently`] where decoding yields a control character.
pub(super) fn of(text: &str) -> Result<Vec<(Reading, String)>, BadPath> {
    let mut found = Found { text, readings: Vec::new() };
    let sent = text.as_bytes();
    let stripped = strip(sent);
    if let Some(stripped) = &stripped {
        // Still in normal form, and so written as it is.
        found.push(Reading::WithoutParameters, String::from_utf8_lossy(stripped).into_owned());
    }

    let once = decode(sent, Slash::Kept, Reading::DecodedOnce)?;
    let stripped_once =
        stripped.map(|stripped| decode(&stripped, Slash::Kept, Reading::WithoutParameters)).transpose()?;
    let once_stripped = strip(&once);
    found.push(Reading::DecodedOnce, escape_kept(&once));
    found.push_all(Reading::WithoutParameters, [&once_stripped, &stripped_once]);
    found.push_all(Reading::CutAtDelimiter, [&cut(&once)]);

    if once.contains(&b'%') {
        let twice = decode(&once, Slash::Decoded, Reading::DecodedTwice)?;
        let again = |text: Option<Vec<u8>>| {
            text.map(|text| decode(&text, Slash::Decoded, Reading::WithoutParameters)).transpose()
        };
        found.push(Reading::DecodedTwice, escape_kept(&twice));
        found.push_all(Reading::WithoutParameters, [&strip(&twice), &again(once_stripped)?, &again(stripped_once)?]);
        found.push_all(Reading::CutAtDelimiter, [&cut(&twice)]);
    }
    Ok(found.readings)
}

struct Found<'a> {
    text: &'a str,
    readings: Vec<(Reading, String)>,
}

impl Found<'_> {
    fn push(&mut self, reading: Reading, text: String) {
        if text != self.text && self.readings.iter().all(|(_, known)| *known != text) {
            self.readings.push((reading, text));
        }
    }

    fn push_all<const N: usize>(&mut self, reading: Reading, texts: [&Option<Vec<u8>>; N]) {
        for text in texts.into_iter().flatten() {
            self.push(reading, escape_kept(text));
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slash {
    Kept,
    Decoded,
}

fn decode(text: &[u8], slash: Slash, reading: Reading) -> Result<Vec<u8>, BadPath> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let Some(decoded) = read_escape(&text[at..]) else {
            out.push(byte);
            at += 1;
            continue;
        };
        if is_control(decoded) {
            return Err(BadPath::ReadDifferently(reading));
        }
        out.push(if decoded == b'/' && slash == Slash::Kept { KEPT_SLASH } else { decoded });
        at += 3;
    }
    Ok(out)
}

/// `None` where there is nothing to remove.
fn strip(text: &[u8]) -> Option<Vec<u8>> {
    if !text.contains(&b';') {
        return None;
    }
    let mut out = Vec::with_capacity(text.len());
    let mut is_parameter = false;
    for &byte in text {
        is_parameter = byte != b'/' && (is_parameter || byte == b';');
        if !is_parameter {
            out.push(byte);
        }
    }
    Some(out)
}

fn cut(text: &[u8]) -> Option<Vec<u8>> {
    text.iter().position(|b| matches!(b, b'?' | b'#')).map(|end| text[..end].to_vec())
}

fn escape_kept(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for part in text.split_inclusive(|byte| *byte == KEPT_SLASH) {
        match part.strip_suffix(&[KEPT_SLASH]) {
            Some(part) => {
                out.push_str(&escape(part));
                push_escape(&mut out, b'/');
            }
            None => out.push_str(&escape(part)),
        }
    }
    out
}

/// `text` as servers see it that ignore case, or that take full-width forms for ASCII.
///
/// Case is folded by Unicode, down, up and down again, so that nothing is left that only one of the two would fold:
/// U+212A (the Kelvin sign) is a `k`, U+017F an `s`.
pub(super) fn fold(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match read_escape(&bytes[at..]) {
            None => {
                out.push(char::from(byte.to_ascii_lowercase()));
                at += 1;
            }
            Some(decoded) if decoded.is_ascii() => {
                push_escape(&mut out, decoded);
                at += 3;
            }
            Some(_) => {
                let run: Vec<u8> = wide_run(&bytes[at..]).collect();
                at += run.len() * 3;
                // Not UTF-8 is refused once the reading is parsed; until then it stays what it is.
                match std::str::from_utf8(&run) {
                    Ok(run) => run.chars().for_each(|c| push_folded(&mut out, c)),
                    Err(_) => run.iter().for_each(|byte| push_escape(&mut out, *byte)),
                }
            }
        }
    }
    out
}

/// The escapes of bytes beyond ASCII that `text` begins with.
fn wide_run(text: &[u8]) -> impl Iterator<Item = u8> {
    text.chunks(3).map_while(|escape| read_escape(escape).filter(|byte| !byte.is_ascii()))
}

fn push_folded(out: &mut String, c: char) {
    let c = match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        _ => c,
    };
    for c in c.to_lowercase().flat_map(char::to_uppercase).flat_map(char::to_lowercase) {
        let mut buffer = [0; 4];
        for byte in c.encode_utf8(&mut buffer).bytes() {
            push_byte(out, byte);
        }
    }
}

/// Whether a dot segment stands beside a kept `%2F`: the one thing that "slashes are data" must not hide.
pub(super) fn hides_dot_segment(text: &str) -> bool {
    let is_dots = |part: &str| matches!(part.split(';').next(), Some("." | ".."));
    let hides = |segment: &str| segment.contains("%2F") && segment.split("%2F").any(is_dots);
    text.contains("%2F") && text.split('/').any(hides)
}

#[cfg(test)]
#[path = "readings_tests.rs"]
mod tests;
