//! `config show`: the configuration as it is written, or as it holds.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::console::Console;
use super::failure::Failure;
use super::output::{self, Output, OutputArgs};
use super::site::Site;
use crate::config;

/// Verbs about the configuration.
#[derive(Subcommand, Debug)]
pub(super) enum ConfigVerb {
    /// Print it; secrets are left out
    Show(ShowArgs),
}

/// `config show`.
#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    /// Every setting that holds, defaults included, instead of what the files say
    #[arg(long)]
    effective: bool,
    /// Every setting that holds with the place it comes from
    #[arg(long)]
    origin: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Prints the configuration.
pub(super) fn run(config: Option<&Path>, verb: ConfigVerb, console: &mut Console<'_>) -> Result<(), Failure> {
    let ConfigVerb::Show(args) = verb;
    let site = Site::open(config)?;
    if args.origin {
        return show_origins(&site, args.output.output, console);
    }
    match (args.effective, args.output.output) {
        (true, Output::Text) => console.out.write_all(config::effective_text(&site.settings).as_bytes())?,
        (true, Output::Json) => output::json(console, &to_json(&config::effective(&site.settings)))?,
        (false, Output::Text) => show_files(&site, console)?,
        (false, Output::Json) => {
            let files = site.sources.files().iter();
            let records =
                files.map(|file| json!({ "file": &*file.name, "text": file.shown_lines(1, u32::MAX) })).collect();
            output::json(console, &Value::Array(records))?;
        }
    }
    Ok(())
}

/// The files as written. With several, a comment above each says which it is.
fn show_files(site: &Site, console: &mut Console<'_>) -> Result<(), Failure> {
    let files = site.sources.files();
    for file in files {
        if files.len() > 1 {
            writeln!(console.out, "# {}", file.name)?;
        }
        let text = file.shown_lines(1, u32::MAX);
        console.out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            writeln!(console.out)?;
        }
    }
    Ok(())
}

fn show_origins(site: &Site, format: Output, console: &mut Console<'_>) -> Result<(), Failure> {
    let origins = config::origins(&site.settings, &site.sources);
    match format {
        Output::Text => {
            let row = |origin: &config::Origin| {
                let source = origin.source.as_ref().map_or_else(|| "default".to_owned(), ToString::to_string);
                vec![origin.path.clone(), to_json(&origin.value).to_string(), source]
            };
            output::table(console, &["SETTING", "VALUE", "FROM"], origins.iter().map(row).collect())?;
        }
        Output::Json => {
            let record = |origin: &config::Origin| {
                json!({
                    "path": origin.path,
                    "value": to_json(&origin.value),
                    "file": origin.source.as_ref().map(|source| &*source.file),
                    "line": origin.source.as_ref().map(|source| source.line),
                    "column": origin.source.as_ref().map(|source| source.column),
                })
            };
            output::json(console, &Value::Array(origins.iter().map(record).collect()))?;
        }
    }
    Ok(())
}

/// A tree of maps with text keys, lists and scalars is JSON as much as it is YAML.
fn to_json(value: &serde_yaml::Value) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}
