//! The one thread that changes records: what has queued up goes into one transaction and one `fsync`.

use std::thread::JoinHandle;

use rusqlite::{Connection, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot, watch};

use super::commands;
use super::fault::Fault;
use super::seat::{Open, Seat, join, start_thread};
use crate::domain::{Revision, RevisionToken, StoreHead};
use crate::store::SharedSeal;
use crate::store::command::{Effect, Order, draw_token};
use crate::store::error::StoreError;
use crate::store::seal::AuditSeal;

/// Orders that may wait; more wait in their callers.
const QUEUE: usize = 256;
/// Most orders in one transaction.
const MAX_TOGETHER: usize = 256;
const DOING: &str = "writing";

pub(super) type Answered = Result<Effect, StoreError>;

struct Ticket {
    order: Order,
    reply: oneshot::Sender<Answered>,
}

/// The writer's front: a bounded queue. Dropping it finishes what is queued and joins the thread.
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Ticket>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. Each commit is announced on `committed`.
    pub(super) fn start(seat: Seat, committed: watch::Sender<StoreHead>, seal: SharedSeal) -> Result<Self, StoreError> {
        let (queue, tickets) = mpsc::channel(QUEUE);
        let thread = start_thread("store-writer", move || serve(Scribe { seat, committed, seal }, tickets))?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    /// Applies one order; the answer comes after the commit that holds it is on disk.
    pub(super) async fn submit(&self, order: Order) -> Answered {
        let (reply, answer) = oneshot::channel();
        let gone = || StoreError::unavailable(DOING, "the store's thread has ended; restart portcullis");
        let queue = self.queue.as_ref().ok_or_else(gone)?;
        queue.send(Ticket { order, reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        self.thread.take().into_iter().for_each(join);
    }
}

/// What the thread works with.
pub(super) struct Scribe {
    pub(super) seat: Seat,
    pub(super) committed: watch::Sender<StoreHead>,
    pub(super) seal: SharedSeal,
}

fn serve(mut scribe: Scribe, mut tickets: mpsc::Receiver<Ticket>) {
    let mut large = None;
    while let Some(first) = large.take().or_else(|| tickets.blocking_recv()) {
        let goes_alone = commands::goes_alone(&first.order);
        let mut batch = vec![first];
        while !goes_alone
            && batch.len() < MAX_TOGETHER
            && let Ok(next) = tickets.try_recv()
        {
            if commands::goes_alone(&next.order) {
                large = Some(next);
                break;
            }
            batch.push(next);
        }
        scribe.serve_batch(batch);
    }
}

impl Scribe {
    fn serve_batch(&mut self, batch: Vec<Ticket>) {
        let (orders, replies): (Vec<Order>, Vec<_>) = batch.into_iter().map(|t| (t.order, t.reply)).unzip();
        for (reply, answer) in replies.into_iter().zip(self.answer_all(&orders)) {
            // Who asked may be gone; the change stands.
            drop(reply.send(answer));
        }
    }

    /// All orders in one transaction; or each in its own, when they fail together: one must not take the others down.
    pub(super) fn answer_all(&mut self, orders: &[Order]) -> Vec<Answered> {
        match self.write(orders) {
            Ok(answers) => answers,
            Err(_) if orders.len() > 1 => {
                let alone = |order| self.write(std::slice::from_ref(order)).and_then(only);
                orders.iter().map(alone).collect()
            }
            Err(error) => vec![Err(error)],
        }
    }

    /// One transaction for all `orders`. An order that is refused leaves nothing; trouble rolls all of them back.
    fn write(&mut self, orders: &[Order]) -> Result<Vec<Answered>, StoreError> {
        let token = draw_token()?;
        let seal = self.seal.load();
        let (answers, head) = self.seat.run(DOING, |open| transact(open, orders, token, &seal))?;
        if let Some(head) = head {
            self.committed.send_replace(head);
        }
        Ok(answers)
    }
}

fn only(mut answers: Vec<Answered>) -> Answered {
    answers.pop().unwrap_or(Ok(Effect::NotFound))
}

pub(super) fn transact(
    open: &mut Open,
    orders: &[Order],
    token: RevisionToken,
    seal: &AuditSeal,
) -> Result<(Vec<Answered>, Option<StoreHead>), Fault> {
    let transaction = open.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let newest = read_head(&transaction)?.revision;
    // Whatever goes on from somewhere else has no company.
    let next = orders.first().map_or(newest.next(), |order| order.command.revision_behind(newest));
    let mut answers = Vec::with_capacity(orders.len());
    let mut changed_at = None;
    // A single order needs none: what it leaves goes with the transaction. Within a savepoint SQLite keeps a copy of every
    // page that is changed, and walks along all of them at each statement.
    let has_company = orders.len() > 1;
    for order in orders {
        if has_company {
            transaction.execute_batch("SAVEPOINT one_order")?;
        }
        // What an earlier order of this transaction changed counts as this revision already.
        let answer = match commands::apply(&transaction, order, newest, next, seal) {
            Ok(effect) => Ok(effect),
            Err(Fault::Told(refusal)) if !refusal.is_trouble() => {
                if !has_company {
                    transaction.rollback()?;
                    return Ok((vec![Err(refusal)], None));
                }
                transaction.execute_batch("ROLLBACK TO one_order")?;
                Err(refusal)
            }
            Err(trouble) => return Err(trouble),
        };
        if has_company {
            transaction.execute_batch("RELEASE one_order")?;
        }
        if answer.as_ref().is_ok_and(|effect| effect.is_change()) {
            changed_at = Some(order.now);
        }
        answers.push(answer);
    }
    let mut head = None;
    if let Some(at) = changed_at {
        let next = StoreHead { revision: next, token };
        let mut insert =
            transaction.prepare_cached("INSERT INTO revisions (revision, token, at) VALUES (?1, ?2, ?3)")?;
        insert.execute(params![number(next.revision), token.0.cast_signed(), at.unix_ms()])?;
        head = Some(next);
    }
    transaction.commit()?;
    Ok((answers, head))
}

/// The newest revision.
pub(super) fn read_head(connection: &Connection) -> Result<StoreHead, Fault> {
    let mut newest =
        connection.prepare_cached("SELECT revision, token FROM revisions ORDER BY revision DESC LIMIT 1")?;
    Ok(newest.query_row([], |row| {
        let (revision, token): (i64, i64) = (row.get(0)?, row.get(1)?);
        Ok(StoreHead { revision: revision_of(revision), token: RevisionToken(token.cast_unsigned()) })
    })?)
}

/// A revision as SQLite keeps it.
pub(super) fn number(revision: Revision) -> i64 {
    revision.number().cast_signed()
}

/// A revision as it was kept.
pub(super) fn revision_of(number: i64) -> Revision {
    Revision::new(number.cast_unsigned())
}
