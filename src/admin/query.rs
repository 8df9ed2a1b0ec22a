//! The query of a request, as named values. Strict: what nobody asked for is an error.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

use super::exchange::ApiError;
use crate::domain::did_you_mean;

/// Most parameters of a query; no endpoint has nearly as many.
const MAX_PARAMETERS: usize = 32;

/// Parameters by name, taken out one after another.
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads a query (`application/x-www-form-urlencoded`, WHATWG URL §5.1).
    pub(super) fn read(query: Option<&'a str>) -> Result<Self, ApiError> {
        let mut parameters: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        if query.is_some_and(|query| query.bytes().filter(|byte| *byte == b'&').count() >= MAX_PARAMETERS) {
            let detail = format!("the query has more than {MAX_PARAMETERS} parameters");
            return Err(ApiError::Unreadable { field: None, detail });
        }
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if parameters.iter().any(|(known, _)| *known == name) {
                return Err(ApiError::field(name, "stands more than once in the query"));
            }
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    /// The value of a parameter.
    pub(super) fn text(&mut self, name: &str) -> Option<Cow<'a, str>> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    /// The value of a parameter as something.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|error| ApiError::field(name, format!("{text:?}: {error}")))
    }

    /// How many entries a page has at most (`limit`): 1 to 1000, 100 when not asked for.
    pub(super) fn page_size(&mut self) -> Result<usize, ApiError> {
        let limit = self.parsed("limit")?.unwrap_or(100);
        if !(1..=1000).contains(&limit) {
            return Err(ApiError::field("limit", "is 1 to 1000"));
        }
        Ok(limit)
    }

    /// Refuses what is left.
    pub(super) fn finish(self, known: &[&str]) -> Result<(), ApiError> {
        let Some((stranger, _)) = self.0.first() else { return Ok(()) };
        let meant = did_you_mean(stranger, known.iter().copied()).map(|meant| format!("; did you mean `{meant}`?"));
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let detail = format!("is no parameter here{} There are: {known}.", meant.unwrap_or_else(|| ".".to_owned()));
        Err(ApiError::field(stranger.clone(), detail))
    }
}
