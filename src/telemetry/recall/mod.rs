//! What became of recent requests, to be asked by their id: each worker's last refusals, and a sample of what it let in.
//!
//! Owns what is remembered, how much, and for how long: until newer requests take the place. Must not know how requests
//! are decided, nor who asks. Nothing here is a credential: there is no place for a query, a field or a body, and a text
//! in the shape of a key is cut after its public beginning.
//!
//! What a worker remembers belongs to it alone, so that noting takes no lock. Whoever asks puts the question to every
//! worker, which looks for questions at each of its ticks.

mod entry;

use std::cell::RefCell;
use std::net::IpAddr;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::join_all;
use http::Version;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use self::entry::{Entry, kept};
use super::metrics::DecisionMode;
use super::visible::mask_address;
use crate::domain::{KeyId, OwnerId, Scope, Timestamp};

/// Refusals that each worker remembers; what report mode let pass counts as one.
pub const REFUSALS_KEPT: usize = 2048;
/// Admissions that each worker remembers.
pub const ADMISSIONS_KEPT: usize = 512;
/// One in so many admissions is remembered.
pub const ADMISSIONS_SAMPLED: u32 = 64;

/// How long a worker is waited for that does not look for questions: it is stuck, and what it remembers cannot be told.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most questions that wait for one worker; more wait for their turn.
const MOST_QUESTIONS: usize = 64;

/// Where what the workers remember is asked for.
pub struct Recall {
    workers: Box<[mpsc::Sender<Question>]>,
}

/// Somebody asks for a request.
struct Question {
    id: String,
    answer: oneshot::Sender<Option<Remembered>>,
}

struct Rings {
    refusals: Ring,
    admissions: Ring,
}

/// Which requests an entry belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It was refused, or would have been outside report mode.
    Refusal,
    /// It was let in.
    Admission,
}

/// Where a request was noted, for as long as nothing newer takes its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket {
    kind: Kind,
    number: u64,
}

/// What is known of a request when it was decided.
#[derive(Clone, Copy, Debug)]
pub struct Noted<'a> {
    /// When its head was complete.
    pub ts: Timestamp,
    /// The id the client is told.
    pub request_id: &'a str,
    /// Name of the listener.
    pub listener: &'a str,
    /// HTTP version between client and gateway.
    pub protocol: Version,
    /// As sent.
    pub method: &'a str,
    /// As sent; none where it is not known.
    pub host: Option<&'a str>,
    /// As sent, without the query; none where it is not known.
    pub path: Option<&'a str>,
    /// The route's label.
    pub route: Option<&'a str>,
    /// File and line of the rule that decided.
    pub rule: Option<(&'a str, u32)>,
    /// The code in our own error body.
    pub code: Option<&'static str>,
    /// Why it was refused, in full truth.
    pub reason: Option<&'static str>,
    /// Scopes the caller would have needed.
    pub missing_scopes: &'a [Scope],
    /// Whether the route enforces or reports.
    pub mode: Option<DecisionMode>,
    /// The key that was presented and known.
    pub key_id: Option<KeyId>,
    /// The account the key belongs to.
    pub owner: Option<OwnerId>,
    /// The key's environment.
    pub environment: Option<&'a str>,
    /// The client's address.
    pub client_ip: Option<IpAddr>,
}

