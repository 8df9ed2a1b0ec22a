//! The audit trail as it is read: entries, pages of them, and how far it reaches.

use super::api::{Answer, Page};
use super::seal::{AuditHead, Sealed};
use super::verify::Verification;
use crate::domain::{Revision, Timestamp};

/// One thing that was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditEntry {
    /// Its number, from 1, without gaps.
    pub entry: u64,
    /// The revision that it made.
    pub revision: Revision,
    /// When.
    pub at: Timestamp,
    /// Who did it: `local:<user>`, `gateway:<task>` or a key id.
    pub actor: String,
    /// From where, when it came over the network.
    pub address: Option<String>,
    /// What was done: `key.create`, `owner.suspend`, ….
    pub action: String,
    /// What it was done to: a key id, an owner id, `config`, `audit` or `store`.
    pub subject: String,
    /// The fields that changed as they were, a JSON object; none where there was nothing.
    pub before: Option<String>,
    /// The same as they are since; none where nothing is left.
    pub after: Option<String>,
    /// Its place in the chain; none for entries from before there was one.
    pub sealed: Option<Sealed>,
}

impl AuditEntry {
    /// Where a trail ends with this entry.
    pub(super) fn head(&self) -> AuditHead {
        AuditHead { entry: self.entry, mac: self.sealed.as_ref().map(|sealed| sealed.mac).unwrap_or_default() }
    }
}

/// Reads the audit trail. Never on the request path.
pub trait AuditReader: Send + Sync {
    /// A page of the trail. Filters cost a look at each entry.
    fn list_audit(&self, query: AuditQuery) -> Answer<'_, Page<AuditEntry>>;
    /// How far it reaches. Looks at its first and last entry only.
    fn audit_extent(&self) -> Answer<'_, AuditExtent>;
    /// Walks the whole trail, as it is at one moment, up to the first entry that is not as it was written. `head` is one
    /// that was noted earlier. Cost: a look at every entry; nothing is held in memory.
    fn verify_audit(&self, head: Option<AuditHead>) -> Answer<'_, Verification>;
}

/// Which entries are wanted, in which order.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// The order, which is that of pages too.
    pub order: AuditOrder,
    /// Only behind this entry, in the order asked for.
    pub after: Option<u64>,
    /// At most this many; 0 means 100, at most 1000.
    pub limit: usize,
    /// Only from this moment on.
    pub since: Option<Timestamp>,
    /// Only before this moment.
    pub until: Option<Timestamp>,
    /// Only by this actor.
    pub actor: Option<String>,
    /// Only this action; `key.*` means all that begin with `key.`.
    pub action: Option<String>,
    /// Only of this subject.
    pub subject: Option<String>,
}

/// The order of entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AuditOrder {
    /// What happened last comes first.
    #[default]
    NewestFirst,
    /// As it happened.
    OldestFirst,
}

impl AuditQuery {
    /// How many entries a page holds: `limit` with its default and bound applied.
    pub fn page_size(&self) -> usize {
        match self.limit {
            0 => 100,
            limit => limit.min(1_000),
        }
    }

    /// Whether an entry passes the filters.
    pub(super) fn wants(&self, entry: &AuditEntry) -> bool {
        self.since.is_none_or(|since| entry.at >= since)
            && self.until.is_none_or(|until| entry.at < until)
            && self.actor.as_ref().is_none_or(|actor| entry.actor == *actor)
            && self.subject.as_ref().is_none_or(|subject| entry.subject == *subject)
            && self.action.as_ref().is_none_or(|action| match action.strip_suffix('*') {
                Some(start) => entry.action.starts_with(start),
                None => entry.action == *action,
            })
    }
}

/// How far the trail reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuditExtent {
    /// Where it ends.
    pub head: AuditHead,
    /// How many entries there are, none missing.
    pub entries: u64,
}

/// What is remembered of entries that were dropped, so that the rest still verifies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Anchor {
    /// The last one that was dropped.
    pub(super) last: AuditHead,
    /// When that one was made.
    pub(super) at: Timestamp,
}
