//! `keys list`.

use std::collections::HashSet;

use clap::Args;
use serde_json::Value;

use super::record::key_text;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, OutputArgs, visible};
use crate::cli::record::Record;
use crate::cli::registry::Registry;
use crate::domain::{KeyKind, KeyState, OwnerId, Scope, time};
use crate::manage::KeyFilter;

/// `keys list`.
#[derive(Args, Debug)]
pub(in crate::cli) struct ListArgs {
    /// Only of this owner
    #[arg(long, value_name = "ID")]
    owner: Option<OwnerId>,
    /// Only of this environment
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// Only of this kind: secret, publishable or management
    #[arg(long, value_parser = super::create::kind)]
    kind: Option<KeyKind>,
    /// Only in one of these states, separated by commas: active, disabled, expired, revoked
    #[arg(long, value_name = "STATE,…", value_parser = state, value_delimiter = ',')]
    state: Vec<KeyState>,
    /// Only those that hold this scope, by themselves or by a role
    #[arg(long)]
    scope: Option<Scope>,
    /// Only those that were made before then and not used since: 2026-01-15T12:00:00Z, 2026-01-15, or 90d for as long ago
    #[arg(long, value_name = "WHEN")]
    unused_since: Option<String>,
    /// Only with this exact name
    #[arg(long)]
    name: Option<String>,
    /// Only whose text begins with this
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Prints the keys that fit, in the order they were made.
pub(super) fn run(registry: &dyn Registry, args: ListArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let moment = |text: String| {
        let odd = |error| Failure::usage(format!("--unused-since: {text:?} {error}"));
        time::moment_of_text(&text, time::now()).map_err(odd)
    };
    let filter = KeyFilter {
        after: None,
        limit: 0,
        owner: args.owner,
        environment: args.environment,
        kind: args.kind,
        states: args.state,
        scope: args.scope,
        unused_since: args.unused_since.map(moment).transpose()?,
        name: args.name,
        prefix: args.prefix,
    };
    let mut list = List::begin(args.output.output);
    registry.list_keys(filter, &mut |keys| list.add(&keys, console))?;
    list.end(registry, console)
}

/// A list in the making. JSON is written as it comes, one record a line; a table must know its widths first.
enum List {
    Json { is_begun: bool },
    Table { rows: Vec<Row> },
}

/// One line of the table.
struct Row {
    cells: Vec<String>,
    /// The owner of a key that is accepted unless that one is suspended.
    owner: Option<String>,
}

/// Where the state stands in a line.
const STATE: usize = 4;

impl List {
    const fn begin(format: Output) -> Self {
        match format {
            Output::Json => Self::Json { is_begun: false },
            Output::Text => Self::Table { rows: Vec::new() },
        }
    }

    fn add(&mut self, keys: &[Value], console: &mut Console<'_>) -> Result<(), Failure> {
        match self {
            Self::Table { rows } => rows.extend(keys.iter().map(|key| row(Record(key)))),
            Self::Json { is_begun } => {
                for key in keys {
                    let before = if std::mem::replace(is_begun, true) { ",\n" } else { "[\n" };
                    write!(console.out, "{before}{key}")?;
                }
            }
        }
        Ok(())
    }

    fn end(self, registry: &dyn Registry, console: &mut Console<'_>) -> Result<(), Failure> {
        match self {
            Self::Json { is_begun: true } => writeln!(console.out, "\n]")?,
            Self::Json { is_begun: false } => writeln!(console.out, "[]")?,
            Self::Table { rows } if rows.is_empty() => writeln!(console.talk, "no keys")?,
            Self::Table { rows } => {
                let suspended = suspended(registry, &rows)?;
                let told = |Row { mut cells, owner }: Row| {
                    if owner.is_some_and(|owner| suspended.contains(&owner)) {
                        cells[STATE].push_str(", owner suspended");
                    }
                    cells
                };
                let headings = ["ID", "NAME", "ENVIRONMENT", "KIND", "STATE", "SCOPES", "KEY", "EXPIRES", "LAST USED"];
                output::table(console, &headings, rows.into_iter().map(told).collect())?;
            }
        }
        Ok(())
    }
}

/// The owners of these keys that are suspended, by id. Asked only where some key depends on it.
fn suspended(registry: &dyn Registry, rows: &[Row]) -> Result<HashSet<String>, Failure> {
    let mut suspended = HashSet::new();
    if rows.iter().any(|row| row.owner.is_some()) {
        registry.list_owners(&mut |owners| {
            let off = owners.iter().map(Record).filter(|owner| owner.says("suspended"));
            suspended.extend(off.map(|owner| owner.text("id").to_owned()));
            Ok(())
        })?;
    }
    Ok(suspended)
}

fn row(key: Record<'_>) -> Row {
    let shown = |name: &str| key.shown(name).unwrap_or_default();
    let moment = |name: &str| key.shown(name).unwrap_or_else(|| "never".to_owned());
    // Whichever ends it first; both are written alike, so that they compare as texts.
    let ends = [key.shown("expires_at"), key.shown("grace_until")].into_iter().flatten().min();
    let cells = vec![
        shown("id"),
        shown("name"),
        shown("environment"),
        shown("kind"),
        shown("state"),
        visible(&holdings(key)),
        key_text(key).unwrap_or_else(|| "-".to_owned()),
        ends.unwrap_or_else(|| "never".to_owned()),
        moment("last_used_at"),
    ];
    Row { cells, owner: key.shown("owner").filter(|_| key.text("state") == "active") }
}

/// Longest list of scopes and roles in a cell; `show` and JSON have all of them.
const MAX_HOLDINGS_CHARS: usize = 40;

/// Scopes, and roles as `@role`, as many as fit, then how many more there are.
fn holdings(key: Record<'_>) -> String {
    let scopes = key.list("scopes").map(str::to_owned);
    let all: Vec<String> = scopes.chain(key.list("roles").map(|role| format!("@{role}"))).collect();
    let mut text = String::new();
    for (index, word) in all.iter().enumerate() {
        if index > 0 && text.chars().count() + word.chars().count() > MAX_HOLDINGS_CHARS {
            return format!("{text} +{}", all.len() - index);
        }
        if index > 0 {
            text.push(' ');
        }
        text.push_str(word);
    }
    if text.is_empty() { "-".to_owned() } else { text }
}

fn state(text: &str) -> Result<KeyState, String> {
    let found = KeyState::ALL.into_iter().find(|state| state.name() == text);
    found.ok_or_else(|| "a key is active, disabled, expired or revoked".to_owned())
}
