//! `audit`: reading the trail of changes, on another machine with `--server`, and finding out whether it is as it was written.

mod export;
mod list;
mod verify;

use std::path::Path;

use clap::{Args, Subcommand};

use super::console::Console;
use super::failure::Failure;
use super::registry::ServerArgs;
use super::site::Site;
use crate::audit::{Asked, Unclear};
use crate::domain::time;
use crate::store::{AuditOrder, AuditQuery};

/// `audit`.
#[derive(Args, Debug)]
pub(super) struct AuditLine {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    verb: AuditVerb,
}

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
pub(super) fn run(config: Option<&Path>, line: AuditLine, console: &mut Console<'_>) -> Result<(), Failure> {
    match line.verb {
        AuditVerb::List(args) => list::run(&*line.server.open(config, "audit list")?, args, console),
        AuditVerb::Export(args) => export::run(&*line.server.open(config, "audit export")?, args, console),
        AuditVerb::Verify(args) => {
            line.server.check_local("audit verify")?;
            verify::run(&Site::open(config)?, args, console)
        }
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
    /// Only of this subject: the id of a key or an owner, config, audit or store
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
