//! `keys usage`.

use clap::Args;
use serde_json::Value;

use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, OutputArgs, cell};
use crate::cli::site::Site;
use crate::cli::vault::Vault;
use crate::domain::{KeyId, time};
use crate::store::OpenMode;
use crate::usage::{Period, key_usage};

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

/// Prints requests by hour or day, the newest first, below what is known of the whole time.
pub(super) fn run(site: &Site, args: UsageArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let period = Period::read(args.since.as_deref(), args.until.as_deref(), time::now())
        .map_err(|(field, problem)| Failure::usage(format!("--{field}: it {problem}")))?;
    let vault = Vault::open(site, OpenMode::Existing, "keys usage")?;
    let record = vault.find(args.id)?;
    let usage = vault.ask(|store| Box::pin(key_usage(store, record.id, period)))?;
    if args.output.output == Output::Json {
        return Ok(output::json(console, &usage)?);
    }
    let (totals, seen) = (&usage["totals"], &usage["last_seen"]);
    let counts = ["allowed", "refused", "reported"].map(|result| format!("{} {result}", totals[result]));
    let fields = [
        ("key", format!("{} {}", record.id, cell(&Value::from(record.name)))),
        ("between", format!("{} and {}", period.since, period.until)),
        ("requests", format!("{}: {}", totals["requests"], counts.join(", "))),
        ("last seen", format!("{} from {}", cell(&seen["at"]), cell(&seen["address"]))),
        ("user agent", cell(&seen["user_agent"])),
    ];
    output::fields(console, &fields)?;
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
