//! Following a head line by line, in whatever pieces it arrives.
//!
//! The verdict must not depend on how the network cut the bytes. So lines are judged in their order and once they are
//! whole, and nothing beyond a limit is looked at. What need not wait for the end of a line: its first control byte that
//! is no CR LF, and a first byte that no start line has, so that a TLS hello is not waited for.

use super::fault::Fault;
use super::octets::{Controls, token_len, trim};
use crate::domain::fields::{FieldTable, Known};

/// Bounds of one head.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadLimits {
    /// Bytes from the first of the start line to the last of the empty line.
    pub(super) bytes: usize,
    /// Field lines.
    pub(super) fields: usize,
    /// Bytes of the start line without its CR LF, and what a longer one is called.
    pub(super) start_line: (usize, Fault),
}

/// What is learned from a head while its lines go by.
pub(super) trait Facts: Copy + Default {
    /// How many empty lines may stand before the start line.
    const EMPTY_LINES: u8;

    /// Whether a start line can begin with `byte`.
    fn may_begin_with(byte: u8) -> bool;
    /// What a start line is called that has a byte no start line has behind `begin`.
    fn broken_start_line(begin: &[u8]) -> Fault;
    /// Takes in the start line, which stands at `at` of the head.
    fn start_line(&mut self, line: &[u8], at: usize) -> Result<(), Fault>;
    /// Takes in one field, whose trimmed value stands at `at` of the head.
    fn field(&mut self, name: Known, value: &[u8], at: usize) -> Result<(), Fault>;
}

/// A head that is arriving.
///
/// Offsets count from the head's first byte, so that they stay right when a partial head moves to another buffer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Head<F> {
    /// Begin of the line at hand.
    line: usize,
    /// Up to where that line was looked at: one that arrives in drops is not looked at again and again.
    seen: usize,
    fields: usize,
    empty_lines: u8,
    has_start_line: bool,
    /// What is known so far; all of it once [`Head::advance`] said how long the head is.
    pub(super) facts: F,
}

impl<F: Facts> Head<F> {
    /// Whether no byte of it was looked at.
    #[inline]
    pub(super) fn is_untouched(&self) -> bool {
        self.seen == 0 && !self.has_start_line
    }

    /// The length of the head once its empty line is there; none while it is not.
    ///
    /// `arrived` begins with the head's first byte and holds everything that came, what was seen before included; `table`
    /// is where the fields of that head are noted, and was empty at its first byte.
    pub(super) fn advance(
        &mut self,
        arrived: &[u8],
        limits: &HeadLimits,
        table: &mut FieldTable,
    ) -> Result<Option<usize>, Fault> {
        if table.len() != self.fields {
            // Fields of another head would be taken for this one's. It cannot happen, and must not matter if it does.
            return Err(Fault::TooManyFields);
        }
        let head = &arrived[..arrived.len().min(limits.bytes)];
        self.check_first_byte(head)?;
        let mut controls = Controls::new(head, self.seen);
        self.seen = loop {
            let Some(at) = controls.next() else { break head.len() };
            match head[at..] {
                [b'\r'] => break at,
                [b'\r', b'\n', ..] => {}
                _ => return Err(self.stray(head, at, limits)),
            }
            // The LF, which is the next control byte.
            controls.next();
            if !self.has_start_line {
                self.start_line(head, at, limits)?;
            } else if at == self.line {
                return Ok(Some(at + 2));
            } else {
                self.field(head, at, limits, table)?;
            }
            self.line = at + 2;
            self.check_first_byte(head)?;
        };
        if !self.has_start_line && self.seen.saturating_sub(self.line) > limits.start_line.0 {
            return Err(limits.start_line.1);
        }
        if arrived.len() > limits.bytes { Err(Fault::HeadTooLarge) } else { Ok(None) }
    }

    #[inline]
    fn check_first_byte(&self, head: &[u8]) -> Result<(), Fault> {
        match head.get(self.line) {
            Some(&byte) if !self.has_start_line && !F::may_begin_with(byte) && !matches!(byte, b'\r' | b'\n') => {
                Err(F::broken_start_line(&[]))
            }
            _ => Ok(()),
        }
    }

    /// Takes in the start line, or an empty line before it, which ends at `end`.
    fn start_line(&mut self, head: &[u8], end: usize, limits: &HeadLimits) -> Result<(), Fault> {
        let line = &head[self.line..end];
        if line.len() > limits.start_line.0 {
            return Err(limits.start_line.1);
        }
        if !line.is_empty() {
            self.has_start_line = true;
            return self.facts.start_line(line, self.line);
        }
        if self.empty_lines == F::EMPTY_LINES {
            return Err(Fault::LineEnd);
        }
        self.empty_lines += 1;
        Ok(())
    }

    /// Takes in a field that ends at `end` (RFC 9112 §5).
    #[inline]
    fn field(&mut self, head: &[u8], end: usize, limits: &HeadLimits, table: &mut FieldTable) -> Result<(), Fault> {
        if self.fields == limits.fields {
            return Err(Fault::TooManyFields);
        }
        self.fields += 1;
        let line = &head[self.line..end];
        let name = token_len(line);
        if name == 0 || line.get(name) != Some(&b':') {
            return Err(broken_field(line));
        }
        let raw = &line[name + 1..];
        let value = trim(raw);
        // Where white space led: the value is a part of `raw`, so its end tells its beginning.
        let at = self.line + name + 1 + leading(raw, value);
        let known = table.push((self.line, &line[..name]), (at, value));
        self.facts.field(known, value, at)
    }

    /// What the control byte at `at` is called, which is no CR LF.
    #[cold]
    fn stray(&self, head: &[u8], at: usize, limits: &HeadLimits) -> Fault {
        let begin = &head[self.line..at];
        match head[at] {
            _ if !self.has_start_line && begin.len() > limits.start_line.0 => limits.start_line.1,
            b'\n' => Fault::LineEnd,
            _ if !self.has_start_line => F::broken_start_line(begin),
            _ if self.fields == limits.fields => Fault::TooManyFields,
            _ => broken_field(begin),
        }
    }
}

/// How many bytes of `raw` stand before `value`, which is `raw` without the white space around it.
#[inline]
fn leading(raw: &[u8], value: &[u8]) -> usize {
    if value.is_empty() { 0 } else { raw.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count() }
}

/// What a field is called that is no field, or is followed by a control byte.
#[cold]
fn broken_field(begin: &[u8]) -> Fault {
    let name = token_len(begin);
    match begin.first() {
        Some(b' ' | b'\t') => Fault::FoldedField,
        Some(_) if name > 0 && begin.get(name) == Some(&b':') => Fault::FieldValue,
        _ => Fault::FieldName,
    }
}
