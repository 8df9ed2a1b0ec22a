//! A file of keys, row by row: JSON lines, a JSON array or CSV, read into the same named fields.
//!
//! Owns the formats and the positions of rows. Must not know what a field means.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;
use std::io::{self, BufRead, Read};

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// How keys are written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// One JSON object a line.
    Jsonl,
    /// One JSON array of objects, which are counted as lines are.
    Json,
    /// A heading, then one key a line.
    Csv,
}

/// One row: its fields by name, or why it has none.
#[derive(Debug)]
pub struct Row {
    /// The line it begins on, from 1.
    pub line: u64,
    /// What it says. No problem quotes what may be a key.
    pub fields: Result<Map<String, Value>, String>,
}

/// Longest row, in bytes. A record within its bounds is far smaller.
const MAX_LINE_BYTES: u64 = 256 * 1024;

/// Hands every row to `take`, until it says stop. Empty lines are no rows.
///
/// # Errors
/// When the input cannot be read, or is no table at all.
pub fn read_rows(format: Format, input: &mut dyn BufRead, take: impl FnMut(Row) -> bool) -> Result<(), String> {
    match format {
        Format::Json => read_json_array(input, take),
        Format::Jsonl => read_json_lines(input, take),
        Format::Csv => read_csv(input, take),
    }
}

fn read_json_lines(input: &mut dyn BufRead, mut take: impl FnMut(Row) -> bool) -> Result<(), String> {
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let read = input.take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes).map_err(|error| error.to_string())?;
        if read == 0 {
            return Ok(());
        }
        if read as u64 == MAX_LINE_BYTES && !bytes.ends_with(b"\n") {
            return Err(format!("line {line} is longer than {MAX_LINE_BYTES} bytes"));
        }
        let text = bytes.strip_prefix(b"\xef\xbb\xbf").filter(|_| line == 1).unwrap_or(&bytes);
        if text.trim_ascii().is_empty() {
            continue;
        }
        // serde_json's own words may quote what stands there, which may be a key.
        let fields = match serde_json::from_slice::<Fields>(text) {
            Ok(fields) => fields.once_each(),
            Err(error) => Err(format!("it is not a JSON object (column {})", error.column())),
        };
        if !take(Row { line, fields }) {
            return Ok(());
        }
    }
    Ok(())
}

fn read_json_array(input: &mut dyn BufRead, take: impl FnMut(Row) -> bool) -> Result<(), String> {
    let bound = Bound::default();
    let mut json = serde_json::Deserializer::from_reader(Bounded { input, bound: &bound });
    let read = Rows { bound: &bound, take }.deserialize(&mut json).and_then(|()| json.end());
    // As above, its words may quote a key.
    read.map_err(|error| match error.io_error_kind() {
        Some(_) if bound.is_reached() => format!("row {} is longer than {MAX_LINE_BYTES} bytes", bound.row.get()),
        Some(kind) => kind.to_string(),
        None => format!("it is not a JSON array of objects (line {}, column {})", error.line(), error.column()),
    })
}

