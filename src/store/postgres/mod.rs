//! The store of a fleet: a PostgreSQL database.
//!
//! Owns the connections, the thread that speaks over them (`engine`) and the schema (`migrate`, `migrations/postgres`).
//! Whoever changes something locks the one row of the head first (`write`): changes come one after the other, each with its
//! audit rows in one transaction, and become visible in the order of their revisions. Following (`feed`), writing, reading
//! for people and noting what requests leave behind have connections of their own (`pool`). Statements name every table
//! with its schema, so that no setting of the server or of a pooler leads elsewhere.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::SharedSeal;
use super::api::{
    Answer, ChangeFeed, Changes, Holding, KeyQuery, KeyReader, LoadBatch, Page, PieceSink, QuotaBook, RepeatName,
    Repeatable, Taken,
};
use super::command::{Commands, Effect, Order};
use super::error::StoreError;
use super::nodes::{NodeBook, NodeReport, Roll};
use super::seal::AuditHead;
use super::settings::{Pooler, PostgresSettings};
use super::trail::{AuditEntry, AuditExtent, AuditQuery, AuditReader};
use super::usage::{
    AdditionId, EventQuery, Finding, KeyUsage, NewEvent, NewNetwork, Tidied, UsageBook, UsageEvent, UsageNotes,
    UsageQuery,
};
use super::verify::Verification;
use super::{MigrationStep, OpenMode};
use crate::domain::{
    KeyHash, KeyId, KeyRecord, NodeId, OwnerId, OwnerRecord, QuotaTerm, Revision, StoreHead, Timestamp, time,
};

mod address;
mod commands;
mod connect;
mod engine;
mod fault;
mod feed;
mod insert;
mod listen;
mod lookups;
mod migrate;
mod nodes;
mod pool;
mod restore;
mod rows;
mod session;
mod tls;
mod trail;
mod usage;
mod usage_book;
mod usage_findings;
mod usage_sightings;
mod usage_tidy;
mod write;

#[cfg(test)]
mod postgres_tests;

pub use address::{AddressFlaw, PostgresAddress};

use connect::{Purpose, Source};
use engine::Engine;
use fault::Fault;
use listen::Hints;
use pool::{Lane, Work};
use session::Session;

/// Batches of a load that may wait to be taken.
const LOAD_AHEAD: usize = 4;
/// Longest a poll may take: a link that died without a word is noticed by it.
const POLL_PATIENCE: Duration = Duration::from_secs(5);
/// Connections beside those that read for people: following changes, writing, noting what requests leave behind.
const OWN_LANES: usize = 3;

/// See the module.
pub(super) struct PostgresStore {
    engine: Engine,
    inner: Arc<Inner>,
}

/// What jobs share.
struct Inner {
    feed: Lane,
    writer: Lane,
    readers: Lane,
    usage: Lane,
    hints: Arc<Hints>,
    seal: SharedSeal,
    listing: Mutex<Listing>,
}

/// Whether this process is among the nodes.
#[derive(Default)]
enum Listing {
    /// It does not want to be: a tool, which decides nothing.
    #[default]
    Unasked,
    /// It is not, for this reason.
    Refused(String),
    /// It is.
    Listed,
}

impl Listing {
    /// A report is on its way: until one has arrived, it is not.
    fn ask(&mut self) {
        if matches!(self, Self::Unasked) {
            *self = Self::Refused("it has not been listed yet".to_owned());
        }
    }

    /// What became of a report. Who is listed stays so where one is lost; who will go on being refused does not.
    fn told(&mut self, told: &Result<(), Fault>) {
        match told {
            Ok(()) => *self = Self::Listed,
            Err(fault) => {
                if let Some(why) = fault.refusal() {
                    *self = Self::Refused(why);
                }
            }
        }
    }
}

impl Inner {
    /// Fails where this process is a gateway that is not among the nodes, and so should hear of nothing.
    fn check_listed(&self) -> Result<(), Fault> {
        let Listing::Refused(why) = &*self.listing.lock() else { return Ok(()) };
        let doing = "following changes without being in the list of nodes, where nobody would wait for this gateway";
        Err(StoreError::unavailable(doing, why.clone()).into())
    }
}