/// What is remembered of a request. The names are those of the access line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remembered {
    /// When its head was complete.
    pub ts: Timestamp,
    /// The id the client was told.
    pub request_id: String,
    /// Name of the listener.
    pub listener: String,
    /// HTTP version between client and gateway.
    pub protocol: &'static str,
    /// As sent; none when the head could not be read.
    pub method: Option<String>,
    /// As sent.
    pub host: Option<String>,
    /// As sent, without the query; cut at 512 bytes.
    pub path: Option<String>,
    /// Whether host and path are all of what was sent: nothing was cut, nor taken out.
    pub is_whole: bool,
    /// The route's label.
    pub route: Option<String>,
    /// File and line of the rule that decided.
    pub rule: Option<(String, u32)>,
    /// The status the client was sent; none while the answer is under way.
    pub status: Option<u16>,
    /// The code in our own error body.
    pub code: Option<&'static str>,
    /// Why it was refused, in full truth.
    pub reason: Option<&'static str>,
    /// Scopes the caller would have needed.
    pub missing_scopes: Vec<String>,
    /// `enforce` or `report`; none when no route matched.
    pub mode: Option<&'static str>,
    /// The key that was presented and known.
    pub key_id: Option<KeyId>,
    /// The account the key belongs to.
    pub owner: Option<OwnerId>,
    /// The key's environment.
    pub environment: Option<String>,
    /// The client's address.
    pub client_ip: Option<IpAddr>,
    /// Until the last byte of the answer; none while it is under way.
    pub duration: Option<Duration>,
}

impl Remembered {
    /// With the part of the client's address left out that tells apart the people of one network.
    #[must_use]
    pub fn masked(mut self) -> Self {
        self.client_ip = self.client_ip.map(mask_address);
        self
    }
}

impl Recall {
    /// Nothing remembered yet, for so many workers, and what each of them notes into. Memory is taken as requests come.
    pub fn new(workers: usize) -> (Self, Vec<WorkerRecall>) {
        let (askers, recalls) = (0..workers).map(|_| WorkerRecall::new()).unzip();
        let askers: Vec<_> = askers;
        (Self { workers: askers.into() }, recalls)
    }

    /// Asks all workers for the newest request of this id.
    pub async fn find(&self, request_id: &str) -> Recollection {
        let id = kept(request_id);
        let asked = self.workers.iter().map(|worker| async {
            let (answer, answered) = oneshot::channel();
            let question = Question { id: id.clone().into_owned(), answer };
            worker.send(question).await.ok()?;
            answered.await.ok()
        });
        let answers = join_all(asked.map(|asked| timeout(PATIENCE, asked))).await;
        let mut told = Recollection { newest: None, silent: Vec::new() };
        for (worker, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(Some(found)) => told.newest = told.newest.into_iter().chain(found).max_by_key(|it| it.ts),
                Ok(None) | Err(_) => told.silent.push(worker),
            }
        }
        if !told.silent.is_empty() {
            tracing::warn!(workers = ?told.silent, "workers do not say what they remember of a request");
        }
        told
    }
}

/// What the workers remember of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recollection {
    /// The newest of its id.
    pub newest: Option<Remembered>,
    /// Workers that did not answer in two seconds, or have ended: what they remember, or remembered, is not told.
    pub silent: Vec<usize>,
}

impl Recollection {
    /// What has to be said where somebody did not answer; begins in lower case and is no sentence yet.
    pub fn objection(&self) -> Option<String> {
        let numbers: Vec<_> = self.silent.iter().map(usize::to_string).collect();
        match &numbers[..] {
            [] => None,
            [one] => Some(format!("worker {one} does not answer, and what it remembers cannot be told")),
            many => Some(format!("workers {} do not answer, and what they remember cannot be told", many.join(", "))),
        }
    }
}

impl std::fmt::Debug for Recall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recall").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

/// What one worker remembers.
pub struct WorkerRecall {
    rings: RefCell<Rings>,
    questions: RefCell<mpsc::Receiver<Question>>,
}

impl WorkerRecall {
    fn new() -> (mpsc::Sender<Question>, Self) {
        let (asker, questions) = mpsc::channel(MOST_QUESTIONS);
        let rings = Rings { refusals: Ring::with_room(REFUSALS_KEPT), admissions: Ring::with_room(ADMISSIONS_KEPT) };
        (asker, Self { rings: RefCell::new(rings), questions: RefCell::new(questions) })
    }

    /// Notes a request in place of the oldest. Allocates only until the ring is full, and where a text is longer than
    /// the place has ever held.
    pub fn note(&self, kind: Kind, noted: &Noted<'_>) -> Ticket {
        Ticket { kind, number: self.rings.borrow_mut().of(kind).note(noted) }
    }

