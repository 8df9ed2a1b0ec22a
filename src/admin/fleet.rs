//! The gateways that enforce keys: the list of them, and waiting until all of them enforce a change.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::api::Api;
use super::call::Call;
use super::configuration::check_operator;
use super::door::Entrance;
use super::exchange::{ApiAnswer, ApiError};
use super::query::Query;
use crate::domain::time::span_of_text;
use crate::domain::{NodeId, Revision};
use crate::manage::{Told, forget_node, nodes_json, wait_for_fleet};

/// What says that a change waits for the fleet, and how long.
pub(super) const WAIT: [&str; 2] = ["wait", "timeout"];
/// How long, unless it is said, and at most.
const USUAL: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(60);
/// The same through a route, which gives every answer 30 s.
const LONGEST_BEHIND_A_ROUTE: Duration = Duration::from_secs(20);
/// Most of operators who wait at one time, and of others.
const OPERATORS: usize = 32;
const OWNERS: usize = 8;

/// Whether a change waits for the fleet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wait {
    /// This gateway is enough.
    ForThisNode,
    /// All gateways, for so long.
    ForAll(Duration),
}

impl Wait {
    /// Takes it out of a query.
    pub(super) fn take(query: &mut Query<'_>) -> Result<Self, ApiError> {
        let timeout = match query.text("timeout") {
            None => None,
            Some(text) => {
                let span = span_of_text(&text).ok().filter(|span| *span <= LONGEST);
                let odd = || ApiError::field("timeout", format!("{text:?} is not 0 to 60s; write for example 30s"));
                Some(span.ok_or_else(odd)?)
            }
        };
        match (query.text("wait").as_deref(), timeout) {
            (Some("all"), timeout) => Ok(Self::ForAll(timeout.unwrap_or(USUAL))),
            (Some(_), _) => Err(ApiError::field("wait", "is `all`, or left out")),
            (None, _) => Ok(Self::ForThisNode),
        }
    }
}

/// How many wait at one time. A change is committed before anybody waits: whoever finds no room is told at once how far
/// it is.
pub(super) struct Waiting {
    operators: Semaphore,
    owners: Semaphore,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { operators: Semaphore::new(OPERATORS), owners: Semaphore::new(OWNERS) }
    }
}

/// How far a committed change is.
pub(super) struct Settled {
    /// Whether everybody who was waited for enforces it.
    pub(super) is_enforced: bool,
    /// What is said of the fleet, where that was asked for.
    fleet: Option<Value>,
}

impl Settled {
    /// The status of an answer that has this one when the change is enforced.
    pub(super) const fn status(&self, done: StatusCode) -> StatusCode {
        if self.is_enforced { done } else { StatusCode::ACCEPTED }
    }

    /// An answer that also says how far the fleet is. Beside what the answer says anyway: whoever changes a record wants to
    /// see it, and its `revision` is another one than that of the fleet as soon as somebody else changed something.
    pub(super) fn told_in(self, mut body: Value) -> Value {
        if let (Some(fleet), Some(object)) = (self.fleet, body.as_object_mut()) {
            object.insert("fleet".to_owned(), fleet);
        }
        body
    }
}

impl Api {
    /// Waits until this gateway enforces what was committed, and all others where that is asked for.
    pub(super) async fn settle(&self, call: &Call<'_>, wait: Wait, revision: Revision) -> Settled {
        let is_enforced = self.enforced(revision).await;
        let Wait::ForAll(patience) = wait else { return Settled { is_enforced, fleet: None } };
        let is_operator = call.authority.is_operator();
        let room = if is_operator { &self.waiting.operators } else { &self.waiting.owners };
        let place = room.try_acquire();
        let patience = match call.request.entrance {
            _ if place.is_err() => Duration::ZERO,
            Entrance::Management => patience,
            Entrance::Route { .. } => patience.min(LONGEST_BEHIND_A_ROUTE),
        };
        let fleet = wait_for_fleet(&self.store, revision, patience).await;
        drop(place);
        let told = if is_operator { Told::Names } else { Told::Ids };
        Settled { is_enforced: is_enforced && fleet.complete, fleet: Some(fleet.json(told)) }
    }

