//! Asking the running gateway through its local socket: one line asks, one line answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::failure::Failure;
use super::{findings, site};
use crate::config::{self, Loaded};

/// How long a gateway may take: a reload looks at every key where a profile loses access.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest answer.
const MAX_ANSWER_BYTES: u64 = 4 * 1024 * 1024;

/// Asks the gateway of a configuration.
///
/// # Errors
/// [`Failure::Runtime`] when it cannot be reached; [`Failure::Configuration`] when, on top of that, the file is broken.
pub(super) fn ask<T: DeserializeOwned>(named: Option<&Path>, question: &Value) -> Result<T, Failure> {
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
    exchange(stream, question)
        .map_err(|error| Failure::runtime(format!("the gateway at {} gave no answer: {error}", socket.display())))
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

fn exchange<T: DeserializeOwned>(mut stream: UnixStream, question: &Value) -> std::io::Result<T> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{question}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_ANSWER_BYTES)).read_line(&mut line)?;
    if line.is_empty() {
        return Err(std::io::Error::other("it closed the connection; is it run by another user?"));
    }
    Ok(serde_json::from_str(&line)?)
}
