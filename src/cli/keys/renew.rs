//! `keys rotate` and `keys replace-secret`: a new key for an old one, shown once.

use clap::Args;

use super::create::show;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, OutputArgs};
use crate::cli::record::Record;
use crate::cli::registry::Registry;
use crate::domain::KeyId;
use crate::manage::{Retire, Rotation};

/// `keys rotate`.
#[derive(Args, Debug)]
pub(in crate::cli) struct RotateArgs {
    /// The id of the key to be replaced
    #[arg(value_name = "ID")]
    id: KeyId,
    /// How long the old key is still accepted: 24h, 7d; 0 refuses it at once
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    grace: String,
    /// Refuse the old key as soon as the new one is used
    #[arg(long)]
    until_first_use: bool,
    /// Print the key alone
    #[arg(long, conflicts_with = "output")]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// `keys replace-secret`.
#[derive(Args, Debug)]
pub(in crate::cli) struct ReplaceArgs {
    /// The key's id, which stays
    #[arg(value_name = "ID")]
    id: KeyId,
    /// Print the key alone
    #[arg(long, conflicts_with = "output")]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Makes a successor and prints it.
pub(super) fn rotate(registry: &dyn Registry, args: RotateArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let retire = if args.until_first_use { Retire::OnFirstUse } else { Retire::AfterGrace };
    let asked = Rotation { grace: Some(args.grace), retire, expires_at: None };
    let fresh = registry.rotate_key(args.id, asked)?;
    show(registry, &fresh, args.quiet, args.output.output, console)?;
    if args.quiet || args.output.output == Output::Json {
        return Ok(());
    }
    let old = registry.key(args.id)?;
    if let Some(until) = Record(&old).shown("grace_until") {
        let early = if args.until_first_use { ", or until this one is used" } else { "" };
        writeln!(console.talk, "The old key is accepted until {until}{early}.")?;
    }
    Ok(())
}

/// Draws another secret and prints it.
pub(super) fn replace(registry: &dyn Registry, args: ReplaceArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let fresh = registry.replace_secret(args.id)?;
    show(registry, &fresh, args.quiet, args.output.output, console)
}
