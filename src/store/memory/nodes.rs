//! The gateways that enforce the keys of a store in memory: hardly more than the one whose memory it is.

use super::MemoryStore;
use crate::domain::{NodeId, Revision, Timestamp, time};
use crate::store::api::Answer;
use crate::store::nodes::{self, Node, NodeBook, NodeReport, Roll, SLOWEST_COMMIT};

impl NodeBook for MemoryStore {
    fn report_node(&self, report: NodeReport) -> Answer<'_, ()> {
        Box::pin(async move {
            self.nodes.lock().insert(report.id, (report, time::now()));
            Ok(())
        })
    }

    fn strike_node(&self, id: NodeId) -> Answer<'_, bool> {
        Box::pin(async move { Ok(self.nodes.lock().remove(&id).is_some()) })
    }

    fn list_nodes(&self) -> Answer<'_, Roll> {
        Box::pin(async move {
            let reported: Vec<_> = self.nodes.lock().values().cloned().collect();
            let history = self.history();
            let node = |(report, seen)| Node::of(report, seen, |head| history.holds(head));
            let mut nodes: Vec<Node> = reported.into_iter().map(node).collect();
            nodes.sort_by_key(|node| (node.started_at, node.id));
            Ok(Roll { now: time::now(), newest: history.newest(), nodes })
        })
    }

    fn committed_by(&self, revision: Revision) -> Answer<'_, Option<Timestamp>> {
        Box::pin(async move { Ok(self.history().noted(revision).map(|noted| noted.plus(SLOWEST_COMMIT))) })
    }

    fn tidy_nodes(&self) -> Answer<'_, u64> {
        Box::pin(async move {
            let Roll { now, nodes, .. } = self.list_nodes().await?;
            let surplus = nodes::surplus(nodes, now);
            let mut known = self.nodes.lock();
            Ok(surplus.iter().filter(|id| known.remove(id).is_some()).count() as u64)
        })
    }
}
