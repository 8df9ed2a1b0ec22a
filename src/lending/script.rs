//! The script that lends: what it is called with, and what it answers.

use super::resp::{Reply, push_command};
use crate::limit::{Ask, Grant};

/// Its text.
pub(super) const TEXT: &str = include_str!("script.lua");

/// Writes a call for the meter under `key`; `sha` is what the server knows the script by.
pub(super) fn push_call(out: &mut Vec<u8>, sha: &[u8], key: &[u8], ask: &Ask) {
    let Ask { gcra, want, in_hand, owed, back, missing_ns } = *ask;
    let numbers =
        [gcra.interval_ns(), gcra.fill_ns(), want.into(), in_hand.into(), owed.into(), back.into(), missing_ns];
    let texts = numbers.map(|number| number.to_string());
    let mut words: Vec<&[u8]> = vec![b"EVALSHA", sha, b"1", key];
    words.extend(texts.iter().map(String::as_bytes));
    push_command(out, &words);
}

/// What it answers; none where it is no answer of the script.
pub(super) fn grant(reply: &Reply) -> Option<Grant> {
    let Reply::List(items) = reply else { return None };
    let [Reply::Number(tokens), Reply::Number(missing_ns)] = items[..] else { return None };
    Some(Grant { tokens: u32::try_from(tokens).ok()?, missing_ns: u64::try_from(missing_ns).ok()? })
}
