//! Data-plane threads: each a single-threaded runtime with an engine, a pool and connections of its own.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::accept::Accepted;
use super::connection;
use super::handshake::Handshakes;
use super::memory::{Memory, WorkerMemory};
use super::settings::Limits;
use crate::limit::Meters;
use crate::proxy::{Engine, Inquiries, Live, LiveReader, Observer, TICK, Timers, WorkerTally};
use crate::telemetry::{AccessLog, Metrics, WorkerRecall};
use crate::wire::{Buffers, Floor, Patience, Progress};

/// What a worker is told.
pub(super) enum Command {
    /// Serve this connection.
    Serve(Accepted),
    /// Answers say `Connection: close`, HTTP/2 says GOAWAY, idle connections are closed.
    Drain,
    /// End, whatever is left.
    Stop,
}

/// What one worker is built from.
pub(crate) struct WorkerParts {
    /// The current generation.
    pub(crate) live: Arc<Live>,
    /// Shared metrics.
    pub(crate) metrics: Arc<Metrics>,
    /// Bounds of connections; replaced by reloads.
    pub(crate) limits: Arc<ArcSwap<Limits>>,
    /// Its access log.
    pub(crate) access: AccessLog,
    /// Its memory of recent requests.
    pub(crate) recall: WorkerRecall,
    /// What requests take from.
    pub(crate) meters: Arc<Meters>,
    /// Where requests to the management API go that a route lets in.
    pub(crate) inquiries: Inquiries,
    /// Where it notes usage.
    pub(crate) tally: WorkerTally,
    /// How much memory all workers hold.
    pub(crate) memory: Arc<Memory>,
}

