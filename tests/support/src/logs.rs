//! What a process said, line by line, as it says it.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use serde_json::Value;

/// Where a line was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Standard output: results and access lines.
    Out,
    /// Standard error: talk.
    Err,
}

/// All lines of one process so far. Cheap to clone; clones share the lines.
#[derive(Clone, Default)]
pub struct Logs {
    lines: Arc<Mutex<Vec<(Stream, String)>>>,
}

impl Logs {
    /// Reads `source` to its end in a thread of its own.
    pub(crate) fn follow(&self, stream: Stream, source: impl Read + Send + 'static) -> JoinHandle<()> {
        let lines = Arc::clone(&self.lines);
        std::thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n') {
                let Ok(line) = line else { return };
                let text = String::from_utf8_lossy(&line).into_owned();
                lines.lock().unwrap_or_else(PoisonError::into_inner).push((stream, text));
            }
        })
    }

    /// Every line, both streams.
    pub fn lines(&self) -> Vec<String> {
        self.read(|lines| lines.iter().map(|(_, line)| line.clone()).collect())
    }

    /// Every line of one stream.
    pub fn lines_of(&self, wanted: Stream) -> Vec<String> {
        self.read(|lines| lines.iter().filter(|(stream, _)| *stream == wanted).map(|(_, line)| line.clone()).collect())
    }

    /// Everything in one text.
    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// Every line that is a JSON object, both streams.
    pub fn events(&self) -> Vec<Value> {
        self.read(|lines| lines.iter().filter_map(|(_, line)| object(line)).collect())
    }

    /// Events with this `message`.
    pub fn events_saying(&self, message: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["message"] == message).collect()
    }

    /// Access lines: one per request, on standard output.
    pub fn access(&self) -> Vec<Value> {
        self.read(|lines| {
            lines
                .iter()
                .filter(|(stream, line)| *stream == Stream::Out && line.contains("\"duration_ms\""))
                .filter_map(|(_, line)| object(line))
                .filter(|event| event.get("request_id").is_some())
                .collect()
        })
    }

    fn read<T>(&self, look: impl FnOnce(&[(Stream, String)]) -> T) -> T {
        look(&self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn object(line: &str) -> Option<Value> {
    line.starts_with('{').then(|| serde_json::from_str(line).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_lines_and_events_are_told_apart() {
        let logs = Logs::default();
        logs.follow(Stream::Out, &b"{\"request_id\":\"r\",\"duration_ms\":1,\"status\":200}\nplain\n"[..])
            .join()
            .unwrap();
        logs.follow(Stream::Err, &b"{\"message\":\"listening\",\"role\":\"data\"}\n"[..]).join().unwrap();
        assert_eq!(logs.access().len(), 1);
        assert_eq!(logs.events_saying("listening")[0]["role"], "data");
        assert_eq!(logs.lines().len(), 3);
    }
}