    /// Notes that it is answered by us for another reason than the one it was noted with.
    pub fn failed(&self, ticket: Ticket, code: &'static str) {
        if let Some(entry) = self.rings.borrow_mut().of(ticket.kind).still(ticket.number) {
            (entry.code, entry.reason) = (Some(code), Some(code));
        }
    }

    /// Notes the key that it came with.
    pub fn came_with(&self, ticket: Ticket, key_id: KeyId, owner: Option<OwnerId>, environment: Option<&str>) {
        if let Some(entry) = self.rings.borrow_mut().of(ticket.kind).still(ticket.number) {
            entry.came_with(key_id, owner, environment);
        }
    }

    /// Notes its end, and why it broke off where it did.
    pub fn ended(&self, ticket: Ticket, status: u16, broken: Option<&'static str>, duration: Duration) {
        if let Some(entry) = self.rings.borrow_mut().of(ticket.kind).still(ticket.number) {
            entry.status = status;
            entry.duration = duration;
            entry.reason = entry.reason.or(broken);
        }
    }

    /// Answers all who have asked. To be called at each tick.
    pub fn answer(&self) {
        let mut questions = self.questions.borrow_mut();
        // `try_recv` would wait for a sender that is in the middle of sending.
        let cx = &mut Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Question { id, answer })) = questions.poll_recv(cx) {
            // Who has lost patience is not told, and what is told to one who loses it now goes nowhere.
            if !answer.is_closed() {
                let _told = answer.send(self.rings.borrow().find(&id));
            }
        }
    }
}

impl std::fmt::Debug for WorkerRecall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerRecall").finish_non_exhaustive()
    }
}

impl Rings {
    fn of(&mut self, kind: Kind) -> &mut Ring {
        match kind {
            Kind::Refusal => &mut self.refusals,
            Kind::Admission => &mut self.admissions,
        }
    }

    fn find(&self, id: &str) -> Option<Remembered> {
        // Of two notes of one moment the refusal, which is the last: it tells more.
        [&self.admissions, &self.refusals].into_iter().filter_map(|ring| ring.find(id)).max_by_key(|it| it.ts)
    }
}

/// The last so many entries. The digests of their ids lie side by side, so that a search touches little memory.
struct Ring {
    digests: Vec<u32>,
    entries: Vec<Entry>,
    room: usize,
    /// How many were ever written.
    written: u64,
}

impl Ring {
    /// The room is reserved at once, and touched when it is needed.
    fn with_room(room: usize) -> Self {
        Self { digests: Vec::with_capacity(room), entries: Vec::with_capacity(room), room, written: 0 }
    }

    fn place(&self, number: u64) -> usize {
        (number % self.room as u64) as usize
    }

    fn note(&mut self, noted: &Noted<'_>) -> u64 {
        let number = self.written;
        self.written += 1;
        let place = self.place(number);
        if place == self.entries.len() {
            self.entries.push(Entry::empty());
            self.digests.push(0);
        }
        self.entries[place].write(noted);
        self.digests[place] = crc32fast::hash(self.entries[place].id().as_bytes());
        number
    }

    /// The entry of this number, unless a newer one took its place.
    fn still(&mut self, number: u64) -> Option<&mut Entry> {
        let place = self.place(number);
        (self.written - number <= self.room as u64).then(|| &mut self.entries[place])
    }

    fn find(&self, id: &str) -> Option<Remembered> {
        let digest = crc32fast::hash(id.as_bytes());
        let candidates = self.digests.iter().enumerate().filter(|(_, known)| **known == digest);
        let same = candidates.filter(|(place, _)| self.entries[*place].id() == id);
        // The oldest stands where the next one will be written.
        let next = self.place(self.written);
        let age = |place: usize| (next + self.room - 1 - place) % self.room;
        same.map(|(place, _)| place).min_by_key(|place| age(*place)).map(|place| self.entries[place].read())
    }
}

#[cfg(test)]
#[path = "recall_tests.rs"]
mod tests;
