//! `audit list`.

use clap::Args;
use serde_json::Value;

use super::FilterArgs;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, OutputArgs, visible};
use crate::cli::record::Record;
use crate::cli::registry::Registry;
use crate::store::AuditOrder;

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
pub(super) fn run(registry: &dyn Registry, args: ListArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let query = args.filter.query(AuditOrder::NewestFirst)?;
    if args.output.output == Output::Json {
        let mut before = "[\n";
        registry.list_audit(query, Some(args.limit), &mut |entries| {
            for entry in &entries {
                write!(console.out, "{}{entry}", std::mem::replace(&mut before, ",\n"))?;
            }
            Ok(())
        })?;
        return Ok(writeln!(console.out, "{}", if before == "[\n" { "[]" } else { "\n]" })?);
    }
    let mut rows = Vec::new();
    registry.list_audit(query, Some(args.limit), &mut |entries| {
        rows.extend(entries.iter().map(row));
        Ok(())
    })?;
    if rows.is_empty() {
        return Ok(writeln!(console.talk, "no entries")?);
    }
    Ok(output::table(console, &["ENTRY", "AT", "ACTOR", "ADDRESS", "ACTION", "SUBJECT", "CHANGE"], rows)?)
}

fn row(entry: &Value) -> Vec<String> {
    let shown = |name: &str| Record(entry).shown(name);
    vec![
        entry["entry"].to_string(),
        shown("at").unwrap_or_default(),
        shown("actor").unwrap_or_default(),
        shown("address").unwrap_or_else(|| "-".to_owned()),
        shown("action").unwrap_or_default(),
        shown("subject").unwrap_or_default(),
        visible(&change(entry)),
    ]
}

/// Longest change in a cell; JSON has all of it.
const MAX_CHANGE_CHARS: usize = 60;

/// What a field was and is, where both are told; else the name it began or ended with.
fn change(entry: &Value) -> String {
    let (before, after) = (&entry["before"], &entry["after"]);
    let text = match after.get("name") {
        Some(name) if before.is_null() => name.to_string(),
        _ => {
            let fields = after.as_object().into_iter().flatten();
            let fields = fields.filter_map(|(name, is)| Some(format!("{name}: {} -> {is}", before.get(name)?)));
            fields.collect::<Vec<_>>().join(", ")
        }
    };
    match text.char_indices().nth(MAX_CHANGE_CHARS) {
        _ if text.is_empty() => "-".to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
