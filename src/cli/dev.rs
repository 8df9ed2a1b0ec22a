//! `dev`: a trial in one command. Keys live in memory, nothing is left on disk.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use clap::Args;

use super::console::Console;
use super::curl::shell_word;
use super::failure::Failure;
use super::run::refused;
use super::vault::{Vault, local_actor};
use crate::app::{self, Options, RunError, Started};
use crate::config::{self, DevOptions, Settings};
use crate::domain::{Bounds, KeyKind, MintedKey, time};
use crate::manage::{Draft, mint};
use crate::server::ListenError;
use crate::store::Store;
use crate::telemetry::LogOutput;

/// `dev`.
#[derive(Args, Debug)]
pub(super) struct DevArgs {
    /// The server to put the gateway in front of, http://host:port [default: a built-in one that shows what it gets]
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Where clients connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where the management API answers
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
    /// Where metrics and health answer
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9902")]
    metrics: SocketAddr,
}

/// The environment of the trial's key: its text says that it is for testing.
const ENVIRONMENT: &str = "test";
/// What the trial's key may do.
const SCOPE: &str = "read:anything";

/// Runs the trial until it is told to stop.
///
/// # Errors
/// A taken port, named with its flag; an upstream that is no URL.
pub(super) fn run(args: DevArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let path = if args.upstream.is_some() { "/" } else { "/hello" };
    let behind = match &args.upstream {
        Some(url) => url.clone(),
        None => "a built-in server that answers with what it is sent".to_owned(),
    };
    let options = DevOptions { upstream: args.upstream, listen: args.listen, admin: args.admin, metrics: args.metrics };
    let settings = config::dev_settings(&options).map_err(|findings| {
        let words: Vec<String> = findings.iter().map(|finding| finding.message.clone()).collect();
        Failure::usage(format!("--upstream: {}. Write for example http://127.0.0.1:9000", words.join("; ")))
    })?;
    console.talk.write_all(format!("Trying portcullis in front of {behind}. Ctrl-C ends it.\n").as_bytes())?;
    let stderr = io::stderr();
    let is_terminal = stderr.is_terminal();
    let colour = is_terminal && anstream::AutoStream::choice(&stderr) != anstream::ColorChoice::Never;
    // Standard output holds the lines to paste and nothing else.
    let log = LogOutput { writer: Box::new(stderr), is_terminal, colour };
    let for_key = settings.clone();
    let announce = move |started: &Started| {
        if let Err(failure) = announce(started, &for_key, path) {
            // The trial goes on; without its lines it shows less.
            tracing::error!("the trial's key was not made: {}", failure.to_string().trim_end());
        }
    };
    app::run(Options { settings, source: None, log, announce: Box::new(announce) }).map_err(|error| match error {
        RunError::Listen(error) => Failure::runtime(with_flag(error).to_string()),
        error => refused(error),
    })
}

/// The same error with the flag that changes the address, in place of the setting.
fn with_flag(error: ListenError) -> ListenError {
    let flag = match error.setting.as_str() {
        "metrics.bind" => "--metrics",
        "admin.bind" => "--admin",
        _ => "--listen",
    };
    ListenError { setting: flag.to_owned(), ..error }
}

/// Makes the key and prints the three lines.
fn announce(started: &Started, settings: &Settings, path: &str) -> Result<(), Failure> {
    let key = make_key(&started.store, settings)?;
    let address = started.data.first().map_or("", |(_, address)| address.as_str());
    let lines = lines(&format!("http://{address}{path}"), key.reveal());
    let mut out = io::stdout();
    out.write_all(lines.as_bytes())?;
    Ok(out.flush()?)
}

fn lines(url: &str, key: &str) -> String {
    let url = shell_word(url);
    let credential = format!("-H 'Authorization: Bearer {key}'");
    format!(
        "curl -i {url} {credential}  # 200: this key may read\n\
         curl -i {url}  # 401: no key\n\
         curl -i -X POST {url} {credential}  # 403: this key may not write\n"
    )
}

/// Puts a key into the running gateway's store.
fn make_key(store: &Arc<Store>, settings: &Settings) -> Result<MintedKey, Failure> {
    let (by, now) = (local_actor(), time::now());
    let draft = Draft {
        name: "dev".to_owned(),
        description: String::new(),
        owner: None,
        environment: ENVIRONMENT.to_owned(),
        kind: KeyKind::Secret,
        scopes: SCOPE.parse().into_iter().collect(),
        roles: Vec::new(),
        may_grant: Vec::new(),
        bounds: Bounds::default(),
        expires_at: None,
        metadata: BTreeMap::new(),
        paired: false,
    };
    let word = settings.gate.environments.get(ENVIRONMENT).map_or(ENVIRONMENT, |environment| &environment.word);
    let (record, key) = mint(draft, word, &settings.gate, &by.name, now)?;
    // This is called on the gateway's own runtime, which must not wait for itself.
    let insert = || Vault::over(Arc::clone(store))?.ask(|store| store.writer().insert_keys(vec![record], by, now));
    let inserted = std::thread::scope(|scope| scope.spawn(insert).join());
    inserted.map_err(|_| Failure::runtime("a thread panicked"))??;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_lines_name_what_they_answer() {
        let text = lines("http://127.0.0.1:1/hello", "KEY");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "curl -i http://127.0.0.1:1/hello -H 'Authorization: Bearer KEY'  # 200: this key may read",
                "curl -i http://127.0.0.1:1/hello  # 401: no key",
                "curl -i -X POST http://127.0.0.1:1/hello -H 'Authorization: Bearer KEY'  # 403: this key may not write",
            ]
        );
    }
}
