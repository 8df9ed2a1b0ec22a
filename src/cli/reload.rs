//! `reload`: asks the running gateway to read its configuration again.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::console::Console;
use super::failure::Failure;
use super::output::{self, Output, OutputArgs, visible};
use super::{findings, site};
use crate::config::{self, Loaded};

/// `reload`.
#[derive(Args, Debug)]
pub(super) struct ReloadArgs {
    /// Only say which routes would demand something else, and which keys would lose access
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// How long a gateway may take: a dry run looks at every key.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest answer.
const MAX_ANSWER_BYTES: u64 = 4 * 1024 * 1024;

/// What the gateway answers.
#[derive(Deserialize, Debug)]
struct Report {
    ok: bool,
    changed_routes: Vec<String>,
    losing_keys: Vec<String>,
    problems: Vec<String>,
}

/// Asks, and says how it went.
///
/// # Errors
/// [`Failure::Configuration`] when the gateway refuses the file; [`Failure::Runtime`] when it cannot be reached.
pub(super) fn run(named: Option<&Path>, args: ReloadArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let path = site::find(named)?;
    // The gateway reads the file itself, with its own variables: a file that is broken here is for it to refuse.
    let loaded = config::load(&path, &site::variable);
    let socket = socket_of(&loaded, &path);
    let stream = UnixStream::connect(&socket).map_err(|error| match &loaded.settings {
        None => Failure::Configuration(findings::text(&loaded)),
        Some(_) => Failure::runtime(format!(
            "cannot reach a gateway at {} ({error}): `portcullis run` opens it, at `admin.socket` of its configuration",
            socket.display()
        )),
    })?;
    let report = ask(stream, args.dry_run)
        .map_err(|error| Failure::runtime(format!("the gateway at {} gave no answer: {error}", socket.display())))?;
    show(&report, &args, console)?;
    if report.ok {
        return Ok(());
    }
    let problems: String = report.problems.iter().map(|problem| format!("error: {}\n", visible(problem))).collect();
    let consequence = "The configuration was not taken over; the old one stays in force.\n";
    Err(Failure::Configuration(problems + if args.dry_run { "" } else { consequence }))
}

/// Where the gateway listens, as far as the file tells.
fn socket_of(loaded: &Loaded, path: &Path) -> PathBuf {
    if let Some(settings) = &loaded.settings {
        return settings.admin.socket.clone();
    }
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let written = serde_yaml::from_str::<serde_yaml::Value>(&text).ok();
    let socket = written.as_ref().and_then(|file| file.get("admin")?.get("socket")?.as_str());
    path.parent().unwrap_or(Path::new("")).join(socket.unwrap_or("data/portcullis.sock"))
}

/// One line asks, one line answers.
fn ask(mut stream: UnixStream, dry_run: bool) -> std::io::Result<Report> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{}\n", json!({ "verb": "reload", "dry_run": dry_run })).as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_ANSWER_BYTES)).read_line(&mut line)?;
    if line.is_empty() {
        return Err(std::io::Error::other("it closed the connection; is it run by another user?"));
    }
    Ok(serde_json::from_str(&line)?)
}

fn show(report: &Report, args: &ReloadArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let Report { ok, changed_routes, losing_keys, problems } = report;
    if args.output.output == Output::Json {
        let record: Value = json!({
            "ok": ok,
            "changed_routes": changed_routes,
            "losing_keys": losing_keys,
            "problems": problems,
        });
        return Ok(output::json(console, &record)?);
    }
    if !ok {
        return Ok(());
    }
    let would = |now: &'static str, then: &'static str| if args.dry_run { then } else { now };
    if changed_routes.is_empty() {
        writeln!(
            console.out,
            "{}",
            would("reloaded; no route demands anything else", "no route would demand anything else")
        )?;
    } else {
        writeln!(console.out, "{}", would("reloaded; these routes changed:", "these routes would change:"))?;
    }
    for route in changed_routes {
        writeln!(console.out, "  {}", visible(route))?;
    }
    if !losing_keys.is_empty() {
        writeln!(console.out, "{}", would("these keys lost access:", "these keys would lose access:"))?;
    }
    for key in losing_keys {
        writeln!(console.out, "  {}", visible(key))?;
    }
    Ok(())
}