fn read_csv(input: &mut dyn BufRead, mut take: impl FnMut(Row) -> bool) -> Result<(), String> {
    let bound = Bound::default();
    let mut reader =
        csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::Headers).from_reader(Bounded { input, bound: &bound });
    let say_fatal = |error: &csv::Error, line: u64| match bound.is_reached() {
        true => format!("line {line} is longer than {MAX_LINE_BYTES} bytes"),
        false => say_csv(error),
    };
    bound.begin_row();
    let names: Vec<String> = reader.headers().map_err(|error| say_fatal(&error, 1))?.iter().map(heading).collect();
    if names.is_empty() {
        return Ok(());
    }
    let mut seen = HashSet::new();
    if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
        return Err(format!("line 1: the column{} stands there twice", shown_name(twice)));
    }
    if !seen.contains("name") {
        return Err("line 1: it has no column `name`; the first line of CSV says what the columns are".to_owned());
    }
    let mut record = csv::StringRecord::new();
    loop {
        let line = reader.position().line();
        bound.begin_row();
        let fields = match reader.read_record(&mut record) {
            Ok(false) => return Ok(()),
            Ok(true) if record.len() != names.len() => {
                Err(format!("it has {} fields where the heading has {}", record.len(), names.len()))
            }
            Ok(true) => Ok(names
                .iter()
                .zip(&record)
                .map(|(name, cell)| (name.clone(), Value::String(cell.to_owned())))
                .collect()),
            Err(error) if error.is_io_error() => return Err(say_fatal(&error, line)),
            Err(error) => Err(say_csv(&error)),
        };
        let line = record.position().map_or(line, csv::Position::line);
        if !take(Row { line, fields }) {
            return Ok(());
        }
    }
}

fn heading(name: &str) -> String {
    name.trim_start_matches('\u{feff}').trim().to_owned()
}

/// What is wrong, without quoting the row.
fn say_csv(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Io(error) => error.to_string(),
        csv::ErrorKind::Utf8 { .. } => "it is not UTF-8".to_owned(),
        _ => "it is not a row of CSV".to_owned(),
    }
}

/// What a message may say of a field's name: where a heading is missing, or a column is shifted, it may be a key.
pub(super) fn shown_name(name: &str) -> String {
    let is_plain = name.len() <= MAX_NAME_CHARS && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if is_plain { format!(" {name:?}") } else { String::new() }
}

/// Longest name of a field that is repeated; no field of a key has a longer one.
const MAX_NAME_CHARS: usize = 20;

/// How much may still be read of the row that is being read: what is made of a row takes many times its bytes.
#[derive(Default)]
struct Bound {
    left: Cell<u64>,
    row: Cell<u64>,
}

impl Bound {
    fn begin_row(&self) {
        self.left.set(MAX_LINE_BYTES);
        self.row.set(self.row.get() + 1);
    }

    /// Nothing more is made of what comes.
    fn lift(&self) {
        self.left.set(u64::MAX);
    }

    fn is_reached(&self) -> bool {
        self.left.get() == 0
    }
}

/// Reads no further than the bound allows. Where the reader above it reads ahead, rows may be longer by as much.
struct Bounded<'a> {
    input: &'a mut dyn BufRead,
    bound: &'a Bound,
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.bound.left.get();
        if left == 0 {
            return Err(io::Error::other("a row is too long"));
        }
        let read = (&mut *self.input).take(left).read(buffer)?;
        self.bound.left.set(left - read as u64);
        Ok(read)
    }
}

/// An array whose objects go to `take`, until it says stop.
struct Rows<'a, F> {
    bound: &'a Bound,
    take: F,
}

impl<'de, F: FnMut(Row) -> bool> DeserializeSeed<'de> for Rows<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.bound.begin_row();
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(Row) -> bool> Visitor<'de> for Rows<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(fields) = seq.next_element::<Fields>()? {
            let row = Row { line: self.bound.row.get(), fields: fields.once_each() };
            if !(self.take)(row) {
                self.bound.lift();
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                break;
            }
            self.bound.begin_row();
        }
        Ok(())
    }
}

/// An object, and the first field that it names twice: which of the two counts would be anybody's guess.
struct Fields {
    fields: Map<String, Value>,
    twice: Option<String>,
}

impl Fields {
    fn once_each(self) -> Result<Map<String, Value>, String> {
        match self.twice {
            None => Ok(self.fields),
            Some(name) => Err(format!("the field{} stands there twice", shown_name(&name))),
        }
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let (mut fields, mut twice) = (Map::new(), None);
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if fields.contains_key(&name) {
                twice = twice.or(Some(name));
            } else {
                fields.insert(name, value);
            }
        }
        Ok(Fields { fields, twice })
    }
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
