//! The compiled patterns: a tree of segments below each host.
//!
//! Owns the precedence of hosts and paths. Must not know what stands at a spot: rules and methods are the table's.
//! Start at [`Trie::best`].

use hashbrown::HashMap;

use super::host::{HostKind, HostName, HostPattern};
use super::pattern::{PathPattern, Segment, Tail};

/// A place in a trie where paths end; an index from 0 in order of insertion.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(super) struct SpotIx(pub(super) u32);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct NodeIx(u32);

/// Patterns by host and segment.
#[derive(Debug, Default)]
pub(super) struct Trie {
    exact_hosts: HashMap<Box<[u8]>, NodeIx>,
    /// By what stands behind the star, which begins with a dot.
    wildcard_hosts: HashMap<Box<[u8]>, NodeIx>,
    any_host: Option<NodeIx>,
    nodes: Vec<Node>,
    spots: u32,
}

#[derive(Debug, Default)]
struct Node {
    texts: Texts,
    param: Option<NodeIx>,
    end: Option<SpotIx>,
    slash: Option<SpotIx>,
    rest: Option<SpotIx>,
}

/// Children by text. Most nodes have a handful, where comparing beats hashing.
#[derive(Debug)]
enum Texts {
    Few(Vec<(Box<[u8]>, NodeIx)>),
    Many(HashMap<Box<[u8]>, NodeIx>),
}

impl Default for Texts {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Texts {
    const MOST_COMPARED: usize = 6;

    fn find(&self, segment: &[u8]) -> Option<NodeIx> {
        match self {
            Self::Few(children) => children.iter().find(|(text, _)| **text == *segment).map(|(_, node)| *node),
            Self::Many(children) => children.get(segment).copied(),
        }
    }

    fn insert(&mut self, segment: &[u8], node: NodeIx) {
        match self {
            Self::Few(children) if children.len() < Self::MOST_COMPARED => children.push((segment.into(), node)),
            Self::Few(children) => {
                let mut many: HashMap<_, _> = std::mem::take(children).into_iter().collect();
                many.insert(segment.into(), node);
                *self = Self::Many(many);
            }
            Self::Many(children) => {
                children.insert(segment.into(), node);
            }
        }
    }
}

impl Trie {
    /// The spot of `pattern` below `host` (`None`: any host), made at first sight. `key` is what a text segment is
    /// filed under.
    pub(super) fn spot(
        &mut self,
        host: Option<&HostPattern>,
        pattern: &PathPattern,
        key: impl Fn(&str) -> String,
    ) -> SpotIx {
        let node = self.node(host, pattern, key);
        self.spot_at(node, pattern.tail())
    }

    /// The spot that paths with (or without) a trailing slash reach at `pattern`'s node when no pattern says so
    /// itself; `None` where one does.
    pub(super) fn other_slash_spot(
        &mut self,
        host: Option<&HostPattern>,
        pattern: &PathPattern,
        key: impl Fn(&str) -> String,
        is_soft: impl Fn(SpotIx) -> bool,
    ) -> Option<SpotIx> {
        let other = match pattern.tail() {
            Tail::End => Tail::Slash,
            Tail::Slash => Tail::End,
            Tail::Rest => return None,
        };
        let node = self.node(host, pattern, key);
        let taken = match other {
            Tail::End => self.nodes[node.0 as usize].end,
            Tail::Slash => self.nodes[node.0 as usize].slash,
            Tail::Rest => None,
        };
        if taken.is_some_and(|spot| !is_soft(spot)) {
            return None;
        }
        Some(self.spot_at(node, other))
    }

    fn node(&mut self, host: Option<&HostPattern>, pattern: &PathPattern, key: impl Fn(&str) -> String) -> NodeIx {
        let mut node = self.root(host);
        for segment in pattern.segments() {
            node = match segment {
                Segment::Text(text) => self.text_child(node, key(text).as_bytes()),
                Segment::Param => self.param_child(node),
            };
        }
        node
    }

    fn root(&mut self, host: Option<&HostPattern>) -> NodeIx {
        let (hosts, name) = match host.map(HostPattern::kind) {
            None => {
                let known = self.any_host;
                return known.unwrap_or_else(|| *self.any_host.insert(push_node(&mut self.nodes)));
            }
            Some(HostKind::Exact(name)) => (&mut self.exact_hosts, name),
            Some(HostKind::Below(suffix)) => (&mut self.wildcard_hosts, suffix),
        };
        *hosts.entry(name.as_bytes().into()).or_insert_with(|| push_node(&mut self.nodes))
    }

    fn text_child(&mut self, parent: NodeIx, text: &[u8]) -> NodeIx {
        if let Some(child) = self.nodes[parent.0 as usize].texts.find(text) {
            return child;
        }
        let child = push_node(&mut self.nodes);
        self.nodes[parent.0 as usize].texts.insert(text, child);
        child
    }

    fn param_child(&mut self, parent: NodeIx) -> NodeIx {
        if let Some(child) = self.nodes[parent.0 as usize].param {
            return child;
        }
        let child = push_node(&mut self.nodes);
        self.nodes[parent.0 as usize].param = Some(child);
        child
    }

    fn spot_at(&mut self, node: NodeIx, tail: Tail) -> SpotIx {
        let node = &mut self.nodes[node.0 as usize];
        let spot = match tail {
            Tail::Rest => &mut node.rest,
            Tail::End => &mut node.end,
            Tail::Slash => &mut node.slash,
        };
        *spot.get_or_insert_with(|| {
            self.spots += 1;
            SpotIx(self.spots - 1)
        })
    }

    /// The spot of the best pattern for a path without empty segments: best host first, then segment by segment
    /// text before parameter before the rest.
    ///
    /// Allocates nothing. Each node is seen at most once, so that the cost is bounded by the table's size whatever
    /// the path; without overlapping patterns it is one look-up a segment.
    pub(super) fn best(&self, host: &HostName<'_>, path: &[u8]) -> Option<SpotIx> {
        let path = if path == b"/" { b"" } else { path };
        self.below_named_host(host.as_bytes(), path).or_else(|| self.best_below(self.any_host?, path))
    }

    fn below_named_host(&self, host: &[u8], path: &[u8]) -> Option<SpotIx> {
        let exact = self.exact_hosts.get(host).and_then(|root| self.best_below(*root, path));
        if exact.is_some() || self.wildcard_hosts.is_empty() {
            return exact;
        }
        // From the longest wildcard to the shortest; a wildcard takes at least one byte.
        let dots = host.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
        let roots = dots.filter_map(|at| self.wildcard_hosts.get(&host[at..]));
        roots.filter_map(|root| self.best_below(*root, path)).next()
    }

    /// `rest` is empty, or begins with the slash before the next segment.
    fn best_below(&self, node: NodeIx, rest: &[u8]) -> Option<SpotIx> {
        let node = &self.nodes[node.0 as usize];
        let found = match rest {
            [] => node.end,
            [b'/'] => node.slash,
            [_, rest @ ..] => {
                let (segment, rest) = rest.split_at(rest.iter().position(|b| *b == b'/').unwrap_or(rest.len()));
                let by_text = node.texts.find(segment).and_then(|child| self.best_below(child, rest));
                by_text.or_else(|| self.best_below(node.param?, rest))
            }
        };
        found.or(node.rest)
    }
}

fn push_node(nodes: &mut Vec<Node>) -> NodeIx {
    nodes.push(Node::default());
    #[expect(clippy::cast_possible_truncation, reason = "a node takes over 32 bytes: memory ends long before 2^32")]
    NodeIx((nodes.len() - 1) as u32)
}
