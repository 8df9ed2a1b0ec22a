//! Connections: made when they are first needed, kept, and handed out one at a time.
//!
//! Each purpose has a lane of its own, so that none waits for another: following changes is never held up by people's
//! tools, nor a revocation by a large import's reader.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::connect::{Purpose, Source};
use super::fault::Fault;
use super::session::Session;
use crate::store::error::StoreError;

/// What is done over a connection.
pub(super) type Work<'s, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 's>>;

/// Longest wait for a connection of a lane in which all are in use.
const PATIENCE: Duration = Duration::from_secs(30);

/// A few connections for one purpose.
pub(super) struct Lane {
    source: Arc<Source>,
    what_for: Purpose,
    places: Semaphore,
    idle: Mutex<Vec<Session>>,
}

impl Lane {
    /// A lane of at most so many connections; none is made yet.
    pub(super) fn new(source: Arc<Source>, what_for: Purpose, places: usize) -> Self {
        Self { source, what_for, places: Semaphore::new(places), idle: Mutex::new(Vec::new()) }
    }

    /// Keeps a connection that was made elsewhere.
    pub(super) fn lend(&self, session: Session) {
        self.idle.lock().push(session);
    }

    /// Does something over a connection. When a kept one turns out to be dead before it answered anything, it is done
    /// again over a new one.
    pub(super) async fn work<T>(
        &self,
        doing: &str,
        job: impl for<'s> Fn(&'s mut Session) -> Work<'s, T>,
    ) -> Result<T, StoreError> {
        self.attempt(&job).await.map_err(|fault| fault.tell(doing, self.source.address()))
    }

    async fn attempt<T>(&self, job: &impl for<'s> Fn(&'s mut Session) -> Work<'s, T>) -> Result<T, Fault> {
        let place = tokio::time::timeout(PATIENCE, self.places.acquire()).await;
        let Ok(Ok(_place)) = place else {
            return Err(StoreError::unavailable(
                "waiting for a connection to PostgreSQL",
                format!(
                    "all were in use for {PATIENCE:?}; raise `store.connections`, or see what keeps the server busy"
                ),
            )
            .into());
        };
        if let Some(mut session) = self.take_idle() {
            session.renew();
            let result = job(&mut session).await;
            let is_dead = result.as_ref().is_err_and(|fault| fault.lost_connection()) && !session.has_answered;
            self.put_back(session).await;
            if !is_dead {
                return result;
            }
            // The others were made at the same server.
            self.idle.lock().clear();
        }
        let mut session = self.source.connect(self.what_for).await?;
        session.renew();
        let result = job(&mut session).await;
        self.put_back(session).await;
        result
    }

    fn take_idle(&self) -> Option<Session> {
        let mut idle = self.idle.lock();
        idle.retain(Session::is_good);
        idle.pop()
    }

    async fn put_back(&self, mut session: Session) {
        session.leave_transaction().await;
        if session.is_good() {
            self.idle.lock().push(session);
        }
    }
}
