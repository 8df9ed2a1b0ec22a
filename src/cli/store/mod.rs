//! `store`: everything that the store holds in one file, and back.
//!
//! Owns files, modes and names. What a backup holds and what outlives a restore is for `crate::store` to say.

mod backup;
mod file;
mod restore;

use std::path::Path;

use clap::Subcommand;

use super::console::Console;
use super::failure::Failure;
use super::site::Site;

/// Verbs about the store as a whole.
#[derive(Subcommand, Debug)]
pub(super) enum StoreVerb {
    /// Write everything that the store holds into one file, as it is at one moment
    Backup(backup::BackupArgs),
    /// Put what a backup holds into the store; what was revoked since stays revoked
    Restore(restore::RestoreArgs),
}

/// Does it.
pub(super) fn run(config: Option<&Path>, verb: StoreVerb, console: &mut Console<'_>) -> Result<(), Failure> {
    let site = Site::open(config)?;
    match verb {
        StoreVerb::Backup(args) => backup::run(&site, &args, console),
        StoreVerb::Restore(args) => restore::run(&site, &args, console),
    }
}

/// So many of something.
fn counted(count: u64, one: &str, more: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {more}"),
    }
}
