//! A store that is opened once it is there: until then it answers as one that is away.
//!
//! For a gateway that starts from its snapshot. Whoever holds the [`Store`] sees no difference to one that went away.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::api::*;
use super::command::{Effect, Order};
use super::error::StoreError;
use super::nodes::{NodeBook, NodeReport, Roll};
use super::settings::StoreSettings;
use super::trail::{AuditEntry, AuditExtent, AuditQuery, AuditReader};
use super::usage::*;
use super::verify::Verification;
use super::{AuditHead, OpenMode, SharedSeal, Store, open_sealed};
use crate::domain::{
    KeyHash, KeyId, KeyRecord, NodeId, OwnerId, OwnerRecord, QuotaTerm, Revision, StoreHead, Timestamp,
};

/// What opens the store.
#[derive(Clone)]
pub struct Opening(Arc<Deferred>);

impl Opening {
    /// Tries to open it; true once it is open. Blocks on files and connections.
    ///
    /// # Errors
    /// As [`open`](super::open).
    pub fn attempt(&self) -> Result<(), StoreError> {
        let Deferred { opened, settings, seal, why } = &*self.0;
        if opened.load().is_some() {
            return Ok(());
        }
        // One that is gone altogether is missed, not made anew: it comes back from a backup.
        match open_sealed(settings, OpenMode::Existing, Arc::clone(seal)) {
            Ok(store) => {
                opened.store(Some(store));
                Ok(())
            }
            Err(error) => {
                *why.lock() = error.to_string();
                Err(error)
            }
        }
    }
}

struct Deferred {
    opened: ArcSwapOption<Store>,
    settings: StoreSettings,
    seal: SharedSeal,
    /// Why it could not be opened the last time.
    why: Mutex<String>,
}

pub(super) fn open_later(settings: StoreSettings, seal: SharedSeal, why: StoreError) -> (Arc<Store>, Opening) {
    let deferred = Arc::new(Deferred {
        opened: ArcSwapOption::empty(),
        settings,
        seal: Arc::clone(&seal),
        why: Mutex::new(why.to_string()),
    });
    (Store::over(Arc::clone(&deferred), Arc::clone(&deferred) as _, seal), Opening(deferred))
}

impl Deferred {
    fn store(&self) -> Result<Arc<Store>, StoreError> {
        let missing = || StoreError::unavailable("the store could not be opened", self.why.lock().clone());
        self.opened.load_full().ok_or_else(missing)
    }
}

/// The body of a method that hands its arguments on to a part of the store.
macro_rules! ask {
    ($deferred:ident.$part:ident.$method:ident($($argument:expr),*)) => {
        Box::pin(async move { $deferred.store()?.$part().$method($($argument),*).await })
    };
}

impl KeyReader for Deferred {
    fn find_key(&self, id: KeyId) -> Answer<'_, Option<KeyRecord>> {
        ask!(self.reader.find_key(id))
    }

    fn list_keys(&self, query: KeyQuery) -> Answer<'_, Page<KeyRecord>> {
        ask!(self.reader.list_keys(query))
    }

    fn list_owners(&self) -> Answer<'_, Vec<OwnerRecord>> {
        ask!(self.reader.list_owners())
    }

    fn find_owner(&self, id: OwnerId) -> Answer<'_, Option<OwnerRecord>> {
        ask!(self.reader.find_owner(id))
    }

    fn find_taken(&self, ids: Vec<KeyId>, hashes: Vec<KeyHash>) -> Answer<'_, Taken> {
        ask!(self.reader.find_taken(ids, hashes))
    }

    fn find_holdings(&self, owners: Vec<OwnerId>) -> Answer<'_, Vec<Holding>> {
        ask!(self.reader.find_holdings(owners))
    }

    fn copy_all<'a>(&'a self, sink: PieceSink<'a>) -> Answer<'a, ()> {
        ask!(self.reader.copy_all(sink))
    }

    fn find_repeatable(&self, name: RepeatName, now: Timestamp) -> Answer<'_, Option<(Repeatable, Revision)>> {
        ask!(self.reader.find_repeatable(name, now))
    }
}

