//! This process's place among those that share a store: it tells the store how far it is, for whoever waits until a change
//! is enforced everywhere, and says goodbye when it leaves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::tasks::keep;
use crate::cache::{Farewell, KeySet, SyncHandle};
use crate::domain::time::{self, monotonic_now};
use crate::domain::{NodeId, Timestamp};
use crate::manage::ThisNode;
use crate::store::{NodeBook, NodeReport, Outage, StoreError};

/// Between two reports while nothing changes: fifty nodes cost the store five small writes a second.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Between the beginnings of two reports: where changes come in a stream, one report tells of several.
const PACE: Duration = Duration::from_millis(50);
/// After a report that failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Between two looks for nodes that are long gone.
const TIDY: Duration = Duration::from_secs(3600);
/// How long the first load waits for the first report, and leaving for the last one.
const PATIENCE: Duration = Duration::from_secs(2);

/// How this process stands, at any moment.
#[derive(Clone)]
pub(super) struct Standing {
    id: NodeId,
    name: String,
    started_at: Timestamp,
    keys: Arc<KeySet>,
    sync: SyncHandle,
    max_staleness: watch::Receiver<Option<Duration>>,
}

impl Standing {
    /// That of a process which goes on as this node.
    pub(super) fn new(
        id: NodeId,
        keys: &Arc<KeySet>,
        sync: &SyncHandle,
        max_staleness: watch::Receiver<Option<Duration>>,
    ) -> Self {
        Self {
            id,
            name: node_name(),
            started_at: time::now(),
            keys: Arc::clone(keys),
            sync: sync.clone(),
            max_staleness,
        }
    }

    /// For people and programs.
    pub(super) fn now(&self) -> ThisNode {
        ThisNode {
            id: self.id,
            name: self.name.clone(),
            started_at: self.started_at,
            revision: self.keys.revision(),
            lag: self.keys.age(monotonic_now()),
            as_of: self.keys.as_of(),
            max_staleness: *self.max_staleness.borrow(),
        }
    }

    /// For the store.
    fn report(&self) -> NodeReport {
        NodeReport {
            id: self.id,
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            applied: self.sync.applied_head(),
            confirmed_ago: self.keys.age(monotonic_now()),
            max_staleness: *self.max_staleness.borrow(),
        }
    }

    /// Returns when there is something new to tell, at the latest after `patience`.
    async fn moved(&mut self, patience: Duration) {
        let (sync, max_staleness) = (&mut self.sync, &mut self.max_staleness);
        // Who tells of changes may be gone: then there are none.
        let applied = async {
            if sync.moved().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let configured = async {
            if max_staleness.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = applied => {}
            () = configured => {}
            () = tokio::time::sleep(patience) => {}
        }
    }
}

/// The place in the store's book, once it is taken.
#[derive(Default)]
pub(super) struct Place(Mutex<Option<Taken>>);

struct Taken {
    id: NodeId,
    book: Arc<dyn NodeBook>,
    parting: Option<Parting>,
    stop: watch::Sender<bool>,
    reporting: JoinHandle<()>,
}

/// How a node with a snapshot leaves: once nobody waits for it, a process that starts from its snapshot must not decide by it
/// before it has asked the store.
pub(super) struct Parting {
    /// What says so to that process.
    pub(super) farewell: Farewell,
    /// Whether one that is alone stays in the book instead, and is waited for: it starts from its snapshot although it may
    /// ask nobody. For a store beside it, which may be damaged, and where the next process is the same node.
    pub(super) stays_when_alone: bool,
}

impl Place {
    /// Takes it, and goes on reporting until it is left. Returns when the store knows of this process, or does not answer for
    /// a while: a gateway serves without its store too.
    pub(super) async fn take(&self, standing: Standing, book: Arc<dyn NodeBook>, parting: Option<Parting>) {
        let id = standing.id;
        match tokio::time::timeout(PATIENCE, book.report_node(standing.report())).await {
            Ok(Ok(())) => {}
            // The next one tells if it lasts.
            Ok(Err(_)) | Err(_) => tracing::debug!("the first report to the store was not written"),
        }
        let (stop, told_to_stop) = watch::channel(false);
        let reported_to = Arc::clone(&book);
        let reporting = keep("nodes", move || report(standing.clone(), Arc::clone(&reported_to), told_to_stop.clone()));
        *self.0.lock() = Some(Taken { id, book, parting, stop, reporting });
    }

    /// Leaves it: this process serves nobody any more. Takes a moment at most.
    pub(super) async fn leave(&self) {
        let taken = self.0.lock().take();
        let Some(Taken { id, book, parting, stop, reporting }) = taken else { return };
        stop.send_replace(true);
        let abort = reporting.abort_handle();
        let goodbye = async {
            // A report under way would put this process back.
            let _ended = reporting.await;
            if let Some(Parting { farewell, stays_when_alone }) = parting {
                if stays_when_alone && is_alone(book.as_ref(), id).await? {
                    return Ok(false);
                }
                let noted = tokio::task::spawn_blocking(move || farewell.note()).await;
                let noted = noted.map_err(std::io::Error::other).and_then(|noted| noted);
                noted.map_err(|error| format!("its snapshot: {error}"))?;
            }
            book.strike_node(id).await.map_err(|error| error.to_string())
        };
        let left = tokio::time::timeout(PATIENCE, goodbye).await;
        abort.abort();
        let why = match left {
            Ok(Ok(_)) => return,
            Ok(Err(why)) => why,
            Err(_) => format!("the store did not answer within {PATIENCE:?}"),
        };
        tracing::warn!(%why, node = %id, "the store was not told that this gateway leaves: `portcullis nodes forget` does");
    }
}

/// Whether the book knows of no other node.
async fn is_alone(book: &dyn NodeBook, id: NodeId) -> Result<bool, String> {
    let roll = book.list_nodes().await.map_err(|error| error.to_string())?;
    Ok(roll.nodes.iter().all(|node| node.id == id))
}

/// Reports whenever there is something to tell, one report after the other, until told to stop.
async fn report(mut standing: Standing, book: Arc<dyn NodeBook>, mut stop: watch::Receiver<bool>) {
    let mut outage = Outage::of("reports of this gateway to the store");
    let (mut wait, mut tidied) = (HEARTBEAT, None::<Instant>);
    loop {
        if tidied.is_none_or(|at| monotonic_now().saturating_duration_since(at) >= TIDY) {
            tidied = Some(monotonic_now());
            tidy(book.as_ref()).await;
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = standing.moved(wait) => {}
        }
        let began = monotonic_now();
        let told = book.report_node(standing.report()).await;
        wait = if told.is_ok() { HEARTBEAT } else { PAUSE };
        outage.note(told, false);
        let rest = PACE.saturating_sub(monotonic_now().saturating_duration_since(began));
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(rest) => {}
        }
    }
}

/// The machine's name and this process's number: unique among those that share a store.
fn node_name() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    // Systems without `/proc` are for development: there the name is for people alone.
    let machine = kernel.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "localhost".to_owned());
    format!("{}/{}", machine.trim(), std::process::id())
}

async fn tidy(book: &dyn NodeBook) {
    let tidied: Result<u64, StoreError> = book.tidy_nodes().await;
    match tidied {
        Ok(0) => {}
        Ok(nodes) => tracing::info!(nodes, "nodes that have been silent for long were taken out of the store's book"),
        Err(error) => tracing::debug!(%error, "nodes that are long gone stay in the store's book for now"),
    }
}

#[cfg(test)]
#[path = "nodes_tests.rs"]
mod tests;