impl PostgresStore {
    /// Starts the thread, connects, and makes the tables where there are none.
    ///
    /// # Errors
    /// As [`super::open`].
    pub(super) fn open(settings: &PostgresSettings, mode: OpenMode, seal: SharedSeal) -> Result<Self, StoreError> {
        let source = Source::new(settings)?;
        let engine = Engine::start()?;
        let lane = |what_for, places| Lane::new(Arc::clone(&source), what_for, places);
        let readers = settings.connections.saturating_sub(OWN_LANES).max(1);
        let hints = Arc::new(Hints::default());
        let inner = Arc::new(Inner {
            feed: lane(Purpose::Reading, 1),
            writer: lane(Purpose::Writing, 1),
            readers: lane(Purpose::Reading, readers),
            usage: lane(Purpose::Writing, 1),
            hints: Arc::clone(&hints),
            seal,
            listing: Mutex::default(),
        });
        const DOING: &str = "opening the store";
        let (first, prepared) = (Arc::clone(&source), Arc::clone(&inner));
        engine.wait(DOING, async move {
            let tell = |fault: Fault| fault.tell(DOING, first.address());
            let mut session = first.connect_unchecked().await.map_err(tell)?;
            let now = time::now();
            migrate::prepare(&mut session, mode, first.address(), now).await.map_err(tell)?;
            prepared.writer.lend(session);
            Ok(())
        })?;
        Ok(Self { engine, inner }.listening(source, hints))
    }

    /// Tools that ask once hear nothing they could use: the connection is made when somebody first waits.
    fn listening(self, source: Arc<Source>, hints: Arc<Hints>) -> Self {
        match source.pooler() {
            Pooler::None => {
                let wanted = Arc::clone(&hints);
                self.engine.keep(async move {
                    wanted.wanted().await;
                    listen::listen(source, hints).await;
                });
            }
            // A pooler hands the connection to somebody else after each transaction.
            Pooler::Transaction => {}
        }
        self
    }

    /// Does a job over a connection of a lane.
    fn ask<T: Send + 'static>(
        &self,
        lane: fn(&Inner) -> &Lane,
        doing: &'static str,
        job: impl for<'s> Fn(&'s mut Session) -> Work<'s, T> + Send + Sync + 'static,
    ) -> Answer<'_, T> {
        let inner = Arc::clone(&self.inner);
        Box::pin(self.engine.ask(doing, async move { lane(&inner).work(doing, job).await }))
    }

    fn read<T: Send + 'static>(
        &self,
        doing: &'static str,
        job: impl for<'s> Fn(&'s mut Session) -> Work<'s, T> + Send + Sync + 'static,
    ) -> Answer<'_, T> {
        self.ask(|inner| &inner.readers, doing, job)
    }

    fn note<T: Send + 'static>(
        &self,
        doing: &'static str,
        job: impl for<'s> Fn(&'s mut Session) -> Work<'s, T> + Send + Sync + 'static,
    ) -> Answer<'_, T> {
        self.ask(|inner| &inner.usage, doing, job)
    }
}

/// Every step of the schema, and when it was taken.
///
/// # Errors
/// [`StoreError::Unavailable`] when the server cannot be asked.
pub(super) fn migrations(settings: &PostgresSettings) -> Result<Vec<MigrationStep>, StoreError> {
    once(settings, "looking at the schema", |session, _| Box::pin(migrate::list(session)))
}

/// Takes the steps that are missing; returns how many.
///
/// # Errors
/// As [`super::open`].
pub(super) fn migrate(settings: &PostgresSettings) -> Result<usize, StoreError> {
    once(settings, "bringing the schema up to date", |session, address| {
        Box::pin(migrate::migrate(session, migrate::STEPS, address, time::now()))
    })
}

/// Does one thing over one connection, whatever the tables are.
fn once<T: Send + 'static>(
    settings: &PostgresSettings,
    doing: &'static str,
    job: impl for<'s> FnOnce(&'s mut Session, &'s PostgresAddress) -> Work<'s, T> + Send + 'static,
) -> Result<T, StoreError> {
    let source = Source::new(settings)?;
    Engine::start()?.wait(doing, async move {
        let address = source.address();
        let done = async {
            let mut session = source.connect_unchecked().await?;
            job(&mut session, address).await
        };
        done.await.map_err(|fault| fault.tell(doing, address))
    })
}

impl Commands for PostgresStore {
    fn apply_order(&self, order: Order) -> Answer<'_, Effect> {
        let (order, inner) = (Arc::new(order), Arc::clone(&self.inner));
        self.ask(
            |inner| &inner.writer,
            "writing",
            move |session| {
                let (order, inner) = (Arc::clone(&order), Arc::clone(&inner));
                Box::pin(async move {
                    let (effect, head) = write::write(session, &order, &inner.seal.load_full()).await?;
                    if let Some(head) = head {
                        inner.hints.tell(head.revision);
                    }
                    Ok(effect)
                })
            },
        )
    }

    fn note_uses(&self, uses: Vec<(KeyId, Timestamp)>) -> Answer<'_, ()> {
        let uses = Arc::new(uses);
        self.note("noting last use", move |session| {
            let uses = Arc::clone(&uses);
            Box::pin(async move { usage::mark_used(session, &uses).await })
        })
    }
}

