//! `audit`: reading the trail of changes, and finding out whether it is as it was written.

mod export;
mod list;
mod verify;

use std::path::Path;

use clap::{Args, Subcommand};

use super::console::Console;
use super::failure::Failure;
use super::site::Site;
use super::vault::Vault;
use crate::audit::{Asked, Unclear};
use crate::domain::time;
use crate::store::{AuditEntry, AuditOrder, AuditQuery};

/// Verbs about the audit trail.
#[derive(Subcommand, Debug)]
pub(super) enum AuditVerb {
    /// List what was done, the newest first
    List(list::ListArgs),
    /// Write what was done as JSON lines, the oldest first
    Export(export::ExportArgs),
    /// Find out whether the trail is as it was written
    Verify(verify::VerifyArgs),
}

/// Does it.
pub(super) fn run(config: Option<&Path>, verb: AuditVerb, console: &mut Console<'_>) -> Result<(), Failure> {
    let site = Site::open(config)?;
    match verb {
        AuditVerb::List(args) => list::run(&site, args, console),
        AuditVerb::Export(args) => export::run(&site, args, console),
        AuditVerb::Verify(args) => verify::run(&site, args, console),
    }
}

/// Which entries.
#[derive(Args, Debug)]
struct FilterArgs {
    /// Only from then on: 2026-01-15T12:00:00Z, 2026-01-15, or 24h for as long ago
    #[arg(long, value_name = "WHEN")]
    since: Option<String>,
    /// Only before then
    #[arg(long, value_name = "WHEN")]
    until: Option<String>,
    /// Only by this actor: local:USER, gateway:TASK or the id of a management key
    #[arg(long)]
    actor: Option<String>,
    /// Only this action: key.create, owner.suspend, …; key.* for all of a kind
    #[arg(long)]
    action: Option<String>,
    /// Only of this subject: the id of a key or an owner, config or audit
    #[arg(long, value_name = "ID")]
    subject: Option<String>,
}

impl FilterArgs {
    fn query(self, order: AuditOrder) -> Result<AuditQuery, Failure> {
        let Self { since, until, actor, action, subject } = self;
        let asked = Asked { since, until, actor, action, subject };
        asked
            .query(order, time::now())
            .map_err(|Unclear { field, problem }| Failure::usage(format!("--{field}: {problem}")))
    }
}

/// Entries asked for at a time.
const PAGE: u64 = 1_000;

/// Shows up to `most` entries to `see`, page by page.
fn for_each(
    vault: &Vault,
    mut query: AuditQuery,
    most: Option<u64>,
    mut see: impl FnMut(&AuditEntry) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut left = most.unwrap_or(u64::MAX);
    while left > 0 {
        query.limit = usize::try_from(left.min(PAGE)).unwrap_or(usize::MAX);
        let page = vault.ask(|store| store.audit().list_audit(query.clone()))?;
        page.items.iter().try_for_each(&mut see)?;
        left -= page.items.len() as u64;
        query.after = page.items.last().map(|entry| entry.entry);
        if !page.more {
            break;
        }
    }
    Ok(())
}
