//! Free texts, and names of files.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Definitions, Flaw, Shape, parsed};
use crate::config::diagnostic::Findings;
use crate::config::node::Node;

impl Shape for String {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        parsed(node, "a text", findings, |text| Ok(text.to_owned()))
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "string" })
    }
}

/// The path of a file; a relative one is relative to the directory of the file it is written in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePath(pub(crate) PathBuf);

impl Shape for FilePath {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        let base = findings.sources.base_of(node.at);
        parsed(node, "the path of a file", findings, |text| match text {
            "" => Err(Flaw::new("names no file", "Write its path, relative to this file")),
            text if text.contains('\0') => Err(Flaw::new("cannot be a path", "")),
            text => Ok(Self(base.join(text))),
        })
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
}

/// One line for people.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Line(pub(crate) String);

impl Shape for Line {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        const MOST: usize = crate::domain::limits::MAX_NAME_CHARS;
        parsed(node, "a line of text", findings, |text| {
            if text.chars().any(char::is_control) {
                Err(Flaw::new("is more than one line, or holds control characters", "Write one line"))
            } else if text.chars().count() > MOST {
                Err(Flaw::new(format!("is longer than {MOST} characters"), "Shorten it"))
            } else {
                Ok(Self(text.to_owned()))
            }
        })
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "maxLength": crate::domain::limits::MAX_NAME_CHARS })
    }
}

/// A name that other parts of the file, metrics and logs refer to.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Label(pub(crate) String);

impl Label {
    /// Checks a name: 1 to 200 visible characters.
    pub(crate) fn parse(text: &str) -> Result<Self, Flaw> {
        const MOST: usize = crate::domain::limits::MAX_NAME_CHARS;
        if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(Flaw::new("is no name", "Write a name without spaces, such as `orders`"));
        }
        if text.chars().count() > MOST {
            return Err(Flaw::new(format!("is longer than {MOST} characters"), "Shorten it"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Shape for Label {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        parsed(node, "a name", findings, Self::parse)
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "pattern": "^\\S+$", "maxLength": crate::domain::limits::MAX_NAME_CHARS })
    }
}
