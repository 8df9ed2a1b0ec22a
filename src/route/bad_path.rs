//! Why a path is refused before anyone asks who sent it.
//!
//! Owns the closed list of reasons and what the client is told. Must not know how a path is checked.

use std::fmt;

/// Why a request path has no single meaning. Answered with 400 `bad_path` (contract §4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum BadPath {
    /// It does not begin with `/`.
    NotAbsolute,
    /// A byte outside visible ASCII stands unescaped.
    UnescapedByte,
    /// A `#`; fragments are never sent (RFC 9110 §4.2.5).
    Fragment,
    /// A `?` in what was handed over as the path alone.
    Query,
    /// A backslash, plain or as `%5C`.
    Backslash,
    /// A control character, escaped or not.
    ControlCharacter,
    /// A `%` without two hexadecimal digits behind it.
    BrokenEscape,
    /// Escapes that are no UTF-8, overlong forms included.
    NotUtf8,
    /// `..` leads above the root.
    AboveRoot,
    /// `..` behind an empty segment: servers that merge slashes first go up elsewhere.
    ParentOfEmptySegment,
    /// A segment that is empty once its `;parameters` are gone.
    OnlyParameters,
    /// A segment of leading dots followed by an escape or a `;`.
    DotsWithSuffix,
    /// `%2F` on a route that does not keep it (`path_rules.encoded_slash`).
    EncodedSlash,
    /// `//` on a route that does not merge it (`path_rules.empty_segments`).
    EmptySegment,
    /// Not in normal form, on a route with `path_rules.normalize: refuse`.
    NotNormal,
    /// Some server reads the path as one that is refused, answers differently or leads elsewhere.
    ReadDifferently(Reading),
}

/// One way in which servers read the bytes of a path that this gateway forwards.
///
/// Every reading is taken of the normalised path and judged as if it had been asked for in its own right.
/// Where a server does several of these things, the variant names the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Reading {
    /// The path itself: an encoded slash that is kept as data has a dot segment beside it.
    AsSent,
    /// Every escape decoded.
    DecodedOnce,
    /// What the first decoding left decoded again.
    DecodedTwice,
    /// Everything from `;` to the end of its segment removed, before or after decoding.
    WithoutParameters,
    /// Cut where a decoded `?` or `#` stands.
    CutAtDelimiter,
    /// Upper case read as lower case, full-width forms as their ASCII counterparts.
    Folded,
}

impl BadPath {
    /// What the client is told: what is wrong and what to send instead.
    pub const fn detail(self) -> &'static str {
        match self {
            Self::NotAbsolute => "The path must begin with a slash.",
            Self::UnescapedByte => {
                "The path holds a byte outside visible ASCII; send it percent-encoded (RFC 3986 section 2.1)."
            }
            Self::Fragment => "The request target holds a `#`; send it as `%23`, or leave the fragment out.",
            Self::Query => "The path holds a `?`; send it as `%3F`.",
            Self::Backslash => "The path holds a backslash, plain or as `%5C`; use `/` between segments.",
            Self::ControlCharacter => "The path holds a control character, plain or percent-encoded; remove it.",
            Self::BrokenEscape => {
                "The path holds a `%` that is not followed by two hexadecimal digits; send a percent sign as `%25`."
            }
            Self::NotUtf8 => "The percent-encoded bytes of the path are not UTF-8.",
            Self::AboveRoot => "The path leads above the root with `..`; send the path it stands for.",
            Self::ParentOfEmptySegment => "The path holds `..` behind an empty segment; send the path it stands for.",
            Self::OnlyParameters => "The path holds a segment that consists of `;parameters` alone.",
            Self::DotsWithSuffix => {
                "The path holds a segment that begins with dots followed by `;` or a percent-encoded character."
            }
            Self::EncodedSlash => "The path holds an encoded slash (`%2F`), which is not accepted here.",
            Self::EmptySegment => "The path holds an empty segment (`//`); send a single slash.",
            Self::NotNormal => {
                "The path is not in normal form: resolve dot segments, decode unreserved characters and write \
                 escapes in upper case (RFC 3986 section 6.2.2)."
            }
            Self::ReadDifferently(reading) => reading.detail(),
        }
    }
}

impl Reading {
    const fn detail(self) -> &'static str {
        match self {
            Self::AsSent => "The path holds a dot segment beside an encoded slash (`%2F`).",
            Self::DecodedOnce => {
                "The path means something else once its percent-encoded characters are decoded; send characters \
                 that need no encoding as they are."
            }
            Self::DecodedTwice => "The path is encoded twice and means something else once it is decoded twice.",
            Self::WithoutParameters => "The path means something else without its `;parameters`.",
            Self::CutAtDelimiter => "The path means something else to a server that decodes `%3F` or `%23` early.",
            Self::Folded => "The path means something else to a server that ignores case; send it in its usual case.",
        }
    }
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.detail())
    }
}

impl std::error::Error for BadPath {}
