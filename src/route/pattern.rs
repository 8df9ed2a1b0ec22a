//! Path patterns, parsed once when a configuration is compiled.
//!
//! Owns what a pattern is, its canonical form and how two patterns compare. Must not know routes or hosts.

use std::fmt;
use std::ops::Range;

use super::bytes::{is_control, is_pchar, is_unreserved, read_escape};
use super::rules::TrailingSlash;

/// Longest pattern, in bytes. Also bounds how deep a table can be.
pub const MAX_PATTERN_BYTES: usize = 1024;

/// Why a text is no pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PatternError {
    /// What is wrong.
    pub problem: String,
    /// How to mend it.
    pub fix: String,
    /// Byte range in the pattern's text that the problem is about.
    pub at: Range<usize>,
}

impl PatternError {
    pub(super) fn new(at: Range<usize>, problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { problem: problem.into(), fix: fix.into(), at }
    }
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.problem, self.fix)
    }
}

impl std::error::Error for PatternError {}

/// A path pattern, segment by segment: text, `{param}` or `*` (one segment), and a final `**` (the rest).
///
/// Text is held to the normal form of request paths, so that every pattern can match.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct PathPattern {
    text: String,
    segments: Vec<Segment>,
    tail: Tail,
}

/// One segment of a pattern.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub(super) enum Segment {
    /// These bytes, in normal form.
    Text(String),
    /// Any one segment that is not empty.
    Param,
}

/// How a pattern ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub(super) enum Tail {
    /// `/**`: nothing, a slash, or anything below.
    Rest,
    /// With the last segment.
    End,
    /// With a slash behind the last segment.
    Slash,
}

impl PathPattern {
    /// Stands for a segment that may be anything.
    pub const INVENTED: &'static str = "/example";

    /// The shortest path that it matches, with an invented text for each segment that may be anything.
    pub fn sample(&self) -> String {
        let mut path = String::new();
        for segment in self.as_str().split('/').skip(1) {
            match segment {
                "**" => break,
                _ if segment == "*" || segment.starts_with('{') => path.push_str(Self::INVENTED),
                _ => {
                    path.push('/');
                    path.push_str(segment);
                }
            }
        }
        if path.is_empty() { "/".to_owned() } else { path }
    }

    /// Paths that it matches: the shortest, and where it covers the rest, longer ones.
    pub fn samples(&self) -> Vec<String> {
        let shortest = self.sample();
        if !self.as_str().ends_with("**") {
            return vec![shortest];
        }
        let longer = format!("{}{}", shortest.trim_end_matches('/'), Self::INVENTED);
        let longest = format!("{longer}{}", Self::INVENTED);
        vec![shortest, longer, longest]
    }

    /// Parses a path pattern.
    ///
    /// # Errors
    /// Whatever could never match a path in normal form, or looks like another product's pattern language.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if !text.starts_with('/') {
            let fix = format!("write `/{text}`");
            return Err(PatternError::new(0..text.len(), "a path pattern begins with a slash", fix));
        }
        if text.len() > MAX_PATTERN_BYTES {
            let problem = format!("a path pattern has at most {MAX_PATTERN_BYTES} bytes");
            return Err(PatternError::new(0..text.len(), problem, "use `{param}` or `**`"));
        }
        let mut segments = Vec::new();
        let mut tail = Tail::End;
        let mut start = 1;
        for segment in text[1..].split('/') {
            let at = start..start + segment.len();
            start = at.end + 1;
            let is_last = at.end == text.len();
            match segment {
                "" if text.len() == 1 => {}
                "" if is_last => tail = Tail::Slash,
                "**" if is_last => tail = Tail::Rest,
                _ => segments.push(parse_segment(segment, at)?),
            }
        }
        Ok(Self { text: text.to_owned(), segments, tail })
    }

    /// The text as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    pub(super) fn tail(&self) -> Tail {
        self.tail
    }

    /// The text segments.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Text(text) => Some(text.as_str()),
            Segment::Param => None,
        })
    }

    /// Whether both match the same paths: names of parameters tell nothing apart.
    pub fn ties_with(&self, other: &Self) -> bool {
        self.segments == other.segments && self.tail == other.tail
    }

    /// Whether every path that `other` matches is matched by this pattern too, as far as segments tell.
    ///
    /// Trailing slashes count; `path_rules` do not. For lint: a wide rule with a narrow one inside it.
    pub fn covers(&self, other: &Self) -> bool {
        let is_prefix = self.segments.len() <= other.segments.len()
            && self.segments.iter().zip(&other.segments).all(|(mine, theirs)| match mine {
                Segment::Param => true,
                Segment::Text(_) => mine == theirs,
            });
        match self.tail {
            Tail::Rest => is_prefix,
            Tail::End | Tail::Slash => {
                is_prefix && self.segments.len() == other.segments.len() && self.tail == other.tail
            }
        }
    }

    /// How well the pattern fits `path` (in normal form, without empty segments); `None`: it does not match.
    ///
    /// Greater is better. The slow twin of the table's walk, for explanations.
    pub(super) fn fit(&self, path: &str, trailing_slash: TrailingSlash) -> Option<PathFit> {
        let path = path.strip_prefix('/')?;
        let (path, has_slash) = path.strip_suffix('/').map_or((path, false), |path| (path, true));
        let mut rest = path.split('/').filter(|segment| !segment.is_empty());
        let mut steps = Vec::with_capacity(self.segments.len() + 1);
        for segment in &self.segments {
            let given = rest.next()?;
            match segment {
                Segment::Text(text) if text == given => steps.push(Step::Text),
                Segment::Text(_) => return None,
                Segment::Param => steps.push(Step::Param),
            }
        }
        let is_whole = rest.next().is_none();
        steps.push(match self.tail {
            Tail::Rest => Step::Rest,
            _ if !is_whole => return None,
            Tail::End if !has_slash => Step::Exact,
            Tail::Slash if has_slash => Step::Exact,
            Tail::End | Tail::Slash => match trailing_slash {
                TrailingSlash::Either => Step::EitherSlash,
                TrailingSlash::Exact => return None,
            },
        });
        Some(PathFit(steps))
    }
}

