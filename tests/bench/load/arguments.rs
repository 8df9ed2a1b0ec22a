//! What it is told to do.

use std::time::Duration;

pub(crate) const USAGE: &str = "usage: portcullis-load --port PORT --path PATH --keys FILE --seconds SECONDS \
                                [--connections COUNT] [--rate REQUESTS_PER_SECOND]";

/// Most connections: a file descriptor each, within the usual bound of a process.
const MAX_CONNECTIONS: usize = 1_000;

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) port: u16,
    pub(crate) path: String,
    /// At least one.
    pub(crate) keys: Vec<String>,
    /// At least one.
    pub(crate) connections: usize,
    pub(crate) duration: Duration,
    /// Requests a second, at least one; none: as many as are answered.
    pub(crate) rate: Option<u32>,
}

impl Arguments {
    /// Reads the arguments, and the file of keys.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut port, mut path, mut keys, mut duration) = (None, None, None, None);
        let (mut connections, mut rate) = (64, None);
        while let Some(name) = words.next() {
            let value = words.next().ok_or_else(|| format!("{name}: a value is missing"))?;
            match name.as_str() {
                "--port" => port = Some(number(&name, &value)?),
                "--path" => path = Some(value),
                "--keys" => keys = Some(read_keys(&value)?),
                "--seconds" => {
                    let seconds = number(&name, &value)?;
                    duration = Some(Duration::try_from_secs_f64(seconds).map_err(|error| format!("{name}: {error}"))?);
                }
                "--connections" => connections = number(&name, &value)?,
                "--rate" => rate = Some(number(&name, &value)?),
                _ => return Err(format!("there is no argument {name}")),
            }
        }
        if !(1..=MAX_CONNECTIONS).contains(&connections) {
            return Err(format!("--connections: 1 to {MAX_CONNECTIONS}"));
        }
        if rate == Some(0) {
            return Err("--rate: at least 1".to_owned());
        }
        Ok(Self {
            port: port.ok_or("--port is missing")?,
            path: path.ok_or("--path is missing")?,
            keys: keys.ok_or("--keys is missing")?,
            connections,
            duration: duration.ok_or("--seconds is missing")?,
            rate,
        })
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name}: {value:?} is no such number"))
}

fn read_keys(file: &str) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    let keys: Vec<String> = text.lines().map(str::to_owned).collect();
    if keys.is_empty() { Err(format!("{file}: there is no key in it")) } else { Ok(keys) }
}
