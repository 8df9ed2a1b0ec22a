//! Lists, maps with free names, and values that no message may show.

use serde_json::{Value, json};

use super::{At, Definitions, Shape, wrong_type};
use crate::config::diagnostic::{Findings, Problem};
use crate::config::node::{Node, NodeKind};
use crate::config::place::PlaceId;

/// A list. All items are looked at; one with errors spoils the list.
#[derive(Clone, Debug)]
pub(crate) struct Listed<T>(pub(crate) Vec<At<T>>);

/// A list of independent things: those with errors are left out, the others are looked at further.
#[derive(Clone, Debug)]
pub(crate) struct Items<T>(pub(crate) Vec<At<T>>);

impl<T: Shape> Shape for Items<T> {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        match &node.kind {
            NodeKind::List(items) => {
                Some(Self(items.iter().filter_map(|item| At::<T>::decode(item, findings)).collect()))
            }
            NodeKind::Scalar(_) | NodeKind::Map(_) => {
                Listed::<T>::decode(node, findings).map(|Listed(items)| Self(items))
            }
        }
    }

    fn schema(definitions: &mut Definitions) -> Value {
        Listed::<T>::schema(definitions)
    }
}

/// One of something, or a list.
#[derive(Clone, Debug)]
pub(crate) struct OneOrMore<T>(pub(crate) Vec<At<T>>);

impl<T: Shape> Shape for OneOrMore<T> {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        match &node.kind {
            NodeKind::Scalar(_) => At::<T>::decode(node, findings).map(|one| Self(vec![one])),
            NodeKind::List(_) | NodeKind::Map(_) => Listed::decode(node, findings).map(|list| Self(list.0)),
        }
    }

    fn schema(definitions: &mut Definitions) -> Value {
        json!({ "anyOf": [T::schema(definitions), Listed::<T>::schema(definitions)] })
    }
}

impl<T: Shape> Shape for Listed<T> {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        match &node.kind {
            NodeKind::List(items) => {
                let items: Vec<_> = items.iter().map(|item| At::<T>::decode(item, findings)).collect();
                items.into_iter().collect::<Option<_>>().map(Self)
            }
            NodeKind::Scalar(scalar) if !scalar.is_null() => {
                let fix = format!("Write [{:?}]", super::super::node::shortened(scalar.shown()));
                findings.note(wrong_type(node, "a list").fix(fix));
                None
            }
            NodeKind::Scalar(_) | NodeKind::Map(_) => {
                findings.note(wrong_type(node, "a list").fix("Begin each item with `- `, or write [a, b]"));
                None
            }
        }
    }

    fn schema(definitions: &mut Definitions) -> Value {
        json!({ "type": "array", "items": T::schema(definitions) })
    }
}

impl<T> Listed<T> {
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, At<T>> {
        self.0.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One entry of a [`Named`] map.
#[derive(Clone, Debug)]
pub(crate) struct NamedEntry<T> {
    pub(crate) name: String,
    /// Where the name stands.
    pub(crate) name_at: PlaceId,
    /// `None` when it has errors, which are noted: the name exists all the same, so nobody calls it undefined.
    pub(crate) value: Option<T>,
}

/// A map whose keys are the operator's, in file order.
#[derive(Clone, Debug)]
pub(crate) struct Named<T>(pub(crate) Vec<NamedEntry<T>>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Shape> Shape for Named<T> {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        let NodeKind::Map(entries) = &node.kind else {
            findings.note(wrong_type(node, "a map of names").fix("Write `name: …` for each"));
            return None;
        };
        let read = |entry: &crate::config::node::Entry| NamedEntry {
            name: entry.key.to_string(),
            name_at: entry.key_at,
            value: T::decode(&entry.value, findings),
        };
        Some(Self(entries.iter().map(read).collect()))
    }

    fn schema(definitions: &mut Definitions) -> Value {
        json!({ "type": "object", "additionalProperties": T::schema(definitions) })
    }
}

impl<T> Named<T> {
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, NamedEntry<T>> {
        self.0.iter()
    }

    pub(crate) fn find(&self, name: &str) -> Option<&NamedEntry<T>> {
        self.0.iter().find(|entry| entry.name == name)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|entry| entry.name.as_str())
    }
}

/// A part of the whole file: when it has errors the other parts are looked at all the same.
#[derive(Clone, Debug)]
pub(crate) struct Section<T>(pub(crate) Option<T>);

impl<T: Shape> Shape for Section<T> {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        Some(Self(T::decode(node, findings)))
    }

    fn absent() -> Option<Self> {
        Some(Self(None))
    }

    fn schema(definitions: &mut Definitions) -> Value {
        T::schema(definitions)
    }
}

/// A value that stands in no message, excerpt, dump or `Debug`.
#[derive(Clone)]
pub(crate) struct Secret(pub(crate) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Shape for Secret {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        findings.sources.mark_secret(node.at);
        match &node.kind {
            NodeKind::Scalar(scalar) if scalar.is_broken => None,
            NodeKind::Scalar(scalar) if !scalar.is_null() => Some(Self(scalar.text.clone())),
            NodeKind::Scalar(_) | NodeKind::List(_) | NodeKind::Map(_) => {
                findings.sources.mark_rest_of_line_secret(node.at);
                let message = "expected a text";
                let problem = Problem::new(crate::config::diagnostic::Code::WrongType, node.at, message);
                findings.note(problem.fix("Write ${file:PATH} or ${NAME}, so that the secret stays out of this file"));
                None
            }
        }
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "string" })
    }
}
