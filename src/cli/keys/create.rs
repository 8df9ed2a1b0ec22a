//! `keys create`: a new key, shown once.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::change::expiry;
use super::record;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::fleet::WaitArgs;
use crate::cli::output::{self, Output, OutputArgs};
use crate::cli::record::Record;
use crate::cli::registry::{Fresh, Registry, Sample};
use crate::config::parse_duration;
use crate::domain::{KeyKind, OwnerId, Quota, RateLimit, Timestamp};
use crate::manage::{
    NewKey, check_description, check_name, quota_of_text as quota, rate_limit_of_text as rate_limit, split_list,
};

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
    /// The account it belongs to
    #[arg(long, value_name = "ID")]
    owner: Option<OwnerId>,
    /// From when on it is refused, from now: 90d, 24h, 30m
    #[arg(long, value_name = "DURATION", value_parser = lifetime)]
    expires_in: Option<Duration>,
    /// The same as a moment: 2030-01-15T12:00:00Z, or 2030-01-15 for its beginning in UTC
    #[arg(long, value_name = "WHEN", value_parser = end, conflicts_with = "expires_in")]
    expires_at: Option<Timestamp>,
    /// Free text
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = description)]
    description: String,
    /// What it may hand out to other keys, separated by commas; for management keys and keys of an owner
    #[arg(long, value_name = "SCOPE,…")]
    may_grant: Option<String>,
    /// Networks that its requests come from, separated by commas
    #[arg(long, value_name = "CIDR,…")]
    allowed_ips: Option<String>,
    /// Origins of the pages that may use it, separated by commas; for publishable keys
    #[arg(long, value_name = "ORIGIN,…")]
    allowed_origins: Option<String>,
    /// Its own rate limit: 10/1s, 100/1m or 1000/1h; with +20 behind it, 20 may come at once
    #[arg(long, value_name = "LIMIT", value_parser = rate_limit)]
    rate_limit: Option<RateLimit>,
    /// Its own quota: 1000/day, 20000/month or both, separated by a comma
    #[arg(long, value_name = "QUOTA", value_parser = quota)]
    quota: Option<Quota>,
    /// A note of your own; may be repeated
    #[arg(long, value_name = "NAME=TEXT", value_parser = note)]
    metadata: Vec<(String, String)>,
    /// Make a pair of a public id and a secret, sent as `Basic`
    #[arg(long)]
    paired: bool,
    /// Print the key alone; of a pair id and secret, with a colon between them
    #[arg(long, conflicts_with = "output")]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

/// Makes the key and prints it.
pub(super) fn run(registry: &dyn Registry, args: CreateArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let (quiet, output) = (args.quiet, args.output.output);
    let list = |text: Option<String>| text.as_deref().map(split_list).unwrap_or_default();
    let asked = NewKey {
        name: args.name,
        description: args.description,
        owner: args.owner.map(|owner| owner.to_string()),
        environment: Some(args.environment),
        kind: Some(args.kind.into()),
        scopes: list(args.scopes),
        roles: list(args.roles),
        may_grant: list(args.may_grant),
        expires_at: expiry(args.expires_in, args.expires_at, false).flatten(),
        allowed_ips: list(args.allowed_ips),
        allowed_origins: list(args.allowed_origins),
        rate_limit: args.rate_limit.map(Into::into),
        quota: args.quota.map(Into::into),
        metadata: args.metadata.into_iter().map(|(name, text)| (name, Value::String(text))).collect::<BTreeMap<_, _>>(),
        paired: args.paired,
    };
    let fresh = registry.create_key(asked)?;
    show(registry, &fresh, quiet, output, console)
}

/// Prints a key that was just made, with its text.
pub(super) fn show(
    registry: &dyn Registry,
    fresh: &Fresh,
    quiet: bool,
    output: Output,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let Fresh { record, key } = fresh;
    if quiet {
        // The secret of a pair alone is no credential.
        match Record(record).says("paired").then(|| Record(record).text("id")) {
            Some(id) => writeln!(console.out, "{id}:{}", **key)?,
            None => writeln!(console.out, "{}", **key)?,
        }
        return Ok(());
    }
    match output {
        Output::Json => {
            let mut object = record.clone();
            if let Value::Object(fields) = &mut object {
                fields.insert("key".to_owned(), key.as_str().into());
            }
            output::json(console, &object)?;
        }
        Output::Text => {
            output::fields(console, &record::fields(record))?;
            writeln!(console.out, "\n{}\n", **key)?;
            let sample = match Record(record).text("id").parse() {
                Ok(id) => registry.sample_call(id)?,
                Err(_) => Sample::Unknown,
            };
            match sample {
                Sample::Call(call) => {
                    writeln!(console.out, "{}", call.with_key(key))?;
                    if !call.is_from_here() {
                        writeln!(console.talk, "note: it is accepted from other networks only; send it from there")?;
                    }
                }
                Sample::Nothing(why) => writeln!(console.talk, "note: {why}")?,
                Sample::Unknown => {}
            }
            writeln!(console.talk, "The key is shown this once: only its hash is kept.")?;
        }
    }
    Ok(())
}

pub(in crate::cli) fn name(text: &str) -> Result<String, String> {
    check_name(text).map(|()| text.to_owned())
}

pub(super) fn description(text: &str) -> Result<String, String> {
    check_description(text).map(|()| text.to_owned())
}

/// A kind by its name.
pub(in crate::cli) fn kind(text: &str) -> Result<KeyKind, String> {
    KeyKind::from_name(text).ok_or_else(|| "a key is secret, publishable or management".to_owned())
}

/// A moment, or the beginning of a day.
pub(super) fn end(text: &str) -> Result<Timestamp, String> {
    let day = |_| format!("{text}T00:00:00Z").parse();
    text.parse().or_else(day).map_err(|_| "write 2030-01-15T12:00:00Z, or 2030-01-15".to_owned())
}

pub(super) fn lifetime(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(span) if span.is_zero() => Err("a key that expires at once is of no use; write for example 90d".to_owned()),
        Ok(span) => Ok(span),
        Err(_) => Err("a span of time is a number and a unit: 30m, 24h or 90d".to_owned()),
    }
}

pub(in crate::cli) fn note(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a note is NAME=TEXT")?;
    Ok((name.to_owned(), value.to_owned()))
}
