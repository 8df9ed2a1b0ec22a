//! How a tree becomes typed values: every problem is noted, none stops the others from being found.
//!
//! Owns the [`Shape`] trait, the `shape!` and `choice!` macros and the shapes of lists and maps. One declaration of
//! a section gives its decoder, its JSON Schema and the words for "did you mean", so the three cannot disagree.
//! (serde stops at the first error and knows no positions behind its derives; hence not `Deserialize`.)
//! Must not know any section.

mod containers;
pub(crate) mod net;
pub(crate) mod numbers;
pub(crate) mod text;
pub(crate) mod words;

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub(crate) use containers::{Items, Listed, Named, NamedEntry, OneOrMore, Secret, Section};

use super::diagnostic::{Code, Findings, Problem};
use super::node::{Node, NodeKind, Scalar};
use super::place::PlaceId;
use crate::domain::did_you_mean;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) at: PlaceId,
}

/// Definitions that a schema refers to by name.
pub(crate) type Definitions = BTreeMap<&'static str, Value>;

/// Something that can be read from a configuration file.
pub(crate) trait Shape: Sized {
    /// Reads it; `None` when there are errors, which are noted.
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self>;

    /// What it is when the field is not there; `None` when the field is needed.
    fn absent() -> Option<Self> {
        None
    }

    /// Its JSON Schema (draft 2020-12).
    fn schema(definitions: &mut Definitions) -> Value;
}

impl<T: Shape> Shape for At<T> {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        T::decode(node, findings).map(|value| Self { value, at: node.at })
    }

    fn schema(definitions: &mut Definitions) -> Value {
        T::schema(definitions)
    }
}

impl<T: Shape> Shape for Option<T> {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        T::decode(node, findings).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }

    fn schema(definitions: &mut Definitions) -> Value {
        T::schema(definitions)
    }
}

/// Why a text is not what a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    /// Completes "`text` …": "is not a scope".
    pub(crate) problem: String,
    /// What to do, as a sentence without its full stop; may be empty.
    pub(crate) fix: String,
    /// Which bytes of the text it is about, when not all of them.
    pub(crate) part: Option<std::ops::Range<usize>>,
}

impl Flaw {
    pub(crate) fn new(problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { problem: problem.into(), fix: fix.into(), part: None }
    }
}

/// The scalar at `node`, or an error that names what was expected.
pub(crate) fn scalar<'n>(node: &'n Node, expected: &str, findings: &mut Findings) -> Option<&'n Scalar> {
    match &node.kind {
        NodeKind::Scalar(scalar) if scalar.is_broken => None,
        NodeKind::Scalar(scalar) if !scalar.is_null() => Some(scalar),
        NodeKind::Scalar(_) | NodeKind::List(_) | NodeKind::Map(_) => {
            findings.note(wrong_type(node, expected));
            None
        }
    }
}

/// "expected …, found …".
pub(crate) fn wrong_type(node: &Node, expected: &str) -> Problem {
    let problem = Problem::new(Code::WrongType, node.at, format!("expected {expected}, found {}", node.found()));
    match &node.kind {
        NodeKind::Scalar(scalar) if scalar.is_null() => problem.fix("Give it a value, or remove the field"),
        NodeKind::Scalar(_) | NodeKind::List(_) | NodeKind::Map(_) => problem,
    }
}

/// Reads a text and parses it.
pub(crate) fn parsed<T>(
    node: &Node,
    expected: &str,
    findings: &mut Findings,
    parse: impl FnOnce(&str) -> Result<T, Flaw>,
) -> Option<T> {
    let scalar = scalar(node, expected, findings)?;
    match parse(&scalar.text) {
        Ok(value) => Some(value),
        Err(flaw) => {
            note_flaw(node.at, scalar, expected, flaw, findings);
            None
        }
    }
}

/// Notes that the text at `at` is not what its field holds. What a variable stands for is not shown, nor is what the
/// parser says about it: that may quote the text.
pub(crate) fn note_flaw(at: PlaceId, scalar: &Scalar, expected: &str, flaw: Flaw, findings: &mut Findings) {
    let Flaw { problem, fix, part } = flaw;
    if let Some(written) = &scalar.written {
        let message = format!("what {:?} stands for is not {expected}", super::node::shortened(written));
        findings.note(Problem::new(Code::BadValue, at, message).fix("Correct the variable or the file"));
        return;
    }
    let at = match part {
        Some(part) => super::substitute::within(at, &scalar.text, part.start, part.len(), findings),
        None => at,
    };
    let message = format!("{:?} {problem}", super::node::shortened(&scalar.text));
    let problem = Problem::new(Code::BadValue, at, message);
    findings.note(if fix.is_empty() { problem } else { problem.fix(fix) });
}

