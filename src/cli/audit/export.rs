//! `audit export`.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::FilterArgs;
use crate::audit::entry_json;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::site::Site;
use crate::cli::vault::Vault;
use crate::store::{AuditOrder, AuditQuery, OpenMode};

/// `audit export`.
#[derive(Args, Debug)]
pub(in crate::cli) struct ExportArgs {
    /// Where to, a file that does not exist yet; - for standard output
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Writes one line of JSON for each entry that fits, as it is read.
pub(super) fn run(site: &Site, args: ExportArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let query = args.filter.query(AuditOrder::OldestFirst)?;
    let vault = Vault::open(site, OpenMode::Existing, "audit export")?;
    if args.file == Path::new("-") {
        let _entries = write_all(&vault, query, console.out)?;
        return Ok(());
    }
    let shown = args.file.display();
    let refused = |error: std::io::Error| Failure::runtime(format!("cannot write {shown}: {error}"));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.file).map_err(refused)?;
    let mut out = BufWriter::new(file);
    let entries = write_all(&vault, query, &mut out)?;
    out.into_inner().map_err(|error| refused(error.into_error()))?.sync_all().map_err(refused)?;
    Ok(writeln!(console.talk, "{entries} entries in {shown}")?)
}

fn write_all(vault: &Vault, query: AuditQuery, out: &mut dyn Write) -> Result<u64, Failure> {
    let mut entries = 0;
    super::for_each(vault, query, None, |entry| {
        entries += 1;
        Ok(writeln!(out, "{}", entry_json(entry))?)
    })?;
    Ok(entries)
}
