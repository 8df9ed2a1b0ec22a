//! `completions`: what a shell needs to complete our verbs and flags.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::CommandLine;
use super::console::Console;
use super::failure::Failure;

/// `completions`.
#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// The shell it is for
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script.
pub(super) fn run(args: CompletionsArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    // Into memory first: the generator panics where a pipe is closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut CommandLine::command(), "portcullis", &mut script);
    Ok(console.out.write_all(&script)?)
}
