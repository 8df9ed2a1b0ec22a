//! What tests measured, for whoever asks: `PORTCULLIS_TEST_FIGURES` names a file that gets a line for each figure, and
//! `tests/siege/run` makes a table of it.

use std::fmt::Display;
use std::io::Write;

/// Writes a figure down: under which attack, what was measured, what came out, what was asked for, and whether it holds.
pub fn note(attack: &str, figure: &str, measured: impl Display, wanted: &str, holds: bool) {
    let Some(path) = std::env::var_os("PORTCULLIS_TEST_FIGURES") else { return };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("figures can be kept there");
    let holds = if holds { "ok" } else { "FAILED" };
    writeln!(file, "{attack}\t{figure}\t{measured}\t{wanted}\t{holds}").expect("a line can be appended");
}

/// A number of bytes for people.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
