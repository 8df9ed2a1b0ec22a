//! For tests: what is made of bytes that arrive in given pieces.

use super::{AnswerHeads, AnswerLimits, AnswerStep, Asked, Body, Fault, RequestHeads, RequestLimits};
use crate::domain::fields::FieldTable;

/// How the reading of a stream came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everything was read that makes whole messages; what is left is the beginning of one, or nothing.
    Passes,
    /// Refused before any byte of the message at fault was believed.
    Refused(Fault),
    /// Broken off within a body.
    Broken(Fault),
    /// Behind a request that may become a tunnel.
    AwaitsUpgrade,
}

/// What was read, and why no more was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// The bytes that were believed, frames included, as they came.
    pub(super) passed: Vec<u8>,
    /// The data of all bodies.
    pub(super) data: Vec<u8>,
    pub(super) verdict: Verdict,
}

/// Bytes that arrived and were not used.
struct Arriving<I> {
    pieces: I,
    room: usize,
    rest: Vec<u8>,
    bytes: Vec<u8>,
}

impl<I: Iterator<Item = Vec<u8>>> Arriving<I> {
    /// Lets one more piece arrive, of at most `room` bytes; false at the end.
    fn more(&mut self) -> bool {
        if self.rest.is_empty() {
            let Some(piece) = self.pieces.by_ref().find(|piece| !piece.is_empty()) else { return false };
            self.rest = piece;
        }
        let now = self.rest.len().min(self.room);
        self.bytes.extend(self.rest.drain(..now));
        true
    }

    fn take(&mut self, len: usize, outcome: &mut Outcome) {
        outcome.passed.extend(self.bytes.drain(..len));
    }

    /// Follows a body to its end; why it stops before it.
    fn follow(&mut self, body: &mut Body, outcome: &mut Outcome) -> Option<Verdict> {
        while !body.is_finished() {
            let before = body.clone();
            match body.follow(&self.bytes) {
                Ok(taken) if taken.len == 0 => {
                    if !self.more() {
                        return Some(Verdict::Passes);
                    }
                }
                Ok(taken) => {
                    outcome.data.extend(&self.bytes[taken.data.clone()]);
                    self.take(taken.len, outcome);
                }
                Err(fault) => {
                    // The bytes before the one at fault, whatever came together.
                    let mut body = before;
                    while body.follow(&self.bytes[..1]).is_ok() {
                        self.take(1, outcome);
                    }
                    return Some(Verdict::Broken(fault));
                }
            }
        }
        None
    }
}

fn arriving<I>(pieces: I, room: usize) -> (Arriving<I::IntoIter>, Outcome)
where
    I: IntoIterator<Item = Vec<u8>>,
{
    let arriving = Arriving { pieces: pieces.into_iter(), room, rest: Vec::new(), bytes: Vec::new() };
    (arriving, Outcome { passed: Vec::new(), data: Vec::new(), verdict: Verdict::Passes })
}

/// Reads all requests that the pieces make, at most `room` bytes at a time.
pub(super) fn read_requests(pieces: impl IntoIterator<Item = Vec<u8>>, room: usize, limits: RequestLimits) -> Outcome {
    let (mut arriving, mut outcome) = arriving(pieces, room);
    let (mut heads, mut table) = (RequestHeads::new(limits), FieldTable::new());
    outcome.verdict = loop {
        match heads.read(&arriving.bytes, &mut table) {
            Ok(None) => {
                if !arriving.more() {
                    break Verdict::Passes;
                }
            }
            Ok(Some(mut read)) => {
                check_places(&arriving.bytes, &table, read.len);
                arriving.take(read.len, &mut outcome);
                if read.may_become_tunnel {
                    break Verdict::AwaitsUpgrade;
                }
                if let Some(verdict) = arriving.follow(&mut read.body, &mut outcome) {
                    break verdict;
                }
            }
            Err(fault) => break Verdict::Refused(fault),
        }
    };
    outcome
}

/// Every field stands where the table says: its value behind a colon, and nothing but white space around it.
fn check_places(bytes: &[u8], table: &FieldTable, head_len: usize) {
    let fields = table.of(bytes);
    let lines = bytes[..head_len].split(|byte| *byte == b'\n');
    // Empty lines may come before the request line, whose target may have a colon, too.
    let lines: Vec<&[u8]> = lines.skip_while(|line| line.trim_ascii().is_empty()).skip(1).collect();
    let lines: Vec<&[u8]> = lines.into_iter().filter(|line| line.contains(&b':')).collect();
    assert_eq!(fields.len(), lines.len());
    for (field, line) in fields.iter().zip(lines) {
        assert!(line.starts_with(field.name));
        assert_eq!(line[field.name.len() + 1..].trim_ascii(), field.value.trim_ascii());
        assert_eq!(field.value, field.value.trim_ascii());
    }
}

/// Reads all answers that the pieces make to requests of one kind; an answer to none of them is a fault.
pub(super) fn read_answers(
    pieces: impl IntoIterator<Item = Vec<u8>>,
    room: usize,
    limits: AnswerLimits,
    asked: Asked,
) -> Outcome {
    let (mut arriving, mut outcome) = arriving(pieces, room);
    let (mut heads, mut table) = (AnswerHeads::new(limits), FieldTable::new());
    outcome.verdict = loop {
        match heads.read(&arriving.bytes, asked, &mut table) {
            Ok(AnswerStep::Unfinished) => {
                if !arriving.more() {
                    break Verdict::Passes;
                }
            }
            Ok(AnswerStep::Informational(len)) => arriving.take(len, &mut outcome),
            Ok(AnswerStep::Final(mut read)) => {
                arriving.take(read.len, &mut outcome);
                if read.status == 101 {
                    break Verdict::AwaitsUpgrade;
                }
                if let Some(verdict) = arriving.follow(&mut read.body, &mut outcome) {
                    break verdict;
                }
            }
            Err(fault) => break Verdict::Broken(fault),
        }
    };
    outcome
}

/// `bytes` cut before every one of `cuts`.
pub(super) fn cut(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut cuts: Vec<usize> = cuts.iter().map(|&cut| cut.min(bytes.len())).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect()
}

/// Every way of cutting `bytes` that a table test tries: whole, byte by byte, and in two at every place.
pub(super) fn usual_cuts(bytes: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let mut ways = vec![vec![bytes.to_vec()], bytes.iter().map(|byte| vec![*byte]).collect()];
    // Long inputs are long because of a limit; a hundred places in them are as good as all.
    let step = (bytes.len() / 100).max(1);
    ways.extend((1..bytes.len()).step_by(step).map(|at| cut(bytes, &[at])));
    ways
}
