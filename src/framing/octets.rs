//! Which bytes may stand where, as tables, and the few loops over them.

/// Bytes of a token (RFC 9110 §5.6.2): field names, methods.
const TOKEN: u8 = 1;
/// Bytes of a path that `http::Uri` takes as they are.
const PATH: u8 = 2;
/// Bytes of a query that `http::Uri` takes as they are.
const QUERY: u8 = 4;
/// Bytes of a host name: RFC 3986 `unreserved`. Underscores are met in the wild; percent signs and sub-delimiters are not.
const HOST: u8 = 8;
/// Bytes of a field value (RFC 9110 §5.5): everything but controls; tab is allowed.
const VALUE: u8 = 16;
/// Bytes of a chunk extension: as in a value, but ASCII only.
const EXTENSION: u8 = 32;

const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut at = 0;
    while at < 256 {
        let byte = at as u8;
        let mut class = 0;
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+')
            || matches!(byte, b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
        {
            class |= TOKEN;
        }
        if byte.is_ascii_graphic() && !matches!(byte, b'#' | b'<' | b'>' | b'`' | b'?') {
            class |= PATH;
        }
        if byte.is_ascii_graphic() && !matches!(byte, b'#' | b'<' | b'>' | b'"') {
            class |= QUERY;
        }
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            class |= HOST;
        }
        if byte == b'\t' || (byte >= b' ' && byte != 0x7f) {
            class |= VALUE;
            if byte < 0x80 {
                class |= EXTENSION;
            }
        }
        classes[at] = class;
        at += 1;
    }
    classes
};

const fn is(byte: u8, class: u8) -> bool {
    CLASSES[byte as usize] & class != 0
}

pub(super) const fn is_token(byte: u8) -> bool {
    is(byte, TOKEN)
}

pub(super) const fn is_value(byte: u8) -> bool {
    is(byte, VALUE)
}

pub(super) const fn is_extension(byte: u8) -> bool {
    is(byte, EXTENSION)
}

// Names and targets are looked at eight bytes at a time: half of what a byte at a time costs, and no `unsafe`. Within a
// word, the high bit of a byte is the answer for that byte.

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGHS: u64 = ONES * 0x80;

/// The eight bytes from `at` on, the first one lowest; none when there are fewer.
#[inline]
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Marks the bytes of `word`, all below 0x80, that lie between `low` and `high`.
#[inline]
const fn between(word: u64, low: u8, high: u8) -> u64 {
    (word + ONES * (0x80 - low) as u64) & !(word + ONES * (0x7f - high) as u64)
}

/// How many bytes at the beginning of `bytes` are in `class`; `sure` marks some of those in a word.
#[inline]
fn class_len(bytes: &[u8], class: u8, sure: impl Fn(u64) -> u64) -> usize {
    let mut at = 0;
    loop {
        if let Some(word) = word(bytes, at) {
            let unsure = !(sure(word & !HIGHS) & !word) & HIGHS;
            // A branch, so that the next load need not wait for this word's arithmetic.
            if unsure == 0 {
                at += 8;
                continue;
            }
            at += unsure.trailing_zeros() as usize / 8;
        }
        match bytes.get(at) {
            Some(&byte) if is(byte, class) => at += 1,
            _ => return at,
        }
    }
}

/// How many bytes at the beginning of `bytes` are token bytes.
#[inline]
pub(super) fn token_len(bytes: &[u8]) -> usize {
    class_len(bytes, TOKEN, |word| between(word | (ONES * 0x20), b'a', b'z') | between(word, b'-', b'-'))
}

/// Whether `bytes` is a path and perhaps a query as `http::Uri` reads them, with nothing it would cut off.
pub(super) fn is_path_and_query(bytes: &[u8]) -> bool {
    let path = class_len(bytes, PATH, sure_in_target);
    match bytes.get(path) {
        None => true,
        Some(b'?') => is_query(&bytes[path + 1..]),
        Some(_) => false,
    }
}

/// Whether these are a path and a query as they may stand in a request line (RFC 9112 §3.2.1), apart.
pub fn is_target(path: &[u8], query: Option<&[u8]>) -> bool {
    class_len(path, PATH, sure_in_target) == path.len() && query.is_none_or(is_query)
}

