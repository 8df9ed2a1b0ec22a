//! `keys enable`, `disable` and `revoke`: the two switches of a key.

use clap::Args;

use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::fleet::WaitArgs;
use crate::cli::output::{self, Output, OutputArgs};
use crate::cli::record::Record;
use crate::cli::registry::Registry;
use crate::domain::KeyId;

/// `keys enable`, `disable` and `revoke`.
#[derive(Args, Debug)]
pub(in crate::cli) struct SwitchArgs {
    /// The key's id
    #[arg(value_name = "ID")]
    id: KeyId,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

/// Which switch is turned, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::cli) enum Switch {
    /// The reversible one, on.
    Enable,
    /// The reversible one, off.
    Disable,
    /// The final one.
    Revoke,
}

impl Switch {
    const fn outcome(self) -> &'static str {
        match self {
            Self::Enable => "enabled",
            Self::Disable => "disabled; `portcullis keys enable` undoes it",
            Self::Revoke => "revoked for good",
        }
    }
}

/// Turns it. Doing it again is fine.
pub(super) fn run(
    registry: &dyn Registry,
    args: SwitchArgs,
    switch: Switch,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let key = registry.switch_key(args.id, switch)?;
    match args.output.output {
        Output::Json => output::json(console, &key)?,
        Output::Text => {
            let (id, name) = (args.id, Record(&key).shown("name").unwrap_or_default());
            writeln!(console.out, "{id} ({name}) is {}", switch.outcome())?;
            let state = Record(&key).shown("state").unwrap_or_default();
            if switch == Switch::Enable && state != "active" {
                writeln!(console.talk, "note: it is {state} all the same")?;
            }
        }
    }
    Ok(())
}