/// The entries of a map that a struct is read from, with fields nobody knows noted.
pub(crate) struct Fields<'n> {
    node: &'n Node,
    entries: Vec<(&'n super::node::Entry, bool)>,
}

impl<'n> Fields<'n> {
    /// Starts reading a map that knows these fields; `None` when it is none.
    pub(crate) fn begin(node: &'n Node, known: &[&str], findings: &mut Findings) -> Option<Self> {
        match &node.kind {
            NodeKind::Map(entries) => {
                Some(Self { node, entries: entries.iter().map(|entry| (entry, false)).collect() })
            }
            NodeKind::Scalar(_) | NodeKind::List(_) => {
                const SHOWN: usize = 5;
                let more = if known.len() > SHOWN { ", …" } else { "" };
                let fields = known[..known.len().min(SHOWN)].join(", ");
                let problem = wrong_type(node, &format!("a map with fields such as {fields}{more}"));
                findings.note(match &node.kind {
                    NodeKind::Scalar(scalar) if scalar.is_null() => problem.fix("Write `{}` to say nothing here"),
                    NodeKind::Scalar(_) | NodeKind::List(_) | NodeKind::Map(_) => {
                        let first = known.first().copied().unwrap_or_default();
                        problem.fix(format!("Write fields and values, such as `{{ {first}: … }}`"))
                    }
                });
                None
            }
        }
    }

    /// The field of this name. The outer `None`: there are errors, which are noted.
    pub(crate) fn take<T: Shape>(&mut self, name: &str, findings: &mut Findings) -> Option<T> {
        if let Some((entry, seen)) = self.entries.iter_mut().find(|(entry, _)| *entry.key == *name) {
            *seen = true;
            return T::decode(&entry.value, findings);
        }
        let absent = T::absent();
        // A misspelt name is one mistake, and is reported as an unknown field.
        let misspelt = || self.entries.iter().any(|(entry, seen)| !seen && did_you_mean(&entry.key, [name]).is_some());
        if absent.is_none() && !misspelt() {
            let problem = Problem::new(Code::MissingField, self.node.at, format!("`{name}` is missing"));
            findings.note(problem.fix(format!("Add `{name}: …`")));
        }
        absent
    }

    /// Notes the fields that nobody took; whether what was taken is worth looking at further.
    pub(crate) fn finish(self, known: &[&str], findings: &mut Findings) -> bool {
        let top = findings.sources.path(self.node.at).is_empty();
        for (entry, _) in self.entries.iter().filter(|(_, seen)| !seen) {
            findings.note(unknown_field(entry, known, top));
        }
        // An unknown section leaves the others as they are; an unknown field may be what the struct is about.
        top || self.entries.iter().all(|(_, seen)| *seen)
    }
}

fn unknown_field(entry: &super::node::Entry, known: &[&str], top: bool) -> Problem {
    let what = if top { "section" } else { "field" };
    let problem = Problem::new(Code::UnknownField, entry.key_at, format!("there is no {what} `{}`", entry.key));
    if &*entry.key == "<<" {
        return problem.fix("Merge keys are no part of YAML 1.2; write the fields out");
    }
    if entry.key.contains(' ') && matches!(&entry.value.kind, NodeKind::Scalar(scalar) if scalar.is_null()) {
        return problem.fix("Inside `{ … }` a comma ends a value: put text with commas in quotes");
    }
    match did_you_mean(&entry.key, known.iter().copied()) {
        Some(word) => problem.fix(format!("Did you mean `{word}`?")),
        None => problem.fix(format!("Known here: {}", known.join(", "))),
    }
}

/// A field as a schema tells it.
pub(crate) struct FieldSchema {
    pub(crate) name: &'static str,
    pub(crate) docs: &'static [&'static str],
    pub(crate) schema: Value,
    pub(crate) default: Option<Value>,
    pub(crate) is_required: bool,
}

