//! What one worker says about its requests, and what is said of targets.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::aftermath::Aftermath;
use super::live::LiveReader;
use super::noting::WorkerTally;
use super::shelf::Shelf;
use super::standing::Change;
use super::target::{Target, Upstream};
use crate::domain::time::monotonic_now;
use crate::telemetry::{AccessLog, EnvironmentLabel, Metrics, UpstreamLabel, WorkerMetrics, WorkerRecall};

/// One worker's metrics, access log and memory of recent requests.
pub(crate) struct Observer {
    /// Counters of this worker.
    pub(crate) metrics: WorkerMetrics,
    /// Access lines of this worker.
    pub(crate) access: AccessLog,
    /// Recent requests of this worker.
    pub(crate) recall: WorkerRecall,
    /// Counts admissions, for the sample of them that is remembered.
    pub(super) admissions: Cell<u32>,
    /// Where this worker notes usage.
    pub(super) tally: WorkerTally,
    /// Where refusals wait to be written down.
    pub(super) aftermaths: Shelf<Aftermath>,
    pub(super) live: Rc<LiveReader>,
    shared: Arc<Metrics>,
    environments: RefCell<Vec<(Arc<str>, EnvironmentLabel)>>,
    upstreams: RefCell<Vec<(String, UpstreamLabel)>>,
}

impl Observer {
    /// An observer for the thread that will use it.
    pub(crate) fn new(
        shared: &Arc<Metrics>,
        access: AccessLog,
        recall: WorkerRecall,
        tally: WorkerTally,
        live: Rc<LiveReader>,
    ) -> Rc<Self> {
        Rc::new(Self {
            metrics: shared.worker(),
            access,
            recall,
            admissions: Cell::new(0),
            tally,
            aftermaths: Shelf::default(),
            live,
            environments: RefCell::default(),
            upstreams: RefCell::default(),
            shared: Arc::clone(shared),
        })
    }

    /// The metric label of an environment.
    pub(super) fn environment(&self, name: &Arc<str>) -> EnvironmentLabel {
        let mut known = self.environments.borrow_mut();
        if let Some((_, label)) = known.iter().find(|(seen, _)| seen == name) {
            return *label;
        }
        let label = self.shared.environment(name);
        known.push((Arc::clone(name), label));
        label
    }

    /// Notes that a target could not be connected to, or broke off before an answer. `is_trial`: it had been left out, and
    /// this was to show whether it still should be.
    #[cold]
    pub(crate) fn target_failed(&self, upstream: &Upstream, target: &Target, is_trial: bool) {
        let change = upstream.failed(target, is_trial, monotonic_now());
        tell_change(&self.shared, upstream, target, change);
    }

    /// Notes that a target answers.
    #[inline]
    pub(crate) fn target_answered(&self, upstream: &Upstream, target: &Target) {
        let change = target.standing.answered(&upstream.settings.ejection);
        if change != Change::None {
            tell_change(&self.shared, upstream, target, change);
        }
    }

    /// The metric label of an upstream.
    pub(crate) fn upstream(&self, name: &str) -> UpstreamLabel {
        let mut known = self.upstreams.borrow_mut();
        if let Some((_, label)) = known.iter().find(|(seen, _)| seen == name) {
            return *label;
        }
        let label = self.shared.upstream(name);
        known.push((name.to_owned(), label));
        label
    }
}

/// Says in metrics and log what became of a target's standing.
#[cold]
pub(super) fn tell_change(metrics: &Metrics, upstream: &Upstream, target: &Target, change: Change) {
    let (name, url) = (&upstream.settings.name, &target.label);
    match change {
        Change::None => return,
        Change::Fails => {
            tracing::warn!(upstream = %name, upstream_target = %url, "a target fails, and there is no other to be asked");
        }
        Change::Ejected(span) => {
            tracing::warn!(upstream = %name, upstream_target = %url, out_for = ?span, "a target fails and is left out");
        }
        Change::Recovered => tracing::info!(upstream = %name, upstream_target = %url, "a target answers again"),
        Change::Down => {
            tracing::warn!(upstream = %name, upstream_target = %url, "a target fails its probes and is left out")
        }
        Change::Up => tracing::info!(upstream = %name, upstream_target = %url, "a target passes its probes again"),
    }
    if matches!(change, Change::Ejected(_)) {
        metrics.count_ejection(metrics.upstream(name), url);
    }
    // Asked while nobody else says it, so that what is said last is what holds.
    let is_healthy = || target.standing.is_healthy(&upstream.settings.ejection);
    metrics.set_upstream_healthy(metrics.upstream(name), url, is_healthy);
}
