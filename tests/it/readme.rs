//! Every command of the README works as printed: its `sh` blocks are run in order, in a directory of their own.
//!
//! A block's info string says how: `sh` is run, `sh background` is started and kept running while the rest is run
//! (and waited for until the gateway is ready), `sh no-run` is for the reader alone. Ports in a README are fixed, so
//! the whole runs in a network of its own where the system allows that.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use portcullis_testkit::patient;

use crate::{scene, tools};

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum How {
    Run,
    Background,
    No,
}

/// The `sh` blocks of a Markdown text, with the line each begins on.
fn blocks(markdown: &str) -> Vec<(usize, How, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, Option<How>, String, String)> = None;
    for (number, line) in markdown.lines().enumerate() {
        let bare = line.trim_start();
        let fence: String = bare.chars().take_while(|c| *c == '`').collect();
        match &mut open {
            Some((start, how, closing, text)) => {
                if bare.trim_end() == closing {
                    if let Some(how) = how {
                        found.push((*start, *how, std::mem::take(text)));
                    }
                    open = None;
                } else {
                    text.push_str(line);
                    text.push('\n');
                }
            }
            None if fence.len() >= 3 => {
                let words: Vec<&str> = bare[fence.len()..].split_whitespace().collect();
                let how = match words.as_slice() {
                    ["sh"] => Some(How::Run),
                    ["sh", "background"] => Some(How::Background),
                    ["sh", "no-run"] => Some(How::No),
                    ["sh" | "bash" | "shell" | "console", ..] => panic!("line {}: what is {words:?}?", number + 1),
                    _ => None,
                };
                open = Some((number + 1, how, fence, String::new()));
            }
            None => {}
        }
    }
    assert!(open.is_none(), "a fence is never closed");
    found
}

/// One script of all blocks that are run.
fn script(blocks: &[(usize, How, String)]) -> String {
    let mut script = String::from(
        "set -eu\n\
         wait_ready() { n=0; until curl -fsS -o /dev/null http://127.0.0.1:9902/readyz 2>/dev/null; do\n\
         n=$((n+1)); [ $n -lt 600 ] || { echo 'the gateway of the README is never ready'; exit 1; }; sleep 0.1; done; }\n\
         pids=\ntrap 'for pid in $pids; do kill $pid 2>/dev/null || true; done' EXIT\n",
    );
    for (line, how, text) in blocks {
        match how {
            How::Run => script.push_str(&format!("echo '# README.md:{line}' >&2\n{text}")),
            How::Background => {
                // `exec` makes the last command the process that is ended later.
                let (before, last) = text.trim_end().rsplit_once('\n').unwrap_or(("", text.trim_end()));
                script.push_str(&format!(
                    "echo '# README.md:{line} (in the background)' >&2\n{before}\n( exec {last} ) & pids=\"$pids $!\"\nwait_ready\n"
                ));
            }
            How::No => {}
        }
    }
    script
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_readme_works_as_printed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let markdown = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let blocks = blocks(&markdown);
    assert!(blocks.iter().any(|(_, how, _)| *how != How::No), "a README without a command to try");
    if tools::find("curl").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script_path = directory.path().join("readme.sh");
    std::fs::write(&script_path, script(&blocks)).unwrap();
    let work = directory.path().join("work");
    std::fs::create_dir(&work).unwrap();
    let binaries = Path::new(scene::BINARY).parent().unwrap();
    let search = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap_or_default());

    let inner = format!("sh {}", script_path.display());
    let mut command = if own_network().await {
        let mut command = tokio::process::Command::new("unshare");
        command.args(["--net", "--map-root-user", "sh", "-c", &format!("ip link set lo up && exec {inner}")]);
        command
    } else {
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", &inner]);
        command
    };
    command.current_dir(&work).env("PATH", search).env("HOME", &work).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(patient(Duration::from_secs(120)), command.output()).await.unwrap().unwrap();
    assert!(
        output.status.success(),
        "{}\n--- stderr\n{}\n--- stdout\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
}

async fn own_network() -> bool {
    tokio::process::Command::new("unshare")
        .args(["--net", "--map-root-user", "ip", "link", "set", "lo", "up"])
        .output()
        .await
        .is_ok_and(|output| output.status.success())
}

#[test]
fn blocks_are_found_by_their_info_string() {
    let text =
        "a\n```sh\none\ntwo\n```\n```yaml\nx: 1\n```\n  ```sh background\n  serve\n  ```\n````sh no-run\n```\n````\n";
    let found = blocks(text);
    assert_eq!(
        found.iter().map(|(line, how, text)| (*line, *how, text.as_str())).collect::<Vec<_>>(),
        [(2, How::Run, "one\ntwo\n"), (9, How::Background, "  serve\n"), (12, How::No, "```\n")]
    );
    let script = script(&found);
    assert!(script.contains("one\ntwo\n") && script.contains("( exec   serve ) &") && !script.contains("```"));
}
