//! Peppers with another secret than what the store was written with: refused where they would be taken, and told of where
//! they are in use.

use std::time::Duration;

use super::error::RunError;
use crate::store::{AuditSeal, Store};

/// Longest that it is waited for what the store was written with.
const SECRETS_PATIENCE: Duration = Duration::from_secs(1);

/// Refuses peppers with other secrets than those that the store was written with. A store that does not answer shows none.
pub(super) async fn refuse_other_secret(store: &Store, seal: &AuditSeal) -> Result<(), RunError> {
    match tokio::time::timeout(SECRETS_PATIENCE, store.find_other_secret_of(seal)).await {
        Ok(Ok(Some(other))) => Err(RunError::Secret(other)),
        Ok(Ok(None)) => Ok(()),
        Ok(Err(error)) => {
            tracing::debug!(%error, "whether the store was written to with the same secrets is not known");
            Ok(())
        }
        Err(_) => Ok(()),
    }
}

/// Of two gateways that began on an empty store with different secrets, neither was refused.
pub(super) async fn log_other_secret(store: &Store) {
    if let Ok(Some(other)) = store.find_other_secret().await {
        tracing::error!(error = %other, "the store is written to with another secret");
    }
}
