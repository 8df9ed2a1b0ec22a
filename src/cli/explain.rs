//! `explain`: which rule decides a request, and why; and what became of one a moment ago.

use std::net::IpAddr;
use std::path::Path;

use clap::Args;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::console::Console;
use super::failure::Failure;
use super::keys::kind;
use super::local;
use super::output::{self, Output, OutputArgs, visible};
use super::site::Site;
use super::vault::Vault;
use crate::domain::{KeyId, KeyKind, time};
use crate::explain::{Account, Supposition, TypedRequest};
use crate::gate::{self, Rules};
use crate::manage::split_list;
use crate::store::OpenMode;

/// `explain`.
#[derive(Args, Debug)]
pub(super) struct ExplainArgs {
    /// GET, POST, …; or alone the id of a request that the running gateway answered (X-Request-Id)
    #[arg(value_name = "METHOD|REQUEST_ID")]
    request: String,
    /// A whole URL, or a path alone: /v1/orders
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// As asked with this key
    #[arg(long, value_name = "ID", requires = "url", conflicts_with_all = ["scopes", "environment", "kind"])]
    key_id: Option<KeyId>,
    /// As asked with a key that holds these, separated by commas; "" for a key without scopes
    #[arg(long, value_name = "SCOPE,…", requires = "url")]
    scopes: Option<String>,
    /// The environment of that key
    #[arg(long, value_name = "NAME", default_value = "live", requires = "scopes")]
    environment: String,
    /// The kind of that key
    #[arg(long, default_value = "secret", value_parser = kind, requires = "scopes")]
    kind: KeyKind,
    /// The address the client has, for routes with `allow_ips`
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    from: IpAddr,
    /// The page that sends it, as browsers name it: `https://app.example.com`
    #[arg(long, value_name = "ORIGIN", requires = "url")]
    origin: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// What a gateway answers about a past request.
#[derive(Deserialize, Debug)]
struct Answer {
    ok: bool,
    #[serde(default)]
    problems: Vec<String>,
    #[serde(default)]
    record: Value,
    #[serde(default)]
    then: Vec<(String, String)>,
    #[serde(default)]
    now: Vec<(String, String)>,
    #[serde(default)]
    note: String,
}

/// Prints the decision and how it came about.
pub(super) fn run(config: Option<&Path>, args: ExplainArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    match &args.url {
        Some(url) => supposed(config, &args, url, console),
        None => past(config, &args, console),
    }
}

/// A request that is only supposed, by the file.
fn supposed(config: Option<&Path>, args: &ExplainArgs, url: &str, console: &mut Console<'_>) -> Result<(), Failure> {
    let site = Site::open(config)?;
    let rules = site.rules()?;
    let request = TypedRequest::parse(&args.request, url).map_err(Failure::Usage)?;
    let request = match &args.origin {
        None => request,
        Some(origin) => request.from_page(origin).map_err(|problem| Failure::usage(format!("--origin: {problem}")))?,
    };
    let supposition = caller(args, &site, &rules)?;
    let explanation = gate::explain(&request.head(Some(args.from)), &rules, &supposition.caller, time::now());
    let account = Account { request: &request, who: &supposition.who, rules: &rules, explanation: &explanation };
    match args.output.output {
        Output::Json => output::json(console, &account.json())?,
        Output::Text => {
            output::fields(console, &shown(account.fields()))?;
            let answers_hosts = rules.settings.routes.iter().any(|route| !route.hosts.is_empty());
            if request.host.is_empty() && explanation.rule.is_none() && answers_hosts {
                writeln!(console.talk, "note: some routes are for certain hosts; write https://HOST{}", request.path)?;
            }
        }
    }
    Ok(())
}

/// A request that happened, by what the running gateway remembers.
fn past(config: Option<&Path>, args: &ExplainArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let id = &args.request;
    if Method::from_bytes(id.as_bytes()).is_ok() && id.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(Failure::usage(format!(
            "write which URL: `explain {id} /v1/orders`; or the id of a request alone"
        )));
    }
    let answer: Answer = local::ask(config, &json!({ "verb": "explain", "request_id": id }))?;
    if !answer.ok {
        let problems: Vec<String> = answer.problems.iter().map(|problem| visible(problem)).collect();
        return Err(Failure::runtime(problems.join("; ")));
    }
    match args.output.output {
        Output::Json => output::json(console, &answer.record)?,
        Output::Text => {
            output::fields(console, &shown(answer.then))?;
            if !answer.now.is_empty() {
                writeln!(console.out, "\nThe same request now:")?;
                output::fields(console, &shown(answer.now))?;
            }
            writeln!(console.out, "\n{}", visible(&answer.note))?;
        }
    }
    Ok(())
}

/// Values that may come from outside, for a terminal.
fn shown<N>(fields: Vec<(N, String)>) -> Vec<(N, String)> {
    fields.into_iter().map(|(name, value)| (name, visible(&value))).collect()
}

fn caller(args: &ExplainArgs, site: &Site, rules: &Rules) -> Result<Supposition, Failure> {
    if let Some(id) = args.key_id {
        let vault = Vault::open(site, OpenMode::Existing, "explain --key-id")?;
        let record = vault.find(id)?;
        let suspended = vault.is_owner_suspended(&record)?;
        return Ok(Supposition::key(&record, suspended, rules, time::now()));
    }
    match &args.scopes {
        None => Ok(Supposition::nobody()),
        Some(scopes) => Supposition::scopes(&split_list(scopes), &args.environment, args.kind, &rules.settings)
            .map_err(|(_, problem)| Failure::Usage(problem)),
    }
}
