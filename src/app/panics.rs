//! What is done about a panic, wherever it happens: it is counted and logged. What it costs is decided where it is
//! caught, if it is.

use std::sync::Arc;

use crate::domain::time::monotonic_now;
use crate::telemetry::Metrics;

/// From now on every panic of this process is counted once and logged with its place. Its message may hold what it was
/// about, a credential too: it is left out.
pub(super) fn install_panic_hook(metrics: &Arc<Metrics>) {
    let metrics = Arc::clone(metrics);
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panicked();
        let place = panic.location().map_or_else(String::new, ToString::to_string);
        tracing::error!(place, uptime = ?monotonic_now(), "a panic was caught");
    }));
}
