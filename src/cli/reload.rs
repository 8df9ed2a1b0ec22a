//! `reload`: asks the running gateway to read its configuration again.

use std::path::Path;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::console::Console;
use super::failure::Failure;
use super::local;
use super::output::{self, Output, OutputArgs, visible};

/// `reload`.
#[derive(Args, Debug)]
pub(super) struct ReloadArgs {
    /// Only say which routes would demand something else, and which keys would lose access
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// What the gateway answers.
#[derive(Deserialize, Debug)]
struct Report {
    ok: bool,
    changed_routes: Vec<String>,
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
    let Report { ok, changed_routes, losing_keys, problems } = report;
    if args.output.output == Output::Json {
        let record: Value = json!({
            "ok": ok,
            "changed_routes": changed_routes,
            "losing_keys": losing_keys,
            "problems": problems,
        });
        return Ok(output::json(console, &record)?);
    }
    if !ok {
        return Ok(());
    }
    let would = |now: &'static str, then: &'static str| if args.dry_run { then } else { now };
    if changed_routes.is_empty() {
        writeln!(
            console.out,
            "{}",
            would("reloaded; no route demands anything else", "no route would demand anything else")
        )?;
    } else {
        writeln!(console.out, "{}", would("reloaded; these routes changed:", "these routes would change:"))?;
    }
    for route in changed_routes {
        writeln!(console.out, "  {}", visible(route))?;
    }
    if !losing_keys.is_empty() {
        writeln!(console.out, "{}", would("these keys lost access:", "these keys would lose access:"))?;
    }
    for key in losing_keys {
        writeln!(console.out, "  {}", visible(key))?;
    }
    Ok(())
}
