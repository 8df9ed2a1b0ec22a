//! Wall-clock time as one small number, and the only place that reads a clock.
//!
//! Decisions take `now` as an argument; [`now`] and [`monotonic_now`] are called at the edges.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment `milliseconds` after the epoch; negative values lie before it.
    pub const fn from_unix_ms(milliseconds: i64) -> Self {
        Self(milliseconds)
    }

    /// The moment `seconds` after the epoch.
    pub const fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    pub const fn unix_ms(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn unix_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This moment moved later by `span`; saturates at the end of time.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// The first whole second that lies `span` or more after this moment: keys end at whole seconds, so this is never
    /// less than what was asked for.
    #[must_use]
    pub fn whole_second_after(self, span: Duration) -> Self {
        let later = self.plus(span);
        Self::from_unix_seconds(later.unix_seconds().saturating_add(i64::from(later.0.rem_euclid(1000) != 0)))
    }

    /// This moment moved earlier by `span`; saturates at the beginning of time.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX)))
    }

    /// How long after `earlier` this moment lies; zero when it does not.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds, `2026-01-15T12:00:00.000Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(moment) => write!(f, "{moment:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

/// Why a text is not a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotATimestamp;

impl fmt::Display for NotATimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an RFC 3339 time such as 2026-01-15T12:00:00Z")
    }
}

impl std::error::Error for NotATimestamp {}

impl FromStr for Timestamp {
    type Err = NotATimestamp;

    /// Reads RFC 3339 with an offset or `Z` (RFC 3339 §5.6).
    fn from_str(text: &str) -> Result<Self, NotATimestamp> {
        text.parse::<jiff::Timestamp>().map(|moment| Self(moment.as_millisecond())).map_err(|_| NotATimestamp)
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A text is none of the ways in which people tell a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAMoment;

impl fmt::Display for NotAMoment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("is no moment; write 2026-01-15T12:00:00Z, 2026-01-15, or 24h for as long ago")
    }
}

impl std::error::Error for NotAMoment {}

/// Reads a moment: `2026-01-15T12:00:00Z`, `2026-01-15` (its beginning in UTC) or `24h` (as long before `now`).
///
/// # Errors
/// [`NotAMoment`] for any other text.
pub fn moment_of_text(text: &str, now: Timestamp) -> Result<Timestamp, NotAMoment> {
    let day = || format!("{text}T00:00:00Z").parse().ok();
    let ago = || span_of_text(text).ok().map(|span| now.minus(span));
    text.parse().ok().or_else(day).or_else(ago).ok_or(NotAMoment)
}

/// Units of spans of time, with their milliseconds.
const SPAN_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Longest span of time that has a text: one hundred years.
const LONGEST_SPAN_MS: u64 = 100 * 366 * 86_400_000;

/// Why a text is not a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotASpan {
    /// It is not a number and a unit.
    Form,
    /// It is longer than a hundred years.
    TooLong,
}

impl fmt::Display for NotASpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "is not a span of time",
            Self::TooLong => "is longer than a hundred years",
        })
    }
}

impl std::error::Error for NotASpan {}

/// Reads `250ms`, `5s`, `10m`, `24h` or `90d`; `0` needs no unit.
///
/// # Errors
/// What is wrong with the text.
pub fn span_of_text(text: &str) -> Result<Duration, NotASpan> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let split = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(split);
    let (_, ms) = SPAN_UNITS.into_iter().find(|(name, _)| *name == unit).ok_or(NotASpan::Form)?;
    let number: u64 = number.parse().map_err(|_| NotASpan::Form)?;
    match number.checked_mul(ms) {
        Some(total) if total <= LONGEST_SPAN_MS => Ok(Duration::from_millis(total)),
        Some(_) | None => Err(NotASpan::TooLong),
    }
}

/// Writes a span of time so that [`span_of_text`] reads the same one; sub-milliseconds are lost.
pub fn show_duration(span: Duration) -> String {
    let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let (name, unit) =
        SPAN_UNITS.into_iter().rev().find(|(_, unit)| ms > 0 && ms.is_multiple_of(*unit)).unwrap_or(("s", 1_000));
    // A day of hours is clearer where nobody counts in days.
    if name == "d" && ms / unit < 2 { format!("{}h", ms / 3_600_000) } else { format!("{}{name}", ms / unit) }
}

/// The wall clock now. For `exp`-like comparisons and records, never for measuring.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn now() -> Timestamp {
    #[cfg(test)]
    if let Some((_, wall)) = super::simulated::now() {
        return wall;
    }
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// The monotonic clock now. For deadlines and durations, never for records.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
pub fn monotonic_now() -> Instant {
    #[cfg(test)]
    if let Some((monotonic, _)) = super::simulated::now() {
        return monotonic;
    }
    Instant::now()
}
