//! Threads that own a connection each and run what they are handed, one thing after the other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::connect::{self, FileIdentity, Role};
use super::fault::Fault;
use crate::domain::StoreHead;
use crate::store::error::StoreError;

/// Questions that may wait for a thread; more wait in their callers.
const QUEUE: usize = 64;

/// A place at the file: opened when first needed, and again after trouble or when another file takes its place.
pub(super) struct Seat {
    path: PathBuf,
    role: Role,
    open: Option<Open>,
}

/// An open connection.
pub(super) struct Open {
    pub(super) connection: Connection,
    /// The head as it was when `PRAGMA data_version` had this value.
    pub(super) known_head: Option<(i64, StoreHead)>,
    file: Option<FileIdentity>,
}

impl Open {
    fn new(connection: Connection, path: &Path) -> Self {
        Self { connection, known_head: None, file: FileIdentity::of(path).ok() }
    }
}

impl Seat {
    /// A seat that opens its connection when it is first used.
    pub(super) fn new(path: PathBuf, role: Role) -> Self {
        Self { path, role, open: None }
    }

    /// A seat with a connection that is open already.
    pub(super) fn with_connection(path: PathBuf, role: Role, connection: Connection) -> Self {
        let open = Some(Open::new(connection, &path));
        Self { path, role, open }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `job` on the connection. After trouble the connection is dropped, so that the next job starts afresh.
    pub(super) fn run<T>(
        &mut self,
        doing: &str,
        job: impl FnOnce(&mut Open) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let open = self.connection()?;
        let result = job(open).map_err(|fault| fault.tell(doing, &self.path));
        if result.as_ref().is_err_and(StoreError::is_trouble) {
            self.open = None;
        }
        result
    }

    fn connection(&mut self) -> Result<&mut Open, StoreError> {
        // A file that was moved away or replaced keeps answering through the old descriptor: look at the path.
        if self.open.as_ref().is_some_and(|open| open.file.is_none() || open.file != FileIdentity::of(&self.path).ok())
        {
            self.open = None;
        }
        match &mut self.open {
            Some(open) => Ok(open),
            vacant => {
                let connection = connect::open_again(&self.path, self.role)?;
                Ok(vacant.insert(Open::new(connection, &self.path)))
            }
        }
    }
}

type Job = Box<dyn FnOnce(&mut Seat) + Send>;

/// Threads that share one queue of questions. Dropping it answers what is queued and joins them.
pub(super) struct Readers {
    queue: Option<mpsc::Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Readers {
    /// Starts a thread for each seat.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the operating system gives no thread.
    pub(super) fn start(name: &str, seats: impl IntoIterator<Item = Seat>) -> Result<Self, StoreError> {
        let (queue, jobs) = mpsc::channel::<Job>(QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        let mut threads = Vec::new();
        for mut seat in seats {
            let jobs = jobs.clone();
            let serve = move || {
                loop {
                    let job = jobs.lock().blocking_recv();
                    match job {
                        Some(job) => job(&mut seat),
                        None => return,
                    }
                }
            };
            threads.push(start_thread(name, serve)?);
        }
        Ok(Self { queue: Some(queue), threads })
    }

    /// Runs `job` on the next free seat. Dropping the answer does not stop a job that began.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        doing: &'static str,
        job: impl FnOnce(&mut Open) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.ask_seat(doing, move |seat| seat.run(doing, job)).await
    }

    /// As [`Self::ask`], for jobs that may need to open another connection half-way.
    pub(super) async fn ask_seat<T: Send + 'static>(
        &self,
        doing: &'static str,
        job: impl FnOnce(&mut Seat) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |seat| drop(reply.send(job(seat))));
        let gone = || StoreError::unavailable(doing, "the store's thread has ended; restart portcullis");
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue.send(job).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.queue = None;
        self.threads.drain(..).for_each(join);
    }
}

/// A named thread.
pub(super) fn start_thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|source| StoreError::unavailable("starting a thread for the store", source))
}

/// Waits for a thread to end, unless it is the one that asks.
pub(super) fn join(thread: JoinHandle<()>) {
    if thread.thread().id() != std::thread::current().id() {
        // A panic in it has been reported already; there is nothing left to do about it here.
        drop(thread.join());
    }
}
