//! `routes`: the rules that hold, and tests of what they decide.

mod expectations;
mod list;
mod test;

use std::path::Path;

use clap::Subcommand;

use super::console::Console;
use super::failure::Failure;
use super::site::Site;

/// Verbs about routes.
#[derive(Subcommand, Debug)]
pub(super) enum RoutesVerb {
    /// List the rules that hold, one a line
    List(list::ListArgs),
    /// Hold the rules to a file of expectations
    Test(test::TestArgs),
}

/// Does it.
pub(super) fn run(config: Option<&Path>, verb: RoutesVerb, console: &mut Console<'_>) -> Result<(), Failure> {
    let site = Site::open(config)?;
    match verb {
        RoutesVerb::List(args) => list::run(&site, args, console),
        RoutesVerb::Test(args) => test::run(&site, args, console),
    }
}
