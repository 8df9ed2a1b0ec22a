//! The path of a request in normal form, and what in it deserves a second look.
//!
//! Owns the contract's *Paths* up to the point where a route is needed to decide. Must not know routes.
//! Start at [`NormalizedPath::parse`].

use std::borrow::Cow;

use super::bad_path::BadPath;
use super::bytes::{is_control, is_pchar, is_unreserved, push_escape, read_escape};

/// A request path in normal form: the bytes that are matched are the bytes that are forwarded.
///
/// Unreserved characters are decoded, the remaining escapes are in upper case, dot segments are resolved
/// (RFC 3986 §6.2.2). `%2F` and empty segments are still there: only the route can say whether it allows them.
/// Parsing the text again yields the same text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NormalizedPath<'a> {
    text: Cow<'a, str>,
    marks: Marks,
    changed: bool,
}

/// What a path holds that not every server reads alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Marks(u16);

impl Marks {
    /// An upper-case ASCII letter outside an escape.
    pub(super) const UPPER_CASE: Self = Self(1);
    /// A `;`.
    pub(super) const PARAMETERS: Self = Self(1 << 1);
    /// An unescaped byte that RFC 3986 does not allow in a path, such as `"` or `[`.
    pub(super) const UNUSUAL: Self = Self(1 << 2);
    /// An escape that is left in normal form.
    pub(super) const ESCAPE: Self = Self(1 << 3);
    /// `%2F`.
    pub(super) const ENCODED_SLASH: Self = Self(1 << 8);
    /// `//`.
    pub(super) const EMPTY_SEGMENT: Self = Self(1 << 9);

    /// Nothing.
    pub(super) const NONE: Self = Self(0);

    /// Everything that takes more than folding to read differently.
    pub(super) const BEYOND_CASE: Self = Self(Self::PARAMETERS.0 | Self::UNUSUAL.0 | Self::ESCAPE.0);

    /// The marks of `text`, whose escapes are whole and in upper case.
    pub(super) fn of(text: &str) -> Self {
        let bytes = text.as_bytes();
        let mut seen = 0;
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            seen |= CLASSES[usize::from(byte)] & !(SLASH | DOT | ELSEWHERE);
            // The digits of an escape are no letters of the path.
            at += if byte == b'%' { 3 } else { 1 };
        }
        let marks = Self(seen).with(Self::ENCODED_SLASH, text.contains("%2F"));
        marks.with(Self::EMPTY_SEGMENT, text.contains("//"))
    }

    /// Whether any of `other` is set.
    pub(super) const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    const fn with(self, other: Self, is_set: bool) -> Self {
        if is_set { Self(self.0 | other.0) } else { self }
    }
}

/// A byte's marks, and what the one scan must know beside them.
const CLASSES: [u16; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "the loop ends at 255")]
        let b = byte as u8;
        classes[byte] = match b {
            b'/' => SLASH,
            b'.' => DOT,
            b';' => Marks::PARAMETERS.0,
            b'%' => ELSEWHERE | Marks::ESCAPE.0,
            b'A'..=b'Z' => Marks::UPPER_CASE.0,
            b'#' | b'?' | b'\\' => ELSEWHERE,
            _ if is_pchar(b) => 0,
            b'!'..=b'~' => Marks::UNUSUAL.0,
            _ => ELSEWHERE,
        };
        byte += 1;
    }
    classes
};
const SLASH: u16 = 1 << 15;
const DOT: u16 = 1 << 14;
/// The fast scan cannot judge this byte.
const ELSEWHERE: u16 = 1 << 13;

