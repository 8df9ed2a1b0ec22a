//! Reading answers as they arrive.

use std::fmt;

/// Largest head of an answer.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// One answer after the other on one connection. Answers have a `Content-Length`; nothing else is understood.
#[derive(Debug, Default)]
pub(crate) struct AnswerReader {
    /// Of a head that is not whole yet.
    head: Vec<u8>,
    /// Of a body that is not whole yet.
    body: Option<Body>,
}

#[derive(Debug, Clone, Copy)]
struct Body {
    left: usize,
    answer: Answer,
}

/// A whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// Whether the server closes the connection behind it.
    pub(crate) closes: bool,
}

/// Why bytes are no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAnAnswer {
    HeadTooLarge,
    StatusLine,
    NoContentLength,
    MoreThanAsked,
}

impl fmt::Display for NotAnAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeadTooLarge => "its head is larger than 8 KiB",
            Self::StatusLine => "it does not begin with HTTP/1.1 and a status",
            Self::NoContentLength => "it has no Content-Length",
            Self::MoreThanAsked => "there are bytes behind it that nobody asked for",
        })
    }
}

impl AnswerReader {
    /// Takes bytes that arrived; the answer once it is whole. One request is under way at a time.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) -> Result<Option<Answer>, NotAnAnswer> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => {
                let known = self.head.len();
                self.head.extend_from_slice(bytes);
                // The end may have begun in what was there before.
                let from = known.saturating_sub(3);
                let Some(at) = self.head[from..].windows(4).position(|window| window == b"\r\n\r\n") else {
                    return if self.head.len() > MAX_HEAD_BYTES { Err(NotAnAnswer::HeadTooLarge) } else { Ok(None) };
                };
                let len = from + at + 4;
                bytes = &bytes[len - known..];
                let body = read_head(&self.head[..len])?;
                self.head.clear();
                body
            }
        };
        body.left = body.left.checked_sub(bytes.len()).ok_or(NotAnAnswer::MoreThanAsked)?;
        if body.left == 0 {
            return Ok(Some(body.answer));
        }
        self.body = Some(body);
        Ok(None)
    }
}

fn read_head(head: &[u8]) -> Result<Body, NotAnAnswer> {
    let status =
        head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| number(rest.get(..3)?)).ok_or(NotAnAnswer::StatusLine)?;
    let status = u16::try_from(status).map_err(|_| NotAnAnswer::StatusLine)?;
    let mut left = None;
    let mut closes = false;
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            left = number(value);
        } else if name.eq_ignore_ascii_case(b"connection") {
            closes = value.eq_ignore_ascii_case(b"close");
        }
    }
    Ok(Body { left: left.ok_or(NotAnAnswer::NoContentLength)?, answer: Answer { status, closes } })
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 5\r\nConnection: close\r\n\r\nhello";
    const READ: Answer = Answer { status: 403, closes: true };

    #[test]
    fn an_answer_is_whole_at_its_last_byte_wherever_it_is_cut() {
        for cut in 1..ANSWER.len() {
            let mut reader = AnswerReader::default();
            assert_eq!(reader.take(&ANSWER[..cut]), Ok(None), "cut at {cut}");
            assert_eq!(reader.take(&ANSWER[cut..]), Ok(Some(READ)), "cut at {cut}");
        }
    }

    #[test]
    fn answers_follow_each_other() {
        let mut reader = AnswerReader::default();
        assert_eq!(reader.take(ANSWER), Ok(Some(READ)));
        let empty = Answer { status: 401, closes: false };
        assert_eq!(reader.take(b"HTTP/1.1 401 Unauthorized\r\nContent-Length:0\r\n\r\n"), Ok(Some(empty)));
        assert_eq!(reader.take(ANSWER), Ok(Some(READ)));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let cases: [(&[u8], NotAnAnswer); 3] = [
            (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", NotAnAnswer::StatusLine),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", NotAnAnswer::NoContentLength),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab", NotAnAnswer::MoreThanAsked),
        ];
        for (bytes, why) in cases {
            assert_eq!(AnswerReader::default().take(bytes), Err(why));
        }
        assert_eq!(AnswerReader::default().take(&[b'a'; 9_000]), Err(NotAnAnswer::HeadTooLarge));
    }
}
