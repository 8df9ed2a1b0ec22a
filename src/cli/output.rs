//! The shapes of results: a table for people, JSON for scripts.

use std::io;

use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use serde_json::Value;

use super::console::Console;

/// `--output` of every verb that shows records.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct OutputArgs {
    /// How results are written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(super) output: Output,
}

/// How results are written.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Output {
    /// For people.
    Text,
    /// For scripts.
    Json,
}

/// Writes one JSON value, indented, with a line end.
///
/// # Errors
/// The stream's.
pub(super) fn json(console: &mut Console<'_>, value: &Value) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *console.out, value)?;
    console.out.write_all(b"\n")
}

/// Writes rows below their headings, one line a row: cells that are wrapped cannot be picked up with the mouse.
///
/// # Errors
/// The stream's.
pub(super) fn table(console: &mut Console<'_>, headings: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headings.iter().copied());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for line in table.lines() {
        writeln!(console.out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Writes names and values, the values aligned.
///
/// # Errors
/// The stream's.
pub(super) fn fields<N: AsRef<str>>(console: &mut Console<'_>, fields: &[(N, String)]) -> io::Result<()> {
    let width = fields.iter().map(|(name, _)| name.as_ref().len()).max().unwrap_or(0);
    for (name, value) in fields {
        writeln!(console.out, "{:width$}  {value}", name.as_ref())?;
    }
    Ok(())
}

/// A control character in a record's text must not steer the terminal it is shown on.
pub(super) fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Writes a list of objects as a table below its title: each column has a heading and the field it shows. An empty list is
/// said in words.
///
/// # Errors
/// The stream's.
pub(super) fn list(console: &mut Console<'_>, title: &str, list: &Value, columns: &[(&str, &str)]) -> io::Result<()> {
    writeln!(console.out, "\n{title}")?;
    let rows = list.as_array().into_iter().flatten();
    let row = |object: &Value| columns.iter().map(|(_, field)| cell(&object[*field])).collect();
    let rows: Vec<Vec<String>> = rows.map(row).collect();
    if rows.is_empty() {
        return writeln!(console.out, "none");
    }
    let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
    table(console, &headings, rows)
}

/// A value in a cell: words of a list with spaces between them, a dash for nothing.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => visible(text),
        Value::Array(list) if list.is_empty() => "-".to_owned(),
        Value::Array(list) => list.iter().map(cell).collect::<Vec<_>>().join(" "),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}
