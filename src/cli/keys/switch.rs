//! `keys enable`, `disable` and `revoke`: the two switches of a key.

use clap::Args;

use super::record::Shown;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, OutputArgs};
use crate::cli::site::Site;
use crate::cli::vault::{Vault, local_actor, no_such_key};
use crate::domain::{KeyId, time};
use crate::store::OpenMode;

/// `keys enable`, `disable` and `revoke`.
#[derive(Args, Debug)]
pub(in crate::cli) struct SwitchArgs {
    /// The key's id
    #[arg(value_name = "ID")]
    id: KeyId,
    #[command(flatten)]
    output: OutputArgs,
}

/// Which switch is turned, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Switch {
    /// The reversible one, on.
    Enable,
    /// The reversible one, off.
    Disable,
    /// The final one.
    Revoke,
}

impl Switch {
    const fn verb(self) -> &'static str {
        match self {
            Self::Enable => "keys enable",
            Self::Disable => "keys disable",
            Self::Revoke => "keys revoke",
        }
    }

    const fn outcome(self) -> &'static str {
        match self {
            Self::Enable => "enabled",
            Self::Disable => "disabled; `portcullis keys enable` undoes it",
            Self::Revoke => "revoked for good",
        }
    }
}

/// Turns it. Doing it again is fine.
pub(super) fn run(site: &Site, args: SwitchArgs, switch: Switch, console: &mut Console<'_>) -> Result<(), Failure> {
    let vault = Vault::open(site, OpenMode::Create, switch.verb())?;
    let (id, by, now) = (args.id, local_actor(), time::now());
    let revision = vault.ask(|store| match switch {
        Switch::Enable => store.writer().set_active(id, true, by, now),
        Switch::Disable => store.writer().set_active(id, false, by, now),
        Switch::Revoke => store.writer().revoke(id, by, now),
    })?;
    if revision.is_none() {
        return Err(no_such_key(id));
    }
    let record = vault.find(id)?;
    let shown = Shown { record: &record, now: time::now() };
    match args.output.output {
        Output::Json => output::json(console, &shown.json())?,
        Output::Text => {
            writeln!(console.out, "{id} ({}) is {}", output::visible(&record.name), switch.outcome())?;
            let state = record.state(time::now()).name();
            if switch == Switch::Enable && state != "active" {
                writeln!(console.talk, "note: it is {state} all the same")?;
            }
        }
    }
    Ok(())
}
