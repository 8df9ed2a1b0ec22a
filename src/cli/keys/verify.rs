//! `keys verify`: what the key on standard input is, and whether it is accepted.

use std::io::{BufRead, Read};

use clap::Args;
use serde_json::json;
use zeroize::Zeroizing;

use super::record;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, OutputArgs, visible};
use crate::cli::registry::{Registry, Verified};
use crate::domain::PresentedKey;
use crate::domain::key_text::KeyTextForm;
use crate::domain::limits::MAX_CREDENTIAL_BYTES;

/// `keys verify`.
#[derive(Args, Debug)]
pub(in crate::cli) struct VerifyArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// Reads one key and says what it is.
///
/// # Errors
/// [`Failure::Runtime`] when it is not accepted, so that a script need not read the answer.
pub(super) fn run(registry: &dyn Registry, args: VerifyArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    if console.input_is_typed {
        writeln!(console.talk, "Paste the key and press Enter:")?;
    }
    let text = read_key(console.input)?;
    let _key = PresentedKey::new(&text).ok_or_else(|| {
        Failure::usage(
            "standard input holds no key: expected one line of visible ASCII, at most 8 KiB, as in \
             `portcullis keys verify < key.txt`",
        )
    })?;
    let Verified { state, form, record } = registry.verify_key(&text)?;
    let valid = state == "active";
    let may_be_half = record.is_none() && matches!(form, KeyTextForm::Ours { .. }) && !text.contains(':');
    match args.output.output {
        Output::Json => {
            output::json(console, &json!({ "valid": valid, "state": state, "form": form.name(), "record": record }))?;
        }
        Output::Text => {
            let verdict = if valid { "accepted" } else { "not accepted" };
            writeln!(console.out, "{verdict}: {}", form_text(form))?;
            if let Some(record) = &record {
                output::fields(console, &record::fields(record))?;
            }
            if may_be_half {
                writeln!(console.talk, "note: the secret of a pair is known together with its id alone: ID:SECRET")?;
            }
        }
    }
    if valid { Ok(()) } else { Err(Failure::runtime(format!("the key is not accepted: it is {}", visible(&state)))) }
}

fn form_text(form: KeyTextForm<'_>) -> String {
    match form {
        KeyTextForm::Ours { environment, kind, prefix } => format!("a {kind} key of ours, {environment}, {prefix}…"),
        KeyTextForm::BadChecksum => "a key of ours with a typing error: its checksum is wrong".to_owned(),
        KeyTextForm::Foreign => "not in our format, as keys that were imported".to_owned(),
    }
}

/// The first line, without its end.
fn read_key(input: &mut dyn BufRead) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::with_capacity(256));
    let most = MAX_CREDENTIAL_BYTES as u64 + 2;
    input
        .take(most)
        .read_line(&mut text)
        .map_err(|error| Failure::runtime(format!("cannot read standard input: {error}")))?;
    let length = text.trim_end_matches(['\n', '\r']).len();
    text.truncate(length);
    Ok(text)
}
