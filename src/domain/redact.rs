//! Keeping keys out of what is said and remembered: people paste a key where an id or a path belongs.

use std::borrow::Cow;

use super::key::KeyKind;
use super::key_text::{CHECKSUM_CHARS, PREFIX_CHARS, RANDOM_CHARS};

/// `text` with every word in the shape of a key, of whatever brand, cut after its public beginning. Borrows, after one
/// search for underscores, when nothing looks like a key.
pub fn without_keys(text: &str) -> Cow<'_, str> {
    if !has_kind(text.as_bytes()) {
        return Cow::Borrowed(text);
    }
    let mut kept = String::new();
    let mut done = 0;
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        let from = text.len() - rest.len() + start;
        let length = text[from..].find(|c| !is_word(c)).unwrap_or(text.len() - from);
        if let Some(public) = public_part(&text[from..from + length]) {
            kept.push_str(&text[done..from + public]);
            kept.push('…');
            done = from + length;
        }
        rest = &text[from + length..];
    }
    if done == 0 {
        return Cow::Borrowed(text);
    }
    kept.push_str(&text[done..]);
    Cow::Owned(kept)
}

/// The path of a request without keys, as [`without_keys`]: one that hides a key behind percent signs is decoded first.
pub fn path_without_keys(path: &str) -> Cow<'_, str> {
    if memchr::memchr(b'%', path.as_bytes()).is_none() {
        return without_keys(path);
    }
    let decoded = decode(path);
    match without_keys(&decoded) {
        Cow::Owned(kept) => Cow::Owned(kept),
        Cow::Borrowed(_) => without_keys(path),
    }
}

/// Every escape that stands for a byte of ASCII decoded (RFC 3986 §2.1); others stay as they are.
fn decode(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        let hex = rest.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok()).filter(u8::is_ascii);
        let length = match hex {
            Some(byte) => {
                decoded.push(char::from(byte));
                3
            }
            None => {
                decoded.push('%');
                1
            }
        };
        rest = &rest[at + length..];
    }
    decoded.push_str(rest);
    decoded
}

/// Whether a kind of key stands between underscores.
fn has_kind(text: &[u8]) -> bool {
    memchr::memchr_iter(b'_', text).any(|at| {
        text.get(at + 3) == Some(&b'_')
            && std::str::from_utf8(&text[at + 1..at + 3]).is_ok_and(|word| KeyKind::from_word(word).is_some())
    })
}

/// How much of a word may be shown, when the word is shaped like a key: `<brand>_<environment>_<kind>_<characters>`.
/// One that lost or gained some characters is as secret as a whole one.
fn public_part(word: &str) -> Option<usize> {
    let mut parts = word.rsplitn(3, '_');
    let (tail, kind) = (parts.next()?, parts.next()?);
    KeyKind::from_word(kind)?;
    let is_long = tail.len() >= (RANDOM_CHARS + CHECKSUM_CHARS) / 2;
    (is_long && parts.next()?.contains('_')).then(|| word.len() - tail.len() + PREFIX_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pasted_key_is_cut_after_its_public_beginning() {
        let key = "pc_live_sk_0123456789abcdefghijklmnopqrstuv012345";
        for (said, told) in [
            (format!("invalid value '{key}' for"), "invalid value 'pc_live_sk_01234567…' for"),
            (format!("{key} and {key}"), "pc_live_sk_01234567… and pc_live_sk_01234567…"),
            (format!("\u{1b}[33m{key}\u{1b}[0m"), "\u{1b}[33mpc_live_sk_01234567…\u{1b}[0m"),
            (key[..40].to_owned(), "pc_live_sk_01234567…"),
        ] {
            assert_eq!(without_keys(&said), told);
        }
    }

    #[test]
    fn a_key_in_a_path_is_found_behind_percent_signs_too() {
        let key = "pc_live_sk_0123456789abcdefghijklmnopqrstuv012345";
        for (path, kept) in [
            (format!("/v1/{key}/x"), "/v1/pc_live_sk_01234567…/x"),
            (format!("/v1/{}/x%2Fy", key.replace('_', "%5F")), "/v1/pc_live_sk_01234567…/x/y"),
            (format!("/%zz/{key}"), "/%zz/pc_live_sk_01234567…"),
            (key.replace("0123", "01%32%33"), "pc_live_sk_01234567…"),
        ] {
            assert_eq!(path_without_keys(&path), kept);
        }
        for path in ["/group%2Fproject/ü%", "/v1/my_sk_/%5f", "/"] {
            assert!(matches!(path_without_keys(path), Cow::Borrowed(same) if same == path), "{path}");
        }
    }

    #[test]
    fn other_words_are_left_alone() {
        let id = "key_01a1fd1254907612a399d07547f39c82 is no pc_live_sk_abc, nor read:orders, ünd so weiter";
        assert!(matches!(without_keys(id), Cow::Borrowed(text) if text == id));
    }
}
