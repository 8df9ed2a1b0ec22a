//! The only room that knows YAML and the environment.
//!
//! Files become a tree with positions ([`load()`]), the tree becomes strict shapes (`file`), the shapes become
//! [`Settings`] (`resolve`). On the way every problem becomes a [`Diagnostic`].

mod dev;
mod diagnostic;
mod effective;
mod file;
mod lint;
mod load;
#[cfg(test)]
mod malformed_tests;
mod node;
mod place;
mod render;
mod resolve;
#[cfg(test)]
mod samples;
mod schema;
mod settings;
mod shape;
mod substitute;
mod traps;

pub use dev::{DevOptions, dev_settings, init_template};
pub use diagnostic::{Code, Diagnostic, Label, Location, Severity};
pub use effective::{MAX_CHANGED_SETTINGS, Origin, REDACTED, changed_settings, effective, effective_text, origins};
pub use load::{Loaded, MAX_FILE_BYTES, MAX_FILES, load, load_text};
pub use place::{Position, SourceFile, Sources, Span};
pub use render::{Colour, json, sarif, text};
pub use schema::{schema, schema_text};
pub use settings::*;
pub(crate) use shape::numbers::parse_duration;
pub use substitute::Environment;
