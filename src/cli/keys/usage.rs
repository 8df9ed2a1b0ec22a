//! `keys usage`.

use std::time::Duration;

use clap::Args;

use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, OutputArgs, cell};
use crate::cli::record::Record;
use crate::cli::registry::Registry;
use crate::domain::{KeyId, time};
use crate::usage::Period;

/// `keys usage`.
#[derive(Args, Debug)]
pub(in crate::cli) struct UsageArgs {
    /// The key's id
    #[arg(value_name = "ID")]
    id: KeyId,
    /// From then on: 2026-01-15T12:00:00Z, 2026-01-15, or 24h for as long ago [default: 7d]
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Until then [default: now]
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Whoever asks about a time that ended so recently may miss requests that are not written yet.
const LATEST: Duration = Duration::from_secs(60);

/// Prints requests by hour or day, the newest first, below what is known of the whole time.
pub(super) fn run(registry: &dyn Registry, args: UsageArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let now = time::now();
    let period = Period::read(args.since.as_deref(), args.until.as_deref(), now)
        .map_err(|(field, problem)| Failure::usage(format!("--{field}: it {problem}")))?;
    let usage = registry.key_usage(args.id, period)?;
    if args.output.output == Output::Json {
        return Ok(output::json(console, &usage)?);
    }
    let name = match registry.key(args.id) {
        Ok(key) => Record(&key).shown("name").unwrap_or_default(),
        // Who may read what keys are used for need not be let see them.
        Err(Failure::Refused(_)) => "-".to_owned(),
        Err(failure) => return Err(failure),
    };
    let (totals, seen) = (&usage["totals"], &usage["last_seen"]);
    let counts = ["allowed", "refused", "reported"].map(|result| format!("{} {result}", totals[result]));
    let fields = [
        ("key", format!("{} {name}", args.id)),
        ("between", format!("{} and {}", period.since, period.until)),
        ("requests", format!("{}: {}", totals["requests"], counts.join(", "))),
        ("last seen", format!("{} from {}", cell(&seen["at"]), cell(&seen["address"]))),
        ("user agent", cell(&seen["user_agent"])),
    ];
    output::fields(console, &fields)?;
    if period.until >= now.minus(LATEST) {
        writeln!(console.talk, "the latest requests come with the gateway's next write (`sync.last_used_flush`)")?;
    }
    output::list(
        console,
        "Networks",
        &usage["networks"],
        &[("NETWORK", "network"), ("FIRST SEEN", "first_seen"), ("LAST SEEN", "last_seen")],
    )?;
    output::list(
        console,
        "Unusual use",
        &usage["events"],
        &[("AT", "at"), ("EVENT", "event"), ("ADDRESS", "address"), ("DETAIL", "detail")],
    )?;
    output::list(
        console,
        "Requests",
        &usage["buckets"],
        &[
            ("BEGINS", "begins"),
            ("SPAN", "span"),
            ("RULE", "rule"),
            ("STATUS", "status"),
            ("RESULT", "result"),
            ("REQUESTS", "requests"),
        ],
    )?;
    if usage["truncated"] == true {
        writeln!(console.talk, "there is more; ask for less time with --since and --until")?;
    }
    Ok(())
}
