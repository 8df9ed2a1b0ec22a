//! `audit export`.

use std::fs::OpenOptions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;

use super::FilterArgs;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::registry::Registry;
use crate::store::{AuditOrder, AuditQuery};

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
pub(super) fn run(registry: &dyn Registry, args: ExportArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let query = args.filter.query(AuditOrder::OldestFirst)?;
    if args.file == Path::new("-") {
        let _entries = write_all(registry, query, console.out)?;
        return Ok(());
    }
    let shown = args.file.display();
    let refused = |error: std::io::Error| Failure::runtime(format!("cannot write {shown}: {error}"));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.file).map_err(refused)?;
    let mut out = BufWriter::new(file);
    let entries = write_all(registry, query, &mut out)?;
    out.into_inner().map_err(|error| refused(error.into_error()))?.sync_all().map_err(refused)?;
    Ok(writeln!(console.talk, "{entries} entries in {shown}")?)
}

fn write_all(registry: &dyn Registry, query: AuditQuery, out: &mut dyn Write) -> Result<usize, Failure> {
    let mut count = 0;
    registry.list_audit(query, None, &mut |entries| {
        count += entries.len();
        Ok(entries.iter().try_for_each(|entry| writeln!(out, "{entry}"))?)
    })?;
    Ok(count)
}
