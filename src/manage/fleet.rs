//! The gateways that enforce the keys of a store: how each stands, and whether all of them enforce a change.
//!
//! Everything here is what gateways have told the store. One that is cut off tells nothing, and may go on serving with what
//! it knew: how long at most can be said nevertheless ([`Pending::stops_by`]).

use std::time::Duration;

use serde_json::{Value, json};

use crate::domain::time::monotonic_now;
use crate::domain::{NodeId, Revision, Timestamp};
use crate::store::{Actor, Node, Note, Roll, Store, StoreError};

/// First and longest pause between two looks at the book.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// The least that a look may take, whatever is left of the patience.
const ONE_LOOK: Duration = Duration::from_secs(2);

/// How far the fleet is with a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetAnswer {
    /// Which one.
    pub revision: Revision,
    /// Whether no node decides by an older one any more, as far as it can be known. Not where the store has lost it: then
    /// nobody is pending either.
    pub complete: bool,
    /// Nodes that decide by it, or by a later one.
    pub acknowledged: Vec<NodeName>,
    /// Nodes that may not, and have not stopped for certain.
    pub pending: Vec<Pending>,
}

/// What a node is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName {
    /// By programs.
    pub id: NodeId,
    /// By people: the machine and the process.
    pub name: String,
}

/// A node of which it is not known that it decides by a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Which one.
    pub node: NodeName,
    /// When it last reported, by the store's clock.
    pub last_seen: Timestamp,
    /// From then on it lets no request with a key pass by what it knew before the revision, by the store's clock; none: it
    /// may do so for ever, as it serves without the store (`sync.on_stale: serve`).
    ///
    /// A node counts its staleness from the moment at which it last *asked* the store successfully, and an answer to what
    /// is asked after the commit holds the revision. So either it has asked since the commit, and enforces the revision
    /// although nobody heard so; or it last asked before the commit, and stops by the commit and its `max_staleness`. That
    /// holds however it is cut off, and for a node that begins later from what it had on disk: that is older than the
    /// commit too. It does not hold for a machine that was put to sleep meanwhile, whose clock stood still.
    pub stops_by: Option<Timestamp>,
}

/// By when a node has stopped that asked the store last before `since`. Clocks of different machines run differently, by
/// far less than a thousandth.
fn stops_by(since: Timestamp, max_staleness: Option<Duration>) -> Option<Timestamp> {
    max_staleness.map(|staleness| since.plus(staleness + staleness / 1000))
}

/// Who is told of nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// Who operates them: their names.
    Names,
    /// Anybody else: ids, which say nothing about machines.
    Ids,
}

impl FleetAnswer {
    /// Before anybody looked.
    const fn unknown(revision: Revision) -> Self {
        Self { revision, complete: false, acknowledged: Vec::new(), pending: Vec::new() }
    }

    fn of(revision: Revision, roll: Roll, since: Timestamp) -> Self {
        let mut answer = Self::unknown(revision);
        for Node { id, name, acknowledged, max_staleness, seen, .. } in roll.nodes {
            let node = NodeName { id, name };
            if acknowledged.is_some_and(|acknowledged| acknowledged >= revision) {
                answer.acknowledged.push(node);
                continue;
            }
            let stops_by = stops_by(since, max_staleness);
            if stops_by.is_none_or(|stops_by| stops_by > roll.now) {
                answer.pending.push(Pending { node, last_seen: seen, stops_by });
            }
        }
        answer.complete = answer.pending.is_empty();
        answer
    }

    /// For programs.
    pub fn json(&self, told: Told) -> Value {
        let name = |node: &NodeName| match told {
            Told::Names => json!(node.name),
            Told::Ids => json!(node.id),
        };
        let pending = |Pending { node, last_seen, stops_by }: &Pending| json!({ "node": name(node), "id": node.id, "last_seen": last_seen, "stops_by": stops_by });
        json!({
            "revision": self.revision,
            "complete": self.complete,
            "acknowledged": self.acknowledged.iter().map(name).collect::<Vec<_>>(),
            "pending": self.pending.iter().map(pending).collect::<Vec<_>>(),
        })
    }
}

