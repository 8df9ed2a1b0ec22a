//! `keys create`: a new key, shown once.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::Value;

use super::draft::{Draft, mint};
use super::record::Shown;
use super::vocabulary::{self, Vocabulary, split_list};
use crate::cli::console::Console;
use crate::cli::curl::{self, Trial};
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output, OutputArgs};
use crate::cli::site::Site;
use crate::cli::vault::{Vault, local_actor};
use crate::config::parse_duration;
use crate::domain::{KeyKind, KeyRecord, MintedKey, Timestamp, time};
use crate::store::OpenMode;

/// `keys create`.
#[derive(Args, Debug)]
pub(in crate::cli) struct CreateArgs {
    /// A label for people; need not be unique
    #[arg(long, value_parser = name)]
    name: String,
    /// What it may use, separated by commas; `orders:*` covers everything below; "" for nothing
    #[arg(long, value_name = "SCOPE,…", required_unless_present = "roles")]
    scopes: Option<String>,
    /// Named bundles of scopes, separated by commas
    #[arg(long, value_name = "ROLE,…")]
    roles: Option<String>,
    /// Where it lives
    #[arg(long, value_name = "NAME", default_value = "live")]
    environment: String,
    /// secret (servers), publishable (web pages, safe methods only) or management
    #[arg(long, default_value = "secret", value_parser = kind)]
    kind: KeyKind,
    /// From when on it is refused, from now: 90d, 24h, 30m
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    expires_in: Option<std::time::Duration>,
    /// Free text
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = description)]
    description: String,
    /// What it may hand out to other keys, separated by commas; for management keys
    #[arg(long, value_name = "SCOPE,…")]
    may_grant: Option<String>,
    /// Print the key alone
    #[arg(long, conflicts_with = "output")]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Makes the key and prints it.
pub(super) fn run(site: &Site, args: CreateArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let vocabulary = Vocabulary::of(&site.settings);
    let now = time::now();
    let (quiet, output) = (args.quiet, args.output.output);
    let word = vocabulary.environment_word(&args.environment).map_err(Failure::Usage)?;
    let draft = draft(args, &vocabulary, now).map_err(Failure::Usage)?;
    // Opened last: a mistake in the flags creates no store.
    let vault = Vault::open(site, OpenMode::Create, "keys create")?;
    let by = local_actor();
    let (record, key) = mint(draft, word, &site.settings, &by, now)?;
    let inserted = vec![record.clone()];
    let revision = vault.ask(|store| store.writer().insert_keys(inserted, by, now))?;
    show(site, &KeyRecord { revision, ..record }, &key, quiet, output, console)
}

fn draft(args: CreateArgs, vocabulary: &Vocabulary<'_>, now: Timestamp) -> Result<Draft, String> {
    let list = |text: Option<String>| text.as_deref().map(split_list).unwrap_or_default();
    let kind = args.kind;
    let may_grant = vocabulary.scopes(&list(args.may_grant), KeyKind::Management)?;
    if !may_grant.is_empty() && kind != KeyKind::Management {
        return Err(
            "only management keys hand out anything; add `--kind management`, or leave `--may-grant` out".to_owned()
        );
    }
    Ok(Draft {
        name: args.name,
        description: args.description,
        owner: None,
        environment: args.environment,
        kind,
        scopes: vocabulary.scopes(&list(args.scopes), kind)?,
        roles: vocabulary.roles(&list(args.roles))?,
        may_grant,
        expires_at: args.expires_in.map(|span| now.plus(span)),
        metadata: BTreeMap::new(),
    })
}

fn show(
    site: &Site,
    record: &KeyRecord,
    key: &MintedKey,
    quiet: bool,
    output: Output,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let shown = Shown { record, now: record.created_at };
    if quiet {
        writeln!(console.out, "{}", key.reveal())?;
        return Ok(());
    }
    match output {
        Output::Json => {
            let mut object = shown.json();
            if let Value::Object(fields) = &mut object {
                fields.insert("key".to_owned(), key.reveal().into());
            }
            output::json(console, &object)?;
        }
        Output::Text => {
            output::fields(console, &shown.fields())?;
            writeln!(console.out, "\n{}\n", key.reveal())?;
            match curl::try_key(&site.settings, &site.rules()?, record, record.created_at) {
                Trial::Line(call) => writeln!(console.out, "{}", call.with_key(key.reveal()))?,
                Trial::NoRoute => writeln!(console.talk, "note: no route of {} lets this key in", site.path.display())?,
                Trial::NoListener => {}
            }
            writeln!(console.talk, "The key is shown this once: only its hash is kept.")?;
        }
    }
    Ok(())
}

fn name(text: &str) -> Result<String, String> {
    vocabulary::check_name(text).map(|()| text.to_owned())
}

fn description(text: &str) -> Result<String, String> {
    vocabulary::check_description(text).map(|()| text.to_owned())
}

/// A kind by its name.
pub(in crate::cli) fn kind(text: &str) -> Result<KeyKind, String> {
    KeyKind::from_name(text).ok_or_else(|| "a key is secret, publishable or management".to_owned())
}

fn lifetime(text: &str) -> Result<std::time::Duration, String> {
    match parse_duration(text) {
        Ok(span) if span.is_zero() => Err("a key that expires at once is of no use; write for example 90d".to_owned()),
        Ok(span) => Ok(span),
        Err(_) => Err("a span of time is a number and a unit: 30m, 24h or 90d".to_owned()),
    }
}
