//! `store backup`.

use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::counted;
use super::file::Partial;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, OutputArgs, visible};
use crate::cli::site::Site;
use crate::cli::vault::{Vault, check_on_disk};
use crate::domain::time;
use crate::store::{NotMade, OpenMode, Written, back_up};

/// `store backup`.
#[derive(Args, Debug)]
pub(in crate::cli) struct BackupArgs {
    /// Where to, a file that does not exist yet; - for standard output
    file: PathBuf,
    /// Take the place of a file that exists, once the new one is whole
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Writes the file beside its place, and moves it there when all of it is on the disk.
pub(super) fn run(site: &Site, args: &BackupArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let now = time::now();
    let shown = args.file.display();
    let refused = |error: io::Error| {
        Failure::runtime(format!(
            "cannot write the backup {shown}: {error}. There is none; what was there is as it was"
        ))
    };
    let told = |error: NotMade| match error {
        NotMade::Store(error) => error.into(),
        NotMade::Io(error) => refused(error),
    };
    if args.file == Path::new("-") {
        if args.output.output == Output::Json {
            return Err(Failure::usage("standard output holds the backup: leave --output json out, or name a file"));
        }
        let vault = Vault::open_checked(site, OpenMode::Existing, "store backup")?;
        let mut out = BufWriter::new(io::stdout());
        let written = vault.block_on(back_up(vault.store(), &mut out, now)).map_err(told)?;
        out.flush().map_err(refused)?;
        return Ok(writeln!(console.talk, "backed up {}", summary(&written))?);
    }
    check_on_disk(site, "store backup")?;
    check_place(&args.file, args.overwrite)?;
    let vault = Vault::open_checked(site, OpenMode::Existing, "store backup")?;
    let mut partial = Partial::create(&args.file).map_err(refused)?;
    let written = vault.block_on(back_up(vault.store(), partial.out(), now)).map_err(told)?;
    partial.put(&args.file, args.overwrite).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(&args.file),
        _ => refused(error),
    })?;
    match args.output.output {
        Output::Json => output::json(
            console,
            &json!({
                "file": args.file.display().to_string(),
                "made_at": now,
                "keys": written.keys,
                "owners": written.owners,
                "entries": written.entries,
                "sha256": written.digest,
                "sealed_with": written.sealed_with,
            }),
        )?,
        Output::Text => writeln!(console.out, "backed up {} into {shown}", summary(&written))?,
    }
    if written.sealed_with.is_none() {
        writeln!(
            console.talk,
            "note: without `auth.peppers` nothing shows whether a backup was changed; keep it where nobody else can write"
        )?;
    }
    Ok(())
}

/// Refuses a place before anything is read: where something is that may not go, or that is no file.
fn check_place(place: &Path, overwrite: bool) -> Result<(), Failure> {
    match place.symlink_metadata() {
        Err(_) => Ok(()),
        Ok(about) if !about.is_file() => {
            Err(Failure::runtime(format!("{} exists and is not a file; name another one", place.display())))
        }
        Ok(_) if overwrite => Ok(()),
        Ok(_) => Err(exists(place)),
    }
}

fn exists(place: &Path) -> Failure {
    Failure::runtime(format!(
        "{} exists already, and is as it was; name another file, or let this one take its place with --overwrite",
        place.display()
    ))
}

fn summary(written: &Written) -> String {
    let Written { owners, keys, entries, digest: _, sealed_with } = written;
    let (keys, owners) = (counted(*keys, "key", "keys"), counted(*owners, "owner", "owners"));
    let entries = counted(*entries, "entry", "entries");
    let seal = sealed_with.as_ref().map_or_else(String::new, |id| format!(", sealed with pepper {}", visible(id)));
    format!("{keys}, {owners} and {entries} of the audit trail{seal}")
}
