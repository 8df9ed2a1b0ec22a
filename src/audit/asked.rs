//! What is asked for, in words.

use std::fmt;

use crate::domain::Timestamp;
use crate::domain::time::moment_of_text;
use crate::store::{AuditOrder, AuditQuery};

/// Which entries are asked for, as it was typed or sent.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// From this moment on: `2026-01-15T12:00:00Z`, `2026-01-15` (its beginning in UTC) or `24h` (as long ago).
    pub since: Option<String>,
    /// Before this moment, in the same words.
    pub until: Option<String>,
    /// By this actor.
    pub actor: Option<String>,
    /// This action, or `key.*` for all of a kind.
    pub action: Option<String>,
    /// Of this subject.
    pub subject: Option<String>,
}

/// What is asked for cannot be understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unclear {
    /// The field.
    pub field: &'static str,
    /// Why, and what would be.
    pub problem: String,
}

impl fmt::Display for Unclear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl std::error::Error for Unclear {}

impl Asked {
    /// The same as the store understands it, from the first page on.
    ///
    /// # Errors
    /// [`Unclear`] when a moment is none, or a star stands elsewhere than at the end.
    pub fn query(self, order: AuditOrder, now: Timestamp) -> Result<AuditQuery, Unclear> {
        let moment = |field, text: Option<String>| text.map(|text| moment(field, &text, now)).transpose();
        let starred = self.action.as_deref().map(|action| action.strip_suffix('*').unwrap_or(action));
        if starred.is_some_and(|action| action.contains('*')) {
            let problem = "a star stands for the end of an action, as in key.*".to_owned();
            return Err(Unclear { field: "action", problem });
        }
        Ok(AuditQuery {
            order,
            after: None,
            limit: 0,
            since: moment("since", self.since)?,
            until: moment("until", self.until)?,
            actor: self.actor,
            action: self.action,
            subject: self.subject,
        })
    }
}

fn moment(field: &'static str, text: &str, now: Timestamp) -> Result<Timestamp, Unclear> {
    moment_of_text(text, now).map_err(|error| Unclear { field, problem: format!("{text:?} {error}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_700_000_000_000);

    #[test]
    fn moments_are_told_in_three_ways() {
        for (text, unix_ms) in [
            ("2023-11-14T22:13:20Z", 1_700_000_000_000),
            ("2023-11-14T23:13:20+01:00", 1_700_000_000_000),
            ("2023-11-14", 1_699_920_000_000),
            ("24h", 1_699_913_600_000),
        ] {
            assert_eq!(moment("since", text, NOW), Ok(Timestamp::from_unix_ms(unix_ms)), "{text}");
        }
        for odd in ["", "yesterday", "2023-13-01", "24", "2023-11-14T22:13:20"] {
            let unclear = moment("until", odd, NOW).unwrap_err();
            assert_eq!(unclear.field, "until");
            assert!(unclear.problem.contains("24h"), "{unclear}");
        }
    }

    #[test]
    fn a_star_ends_an_action_or_is_refused() {
        let ask = |action: &str| {
            Asked { action: Some(action.to_owned()), ..Asked::default() }.query(AuditOrder::NewestFirst, NOW)
        };
        assert_eq!(ask("key.*").unwrap().action.as_deref(), Some("key.*"));
        assert_eq!(ask("*.create").unwrap_err().field, "action");
    }
}
