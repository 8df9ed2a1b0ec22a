//! The thread that speaks to the server, with a runtime of its own: whoever asks may be on any runtime, or on none.

use std::future::Future;
use std::pin::Pin;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::store::error::StoreError;

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Jobs that may wait to be begun; more wait in their callers.
const QUEUE: usize = 256;
/// How long what is under way may take once nobody is left.
const LAST_WORDS: Duration = Duration::from_secs(40);

/// See the module. Dropping it finishes what was begun and joins the thread.
pub(super) struct Engine {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the operating system gives none.
    pub(super) fn start() -> Result<Self, StoreError> {
        const DOING: &str = "starting a thread for the store";
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            // Names of servers are looked up there.
            .thread_name("store-names")
            .max_blocking_threads(4)
            .build()
            .map_err(|source| StoreError::unavailable(DOING, source))?;
        let (jobs, inbox) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("store-postgres".to_owned())
            .spawn(move || {
                runtime.block_on(serve(inbox));
                // A look-up of a name that does not end holds nobody up.
                runtime.shutdown_background();
            })
            .map_err(|source| StoreError::unavailable(DOING, source))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Does a job there. Dropping the answer does not stop a job that began.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        doing: &str,
        job: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::pin(async move { drop(reply.send(job.await)) });
        let gone = || StoreError::unavailable(doing, "the store's thread has ended; restart portcullis");
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(job).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Does a job there, and blocks this thread until it is done.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        doing: &str,
        job: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        let job: Job = Box::pin(async move { drop(reply.send(job.await)) });
        let gone = || StoreError::unavailable(doing, "the store's thread has ended; restart portcullis");
        // The queue is new, or its thread is alive and empties it; nobody waits here on the thread itself.
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.try_send(job).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }

    /// Begins something that lasts until nobody is left.
    pub(super) fn keep(&self, task: impl Future<Output = ()> + Send + 'static) {
        let spawn: Job = Box::pin(async move { drop(tokio::spawn(task)) });
        if let Some(jobs) = &self.jobs {
            drop(jobs.try_send(spawn));
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic in it has been reported already.
            drop(thread.join());
        }
    }
}

async fn serve(mut inbox: mpsc::Receiver<Job>) {
    let mut under_way = JoinSet::new();
    loop {
        tokio::select! {
            job = inbox.recv() => match job {
                Some(job) => drop(under_way.spawn(job)),
                None => break,
            },
            Some(_) = under_way.join_next(), if !under_way.is_empty() => {}
        }
    }
    let all_done = async { while under_way.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_WORDS, all_done).await.is_err() {
        tracing::warn!("the store did not answer in time: what was under way is given up");
    }
}
