//! Heads of an upstream's answers: what is checked in one, and what it says (RFC 9112 §4, §6.3).

use std::ops::Range;

use super::body::Body;
use super::fault::Fault;
use super::field::{BodyFields, ConnectionFields, Version};
use super::head::{Facts, Head, HeadLimits};
use super::octets::is_value;
use crate::domain::fields::{FieldTable, Known};

/// Bounds of an upstream's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerLimits {
    /// Largest head in bytes, informational ones each for themselves. Default 64 KiB.
    pub head_bytes: usize,
    /// Most fields of a head. Default 100.
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
pub struct Asked {
    /// Whether it was a HEAD: no answer to one has a body (RFC 9110 §9.3.2).
    pub is_head: bool,
    /// Whether it asked to switch protocols: a 101 is a fault otherwise.
    pub wants_upgrade: bool,
}

/// The head of an answer that was read whole. All places are offsets from its first byte.
#[derive(Debug)]
pub struct AnswerRead {
    /// Its length in bytes, the empty line included.
    pub len: usize,
    /// Its status: 101, or 200 to 999.
    pub status: u16,
    /// Where the reason phrase stands; empty where there is none.
    pub reason: Range<usize>,
    /// The body that follows.
    pub body: Body,
    /// What it says about the length of the body that a GET would have got.
    pub content_length: Option<u64>,
    /// Whether the upstream goes on using the connection behind this answer (RFC 9112 §9.3).
    pub persists: bool,
}

/// Reads the heads of an upstream's answers, one after the other; informational ones are skipped and counted.
#[derive(Debug)]
pub struct AnswerHeads {
    head: Head<AnswerFacts>,
    limits: HeadLimits,
    informational: u32,
    informational_limit: u32,
}

/// What came of reading.
#[derive(Debug)]
pub enum AnswerStep {
    /// The head is not whole.
    Unfinished,
    /// An informational answer of so many bytes; whoever waits goes on waiting.
    Informational(usize),
    /// The answer.
    Final(AnswerRead),
}

impl AnswerHeads {
    /// Reads heads within `limits`.
    pub fn new(limits: AnswerLimits) -> Self {
        let head = HeadLimits {
            bytes: limits.head_bytes,
            fields: limits.head_fields,
            start_line: (limits.head_bytes, Fault::HeadTooLarge),
        };
        Self { head: Head::default(), limits: head, informational: 0, informational_limit: limits.informational }
    }

    /// The next step of the answer to a request of this kind.
    ///
    /// `arrived` begins with the head's first byte and holds everything that came of it. `table` is cleared when a head
    /// begins, and holds its fields when it is whole.
    ///
    /// # Errors
    /// Why the head has no single reading or is too large. Nothing behind it can be believed.
    pub fn read(&mut self, arrived: &[u8], asked: Asked, table: &mut FieldTable) -> Result<AnswerStep, Fault> {
        if self.head.is_untouched() {
            table.clear();
        }
        let Some(len) = self.head.advance(arrived, &self.limits, table)? else { return Ok(AnswerStep::Unfinished) };
        let facts = std::mem::take(&mut self.head).facts;
        match facts.close(asked)? {
            Next::Informational if self.informational == self.informational_limit => Err(Fault::TooManyInformational),
            Next::Informational => {
                self.informational += 1;
                Ok(AnswerStep::Informational(len))
            }
            Next::Body(body) => {
                self.informational = 0;
                Ok(AnswerStep::Final(AnswerRead {
                    len,
                    status: facts.status,
                    reason: facts.reason.0..facts.reason.0 + facts.reason.1,
                    body,
                    content_length: facts.body.content_length,
                    persists: facts.connection.persists(facts.version),
                }))
            }
        }
    }
}

enum Next {
    Informational,
    Body(Body),
}

/// What the lines of an answer's head said.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AnswerFacts {
    version: Version,
    status: u16,
    /// Offset and length.
    reason: (usize, usize),
    body: BodyFields,
    connection: ConnectionFields,
}

impl Facts for AnswerFacts {
    const EMPTY_LINES: u8 = 0;

    fn may_begin_with(byte: u8) -> bool {
        byte == b'H'
    }

    fn broken_start_line(_begin: &[u8]) -> Fault {
        Fault::StatusLine
    }

    fn start_line(&mut self, line: &[u8], at: usize) -> Result<(), Fault> {
        let (version, rest) = line.split_at_checked(b"HTTP/1.1".len()).ok_or(Fault::StatusLine)?;
        self.version = Version::parse(version).ok_or(Fault::StatusLine)?;
        let [b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', reason @ ..] = rest else {
            return Err(Fault::StatusLine);
        };
        // RFC 9112 §4 has a space even before an absent reason; servers forget it, and nothing is read differently.
        if !matches!(reason, [] | [b' ', ..]) || !reason.iter().all(|&byte| is_value(byte)) {
            return Err(Fault::StatusLine);
        }
        let reason = reason.strip_prefix(b" ").unwrap_or_default();
        self.reason = (at + line.len() - reason.len(), reason.len());
        self.status = [a, b, c].iter().fold(0, |status, digit| status * 10 + u16::from(*digit - b'0'));
        Ok(())
    }

    #[inline]
    fn field(&mut self, name: Known, value: &[u8], _at: usize) -> Result<(), Fault> {
        match name {
            Known::ContentLength => self.body.note_content_length(value),
            Known::TransferEncoding => self.body.note_transfer_encoding(value, self.version),
            Known::Connection => {
                self.connection.note_connection(value);
                Ok(())
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
            101 => Ok(Next::Body(Body::Empty)),
            100..=199 => Ok(Next::Informational),
            204 | 304 => Ok(Next::Body(Body::Empty)),
            _ if request.is_head => Ok(Next::Body(Body::Empty)),
            _ => Ok(Next::Body(self.body.of_answer())),
        }
    }
}
