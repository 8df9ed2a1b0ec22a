//! `nodes`: the gateways that enforce keys, how far behind the store each is, and letting go of one that is no more.

use std::path::Path;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use super::console::Console;
use super::failure::Failure;
use super::local;
use super::output::{self, Output, OutputArgs, visible};
use super::site::Site;
use super::vault::{Vault, local_actor};
use crate::domain::{NodeId, time};
use crate::manage::{forget_node, nodes_json};
use crate::store::OpenMode;

/// `nodes`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct NodesLine {
    #[command(subcommand)]
    verb: Option<NodesVerb>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Verbs about nodes.
#[derive(Subcommand, Debug)]
enum NodesVerb {
    /// Say of a gateway that it serves no more: nobody waits for it. One that runs is back within seconds
    Forget(ForgetArgs),
}

/// `nodes forget`.
#[derive(Args, Debug)]
struct ForgetArgs {
    /// The node's id
    #[arg(value_name = "ID")]
    id: NodeId,
}

/// What the gateway answers.
#[derive(Deserialize, Debug)]
struct Answer {
    nodes: Vec<Value>,
    #[serde(default)]
    problem: Option<String>,
}

/// Does it.
///
/// # Errors
/// As [`local::ask`], and those of the store.
pub(super) fn run(config: Option<&Path>, line: NodesLine, console: &mut Console<'_>) -> Result<(), Failure> {
    match line.verb {
        None => list(config, line.output.output, console),
        Some(NodesVerb::Forget(ForgetArgs { id })) => forget(config, id, console),
    }
}

/// Asks the running gateway, which knows itself best; where none answers here, the store knows what all have told it.
fn list(config: Option<&Path>, format: Output, console: &mut Console<'_>) -> Result<(), Failure> {
    let nodes = match local::ask(config, &json!({ "verb": "nodes" })) {
        Ok(Answer { nodes, problem }) => {
            if let Some(problem) = problem {
                writeln!(console.talk, "warning: this is one gateway alone: {}", visible(&problem))?;
            }
            nodes
        }
        Err(Failure::Runtime(problem)) => match of_the_store(config) {
            Ok(nodes) => {
                writeln!(console.talk, "note: {problem}; this is what the store knows")?;
                nodes
            }
            Err(_) => return Err(Failure::Runtime(problem)),
        },
        Err(failure) => return Err(failure),
    };
    match format {
        Output::Json => output::json(console, &Value::Array(nodes))?,
        Output::Text => {
            let headings = ["NAME", "VERSION", "STARTED", "REVISION", "BEHIND", "LAG", "LAST SEEN", "STOPS BY", "ID"];
            output::table(console, &headings, nodes.iter().map(row).collect())?;
        }
    }
    Ok(())
}

fn of_the_store(config: Option<&Path>) -> Result<Vec<Value>, Failure> {
    let vault = Vault::open(&Site::open(config)?, OpenMode::Existing, "nodes")?;
    vault.ask(|store| Box::pin(nodes_json(store, None)))
}

fn row(node: &Value) -> Vec<String> {
    let cell = |name: &str| match &node[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => visible(text),
        other => other.to_string(),
    };
    let lag = node["lag_ms"].as_u64().map_or_else(|| "-".to_owned(), |lag| format!("{lag} ms"));
    let name = if node["this"] == true { format!("{} (this one)", cell("name")) } else { cell("name") };
    vec![
        name,
        cell("version"),
        cell("started_at"),
        cell("revision"),
        cell("behind"),
        lag,
        cell("last_seen"),
        cell("stops_by"),
        cell("id"),
    ]
}

fn forget(config: Option<&Path>, id: NodeId, console: &mut Console<'_>) -> Result<(), Failure> {
    let vault = Vault::open_checked(&Site::open(config)?, OpenMode::Existing, "nodes forget")?;
    if !vault.ask(|store| Box::pin(forget_node(store, id, local_actor(), time::now())))? {
        return Err(Failure::runtime(format!("there is no node {id}; `portcullis nodes` shows those there are")));
    }
    writeln!(console.out, "{id} is forgotten")?;
    Ok(())
}
