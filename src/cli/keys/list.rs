//! `keys list`.

use clap::Args;

use super::record::{Shown, key_text};
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, OutputArgs, visible};
use crate::cli::site::Site;
use crate::cli::vault::Vault;
use crate::domain::{KeyKind, KeyRecord, KeyState, Timestamp, time};
use crate::store::{KeyQuery, OpenMode};

/// `keys list`.
#[derive(Args, Debug)]
pub(in crate::cli) struct ListArgs {
    /// Only of this environment
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// Only of this kind: secret, publishable or management
    #[arg(long, value_parser = super::create::kind)]
    kind: Option<KeyKind>,
    /// Only in this state: active, disabled, expired or revoked
    #[arg(long, value_parser = state)]
    state: Option<KeyState>,
    /// Only with this exact name
    #[arg(long)]
    name: Option<String>,
    /// Only whose text begins with this
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Records asked for at a time.
const PAGE: usize = 1_000;

/// Prints the keys that fit, in the order they were made.
pub(super) fn run(site: &Site, args: ListArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let vault = Vault::open(site, OpenMode::Create, "keys list")?;
    let now = time::now();
    let mut query = KeyQuery {
        after: None,
        limit: PAGE,
        owner: None,
        environment: args.environment,
        kind: args.kind,
        state: args.state.map(|state| (state, now)),
        name: args.name,
        prefix: args.prefix,
    };
    let mut list = List::begin(args.output.output, now);
    loop {
        let page = vault.ask(|store| store.reader().list_keys(query.clone()))?;
        query.after = page.items.last().map(|record| record.id);
        list.add(&page.items, console)?;
        if !page.more || query.after.is_none() {
            return list.end(console);
        }
    }
}

/// A list in the making. JSON is written as it comes, one record a line; a table must know its widths first.
enum List {
    Json { now: Timestamp, is_begun: bool },
    Table { now: Timestamp, rows: Vec<Vec<String>> },
}

impl List {
    const fn begin(format: Output, now: Timestamp) -> Self {
        match format {
            Output::Json => Self::Json { now, is_begun: false },
            Output::Text => Self::Table { now, rows: Vec::new() },
        }
    }

    fn add(&mut self, records: &[KeyRecord], console: &mut Console<'_>) -> Result<(), Failure> {
        match self {
            Self::Table { now, rows } => rows.extend(records.iter().map(|record| row(record, *now))),
            Self::Json { now, is_begun } => {
                for record in records {
                    let before = if std::mem::replace(is_begun, true) { ",\n" } else { "[\n" };
                    write!(console.out, "{before}{}", Shown { record, now: *now }.json())?;
                }
            }
        }
        Ok(())
    }

    fn end(self, console: &mut Console<'_>) -> Result<(), Failure> {
        match self {
            Self::Json { is_begun: true, .. } => writeln!(console.out, "\n]")?,
            Self::Json { is_begun: false, .. } => writeln!(console.out, "[]")?,
            Self::Table { rows, .. } if rows.is_empty() => writeln!(console.talk, "no keys")?,
            Self::Table { rows, .. } => {
                let headings = ["ID", "NAME", "ENVIRONMENT", "KIND", "STATE", "SCOPES", "KEY", "EXPIRES", "LAST USED"];
                output::table(console, &headings, rows)?;
            }
        }
        Ok(())
    }
}

fn row(record: &KeyRecord, now: Timestamp) -> Vec<String> {
    let moment = |moment: Option<Timestamp>| moment.map_or_else(|| "never".to_owned(), |moment| moment.to_string());
    vec![
        record.id.to_string(),
        visible(&record.name),
        visible(&record.environment),
        record.kind.to_string(),
        record.state(now).name().to_owned(),
        visible(&holdings(record)),
        key_text(record).unwrap_or_else(|| "-".to_owned()),
        moment(record.expires_at),
        moment(record.last_used_at),
    ]
}

/// Longest list of scopes and roles in a cell; `show` and JSON have all of them.
const MAX_HOLDINGS_CHARS: usize = 40;

/// Scopes, and roles as `@role`, as many as fit, then how many more there are.
fn holdings(record: &KeyRecord) -> String {
    let scopes = record.scopes.iter().map(ToString::to_string);
    let all: Vec<String> = scopes.chain(record.roles.iter().map(|role| format!("@{role}"))).collect();
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
    let all = [KeyState::Active, KeyState::Disabled, KeyState::Expired, KeyState::Revoked];
    let found = all.into_iter().find(|state| state.name() == text);
    found.ok_or_else(|| "a key is active, disabled, expired or revoked".to_owned())
}
