//! Where a key was used from since notes were last taken, in little memory: many keys may be in use.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::{Equivalent, HashSet};

use crate::domain::{KeyId, KeyKind, Timestamp, network_of};
use crate::store::{MAX_NETWORKS, NetworkSeen};

/// What is kept of a `User-Agent`, in bytes as they came.
pub const MAX_AGENT_BYTES: usize = 256;
/// Most texts that are shared among keys. Beyond it each key has a copy of its own: then texts tell clients apart.
const MAX_SHARED_AGENTS: usize = 1_024;

/// Who comes with a key.
#[derive(Clone, Copy, Debug)]
pub struct Visitor<'a> {
    /// The key.
    pub key: KeyId,
    /// Its kind.
    pub kind: KeyKind,
    /// The client's address; none over a Unix socket.
    pub address: Option<IpAddr>,
    /// Its `User-Agent`.
    pub agent: Option<&'a [u8]>,
    /// Whether the request was refused because a browser sent a secret key.
    pub is_browser_leak: bool,
    /// Whether the key was accepted: then it was used.
    pub is_accepted: bool,
    /// When it came.
    pub at: Timestamp,
}

impl Visitor<'_> {
    /// Empty where there is none.
    pub(super) fn kept_agent(&self) -> &[u8] {
        let agent = self.agent.unwrap_or_default();
        &agent[..agent.len().min(MAX_AGENT_BYTES)]
    }
}

/// Where one key was used from.
pub(super) struct Visit {
    pub(super) at: Timestamp,
    /// When first. With `at` and `address` it is all there is to know of a key that stays in one network.
    first: Timestamp,
    agent: Option<Agent>,
    more: Option<Box<More>>,
    pub(super) address: Option<IpAddr>,
    pub(super) kind: KeyKind,
}

/// What few keys have.
#[derive(Default)]
struct More {
    /// All networks, once there were several.
    networks: Vec<NetworkSeen>,
    browser: Option<(Option<IpAddr>, Timestamp)>,
}

impl Visit {
    pub(super) fn first(visitor: &Visitor<'_>, agents: &mut HashSet<Agent>) -> Self {
        let Visitor { kind, address, at, .. } = *visitor;
        let mut visit = Self { at, first: at, agent: None, more: None, address, kind };
        visit.note(visitor, agents);
        visit
    }

    pub(super) fn note(&mut self, visitor: &Visitor<'_>, agents: &mut HashSet<Agent>) {
        let Visitor { address, at, .. } = *visitor;
        if address != self.address || self.has_networks() || at < self.at {
            let network = address.map(network_of);
            let stays = !self.has_networks() && network == self.address.map(network_of) && self.at <= at;
            if !stays {
                self.settle();
                network.into_iter().for_each(|network| self.see(NetworkSeen { network, first: at, last: at }));
            }
        }
        // A refusal is noted when its answer is out: a later request may have been noted before it.
        if self.at <= at {
            (self.at, self.address) = (at, address);
            let agent = visitor.kept_agent();
            if self.agent() != agent {
                self.agent = Agent::of(agent, agents);
            }
        }
        if visitor.is_browser_leak {
            self.more.get_or_insert_default().browser = Some((address, at));
        }
    }

    /// The `User-Agent` of the last visit; empty where there was none.
    pub(super) fn agent(&self) -> &[u8] {
        self.agent.as_ref().map_or(&[], |agent| &agent.0)
    }

    /// The networks, with the first and the last moment in each.
    pub(super) fn networks(&self) -> Vec<NetworkSeen> {
        match &self.more {
            Some(more) if !more.networks.is_empty() => more.networks.clone(),
            Some(_) | None => self.only_network().into_iter().collect(),
        }
    }

    /// The address of a browser that sent this secret key, and when.
    pub(super) fn browser(&self) -> Option<(Option<IpAddr>, Timestamp)> {
        self.more.as_ref()?.browser
    }

    /// Adds what another worker noted of the same key, or the same one later.
    pub(super) fn add(&mut self, other: Self) {
        let is_alike = !self.has_networks() && !other.has_networks();
        if is_alike && self.address.map(network_of) == other.address.map(network_of) {
            self.first = self.first.min(other.first);
        } else {
            self.settle();
            other.networks().into_iter().for_each(|seen| self.see(seen));
        }
        if let Some(browser) = other.browser() {
            self.more.get_or_insert_default().browser = Some(browser);
        }
        if other.at >= self.at {
            (self.at, self.address, self.agent) = (other.at, other.address, other.agent);
        }
    }

    fn has_networks(&self) -> bool {
        self.more.as_ref().is_some_and(|more| !more.networks.is_empty())
    }

    fn only_network(&self) -> Option<NetworkSeen> {
        let network = network_of(self.address?);
        Some(NetworkSeen { network, first: self.first, last: self.at })
    }

    /// From now on it is known network by network.
    fn settle(&mut self) {
        if !self.has_networks()
            && let Some(only) = self.only_network()
        {
            self.more.get_or_insert_default().networks.push(only);
        }
    }

    fn see(&mut self, seen: NetworkSeen) {
        let networks = &mut self.more.get_or_insert_default().networks;
        if let Some(known) = networks.iter_mut().find(|known| known.network == seen.network) {
            known.first = known.first.min(seen.first);
            known.last = known.last.max(seen.last);
        } else if networks.len() < MAX_NETWORKS {
            networks.push(seen);
        }
    }
}

/// A `User-Agent`, shared by the keys that come with it. One pointer wide.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Agent(Arc<Box<[u8]>>);

impl Agent {
    fn of(text: &[u8], shared: &mut HashSet<Self>) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        if let Some(known) = shared.get(&Text(text)) {
            return Some(known.clone());
        }
        let agent = Self(Arc::new(text.into()));
        if shared.len() < MAX_SHARED_AGENTS {
            shared.insert(agent.clone());
        }
        Some(agent)
    }
}

impl Hash for Agent {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Text(&self.0).hash(state);
    }
}

/// As [`Agent`], borrowed.
#[derive(Hash)]
struct Text<'a>(&'a [u8]);

impl Equivalent<Agent> for Text<'_> {
    fn equivalent(&self, agent: &Agent) -> bool {
        self.0 == &**agent.0
    }
}

#[cfg(test)]
#[path = "visit_tests.rs"]
mod tests;
