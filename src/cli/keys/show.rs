//! `keys show`.

use clap::Args;

use super::record;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::output::OutputArgs;
use crate::cli::registry::Registry;
use crate::domain::KeyId;

/// `keys show`.
#[derive(Args, Debug)]
pub(in crate::cli) struct ShowArgs {
    /// The key's id
    #[arg(value_name = "ID")]
    id: KeyId,
    #[command(flatten)]
    output: OutputArgs,
}

/// Prints the record.
pub(super) fn run(registry: &dyn Registry, args: ShowArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let key = registry.key(args.id)?;
    Ok(record::write(&key, args.output.output, console)?)
}
