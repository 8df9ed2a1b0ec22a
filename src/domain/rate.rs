//! How much a key, an owner or an address may ask for: rates and quotas, as values.
//!
//! Must not know who counts, nor where.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use super::id::{KeyId, OwnerId};
use super::time::{Timestamp, show_duration, span_of_text};

/// So many requests in so long a time, with a burst on top of an even flow.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RateLimit {
    /// How many requests in `per`.
    requests: NonZeroU32,
    /// A whole number of milliseconds, [`RateLimit::SHORTEST`] to [`RateLimit::LONGEST`].
    per: Duration,
    /// How many requests may come at once.
    burst: NonZeroU32,
}

/// Why numbers are no rate limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotARateLimit {
    /// No requests, or a burst of none: nothing would ever pass.
    Nothing,
    /// The span of time is too short or too long.
    Span,
    /// More requests in a time than there are microseconds in it, or more than a gateway counts.
    TooMany,
}

impl fmt::Display for NotARateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str(
                "`requests` and `burst` are at least 1; to let nothing pass, disable the key or remove the rule",
            ),
            Self::Span => f.write_str("`per` is 1s to 1d; for longer spans of time there are quotas"),
            Self::TooMany => f.write_str("a rate limit allows at most one request in a microsecond"),
        }
    }
}

impl std::error::Error for NotARateLimit {}

impl RateLimit {
    /// Shortest `per`.
    pub const SHORTEST: Duration = Duration::from_secs(1);
    /// Longest `per`.
    pub const LONGEST: Duration = Duration::from_secs(86_400);

    /// A limit; without `burst` as many at once as in a whole `per`.
    ///
    /// # Errors
    /// What is wrong with the numbers.
    pub fn new(requests: u32, per: Duration, burst: Option<u32>) -> Result<Self, NotARateLimit> {
        let at_least_one = |number| NonZeroU32::new(number).ok_or(NotARateLimit::Nothing);
        let (requests, burst) = (at_least_one(requests)?, at_least_one(burst.unwrap_or(requests))?);
        if !(Self::SHORTEST..=Self::LONGEST).contains(&per) || !per.subsec_nanos().is_multiple_of(1_000_000) {
            return Err(NotARateLimit::Span);
        }
        if u128::from(requests.get()) > per.as_micros() {
            return Err(NotARateLimit::TooMany);
        }
        Ok(Self { requests, per, burst })
    }

    /// How many requests in [`Self::per`].
    pub const fn requests(self) -> NonZeroU32 {
        self.requests
    }

    /// The time that [`Self::requests`] refers to.
    pub const fn per(self) -> Duration {
        self.per
    }

    /// How many requests may come at once.
    pub const fn burst(self) -> NonZeroU32 {
        self.burst
    }
}

/// As it stands in records and requests: `{"requests": 10, "per": "1s", "burst": 20}`.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    requests: u32,
    per: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    burst: Option<u32>,
}

impl serde::Serialize for RateLimit {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let burst = Some(self.burst.get());
        Written { requests: self.requests.get(), per: show_duration(self.per), burst }.serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for RateLimit {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let Written { requests, per, burst } = Written::deserialize(deserializer)?;
        let per = span_of_text(&per).map_err(|error| D::Error::custom(format_args!("`per` {error}")))?;
        Self::new(requests, per, burst).map_err(D::Error::custom)
    }
}

/// So many requests in a day, in a month, or both, by the calendar of UTC.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "WrittenQuota")]
pub struct Quota {
    /// From midnight to midnight, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_day: Option<NonZeroU64>,
    /// From the first of a month to the first of the next, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_month: Option<NonZeroU64>,
}

/// As it stands in records and requests: `{"per_day": 1000, "per_month": 20000}`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenQuota {
    per_day: Option<u64>,
    per_month: Option<u64>,
}

impl TryFrom<WrittenQuota> for Quota {
    type Error = NotAQuota;

