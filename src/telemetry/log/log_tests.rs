//! Claims about events, their filter, and the queue to the output.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use http::Version;
use parking_lot::Mutex;
use serde_json::Value;
use tracing::dispatcher::with_default;

use super::{AccessLog, LogOutput, Logging};
use crate::domain::Timestamp;
use crate::telemetry::access::AccessLine;
use crate::telemetry::metrics::EventCount;
use crate::telemetry::settings::{LogFormat, LogLevel, LogSettings};

/// An output whose content the test reads once the log is gone.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn output(&self) -> LogOutput {
        LogOutput { writer: Box::new(self.clone()), is_terminal: false, colour: false }
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }

    fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn settings(format: LogFormat, level: LogLevel) -> LogSettings {
    LogSettings { format, level, access: true, mask_addresses: false }
}

/// What `act` makes a log write.
fn written(settings: &LogSettings, colour: bool, act: impl FnOnce(&Logging)) -> Paper {
    let paper = Paper::default();
    let output = LogOutput { colour, ..paper.output() };
    let dropped = Arc::new(EventCount::default());
    let logging = Logging::start(settings, output, Arc::clone(&dropped)).unwrap();
    with_default(&logging.dispatch, || act(&logging));
    drop(logging);
    assert_eq!(dropped.total(), 0);
    paper
}

fn access_line(path: &str) -> AccessLine<'_> {
    AccessLine {
        ts: Timestamp::from_unix_ms(0),
        request_id: "r",
        client_request_id: None,
        listener: "l",
        protocol: Version::HTTP_11,
        method: None,
        host: None,
        path: Some(path),
        route: None,
        upstream: None,
        status: 200,
        code: None,
        reason: None,
        missing_scopes: &[],
        mode: None,
        duration: Duration::ZERO,
        upstream_duration: None,
        key_id: None,
        key_prefix: None,
        owner: None,
        environment: None,
        client_ip: Some([203, 0, 113, 9].into()),
        bytes_in: 0,
        bytes_out: 0,
    }
}

