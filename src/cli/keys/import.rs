//! `keys import`: keys that were made elsewhere, all of them or none.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::progress::Bar;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::fleet::WaitArgs;
use crate::cli::output::{self, Output, OutputArgs, visible};
use crate::cli::registry::{Arrival, Registry, Rows};
use crate::manage::{BadRow, Format};

/// `keys import`.
#[derive(Args, Debug)]
pub(in crate::cli) struct ImportArgs {
    /// JSON lines or CSV, one key a row: `name`, `scopes`, and `key` or `hash` (sha256:…); `-` for standard input
    file: PathBuf,
    /// What the file holds [default: by its extension, .jsonl or .csv]
    #[arg(long, value_enum)]
    format: Option<FormatWord>,
    /// Import the good rows although there are bad ones
    #[arg(long)]
    skip_bad: bool,
    /// Only look whether it could be imported
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

/// How keys are written down in a file.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum FormatWord {
    /// One JSON object a line.
    Jsonl,
    /// A heading, then one key a line.
    Csv,
}

impl FormatWord {
    /// The format that a file's name promises.
    fn of_name(name: &str) -> Option<Self> {
        let (_, extension) = name.rsplit_once('.')?;
        match extension.to_ascii_lowercase().as_str() {
            "jsonl" | "ndjson" | "json" => Some(Self::Jsonl),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

impl From<FormatWord> for Format {
    fn from(word: FormatWord) -> Self {
        match word {
            FormatWord::Jsonl => Self::Jsonl,
            FormatWord::Csv => Self::Csv,
        }
    }
}

/// Most bad rows that are told one by one.
const MAX_TOLD: usize = 100;

/// Reads the file, then writes all keys at once.
pub(super) fn run(registry: &dyn Registry, args: ImportArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let name = if args.file == Path::new("-") { "standard input".to_owned() } else { args.file.display().to_string() };
    let format = args.format.or_else(|| FormatWord::of_name(&name)).ok_or_else(|| {
        Failure::usage(format!("{name}: neither .jsonl nor .csv; say which it is with --format jsonl or --format csv"))
    })?;
    // Asked before the file is read; a store is opened, and made, only when there is something to write.
    registry.check_import()?;
    let mut file;
    let (input, bytes): (&mut dyn BufRead, _) = if args.file == Path::new("-") {
        (&mut *console.input, None)
    } else {
        let cannot_read = |error: io::Error| Failure::runtime(format!("cannot read {name}: {error}"));
        let opened = File::open(&args.file).map_err(cannot_read)?;
        let bytes = opened.metadata().ok().filter(|about| about.is_file()).map(|about| about.len());
        file = BufReader::new(opened);
        (&mut file, bytes)
    };
    let mut bar = Bar::new(&mut *console.talk, console.talk_is_watched, bytes);
    let mut input = bar.count(input);
    let rows = Rows {
        name: &name,
        format: format.into(),
        input: &mut input,
        skip_bad: args.skip_bad,
        dry_run: args.dry_run,
        progress: &mut |progress| bar.show(progress),
    };
    let arrival = registry.import(rows);
    bar.end()?;
    let format = args.output.output;
    let (good, skipped, revision) = match arrival? {
        Arrival::Refused(bad) => return Err(refuse(&name, &bad, format, console)?),
        Arrival::Tried { good, skipped } => (good, skipped, Value::Null),
        Arrival::Done { imported, skipped, revision } => (imported, skipped, revision),
    };
    tell_bad(&name, &skipped, console)?;
    match format {
        Output::Json => {
            let imported = if args.dry_run { 0 } else { good };
            let mut told = json!({ "imported": imported, "skipped": skipped.len(), "revision": revision });
            if args.dry_run {
                told["would_import"] = good.into();
            }
            output::json(console, &told)?;
        }
        Output::Text => {
            let left = match skipped.len() {
                0 => String::new(),
                count => format!(", {count} bad rows left out"),
            };
            let done = if args.dry_run { "would import" } else { "imported" };
            writeln!(console.out, "{done} {good} keys{left}")?;
        }
    }
    Ok(())
}

fn tell_bad(name: &str, bad: &[BadRow], console: &mut Console<'_>) -> io::Result<()> {
    for BadRow { line, problem } in bad.iter().take(MAX_TOLD) {
        writeln!(console.talk, "{name}:{line}: {}", visible(problem))?;
    }
    if bad.len() > MAX_TOLD {
        writeln!(console.talk, "… and {} more", bad.len() - MAX_TOLD)?;
    }
    Ok(())
}

fn refuse(name: &str, bad: &[BadRow], format: Output, console: &mut Console<'_>) -> io::Result<Failure> {
    tell_bad(name, bad, console)?;
    if format == Output::Json {
        output::json(console, &json!({ "imported": 0, "skipped": 0, "revision": null, "rows": bad }))?;
    }
    let rows = match bad.len() {
        1 => "1 bad row".to_owned(),
        count => format!("{count} bad rows"),
    };
    Ok(Failure::runtime(format!(
        "nothing was imported: {rows} in {name}. Mend the file, or leave such rows out with --skip-bad."
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_tells_the_format() {
        for (name, format) in [
            ("a.jsonl", Some(FormatWord::Jsonl)),
            ("a.b.NDJSON", Some(FormatWord::Jsonl)),
            ("dir/a.csv", Some(FormatWord::Csv)),
            ("a.txt", None),
            ("standard input", None),
        ] {
            assert_eq!(FormatWord::of_name(name), format, "{name}");
        }
    }
}
