//! Log lines of a running gateway: events and access lines, both to standard output, from one thread.
//!
//! Owns setting up `tracing`, the buffers of access lines and the way to the output. Must not know what is logged.
//! Start at [`Logging::start`].

mod events;
mod writer;

#[cfg(test)]
mod log_tests;

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tracing::Dispatch;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, reload};

use self::events::EventLines;
use self::writer::{LineSender, LineWriter};
use super::access::{AccessLine, Addresses, ClockText, LineFormat};
use super::metrics::EventCount;
use super::settings::{LogFormat, LogLevel, LogSettings};

/// What the targets of our own events begin with.
const OUR_TARGET: &str = "portcullis";
/// Access lines are handed over once this many bytes are waiting. Waking the writing thread is what a line costs
/// beside its formatting: at 16 KiB 240 ns, at 64 KiB 40 ns a line of 550 bytes under full load.
const CHUNK_BYTES: usize = 64 * 1024;

/// Where lines go, and what it can show.
pub struct LogOutput {
    /// Takes the bytes, from a thread of its own.
    pub writer: Box<dyn Write + Send>,
    /// Whether people watch it, which is what `format: auto` asks.
    pub is_terminal: bool,
    /// Whether levels may be coloured in text.
    pub colour: bool,
}

impl LogOutput {
    /// Standard output. Coloured only on a terminal, and not where `NO_COLOR` is set.
    pub fn stdout() -> Self {
        let stdout = io::stdout();
        let is_terminal = stdout.is_terminal();
        let colour = is_terminal && anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
        Self { writer: Box::new(stdout), is_terminal, colour }
    }
}

impl fmt::Debug for LogOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogOutput")
            .field("is_terminal", &self.is_terminal)
            .field("colour", &self.colour)
            .finish_non_exhaustive()
    }
}

/// How lines look at present. Changed by a reload, read by everyone who writes lines.
#[derive(Debug)]
struct Style {
    is_terminal: bool,
    colour: bool,
    json: AtomicBool,
    access: AtomicBool,
    mask_addresses: AtomicBool,
}

impl Style {
    fn apply(&self, settings: &LogSettings) {
        let json = match settings.format {
            LogFormat::Auto => !self.is_terminal,
            LogFormat::Text => false,
            LogFormat::Json => true,
        };
        self.json.store(json, Relaxed);
        self.access.store(settings.access, Relaxed);
        self.mask_addresses.store(settings.mask_addresses, Relaxed);
    }

    fn format(&self) -> LineFormat {
        if self.json.load(Relaxed) { LineFormat::Json } else { LineFormat::Text }
    }

    fn addresses(&self) -> Addresses {
        if self.mask_addresses.load(Relaxed) { Addresses::Masked } else { Addresses::Full }
    }
}

/// The log of a running gateway. Dropping it writes what is waiting, for at most two seconds; drop every
/// [`AccessLog`] before.
#[derive(Debug)]
pub struct Logging {
    writer: LineWriter,
    style: Arc<Style>,
    filter: reload::Handle<Targets, Registry>,
    dispatch: Dispatch,
}

/// A subscriber for events was installed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlreadyInstalled;

impl fmt::Display for AlreadyInstalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("events already have a destination in this process; start the log once")
    }
}

impl std::error::Error for AlreadyInstalled {}

impl Logging {
    /// Starts the writing thread. Lines that it cannot take are counted in `dropped`.
    ///
    /// # Errors
    /// The operating system's, when it gives no thread.
    pub fn start(settings: &LogSettings, output: LogOutput, dropped: Arc<EventCount>) -> io::Result<Self> {
        let style = Arc::new(Style {
            is_terminal: output.is_terminal,
            colour: output.colour,
            json: AtomicBool::new(false),
            access: AtomicBool::new(false),
            mask_addresses: AtomicBool::new(false),
        });
        style.apply(settings);
        let writer = LineWriter::start(output.writer, dropped)?;
        let (filter, handle) = reload::Layer::new(targets(settings.level));
        let lines = EventLines { sender: writer.sender(), style: Arc::clone(&style) };
        let dispatch = Dispatch::new(Registry::default().with(filter).with(lines));
        Ok(Self { writer, style, filter: handle, dispatch })
    }

    /// Makes this log the destination of every event of the process.
    ///
    /// # Errors
    /// [`AlreadyInstalled`] when events have a destination.
    pub fn install(&self) -> Result<(), AlreadyInstalled> {
        tracing::dispatcher::set_global_default(self.dispatch.clone()).map_err(|_| AlreadyInstalled)
    }

    /// Takes over new settings; lines that are waiting keep their shape.
    pub fn apply(&self, settings: &LogSettings) {
        self.style.apply(settings);
        // Fails only when the subscriber is gone, and this value keeps it.
        let _ = self.filter.reload(targets(settings.level));
    }

    /// A buffer of access lines for one more thread.
    pub fn access_log(&self) -> AccessLog {
        AccessLog {
            sender: self.writer.sender(),
            style: Arc::clone(&self.style),
            waiting: RefCell::new(Waiting::default()),
        }
    }
}

/// Which events are written: ours from `level` up, and from the libraries we use nothing below a warning, whatever
/// `level` says, because at finer levels HTTP libraries write header fields, and so credentials.
fn targets(level: LogLevel) -> Targets {
    let ours = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new().with_default(ours.min(LevelFilter::WARN)).with_target(OUR_TARGET, ours)
}

/// Access lines of one thread, gathered and handed to the writing thread in chunks. May move to the thread that will
/// use it, but not be shared.
///
/// The owner calls [`AccessLog::flush`] at least every [`AccessLog::FLUSH_INTERVAL`] while something is waiting, so
/// that a quiet gateway's lines appear soon. Dropping it flushes.
#[derive(Debug)]
pub struct AccessLog {
    sender: LineSender,
    style: Arc<Style>,
    waiting: RefCell<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    text: String,
    lines: u64,
    clock: ClockText,
}

impl AccessLog {
    /// Longest time a line should wait.
    pub const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

    /// Whether lines are wanted. Where they are not, [`AccessLog::write`] does nothing, and asking first saves making
    /// the line.
    pub fn is_enabled(&self) -> bool {
        self.style.access.load(Relaxed)
    }

    /// Adds one line. Does not block; allocates once every 64 KiB of lines.
    pub fn write(&self, line: &AccessLine<'_>) {
        if !self.is_enabled() {
            return;
        }
        let mut waiting = self.waiting.borrow_mut();
        let Waiting { text, lines, clock } = &mut *waiting;
        if text.capacity() == 0 {
            text.reserve(CHUNK_BYTES + CHUNK_BYTES / 16);
        }
        line.write(text, self.style.format(), self.style.addresses(), clock);
        *lines += 1;
        if text.len() >= CHUNK_BYTES {
            waiting.hand_over(&self.sender);
        }
    }

    /// Whether lines are waiting for [`AccessLog::flush`].
    pub fn has_waiting(&self) -> bool {
        self.waiting.borrow().lines > 0
    }

    /// Hands over what is waiting. Does not block.
    pub fn flush(&self) {
        if self.has_waiting() {
            self.waiting.borrow_mut().hand_over(&self.sender);
        }
    }
}

impl Waiting {
    fn hand_over(&mut self, sender: &LineSender) {
        let lines = std::mem::take(&mut self.lines);
        if self.text.len() < CHUNK_BYTES / 4 {
            // A quiet thread keeps its large buffer and hands over a small one.
            sender.send(self.text.as_str().to_owned(), lines);
            self.text.clear();
        } else {
            sender.send(std::mem::take(&mut self.text), lines);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.flush();
    }
}
