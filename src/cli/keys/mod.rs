//! `keys`: the whole life of a key, without a gateway running; one that runs follows by itself. With `--server` on another
//! machine.

mod change;
mod create;
mod import;
mod list;
mod progress;
mod record;
mod renew;
mod show;
mod switch;
mod usage;
mod verify;

use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::console::Console;
use super::failure::Failure;
use super::fleet;
use super::registry::ServerArgs;

pub(super) use create::{kind, name, note};
pub(super) use switch::Switch;

/// `keys`.
#[derive(Args, Debug)]
pub(super) struct KeysLine {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    verb: KeysVerb,
}

/// Verbs about keys.
#[derive(Subcommand, Debug)]
pub(super) enum KeysVerb {
    /// Make a key and show it once
    Create(Box<create::CreateArgs>),
    /// List keys
    List(Box<list::ListArgs>),
    /// Show what is known about a key
    Show(show::ShowArgs),
    /// Show what a key was used for, how often and from where
    Usage(usage::UsageArgs),
    /// Change what is said about a key; what is left out stays
    Update(Box<change::UpdateArgs>),
    /// Make a successor and show it once; the old key is accepted for a while
    Rotate(renew::RotateArgs),
    /// Give a key another secret and show it once; the old one is refused at once
    ReplaceSecret(renew::ReplaceArgs),
    /// Accept a key that was disabled
    Enable(switch::SwitchArgs),
    /// Refuse a key until it is enabled again
    Disable(switch::SwitchArgs),
    /// Refuse a key for good
    Revoke(switch::SwitchArgs),
    /// Say what the key on standard input is, and whether it is accepted
    Verify(verify::VerifyArgs),
    /// Take over keys that were made elsewhere
    Import(import::ImportArgs),
}

impl KeysVerb {
    /// How long it waits for the fleet; none: not at all.
    fn patience(&self) -> Option<Duration> {
        match self {
            Self::Create(args) => args.wait.patience(),
            Self::Update(args) => args.wait.patience(),
            Self::Rotate(args) => args.wait.patience(),
            Self::ReplaceSecret(args) => args.wait.patience(),
            Self::Enable(args) | Self::Disable(args) | Self::Revoke(args) => args.wait.patience(),
            Self::Import(args) => args.wait.patience(),
            Self::List(_) | Self::Show(_) | Self::Usage(_) | Self::Verify(_) => None,
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "keys create",
            Self::List(_) => "keys list",
            Self::Show(_) => "keys show",
            Self::Usage(_) => "keys usage",
            Self::Update(_) => "keys update",
            Self::Rotate(_) => "keys rotate",
            Self::ReplaceSecret(_) => "keys replace-secret",
            Self::Enable(_) => "keys enable",
            Self::Disable(_) => "keys disable",
            Self::Revoke(_) => "keys revoke",
            Self::Verify(_) => "keys verify",
            Self::Import(_) => "keys import",
        }
    }
}

/// Does it.
pub(super) fn run(config: Option<&Path>, line: KeysLine, console: &mut Console<'_>) -> Result<(), Failure> {
    let registry = line.server.open_to_change(config, line.verb.name(), line.verb.patience())?;
    let registry = &*registry;
    let done = match line.verb {
        KeysVerb::Create(args) => create::run(registry, *args, console),
        KeysVerb::List(args) => list::run(registry, *args, console),
        KeysVerb::Show(args) => show::run(registry, args, console),
        KeysVerb::Usage(args) => usage::run(registry, args, console),
        KeysVerb::Update(args) => change::run(registry, *args, console),
        KeysVerb::Rotate(args) => renew::rotate(registry, args, console),
        KeysVerb::ReplaceSecret(args) => renew::replace(registry, args, console),
        KeysVerb::Enable(args) => switch::run(registry, args, Switch::Enable, console),
        KeysVerb::Disable(args) => switch::run(registry, args, Switch::Disable, console),
        KeysVerb::Revoke(args) => switch::run(registry, args, Switch::Revoke, console),
        KeysVerb::Verify(args) => verify::run(registry, args, console),
        KeysVerb::Import(args) => import::run(registry, args, console),
    };
    done.and_then(|()| fleet::tell(registry, console))
}
