//! The one thread that writes log lines, and the bounded queue in front of it.
//!
//! Owns the promise that logging never blocks the thread that logs: when the output does not keep up, lines are
//! dropped and counted. Must not know what a line says.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use crate::telemetry::metrics::EventCount;

/// Most pieces waiting to be written: single event lines, or chunks of access lines.
const QUEUE_PIECES: usize = 1024;
/// Most bytes waiting to be written, give or take one piece a thread.
const QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// The writer gathers waiting pieces up to this size into one write.
const BATCH_BYTES: usize = 64 * 1024;
/// How long leaving waits for an output that does not take what is waiting.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

enum Piece {
    /// Whole lines, with their line ends.
    Lines {
        text: String,
        count: u64,
    },
    Stop,
}

/// Hands lines to the writer.
#[derive(Clone, Debug)]
pub(super) struct LineSender {
    queue: SyncSender<Piece>,
    waiting_bytes: Arc<AtomicUsize>,
    dropped: Arc<EventCount>,
}

impl LineSender {
    /// Queues whole lines, `count` of them. Never blocks; where there is no room they are dropped and counted.
    pub(super) fn send(&self, text: String, count: u64) {
        let bytes = text.len();
        if self.waiting_bytes.load(Ordering::Relaxed) >= QUEUE_BYTES {
            self.dropped.add(count);
            return;
        }
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.queue.try_send(Piece::Lines { text, count }).is_err() {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped.add(count);
        }
    }
}

/// The running writer. Dropping it writes what is waiting, for at most two seconds.
#[derive(Debug)]
pub(super) struct LineWriter {
    sender: LineSender,
    is_stopping: Arc<AtomicBool>,
    ended: Receiver<()>,
}

impl LineWriter {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system's, when it gives no thread.
    pub(super) fn start(output: Box<dyn Write + Send>, dropped: Arc<EventCount>) -> std::io::Result<Self> {
        let (queue, pieces) = sync_channel(QUEUE_PIECES);
        let (end, ended) = sync_channel(1);
        let is_stopping = Arc::new(AtomicBool::new(false));
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let mut sink = Sink {
            output,
            batch: String::new(),
            lines: 0,
            waiting_bytes: Arc::clone(&waiting_bytes),
            dropped: Arc::clone(&dropped),
        };
        let stopping = Arc::clone(&is_stopping);
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            run(&pieces, &stopping, &mut sink);
            // Nobody listens when leaving took too long.
            let _ = end.send(());
        })?;
        Ok(Self { sender: LineSender { queue, waiting_bytes, dropped }, is_stopping, ended })
    }

    /// A way in for one more thread.
    pub(super) fn sender(&self) -> LineSender {
        self.sender.clone()
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        // The flag is for a queue so full that the piece does not get in.
        self.is_stopping.store(true, Ordering::Release);
        let _ = self.sender.queue.try_send(Piece::Stop);
        let _ = self.ended.recv_timeout(FLUSH_PATIENCE);
    }
}

fn run(pieces: &Receiver<Piece>, is_stopping: &AtomicBool, sink: &mut Sink) {
    while let Ok(piece) = pieces.recv() {
        let mut ends = sink.take(piece);
        while sink.batch.len() < BATCH_BYTES
            && let Ok(piece) = pieces.try_recv()
        {
            ends |= sink.take(piece);
        }
        sink.write();
        if ends || is_stopping.load(Ordering::Acquire) {
            for piece in pieces.try_iter().take(QUEUE_PIECES) {
                sink.take(piece);
            }
            sink.write();
            return;
        }
    }
}

struct Sink {
    output: Box<dyn Write + Send>,
    batch: String,
    lines: u64,
    waiting_bytes: Arc<AtomicUsize>,
    dropped: Arc<EventCount>,
}

impl Sink {
    /// Adds a piece to the batch; whether it is the last.
    fn take(&mut self, piece: Piece) -> bool {
        match piece {
            Piece::Lines { text, count } => {
                self.batch.push_str(&text);
                self.lines += count;
                false
            }
            Piece::Stop => true,
        }
    }

    fn write(&mut self) {
        let written = self.output.write_all(self.batch.as_bytes()).and_then(|()| self.output.flush());
        // There is nowhere to complain to; the counter tells.
        if written.is_err() {
            self.dropped.add(self.lines);
        }
        self.waiting_bytes.fetch_sub(self.batch.len(), Ordering::Relaxed);
        self.batch.clear();
        self.batch.shrink_to(2 * BATCH_BYTES);
        self.lines = 0;
    }
}
