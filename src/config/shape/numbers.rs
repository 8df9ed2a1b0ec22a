//! Booleans, counts, spans of time and sizes.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Definitions, Flaw, Shape, note_flaw, parsed, scalar};
use crate::config::diagnostic::Findings;
use crate::config::node::Node;
use crate::domain::time::span_of_text;

impl Shape for bool {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        let scalar = scalar(node, "true or false", findings)?;
        match scalar.text.as_str() {
            "true" | "True" | "TRUE" if scalar.is_bare() => return Some(true),
            "false" | "False" | "FALSE" if scalar.is_bare() => return Some(false),
            _ => {}
        }
        let fix = match scalar.text.to_lowercase().as_str() {
            "yes" | "on" | "true" | "1" => "Write true",
            "no" | "off" | "false" | "0" => "Write false",
            _ => "",
        };
        note_flaw(node.at, scalar, "true or false", Flaw::new("is neither true nor false", fix), findings);
        None
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "boolean" })
    }
}

impl Shape for u64 {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        let scalar = scalar(node, "a whole number", findings)?;
        let digits = scalar.is_bare() && !scalar.text.is_empty() && scalar.text.bytes().all(|b| b.is_ascii_digit());
        let number = if digits { scalar.text.parse().ok() } else { None };
        if number.is_none() {
            let fix = "Write digits only, without quotes";
            note_flaw(node.at, scalar, "a whole number", Flaw::new("is not a whole number", fix), findings);
        }
        number
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "integer", "minimum": 0 })
    }
}

const DURATION_FIX: &str = "Write a number and a unit: 250ms, 5s, 10m, 24h or 90d";

/// Reads `250ms`, `5s`, `10m`, `24h` or `90d`; `0` needs no unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, Flaw> {
    span_of_text(text).map_err(|error| Flaw::new(error.to_string(), DURATION_FIX))
}

impl Shape for Duration {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        parsed(node, "a span of time such as 5s", findings, parse_duration)
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": ["string", "integer"], "pattern": "^(0|[0-9]+(ms|s|m|h|d))$", "maximum": 0 })
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ByteSize(pub(crate) u64);

const SIZE_UNITS: [(&str, u64); 5] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)];

impl ByteSize {
    /// Reads `64KiB`, `10MiB`, `1GiB`, `512B`.
    pub(crate) fn parse(text: &str) -> Result<Self, Flaw> {
        let not_one = || Flaw::new("is not a size", "Write a number and a unit: 512B, 64KiB, 10MiB or 1GiB");
        let split = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(split);
        let (_, factor) = SIZE_UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(|| {
            let binary = format!("{}iB", unit.trim_end_matches(['b', 'B', 'i']).to_uppercase());
            match SIZE_UNITS.into_iter().find(|(name, _)| *name == binary) {
                Some((name, _)) => Flaw::new("is not a size", format!("Sizes count in 1024: write {number}{name}")),
                None => not_one(),
            }
        })?;
        let number: u64 = number.parse().map_err(|_| not_one())?;
        number.checked_mul(factor).map(Self).ok_or_else(not_one)
    }

    /// Writes a size so that [`Self::parse`] reads the same one.
    pub(crate) fn show(bytes: u64) -> String {
        let fits = |(_, factor): &(&str, u64)| bytes > 0 && bytes.is_multiple_of(*factor);
        let (name, factor) = SIZE_UNITS.into_iter().rev().find(fits).unwrap_or(("B", 1));
        format!("{}{name}", bytes / factor)
    }
}

impl Shape for ByteSize {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        parsed(node, "a size such as 64KiB", findings, Self::parse)
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB)$" })
    }
}

/// A day, or a moment of one.
impl Shape for crate::domain::Timestamp {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        parsed(node, "a date such as 2026-12-31", findings, |text| {
            let whole = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
            whole.parse().map_err(|_| {
                Flaw::new("is not a date", "Write 2026-12-31 (its beginning in UTC) or 2026-12-31T18:00:00Z")
            })
        })
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt].*)?$" })
    }
}

/// `auto` or the number of data-plane threads.
impl Shape for crate::server::Workers {
    fn decode(node: &Node, findings: &mut Findings) -> Option<Self> {
        const MOST: usize = 1024;
        parsed(node, "auto or a number", findings, |text| match text {
            "auto" => Ok(Self::Auto),
            text => match text.parse::<usize>() {
                Ok(count @ 1..=MOST) => Ok(Self::Count(count)),
                Ok(_) | Err(_) => {
                    Err(Flaw::new(format!("is neither auto nor a number from 1 to {MOST}"), "Write auto"))
                }
            },
        })
    }

    fn schema(_: &mut Definitions) -> Value {
        json!({ "oneOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": 1024 }] })
    }
}
