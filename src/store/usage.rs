//! What requests leave behind: how often each key asked for what, from where, and what was unusual about it.
//!
//! Owns the trait of the book and the types that cross it. It is welcome, not needed: nothing decides by it.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use uuid::Uuid;

use super::api::Answer;
use crate::domain::{KeyId, Timestamp};

/// Keeps what requests leave behind.
///
/// Like last use it touches no revision and never delays a revocation. What it holds may lose the last moments before a
/// power cut, but nothing to a process that ends.
pub trait UsageBook: Send + Sync {
    /// Adds what was noted, all of it or nothing, and once ([`AdditionId`]). Findings of more than [`MAX_FOUND_NETWORKS`]
    /// networks are added to [`FoundCaller::Other`]. Answers the networks in which a key was seen for the first time while
    /// it was known from another.
    fn note_usage(&self, notes: UsageNotes) -> Answer<'_, Vec<NewNetwork>>;
    /// Writes events, each unless one of the same kind and key is nearer than its [`NewEvent::apart`]. Answers for each,
    /// in the same order, whether it was written; those that were brought before ([`AdditionId`]) were. At most
    /// [`MAX_EVENTS`] are kept; the oldest go first, of the kinds that have most.
    fn note_events(&self, id: AdditionId, events: Vec<NewEvent>) -> Answer<'_, Vec<bool>>;
    /// Merges hours that are older than [`HOURS_KEPT`] into days, and drops what is older than `retention`, and the oldest
    /// counts beyond [`MAX_COUNTS`]. Handles at most [`MAX_TIDIED_AT_ONCE`] counts in one call: call again until it answers
    /// that nothing was done.
    fn tidy_usage(&self, retention: Duration, now: Timestamp) -> Answer<'_, Tidied>;
    /// What is known of one key.
    fn key_usage(&self, query: UsageQuery) -> Answer<'_, KeyUsage>;
    /// The rules that let these keys in, with the key, as far back as counts are kept.
    fn rules_passed(&self, keys: Vec<KeyId>) -> Answer<'_, Vec<(KeyId, Arc<str>)>>;
    /// All findings of report mode, by rule, the latest first.
    fn findings(&self) -> Answer<'_, Vec<Finding>>;
    /// Events, the newest first.
    fn list_events(&self, query: EventQuery) -> Answer<'_, Vec<UsageEvent>>;
    /// Where the oldest count begins; `None` when nothing was counted yet.
    fn counted_since(&self) -> Answer<'_, Option<Timestamp>>;
}

/// How long counts are kept by the hour; after that by the day.
pub const HOURS_KEPT: Duration = Duration::from_secs(7 * 86_400);

/// Most counts, each of one key, rule, status and hour or day: some hundred MiB on disk.
// Fewer in tests, which would otherwise spend their time filling a store.
pub const MAX_COUNTS: usize = if cfg!(test) { 100 } else { 2_000_000 };

/// Most counts that one [`UsageBook::tidy_usage`] merges or drops, so that nothing waits for it for long.
pub const MAX_TIDIED_AT_ONCE: usize = if cfg!(test) { 20 } else { 10_000 };

/// Most networks that are remembered of one key.
pub const MAX_NETWORKS: usize = 16;

/// Most events.
pub const MAX_EVENTS: usize = if cfg!(test) { 10 } else { 10_000 };

/// Most findings of report mode about keys.
pub const MAX_FINDINGS: usize = if cfg!(test) { 10 } else { 20_000 };

/// Most findings of report mode about clients without a known key.
pub const MAX_KEYLESS_FINDINGS: usize = if cfg!(test) { 8 } else { 5_000 };

/// Most networks whose clients are told apart in the findings of one rule and reason.
pub const MAX_FOUND_NETWORKS: usize = if cfg!(test) { 4 } else { 64 };

/// `usage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageSettings {
    /// How long counts, networks, events and findings are kept. Default 90 days, one day to ten years.
    pub retention: Duration,
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Passage {
    /// The rule let it in; the status is the upstream's.
    Allowed,
    /// It was refused.
    Refused,
    /// It would have been refused, and went on because its route is in report mode.
    Reported,
}

impl Passage {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Allowed, Self::Refused, Self::Reported];

    /// Its name, as metrics have it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Reported => "reported",
        }
    }
}

/// Which addition of whom. Whoever does not hear what came of one brings the same once more under the same id, and goes on
/// to the next only then. A store at the other end of a wire, which can break between a commit and the answer to it, adds it
/// once; one within this process says what came of it, and has no use for the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdditionId {
    pub(super) writer: Uuid,
    pub(super) number: i64,
}

impl AdditionId {
    /// The first of a new writer.
    pub fn first() -> Self {
        Self { writer: Uuid::now_v7(), number: 1 }
    }

    /// The one behind this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self { number: self.number.saturating_add(1), ..self }
    }
}

impl Default for AdditionId {
    fn default() -> Self {
        Self::first()
    }
}

/// What is added to the book at once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UsageNotes {
    /// Which addition this is.
    pub id: AdditionId,
    /// Requests.
    pub counts: Vec<UsageCount>,
    /// Where keys were seen.
    pub sightings: Vec<Sighting>,
    /// What report mode found.
    pub findings: Vec<Finding>,
}

impl UsageNotes {
    /// Whether there is nothing to add.
    pub const fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.sightings.is_empty() && self.findings.is_empty()
    }
}

