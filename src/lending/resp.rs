//! The protocol of Redis and Valkey (RESP2), as far as four commands need it: commands written, answers read.
//!
//! Pure. Answers are bounded: what is longer or nested deeper than anything that is asked for is no answer.

/// Longest text in an answer.
const LONGEST_TEXT: usize = 64 * 1024;
/// Longest list in an answer.
const LONGEST_LIST: usize = 64;
/// Longest line that says what follows.
const LONGEST_LINE: usize = 4 * 1024;

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Reply {
    /// A text, of either sort; none where there is none.
    Text(Option<Vec<u8>>),
    /// What went wrong.
    Error(String),
    /// A number.
    Number(i64),
    /// A list of texts and numbers.
    List(Vec<Self>),
}

/// What came is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Malformed;

/// Writes one command.
pub(super) fn push_command(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// Reads the answer that `bytes` begin with, and how long it is; none when they end before it does.
///
/// # Errors
/// When they begin with none.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Reply, usize)>, Malformed> {
    let mut rest = bytes;
    let reply = value(&mut rest, Nested::Not)?;
    Ok(reply.map(|reply| (reply, bytes.len() - rest.len())))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Nested {
    Not,
    InList,
}

fn value(rest: &mut &[u8], nested: Nested) -> Result<Option<Reply>, Malformed> {
    let Some((sort, line)) = line(rest)? else { return Ok(None) };
    let text = || String::from_utf8_lossy(line).into_owned();
    let number = || std::str::from_utf8(line).ok().and_then(|text| text.parse::<i64>().ok()).ok_or(Malformed);
    Ok(Some(match sort {
        b'+' => Reply::Text(Some(line.to_vec())),
        b'-' => Reply::Error(text()),
        b':' => Reply::Number(number()?),
        b'$' => match number()? {
            -1 => Reply::Text(None),
            length => {
                let length = usize::try_from(length).ok().filter(|length| *length <= LONGEST_TEXT).ok_or(Malformed)?;
                let Some((text, behind)) = rest.split_at_checked(length + 2) else { return Ok(None) };
                let text = text.strip_suffix(b"\r\n").ok_or(Malformed)?;
                *rest = behind;
                Reply::Text(Some(text.to_vec()))
            }
        },
        b'*' if nested == Nested::Not => {
            let length = usize::try_from(number()?).ok().filter(|length| *length <= LONGEST_LIST).ok_or(Malformed)?;
            let mut list = Vec::with_capacity(length);
            for _ in 0..length {
                let Some(item) = value(rest, Nested::InList)? else { return Ok(None) };
                list.push(item);
            }
            Reply::List(list)
        }
        _ => return Err(Malformed),
    }))
}

/// Takes a line: its first byte, and the rest of it.
fn line<'a>(rest: &mut &'a [u8]) -> Result<Option<(u8, &'a [u8])>, Malformed> {
    let Some(end) = memchr::memchr(b'\n', &rest[..rest.len().min(LONGEST_LINE)]) else {
        return if rest.len() < LONGEST_LINE { Ok(None) } else { Err(Malformed) };
    };
    let (line, behind) = rest.split_at(end + 1);
    *rest = behind;
    match line.strip_suffix(b"\r\n").ok_or(Malformed)? {
        [sort, line @ ..] => Ok(Some((*sort, line))),
        [] => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reply() -> impl Strategy<Value = (Reply, Vec<u8>)> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
        let leaf = prop_oneof![
            "[ -~]{0,20}"
                .prop_map(|text| (Reply::Text(Some(text.clone().into())), format!("+{text}\r\n").into_bytes())),
            "[ -~]{0,20}".prop_map(|text| (Reply::Error(text.clone()), format!("-{text}\r\n").into_bytes())),
            any::<i64>().prop_map(|number| (Reply::Number(number), format!(":{number}\r\n").into_bytes())),
            bytes().prop_map(|text| {
                let written = [format!("${}\r\n", text.len()).as_bytes(), &text, b"\r\n"].concat();
                (Reply::Text(Some(text)), written)
            }),
            Just((Reply::Text(None), b"$-1\r\n".to_vec())),
        ];
        let list = proptest::collection::vec(leaf.clone(), 0..5).prop_map(|items| {
            let mut written = format!("*{}\r\n", items.len()).into_bytes();
            let (items, parts): (Vec<_>, Vec<_>) = items.into_iter().unzip();
            parts.iter().for_each(|part| written.extend_from_slice(part));
            (Reply::List(items), written)
        });
        prop_oneof![leaf, list]
    }

    proptest! {
        #[test]
        fn answers_are_read_as_they_are_written_and_not_before_they_end((reply, written) in reply(), more: Vec<u8>) {
            for end in 0..written.len() {
                prop_assert_eq!(read(&written[..end]), Ok(None), "{} of {:?}", end, written);
            }
            let followed = [written.as_slice(), &more].concat();
            prop_assert_eq!(read(&followed), Ok(Some((reply, written.len()))));
        }

        #[test]
        fn nothing_that_comes_makes_it_panic(bytes: Vec<u8>) {
            let _read = read(&bytes);
        }
    }

    #[test]
    fn what_is_too_long_or_too_deep_is_no_answer() {
        for bytes in
            ["$65537\r\n", "*65\r\n", "*1\r\n*1\r\n:1\r\n", "$-2\r\n", "\r\n", "?1\r\n", ":x\r\n", "+a\n", "$1\r\nabc"]
        {
            assert_eq!(read(bytes.as_bytes()), Err(Malformed), "{bytes}");
        }
        assert_eq!(read(&[b'+'; LONGEST_LINE]), Err(Malformed));
    }

    #[test]
    fn commands_are_lists_of_texts() {
        let mut out = Vec::new();
        push_command(&mut out, &[b"GET", b"a\r\nb"]);
        assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n");
    }
}
