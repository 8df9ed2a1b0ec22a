//! `audit list`.

use clap::Args;
use serde_json::Value;

use super::FilterArgs;
use crate::audit::entry_json;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, OutputArgs, visible};
use crate::cli::site::Site;
use crate::cli::vault::Vault;
use crate::store::{AuditEntry, AuditOrder, OpenMode};

/// `audit list`.
#[derive(Args, Debug)]
pub(in crate::cli) struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// At most this many
    #[arg(long, default_value_t = 100)]
    limit: u64,
    #[command(flatten)]
    output: OutputArgs,
}

/// Prints the entries that fit, the newest first.
pub(super) fn run(site: &Site, args: ListArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let query = args.filter.query(AuditOrder::NewestFirst)?;
    let vault = Vault::open(site, OpenMode::Existing, "audit list")?;
    if args.output.output == Output::Json {
        let mut before = "[\n";
        super::for_each(&vault, query, Some(args.limit), |entry| {
            let begun = std::mem::replace(&mut before, ",\n");
            Ok(write!(console.out, "{begun}{}", entry_json(entry))?)
        })?;
        return Ok(writeln!(console.out, "{}", if before == "[\n" { "[]" } else { "\n]" })?);
    }
    let mut rows = Vec::new();
    super::for_each(&vault, query, Some(args.limit), |entry| {
        rows.push(row(entry));
        Ok(())
    })?;
    if rows.is_empty() {
        return Ok(writeln!(console.talk, "no entries")?);
    }
    Ok(output::table(console, &["ENTRY", "AT", "ACTOR", "ADDRESS", "ACTION", "SUBJECT", "CHANGE"], rows)?)
}

fn row(entry: &AuditEntry) -> Vec<String> {
    vec![
        entry.entry.to_string(),
        entry.at.to_string(),
        visible(&entry.actor),
        visible(entry.address.as_deref().unwrap_or("-")),
        visible(&entry.action),
        visible(&entry.subject),
        visible(&change(entry)),
    ]
}

/// Longest change in a cell; JSON has all of it.
const MAX_CHANGE_CHARS: usize = 60;

/// What a field was and is, where both are told; else the name it began or ended with.
fn change(entry: &AuditEntry) -> String {
    let object = |text: &Option<String>| match text.as_deref().map(serde_json::from_str) {
        Some(Ok(Value::Object(fields))) => fields,
        _ => serde_json::Map::new(),
    };
    let (before, after) = (object(&entry.before), object(&entry.after));
    let text = match (&entry.before, after.get("name")) {
        (None, Some(name)) => name.to_string(),
        _ => {
            let fields = after.iter().filter_map(|(name, is)| Some(format!("{name}: {} -> {is}", before.get(name)?)));
            fields.collect::<Vec<_>>().join(", ")
        }
    };
    match text.char_indices().nth(MAX_CHANGE_CHARS) {
        _ if text.is_empty() => "-".to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
