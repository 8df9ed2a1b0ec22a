//! How long the store remembers what is over.

use std::sync::Arc;
use std::time::Duration;

use super::api::{Actor, KeyWriter};
use super::error::StoreError;
use super::usage::{Tidied, UsageBook};
use crate::domain::Timestamp;

/// Rows live this long after revocation, and changes are remembered this long; a node further behind loads anew.
pub const RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Who drops what is old.
fn by_retention() -> Actor {
    Actor::named("gateway:retention")
}

/// Drops what is older than [`RETENTION`] in small transactions; returns how many rows went.
///
/// To be called now and then, hourly say. Stopping it half-way loses nothing.
///
/// # Errors
/// As any write.
pub async fn forget_what_is_old(writer: &Arc<dyn KeyWriter>, now: Timestamp) -> Result<u64, StoreError> {
    let mut gone = 0;
    loop {
        match writer.forget(now.minus(RETENTION), by_retention(), now).await? {
            0 => return Ok(gone),
            rows => gone += rows,
        }
    }
}

/// Drops entries of the audit trail that are older than `retention` in small transactions; returns how many went.
///
/// To be called now and then, hourly say. Stopping it half-way loses nothing.
///
/// # Errors
/// As any write.
pub async fn forget_old_entries(
    writer: &Arc<dyn KeyWriter>,
    retention: Duration,
    now: Timestamp,
) -> Result<u64, StoreError> {
    let mut gone = 0;
    loop {
        match writer.forget_audit(retention, by_retention(), now).await? {
            0 => return Ok(gone),
            entries => gone += entries,
        }
    }
}

/// Merges and drops what is old in the book of usage, in small transactions; returns what was done in all.
///
/// To be called now and then, hourly say. Stopping it half-way loses nothing.
///
/// # Errors
/// As any write.
pub async fn tidy_usage(book: &Arc<dyn UsageBook>, retention: Duration, now: Timestamp) -> Result<Tidied, StoreError> {
    let mut done = Tidied::default();
    loop {
        let Tidied { merged, dropped, evicted } = book.tidy_usage(retention, now).await?;
        if merged + dropped + evicted == 0 {
            return Ok(done);
        }
        done =
            Tidied { merged: done.merged + merged, dropped: done.dropped + dropped, evicted: done.evicted + evicted };
    }
}