impl QuotaBook for PostgresStore {
    fn count_requests(&self, id: AdditionId, counts: Vec<(QuotaTerm, u64)>) -> Answer<'_, Vec<(QuotaTerm, u64)>> {
        let counts = Arc::new(counts);
        self.note("counting requests of quotas", move |session| {
            let counts = Arc::clone(&counts);
            Box::pin(async move { usage::count_requests(session, id, &counts).await })
        })
    }

    fn current_counts(&self, now: Timestamp) -> Answer<'_, Vec<(QuotaTerm, u64)>> {
        self.note("reading counts of quotas", move |session| Box::pin(usage::current_counts(session, now)))
    }
}

impl KeyReader for PostgresStore {
    fn find_key(&self, id: KeyId) -> Answer<'_, Option<KeyRecord>> {
        self.read("reading a key", move |session| Box::pin(commands::read_key(session, id)))
    }

    fn list_keys(&self, query: KeyQuery) -> Answer<'_, Page<KeyRecord>> {
        let query = Arc::new(query);
        self.read("listing keys", move |session| {
            let query = Arc::clone(&query);
            Box::pin(async move { lookups::list_keys(session, &query).await })
        })
    }

    fn list_owners(&self) -> Answer<'_, Vec<OwnerRecord>> {
        self.read("listing owners", |session| Box::pin(lookups::list_owners(session)))
    }

    fn find_owner(&self, id: OwnerId) -> Answer<'_, Option<OwnerRecord>> {
        self.read("reading an owner", move |session| Box::pin(lookups::find_owner(session, id)))
    }

    fn find_taken(&self, ids: Vec<KeyId>, hashes: Vec<KeyHash>) -> Answer<'_, Taken> {
        self.read("looking up keys", move |session| Box::pin(lookups::taken(session, ids.clone(), hashes.clone())))
    }

    fn find_holdings(&self, owners: Vec<OwnerId>) -> Answer<'_, Vec<Holding>> {
        self.read("looking up owners", move |session| Box::pin(lookups::holdings(session, owners.clone())))
    }

    fn copy_all<'a>(&'a self, sink: PieceSink<'a>) -> Answer<'a, ()> {
        Box::pin(async move {
            let (pieces, mut arriving) = mpsc::channel(LOAD_AHEAD);
            let copy =
                self.read("copying the store", move |session| Box::pin(restore::copy_all(session, pieces.clone())));
            let hand_over = async move {
                while let Some(piece) = arriving.recv().await {
                    if !sink(piece) {
                        return;
                    }
                }
            };
            let (copied, ()) = tokio::join!(copy, hand_over);
            copied
        })
    }

    fn find_repeatable(&self, name: RepeatName, now: Timestamp) -> Answer<'_, Option<(Repeatable, Revision)>> {
        self.read("reading an answer", move |session| Box::pin(lookups::find_repeatable(session, name, now)))
    }
}

impl AuditReader for PostgresStore {
    fn list_audit(&self, query: AuditQuery) -> Answer<'_, Page<AuditEntry>> {
        let query = Arc::new(query);
        self.read("listing the audit trail", move |session| {
            let query = Arc::clone(&query);
            Box::pin(async move { trail::list(session, &query).await })
        })
    }

    fn audit_extent(&self) -> Answer<'_, AuditExtent> {
        self.read("reading the audit trail", |session| Box::pin(trail::extent(session)))
    }

    fn verify_audit(&self, head: Option<AuditHead>) -> Answer<'_, Verification> {
        let seal = self.inner.seal.load_full();
        self.read("verifying the audit trail", move |session| {
            let seal = Arc::clone(&seal);
            Box::pin(async move { trail::verify(session, &seal, head).await })
        })
    }
}

