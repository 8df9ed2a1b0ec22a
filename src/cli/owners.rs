//! `owners`: the accounts that keys belong to, without a gateway running; one that runs follows by itself. With `--server`
//! on another machine.

use std::io;
use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::console::Console;
use super::failure::Failure;
use super::fleet::{self, WaitArgs};
use super::keys::{name, note};
use super::output::{self, Output, OutputArgs};
use super::record::Record;
use super::registry::{Registry, ServerArgs};
use crate::domain::{OwnerId, Quota, RateLimit};
use crate::manage::{
    NewOwner, OwnerChange, Whole, quota_of_text as quota, rate_limit_of_text as rate_limit, split_list,
};

/// `owners`.
#[derive(Args, Debug)]
pub(super) struct OwnersLine {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    verb: OwnersVerb,
}

/// Verbs about owners.
#[derive(Subcommand, Debug)]
pub(super) enum OwnersVerb {
    /// Make an owner
    Create(CreateArgs),
    /// List owners
    List(OutputArgs),
    /// Show what is known about an owner
    Show(OneArgs),
    /// Change an owner; what is left out stays
    Update(UpdateArgs),
    /// Refuse all keys of an owner
    Suspend(SwitchArgs),
    /// Accept the keys of an owner again
    Resume(SwitchArgs),
}

/// What is agreed with an owner.
#[derive(Args, Debug)]
pub(super) struct TermsArgs {
    /// What its keys may ask for together: 10/1s, 100/1m or 1000/1h; with +20 behind it, 20 may come at once
    #[arg(long, value_name = "LIMIT", value_parser = rate_limit)]
    rate_limit: Option<RateLimit>,
    /// What its keys may ask for together in a day or a month: 1000/day, 20000/month or both
    #[arg(long, value_name = "QUOTA", value_parser = quota)]
    quota: Option<Quota>,
    /// How many keys it may have that are not revoked
    #[arg(long, value_name = "NUMBER")]
    max_keys: Option<u32>,
    /// The ceiling of what its keys may be granted, separated by commas; "" for nothing
    #[arg(long, value_name = "SCOPE,…")]
    may_grant: Option<String>,
    /// A note of your own; may be repeated
    #[arg(long, value_name = "NAME=TEXT", value_parser = note)]
    metadata: Option<Vec<(String, String)>>,
}

/// `owners create`.
#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    /// A label for people; need not be unique
    #[arg(long, value_parser = name)]
    name: String,
    #[command(flatten)]
    terms: TermsArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// `owners update`.
#[derive(Args, Debug)]
pub(super) struct UpdateArgs {
    /// The owner's id
    #[arg(value_name = "ID")]
    id: OwnerId,
    /// Another label
    #[arg(long, value_parser = name)]
    name: Option<String>,
    #[command(flatten)]
    terms: TermsArgs,
    /// Take away what is agreed: any of rate-limit, quota, max-keys, may-grant, separated by commas
    #[arg(long, value_name = "TERM,…", value_delimiter = ',', value_parser = ["rate-limit", "quota", "max-keys", "may-grant"])]
    without: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

/// A verb about one owner.
#[derive(Args, Debug)]
pub(super) struct OneArgs {
    /// The owner's id
    #[arg(value_name = "ID")]
    id: OwnerId,
    #[command(flatten)]
    output: OutputArgs,
}

/// `owners suspend` and `resume`.
#[derive(Args, Debug)]
pub(super) struct SwitchArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    wait: WaitArgs,
}

impl OwnersVerb {
    /// How long it waits for the fleet; none: not at all.
    fn patience(&self) -> Option<Duration> {
        match self {
            Self::Create(args) => args.wait.patience(),
            Self::Update(args) => args.wait.patience(),
            Self::Suspend(args) | Self::Resume(args) => args.wait.patience(),
            Self::List(_) | Self::Show(_) => None,
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "owners create",
            Self::List(_) => "owners list",
            Self::Show(_) => "owners show",
            Self::Update(_) => "owners update",
            Self::Suspend(_) => "owners suspend",
            Self::Resume(_) => "owners resume",
        }
    }
}

