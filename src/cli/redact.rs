//! Keeping keys out of what is said about a mistake: people paste a key where an id belongs, and logs keep the answer.

use std::borrow::Cow;

use crate::domain::KeyKind;
use crate::domain::key_text::{CHECKSUM_CHARS, PREFIX_CHARS, RANDOM_CHARS};

/// `text` with every word in the shape of a key, of whatever brand, cut after its public beginning.
pub(super) fn without_keys(text: &str) -> Cow<'_, str> {
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
    fn other_words_are_left_alone() {
        let id = "key_01a1fd1254907612a399d07547f39c82 is no pc_live_sk_abc, nor read:orders, ünd so weiter";
        assert!(matches!(without_keys(id), Cow::Borrowed(text) if text == id));
    }
}
