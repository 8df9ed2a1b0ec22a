//! `owners`: the accounts that keys belong to, without a gateway running; one that runs follows by itself.

use std::io;
use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::console::Console;
use super::failure::Failure;
use super::keys::{name, note, quota, quota_text, rate_limit, rate_text};
use super::output::{self, Output, OutputArgs, visible};
use super::site::Site;
use super::vault::{Vault, local_actor};
use crate::domain::{GrantedScope, OwnerId, OwnerRecord, Quota, RateLimit, time};
use crate::manage::{Authority, Desk, NewOwner, OwnerChange, Whole, owner_json, split_list};
use crate::store::{Command, OpenMode};

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
    Suspend(OneArgs),
    /// Accept the keys of an owner again
    Resume(OneArgs),
}

/// What is agreed with an owner.
#[derive(Args, Debug)]
pub(super) struct TermsArgs {
    /// What its keys may ask for together: 10/1s, or 10/1s+20 where 20 may come at once
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

/// Does it.
pub(super) fn run(config: Option<&Path>, verb: OwnersVerb, console: &mut Console<'_>) -> Result<(), Failure> {
    let site = Site::open(config)?;
    let verb_name = match &verb {
        OwnersVerb::Create(_) => "owners create",
        OwnersVerb::List(_) => "owners list",
        OwnersVerb::Show(_) => "owners show",
        OwnersVerb::Update(_) => "owners update",
        OwnersVerb::Suspend(_) => "owners suspend",
        OwnersVerb::Resume(_) => "owners resume",
    };
    let vault = Vault::open(&site, OpenMode::Create, verb_name)?;
    let authority = Authority::Local(local_actor());
    let desk = Desk { store: vault.store(), settings: &site.settings.gate, authority: &authority, now: time::now() };
    let notes =
        |notes: Vec<(String, String)>| notes.into_iter().map(|(name, text)| (name, Value::String(text))).collect();
    let (id, output) = match verb {
        OwnersVerb::List(args) => return list(&vault, args.output, console),
        OwnersVerb::Show(OneArgs { id, output }) => (id, output),
        OwnersVerb::Create(CreateArgs { name, terms, output }) => {
            let asked = NewOwner {
                name,
                rate_limit: terms.rate_limit.map(Into::into),
                quota: terms.quota.map(Into::into),
                max_keys: terms.max_keys.map(Whole),
                may_grant: terms.may_grant.as_deref().map(split_list),
                metadata: terms.metadata.map(notes).unwrap_or_default(),
            };
            let record = desk.make_owner(asked)?;
            let id = record.id;
            vault.wait(desk.submit(Command::InsertOwner { record }, None))?;
            (id, output)
        }
        OwnersVerb::Update(UpdateArgs { id, name, terms, without, output }) => {
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
            vault.wait(desk.change_owner(id, &change, None))?;
            (id, output)
        }
        OwnersVerb::Suspend(OneArgs { id, output }) => {
            vault.wait(desk.set_suspended(id, true))?;
            (id, output)
        }
        OwnersVerb::Resume(OneArgs { id, output }) => {
            vault.wait(desk.set_suspended(id, false))?;
            (id, output)
        }
    };
    Ok(write(&vault.wait(desk.owner(id))?, output.output, console)?)
}

fn write(record: &OwnerRecord, format: Output, console: &mut Console<'_>) -> io::Result<()> {
    if format == Output::Json {
        return output::json(console, &owner_json(record));
    }
    let mut fields = vec![
        ("id", record.id.to_string()),
        ("name", visible(&record.name)),
        ("suspended", if record.suspended { "yes" } else { "no" }.to_owned()),
        ("created", record.created_at.to_string()),
    ];
    let mut set = |name, value: Option<String>| fields.extend(value.map(|value| (name, value)));
    set("rate limit", record.rate_limit.map(|limit| rate_text(&limit)));
    set("quota", record.quota.map(|quota| quota_text(&quota)));
    set("max keys", record.max_keys.map(|most| most.to_string()));
    set("ceiling", record.may_grant.as_deref().map(scopes_text));
    for (name, value) in &record.metadata {
        fields.push(("metadata", visible(&format!("{name}: {value}"))));
    }
    output::fields(console, &fields)
}

fn scopes_text(scopes: &[GrantedScope]) -> String {
    if scopes.is_empty() {
        return "nothing".to_owned();
    }
    scopes.iter().map(GrantedScope::as_str).collect::<Vec<_>>().join(" ")
}

fn list(vault: &Vault, format: Output, console: &mut Console<'_>) -> Result<(), Failure> {
    let owners = vault.ask(|store| store.reader().list_owners())?;
    match format {
        Output::Json => output::json(console, &owners.iter().map(owner_json).collect::<Value>())?,
        Output::Text if owners.is_empty() => writeln!(console.talk, "no owners")?,
        Output::Text => {
            let rows = owners.iter().map(|owner| {
                vec![
                    owner.id.to_string(),
                    visible(&owner.name),
                    if owner.suspended { "suspended" } else { "active" }.to_owned(),
                    owner.max_keys.map_or_else(|| "-".to_owned(), |most| most.to_string()),
                    owner.created_at.to_string(),
                ]
            });
            output::table(console, &["ID", "NAME", "STATE", "MAX KEYS", "CREATED"], rows.collect())?;
        }
    }
    Ok(())
}
