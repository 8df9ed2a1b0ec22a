//! `reload`: asks the running gateway to read its configuration again.

use std::path::Path;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::console::Console;
use super::failure::Failure;
use super::local;
use super::output::{self, Output, OutputArgs, visible};
use crate::config::MAX_CHANGED_SETTINGS;

/// `reload`.
#[derive(Args, Debug)]
pub(super) struct ReloadArgs {
    /// Only say which routes would demand something else, which settings would differ, and which keys would lose access
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// What the gateway answers. One of an older version does not name its file, nor settings.
#[derive(Deserialize, Debug)]
struct Report {
    ok: bool,
    file: Option<String>,
    changed_routes: Vec<String>,
    #[serde(default)]
    changed_settings: Vec<String>,
    losing_keys: Vec<String>,
    problems: Vec<String>,
}

/// Asks, and says how it went.
///
/// # Errors
/// [`Failure::Configuration`] when the gateway refuses the file; [`Failure::Runtime`] when it cannot be reached.
pub(super) fn run(named: Option<&Path>, args: ReloadArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let report: Report = local::ask(named, &json!({ "verb": "reload", "dry_run": args.dry_run }))?;
    show(&report, &args, console)?;
    if report.ok {
        return Ok(());
    }
    let problems: String = report.problems.iter().map(|problem| format!("error: {}\n", visible(problem))).collect();
    let consequence = "The configuration was not taken over; the old one stays in force.\n";
    Err(Failure::Configuration(problems + if args.dry_run { "" } else { consequence }))
}

fn show(report: &Report, args: &ReloadArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let Report { ok, file, changed_routes, changed_settings, losing_keys, problems } = report;
    if args.output.output == Output::Json {
        let record: Value = json!({
            "ok": ok,
            "file": file,
            "changed_routes": changed_routes,
            "changed_settings": changed_settings,
            "losing_keys": losing_keys,
            "problems": problems,
        });
        return Ok(output::json(console, &record)?);
    }
    if !ok {
        return Ok(());
    }
    // The gateway reads its own file, whichever led to its socket.
    let file = visible(file.as_deref().unwrap_or("the configuration"));
    let (done, demand, differ, lose) = match args.dry_run {
        true => {
            (format!("{file} could be taken over"), "would demand something else", "would change", "would lose access")
        }
        false => (format!("reloaded {file}"), "demand something else", "changed", "lost access"),
    };
    match changed_routes.len() {
        0 => writeln!(console.out, "{done}; no route demands anything else")?,
        _ => writeln!(console.out, "{done}")?,
    }
    for (what, became, names) in
        [("routes", demand, changed_routes), ("settings", differ, changed_settings), ("keys", lose, losing_keys)]
    {
        if names.is_empty() {
            continue;
        }
        writeln!(console.out, "these {what} {became}:")?;
        for name in names {
            writeln!(console.out, "  {}", visible(name))?;
        }
        if names.len() >= MAX_CHANGED_SETTINGS {
            writeln!(console.out, "  and perhaps more")?;
        }
    }
    Ok(())
}
