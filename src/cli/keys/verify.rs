//! `keys verify`: what the key on standard input is, and whether it is accepted.

use std::collections::HashSet;
use std::io::{BufRead, Read};

use clap::Args;
use serde_json::json;
use zeroize::Zeroizing;

use super::record::Shown;
use crate::authn::Rejection;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, OutputArgs};
use crate::cli::site::Site;
use crate::cli::vault::Vault;
use crate::domain::key_text::KeyTextForm;
use crate::domain::limits::MAX_CREDENTIAL_BYTES;
use crate::domain::{KeyHash, KeyId, PresentedKey, time};
use crate::gate::SupposedKey;
use crate::store::{KeyFacts, LoadBatch, OpenMode};

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
pub(super) fn run(site: &Site, args: VerifyArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    if console.input_is_typed {
        writeln!(console.talk, "Paste the key and press Enter:")?;
    }
    let text = read_key(console.input)?;
    let key = PresentedKey::new(&text).ok_or_else(|| {
        Failure::usage(
            "standard input holds no key: expected one line of visible ASCII, at most 8 KiB, as in \
             `portcullis keys verify < key.txt`",
        )
    })?;
    let form = key.form(&site.settings.gate.brand);
    let vault = Vault::open(site, OpenMode::Create, "keys verify")?;
    let now = time::now();
    let found = match form {
        // The gateway does not look these up either.
        KeyTextForm::BadChecksum => None,
        KeyTextForm::Ours { .. } | KeyTextForm::Foreign => {
            find_by_hash(&vault, &site.settings.gate.hasher.candidates(&key).collect())?
        }
    };
    let record = found.map(|id| vault.find(id)).transpose()?;
    let rejection = match &record {
        Some(record) => {
            let suspended = vault.is_owner_suspended(record)?;
            SupposedKey::of_record(record, suspended, &site.rules()?, now).rejection
        }
        None => Some(Rejection::Unknown),
    };
    let state = state_word(rejection);
    match args.output.output {
        Output::Json => {
            let record = record.as_ref().map(|record| Shown { record, now }.json());
            let (valid, form) = (rejection.is_none(), form_word(form));
            output::json(console, &json!({ "valid": valid, "state": state, "form": form, "record": record }))?;
        }
        Output::Text => {
            let verdict = if rejection.is_none() { "accepted" } else { "not accepted" };
            writeln!(console.out, "{verdict}: {}", form_text(form))?;
            if let Some(record) = &record {
                output::fields(console, &Shown { record, now }.fields())?;
            }
        }
    }
    match rejection {
        None => Ok(()),
        Some(_) => Err(Failure::runtime(format!("the key is not accepted: it is {state}"))),
    }
}

const fn form_word(form: KeyTextForm<'_>) -> &'static str {
    match form {
        KeyTextForm::Ours { .. } => "ours",
        KeyTextForm::BadChecksum => "bad_checksum",
        KeyTextForm::Foreign => "foreign",
    }
}

fn form_text(form: KeyTextForm<'_>) -> String {
    match form {
        KeyTextForm::Ours { environment, kind, prefix } => format!("a {kind} key of ours, {environment}, {prefix}…"),
        KeyTextForm::BadChecksum => "a key of ours with a typing error: its checksum is wrong".to_owned(),
        KeyTextForm::Foreign => "not in our format, as keys that were imported".to_owned(),
    }
}

const fn state_word(rejection: Option<Rejection>) -> &'static str {
    match rejection {
        None => "active",
        Some(Rejection::Checksum | Rejection::Unknown) => "unknown",
        Some(Rejection::Revoked) => "revoked",
        Some(Rejection::Disabled) => "disabled",
        Some(Rejection::Expired) => "expired",
        Some(Rejection::OwnerSuspended) => "owner_suspended",
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

/// The key that is stored under one of `hashes`. Reads the whole set: records are kept by id, not by hash.
fn find_by_hash(vault: &Vault, hashes: &HashSet<KeyHash>) -> Result<Option<KeyId>, Failure> {
    let mut found = None;
    let mut look = |batch: LoadBatch| match batch {
        LoadBatch::Keys(keys) => found = found.or_else(|| id_in(&keys, hashes)),
        LoadBatch::Expect { .. } | LoadBatch::Owners(_) => {}
    };
    vault.ask(|store| store.feed().load_all(&mut look))?;
    Ok(found)
}

fn id_in(keys: &[KeyFacts], hashes: &HashSet<KeyHash>) -> Option<KeyId> {
    keys.iter().find(|key| hashes.contains(&key.hash)).map(|key| key.id)
}
