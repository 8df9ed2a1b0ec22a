//! Findings as a JSON array of records.

use serde_json::{Value, json};

use crate::config::diagnostic::{Diagnostic, Location};

/// An array with one record a finding: `severity`, `code`, `message`, `fix`, `path`, `file`, `line`, `column`,
/// `end_line`, `end_column` and `labels`. Lines and columns count from 1, columns in characters; ends are exclusive.
pub fn json(diagnostics: &[Diagnostic]) -> Value {
    diagnostics.iter().map(record).collect()
}

fn record(diagnostic: &Diagnostic) -> Value {
    let labels = diagnostic.labels.iter().map(|label| {
        let mut record = place(Some(&label.at));
        record.insert("text".to_owned(), json!(label.text));
        Value::Object(record)
    });
    let mut record = place(diagnostic.at.as_ref());
    record.insert("severity".to_owned(), json!(diagnostic.severity().word()));
    record.insert("code".to_owned(), json!(diagnostic.code.word()));
    record.insert("message".to_owned(), json!(diagnostic.message));
    record.insert("fix".to_owned(), json!(diagnostic.fix));
    record.insert("path".to_owned(), json!(diagnostic.path));
    record.insert("labels".to_owned(), labels.collect());
    Value::Object(record)
}

fn place(at: Option<&Location>) -> serde_json::Map<String, Value> {
    let mut record = serde_json::Map::new();
    record.insert("file".to_owned(), json!(at.map(|at| &*at.file)));
    record.insert("line".to_owned(), json!(at.map(|at| at.span.start.line)));
    record.insert("column".to_owned(), json!(at.map(|at| at.span.start.column)));
    record.insert("end_line".to_owned(), json!(at.map(|at| at.span.end.line)));
    record.insert("end_column".to_owned(), json!(at.map(|at| at.span.end.column)));
    record
}