/// Requests of one key that met one rule and were answered with one status in one hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageCount {
    /// The key.
    pub key: KeyId,
    /// The rule: a method selector and a pattern, `GET /v1/orders/**`.
    pub rule: Arc<str>,
    /// The HTTP status.
    pub status: u16,
    /// What became of them.
    pub passage: Passage,
    /// Any moment of the hour.
    pub at: Timestamp,
    /// How many; 0 notes that the rule let the key in without being the one that is counted.
    pub requests: u64,
}

/// Where a key was seen since the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The key.
    pub key: KeyId,
    /// When last.
    pub at: Timestamp,
    /// The client's address then; none over a Unix socket.
    pub address: Option<IpAddr>,
    /// The `User-Agent` then, made harmless and cut.
    pub agent: Option<String>,
    /// The networks, with the first and the last moment in each.
    pub networks: Vec<NetworkSeen>,
}

/// When a key was seen in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkSeen {
    /// See [`crate::domain::network_of`].
    pub network: IpNet,
    /// When first.
    pub first: Timestamp,
    /// When last.
    pub last: Timestamp,
}

/// A key was seen in a network for the first time, and was known from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewNetwork {
    /// The key.
    pub key: KeyId,
    /// The network.
    pub network: IpNet,
    /// From how many others it was known. When they are [`MAX_NETWORKS`], one was forgotten for it: the key roams, and the
    /// network may have been seen before.
    pub others: usize,
}

/// Whose request report mode let pass.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FoundCaller {
    /// A known key.
    Key(KeyId),
    /// Clients of a network, without a known key.
    Network(IpNet),
    /// Clients of a Unix socket, without a known key.
    Local,
    /// Clients without a known key, of networks that there was no room to tell apart.
    Other,
}

/// Requests that report mode let pass, and enforcing would refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Arc<str>,
    /// The reason, as logs have it.
    pub reason: Cow<'static, str>,
    /// Who asked.
    pub caller: FoundCaller,
    /// The scopes that a key lacks.
    pub missing: Vec<String>,
    /// How many requests.
    pub requests: u64,
    /// When first.
    pub first: Timestamp,
    /// When last.
    pub last: Timestamp,
}

/// Something unusual.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum EventKind {
    /// A key was used from a network that it was not known from.
    NewNetwork,
    /// Most of a key's requests were refused, and they were many.
    ManyRefusals,
    /// A browser sent a secret key.
    SecretKeyInBrowser,
}

impl EventKind {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::NewNetwork, Self::ManyRefusals, Self::SecretKeyInBrowser];

    /// Its name in logs, metrics and answers.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NewNetwork => "new_network",
            Self::ManyRefusals => "many_refusals",
            Self::SecretKeyInBrowser => "secret_key_in_browser",
        }
    }
}

/// An event, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageEvent {
    /// Of which kind.
    pub kind: EventKind,
    /// The key.
    pub key: Option<KeyId>,
    /// The client's address.
    pub address: Option<IpAddr>,
    /// When.
    pub at: Timestamp,
    /// More about it, in a line; never anything of a credential.
    pub detail: String,
}

/// An event that may be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// The event.
    pub event: UsageEvent,
    /// It is told only if the last one of its kind and key is at least so long ago.
    pub apart: Duration,
}

/// What [`UsageBook::tidy_usage`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    /// Hours that went into days.
    pub merged: usize,
    /// Rows older than the retention.
    pub dropped: usize,
    /// Counts younger than that, dropped because there were too many.
    pub evicted: usize,
}

/// Which counts of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageQuery {
    /// The key.
    pub key: KeyId,
    /// Hours and days that reach beyond this moment.
    pub since: Timestamp,
    /// Hours and days that begin before it.
    pub until: Timestamp,
    /// At most so many buckets.
    pub limit: usize,
}

/// What is known of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyUsage {
    /// Requests by what became of them and status, of the whole time asked for.
    pub totals: Vec<(Passage, u16, u64)>,
    /// Requests by hour or day, the newest first.
    pub buckets: Vec<UsageBucket>,
    /// Whether there are more buckets.
    pub more: bool,
    /// The last client that was seen with it.
    pub seen: Option<LastSeen>,
    /// Where it was seen, the latest first.
    pub networks: Vec<NetworkSeen>,
}

/// Requests of an hour or a day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageBucket {
    /// Where it begins.
    pub begins: Timestamp,
    /// How long it is.
    pub span: Span,
    /// The rule.
    pub rule: Arc<str>,
    /// The HTTP status.
    pub status: u16,
    /// What became of them.
    pub passage: Passage,
    /// How many.
    pub requests: u64,
}

/// How long a bucket is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Span {
    /// An hour.
    Hour,
    /// A day, in UTC.
    Day,
}

impl Span {
    /// Its name.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// Its length in hours.
    pub(super) const fn hours(self) -> i64 {
        match self {
            Self::Hour => 1,
            Self::Day => 24,
        }
    }

    /// The bucket of this length that a moment is in, in hours since 1970.
    pub(super) const fn holding(self, at: Timestamp) -> i64 {
        let hours = at.unix_seconds().div_euclid(3600);
        hours - hours.rem_euclid(self.hours())
    }
}

/// The moment that many hours after the beginning of 1970.
pub(super) const fn at_hour(hours: i64) -> Timestamp {
    Timestamp::from_unix_seconds(hours.saturating_mul(3600))
}

/// The last client that was seen with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastSeen {
    /// When.
    pub at: Timestamp,
    /// Its address; none over a Unix socket.
    pub address: Option<IpAddr>,
    /// Its `User-Agent`.
    pub agent: Option<String>,
}

/// Which events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventQuery {
    /// Only of this key.
    pub key: Option<KeyId>,
    /// At most so many.
    pub limit: usize,
}
