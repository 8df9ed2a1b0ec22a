//! A file of keys, row by row: JSON lines or CSV, read into the same named fields.
//!
//! Owns the two formats and the positions of rows. Must not know what a field means.

use std::fmt;
use std::io::{BufRead, Read};

use clap::ValueEnum;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::{Map, Value};

/// How keys are written down.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    /// One JSON object a line.
    Jsonl,
    /// A heading, then one key a line.
    Csv,
}

impl Format {
    /// The format that a file's name promises.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "jsonl" | "ndjson" | "json" => Some(Self::Jsonl),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

/// One row: its fields by name, or why it has none.
pub(super) struct Row {
    /// The line it begins on, from 1.
    pub(super) line: u64,
    pub(super) fields: Result<Map<String, Value>, String>,
}

/// Longest line of a JSON file. A record within its bounds is far smaller.
const MAX_LINE_BYTES: u64 = 256 * 1024;

/// Hands every row to `take`, until it says stop. Empty lines are no rows.
///
/// # Errors
/// When the input cannot be read, or is no table at all.
pub(super) fn read(format: Format, input: &mut dyn BufRead, take: impl FnMut(Row) -> bool) -> Result<(), String> {
    match format {
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
            Ok(Fields { fields, twice: None }) => Ok(fields),
            Ok(Fields { twice: Some(name), .. }) => Err(format!("the field {name:?} stands there twice")),
            Err(error) => Err(format!("it is not a JSON object (column {})", error.column())),
        };
        if !take(Row { line, fields }) {
            return Ok(());
        }
    }
    Ok(())
}

fn read_csv(input: &mut dyn BufRead, mut take: impl FnMut(Row) -> bool) -> Result<(), String> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::Headers).from_reader(input);
    let names: Vec<String> = reader.headers().map_err(|error| say_csv(&error))?.iter().map(heading).collect();
    if names.is_empty() {
        return Ok(());
    }
    if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return Err(format!("line 1: the column {:?} stands there twice", twice.1));
    }
    let mut record = csv::StringRecord::new();
    loop {
        let line = reader.position().line();
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
            Err(error) if error.is_io_error() => return Err(say_csv(&error)),
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

/// An object, and the first field that it names twice: which of the two counts would be anybody's guess.
struct Fields {
    fields: Map<String, Value>,
    twice: Option<String>,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
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
