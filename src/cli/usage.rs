//! `usage`: what keys are used for, and what could be taken from them, without a gateway running. With `--server` on another
//! machine.

use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::console::Console;
use super::failure::Failure;
use super::output::{self, Output, OutputArgs};
use super::registry::ServerArgs;
use crate::domain::time::span_of_text;
use crate::usage::UNUSED_FOR;

/// `usage`.
#[derive(Args, Debug)]
pub(super) struct UsageLine {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    verb: UsageVerb,
}

/// Verbs about usage.
#[derive(Subcommand, Debug)]
pub(super) enum UsageVerb {
    /// Tell which keys are not used, hold more than they use, or would break if report mode ended
    Report(ReportArgs),
}

/// `usage report`.
#[derive(Args, Debug)]
pub(super) struct ReportArgs {
    /// Keys that were not used for so long are unused [default: 30d]
    #[arg(long, value_name = "SPAN", value_parser = span)]
    unused_for: Option<Duration>,
    #[command(flatten)]
    output: OutputArgs,
}

fn span(text: &str) -> Result<Duration, String> {
    span_of_text(text).map_err(|error| format!("it {error}; write 30d, or 12h"))
}

/// Does it.
pub(super) fn run(config: Option<&Path>, line: UsageLine, console: &mut Console<'_>) -> Result<(), Failure> {
    let UsageVerb::Report(args) = line.verb;
    let registry = line.server.open(config, "usage report")?;
    let shown = registry.usage_report(args.unused_for.unwrap_or(UNUSED_FOR))?;
    match args.output.output {
        Output::Json => output::json(console, &shown)?,
        Output::Text => write(&shown, console)?,
    }
    Ok(())
}

/// A table for each part that has something to tell.
fn write(report: &Value, console: &mut Console<'_>) -> std::io::Result<()> {
    match report["counted_since"].as_str() {
        Some(since) => writeln!(
            console.talk,
            "requests are counted since {since}; the latest come with the gateway's next write (`sync.last_used_flush`)"
        )?,
        None => writeln!(console.talk, "no request was counted yet")?,
    }
    output::list(
        console,
        "Keys that are not used",
        &report["unused_keys"],
        &[("ID", "id"), ("NAME", "name"), ("CREATED", "created_at"), ("LAST USED", "last_used_at")],
    )?;
    let all = |holding: &Value| -> Value {
        let words = |field: &str| holding[field].as_array().cloned().unwrap_or_default();
        let roles = words("roles").into_iter().map(|role| json!(format!("role {}", role.as_str().unwrap_or_default())));
        words("scopes").into_iter().chain(roles).collect()
    };
    let row = |key: &Value| {
        json!({
            "id": key["id"], "name": key["name"],
            "excess": all(&key["excess"]), "suggested": all(&key["suggested"]),
        })
    };
    let excess: Value = report["excess_scopes"].as_array().into_iter().flatten().map(row).collect();
    output::list(
        console,
        "Keys that hold more than they use",
        &excess,
        &[("ID", "id"), ("NAME", "name"), ("NOT NEEDED", "excess"), ("GRANT INSTEAD", "suggested")],
    )?;
    let mut rows = Vec::new();
    for rule in report["report_mode"].as_array().into_iter().flatten() {
        let callers = rule["callers"].as_array().map(Vec::as_slice).unwrap_or_default();
        if callers.is_empty() {
            let who = match rule["keys_let_in"].as_u64() {
                Some(0) | None => "no request seen yet".to_owned(),
                Some(1) => "nobody: 1 key was let in".to_owned(),
                Some(keys) => format!("nobody: {keys} keys were let in"),
            };
            rows.push(json!({ "rule": rule["rule"], "who": who }));
        }
        for caller in callers {
            let mut row = caller.clone();
            row["rule"] = rule["rule"].clone();
            row["who"] = if caller["key_id"].is_null() { caller["network"].clone() } else { caller["key_id"].clone() };
            rows.push(row);
        }
    }
    output::list(
        console,
        "Rules in report mode, and who would be refused",
        &Value::from(rows),
        &[
            ("RULE", "rule"),
            ("WHO", "who"),
            ("NAME", "key_name"),
            ("REASON", "reason"),
            ("MISSING", "missing_scopes"),
            ("REQUESTS", "requests"),
            ("LAST SEEN", "last_seen"),
        ],
    )?;
    output::list(
        console,
        "Unusual use",
        &report["events"],
        &[("AT", "at"), ("EVENT", "event"), ("KEY", "key_id"), ("ADDRESS", "address"), ("DETAIL", "detail")],
    )?;
    for list in report["truncated"].as_array().into_iter().flatten() {
        writeln!(console.talk, "there is more in {list} than is shown")?;
    }
    Ok(())
}
