//! Where a verb writes: results to one side, talk to the other.
//!
//! Owns the three streams of a process, so that verbs can be run on memory in tests. Must not know any verb.

use std::io::{self, BufRead, BufWriter, IsTerminal, Write};

/// The streams a verb may use.
pub(super) struct Console<'a> {
    /// Results: what a script reads.
    pub(super) out: &'a mut dyn Write,
    /// Talk: what a person reads beside them.
    pub(super) talk: &'a mut dyn Write,
    /// What the verb is fed; secrets come from here, never from the command line.
    pub(super) input: &'a mut dyn BufRead,
    /// Whether a person watches the talk as it is written.
    pub(super) talk_is_watched: bool,
    /// Whether a person types the input.
    pub(super) input_is_typed: bool,
}

/// Runs `verb` on the streams of this process. Colours reach terminals only, and none where `NO_COLOR` is set.
///
/// Neither output is locked meanwhile: the log of a running gateway is written by a thread of its own.
pub(super) fn with_standard_streams<T>(verb: impl FnOnce(&mut Console<'_>) -> io::Result<T>) -> io::Result<T> {
    let mut out = BufWriter::new(anstream::AutoStream::auto(io::stdout()));
    let mut talk = anstream::AutoStream::auto(io::stderr());
    let mut console = Console {
        out: &mut out,
        talk: &mut talk,
        input: &mut io::stdin().lock(),
        talk_is_watched: io::stderr().is_terminal(),
        input_is_typed: io::stdin().is_terminal(),
    };
    let answer = verb(&mut console)?;
    out.flush()?;
    Ok(answer)
}
