//! `schema`: the JSON Schema of the configuration, for editors.

use super::console::Console;
use super::failure::Failure;
use crate::config;

/// Prints it.
pub(super) fn run(console: &mut Console<'_>) -> Result<(), Failure> {
    Ok(console.out.write_all(config::schema_text().as_bytes())?)
}
