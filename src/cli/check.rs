//! `check`, also called `validate`: every problem of the configuration, without starting anything.

use std::path::Path;

use clap::{Args, ValueEnum};

use super::console::Console;
use super::failure::Failure;
use super::output;
use super::{findings, site};
use crate::config::{self, Loaded, Severity};

/// `check`.
#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// End with exit code 6 when there are warnings
    #[arg(long)]
    strict: bool,
    /// How findings are written
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// How findings are written.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    /// For people, with excerpts.
    Text,
    /// For scripts: an array with one record a finding.
    Json,
    /// For code hosts (SARIF 2.1.0).
    Sarif,
}

/// Checks, and prints what was found.
///
/// # Errors
/// [`Failure::Configuration`] when there are errors, [`Failure::Warnings`] when there are warnings and `--strict`.
pub(super) fn run(config: Option<&Path>, args: CheckArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let loaded = site::load(config)?;
    match args.format {
        Format::Text => {
            console.out.write_all(findings::text(&loaded).as_bytes())?;
            if let (Some(settings), true) = (&loaded.settings, loaded.diagnostics.is_empty()) {
                writeln!(console.out, "{}: {}", show_files(&loaded), show_size(settings))?;
            }
        }
        Format::Json => output::json(console, &config::json(&loaded.diagnostics))?,
        Format::Sarif => output::json(console, &config::sarif(&loaded.diagnostics))?,
    }
    if loaded.settings.is_none() {
        return Err(Failure::Configuration(String::new()));
    }
    if args.strict && findings::count(&loaded.diagnostics, Severity::Warning) > 0 {
        return Err(Failure::Warnings);
    }
    Ok(())
}

fn show_files(loaded: &Loaded) -> String {
    let files = loaded.sources.files();
    let main = files.first().map_or("", |file| &*file.name);
    match files.len() {
        0 | 1 => main.to_owned(),
        2 => format!("{main} and 1 included file"),
        count => format!("{main} and {} included files", count - 1),
    }
}

fn show_size(settings: &config::Settings) -> String {
    let rules: usize = settings.gate.routes.iter().map(|route| route.methods.len()).sum();
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    format!(
        "no problems ({}, {}, {})",
        plural(settings.gate.routes.len(), "route"),
        plural(rules, "rule"),
        plural(settings.gate.scopes.len(), "scope")
    )
}
