//! `version`.

use clap::Args;
use serde_json::json;

use super::console::Console;
use super::failure::Failure;
use super::output::{self, Output, OutputArgs};

/// `version`.
#[derive(Args, Debug)]
pub(super) struct VersionArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// Prints name and version.
pub(super) fn run(args: VersionArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    match args.output.output {
        Output::Text => writeln!(console.out, "portcullis {version}")?,
        Output::Json => output::json(console, &json!({ "name": "portcullis", "version": version }))?,
    }
    Ok(())
}
