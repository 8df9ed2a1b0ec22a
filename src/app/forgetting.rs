//! What the running gateway does to its store every hour: it says where the audit trail ends, and whether it is written to
//! with another secret, and lets go of what is old.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::secrets::log_other_secret;
use crate::domain::time;
use crate::store::{self, AuditExtent, AuditSettings, Store, Tidied, UsageSettings};

/// Between two looks at what is old.
const HOUR: Duration = Duration::from_secs(3600);

/// Logs the head of the audit trail, and every hour lets go of what is old. Trouble waits for the next hour.
pub(super) async fn forget_hourly(
    store: Arc<Store>,
    audit: watch::Receiver<AuditSettings>,
    usage: watch::Receiver<UsageSettings>,
) {
    let mut told_of_eviction = false;
    loop {
        log_audit_head(&store).await;
        log_other_secret(&store).await;
        tokio::time::sleep(HOUR).await;
        let forgotten = store::forget_what_is_old(store.writer(), time::now()).await;
        if let Err(error) = forgotten {
            tracing::warn!(%error, "rows of keys revoked long ago were not dropped; it is tried again in an hour");
        }
        let retention = audit.borrow().retention;
        match store::forget_old_entries(store.writer(), retention, time::now()).await {
            Ok(0) => {}
            Ok(entries) => tracing::info!(entries, "old entries of the audit trail were dropped"),
            Err(error) => {
                tracing::warn!(%error, "old entries of the audit trail were not dropped; it is tried again in an hour");
            }
        }
        let retention = usage.borrow().retention;
        match store::tidy_usage(store.usage(), retention, time::now()).await {
            Ok(Tidied { evicted: 0, .. }) => {}
            Ok(Tidied { evicted, .. }) if !told_of_eviction => {
                told_of_eviction = true;
                tracing::warn!(
                    evicted,
                    most = store::MAX_COUNTS,
                    "there are more counts of usage than are kept; the oldest go first"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "old usage was not dropped; it is tried again in an hour"),
        }
    }
}

/// Logs collected elsewhere make heads that an intruder on this machine cannot change.
async fn log_audit_head(store: &Store) {
    match store.audit().audit_extent().await {
        Ok(AuditExtent { head, entries }) => {
            tracing::info!(%head, entries, "audit head");
        }
        Err(error) => tracing::warn!(%error, "the head of the audit trail could not be read"),
    }
}