impl ChangeFeed for PostgresStore {
    /// Of a gateway that is not in the book nobody would wait for a revocation, so what it hears confirms nothing.
    fn head(&self) -> Answer<'_, StoreHead> {
        let inner = Arc::clone(&self.inner);
        self.ask(
            |inner| &inner.feed,
            "asking for the newest change",
            move |session| {
                let inner = Arc::clone(&inner);
                Box::pin(async move {
                    session.expect_within(POLL_PATIENCE);
                    let head = feed::head(session).await?;
                    inner.check_listed()?;
                    inner.hints.correct(head);
                    Ok(head)
                })
            },
        )
    }

    fn load_all<'a>(&'a self, sink: &'a mut (dyn FnMut(LoadBatch) + Send)) -> Answer<'a, StoreHead> {
        Box::pin(async move {
            let (batches, mut arriving) = mpsc::channel(LOAD_AHEAD);
            let inner = Arc::clone(&self.inner);
            let load = self.ask(
                |inner| &inner.feed,
                "loading all keys",
                move |session| {
                    let (inner, batches) = (Arc::clone(&inner), batches.clone());
                    Box::pin(async move {
                        inner.check_listed()?;
                        feed::load_all(session, batches).await
                    })
                },
            );
            let hand_over = async {
                while let Some(batch) = arriving.recv().await {
                    sink(batch);
                }
            };
            let (head, ()) = tokio::join!(load, hand_over);
            head
        })
    }

    fn changes_since(&self, since: StoreHead) -> Answer<'_, Changes> {
        self.ask(|inner| &inner.feed, "reading changes", move |session| Box::pin(feed::changes_since(session, since)))
    }

    fn wait_for_change(&self, seen: StoreHead, patience: Duration) -> Answer<'_, ()> {
        Box::pin(self.inner.hints.wait(seen, patience))
    }
}

/// A report goes the way of the changes: whoever hears of them is in the book. The rest is read for people.
impl NodeBook for PostgresStore {
    fn report_node(&self, report: NodeReport) -> Answer<'_, ()> {
        self.inner.listing.lock().ask();
        let (report, inner) = (Arc::new(report), Arc::clone(&self.inner));
        self.ask(
            |inner| &inner.feed,
            "reporting to the store",
            move |session| {
                let (report, inner) = (Arc::clone(&report), Arc::clone(&inner));
                Box::pin(async move {
                    session.expect_within(POLL_PATIENCE);
                    let told = nodes::report(session, &report).await;
                    inner.listing.lock().told(&told);
                    told
                })
            },
        )
    }

    fn strike_node(&self, id: NodeId) -> Answer<'_, bool> {
        self.read("striking a node out", move |session| Box::pin(nodes::strike(session, id)))
    }

    fn list_nodes(&self) -> Answer<'_, Roll> {
        self.read("listing nodes", |session| Box::pin(nodes::list(session)))
    }

    fn committed_by(&self, revision: Revision) -> Answer<'_, Option<Timestamp>> {
        self.read("looking for a change", move |session| Box::pin(nodes::committed_by(session, revision)))
    }

    fn tidy_nodes(&self) -> Answer<'_, u64> {
        self.read("striking nodes out", |session| Box::pin(nodes::tidy(session)))
    }
}

impl UsageBook for PostgresStore {
    fn note_usage(&self, notes: UsageNotes) -> Answer<'_, Vec<NewNetwork>> {
        let notes = Arc::new(notes);
        self.note("noting usage", move |session| {
            let notes = Arc::clone(&notes);
            Box::pin(async move { usage_book::note(session, &notes).await })
        })
    }

    fn note_events(&self, id: AdditionId, events: Vec<NewEvent>) -> Answer<'_, Vec<bool>> {
        let events = Arc::new(events);
        self.note("noting events", move |session| {
            let events = Arc::clone(&events);
            Box::pin(async move { usage_book::note_events(session, id, &events).await })
        })
    }

    fn tidy_usage(&self, retention: Duration, now: Timestamp) -> Answer<'_, Tidied> {
        self.note("dropping old usage", move |session| Box::pin(usage_tidy::tidy(session, retention, now)))
    }

    fn key_usage(&self, query: UsageQuery) -> Answer<'_, KeyUsage> {
        self.read("reading usage", move |session| Box::pin(async move { usage_book::key_usage(session, &query).await }))
    }

    fn rules_passed(&self, keys: Vec<KeyId>) -> Answer<'_, Vec<(KeyId, Arc<str>)>> {
        let keys = Arc::new(keys);
        self.read("reading the rules that keys passed", move |session| {
            let keys = Arc::clone(&keys);
            Box::pin(async move { usage_book::rules_passed(session, &keys).await })
        })
    }

    fn findings(&self) -> Answer<'_, Vec<Finding>> {
        self.read("reading what report mode found", |session| Box::pin(usage_findings::findings(session)))
    }

    fn list_events(&self, query: EventQuery) -> Answer<'_, Vec<UsageEvent>> {
        self.read("listing events", move |session| Box::pin(usage_book::list_events(session, query)))
    }

    fn counted_since(&self) -> Answer<'_, Option<Timestamp>> {
        self.read("reading usage", |session| Box::pin(usage_book::counted_since(session)))
    }
}