/// A running data-plane thread.
pub(crate) struct Worker {
    pub(super) commands: mpsc::UnboundedSender<Command>,
    /// Connections it holds, those on their way to it included.
    pub(super) connections: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts a thread.
    ///
    /// # Errors
    /// The operating system's, when it gives no thread or no event queue.
    pub(crate) fn start(number: usize, parts: WorkerParts) -> io::Result<Self> {
        let (commands, inbox) = mpsc::unbounded_channel();
        let (ready, started) = std::sync::mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
            match runtime {
                Ok(runtime) => {
                    // The starter waits for this; it is gone only if it was itself ended.
                    let _told = ready.send(Ok(()));
                    runtime.block_on(run(number, parts, inbox));
                    // What is left was given its time; nothing waits for it any longer.
                    runtime.shutdown_background();
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        started.recv().map_err(io::Error::other)??;
        Ok(Self { commands, connections: Arc::default(), thread })
    }

    pub(super) fn tell(&self, command: Command) {
        // It fails when the thread has ended, which `join` reports.
        let _told = self.commands.send(command);
    }

    /// Tells the thread to drain.
    pub(crate) fn drain(&self) {
        self.tell(Command::Drain);
    }

    /// Connections it holds.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Ends the thread and waits for it. False when it had ended by a panic.
    pub(crate) fn stop(self) -> bool {
        self.tell(Command::Stop);
        self.thread.join().is_ok()
    }
}

/// What all connections of one worker share.
pub(super) struct WorkerState {
    pub(crate) engine: Rc<Engine>,
    pub(crate) limits: Arc<ArcSwap<Limits>>,
    /// Where TLS handshakes take turns.
    pub(super) handshakes: Rc<Handshakes>,
    /// How much memory is held.
    pub(super) memory: WorkerMemory,
    /// Whether the process drains; shared with every connection.
    pub(crate) draining: Rc<Cell<bool>>,
    entries: RefCell<Vec<Weak<Entry>>>,
}

/// One connection, as the sweeper sees it.
#[derive(Default)]
pub(super) struct Entry {
    /// Under HTTP/1.
    pub(crate) progress: Option<Rc<Progress>>,
    /// Requests under way.
    pub(crate) in_flight: Rc<Cell<usize>>,
    /// Since when there are none, under HTTP/2.
    pub(crate) idle_since_ms: Cell<u64>,
    /// Set when a reload removed the listener it came through.
    pub(crate) leaving: Arc<AtomicBool>,
    /// When the connection was asked to end gracefully, or last had something under way since; on the coarse clock.
    pub(crate) asked_ms: Cell<u64>,
    /// Set when it should end at once: it was asked, and nothing is under way on it.
    pub(crate) cut: Cell<bool>,
    /// Set when the connection should end gracefully.
    pub(crate) leave: Cell<bool>,
    /// Wakes the connection's task.
    pub(crate) waker: RefCell<Option<Waker>>,
}

impl Entry {
    /// HTTP/2 says GOAWAY. A peer that does not answer it is cut once it had its time and nothing was under way for as
    /// long: the end of its last answer may still be on its way.
    fn ask_to_leave(&self, now_ms: u64) {
        if !self.leave.replace(true) || self.in_flight.get() > 0 {
            self.asked_ms.set(now_ms);
        } else if now_ms.saturating_sub(self.asked_ms.get()) > GOODBYE_MS {
            self.cut.set(true);
        }
        self.wake();
    }

    /// The connection ends at its next turn, whatever is under way.
    pub(crate) fn cut_now(&self) {
        self.cut.set(true);
        self.wake();
    }

    /// The connection gets a turn.
    pub(crate) fn wake(&self) {
        // Taken out first: a waker may run code that comes back here.
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl WorkerState {
    /// Lets the sweeper see a connection for as long as its entry lives.
    pub(super) fn register(&self, entry: Entry) -> Rc<Entry> {
        let entry = Rc::new(entry);
        entry.idle_since_ms.set(self.engine.timers.now_ms());
        self.entries.borrow_mut().push(Rc::downgrade(&entry));
        if self.draining.get() {
            entry.ask_to_leave(self.engine.timers.now_ms());
        }
        entry
    }

    fn sweep(&self) {
        let limits = self.limits.load();
        let now = self.engine.timers.now_ms();
        let patience = patience(&limits);
        let is_full = self.memory.is_full(&limits);
        self.entries.borrow_mut().retain(|entry| {
            let Some(entry) = entry.upgrade() else { return false };
            let is_removed = entry.leaving.load(Ordering::Relaxed);
            match &entry.progress {
                Some(progress) => {
                    progress.sweep(now, &patience);
                    if is_removed || is_full || self.draining.get() && now > self.drain_idle_from() {
                        progress.close_idle();
                    }
                }
                None if is_removed || self.draining.get() => entry.ask_to_leave(now),
                None if is_full && entry.in_flight.get() == 0 => entry.ask_to_leave(now),
                None if entry.in_flight.get() > 0 => entry.idle_since_ms.set(now),
                None if now.saturating_sub(entry.idle_since_ms.get()) > patience.idle_ms => entry.ask_to_leave(now),
                None => {}
            }
            true
        });
    }

    /// While draining, connections that were idle at that moment get a little longer, for the request that the client
    /// may have sent already.
    fn drain_idle_from(&self) -> u64 {
        GOODBYE_MS.saturating_add(self.drain_began_ms())
    }

    fn drain_began_ms(&self) -> u64 {
        self.engine.drain_began_ms.get()
    }

    fn drain(&self) {
        self.engine.drain_began_ms.set(self.engine.timers.now_ms());
        self.draining.set(true);
        for entry in self.entries.borrow().iter().filter_map(Weak::upgrade) {
            // HTTP/1 connections leave after their next answer, which says `Connection: close`.
            if entry.progress.is_none() {
                entry.ask_to_leave(self.engine.timers.now_ms());
            }
        }
    }
}

/// How long idle connections are kept once the process drains or their listener is gone: for the request that the
/// client may have sent already.
const GOODBYE_MS: u64 = 2_000;

pub(super) fn patience(limits: &Limits) -> Patience {
    let milliseconds = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    Patience {
        head_ms: milliseconds(limits.head_timeout),
        idle_ms: milliseconds(limits.keepalive_idle),
        stall_ms: milliseconds(limits.stall_timeout),
        floor: Floor { bytes_per_second: limits.min_body_rate, window_ms: milliseconds(limits.stall_timeout) },
    }
}

async fn run(number: usize, parts: WorkerParts, mut inbox: mpsc::UnboundedReceiver<Command>) {
    let timers = Timers::new();
    let live = Rc::new(LiveReader::new(parts.live));
    let observer = Observer::new(&parts.metrics, parts.access, parts.recall, parts.tally, Rc::clone(&live));
    let memory = parts.memory.worker(number);
    let state = Rc::new(WorkerState {
        engine: Engine::new(
            live,
            Rc::clone(&timers),
            observer,
            parts.meters,
            parts.inquiries,
            Rc::new(Buffers::counted_in(memory.own.clone())),
        ),
        limits: parts.limits,
        handshakes: Handshakes::start(),
        memory,
        draining: Rc::default(),
        entries: RefCell::default(),
    });
    let ticker = tokio::task::spawn_local(tick(Rc::clone(&state)));
    let engine = Rc::clone(&state.engine);
    let writer = tokio::task::spawn_local(async move { engine.afterwards.run().await });
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Serve(accepted) => {
                drop(tokio::task::spawn_local(connection::serve(accepted, Rc::clone(&state))));
            }
            Command::Drain => state.drain(),
            Command::Stop => break,
        }
    }
    ticker.abort();
    writer.abort();
    state.engine.afterwards.end_all();
    state.engine.observer.access.flush();
}

async fn tick(state: Rc<WorkerState>) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for turn in 0u64.. {
        interval.tick().await;
        state.engine.timers.tick();
        state.memory.look();
        state.engine.observer.recall.answer();
        if turn.is_multiple_of(2) && state.engine.observer.access.has_waiting() {
            state.engine.observer.access.flush();
        }
        if turn.is_multiple_of(4) {
            // First what says how many wait for connections that clients keep.
            state.engine.sweep();
            state.sweep();
        }
    }
}
