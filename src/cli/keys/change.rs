//! `keys update`: what is said about a key is changed, the rest stays.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::create::{description, end, lifetime, name, note};
use super::record;
use crate::cli::console::Console;
use crate::cli::failure::Failure;
use crate::cli::fleet::WaitArgs;
use crate::cli::output::OutputArgs;
use crate::cli::registry::Registry;
use crate::domain::{KeyId, Quota, RateLimit, Timestamp, time};
use crate::manage::{KeyChange, Moment, quota_of_text as quota, rate_limit_of_text as rate_limit, split_list};

/// `keys update`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub(in crate::cli) struct UpdateArgs {
    /// The key's id
    #[arg(value_name = "ID")]
    id: KeyId,
    /// Another label
    #[arg(long, value_parser = name, group = "what")]
    name: Option<String>,
    /// Another text
    #[arg(long, value_name = "TEXT", value_parser = description, group = "what")]
    description: Option<String>,
    /// What it may use from now on, separated by commas; "" for nothing
    #[arg(long, value_name = "SCOPE,…", group = "what")]
    scopes: Option<String>,
    /// The roles it has from now on; "" for none
    #[arg(long, value_name = "ROLE,…", group = "what")]
    roles: Option<String>,
    /// What it may hand out from now on; "" for nothing
    #[arg(long, value_name = "SCOPE,…", group = "what")]
    may_grant: Option<String>,
    /// From when on it is refused, from now: 90d, 24h, 30m
    #[arg(long, value_name = "DURATION", value_parser = lifetime, group = "what", conflicts_with = "no_expiry")]
    expires_in: Option<Duration>,
    /// The same as a moment: 2030-01-15T12:00:00Z, or 2030-01-15 for its beginning in UTC
    #[arg(long, value_name = "WHEN", value_parser = end, group = "what", conflicts_with_all = ["no_expiry", "expires_in"])]
    expires_at: Option<Timestamp>,
    /// It does not expire any more
    #[arg(long, group = "what")]
    no_expiry: bool,
    /// Networks that its requests come from; "" for any
    #[arg(long, value_name = "CIDR,…", group = "what")]
    allowed_ips: Option<String>,
    /// Origins of the pages that may use it; "" for any
    #[arg(long, value_name = "ORIGIN,…", group = "what")]
    allowed_origins: Option<String>,
    /// Its own rate limit: 10/1s, 100/1m or 1000/1h; with +20 behind it, 20 may come at once
    #[arg(long, value_name = "LIMIT", value_parser = rate_limit, group = "what", conflicts_with = "no_rate_limit")]
    rate_limit: Option<RateLimit>,
    /// Its environment's rate limit holds again
    #[arg(long, group = "what")]
    no_rate_limit: bool,
    /// Its own quota: 1000/day, 20000/month or both
    #[arg(long, value_name = "QUOTA", value_parser = quota, group = "what", conflicts_with = "no_quota")]
    quota: Option<Quota>,
    /// Its environment's quota holds again
    #[arg(long, group = "what")]
    no_quota: bool,
    /// Notes of your own, in place of those it has; may be repeated
    #[arg(long, value_name = "NAME=TEXT", value_parser = note, group = "what")]
    metadata: Option<Vec<(String, String)>>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
}

/// Changes the key and prints its record.
pub(super) fn run(registry: &dyn Registry, args: UpdateArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let list = |text: Option<String>| text.as_deref().map(split_list);
    let change = KeyChange {
        name: args.name,
        description: args.description,
        scopes: list(args.scopes),
        roles: list(args.roles),
        may_grant: list(args.may_grant),
        active: None,
        expires_at: expiry(args.expires_in, args.expires_at, args.no_expiry),
        allowed_ips: list(args.allowed_ips),
        allowed_origins: list(args.allowed_origins),
        rate_limit: args.rate_limit.map(|limit| Some(limit.into())).or(args.no_rate_limit.then_some(None)),
        quota: args.quota.map(|quota| Some(quota.into())).or(args.no_quota.then_some(None)),
        metadata: args
            .metadata
            .map(|notes| notes.into_iter().map(|(name, text)| (name, Value::String(text))).collect()),
    };
    let key = registry.change_key(args.id, &change)?;
    Ok(record::write(&key, args.output.output, console)?)
}

/// What `--expires-in`, `--expires-at` and `--no-expiry` say of an expiry; none where none of them is there.
pub(super) fn expiry(
    expires_in: Option<Duration>,
    expires_at: Option<Timestamp>,
    no_expiry: bool,
) -> Option<Option<Moment>> {
    let end = expires_at.or_else(|| expires_in.map(|span| time::now().whole_second_after(span)));
    match end {
        Some(end) => Some(Some(Moment(end.to_string()))),
        None => no_expiry.then_some(None),
    }
}