    fn try_from(written: WrittenQuota) -> Result<Self, NotAQuota> {
        Self::new(written.per_day, written.per_month)
    }
}

/// Why numbers are no quota: none is given, or one is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAQuota;

impl fmt::Display for NotAQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a quota has `per_day`, `per_month` or both, each at least 1; to let nothing pass, disable the key")
    }
}

impl std::error::Error for NotAQuota {}

impl Quota {
    /// A quota.
    ///
    /// # Errors
    /// When it would bound nothing, or let nothing pass.
    pub fn new(per_day: Option<u64>, per_month: Option<u64>) -> Result<Self, NotAQuota> {
        let at_least_one = |number: Option<u64>| match number.map(NonZeroU64::new) {
            Some(None) => Err(NotAQuota),
            Some(Some(number)) => Ok(Some(number)),
            None => Ok(None),
        };
        match (at_least_one(per_day)?, at_least_one(per_month)?) {
            (None, None) => Err(NotAQuota),
            (per_day, per_month) => Ok(Self { per_day, per_month }),
        }
    }

    /// From midnight to midnight, UTC.
    pub const fn per_day(self) -> Option<NonZeroU64> {
        self.per_day
    }

    /// From the first of a month to the first of the next, UTC.
    pub const fn per_month(self) -> Option<NonZeroU64> {
        self.per_month
    }
}

/// Whose requests a quota counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum QuotaHolder {
    /// A key and its successors by rotation, under the id of the first of them.
    Key(KeyId),
    /// All keys of an owner together.
    Owner(OwnerId),
}

/// How long a quota lasts before it begins anew.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum QuotaPeriod {
    /// From midnight to midnight, UTC.
    Day,
    /// From the first of a month to the first of the next, UTC.
    Month,
}

impl QuotaPeriod {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Day, Self::Month];

    /// The longest that one lasts; days of UTC have no other length, months do.
    pub const fn longest(self) -> Duration {
        match self {
            Self::Day => Duration::from_secs(86_400),
            Self::Month => Duration::from_secs(31 * 86_400),
        }
    }
}

/// What a quota counts: the requests of one holder in one day or month.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QuotaTerm {
    /// Whose requests.
    pub holder: QuotaHolder,
    /// A day or a month.
    pub period: QuotaPeriod,
    /// Its first moment.
    pub begins: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_they_are_written_and_nonsense_is_refused() {
        let read = |text: &str| serde_json::from_str::<RateLimit>(text);
        let limit = read(r#"{"requests": 10, "per": "1s", "burst": 20}"#).unwrap();
        assert_eq!(limit, RateLimit::new(10, Duration::from_secs(1), Some(20)).unwrap());
        assert_eq!(read(&serde_json::to_string(&limit).unwrap()).unwrap(), limit);
        assert_eq!(read(r#"{"requests": 10, "per": "1m"}"#).unwrap().burst().get(), 10);
        for (text, says) in [
            (r#"{"requests": 0, "per": "1s"}"#, "at least 1"),
            (r#"{"requests": 1, "per": "1s", "burst": 0}"#, "at least 1"),
            (r#"{"requests": 1, "per": "10ms"}"#, "1s to 1d"),
            (r#"{"requests": 1, "per": "2d"}"#, "1s to 1d"),
            (r#"{"requests": 1, "per": "soon"}"#, "`per` is not a span of time"),
            (r#"{"requests": 2000000, "per": "1s"}"#, "microsecond"),
            (r#"{"requests": 1, "per": "1s", "by": "key"}"#, "by"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_quota_bounds_something_and_lets_something_pass() {
        let read = |text: &str| serde_json::from_str::<Quota>(text);
        let quota = read(r#"{"per_day": 1000}"#).unwrap();
        assert_eq!(serde_json::to_string(&quota).unwrap(), r#"{"per_day":1000}"#);
        for text in ["{}", r#"{"per_day": 0}"#, r#"{"per_month": 5, "per_day": 0}"#, r#"{"per_year": 5}"#] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