fn is_query(bytes: &[u8]) -> bool {
    class_len(bytes, QUERY, sure_in_target) == bytes.len()
}

/// Letters, and everything from the comma to the semicolon: dots, slashes, digits.
#[inline]
const fn sure_in_target(word: u64) -> u64 {
    between(word | (ONES * 0x20), b'a', b'z') | between(word, b',', b';')
}

/// How many bytes are looked at together for control bytes.
const BLOCK: usize = 64;

/// The places of the control bytes in some bytes, one after the other; tab is none, DEL is one.
///
/// Goes by blocks and not by lines: where the next block is does not depend on what was found, so that the processor can
/// work ahead, and the compiler makes vector code of it.
pub(super) struct Controls<'a> {
    bytes: &'a [u8],
    /// Begin of the block at hand, and which of its words comes next.
    at: usize,
    word: usize,
    /// For every byte of that block, whether it is a control byte: 0x80 or 0.
    block: [u8; BLOCK],
    /// Of the word before the next, what is still to be told.
    marks: u64,
}

impl<'a> Controls<'a> {
    /// Those from `at` on.
    #[inline]
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        let mut new = Self { bytes, at, word: 0, block: [0; BLOCK], marks: 0 };
        new.mark();
        new
    }

    #[inline]
    fn mark(&mut self) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let padded;
        let bytes = if let Some(bytes) = rest.first_chunk::<BLOCK>() {
            bytes
        } else {
            let mut tail = [b' '; BLOCK];
            tail[..rest.len()].copy_from_slice(rest);
            padded = tail;
            &padded
        };
        for (mark, &byte) in self.block.iter_mut().zip(bytes) {
            *mark = u8::from(((byte < b' ') & (byte != b'\t')) | (byte == 0x7f)) << 7;
        }
    }

    #[inline]
    pub(super) fn next(&mut self) -> Option<usize> {
        while self.marks == 0 {
            if self.word == BLOCK / 8 {
                self.at += BLOCK;
                if self.at >= self.bytes.len() {
                    return None;
                }
                self.word = 0;
                self.mark();
            }
            self.marks = word(&self.block, self.word * 8).unwrap_or_default();
            self.word += 1;
        }
        let at = self.at + (self.word - 1) * 8 + self.marks.trailing_zeros() as usize / 8;
        self.marks &= self.marks - 1;
        Some(at)
    }
}

/// `value` without the optional white space around it (RFC 9110 §5.6.3).
#[inline]
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Whether the comma-separated list `value` has the member `token`, in any case.
pub(super) fn lists(value: &[u8], token: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|member| trim(member).eq_ignore_ascii_case(token))
}

/// Whether `bytes` is a host name, an IPv4 address or a bracketed IPv6 address, and at most a port behind it
/// (RFC 9110 §7.2, without what no server needs: percent-encoding, sub-delimiters, an empty port).
pub fn is_authority(bytes: &[u8]) -> bool {
    let port = if let Some(rest) = bytes.strip_prefix(b"[") {
        let Some(close) = memchr::memchr(b']', rest) else { return false };
        let is_address = std::str::from_utf8(&rest[..close]).is_ok_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok());
        if !is_address {
            return false;
        }
        &rest[close + 1..]
    } else {
        let name = bytes.iter().position(|&byte| !is(byte, HOST)).unwrap_or(bytes.len());
        if name == 0 {
            return false;
        }
        &bytes[name..]
    };
    match port {
        [] => true,
        [b':', digits @ ..] => {
            digits.len() <= 5
                && digits.iter().all(u8::is_ascii_digit)
                && number(digits).is_some_and(|port| port <= u64::from(u16::MAX))
        }
        _ => false,
    }
}

/// The decimal number `digits`; none when empty, when a byte is no digit, or at 2^63 and above.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    // 19 digits cannot overflow 64 bits; the sign bit is left to whoever reads lengths as signed.
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let mut value: u64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + u64::from(digit - b'0');
    }
    (value <= i64::MAX.unsigned_abs()).then_some(value)
}
