//! Findings as SARIF 2.1.0 (OASIS), which code review tools show beside the lines they are about.

use serde_json::{Value, json};

use crate::config::diagnostic::{Code, Diagnostic, Location, Severity};

/// A SARIF log with one run. Every kind of finding is a rule of it, found or not.
pub fn sarif(diagnostics: &[Diagnostic]) -> Value {
    let rules: Vec<Value> = Code::ALL
        .iter()
        .map(|code| {
            json!({
                "id": code.word(),
                "shortDescription": { "text": code.summary() },
                "defaultConfiguration": { "level": level(code.severity()) },
            })
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "portcullis",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            } },
            "columnKind": "unicodeCodePoints",
            "results": diagnostics.iter().map(result).collect::<Vec<_>>(),
        }],
    })
}

const fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn result(diagnostic: &Diagnostic) -> Value {
    let mut text = diagnostic.message.clone();
    if let Some(fix) = &diagnostic.fix {
        text = format!("{text}. {fix}.");
    }
    let related: Vec<Value> = diagnostic
        .labels
        .iter()
        .map(|label| {
            let mut place = location(&label.at, "");
            place["message"] = json!({ "text": label.text });
            place
        })
        .collect();
    let locations: Vec<Value> = diagnostic.at.iter().map(|at| location(at, &diagnostic.path)).collect();
    json!({
        "ruleId": diagnostic.code.word(),
        "ruleIndex": Code::ALL.iter().position(|code| *code == diagnostic.code),
        "level": level(diagnostic.severity()),
        "message": { "text": text },
        "locations": locations,
        "relatedLocations": related,
    })
}

fn location(at: &Location, path: &str) -> Value {
    let mut location = json!({ "physicalLocation": {
        "artifactLocation": { "uri": uri(&at.file) },
        "region": {
            "startLine": at.span.start.line,
            "startColumn": at.span.start.column,
            "endLine": at.span.end.line,
            "endColumn": at.span.end.column,
        },
    } });
    if !path.is_empty() {
        location["logicalLocations"] = json!([{ "fullyQualifiedName": path }]);
    }
    location
}

/// A file name as a relative reference: everything that is not unreserved or a slash is escaped (RFC 3986 §2.1).
fn uri(name: &str) -> String {
    use std::fmt::Write as _;
    let mut uri = String::with_capacity(name.len());
    for byte in name.strip_prefix("./").unwrap_or(name).bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
    }
    uri
}