#[test]
fn an_event_is_one_json_object_with_its_fields_beside_the_message() {
    let paper = written(&settings(LogFormat::Json, LogLevel::Info), false, |_| {
        let error = io::Error::other("disk full");
        tracing::warn!(route = "/v1/**", keys = 3u64, delta = -1i64, ok = true, ratio = 0.5, late = f64::NAN,
            error = &error as &dyn std::error::Error, r#type = ?Some(1), ts = "yesterday", "the store is {}", "slow");
    });
    let lines = paper.lines();
    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    assert_eq!(line["level"], "warn");
    assert_eq!(line["message"], "the store is slow");
    assert_eq!(line["target"], module_path!());
    assert_eq!(line["route"], "/v1/**");
    assert_eq!(line["keys"], 3);
    assert_eq!(line["delta"], -1);
    assert_eq!(line["ok"], true);
    assert_eq!(line["ratio"], 0.5);
    assert_eq!(line["late"], "NaN");
    assert_eq!(line["error"], "disk full");
    assert_eq!(line["type"], "Some(1)");
    assert_eq!(line["field_ts"], "yesterday");
    let ts = line["ts"].as_str().unwrap();
    assert!(ts.ends_with('Z') && ts.parse::<Timestamp>().unwrap().unix_ms() > 1_700_000_000_000, "{ts}");
    assert!(paper.text().starts_with(r#"{"ts":""#), "{}", paper.text());
}

#[test]
fn the_whole_chain_of_an_error_is_written() {
    #[derive(Debug)]
    struct Outer(io::Error);
    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("cannot read keys")
        }
    }
    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    let paper = written(&settings(LogFormat::Json, LogLevel::Info), false, |_| {
        let error = Outer(io::Error::other("disk full"));
        tracing::error!(error = &error as &dyn std::error::Error, "sync failed");
    });
    assert_eq!(paper.lines()[0]["error"], "cannot read keys: disk full");
}

#[test]
fn an_event_in_text_is_one_line_whatever_it_says() {
    let paper = written(&settings(LogFormat::Text, LogLevel::Info), false, |_| {
        tracing::info!(name = "a b", count = 2, "hello\n\u{1b}[2Jforged");
    });
    let text = paper.text();
    let (ts, rest) = text.split_once(' ').unwrap();
    assert!(ts.parse::<Timestamp>().is_ok(), "{text}");
    assert_eq!(rest, " info hello\\n\\u{1b}[2Jforged name=\"a b\" count=2\n");
}

#[test]
fn colour_surrounds_the_level_and_nothing_else() {
    let paper = written(&settings(LogFormat::Text, LogLevel::Info), true, |_| tracing::warn!("careful"));
    assert!(paper.text().ends_with(" \u{1b}[33m warn\u{1b}[0m careful\n"), "{:?}", paper.text());
    let paper = written(&settings(LogFormat::Json, LogLevel::Info), true, |_| tracing::warn!("careful"));
    assert!(!paper.text().contains('\u{1b}'), "{:?}", paper.text());
}

#[test]
fn auto_is_text_on_a_terminal_and_json_elsewhere() {
    for is_terminal in [true, false] {
        let paper = Paper::default();
        let output = LogOutput { is_terminal, ..paper.output() };
        let logging = Logging::start(&settings(LogFormat::Auto, LogLevel::Info), output, Arc::default()).unwrap();
        with_default(&logging.dispatch, || tracing::info!("hello"));
        drop(logging);
        assert_eq!(paper.text().starts_with('{'), !is_terminal);
    }
}

#[test]
fn libraries_never_write_below_a_warning_even_when_everything_is_asked_for() {
    let paper = written(&settings(LogFormat::Json, LogLevel::Trace), false, |_| {
        tracing::trace!("ours");
        tracing::info!(target: "hyper::proto", authorization = "Bearer secret", "head");
        tracing::debug!(target: "h2::codec", "frame");
        tracing::warn!(target: "rustls", "handshake");
    });
    let messages: Vec<_> = paper.lines().iter().map(|line| line["message"].clone()).collect();
    assert_eq!(messages, ["ours", "handshake"]);
}

#[test]
fn a_reload_changes_level_format_and_masking_of_a_running_log() {
    let paper = written(&settings(LogFormat::Json, LogLevel::Warn), false, |logging| {
        let access = logging.access_log();
        tracing::info!("too quiet");
        tracing::warn!("loud");
        access.write(&access_line("/before"));
        access.flush();
        logging.apply(&LogSettings { mask_addresses: true, ..settings(LogFormat::Text, LogLevel::Info) });
        tracing::info!("now heard");
        access.write(&access_line("/after"));
        access.flush();
        logging.apply(&LogSettings { access: false, ..settings(LogFormat::Text, LogLevel::Error) });
        assert!(!access.is_enabled());
        access.write(&access_line("/unwanted"));
        assert!(!access.has_waiting());
        tracing::warn!("too quiet again");
    });
    let text = paper.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[0].contains(r#""message":"loud""#), "{text}");
    assert!(lines[1].contains(r#""path":"/before""#) && lines[1].contains("203.0.113.9"), "{text}");
    assert!(lines[2].ends_with(" info now heard"), "{text}");
    assert!(lines[3].contains(" /after ") && lines[3].contains("203.0.113.0"), "{text}");
}

#[test]
fn access_lines_are_handed_over_in_chunks_and_the_rest_when_asked_or_dropped() {
    let paper = Paper::default();
    let logging = Logging::start(&settings(LogFormat::Json, LogLevel::Info), paper.output(), Arc::default()).unwrap();
    let access = logging.access_log();
    let mut written = 0;
    while access.has_waiting() || written == 0 {
        access.write(&access_line("/a"));
        written += 1;
    }
    assert!((100..1000).contains(&written), "a chunk is some hundred lines, not {written}");
    access.write(&access_line("/b"));
    access.flush();
    assert!(!access.has_waiting());
    access.write(&access_line("/c"));
    drop(access);
    drop(logging);
    let lines = paper.lines();
    assert_eq!(lines.len(), written + 2);
    assert_eq!(lines[written]["path"], "/b");
    assert_eq!(lines[written + 1]["path"], "/c");
}

/// An output that takes nothing until it is let go.
struct Jam {
    is_reached: SyncSender<()>,
    let_go: Receiver<()>,
    paper: Paper,
}

impl Write for Jam {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.is_reached.try_send(());
        let _ = self.let_go.recv();
        self.paper.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn jammed_log() -> (Logging, Paper, Arc<EventCount>, Receiver<()>, SyncSender<()>) {
    let (is_reached, reached) = sync_channel(1);
    let (release, let_go) = sync_channel(0);
    let paper = Paper::default();
    let jam = Jam { is_reached, let_go, paper: paper.clone() };
    let output = LogOutput { writer: Box::new(jam), is_terminal: false, colour: false };
    let dropped = Arc::new(EventCount::default());
    let logging = Logging::start(&settings(LogFormat::Json, LogLevel::Info), output, Arc::clone(&dropped)).unwrap();
    (logging, paper, dropped, reached, release)
}

#[test]
fn a_stuck_output_costs_counted_lines_and_no_waiting() {
    let (logging, paper, dropped, reached, release) = jammed_log();
    let sent = 5000;
    with_default(&logging.dispatch, || {
        for _ in 0..sent {
            tracing::info!("line");
        }
    });
    reached.recv().unwrap();
    assert!(dropped.total() > 0);
    // From here on every write goes through, because the other end of the channel is gone.
    drop(release);
    drop(logging);
    assert_eq!(paper.lines().len() as u64 + dropped.total(), sent);
}

#[test]
fn a_stuck_output_bounds_the_bytes_that_wait() {
    let (logging, paper, dropped, reached, release) = jammed_log();
    let access = logging.access_log();
    let path = format!("/{}", "x".repeat(60_000));
    let sent = 600;
    for _ in 0..sent {
        access.write(&access_line(&path));
    }
    access.flush();
    reached.recv().unwrap();
    assert!(dropped.total() > 0, "600 lines of 60 kB are more than may wait");
    drop(release);
    drop(access);
    drop(logging);
    assert_eq!(paper.lines().len() as u64 + dropped.total(), sent);
}

#[test]
fn leaving_does_not_wait_forever_for_a_stuck_output() {
    let (logging, paper, _dropped, reached, release) = jammed_log();
    with_default(&logging.dispatch, || tracing::info!("line"));
    reached.recv().unwrap();
    drop(logging);
    assert_eq!(paper.text(), "", "the output was stuck all the time");
    drop(release);
}

#[test]
fn lines_that_the_output_refuses_are_counted() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let dropped = Arc::new(EventCount::default());
    let output = LogOutput { writer: Box::new(Closed), is_terminal: false, colour: false };
    let logging = Logging::start(&settings(LogFormat::Json, LogLevel::Info), output, Arc::clone(&dropped)).unwrap();
    let access = logging.access_log();
    access.write(&access_line("/a"));
    access.write(&access_line("/b"));
    drop(access);
    drop(logging);
    assert_eq!(dropped.total(), 2);
}

#[test]
fn an_access_log_may_move_to_its_thread() {
    fn is_send<T: Send>() {}
    is_send::<AccessLog>();
}
