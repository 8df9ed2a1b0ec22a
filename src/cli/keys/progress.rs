//! How far an import is, for whoever watches.

use std::cell::Cell;
use std::io::{self, BufRead, Read, Write};
use std::rc::Rc;

use crate::cli::registry::Progress;

/// Rows between two signs of life while they are read.
const EVERY: usize = 1_000;
/// Cells of the bar.
const WIDTH: u64 = 30;

/// A line on a terminal that is drawn anew; nothing where nobody watches.
pub(super) struct Bar<'a> {
    talk: &'a mut dyn Write,
    is_watched: bool,
    /// How many bytes there are to read, where that is known.
    bytes: Option<u64>,
    read: Rc<Cell<u64>>,
    is_drawn: bool,
}

impl<'a> Bar<'a> {
    /// A bar for an input of so many bytes.
    pub(super) fn new(talk: &'a mut dyn Write, is_watched: bool, bytes: Option<u64>) -> Self {
        Self { talk, is_watched, bytes, read: Rc::default(), is_drawn: false }
    }

    /// The input, whose bytes are counted as they are read.
    pub(super) fn count<'i>(&self, input: &'i mut dyn BufRead) -> Counted<'i> {
        Counted { input, read: Rc::clone(&self.read) }
    }

    /// Draws how far it is.
    pub(super) fn show(&mut self, progress: Progress) {
        if !self.is_watched {
            return;
        }
        let line = match progress {
            Progress::Read(rows) if rows % EVERY != 0 => return,
            Progress::Read(rows) => {
                format!("{}{rows} rows read", self.bytes.map_or_else(String::new, |all| bar(self.read.get(), all)))
            }
            // What is written in one step is done at once, or not yet.
            Progress::Written(0, all) => format!("{}checking and writing {all} keys", bar(0, all as u64)),
            Progress::Written(done, all) => format!("{}{done} of {all} keys", bar(done as u64, all as u64)),
        };
        self.is_drawn = true;
        // A sign of life that cannot be shown is no reason to stop.
        let _unseen = write!(self.talk, "\r{line:<79}").and_then(|()| self.talk.flush());
    }

    /// Leaves the line.
    ///
    /// # Errors
    /// The stream's.
    pub(super) fn end(self) -> io::Result<()> {
        if self.is_drawn { writeln!(self.talk) } else { Ok(()) }
    }
}

/// `[#####     ]  50% `.
fn bar(done: u64, all: u64) -> String {
    let done = done.min(all);
    let cells = (done * WIDTH).checked_div(all).unwrap_or(WIDTH);
    let percent = (done * 100).checked_div(all).unwrap_or(100);
    let (full, empty) = ("#".repeat(usize::try_from(cells).unwrap_or(0)), usize::try_from(WIDTH - cells).unwrap_or(0));
    format!("[{full}{:empty$}] {percent:>3}% ", "")
}

/// An input whose bytes are counted.
pub(super) struct Counted<'i> {
    input: &'i mut dyn BufRead,
    read: Rc<Cell<u64>>,
}

impl Read for Counted<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(into)?;
        self.read.set(self.read.get() + count as u64);
        Ok(count)
    }
}

impl BufRead for Counted<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.read.set(self.read.get() + count as u64);
        self.input.consume(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_as_long_as_what_is_done() {
        assert_eq!(bar(0, 4), format!("[{}]   0% ", " ".repeat(30)));
        assert_eq!(bar(2, 4), format!("[{}{}]  50% ", "#".repeat(15), " ".repeat(15)));
        assert_eq!(bar(9, 4), format!("[{}] 100% ", "#".repeat(30)));
        assert_eq!(bar(0, 0), format!("[{}] 100% ", "#".repeat(30)));
    }

    #[test]
    fn it_counts_what_is_read_and_says_nothing_where_nobody_watches() {
        let mut talk = Vec::new();
        let mut input = &b"one\ntwo\n"[..];
        let mut bar = Bar::new(&mut talk, true, Some(8));
        let mut line = String::new();
        bar.count(&mut input).read_line(&mut line).unwrap();
        bar.show(Progress::Read(EVERY));
        bar.show(Progress::Read(EVERY + 1));
        bar.end().unwrap();
        let said = String::from_utf8(std::mem::take(&mut talk)).unwrap();
        assert!(said.contains(" 50% 1000 rows read") && said.matches('\r').count() == 1, "{said}");
        let mut bar = Bar::new(&mut talk, false, None);
        bar.show(Progress::Written(1, 1));
        bar.end().unwrap();
        assert_eq!(talk, b"");
    }
}