/// How one pattern fits one path: better patterns compare greater.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct PathFit(Vec<Step>);

/// One step of a fit, from worst to best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Step {
    Rest,
    EitherSlash,
    Exact,
    Param,
    Text,
}

fn parse_segment(segment: &str, at: Range<usize>) -> Result<Segment, PatternError> {
    let error = |problem: &str, fix: &str| Err(PatternError::new(at.clone(), problem, fix));
    match segment {
        "" => return error("an empty segment matches nothing", "write one slash"),
        "." | ".." => return error("dot segments are resolved before matching", "write the path they stand for"),
        "*" => return Ok(Segment::Param),
        "**" => return error("`**` stands last", "use `*` or `{param}` for one segment"),
        _ => {}
    }
    if let Some(name) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        return parse_param(name, at);
    }
    if segment.contains(['{', '}']) {
        return error("a parameter is a whole segment", "write `/{param}/`; text beside a parameter is not supported");
    }
    if segment.contains('*') {
        return error(
            "a `*` is a whole segment",
            "write `/*/` or `/{param}/` for one segment, a final `/**` for the rest",
        );
    }
    check_text(segment, at.start)?;
    Ok(Segment::Text(segment.to_owned()))
}

fn parse_param(name: &str, at: Range<usize>) -> Result<Segment, PatternError> {
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if is_name(name) {
        return Ok(Segment::Param);
    }
    let fix = if name.is_empty() {
        "write `*`, or a name between the braces"
    } else if name.starts_with('*') || name.ends_with('*') || name.ends_with("...") {
        "write a final `**` for the rest of the path"
    } else if name.contains(':') {
        "leave out what stands behind the colon: a parameter takes any one segment"
    } else {
        "use letters, digits, `_` and `-`"
    };
    Err(PatternError::new(at, format!("`{{{name}}}` is not a parameter"), fix))
}

/// Text must be what requests look like once they are normalised, or it would never match.
fn check_text(segment: &str, start: usize) -> Result<(), PatternError> {
    let bytes = segment.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            decoded.push(check_escape(&segment[at..], start + at)?);
            at += 3;
            continue;
        }
        // Of what is left only `char`s are sliced: every byte before `at` was ASCII.
        let Some(c) = segment[at..].chars().next() else { break };
        if !is_pchar(byte) {
            return Err(unescaped(c, start + at));
        }
        decoded.push(byte);
        at += 1;
    }
    let whole = start..start + segment.len();
    let behind_dots = segment.trim_start_matches('.');
    if segment.starts_with(';') || (behind_dots.len() != segment.len() && behind_dots.starts_with(['%', ';'])) {
        let problem = format!("requests with the segment `{segment}` are refused, so the pattern never matches");
        return Err(PatternError::new(whole, problem, "remove the route, or write another segment"));
    }
    match std::str::from_utf8(&decoded) {
        Ok(text) if text.contains(char::is_control) => {
            Err(PatternError::new(whole, "paths with control characters are refused", "remove the character"))
        }
        Ok(_) => Ok(()),
        Err(_) => Err(PatternError::new(whole, "the escapes are not UTF-8", "percent-encode the text's UTF-8 bytes")),
    }
}

/// The byte an escape stands for, when it is one that normalised paths can hold.
fn check_escape(text: &str, start: usize) -> Result<u8, PatternError> {
    let Some(byte) = read_escape(text.as_bytes()) else {
        let fix = "write two hexadecimal digits behind it, or `%25` for a percent sign";
        return Err(PatternError::new(start..start + 1, "a `%` begins an escape", fix));
    };
    let at = start..start + 3;
    let escape = &text[..3];
    let fix = match byte {
        _ if is_unreserved(byte) || is_pchar(byte) => format!("write `{}`", char::from(byte)),
        b'\\' => "write `/` between segments; paths with backslashes are refused".to_owned(),
        _ if is_control(byte) => "remove it; paths with control characters are refused".to_owned(),
        _ if escape.bytes().any(|b| b.is_ascii_lowercase()) => format!("write `{}`", escape.to_ascii_uppercase()),
        _ => return Ok(byte),
    };
    Err(PatternError::new(at, format!("`{escape}` is not how a path in normal form has it"), fix))
}

fn unescaped(c: char, at: usize) -> PatternError {
    let range = at..at + c.len_utf8();
    let (problem, fix) = match c {
        '?' => ("the query is not matched".to_owned(), "write the path alone".to_owned()),
        '#' => ("fragments are never sent".to_owned(), "write the path alone".to_owned()),
        '\\' => ("paths with backslashes are refused".to_owned(), "write `/` between segments".to_owned()),
        _ if c.is_control() => {
            ("paths with control characters are refused".to_owned(), "remove the character".to_owned())
        }
        _ => {
            let escaped = super::bytes::escape(c.to_string().as_bytes());
            (format!("{c:?} cannot stand unescaped in a path (RFC 3986 §3.3)"), format!("write `{escaped}`"))
        }
    };
    PatternError::new(range, problem, fix)
}

#[cfg(test)]
#[path = "pattern_tests.rs"]
mod tests;
