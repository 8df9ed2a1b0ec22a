//! What runs beside requests for as long as the process does, and is started again when it panics.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;

/// Between a panic and the next start: what panics at once shall not fill the log.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1_000 });

/// Runs what `start` makes, on the control runtime, and makes it anew whenever it panics.
pub(super) fn keep<F>(name: &'static str, start: impl Fn() -> F + Send + 'static) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        while AssertUnwindSafe(start()).catch_unwind().await.is_err() {
            tracing::error!(task = name, "a task panicked and is started again");
            tokio::time::sleep(PAUSE).await;
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_panics_is_started_again_until_it_ends() {
        let starts = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&starts);
        let task = keep("a test", move || {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            async move { assert!(number >= 2, "the first two times") }
        });
        task.await.unwrap();
        assert_eq!(starts.load(Ordering::Relaxed), 3);
    }
}
