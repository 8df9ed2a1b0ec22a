//! `run`: the gateway.

use std::path::Path;

use super::console::Console;
use super::failure::Failure;
use super::{findings, site};
use crate::app::{self, Options, RunError};
use crate::config::{self, Settings};
use crate::telemetry::LogOutput;

/// Runs until the gateway has drained.
///
/// # Errors
/// Whatever keeps it from starting.
pub(super) fn run(named: Option<&Path>, console: &mut Console<'_>) -> Result<(), Failure> {
    let path = site::find(named)?;
    let (settings, findings) = read(&path);
    let Some(settings) = settings else { return Err(Failure::Configuration(findings)) };
    // Warnings do not keep a gateway from running; they are told once.
    console.talk.write_all(findings.as_bytes())?;
    let options = Options { settings, source: Some(path), log: LogOutput::stdout(), announce: Box::new(|_| ()) };
    app::run(options).map_err(refused)
}

/// The settings, and what there is to tell of them. Texts and places are let go: of ten thousand routes they were a fifth of
/// all that a gateway held.
fn read(path: &Path) -> (Option<Settings>, String) {
    let loaded = config::load(path, &site::variable);
    let findings = findings::text(&loaded);
    (loaded.settings, findings)
}

/// Why a gateway did not start, as a verb ends with it.
pub(super) fn refused(error: RunError) -> Failure {
    match error {
        RunError::Store(error) => Failure::from(error),
        RunError::Secret(_)
        | RunError::Rules(_)
        | RunError::Upstream { .. }
        | RunError::Tls { .. }
        | RunError::NeedsRestart { .. } => Failure::Configuration(format!("error: {error}\n")),
        RunError::Listen(_) | RunError::System { .. } => Failure::runtime(error.to_string()),
    }
}
