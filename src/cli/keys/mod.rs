//! `keys`: the whole life of a key, without a gateway running; one that runs follows by itself.

mod change;
mod create;
mod import;
mod list;
mod record;
mod renew;
mod show;
mod switch;
mod usage;
mod verify;

use std::path::Path;

use clap::Subcommand;

use super::console::Console;
use super::failure::Failure;
use super::site::Site;

pub(super) use create::{kind, name, note, quota, rate_limit};
pub(super) use record::{quota_text, rate_text};

/// Verbs about keys.
#[derive(Subcommand, Debug)]
pub(super) enum KeysVerb {
    /// Make a key and show it once
    Create(Box<create::CreateArgs>),
    /// List keys
    List(list::ListArgs),
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

/// Does it.
pub(super) fn run(config: Option<&Path>, verb: KeysVerb, console: &mut Console<'_>) -> Result<(), Failure> {
    let site = Site::open(config)?;
    match verb {
        KeysVerb::Create(args) => create::run(&site, *args, console),
        KeysVerb::List(args) => list::run(&site, args, console),
        KeysVerb::Show(args) => show::run(&site, args, console),
        KeysVerb::Usage(args) => usage::run(&site, args, console),
        KeysVerb::Update(args) => change::run(&site, *args, console),
        KeysVerb::Rotate(args) => renew::rotate(&site, args, console),
        KeysVerb::ReplaceSecret(args) => renew::replace(&site, args, console),
        KeysVerb::Enable(args) => switch::run(&site, args, switch::Switch::Enable, console),
        KeysVerb::Disable(args) => switch::run(&site, args, switch::Switch::Disable, console),
        KeysVerb::Revoke(args) => switch::run(&site, args, switch::Switch::Revoke, console),
        KeysVerb::Verify(args) => verify::run(&site, args, console),
        KeysVerb::Import(args) => import::run(&site, args, console),
    }
}
