//! `keys import`: keys that were made elsewhere, all of them or none.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::import_row::Reader;
use super::rows::{self, Format};
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, OutputArgs, visible};
use crate::cli::site::Site;
use crate::cli::vault::{Vault, check_on_disk, local_actor};
use crate::domain::{KeyHash, KeyId, KeyRecord, OwnerId, time};
use crate::manage::Vocabulary;
use crate::store::{LoadBatch, OpenMode};

/// `keys import`.
#[derive(Args, Debug)]
pub(in crate::cli) struct ImportArgs {
    /// JSON lines or CSV, one key a row: `name`, `scopes`, and `key` or `hash` (sha256:…); `-` for standard input
    file: PathBuf,
    /// What the file holds [default: by its extension, .jsonl or .csv]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Import the good rows although there are bad ones
    #[arg(long)]
    skip_bad: bool,
    #[command(flatten)]
    output: OutputArgs,
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
    let format = args.format.or_else(|| Format::of_name(&name)).ok_or_else(|| {
        Failure::usage(format!("{name}: neither .jsonl nor .csv; say which it is with --format jsonl or --format csv"))
    })?;
    // Asked before the file is read; the store itself is opened, and made, only when there is something to write.
    check_on_disk(site, "keys import")?;
    let mut batch = Batch::default();
    batch.read(&name, format, &args.file, site, console)?;
    if !batch.bad.is_empty() && !args.skip_bad {
        return Err(batch.refuse(&name, console)?);
    }
    let vault = Vault::open(site, OpenMode::Create, "keys import")?;
    batch.check_against(&vault)?;
    if !batch.bad.is_empty() && !args.skip_bad {
        return Err(batch.refuse(&name, console)?);
    }
    batch.tell_bad(&name, console)?;
    let (imported, skipped) = (batch.good.len(), batch.bad.len());
    let records: Vec<KeyRecord> = batch.good.into_iter().map(|(_, record)| record).collect();
    let revision = match records.is_empty() {
        true => None,
        false => Some(vault.ask(|store| store.writer().import_keys(records, local_actor(), time::now()))?),
    };
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

/// What was read, sorted by whether it can be used; lines count from 1.
#[derive(Default)]
struct Batch {
    good: Vec<(u64, KeyRecord)>,
    bad: Vec<(u64, String)>,
    hashes: HashMap<KeyHash, u64>,
    ids: HashMap<KeyId, u64>,
}

impl Batch {
    fn read(
        &mut self,
        name: &str,
        format: Format,
        path: &Path,
        site: &Site,
        console: &mut Console<'_>,
    ) -> Result<(), Failure> {
        let vocabulary = Vocabulary::of(&site.settings.gate);
        let by = local_actor();
        let reader = Reader { vocabulary: &vocabulary, settings: &site.settings, by: &by, now: time::now() };
        let mut file;
        let input: &mut dyn BufRead = if path == Path::new("-") {
            &mut *console.input
        } else {
            file = BufReader::new(File::open(path).map_err(|error| cannot_read(name, &error.to_string()))?);
            &mut file
        };
        let watched = console.talk_is_watched;
        let talk = &mut *console.talk;
        let mut count = 0;
        rows::read(format, input, |row| {
            count += 1;
            if watched && count % PROGRESS_ROWS == 0 {
                // A sign of life that cannot be shown is no reason to stop.
                let _unseen = write!(talk, "\r{count} rows read").and_then(|()| talk.flush());
            }
            self.add(row.line, row.fields.and_then(|fields| reader.record(fields)));
            count <= MAX_ROWS
        })
        .map_err(|problem| cannot_read(name, &problem))?;
        if watched && count >= PROGRESS_ROWS {
            writeln!(console.talk, "\r{count} rows read")?;
        }
        if count > MAX_ROWS {
            return Err(Failure::runtime(format!("{name} has more than {MAX_ROWS} rows; import it in parts")));
        }
        Ok(())
    }

    fn add(&mut self, line: u64, record: Result<KeyRecord, String>) {
        let record = match record {
            Ok(record) => record,
            Err(problem) => return self.bad.push((line, problem)),
        };
        let first = self.hashes.get(&record.hash).map(|first| ("key", *first));
        if let Some((what, first)) = first.or_else(|| self.ids.get(&record.id).map(|first| ("id", *first))) {
            return self.bad.push((line, format!("line {first} has the same {what}; keep one of them")));
        }
        self.hashes.insert(record.hash, line);
        self.ids.insert(record.id, line);
        self.good.push((line, record));
    }

    /// Sorts out rows that the store would refuse, so that all are told at once.
    fn check_against(&mut self, vault: &Vault) -> Result<(), Failure> {
        let mut owners: HashSet<OwnerId> = HashSet::new();
        let mut taken: HashMap<u64, &str> = HashMap::new();
        let (hashes, ids) = (&self.hashes, &self.ids);
        let mut look = |batch: LoadBatch| match batch {
            LoadBatch::Expect { .. } => {}
            LoadBatch::Owners(all) => owners.extend(all.iter().map(|owner| owner.id)),
            LoadBatch::Keys(keys) => {
                for key in keys {
                    taken.extend(ids.get(&key.id).map(|line| (*line, "a key with this id is in the store already")));
                    taken.extend(hashes.get(&key.hash).map(|line| (*line, "this key is in the store already")));
                }
            }
        };
        vault.ask(|store| store.feed().load_all(&mut look))?;
        let (mut good, mut bad) = (Vec::with_capacity(self.good.len()), std::mem::take(&mut self.bad));
        for (line, record) in std::mem::take(&mut self.good) {
            let stranger = record.owner.filter(|owner| !owners.contains(owner));
            match (taken.get(&line), stranger) {
                (Some(problem), _) => bad.push((line, (*problem).to_owned())),
                (None, Some(owner)) => bad.push((line, format!("there is no owner {owner}"))),
                (None, None) => good.push((line, record)),
            }
        }
        bad.sort_by_key(|(line, _)| *line);
        (self.good, self.bad) = (good, bad);
        Ok(())
    }

    fn tell_bad(&self, name: &str, console: &mut Console<'_>) -> io::Result<()> {
        for (line, problem) in self.bad.iter().take(MAX_TOLD) {
            writeln!(console.talk, "{name}:{line}: {}", visible(problem))?;
        }
        if self.bad.len() > MAX_TOLD {
            writeln!(console.talk, "… and {} more", self.bad.len() - MAX_TOLD)?;
        }
        Ok(())
    }

    fn refuse(&self, name: &str, console: &mut Console<'_>) -> io::Result<Failure> {
        self.tell_bad(name, console)?;
        let rows = match self.bad.len() {
            1 => "1 bad row".to_owned(),
            count => format!("{count} bad rows"),
        };
        Ok(Failure::runtime(format!(
            "nothing was imported: {rows} in {name}. Mend the file, or leave such rows out with --skip-bad."
        )))
    }
}

fn cannot_read(name: &str, problem: &str) -> Failure {
    Failure::runtime(format!("cannot read {name}: {problem}"))
}