/// The JSON Schema of a map with these fields.
pub(crate) fn object_schema(docs: &[&str], fields: Vec<FieldSchema>) -> Value {
    let mut properties = serde_json::Map::new();
    let mut required = Vec::new();
    for FieldSchema { name, docs, schema, default, is_required } in fields {
        let mut property = described(schema, docs);
        if let (Some(default), Some(object)) = (default, property.as_object_mut()) {
            object.insert("default".to_owned(), default);
        }
        properties.insert(name.to_owned(), property);
        if is_required {
            required.push(name);
        }
    }
    let mut schema = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if let (false, Some(object)) = (required.is_empty(), schema.as_object_mut()) {
        object.insert("required".to_owned(), json!(required));
    }
    described(schema, docs)
}

/// Adds the documentation to a schema. A reference may have neighbours since draft 2019-09.
fn described(mut schema: Value, docs: &[&str]) -> Value {
    let text = docs.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    if let (false, Some(object)) = (text.is_empty(), schema.as_object_mut()) {
        object.insert("description".to_owned(), Value::String(text));
    }
    schema
}

/// Declares a map with fixed fields: a struct, how it is read and its schema.
///
/// The documentation is the schema's; `= value` is the default that documentation and schema name. A struct with a
/// broken field is not made, but all its fields are looked at.
macro_rules! shape {
    (
        $(#[doc = $doc:literal])+
        $vis:vis struct $name:ident {
            $( $(#[doc = $field_doc:literal])+ $field:ident: $type:ty $(= $default:tt)?, )*
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug)]
        $vis struct $name {
            $( $(#[doc = $field_doc])+ pub(crate) $field: $type, )*
        }

        impl $crate::config::shape::Shape for $name {
            fn decode(
                node: &$crate::config::node::Node,
                findings: &mut $crate::config::diagnostic::Findings,
            ) -> Option<Self> {
                const KNOWN: &[&str] = &[$(stringify!($field)),*];
                let mut fields = $crate::config::shape::Fields::begin(node, KNOWN, findings)?;
                $( let $field: Option<$type> = fields.take(stringify!($field), findings); )*
                let clean = fields.finish(KNOWN, findings);
                let made = Self { $( $field: $field?, )* };
                clean.then_some(made)
            }

            fn schema(definitions: &mut $crate::config::shape::Definitions) -> serde_json::Value {
                let name = stringify!($name);
                if !definitions.contains_key(name) {
                    definitions.insert(name, serde_json::Value::Null);
                    let fields = vec![$( $crate::config::shape::FieldSchema {
                        name: stringify!($field),
                        docs: &[$($field_doc),+],
                        schema: <$type as $crate::config::shape::Shape>::schema(definitions),
                        default: None $(.or(Some(serde_json::json!($default))))?,
                        is_required: <$type as $crate::config::shape::Shape>::absent().is_none(),
                    }, )*];
                    definitions.insert(name, $crate::config::shape::object_schema(&[$($doc),+], fields));
                }
                serde_json::json!({ "$ref": format!("#/$defs/{name}") })
            }
        }
    };
}
pub(crate) use shape;

/// Declares how an enum that exists is written: one word a variant.
macro_rules! choice {
    ($type:ty, $what:literal, { $( $word:literal => $value:expr, )+ }) => {
        impl $crate::config::shape::Shape for $type {
            fn decode(
                node: &$crate::config::node::Node,
                findings: &mut $crate::config::diagnostic::Findings,
            ) -> Option<Self> {
                const WORDS: &[&str] = &[$($word),+];
                $crate::config::shape::parsed(node, $what, findings, |text| match text {
                    $( $word => Ok($value), )+
                    other => Err($crate::config::shape::unknown_word(other, WORDS)),
                })
            }

            fn schema(_: &mut $crate::config::shape::Definitions) -> serde_json::Value {
                serde_json::json!({ "type": "string", "enum": [$($word),+] })
            }
        }
    };
}
pub(crate) use choice;

/// A word that is none of those a field knows.
pub(crate) fn unknown_word(text: &str, words: &[&str]) -> Flaw {
    let list = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
    match did_you_mean(text, words.iter().copied()) {
        Some(word) => Flaw::new(format!("is none of {list}"), format!("Did you mean `{word}`?")),
        None => Flaw::new(format!("is none of {list}"), "Write one of them"),
    }
}
