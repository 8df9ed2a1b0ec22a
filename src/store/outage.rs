//! Telling that a store which is written to again and again went away, and that it is back: once each.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use super::error::StoreError;

/// Whether the last write of one sort failed.
#[derive(Debug)]
pub struct Outage {
    what: &'static str,
    is_away: bool,
}

impl Outage {
    /// Of writes of this sort, in the plural or as a thing that has none.
    pub const fn of(what: &'static str) -> Self {
        Self { what, is_away: false }
    }

    /// Writes, and takes note of it as [`Self::note`] does. A panic on the way is told, and the next write is tried as
    /// after any other failure: nothing that is written again and again may stop because it panicked once. Answers whether it
    /// succeeded.
    pub async fn attempt(&mut self, write: impl Future<Output = Result<(), StoreError>>, is_last: bool) -> bool {
        let written = AssertUnwindSafe(write).catch_unwind().await;
        let panicked = |_| Err(StoreError::unavailable(format!("writing {}", self.what), "it panicked"));
        let written = written.unwrap_or_else(panicked);
        let is_written = written.is_ok();
        self.note(written, is_last);
        is_written
    }

    /// Takes note of a write. What could not be written is kept by whoever wrote, who tries again; with `is_last` there is
    /// no next time, so it is told again.
    pub fn note(&mut self, written: Result<(), StoreError>, is_last: bool) {
        let what = self.what;
        let was_away = std::mem::replace(&mut self.is_away, written.is_err());
        match written {
            Ok(()) if was_away => tracing::info!("{what}: written again"),
            Err(error) if is_last => tracing::warn!(%error, "{what}: not written, and lost with this process"),
            Err(error) if !was_away => tracing::warn!(%error, "{what}: cannot be written; kept and tried again"),
            Ok(()) | Err(_) => {}
        }
    }
}
