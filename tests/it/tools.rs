//! Programs of other people that tests speak to: found, or their absence is a failure where they must be there.

use std::io::Write;
use std::path::PathBuf;

use tokio::process::Command;

/// Where `tests/run` puts a Python with the client libraries; absent when tests are run by hand.
fn python_home() -> Option<PathBuf> {
    std::env::var_os("PORTCULLIS_TEST_PYTHON").map(PathBuf::from)
}

/// The path of a program, or `None` when it may be absent. With `PORTCULLIS_TEST_TOOLS=all`, as `tests/run` sets it,
/// absence is a failure, so that nothing is skipped where it counts.
pub fn find(program: &str) -> Option<PathBuf> {
    let found = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|directory| directory.join(program)).find(|candidate| candidate.is_file())
    });
    demand(program, found)
}

/// A shared library below `/usr/lib` or its directory for this machine, under the same rule.
pub fn library(name: &str) -> Option<PathBuf> {
    let machines = std::fs::read_dir("/usr/lib").into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let found = std::iter::once(PathBuf::from("/usr/lib"))
        .chain(machines)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file());
    demand(name, found)
}

/// A Python that can import this module, under the same rule.
pub async fn python_with(module: &str) -> Option<PathBuf> {
    let candidate = python_home().or_else(|| find("python3"))?;
    let works = Command::new(&candidate)
        .args(["-c", &format!("import {module}")])
        .output()
        .await
        .is_ok_and(|output| output.status.success());
    demand(&format!("python module {module}"), works.then_some(candidate))
}

/// Remembers what cannot be done on this machine, whoever asks for it.
pub fn leave_out(what: &str) {
    note_left_out(&format!("{what}: not permitted here"));
}

fn demand(what: &str, found: Option<PathBuf>) -> Option<PathBuf> {
    if found.is_none() {
        let all = std::env::var("PORTCULLIS_TEST_TOOLS").is_ok_and(|value| value == "all");
        assert!(!all, "{what} is missing; `tests/run` installs it");
        note_left_out(&format!("{what} is not installed"));
    }
    found
}

/// Remembers what was left out where `tests/run` looks for it: the output of a passing test is shown to nobody.
fn note_left_out(what: &str) {
    let Some(path) = std::env::var_os("PORTCULLIS_TEST_LEFT_OUT") else { return };
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("tests/run made it");
    writeln!(file, "left out: {what}").expect("a line can be appended");
}

/// Runs a program with something on its standard input; `(code, output and errors)`.
pub async fn run(program: &std::path::Path, args: &[&str], input: &str) -> (i32, String) {
    use std::process::Stdio;
    use tokio::io::AsyncWriteExt;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap_or(-1), said)
}
