//! `migrate`: the schema of the store.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::console::Console;
use super::failure::Failure;
use super::output::{self, Output, OutputArgs, visible};
use super::site::Site;
use super::vault::check_on_disk;
use crate::store::{self, MigrationStep};

/// `migrate`.
#[derive(Args, Debug)]
pub(super) struct MigrateLine {
    #[command(subcommand)]
    verb: MigrateVerb,
}

#[derive(Subcommand, Debug)]
enum MigrateVerb {
    /// List the steps of the schema, and which of them the store has taken
    Status(StatusArgs),
    /// Take the steps that are missing; the first makes the tables
    Up,
}

#[derive(Args, Debug)]
struct StatusArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// Looks at the schema, or brings it up to date.
///
/// # Errors
/// [`Failure::Usage`] for a store in memory; [`Failure::Store`] when it cannot be asked, or is newer than this binary.
pub(super) fn run(config: Option<&Path>, line: MigrateLine, console: &mut Console<'_>) -> Result<(), Failure> {
    let site = Site::open(config)?;
    check_on_disk(&site, "migrate")?;
    match line.verb {
        MigrateVerb::Status(args) => status(&store::migrations(&site.settings.store)?, &args, console),
        MigrateVerb::Up => {
            let taken = store::migrate(&site.settings.store)?;
            let said = match taken {
                0 => "the schema is up to date; there was nothing to do".to_owned(),
                1 => "1 step taken; the schema is up to date".to_owned(),
                steps => format!("{steps} steps taken; the schema is up to date"),
            };
            Ok(writeln!(console.out, "{said}")?)
        }
    }
}

fn status(steps: &[MigrationStep], args: &StatusArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    match args.output.output {
        Output::Json => {
            let record = |step: &MigrationStep| {
                let MigrationStep { version, name, applied_at } = step;
                json!({ "version": version, "name": name, "applied_at": applied_at })
            };
            output::json(console, &Value::Array(steps.iter().map(record).collect()))?;
        }
        Output::Text => {
            let row = |step: &MigrationStep| {
                let at = step.applied_at.map_or_else(|| "missing".to_owned(), |at| at.to_string());
                vec![step.version.to_string(), visible(&step.name), at]
            };
            output::table(console, &["VERSION", "NAME", "APPLIED"], steps.iter().map(row).collect())?;
            if steps.iter().any(|step| step.applied_at.is_none()) {
                writeln!(console.talk, "`portcullis migrate up` takes the steps that are missing")?;
            }
        }
    }
    Ok(())
}
