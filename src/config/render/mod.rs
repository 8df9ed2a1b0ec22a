//! Diagnostics for people (text), scripts (JSON) and code review (SARIF 2.1.0).
//!
//! Owns how findings are shown. Must not know how they are found.

mod json;
mod sarif;
mod text;

pub use json::json;
pub use sarif::sarif;
pub use text::{Colour, text};

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