impl<'a> NormalizedPath<'a> {
    /// Reads the path part of a request target (no query).
    ///
    /// A path that needs no second look costs one scan and no allocation. O(n).
    ///
    /// # Errors
    /// Everything the contract refuses whatever the route: see the variants of [`BadPath`].
    pub fn parse(raw: &'a str) -> Result<Self, BadPath> {
        let Some(rest) = raw.as_bytes().strip_prefix(b"/") else { return Err(BadPath::NotAbsolute) };
        let mut seen = 0;
        // What stands right behind a slash: there, a slash is an empty segment, a dot may be a dot segment, and a
        // `;` leaves its segment empty.
        let mut seen_behind_slash = 0;
        let mut is_behind_slash = true;
        for byte in rest {
            let class = CLASSES[usize::from(*byte)];
            seen |= class;
            seen_behind_slash |= if is_behind_slash { class } else { 0 };
            is_behind_slash = class & SLASH != 0;
        }
        let has_odd_segment = seen_behind_slash & (SLASH | DOT | Marks::PARAMETERS.0) != 0;
        if seen & ELSEWHERE != 0 || has_odd_segment {
            return Self::normalize(raw);
        }
        Ok(Self { text: Cow::Borrowed(raw), marks: Marks(seen & !(SLASH | DOT)), changed: false })
    }

    #[cold]
    fn normalize(raw: &'a str) -> Result<Self, BadPath> {
        let text = resolve_dot_segments(&decode_unreserved(raw.as_bytes())?)?;
        let marks = Marks::of(&text);
        let changed = text != raw;
        let text = if changed { Cow::Owned(text) } else { Cow::Borrowed(raw) };
        Ok(Self { text, marks, changed })
    }

    /// The path.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the path was not in normal form.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    pub(super) fn marks(&self) -> Marks {
        self.marks
    }
}

/// `raw` with the escapes of unreserved characters decoded and the digits of all others in upper case.
fn decode_unreserved(raw: &[u8]) -> Result<String, BadPath> {
    let mut out = String::with_capacity(raw.len());
    let mut decoded = Vec::new();
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        if byte != b'%' {
            check_unescaped(byte)?;
            decoded.push(byte);
            out.push(char::from(byte));
            at += 1;
            continue;
        }
        let byte = read_escape(&raw[at..]).ok_or(BadPath::BrokenEscape)?;
        match byte {
            b'\\' => return Err(BadPath::Backslash),
            _ if is_control(byte) => return Err(BadPath::ControlCharacter),
            _ if is_unreserved(byte) => out.push(char::from(byte)),
            _ => push_escape(&mut out, byte),
        }
        decoded.push(byte);
        at += 3;
    }
    if decoded.is_ascii() {
        return Ok(out);
    }
    let decoded = std::str::from_utf8(&decoded).map_err(|_| BadPath::NotUtf8)?;
    // C1 controls take two bytes, so that the loop above does not see them.
    if decoded.contains(char::is_control) {
        return Err(BadPath::ControlCharacter);
    }
    Ok(out)
}

fn check_unescaped(byte: u8) -> Result<(), BadPath> {
    match byte {
        b'#' => Err(BadPath::Fragment),
        b'?' => Err(BadPath::Query),
        b'\\' => Err(BadPath::Backslash),
        _ if is_control(byte) => Err(BadPath::ControlCharacter),
        b'!'..=b'~' => Ok(()),
        _ => Err(BadPath::UnescapedByte),
    }
}

/// `remove_dot_segments` of RFC 3986 §5.2.4, except that nothing is clipped at the root.
fn resolve_dot_segments(path: &str) -> Result<String, BadPath> {
    let mut out = String::with_capacity(path.len());
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." => {}
            ".." => leave_segment(&mut out)?,
            _ => {
                check_segment(segment)?;
                out.push('/');
                out.push_str(segment);
                continue;
            }
        }
        if segments.peek().is_none() {
            out.push('/');
        }
    }
    Ok(out)
}

fn leave_segment(out: &mut String) -> Result<(), BadPath> {
    let Some(start) = out.rfind('/') else { return Err(BadPath::AboveRoot) };
    if start + 1 == out.len() {
        return Err(BadPath::ParentOfEmptySegment);
    }
    out.truncate(start);
    Ok(())
}

/// Segments that only some servers take for dot segments or for nothing at all.
fn check_segment(segment: &str) -> Result<(), BadPath> {
    if segment.starts_with(';') {
        return Err(BadPath::OnlyParameters);
    }
    let behind_dots = segment.trim_start_matches('.');
    if behind_dots.len() != segment.len() && behind_dots.starts_with(['%', ';']) {
        return Err(BadPath::DotsWithSuffix);
    }
    Ok(())
}

#[cfg(test)]
#[path = "path_tests.rs"]
mod tests;
