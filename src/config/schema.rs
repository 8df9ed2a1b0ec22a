//! The JSON Schema of a configuration file, for editors; generated from the shapes that read it.

use serde_json::{Value, json};

use super::file::File;
use super::shape::{Definitions, Shape};

/// The schema (draft 2020-12). Deterministic; `config/portcullis.schema.json` is this, indented, with a line end.
pub fn schema() -> Value {
    let mut definitions = Definitions::new();
    let root = File::schema(&mut definitions);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "portcullis configuration",
        "$ref": root["$ref"],
        "$defs": definitions,
    })
}

/// The schema as `portcullis schema` prints it.
pub fn schema_text() -> String {
    format!("{:#}\n", schema())
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
