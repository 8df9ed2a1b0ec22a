//! What is done about upstreams whether or not there are requests: their names are looked up, and they are asked how they
//! are.
//!
//! Owns the tasks that do so, for the upstreams of the current configuration. Runs on the control runtime.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::live::Plan;
use super::names::look_up;
use super::observe::tell_change;
use super::probe;
use super::standing::Change;
use super::target::{Target, Upstream};
use crate::telemetry::Metrics;

/// Most lookups at a time, each of which may hold a thread for as long as a name server takes.
const MOST_LOOKUPS: usize = 16;

/// The tasks that look after upstreams.
pub(crate) struct Upkeep {
    metrics: Metrics,
    lookups: Arc<Semaphore>,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    /// By target and how often it is looked up.
    names: HashMap<(u64, Duration), Task>,
    probes: Vec<Task>,
}

/// A task that ends when this is dropped.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Upkeep {
    /// Nothing is looked after yet.
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            metrics: Metrics::clone(metrics),
            lookups: Arc::new(Semaphore::new(MOST_LOOKUPS)),
            tasks: Mutex::default(),
        }
    }

    /// Looks after these upstreams from now on, and no others. To be called on the control runtime.
    pub(crate) fn follow(&self, plan: &Plan) {
        let mut tasks = self.tasks.lock();
        let mut before = std::mem::take(&mut *tasks);
        for upstream in &plan.upstreams {
            for target in &upstream.targets {
                let refresh = upstream.settings.dns_refresh;
                if target.endpoint.addresses.is_name() {
                    let key = (target.id, refresh);
                    let known = before.names.remove(&key);
                    tasks.names.insert(key, known.unwrap_or_else(|| self.look_up(Arc::clone(target), refresh)));
                }
            }
            self.probe(upstream, &mut tasks.probes);
        }
    }

    fn look_up(&self, target: Arc<Target>, refresh: Duration) -> Task {
        let lookups = Arc::clone(&self.lookups);
        let looking = async move {
            let places = &lookups;
            let lookup = move |host, port| async move {
                // It is never closed.
                let _place = places.acquire().await;
                look_up(host, port).await
            };
            target.endpoint.addresses.keep_looking(refresh, lookup).await;
        };
        Task(tokio::spawn(looking).abort_handle())
    }

    fn probe(&self, upstream: &Arc<Upstream>, probes: &mut Vec<Task>) {
        for target in &upstream.targets {
            match &upstream.settings.health {
                Some(health) => {
                    let asking = probe::keep_asking(
                        Arc::clone(upstream),
                        Arc::clone(target),
                        health.clone(),
                        Metrics::clone(&self.metrics),
                    );
                    probes.push(Task(tokio::spawn(asking).abort_handle()));
                }
                // What was said by probes that there are no more of holds no longer.
                None => {
                    if target.standing.forget_probes() {
                        tell_change(&self.metrics, upstream, target, Change::Up);
                    }
                }
            }
        }
    }
}
