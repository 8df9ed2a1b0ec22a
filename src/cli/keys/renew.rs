//! `keys rotate` and `keys replace-secret`: a new key for an old one, shown once.

use std::time::Duration;

use clap::Args;

use super::change::expiry;
use super::create::{end, lifetime, show};
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::fleet::WaitArgs;
use crate::cli::output::{Output, OutputArgs};
use crate::cli::record::Record;
use crate::cli::registry::Registry;
use crate::domain::{KeyId, Timestamp};
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
    /// From when on the new key is refused, from now: 90d, 24h, 30m [default: as the old key]
    #[arg(long, value_name = "DURATION", value_parser = lifetime, conflicts_with = "no_expiry")]
    expires_in: Option<Duration>,
    /// The same as a moment: 2030-01-15T12:00:00Z, or 2030-01-15 for its beginning in UTC
    #[arg(long, value_name = "WHEN", value_parser = end, conflicts_with_all = ["no_expiry", "expires_in"])]
    expires_at: Option<Timestamp>,
    /// The new key does not expire
    #[arg(long)]
    no_expiry: bool,
    /// Print the key alone; of a pair id and secret, with a colon between them
    #[arg(long, conflicts_with = "output")]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

/// `keys replace-secret`.
#[derive(Args, Debug)]
pub(in crate::cli) struct ReplaceArgs {
    /// The key's id, which stays
    #[arg(value_name = "ID")]
    id: KeyId,
    /// Print the key alone; of a pair id and secret, with a colon between them
    #[arg(long, conflicts_with = "output")]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

/// Makes a successor and prints it.
pub(super) fn rotate(registry: &dyn Registry, args: RotateArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let retire = if args.until_first_use { Retire::OnFirstUse } else { Retire::AfterGrace };
    let expires_at = expiry(args.expires_in, args.expires_at, args.no_expiry);
    let is_inherited = expires_at.is_none();
    let asked = Rotation { grace: Some(args.grace), retire, expires_at };
    let fresh = registry.rotate_key(args.id, asked)?;
    show(registry, &fresh, args.quiet, args.output.output, console)?;
    if args.quiet || args.output.output == Output::Json {
        return Ok(());
    }
    if let Some(end) = Record(&fresh.record).shown("expires_at") {
        let why =
            if is_inherited { ", as the old one; --expires-in, --expires-at or --no-expiry say otherwise" } else { "" };
        writeln!(console.talk, "The new key expires at {end}{why}.")?;
    }
    let old = registry.key(args.id)?;
    let old = Record(&old);
    match (old.shown("state").as_deref(), old.shown("grace_until")) {
        (Some("active"), Some(until)) => {
            let why = if old.shown("expires_at").as_ref() == Some(&until) { ", when it expires" } else { "" };
            let early = if args.until_first_use { ", or until this one is used" } else { "" };
            writeln!(console.talk, "The old key is accepted until {until}{why}{early}.")?;
        }
        (state, _) => writeln!(console.talk, "The old key is {}.", state.unwrap_or("refused"))?,
    }
    Ok(())
}

/// Draws another secret and prints it.
pub(super) fn replace(registry: &dyn Registry, args: ReplaceArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let fresh = registry.replace_secret(args.id)?;
    show(registry, &fresh, args.quiet, args.output.output, console)
}
