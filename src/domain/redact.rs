//! Keeping keys out of what is said and remembered: people paste a key where an id or a path belongs.

use std::borrow::Cow;

use super::key::KeyKind;
use super::key_text::{CHECKSUM_CHARS, PREFIX_CHARS, RANDOM_CHARS};

/// `text` with every word in the shape of a key, of whatever brand, cut after its public beginning. Borrows, after one
/// search for underscores, when nothing looks like a key.
pub fn without_keys(text: &str) -> Cow<'_, str> {
    if kinds(text.as_bytes()).next().is_none() {
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

/// Where kinds of keys stand between underscores: at the first of the two.
fn kinds(text: &[u8]) -> impl Iterator<Item = usize> {
    memchr::memchr_iter(b'_', text).filter(|at| {
        text.get(at + 3) == Some(&b'_')
            && std::str::from_utf8(&text[at + 1..at + 3]).is_ok_and(|word| KeyKind::from_word(word).is_some())
    })
}

/// How much of a word may be shown, when a part of it is shaped like a key: `<brand>_<environment>_<kind>_<characters>`.
/// One that lost or gained some characters is as secret as a whole one, and so is one in the midst of a word.
fn public_part(word: &str) -> Option<usize> {
    let first = word.find('_')?;
    // What is long enough behind a later kind stands behind the first one too.
    let tail = kinds(word.as_bytes()).find(|at| *at > first)? + 4;
    let is_long = |part: &str| part.len() >= (RANDOM_CHARS + CHECKSUM_CHARS) / 2;
    word[tail..].split('_').any(is_long).then_some(tail + PREFIX_CHARS)
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
            (format!("/nope/{key}_x/y"), "/nope/pc_live_sk_01234567…/y"),
            (format!("/nope/{key}_sk_"), "/nope/pc_live_sk_01234567…"),
            (format!("/nope/{key}_pk_x_mk_y"), "/nope/pc_live_sk_01234567…"),
            (format!("{key}_{key}"), "pc_live_sk_01234567…"),
            (format!("my_own_mk_{key}_x"), "my_own_mk_pc_live_…"),
            (format!("{}_{}", &key[..30], &key[30..]), "pc_live_sk_01234567…"),
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
        for text in [id, "/list_of_sk_accounts_and_their_pk_names", "my_sk_thing_", "_sk_"] {
            assert!(matches!(without_keys(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }
}
