//! `store restore`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use super::counted;
use super::file::{Exposure, beside, keep_entry, move_new};
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::fleet::{self, WaitArgs};
use crate::cli::output::{self, Output, OutputArgs, visible};
use crate::cli::site::Site;
use crate::cli::vault::{Vault, check_on_disk, local_actor};
use crate::domain::{Revision, time};
use crate::manage::{Told, wait_for_fleet};
use crate::store::{
    self, Archive, AuditQuery, NotRead, OpenMode, Proof, Restoration, StoreSettings, put_back, put_beside, read_archive,
};

/// `store restore`.
#[derive(Args, Debug)]
pub(in crate::cli) struct RestoreArgs {
    /// What `store backup` wrote; - for standard input
    file: PathBuf,
    /// Put it in the place of what the store holds: keys and owners that it does not have are gone
    #[arg(long)]
    replace: bool,
    /// Although nothing shows that it is as it was written: it has no seal, or its pepper is not configured
    #[arg(long)]
    unverified: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Reads and checks all of the file, then changes the store in one transaction.
pub(super) fn run(site: &Site, args: &RestoreArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    check_on_disk(site, "store restore")?;
    let name = if args.file == Path::new("-") { "standard input".to_owned() } else { args.file.display().to_string() };
    let archive = read(site, args, &name, console)?;
    note_missing_peppers(site, &archive, console)?;
    let restoration = Arc::new(Restoration { archive, replace: args.replace });
    let (vault, revision) = match &site.settings.store {
        StoreSettings::Sqlite { path } if !path.exists() => {
            let revision = into_new_file(site, path, &restoration)?;
            (Vault::open(site, OpenMode::Existing, "store restore")?, revision)
        }
        StoreSettings::Sqlite { .. } | StoreSettings::Postgres(_) | StoreSettings::Memory => {
            let vault = Vault::open(site, OpenMode::Create, "store restore")?;
            let revision = submit(&vault, &restoration)?;
            (vault, revision)
        }
    };
    let archive = &restoration.archive;
    let beside = vault.block_on(put_beside(vault.store(), archive, time::now()));
    let told = read_told(&vault, revision);
    show(archive, revision, &told, args.output.output, console)?;
    if let Err(error) = beside {
        writeln!(console.talk, "note: last use and counts of quotas are not as in the backup: {error}")?;
    }
    let Some(patience) = args.wait.patience() else { return Ok(()) };
    let answer = vault.block_on(wait_for_fleet(vault.store(), revision, patience));
    fleet::tell_answer(&answer.json(Told::Names), console)
}

/// Says what was done.
fn show(
    archive: &Archive,
    revision: Revision,
    told: &Value,
    format: Output,
    console: &mut Console<'_>,
) -> io::Result<()> {
    let Archive { made_at, digest, keys, owners, entries, .. } = archive;
    let (keys, owners) = (keys.len() as u64, owners.len() as u64);
    let number = |field: &str| told[field].as_u64().unwrap_or_default();
    let (revocations_kept, secrets_kept) = (number("revocations_kept"), number("secrets_kept"));
    match format {
        Output::Json => output::json(
            console,
            &json!({
                "keys": keys,
                "owners": owners,
                "entries": entries.len(),
                "made_at": made_at,
                "sha256": digest,
                "revocations_kept": revocations_kept,
                "secrets_kept": secrets_kept,
                "trail": told["trail"],
                "revision": revision,
            }),
        )?,
        Output::Text => {
            let (keys, owners) = (counted(keys, "key", "keys"), counted(owners, "owner", "owners"));
            writeln!(console.out, "restored {keys} and {owners} as of {made_at}")?;
            if revocations_kept > 0 {
                let kept = counted(revocations_kept, "key that was", "keys that were");
                writeln!(console.out, "{kept} revoked since then: revoked still")?;
            }
            if secrets_kept > 0 {
                let kept = counted(secrets_kept, "key", "keys");
                writeln!(console.out, "{kept} whose secret was replaced since then: by the new secret")?;
            }
            let trail = match told["trail"].as_str() {
                Some("kept") => "the audit trail goes on as it was",
                Some("replaced") => "the audit trail is that of the backup; the one that was here is gone",
                _ => "the audit trail is that of the backup",
            };
            writeln!(console.talk, "{trail}; `portcullis audit verify` tells whether it is whole")?;
        }
    }
    Ok(())
}

/// Reads and checks the file. Where no seal shows what was done to it, it must be in nobody else's hands.
fn read(site: &Site, args: &RestoreArgs, name: &str, console: &mut Console<'_>) -> Result<Archive, Failure> {
    let seal = site.settings.audit_seal();
    let proof = if args.unverified { Proof::Taken } else { Proof::Sealed };
    let refused = |refused: NotRead| Failure::runtime(format!("{name}: {refused}. Nothing was restored"));
    if args.file == Path::new("-") {
        return read_archive(console.input, &seal, proof).map_err(refused);
    }
    let cannot_read = |error: io::Error| Failure::runtime(format!("cannot read {name}: {error}"));
    let file = File::open(&args.file).map_err(cannot_read)?;
    let exposure = Exposure::of(&file.metadata().map_err(cannot_read)?);
    let archive = read_archive(&mut BufReader::with_capacity(1 << 18, file), &seal, proof).map_err(refused)?;
    let is_proven = proof == Proof::Sealed && site.settings.gate.hasher.pepper_ids().next().is_some();
    match exposure {
        Exposure::None => {}
        Exposure::Writable if !is_proven => {
            return Err(Failure::runtime(format!(
                "others may have changed {name}, no seal shows whether they did, and whoever changes a backup makes keys: \
                 nothing was restored. Make sure that it is the one you took, then `chmod 600` it, and `chown` it to who \
                 restores it"
            )));
        }
        Exposure::Readable | Exposure::Writable => writeln!(
            console.talk,
            "note: others may read {name}, and it holds the hashes of keys: `chmod 600` keeps them out"
        )?,
    }
    Ok(archive)
}

/// Keys whose hashes need a pepper that is not there work nowhere; who restores them should hear so.
fn note_missing_peppers(site: &Site, archive: &Archive, console: &mut Console<'_>) -> io::Result<()> {
    let known = |id: &str| site.settings.gate.hasher.pepper_ids().any(|known| known == id);
    let mut missing: BTreeMap<&str, u64> = BTreeMap::new();
    for pepper in archive.keys.iter().filter_map(|record| record.pepper.as_deref()).filter(|id| !known(id)) {
        *missing.entry(pepper).or_default() += 1;
    }
    for (pepper, keys) in missing {
        let keys = counted(keys, "key needs", "keys need");
        let pepper = visible(pepper);
        writeln!(console.talk, "note: {keys} pepper {pepper}, which `auth.peppers` does not have, to be accepted")?;
    }
    Ok(())
}

/// Changes the store.
fn submit(vault: &Vault, restoration: &Arc<Restoration>) -> Result<Revision, Failure> {
    Ok(vault.block_on(put_back(vault.store(), restoration, local_actor(), time::now()))?)
}

/// What the audit trail says of the restore; nothing where it cannot be read any more.
fn read_told(vault: &Vault, revision: Revision) -> Value {
    let query = AuditQuery { action: Some("store.restore".to_owned()), limit: 1, ..AuditQuery::default() };
    let page = vault.ask(|store| store.audit().list_audit(query)).ok();
    let entry = page.and_then(|page| page.items.into_iter().find(|entry| entry.revision == revision));
    entry.and_then(|entry| serde_json::from_str(&entry.after?).ok()).unwrap_or_default()
}

/// Restores into a file that gets its name only when everything is in it: a gateway that waits for its store would take an
/// empty one for all there is.
fn into_new_file(site: &Site, path: &Path, restoration: &Arc<Restoration>) -> Result<Revision, Failure> {
    let aside = beside(path, "restored.db");
    let restored = restore_aside(site, &aside, restoration).and_then(|revision| {
        let refused = |error: io::Error| {
            let why = match error.kind() {
                io::ErrorKind::AlreadyExists => {
                    "somebody made one meanwhile; restore once more, into that one".to_owned()
                }
                _ => error.to_string(),
            };
            Failure::runtime(format!("cannot make the store {}: {why}", path.display()))
        };
        move_new(&aside, path).map_err(refused)?;
        keep_entry(path);
        Ok(revision)
    });
    if restored.is_err() {
        for left in ["db", "db-wal", "db-shm"] {
            drop(fs::remove_file(aside.with_extension(left)));
        }
    }
    restored
}

fn restore_aside(site: &Site, aside: &Path, restoration: &Arc<Restoration>) -> Result<Revision, Failure> {
    let settings = StoreSettings::Sqlite { path: aside.to_owned() };
    let opened = store::open(&settings, OpenMode::Create, site.settings.audit_seal())?;
    // Closing it moves what is in the write-ahead log into the file.
    submit(&Vault::over(opened)?, restoration)
}
