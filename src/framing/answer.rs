//! Answers of an upstream as a stream of bytes: which of them may pass, and where the first fault is.
//!
//! Pure: bytes and the request in flight in, a number out. The socket is the business of `answer_guard.rs`.

use super::chunked::{Chunked, Followed};
use super::fault::Fault;
use super::field::{BodyFields, Version};
use super::head::{Facts, Head, HeadLimits};
use super::octets::is_value;

/// Bounds of an upstream's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerLimits {
    /// Largest head in bytes, informational ones each for themselves. Default 64 KiB.
    pub head_bytes: usize,
    /// Most fields of a head. Default 100, which is hyper's default too.
    pub head_fields: usize,
    /// Most informational answers (1xx) to one request. Default 8.
    pub informational: u32,
}

impl Default for AnswerLimits {
    fn default() -> Self {
        Self { head_bytes: 64 * 1024, head_fields: 100, informational: 8 }
    }
}

/// What an answer is read by: the request it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) is_head: bool,
    pub(super) wants_upgrade: bool,
}

/// Where the reading of an upstream's bytes stands.
#[derive(Debug, Clone)]
pub(super) enum Stand {
    /// Between two answers, or within a head.
    Head(Head<AnswerFacts>),
    /// Within a body of known length.
    Counted(u64),
    /// Within a chunked body.
    Chunked(Chunked),
    /// Within a body that ends with the connection.
    UntilClose,
    /// HTTP is over.
    Tunnel,
    /// Nothing that comes can be believed.
    Broken(Fault),
}

/// The answers of one connection.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) stand: Stand,
    limits: HeadLimits,
    informational: u32,
    informational_limit: u32,
}

impl Answers {
    pub(super) fn new(limits: AnswerLimits) -> Self {
        let head = HeadLimits {
            bytes: limits.head_bytes,
            fields: limits.head_fields,
            start_line: (limits.head_bytes, Fault::HeadTooLarge),
        };
        Self {
            stand: Stand::Head(Head::default()),
            limits: head,
            informational: 0,
            informational_limit: limits.informational,
        }
    }

    /// How many of `bytes` may pass, from the first on; `asked` is the request in flight and becomes none behind the
    /// last byte of its answer.
    pub(super) fn advance(&mut self, bytes: &[u8], asked: &mut Option<Asked>) -> usize {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            match &mut self.stand {
                Stand::Head(_) if rest.is_empty() => return at,
                Stand::Head(head) => {
                    let Some(request) = *asked else {
                        self.stand = Stand::Broken(Fault::Unrequested);
                        return at;
                    };
                    let next = match head.advance(rest, &self.limits) {
                        Ok(None) => return at,
                        Ok(Some(len)) => head.facts.close(request).map(|next| (len, next)),
                        Err(fault) => Err(fault),
                    };
                    match next {
                        Ok((_, Next::Informational)) if self.informational == self.informational_limit => {
                            self.stand = Stand::Broken(Fault::TooManyInformational);
                            return at;
                        }
                        Ok((len, Next::Informational)) => {
                            at += len;
                            self.informational += 1;
                            self.stand = Stand::Head(Head::default());
                        }
                        Ok((len, Next::Body(body))) => {
                            at += len;
                            self.informational = 0;
                            self.stand = body;
                            if matches!(self.stand, Stand::Head(_) | Stand::Tunnel) {
                                *asked = None;
                            }
                        }
                        Err(fault) => {
                            self.stand = Stand::Broken(fault);
                            return at;
                        }
                    }
                }
                Stand::Counted(left) => {
                    let taken = (*left).min(rest.len() as u64);
                    *left -= taken;
                    // At most the length of a slice.
                    at += taken as usize;
                    if *left > 0 {
                        return at;
                    }
                    self.stand = Stand::Head(Head::default());
                    *asked = None;
                }
                Stand::Chunked(body) => {
                    let (taken, followed) = body.advance(rest);
                    at += taken;
                    match followed {
                        Followed::Unfinished => return at,
                        Followed::Finished => {
                            self.stand = Stand::Head(Head::default());
                            *asked = None;
                        }
                        Followed::Broken(fault) => {
                            self.stand = Stand::Broken(fault);
                            return at;
                        }
                    }
                }
                Stand::UntilClose | Stand::Tunnel => return bytes.len(),
                Stand::Broken(_) => return at,
            }
        }
    }
}

enum Next {
    Informational,
    Body(Stand),
}

/// What the lines of an answer's head said.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AnswerFacts {
    version: Version,
    status: u16,
    body: BodyFields,
}

impl Facts for AnswerFacts {
    const EMPTY_LINES: u8 = 0;

    fn may_begin_with(byte: u8) -> bool {
        byte == b'H'
    }

    fn broken_start_line(_begin: &[u8]) -> Fault {
        Fault::StatusLine
    }

    fn start_line(&mut self, line: &[u8], _at: usize) -> Result<(), Fault> {
        let (version, rest) = line.split_at_checked(b"HTTP/1.1".len()).ok_or(Fault::StatusLine)?;
        self.version = Version::parse(version).ok_or(Fault::StatusLine)?;
        let [b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', reason @ ..] = rest else {
            return Err(Fault::StatusLine);
        };
        // RFC 9112 §4 has a space even before an absent reason; servers forget it, and nothing is read differently.
        if !matches!(reason, [] | [b' ', ..]) || !reason.iter().all(|&byte| is_value(byte)) {
            return Err(Fault::StatusLine);
        }
        self.status = [a, b, c].iter().fold(0, |status, digit| status * 10 + u16::from(*digit - b'0'));
        Ok(())
    }

    #[inline]
    fn field(&mut self, name: &[u8], value: &[u8], _at: usize) -> Result<(), Fault> {
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => self.body.note_content_length(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                self.body.note_transfer_encoding(value, self.version)
            }
            _ => Ok(()),
        }
    }
}

impl AnswerFacts {
    /// What follows the head (RFC 9112 §6.3), now that it is whole.
    fn close(&self, request: Asked) -> Result<Next, Fault> {
        match self.status {
            101 if !request.wants_upgrade => Err(Fault::UnexpectedUpgrade),
            // RFC 9112 §6.1 and RFC 9110 §8.6: a server must send neither in a 1xx.
            100..=199 if self.body != BodyFields::default() => Err(Fault::UnexpectedBody),
            101 => Ok(Next::Body(Stand::Tunnel)),
            100..=199 => Ok(Next::Informational),
            204 | 304 => Ok(Next::Body(Stand::Head(Head::default()))),
            _ if request.is_head => Ok(Next::Body(Stand::Head(Head::default()))),
            _ => Ok(Next::Body(match (self.body.is_chunked, self.body.content_length) {
                (true, _) => Stand::Chunked(Chunked::default()),
                (false, Some(0)) => Stand::Head(Head::default()),
                (false, Some(length)) => Stand::Counted(length),
                (false, None) => Stand::UntilClose,
            })),
        }
    }
}
