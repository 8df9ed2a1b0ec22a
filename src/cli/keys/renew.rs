//! `keys rotate` and `keys replace-secret`: a new key for an old one, shown once.

use clap::Args;

use super::create::show;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, OutputArgs};
use crate::cli::site::Site;
use crate::cli::vault::{Vault, local_actor};
use crate::domain::{KeyId, KeyRecord, time};
use crate::manage::{Authority, Desk, Made, Retire, Rotation};
use crate::store::{Command, OpenMode};

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
pub(super) fn rotate(site: &Site, args: RotateArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let retire = if args.until_first_use { Retire::OnFirstUse } else { Retire::AfterGrace };
    let asked = Rotation { grace: Some(args.grace), retire, expires_at: None };
    let vault = Vault::open(site, OpenMode::Create, "keys rotate")?;
    let authority = Authority::Local(local_actor());
    let desk = Desk { store: vault.store(), settings: &site.settings.gate, authority: &authority, now: time::now() };
    let made = vault.wait(desk.make_successor(args.id, asked))?;
    let until = match &made.command {
        Command::Rotate { grace_until, .. } => Some(*grace_until),
        _ => None,
    };
    store_and_show(site, &vault, &desk, made, args.quiet, args.output.output, console)?;
    if let (Some(until), false, Output::Text) = (until, args.quiet, args.output.output) {
        let early = if args.until_first_use { ", or until this one is used" } else { "" };
        writeln!(console.talk, "The old key is accepted until {until}{early}.")?;
    }
    Ok(())
}

/// Draws another secret and prints it.
pub(super) fn replace(site: &Site, args: ReplaceArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let vault = Vault::open(site, OpenMode::Create, "keys replace-secret")?;
    let authority = Authority::Local(local_actor());
    let desk = Desk { store: vault.store(), settings: &site.settings.gate, authority: &authority, now: time::now() };
    let made = vault.wait(desk.make_secret(args.id))?;
    store_and_show(site, &vault, &desk, made, args.quiet, args.output.output, console)
}

fn store_and_show(
    site: &Site,
    vault: &Vault,
    desk: &Desk<'_>,
    made: Made,
    quiet: bool,
    output: Output,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let Made { record, key, command } = made;
    let revision = vault.wait(desk.submit(command, None))?.unwrap_or_default();
    show(site, &KeyRecord { revision, ..record }, &key, quiet, output, console)
}