/// Waits until every node enforces a committed revision or has stopped, at most so long; looks once in any case. Where the
/// store does not answer, it is what was known before: nobody is told that it is complete. Cancel safe.
pub async fn wait_for_fleet(store: &Store, revision: Revision, patience: Duration) -> FleetAnswer {
    let began = monotonic_now();
    let mut answer = FleetAnswer::unknown(revision);
    let mut watch = Watch { store, revision, noted: None, since: None };
    let mut pause = PAUSES.0;
    loop {
        let left = || patience.saturating_sub(monotonic_now().saturating_duration_since(began));
        match tokio::time::timeout(left().max(ONE_LOOK), watch.look()).await {
            Ok(Ok(found)) => answer = found,
            Ok(Err(error)) => tracing::debug!(%error, "the nodes of the fleet are not known"),
            Err(_) => {}
        }
        if answer.complete || left().is_zero() {
            return answer;
        }
        tokio::time::sleep(pause.min(left())).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Looking at the fleet again and again for one revision.
struct Watch<'a> {
    store: &'a Store,
    revision: Revision,
    /// By when it was visible, as the store told it first. Another moment is that of another change, which took the number
    /// of one that the store lost.
    noted: Option<Timestamp>,
    /// When it was visible to everybody who asked; found out when it matters.
    since: Option<Timestamp>,
}

impl Watch<'_> {
    async fn look(&mut self) -> Result<FleetAnswer, StoreError> {
        let roll = self.store.nodes().list_nodes().await?;
        let answer = FleetAnswer::of(self.revision, roll.clone(), self.since.unwrap_or(roll.now));
        if !answer.complete && self.noted.is_some() {
            return Ok(answer);
        }
        // After the roll: where the change was lost in between, that is found out.
        let noted = self.store.nodes().committed_by(self.revision).await?;
        let is_lost = |noted: Timestamp| self.noted.is_some_and(|known| known != noted);
        let Some(noted) = noted.filter(|noted| !is_lost(*noted)) else {
            return Ok(FleetAnswer::unknown(self.revision));
        };
        self.noted = Some(noted);
        let since = match self.since {
            Some(since) => since,
            // It is committed, so now is late enough; what is asked again long after is told what holds since then.
            None => noted.min(self.store.nodes().list_nodes().await?.now),
        };
        self.since = Some(since);
        Ok(FleetAnswer::of(self.revision, roll, since))
    }
}

/// The process that lists nodes, by what it knows itself.
#[derive(Clone, Debug)]
pub struct ThisNode {
    /// Which one.
    pub id: NodeId,
    /// The machine's name and the process's number.
    pub name: String,
    /// Since when it runs.
    pub started_at: Timestamp,
    /// The store's revision that it enforces.
    pub revision: Revision,
    /// How long ago the store confirmed that; none before the first time.
    pub lag: Option<Duration>,
    /// When that was, by the wall clock.
    pub as_of: Option<Timestamp>,
    /// How long it serves without the store; none: for ever.
    pub max_staleness: Option<Duration>,
}

impl ThisNode {
    /// For programs: it alone, as where the book cannot be read.
    pub fn json(&self) -> Value {
        let Self { id, name, started_at, revision, lag, as_of, max_staleness } = self;
        json!({
            "id": id,
            "name": name,
            "version": env!("CARGO_PKG_VERSION"),
            "started_at": started_at,
            "revision": revision,
            "behind": null,
            "lag_ms": lag.map(whole_ms),
            "as_of": as_of,
            "last_seen": null,
            "max_staleness_seconds": max_staleness.map(|staleness| staleness.as_secs()),
            "stops_by": null,
            "this": true,
        })
    }
}

/// All nodes for programs. The process that asks is among them, by what it knows itself.
///
/// # Errors
/// When the book cannot be read.
pub async fn nodes_json(store: &Store, this: Option<&ThisNode>) -> Result<Vec<Value>, StoreError> {
    let Roll { now, newest, nodes } = store.nodes().list_nodes().await?;
    let mut found = Vec::with_capacity(nodes.len() + 1);
    for node in &nodes {
        let lacks = node.acknowledged.map_or(Revision::ZERO, Revision::next);
        let is_behind = lacks <= newest;
        let since = match node.acknowledged {
            Some(_) if is_behind => store.nodes().committed_by(lacks).await?.map_or(now, |by| by.min(now)),
            Some(_) | None => now,
        };
        let as_of = node.confirmed_ago.map(|ago| node.seen.minus(ago));
        let mut shown = json!({
            "id": node.id,
            "name": node.name,
            "version": node.version,
            "started_at": node.started_at,
            "revision": node.acknowledged,
            "behind": node.acknowledged.map(|at| newest.number().saturating_sub(at.number())),
            "lag_ms": as_of.map(|as_of| whole_ms(now.since(as_of))),
            "as_of": as_of,
            "last_seen": node.seen,
            "max_staleness_seconds": node.max_staleness.map(|staleness| staleness.as_secs()),
            "stops_by": if is_behind { stops_by(since, node.max_staleness) } else { None },
            "this": false,
        });
        if let Some(this) = this.filter(|this| this.id == node.id) {
            let mut own = this.json();
            own["behind"] = json!(newest.number().saturating_sub(this.revision.number()));
            own["last_seen"] = shown["last_seen"].take();
            shown = own;
        }
        found.push(shown);
    }
    if let Some(this) = this.filter(|this| nodes.iter().all(|node| node.id != this.id)) {
        found.push(this.json());
    }
    Ok(found)
}

fn whole_ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Takes a node out of the book because somebody says that it serves no more; false: it is not there. It is noted in the
/// audit trail first. One that runs is there again within seconds.
///
/// # Errors
/// The store's.
pub async fn forget_node(store: &Store, id: NodeId, by: Actor, now: Timestamp) -> Result<bool, StoreError> {
    let roll = store.nodes().list_nodes().await?;
    let Some(node) = roll.nodes.into_iter().find(|node| node.id == id) else { return Ok(false) };
    let Node { id, name, version, acknowledged, seen, .. } = node;
    let was = json!({ "name": name, "version": version, "revision": acknowledged, "last_seen": seen });
    store.writer().note(Note::NodeForget { id, was }, by, now).await?;
    store.nodes().strike_node(id).await?;
    Ok(true)
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
