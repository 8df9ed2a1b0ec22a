//! `run`: the gateway.

use std::path::Path;

use super::console::Console;
use super::failure::Failure;
use super::{findings, site};
use crate::app::{self, Options, RunError};
use crate::config;
use crate::telemetry::LogOutput;

/// Runs until the gateway has drained.
///
/// # Errors
/// Whatever keeps it from starting.
pub(super) fn run(named: Option<&Path>, console: &mut Console<'_>) -> Result<(), Failure> {
    let path = site::find(named)?;
    let loaded = config::load(&path, &site::variable);
    let findings = findings::text(&loaded);
    let Some(settings) = loaded.settings else { return Err(Failure::Configuration(findings)) };
    // Warnings do not keep a gateway from running; they are told once.
    console.talk.write_all(findings.as_bytes())?;
    let options = Options { settings, source: Some(path), log: LogOutput::stdout(), announce: Box::new(|_| ()) };
    app::run(options).map_err(refused)
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
