//! `nodes`: the processes that enforce keys, and how far behind the store each is.

use std::path::Path;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::console::Console;
use super::failure::Failure;
use super::local;
use super::output::{self, Output, OutputArgs, visible};

/// `nodes`.
#[derive(Args, Debug)]
pub(super) struct NodesArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// What the gateway answers.
#[derive(Deserialize, Debug)]
struct Answer {
    nodes: Vec<Value>,
}

/// Asks the running gateway, and lists them.
///
/// # Errors
/// As [`local::ask`].
pub(super) fn run(config: Option<&Path>, args: NodesArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let Answer { nodes } = local::ask(config, &json!({ "verb": "nodes" }))?;
    match args.output.output {
        Output::Json => output::json(console, &Value::Array(nodes))?,
        Output::Text => {
            let headings = ["NAME", "VERSION", "STARTED", "REVISION", "BEHIND", "AS OF"];
            output::table(console, &headings, nodes.iter().map(row).collect())?;
        }
    }
    Ok(())
}

fn row(node: &Value) -> Vec<String> {
    let cell = |name: &str| match &node[name] {
        Value::Null => "-".to_owned(),
        Value::String(text) => visible(text),
        other => other.to_string(),
    };
    let lag = node["lag_ms"].as_u64().map_or_else(|| "-".to_owned(), |lag| format!("{lag} ms"));
    vec![cell("name"), cell("version"), cell("started_at"), cell("revision"), lag, cell("as_of")]
}
