//! Rows of an import, packed into requests of a size that servers take.

use std::collections::HashMap;

use bytes::Bytes;
use http::Method;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::client::{Ask, Body, Repeat, SLOW_ANSWER};
use super::{MAX_ROWS, Progress, Rows};
use crate::cli::failure::Failure;
use crate::domain::{KeyHash, without_keys};
use crate::manage::{BadRow, read_rows};

/// Most bytes of a piece; servers take twice as much.
const MAX_BYTES: usize = 8 << 20;
/// Most rows of a piece; servers take four times as many.
const MAX_PIECE: usize = 25_000;

/// A file that was read, in pieces.
#[derive(Default)]
pub(super) struct Shipment {
    pub(super) pieces: Vec<Piece>,
    /// Rows that need no server to be bad.
    pub(super) bad: Vec<BadRow>,
}

/// One request: JSON lines, and the line of the file that each comes from.
#[derive(Default)]
pub(super) struct Piece {
    bytes: Bytes,
    lines: Vec<u64>,
}

impl Piece {
    /// How many rows it holds.
    pub(super) fn rows(&self) -> usize {
        self.lines.len()
    }

    /// The request. It is never sent again by itself: whoever repeats it wants to know that its rows are there already.
    pub(super) fn ask(&self, options: &str) -> Ask {
        let body = Some(Body { media_type: "application/x-ndjson", bytes: self.bytes.clone() });
        let target = format!("/v1/keys/import{options}");
        Ask { method: Method::POST, target, body, repeat: Repeat::Never, patience: SLOW_ANSWER }
    }

    /// A bad row of this piece by its line in the file.
    pub(super) fn in_file(&self, BadRow { line, problem }: BadRow) -> BadRow {
        let at = line.checked_sub(1).and_then(|at| self.lines.get(usize::try_from(at).ok()?));
        BadRow { line: at.copied().unwrap_or_default(), problem }
    }
}

impl Shipment {
    /// Reads all rows. Which of them are bad, the server says, save for those that no server could read, and for keys that
    /// stand there twice: it does not see all pieces together.
    ///
    /// # Errors
    /// [`Failure::Runtime`] when they cannot be read, or are too many.
    pub(super) fn pack(rows: &mut Rows<'_>) -> Result<Self, Failure> {
        let mut shipment = Self::default();
        let (mut bytes, mut lines) = (Vec::new(), Vec::new());
        let mut seen = HashMap::new();
        let mut count = 0;
        let (format, progress) = (rows.format, &mut *rows.progress);
        let read = read_rows(format, rows.input, |row| {
            count += 1;
            progress(Progress::Read(count));
            let fields = row.fields.and_then(|fields| once(fields, row.line, &mut seen));
            match fields.and_then(|fields| serde_json::to_vec(&fields).map_err(|error| error.to_string())) {
                Err(problem) => {
                    shipment.bad.push(BadRow { line: row.line, problem: without_keys(&problem).into_owned() });
                }
                Ok(text) => {
                    if lines.len() == MAX_PIECE || bytes.len() + text.len() >= MAX_BYTES {
                        shipment.close(&mut bytes, &mut lines);
                    }
                    bytes.extend_from_slice(&text);
                    bytes.push(b'\n');
                    lines.push(row.line);
                }
            }
            count <= MAX_ROWS
        });
        read.map_err(|problem| rows.unreadable(&problem))?;
        if count > MAX_ROWS {
            return Err(rows.unreadable(&format!("it has more than {MAX_ROWS} rows; import it in parts")));
        }
        shipment.close(&mut bytes, &mut lines);
        Ok(shipment)
    }

    fn close(&mut self, bytes: &mut Vec<u8>, lines: &mut Vec<u64>) {
        if !lines.is_empty() {
            self.pieces.push(Piece { bytes: std::mem::take(bytes).into(), lines: std::mem::take(lines) });
        }
    }

    /// How many rows there are in all pieces.
    pub(super) fn rows(&self) -> usize {
        self.pieces.iter().map(Piece::rows).sum()
    }

    /// All bad rows, in order of lines.
    pub(super) fn into_bad(mut self) -> Vec<BadRow> {
        self.bad.sort_by_key(|bad| bad.line);
        self.bad
    }
}

/// What makes two rows the same key, or the same record.
#[derive(PartialEq, Eq, Hash)]
enum Mark {
    Key([u8; 32]),
    Id(String),
}

fn once(fields: Map<String, Value>, line: u64, seen: &mut HashMap<Mark, u64>) -> Result<Map<String, Value>, String> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let by_hash = || text("hash")?.parse::<KeyHash>().ok().map(|hash| *hash.as_bytes());
    let key = text("key").map(|key| Sha256::digest(key.as_bytes()).into()).or_else(by_hash);
    let marks = [key.map(|key| ("key", Mark::Key(key))), text("id").map(|id| ("id", Mark::Id(id.to_owned())))];
    for (what, mark) in marks.into_iter().flatten() {
        if let Some(first) = seen.get(&mark) {
            return Err(format!("line {first} has the same {what}; keep one of them"));
        }
        seen.insert(mark, line);
    }
    Ok(fields)
}

/// An import that ended after some of its pieces had arrived.
pub(super) fn broken_off(imported: usize, why: &str) -> Failure {
    let why = why.trim_end().trim_start_matches("error: ");
    Failure::runtime(format!(
        "{imported} keys were imported, then it broke off: {why}\nImport the file again with --skip-bad: rows that are there \
         already are left out."
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manage::Format;

    fn packed(format: Format, text: &str) -> Shipment {
        let mut rows = Rows {
            name: "test",
            format,
            input: &mut text.as_bytes(),
            skip_bad: false,
            dry_run: false,
            progress: &mut |_| {},
        };
        Shipment::pack(&mut rows).unwrap()
    }

    #[test]
    fn a_table_is_sent_as_lines_that_know_where_they_come_from() {
        let shipment = packed(Format::Csv, "name,scopes,key\n\"a\nb\",x,one-key\nc,,other-key\nd\n");
        assert_eq!((shipment.pieces.len(), shipment.rows(), shipment.bad[0].line), (1, 2, 5));
        let piece = &shipment.pieces[0];
        assert_eq!(piece.bytes.iter().filter(|byte| **byte == b'\n').count(), 2);
        assert_eq!(piece.in_file(BadRow { line: 2, problem: String::new() }).line, 4);
    }

    #[test]
    fn a_large_file_goes_in_pieces_and_a_key_stands_in_one_of_them() {
        let row = |n: usize| format!("{{\"name\":\"n\",\"scopes\":[],\"key\":\"old-key-{n}\"}}\n");
        let text: String = (0..MAX_PIECE + 10).map(row).chain([row(3)]).collect();
        let shipment = packed(Format::Jsonl, &text);
        assert_eq!(shipment.pieces.iter().map(Piece::rows).collect::<Vec<_>>(), [MAX_PIECE, 10]);
        assert_eq!(shipment.bad[0].line, MAX_PIECE as u64 + 11);
        assert_eq!(shipment.bad[0].problem, "line 4 has the same key; keep one of them");
        let wide = "x".repeat(200_000);
        let text: String = (0..50).map(|n| format!("{{\"name\":\"{n}\",\"description\":\"{wide}\"}}\n")).collect();
        assert_eq!(packed(Format::Jsonl, &text).pieces.len(), 2);
    }
}
