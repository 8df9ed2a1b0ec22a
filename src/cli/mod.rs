//! The command line: verbs, flags, exit codes (contract §1).
//!
//! Owns what is typed and what is answered; one file a verb. Results go to standard output, talk to standard error.
//! Start at [`run()`]. Must not decide anything that a running gateway decides too: `explain` and `routes test` ask the
//! gate.

mod audit;
mod check;
mod completions;
mod config_show;
mod console;
mod curl;
mod dev;
mod explain;
mod failure;
mod findings;
mod fleet;
mod health;
mod init;
mod keys;
mod local;
mod migrate;
mod nodes;
mod output;
mod owners;
mod record;
mod registry;
mod reload;
mod routes;
mod run;
mod schema;
mod site;
mod store;
mod usage;
mod vault;
mod version;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::console::Console;
use self::failure::Failure;
use crate::app::forbid_core_files;
use crate::domain::without_keys;

/// An authentication gateway: API keys and scopes in front of the APIs you already run.
#[derive(Parser, Debug)]
#[command(name = "portcullis", version, max_term_width = 100, propagate_version = false)]
struct CommandLine {
    /// The configuration [default: ./portcullis.yaml, then /etc/portcullis/portcullis.yaml]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Try it: one command, three curl lines, nothing on disk
    Dev(dev::DevArgs),
    /// Write a configuration to start from, and make the store and the first management key
    Init(init::InitArgs),
    /// Find every problem of the configuration, without starting anything
    #[command(visible_alias = "validate")]
    Check(check::CheckArgs),
    /// Run the gateway
    Run,
    /// Make the running gateway read its configuration again
    Reload(reload::ReloadArgs),
    /// Say which rule decides a request and what the client would be answered, or what became of one a moment ago
    Explain(explain::ExplainArgs),
    /// Create, list, change and rotate keys; a running gateway follows by itself
    Keys(keys::KeysLine),
    /// Manage the accounts that keys belong to
    Owners(owners::OwnersLine),
    /// Find out which keys are not used, hold too much, or would break if report mode ended
    Usage(usage::UsageLine),
    /// Read the trail of changes, and find out whether it is as it was written
    Audit(audit::AuditLine),
    /// List the rules that hold, or test them against expectations
    #[command(subcommand)]
    Routes(routes::RoutesVerb),
    /// Ask the running gateway whether it is ready; ends with 0 or 1, for health checks of containers
    Health(health::HealthArgs),
    /// List the gateways that enforce keys, and how far behind the store each is
    Nodes(nodes::NodesLine),
    /// Back everything that the store holds up, or put it back, while gateways run
    #[command(subcommand)]
    Store(store::StoreVerb),
    /// Look at the schema of the store, or bring it up to date
    Migrate(migrate::MigrateLine),
    /// Show the configuration
    #[command(subcommand)]
    Config(config_show::ConfigVerb),
    /// Print the JSON Schema of the configuration
    Schema,
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Print the version
    Version(version::VersionArgs),
}

/// Runs the command line `args`, the program's name first, and says how the process ends.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Before anything secret is read: most verbs see keys, or peppers, or the store's files.
    forbid_core_files();
    let line = match CommandLine::try_parse_from(args) {
        Ok(line) => line,
        // Help and version are results; everything else is talk and exit code 2. Nobody may be there to read it.
        Err(refused) => {
            let _unread = if refused.exit_code() == 0 {
                refused.print()
            } else {
                let told = refused.render().ansi().to_string();
                anstream::stderr().write_all(without_keys(&told).as_bytes())
            };
            return ExitCode::from(u8::try_from(refused.exit_code()).unwrap_or(2));
        }
    };
    let ended = console::with_standard_streams(|console| {
        let answer = answer(line, console);
        if let Err(failure) = &answer {
            // Results that were found belong before the reason why there are no more.
            console.out.flush()?;
            console.talk.write_all(without_keys(&failure.to_string()).as_bytes())?;
        }
        Ok(answer)
    });
    match ended {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => failure.exit_code(),
        Err(error) => Failure::from(error).exit_code(),
    }
}

fn answer(line: CommandLine, console: &mut Console<'_>) -> Result<(), Failure> {
    let config = line.config.as_deref();
    match line.verb {
        Verb::Dev(args) => dev::run(args, console),
        Verb::Init(args) => init::run(args, console),
        Verb::Run => run::run(config, console),
        Verb::Reload(args) => reload::run(config, args, console),
        Verb::Explain(args) => explain::run(config, args, console),
        Verb::Check(args) => check::run(config, args, console),
        Verb::Keys(line) => keys::run(config, line, console),
        Verb::Owners(line) => owners::run(config, line, console),
        Verb::Usage(line) => usage::run(config, line, console),
        Verb::Audit(line) => audit::run(config, line, console),
        Verb::Routes(verb) => routes::run(config, verb, console),
        Verb::Health(args) => health::run(config, &args, console),
        Verb::Nodes(line) => nodes::run(config, line, console),
        Verb::Store(verb) => store::run(config, verb, console),
        Verb::Migrate(line) => migrate::run(config, line, console),
        Verb::Config(verb) => config_show::run(config, verb, console),
        Verb::Schema => schema::run(console),
        Verb::Completions(args) => completions::run(args, console),
        Verb::Version(args) => version::run(args, console),
    }
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
