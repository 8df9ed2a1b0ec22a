//! `keys import`: keys that were made elsewhere, all of them or none.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, OutputArgs, visible};
use crate::cli::site::Site;
use crate::cli::vault::{Vault, check_on_disk, local_actor};
use crate::domain::time;
use crate::manage::{Authority, BadRow, Batch, Desk, Format, RowReader};
use crate::store::OpenMode;

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
    #[command(flatten)]
    output: OutputArgs,
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

/// Most rows of one import: they are checked together and written in one transaction.
const MAX_ROWS: usize = 1_000_000;
/// Most bad rows that are told one by one.
const MAX_TOLD: usize = 100;
/// Rows between two signs of life.
const PROGRESS_ROWS: usize = 5_000;

/// Reads the file, then writes all keys at once.
pub(super) fn run(site: &Site, args: ImportArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let name = if args.file == Path::new("-") { "standard input".to_owned() } else { args.file.display().to_string() };
    let format = args.format.or_else(|| FormatWord::of_name(&name)).ok_or_else(|| {
        Failure::usage(format!("{name}: neither .jsonl nor .csv; say which it is with --format jsonl or --format csv"))
    })?;
    // Asked before the file is read; the store itself is opened, and made, only when there is something to write.
    check_on_disk(site, "keys import")?;
    let authority = Authority::Local(local_actor());
    let now = time::now();
    let mut batch =
        read(&name, format.into(), &args.file, &RowReader::new(&site.settings.gate, &authority, now), console)?;
    if !batch.bad().is_empty() && !args.skip_bad {
        return Err(refuse(&name, batch.bad(), console)?);
    }
    let vault = Vault::open(site, OpenMode::Create, "keys import")?;
    let desk = Desk { store: vault.store(), settings: &site.settings.gate, authority: &authority, now };
    vault.wait(desk.sort_out(&mut batch))?;
    if !batch.bad().is_empty() && !args.skip_bad {
        return Err(refuse(&name, batch.bad(), console)?);
    }
    tell_bad(&name, batch.bad(), console)?;
    let (imported, skipped) = (batch.len(), batch.bad().len());
    let revision = vault.wait(desk.import(batch))?;
    match args.output.output {
        Output::Json => {
            output::json(console, &json!({ "imported": imported, "skipped": skipped, "revision": revision }))?;
        }
        Output::Text => {
            let skipped = if skipped > 0 { format!(", {skipped} bad rows left out") } else { String::new() };
            writeln!(console.out, "imported {imported} keys{skipped}")?;
        }
    }
    Ok(())
}

fn read(
    name: &str,
    format: Format,
    path: &Path,
    reader: &RowReader<'_>,
    console: &mut Console<'_>,
) -> Result<Batch, Failure> {
    let cannot_read = |problem: &str| Failure::runtime(format!("cannot read {name}: {problem}"));
    let mut file;
    let input: &mut dyn BufRead = if path == Path::new("-") {
        &mut *console.input
    } else {
        file = BufReader::new(File::open(path).map_err(|error| cannot_read(&error.to_string()))?);
        &mut file
    };
    let watched = console.talk_is_watched;
    let talk = &mut *console.talk;
    let mut count = 0;
    let batch = Batch::read(format, input, reader, MAX_ROWS, |rows| {
        count = rows;
        if watched && rows % PROGRESS_ROWS == 0 {
            // A sign of life that cannot be shown is no reason to stop.
            let _unseen = write!(talk, "\r{rows} rows read").and_then(|()| talk.flush());
        }
    })
    .map_err(|problem| cannot_read(&problem))?;
    if watched && count >= PROGRESS_ROWS {
        writeln!(console.talk, "\r{count} rows read")?;
    }
    Ok(batch)
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

fn refuse(name: &str, bad: &[BadRow], console: &mut Console<'_>) -> io::Result<Failure> {
    tell_bad(name, bad, console)?;
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
