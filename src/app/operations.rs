//! What operators ask of the running gateway, through the local socket or the management API.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::reload::Trigger;
use crate::admin::{ApiSettings, Node, Operations, ReloadReport};
use crate::cache::KeySet;
use crate::domain::Timestamp;
use crate::domain::time::{self, monotonic_now};
use crate::explain::Past;
use crate::store::{Actor, Store};
use crate::telemetry::{ADMISSIONS_SAMPLED, REFUSALS_KEPT, Recall, Remembered};

/// This process.
pub(super) struct Process {
    pub(crate) recall: Arc<Recall>,
    pub(crate) settings: Arc<ArcSwap<ApiSettings>>,
    pub(crate) store: Arc<Store>,
    pub(crate) keys: Arc<KeySet>,
    pub(crate) triggers: mpsc::Sender<Trigger>,
    pub(crate) name: String,
    pub(crate) started_at: Timestamp,
}

impl Operations for Process {
    fn remembered(&self, request_id: &str) -> Option<Remembered> {
        let found = self.recall.find(request_id)?;
        Some(if self.settings.load().mask_addresses { found.masked() } else { found })
    }

    fn reload(&self, by: Actor, dry_run: bool) -> Pin<Box<dyn Future<Output = ReloadReport> + Send + '_>> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let queued = self.triggers.send(Trigger::Asked { by, dry_run, answer }).await;
            match (queued, answered.await) {
                (Ok(()), Ok(report)) => report,
                (Err(_), _) | (_, Err(_)) => ReloadReport::refused("the gateway is leaving"),
            }
        })
    }

    fn node(&self) -> Node {
        Node {
            name: self.name.clone(),
            started_at: self.started_at,
            revision: self.keys.revision(),
            lag: self.keys.age(monotonic_now()),
            as_of: self.keys.as_of(),
        }
    }
}

impl Process {
    /// Explains a past request, for the local socket: the record, and the same in words.
    pub(super) async fn explain(&self, request_id: &str) -> Value {
        let Some(remembered) = self.remembered(request_id) else {
            return refusal(&format!(
                "no request of this id is remembered: each worker keeps its last {REFUSALS_KEPT} refusals, and one in \
                 {ADMISSIONS_SAMPLED} of the requests that it lets in; older ones, and those of before a restart, are in \
                 the access log alone"
            ));
        };
        let rules = Arc::clone(&self.settings.load().rules);
        match Past::of(remembered, &rules, self.store.reader().as_ref(), time::now()).await {
            Ok(past) => json!({
                "ok": true,
                "record": past.json(),
                "then": past.fields_then(),
                "now": past.fields_now(),
                "note": past.note(),
            }),
            Err(error) => refusal(&error.to_string()),
        }
    }
}

/// An answer that says why there is none.
pub(super) fn refusal(problem: &str) -> Value {
    json!({ "ok": false, "problems": [problem] })
}

/// The machine's name and this process's number: unique among those that share a store.
pub(super) fn node_name() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    // Systems without `/proc` are for development: there the name is for people alone.
    let machine = kernel.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "localhost".to_owned());
    format!("{}/{}", machine.trim(), std::process::id())
}
