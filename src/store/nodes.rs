//! Which gateways enforce the keys of a store, and how far each is.
//!
//! Owns the trait of the book and the types that cross it. A gateway that is cut off from the store writes nothing here, so
//! what stands in it is what was last heard: how long ago is told by the store's own clock, whatever clocks gateways have.

use std::time::Duration;

use super::api::Answer;
use crate::domain::{NodeId, Revision, StoreHead, Timestamp};

/// Keeps what gateways report of themselves.
///
/// Like last use it touches no revision, has no entries in the audit trail and never delays a revocation. What it holds may
/// lose the last moments before a power cut: gateways report again. That a node is there, and its
/// [`NodeReport::max_staleness`], it does not lose: one that is cut off then is waited for by these alone.
pub trait NodeBook: Send + Sync {
    /// Writes how a node stands, in the place of what it reported before.
    fn report_node(&self, report: NodeReport) -> Answer<'_, ()>;
    /// Takes a node out of the book; false: it was not there. One that runs is there again with its next report.
    fn strike_node(&self, id: NodeId) -> Answer<'_, bool>;
    /// Every node, those that started first coming first.
    fn list_nodes(&self) -> Answer<'_, Roll>;
    /// A moment of the store's clock by which `revision` was visible to whoever asked for the newest. When it is no longer
    /// remembered, that of the oldest younger one that is; none where there is no younger one either.
    fn committed_by(&self, revision: Revision) -> Answer<'_, Option<Timestamp>>;
    /// Drops nodes that were silent for so long that they have stopped (see [`NodeReport::max_staleness`]), and
    /// [`STRUCK_AFTER`] longer. Beyond [`MAX_NODES`], those go too that are silent longest. Returns how many went.
    fn tidy_nodes(&self) -> Answer<'_, u64>;
}

/// How long a node that must have stopped stays in the book, for people to see.
pub const STRUCK_AFTER: Duration = Duration::from_secs(3600);

/// Most nodes of a book: some hundred would be a very large fleet, and a gateway that crashes again and again leaves one
/// behind each time.
pub const MAX_NODES: usize = if cfg!(test) { 200 } else { 1_000 };

/// How much later than it was noted a change may have become visible: no commit takes nearly as long.
pub(super) const SLOWEST_COMMIT: Duration = Duration::from_secs(60);

/// How a node stands, by its own account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReport {
    /// Which one.
    pub id: NodeId,
    /// What people call it: the machine and the process.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// Since when it runs, by its own clock.
    pub started_at: Timestamp,
    /// What it decides by; none before its first load.
    pub applied: Option<StoreHead>,
    /// How long before this report the store confirmed that; none before the first time.
    pub confirmed_ago: Option<Duration>,
    /// How long it lets requests with keys pass after the store last answered it; none: for ever.
    pub max_staleness: Option<Duration>,
}

/// All nodes, as they stand at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roll {
    /// That moment, by the store's clock.
    pub now: Timestamp,
    /// The newest revision.
    pub newest: Revision,
    /// The nodes.
    pub nodes: Vec<Node>,
}

/// A node, as the book knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Which one.
    pub id: NodeId,
    /// What people call it.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// Since when it runs, by its own clock.
    pub started_at: Timestamp,
    /// The revision that it has acknowledged. None before its first load, and where what it decides by is not of this
    /// store's history: that it once had commits which a failover lost says nothing about those that took their numbers.
    pub acknowledged: Option<Revision>,
    /// How long before its last report the store had confirmed that.
    pub confirmed_ago: Option<Duration>,
    /// See [`NodeReport::max_staleness`].
    pub max_staleness: Option<Duration>,
    /// When it last reported, by the store's clock.
    pub seen: Timestamp,
}

impl Node {
    /// What a report says, with what the store knows of its history.
    pub(super) fn of(report: NodeReport, seen: Timestamp, is_of_this_history: impl Fn(StoreHead) -> bool) -> Self {
        let NodeReport { id, name, version, started_at, applied, confirmed_ago, max_staleness } = report;
        let acknowledged = applied.filter(|head| is_of_this_history(*head)).map(|head| head.revision);
        Self { id, name, version, started_at, acknowledged, confirmed_ago, max_staleness, seen }
    }

    /// Whether it has been silent for so long that it must have stopped, and for [`STRUCK_AFTER`] more.
    ///
    /// It would have reported had it heard from the store since: both go the same way, and it reports every few seconds.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.max_staleness.is_some_and(|staleness| now.since(self.seen) > staleness + STRUCK_AFTER)
    }
}

/// The nodes that a book lets go of: see [`NodeBook::tidy_nodes`].
pub(super) fn surplus(mut nodes: Vec<Node>, now: Timestamp) -> Vec<NodeId> {
    nodes.sort_by_key(|node| (node.is_over(now), std::cmp::Reverse(node.seen)));
    let kept = nodes.iter().take(MAX_NODES).take_while(|node| !node.is_over(now)).count();
    nodes.drain(kept..).map(|node| node.id).collect()
}

/// A span of time as columns have it.
pub(super) fn milliseconds(span: Option<Duration>) -> Option<i64> {
    span.map(|span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
}

/// The way back.
pub(super) fn span(milliseconds: Option<i64>) -> Option<Duration> {
    milliseconds.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or_default()))
}