/// Does it.
pub(super) fn run(config: Option<&Path>, line: OwnersLine, console: &mut Console<'_>) -> Result<(), Failure> {
    let registry = line.server.open_to_change(config, line.verb.name(), line.verb.patience())?;
    let notes =
        |notes: Vec<(String, String)>| notes.into_iter().map(|(name, text)| (name, Value::String(text))).collect();
    let (owner, output) = match line.verb {
        OwnersVerb::List(args) => return list(&*registry, args.output, console),
        OwnersVerb::Show(OneArgs { id, output }) => (registry.owner(id)?, output),
        OwnersVerb::Create(CreateArgs { name, terms, output, wait: _ }) => {
            let asked = NewOwner {
                name,
                rate_limit: terms.rate_limit.map(Into::into),
                quota: terms.quota.map(Into::into),
                max_keys: terms.max_keys.map(Whole),
                may_grant: terms.may_grant.as_deref().map(split_list),
                metadata: terms.metadata.map(notes).unwrap_or_default(),
            };
            (registry.create_owner(asked)?, output)
        }
        OwnersVerb::Update(UpdateArgs { id, name, terms, without, output, wait: _ }) => {
            let taken = |term: &str| without.iter().any(|taken| taken == term);
            let change = OwnerChange {
                name,
                rate_limit: terms.rate_limit.map(|limit| Some(limit.into())).or(taken("rate-limit").then_some(None)),
                quota: terms.quota.map(|quota| Some(quota.into())).or(taken("quota").then_some(None)),
                max_keys: terms.max_keys.map(|most| Some(Whole(most))).or(taken("max-keys").then_some(None)),
                may_grant: terms
                    .may_grant
                    .as_deref()
                    .map(|text| Some(split_list(text)))
                    .or(taken("may-grant").then_some(None)),
                metadata: terms.metadata.map(notes),
            };
            (registry.change_owner(id, &change)?, output)
        }
        OwnersVerb::Suspend(SwitchArgs { one: OneArgs { id, output }, .. }) => {
            (registry.set_suspended(id, true)?, output)
        }
        OwnersVerb::Resume(SwitchArgs { one: OneArgs { id, output }, .. }) => {
            (registry.set_suspended(id, false)?, output)
        }
    };
    write(&owner, output.output, console)?;
    fleet::tell(&*registry, console)
}

fn write(owner: &Value, format: Output, console: &mut Console<'_>) -> io::Result<()> {
    if format == Output::Json {
        return output::json(console, owner);
    }
    let record = Record(owner);
    let shown = |name: &str| record.shown(name).unwrap_or_default();
    let mut fields = vec![
        ("id", shown("id")),
        ("name", shown("name")),
        ("suspended", if record.says("suspended") { "yes" } else { "no" }.to_owned()),
        ("created", shown("created_at")),
    ];
    let mut set = |name, value: Option<String>| fields.extend(value.map(|value| (name, value)));
    set("rate limit", record.rate_limit());
    set("quota", record.quota());
    set("max keys", owner["max_keys"].as_u64().map(|most| most.to_string()));
    let has_ceiling = owner["may_grant"].is_array();
    set("ceiling", has_ceiling.then(|| record.words("may_grant").unwrap_or_else(|| "nothing".to_owned())));
    fields.extend(record.notes());
    output::fields(console, &fields)
}

fn list(registry: &dyn Registry, format: Output, console: &mut Console<'_>) -> Result<(), Failure> {
    let mut owners = Vec::new();
    registry.list_owners(&mut |page| {
        owners.extend(page);
        Ok(())
    })?;
    match format {
        Output::Json => output::json(console, &Value::Array(owners))?,
        Output::Text if owners.is_empty() => writeln!(console.talk, "no owners")?,
        Output::Text => {
            let rows = owners.iter().map(|owner| {
                let record = Record(owner);
                let shown = |name: &str| record.shown(name).unwrap_or_default();
                vec![
                    shown("id"),
                    shown("name"),
                    if record.says("suspended") { "suspended" } else { "active" }.to_owned(),
                    owner["max_keys"].as_u64().map_or_else(|| "-".to_owned(), |most| most.to_string()),
                    shown("created_at"),
                ]
            });
            output::table(console, &["ID", "NAME", "STATE", "MAX KEYS", "CREATED"], rows.collect())?;
        }
    }
    Ok(())
}
