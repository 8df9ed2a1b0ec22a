//! Hearing of commits as they happen, on a connection of its own. A hint: what is not heard is found by the next poll.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_postgres::AsyncMessage;

use super::connect::Source;
use super::fault::Fault;
use crate::domain::{Revision, StoreHead};
use crate::store::error::StoreError;
use crate::store::memory::wait_for_commit;

/// Where commits are told, with their revision.
pub(super) const CHANNEL: &str = "portcullis";
/// Longest wait for a commit while nothing can be heard: then the poll is all there is, as it is behind a pooler.
const WITHOUT_HINTS: Duration = Duration::from_millis(100);

/// The newest revision that somebody told of.
#[derive(Default)]
pub(super) struct Hints {
    told: watch::Sender<StoreHead>,
    /// A revision that was told and that the store turned out not to have.
    doubted: Mutex<Option<Revision>>,
    wanted: Notify,
    /// Whether somebody should be listening and cannot.
    deaf: watch::Sender<bool>,
}

impl Hints {
    /// Somebody committed.
    pub(super) fn tell(&self, revision: Revision) {
        self.told.send_if_modified(|known| {
            let is_newer = revision > known.revision;
            if is_newer {
                known.revision = revision;
            }
            is_newer
        });
    }

    /// The store says that this is its newest. What was told beyond it is taken back when the store says so twice: once may
    /// be a commit that overtook the answer; a store that lost commits would else wake whoever waits for ever.
    pub(super) fn correct(&self, head: StoreHead) {
        let told = self.told.borrow().revision;
        let mut doubted = self.doubted.lock();
        if told <= head.revision {
            *doubted = None;
        } else if doubted.replace(told) == Some(told) {
            *doubted = None;
            self.told.send_modify(|known| known.revision = head.revision);
        }
    }

    /// Returns once somebody waits for hints.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// See [`crate::store::ChangeFeed::wait_for_change`].
    pub(super) async fn wait(&self, seen: StoreHead, patience: Duration) -> Result<(), StoreError> {
        self.wanted.notify_one();
        let mut deaf = self.deaf.subscribe();
        let is_deaf = async { deaf.wait_for(|deaf| *deaf).await.map(drop) };
        let wait = |patience| wait_for_commit(self.told.subscribe(), seen, patience);
        tokio::select! {
            biased;
            ended = wait(patience) => ended,
            _ = is_deaf => wait(patience.min(WITHOUT_HINTS)).await,
        }
    }
}

/// First and longest pause before another attempt.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Listens for ever, over one connection after the other. Failures are the poll's to tell.
pub(super) async fn listen(source: Arc<Source>, hints: Arc<Hints>) {
    let mut pause = PAUSES.0;
    hints.deaf.send_replace(true);
    loop {
        match listen_once(&source, &hints).await {
            // It worked for a while.
            Ok(()) => pause = PAUSES.0,
            Err(fault) => {
                let error = fault.tell("listening for changes", source.address());
                tracing::debug!(%error, "changes are found by polling until it works again");
                pause = (pause * 2).min(PAUSES.1);
            }
        }
        hints.deaf.send_replace(true);
        tokio::time::sleep(pause).await;
    }
}

/// Listens until the connection ends.
async fn listen_once(source: &Source, hints: &Hints) -> Result<(), Fault> {
    let (client, mut connection) = source.wire().await?;
    let hear = async {
        loop {
            match poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notification(told))) if told.channel() == CHANNEL => {
                    if let Ok(revision) = told.payload().parse() {
                        hints.tell(Revision::new(revision));
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Fault::from(error)),
                None => return Ok(()),
            }
        }
    };
    let ask = async {
        client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
        tracing::debug!("listening for changes");
        hints.deaf.send_replace(false);
        // The connection lasts as long as its client.
        std::future::pending::<Result<(), Fault>>().await
    };
    tokio::select! {
        ended = hear => ended,
        refused = ask => refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::RevisionToken;

    fn head(revision: u64) -> StoreHead {
        StoreHead { revision: Revision::new(revision), token: RevisionToken(1) }
    }

    async fn is_woken(hints: &Hints, seen: u64) -> bool {
        let long = Duration::from_secs(3600);
        let wait = hints.wait(head(seen), long);
        tokio::time::timeout(Duration::from_millis(20), wait).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_listen_does_not_wait_for_long() {
        let hints = Hints::default();
        let waited = async || {
            let began = tokio::time::Instant::now();
            hints.wait(head(1), Duration::from_secs(2)).await.unwrap();
            began.elapsed().as_millis()
        };
        // Nobody listens behind a pooler, and nobody is expected to.
        assert!((2_000..2_010).contains(&waited().await));
        hints.deaf.send_replace(true);
        assert!((100..110).contains(&waited().await));
        hints.deaf.send_replace(false);
        let falls_deaf = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            hints.deaf.send_replace(true);
        };
        let (took, ()) = tokio::join!(waited(), falls_deaf);
        assert!((600..620).contains(&took), "who waits already, too: {took}");
    }

    #[tokio::test]
    async fn what_the_store_does_not_have_wakes_nobody_for_ever() {
        let hints = Hints::default();
        hints.tell(Revision::new(7));
        assert!(is_woken(&hints, 6).await && !is_woken(&hints, 7).await);
        hints.correct(head(6));
        assert!(is_woken(&hints, 6).await, "it may have overtaken the answer");
        hints.correct(head(7));
        hints.correct(head(6));
        assert!(is_woken(&hints, 6).await, "twice in a row is meant");
        hints.correct(head(6));
        assert!(!is_woken(&hints, 6).await);
        hints.tell(Revision::new(7));
        assert!(is_woken(&hints, 6).await);
    }
}