impl KeyWriter for Deferred {
    fn submit(&self, order: Order) -> Answer<'_, Effect> {
        ask!(self.writer.submit(order))
    }

    fn mark_used(&self, uses: Vec<(KeyId, Timestamp)>) -> Answer<'_, ()> {
        ask!(self.writer.mark_used(uses))
    }
}

impl ChangeFeed for Deferred {
    fn head(&self) -> Answer<'_, StoreHead> {
        ask!(self.feed.head())
    }

    fn load_all<'a>(&'a self, sink: &'a mut (dyn FnMut(LoadBatch) + Send)) -> Answer<'a, StoreHead> {
        ask!(self.feed.load_all(sink))
    }

    fn changes_since(&self, since: StoreHead) -> Answer<'_, Changes> {
        ask!(self.feed.changes_since(since))
    }

    fn wait_for_change(&self, seen: StoreHead, patience: std::time::Duration) -> Answer<'_, ()> {
        ask!(self.feed.wait_for_change(seen, patience))
    }
}

impl AuditReader for Deferred {
    fn list_audit(&self, query: AuditQuery) -> Answer<'_, Page<AuditEntry>> {
        ask!(self.audit.list_audit(query))
    }

    fn audit_extent(&self) -> Answer<'_, AuditExtent> {
        ask!(self.audit.audit_extent())
    }

    fn verify_audit(&self, head: Option<AuditHead>) -> Answer<'_, Verification> {
        ask!(self.audit.verify_audit(head))
    }
}

impl QuotaBook for Deferred {
    fn count_requests(&self, id: AdditionId, counts: Vec<(QuotaTerm, u64)>) -> Answer<'_, Vec<(QuotaTerm, u64)>> {
        ask!(self.quotas.count_requests(id, counts))
    }

    fn current_counts(&self, now: Timestamp) -> Answer<'_, Vec<(QuotaTerm, u64)>> {
        ask!(self.quotas.current_counts(now))
    }
}

impl NodeBook for Deferred {
    fn report_node(&self, report: NodeReport) -> Answer<'_, ()> {
        ask!(self.nodes.report_node(report))
    }

    fn strike_node(&self, id: NodeId) -> Answer<'_, bool> {
        ask!(self.nodes.strike_node(id))
    }

    fn list_nodes(&self) -> Answer<'_, Roll> {
        ask!(self.nodes.list_nodes())
    }

    fn committed_by(&self, revision: Revision) -> Answer<'_, Option<Timestamp>> {
        ask!(self.nodes.committed_by(revision))
    }

    fn tidy_nodes(&self) -> Answer<'_, u64> {
        ask!(self.nodes.tidy_nodes())
    }
}

impl UsageBook for Deferred {
    fn note_usage(&self, notes: UsageNotes) -> Answer<'_, Vec<NewNetwork>> {
        ask!(self.usage.note_usage(notes))
    }

    fn note_events(&self, id: AdditionId, events: Vec<NewEvent>) -> Answer<'_, Vec<bool>> {
        ask!(self.usage.note_events(id, events))
    }

    fn tidy_usage(&self, retention: std::time::Duration, now: Timestamp) -> Answer<'_, Tidied> {
        ask!(self.usage.tidy_usage(retention, now))
    }

    fn key_usage(&self, query: UsageQuery) -> Answer<'_, KeyUsage> {
        ask!(self.usage.key_usage(query))
    }

    fn rules_passed(&self, keys: Vec<KeyId>) -> Answer<'_, Vec<(KeyId, Arc<str>)>> {
        ask!(self.usage.rules_passed(keys))
    }

    fn findings(&self) -> Answer<'_, Vec<Finding>> {
        ask!(self.usage.findings())
    }

    fn list_events(&self, query: EventQuery) -> Answer<'_, Vec<UsageEvent>> {
        ask!(self.usage.list_events(query))
    }

    fn counted_since(&self) -> Answer<'_, Option<Timestamp>> {
        ask!(self.usage.counted_since())
    }
}