    pub(super) async fn list_nodes(&self, call: &Call<'_>) -> Result<ApiAnswer, ApiError> {
        check_operator(call)?;
        call.no_query()?;
        let nodes = nodes_json(&self.store, Some(&self.gateway.this_node())).await?;
        Ok(call.json(StatusCode::OK, json!({ "data": nodes }), Some("nodes")))
    }

    pub(super) async fn forget_node(&self, call: &Call<'_>) -> Result<ApiAnswer, ApiError> {
        check_operator(call)?;
        let gone = || ApiError::NotFound { detail: "there is no node of this id".to_owned() };
        let id: NodeId = call.id.parse().map_err(|_| gone())?;
        call.no_body()?;
        let (store, by, now) = (Arc::clone(&self.store), call.authority.actor(), call.now);
        // What the trail says is done, whoever waits for the answer.
        let forgotten = tokio::spawn(async move { forget_node(&store, id, by, now).await });
        let forgotten = forgotten.await.map_err(|error| ApiError::Internal { reason: error.to_string() })??;
        if !forgotten {
            return Err(gone());
        }
        Ok(call.json(StatusCode::OK, json!({ "id": id, "forgotten": true }), None))
    }
}

/// The schema of a process that enforces keys.
pub(super) fn node() -> Value {
    let moment = |text: &str| json!({ "type": ["string", "null"], "format": "date-time", "description": text });
    let number = |text: &str| json!({ "type": ["integer", "null"], "minimum": 0, "description": text });
    let properties = json!({
        "id": { "type": "string", "pattern": "^node_[0-9a-f]{32}$" },
        "name": { "type": "string", "description": "The machine and the process." },
        "version": { "type": "string" },
        "started_at": { "type": "string", "format": "date-time" },
        "revision": number("What it enforces; `null`: nothing yet, or not of this history."),
        "behind": number("How many revisions it lacks of the newest."),
        "lag_ms": number("How long ago the store confirmed that revision, as far as is known."),
        "as_of": moment("When that was."),
        "last_seen": moment("When it last reported, by the store's clock."),
        "max_staleness_seconds": number("How long it serves without the store; `null`: for ever."),
        "stops_by": moment("Of one that lacks something: when it stops deciding without it at the latest."),
        "this": { "type": "boolean", "description": "Whether it is the one that answers." },
    });
    json!({
        "type": "object", "properties": properties,
        "required": ["id", "name", "version", "started_at", "revision", "lag_ms", "as_of", "last_seen", "this"],
    })
}

/// The schema of what is said of the fleet.
pub(super) fn answer() -> Value {
    let names = json!({ "type": "array", "items": { "type": "string" } });
    let stops_by = "From then on it decides nothing by what it knew before; `null`: it may for ever.";
    let pending = json!({
        "type": "object",
        "properties": {
            "node": { "type": "string" },
            "id": { "type": "string", "pattern": "^node_[0-9a-f]{32}$" },
            "last_seen": { "type": "string", "format": "date-time" },
            "stops_by": { "type": ["string", "null"], "format": "date-time", "description": stops_by },
        },
        "required": ["node", "id", "last_seen", "stops_by"],
    });
    json!({
        "type": "object",
        "description": "Of `wait=all`: which gateways enforce the change.",
        "properties": {
            "revision": { "type": "integer", "minimum": 0 },
            "complete": { "type": "boolean" },
            "acknowledged": names,
            "pending": { "type": "array", "items": pending },
        },
        "required": ["revision", "complete", "acknowledged", "pending"],
    })
}

/// The parameters that ask for it.
pub(super) fn parameters() -> [(&'static str, Value); 2] {
    let span = "^(0|([0-9]{1,4}|[1-5][0-9]{4})ms|([0-9]|[1-5][0-9]|60)s|1m)$";
    [
        (
            WAIT[0],
            json!({ "type": "string", "enum": ["all"], "description": "Answer when every gateway enforces it." }),
        ),
        (
            WAIT[1],
            json!({ "type": "string", "pattern": span, "default": "10s", "description": "How long `wait` waits: at most 60s." }),
        ),
    ]
}
