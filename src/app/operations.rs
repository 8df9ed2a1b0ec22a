//! What operators ask of the running gateway, through the local socket or the management API.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::nodes::Standing;
use super::reload::Trigger;
use crate::admin::{ApiSettings, Operations, ReloadReport};
use crate::cache::KeySet;
use crate::domain::time;
use crate::explain::{KeySources, Past};
use crate::manage::{ThisNode, nodes_json};
use crate::store::{Actor, Store};
use crate::telemetry::{ADMISSIONS_SAMPLED, REFUSALS_KEPT, Recall, Recollection, Remembered};

/// This process.
pub(super) struct Process {
    pub(crate) recall: Recall,
    pub(crate) settings: Arc<ArcSwap<ApiSettings>>,
    pub(crate) store: Arc<Store>,
    pub(crate) keys: Arc<KeySet>,
    pub(crate) triggers: mpsc::Sender<Trigger>,
    pub(crate) standing: Standing,
}

impl Operations for Process {
    fn remembered<'a>(&'a self, request_id: &'a str) -> Pin<Box<dyn Future<Output = Recollection> + Send + 'a>> {
        Box::pin(async move {
            let found = self.recall.find(request_id).await;
            if self.settings.load().mask_addresses {
                Recollection { newest: found.newest.map(Remembered::masked), ..found }
            } else {
                found
            }
        })
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

    fn this_node(&self) -> ThisNode {
        self.standing.now()
    }
}

/// How long the store is waited for by somebody who wants to see how the fleet stands: a store that hangs is why.
const NODES_PATIENCE: Duration = Duration::from_secs(3);

impl Process {
    /// All nodes, for the local socket; this one alone, and why, where the store does not answer.
    pub(super) async fn nodes(&self) -> Value {
        let this = self.this_node();
        let problem = match tokio::time::timeout(NODES_PATIENCE, nodes_json(&self.store, Some(&this))).await {
            Ok(Ok(nodes)) => return json!({ "ok": true, "nodes": nodes }),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the store has not listed the nodes within {NODES_PATIENCE:?}"),
        };
        json!({ "ok": true, "nodes": [this.json()], "problem": problem })
    }

    /// Explains a past request, for the local socket: the record, and the same in words.
    pub(super) async fn explain(&self, request_id: &str) -> Value {
        let found = self.remembered(request_id).await;
        let objection = found.objection();
        let Some(remembered) = found.newest else {
            let objection = objection.map(|objection| format!("; {objection}")).unwrap_or_default();
            return refusal(&format!(
                "no request of this id is remembered: each worker keeps its last {REFUSALS_KEPT} refusals, and one in \
                 {ADMISSIONS_SAMPLED} of the requests that it lets in; older ones, and those of before a restart, are in \
                 the access log alone{objection}"
            ));
        };
        let rules = Arc::clone(&self.settings.load().rules);
        let from = KeySources { reader: self.store.reader().as_ref(), keys: &self.keys };
        match Past::of(remembered, &rules, from, time::now()).await {
            Ok(past) => {
                let past = past.but(objection);
                json!({
                    "ok": true,
                    "record": past.json(),
                    "then": past.fields_then(),
                    "now": past.fields_now(),
                    "note": past.note(),
                })
            }
            Err(error) => refusal(&error.to_string()),
        }
    }
}

/// An answer that says why there is none.
pub(super) fn refusal(problem: &str) -> Value {
    json!({ "ok": false, "problems": [problem] })
}
