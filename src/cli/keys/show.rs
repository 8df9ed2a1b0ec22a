//! `keys show`.

use clap::Args;

use super::record::Shown;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::output::OutputArgs;
use crate::cli::site::Site;
use crate::cli::vault::Vault;
use crate::domain::{KeyId, time};
use crate::store::OpenMode;

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
pub(super) fn run(site: &Site, args: ShowArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let record = Vault::open(site, OpenMode::Create, "keys show")?.find(args.id)?;
    Ok(Shown { record: &record, now: time::now() }.write(args.output.output, console)?)
}
