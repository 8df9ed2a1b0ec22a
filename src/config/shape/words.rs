//! Scopes, methods, patterns of hosts and paths, words in key texts.

use http::Method;
use serde_json::{Value, json};

use super::{Definitions, Flaw, Shape, parsed};
use crate::config::diagnostic::Findings;
use crate::config::node::{Node, NodeKind};
use crate::domain::key_text::{Brand, check_key_word};
use crate::domain::scope::NotAScope;
use crate::domain::{GrantedScope, Scope};
use crate::route::{HostPattern, MethodSelector, PathPattern, PatternError};

/// What is wrong with a text that was meant to be a scope.
pub(crate) fn scope_flaw(text: &str, error: NotAScope) -> Flaw {
    let fix = match error {
        NotAScope::Empty => "Write its name, such as read:orders".to_owned(),
        NotAScope::TooLong => "Shorten it".to_owned(),
        NotAScope::Character(' ') => {
            let entries = text.split_whitespace().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
            format!("Write one entry each: [{entries}]")
        }
        NotAScope::Character(',') => "Write a list: [a, b]".to_owned(),
        NotAScope::Character(_) => "Use other characters".to_owned(),
        NotAScope::Wildcard => "Name each scope that is needed; keys may be granted orders:*".to_owned(),
        NotAScope::WildcardPlace => "Write it as in orders:*".to_owned(),
    };
    Flaw::new(format!("is not a scope: {error}"), fix)
}

impl Shape for Scope {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        parsed(node, "a scope", findings, |text| text.parse().map_err(|error| scope_flaw(text, error)))
    }

    fn schema(_: &mut Definitions) -> Value {
        // RFC 6749 §3.3, without the star.
        json!({ "type": "string", "pattern": "^[!#-)+-\\[\\]-~]+$" })
    }
}

impl Shape for GrantedScope {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        parsed(node, "a scope", findings, |text| text.parse().map_err(|error| scope_flaw(text, error)))
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "pattern": "^[!#-\\[\\]-~]+$" })
    }
}

/// What a rule says about scopes: `a`, `[a, b]` or `{ any: […], all: […] }`.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScopeRule {
    pub(crate) all: Vec<super::At<Scope>>,
    pub(crate) any: Vec<super::At<Scope>>,
}

super::shape! {
    /// Scopes of a rule.
    struct AnyAll {
        /// At least one of these.
        any: Option<super::At<super::Listed<Scope>>>,
        /// Every one of these.
        all: Option<super::At<super::Listed<Scope>>>,
    }
}

impl Shape for ScopeRule {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        match &node.kind {
            NodeKind::Scalar(_) => {
                super::At::<Scope>::decode(node, findings).map(|scope| Self { all: vec![scope], any: Vec::new() })
            }
            NodeKind::List(items) => {
                let all = items.iter().map(|item| super::At::<Scope>::decode(item, findings)).collect::<Vec<_>>();
                all.into_iter().collect::<Option<_>>().map(|all| Self { all, any: Vec::new() })
            }
            NodeKind::Map(_) => {
                let AnyAll { any, all } = AnyAll::decode(node, findings)?;
                let mut named = |list: Option<super::At<super::Listed<Scope>>>| {
                    let Some(super::At { value: super::Listed(scopes), at }) = list else { return Some(Vec::new()) };
                    if scopes.is_empty() {
                        let problem = super::Problem::new(super::Code::NoDemand, at, "this list names no scope");
                        findings.note(problem.fix("Name one, or remove the list"));
                        return None;
                    }
                    Some(scopes)
                };
                let (any, all) = (named(any), named(all));
                Some(Self { all: all?, any: any? })
            }
        }
    }

    fn schema(definitions: &mut Definitions) -> Value {
        let scope = Scope::schema(definitions);
        json!({ "oneOf": [
            scope,
            { "type": "array", "items": scope, "minItems": 1 },
            AnyAll::schema(definitions),
        ] })
    }
}

/// Reads a key of `methods`. What is wrong is a whole sentence, not a predicate.
pub(crate) fn parse_selector(text: &str) -> Result<MethodSelector, Flaw> {
    MethodSelector::parse(text).map_err(|error| Flaw::new(error.problem, capitalised(&error.fix)))
}

impl Shape for Method {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        parsed(node, "a method", findings, |text| match parse_selector(text) {
            Ok(MethodSelector::Named(method)) => Ok(method),
            Ok(MethodSelector::All) => Err(Flaw::new("is no single method", "Name each")),
            Err(flaw) => Err(Flaw { problem: format!("cannot stand here: {}", flaw.problem), ..flaw }),
        })
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$" })
    }
}

/// The fix of another room as a sentence.
fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn pattern_flaw(error: PatternError) -> Flaw {
    Flaw { problem: format!("is not a pattern: {}", error.problem), fix: capitalised(&error.fix), part: Some(error.at) }
}

impl Shape for PathPattern {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        if matches!(node.kind, NodeKind::Map(_)) {
            let problem = super::wrong_type(node, "a path pattern");
            findings.note(problem.fix("Put a pattern with braces in quotes: \"/v1/{id}\""));
            return None;
        }
        parsed(node, "a path pattern", findings, |text| Self::parse(text).map_err(pattern_flaw))
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "pattern": "^/" })
    }
}

impl Shape for HostPattern {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        parsed(node, "a host", findings, |text| Self::parse(text).map_err(pattern_flaw))
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

const KEY_WORD_PATTERN: &str = "^[a-z][a-z0-9]{0,19}$";

impl Shape for Brand {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        parsed(node, "a word", findings, |text| {
            Self::new(text)
                .map_err(|error| Flaw::new(format!("cannot begin a key ({error})"), "Write one such as `pc`"))
        })
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "pattern": KEY_WORD_PATTERN })
    }
}

/// A word that stands between the underscores of a key text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyWord(pub(crate) String);

impl KeyWord {
    pub(crate) fn parse(text: &str) -> Result<Self, Flaw> {
        check_key_word(text)
            .map(|()| Self(text.to_owned()))
            .map_err(|error| Flaw::new(format!("cannot stand in a key ({error})"), "Write one such as `live`"))
    }
}

impl Shape for KeyWord {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        parsed(node, "a word", findings, Self::parse)
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "pattern": KEY_WORD_PATTERN })
    }
}
