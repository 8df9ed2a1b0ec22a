//! `audit verify`.

use clap::Args;

use crate::audit::verification_json;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, OutputArgs, visible};
use crate::cli::site::Site;
use crate::cli::vault::Vault;
use crate::domain::time::show_duration;
use crate::store::{AuditHead, OpenMode, Verification};

/// `audit verify`.
#[derive(Args, Debug)]
pub(in crate::cli) struct VerifyArgs {
    /// A head that was noted earlier, as the gateway logs it: shows whether the trail was cut or written anew since
    #[arg(long, value_name = "ENTRY:MAC")]
    head: Option<AuditHead>,
    /// Accept that entries sealed with this pepper, which is not configured any more, cannot be verified
    #[arg(long, value_name = "ID")]
    without_pepper: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Walks the trail and says what it found.
///
/// # Errors
/// [`Failure::Runtime`] when an entry is not as it was written, or nothing shows whether it is.
pub(super) fn run(site: &Site, args: VerifyArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let vault = Vault::open(site, OpenMode::Existing, "audit verify")?;
    let found = vault.ask(|store| store.audit().verify_audit(args.head))?;
    match args.output.output {
        Output::Json => output::json(console, &verification_json(&found, &args.without_pepper))?,
        Output::Text => show(&found, &args.without_pepper, console)?,
    }
    if let Some(dropped) = found.dropped.filter(|dropped| dropped.retention < site.settings.audit.retention) {
        writeln!(
            console.talk,
            "note: entries up to {} were dropped when `audit.retention` was {}, shorter than it is now",
            dropped.through,
            show_duration(dropped.retention)
        )?;
    }
    if let Some((entry, breach)) = &found.breach {
        return Err(Failure::runtime(format!(
            "the audit trail is not as it was written, from entry {entry} on: {breach}"
        )));
    }
    if found.is_sound(&args.without_pepper) {
        return Ok(());
    }
    let missing = found.unverifiable.keys().filter(|id| !args.without_pepper.contains(id));
    let missing = missing.map(|id| format!("`{}`", visible(id))).collect::<Vec<_>>().join(", ");
    Err(Failure::runtime(format!(
        "entries sealed with the pepper {missing} cannot be verified, because it is not configured; add it to \
         `auth.peppers` for the time of this command, or accept it with --without-pepper"
    )))
}

fn show(found: &Verification, without_pepper: &[String], console: &mut Console<'_>) -> Result<(), Failure> {
    let Verification { entries, first, head, unsealed, unkeyed, keyed, unverifiable, dropped, breach: _ } = found;
    let range = first.map_or_else(String::new, |first| format!(", {first} to {}", head.entry));
    let trail = match &found.breach {
        Some(_) => "not as it was written",
        None if !found.is_sound(without_pepper) => "not all of it can be verified",
        None if *unsealed == 0 && *unkeyed == 0 && unverifiable.is_empty() => "as it was written",
        None => "no change was found; what would not be found is said below",
    };
    let mut fields = vec![("trail", trail.to_owned()), ("entries", format!("{entries}{range}"))];
    let mut count = |name, count: u64, what: &str| {
        if count > 0 {
            fields.push((name, format!("{count}{what}")));
        }
    };
    count("unsealed", *unsealed, " from before there was a chain: nothing shows whether they were changed");
    count("without pepper", *unkeyed, ": only `--head`, with one kept elsewhere, shows whether they were written anew");
    for (id, entries) in keyed {
        count("sealed", *entries, &format!(" with the pepper {}", visible(id)));
    }
    for (id, entries) in unverifiable {
        count("not verifiable", *entries, &format!(" with the pepper {}, which is not configured", visible(id)));
    }
    if let Some(dropped) = dropped {
        let text = format!(
            "up to entry {} of {}, on {}, by a retention of {}",
            dropped.through,
            dropped.newest,
            dropped.at,
            show_duration(dropped.retention)
        );
        fields.push(("dropped", text));
    }
    fields.push(("head", head.to_string()));
    Ok(output::fields(console, &fields)?)
}
