//! What was noted of requests on its way to the book: summed up, watched for what is unusual, written in batches.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::vec::IntoIter;

use tokio::time::Instant;

use super::findings::Findings;
use super::graces::Graces;
use super::pace::{Pace, RETRY};
use super::pending::{Batch, Dropped, Pending, Queue};
use super::room::is_filling;
use super::rules::RuleNames;
use super::tally::{FindingCount, FindingName, Noted, Row, Tally};
use super::unusual::Refusals;
use super::visit::Visit;
use crate::domain::{KeyId, KeyKind, Timestamp, time, without_keys};
use crate::store::{
    AdditionId, Answer, EventKind, Finding, KeyWriter, NewEvent, NewNetwork, Outage, Sighting, Store, StoreError,
    Surplus, UsageBook, UsageCount, UsageEvent, UsageNotes,
};
use crate::telemetry::{EventLabel, Metrics, mask_address, visible};

/// How often is looked whether workers have room: what they have left is for more keys than can come meanwhile.
const LOOK: Duration = Duration::from_millis(250);
/// Most keys of which notes are kept until they are written, and most counts besides, unless workers have room for more. So
/// many keys take 256 MiB, and so many counts 96, twice that while they are written; more where each key has an agent or
/// networks of its own.
// Fewer in tests, which would otherwise spend their time noting.
const MAX_PENDING: usize = if cfg!(test) { 1 << 14 } else { 1 << 21 };
/// Most findings of keys.
const MAX_PENDING_FINDINGS: usize = 65_536;
/// Most events kept while the store is away.
const MAX_PENDING_EVENTS: usize = 1_000;
/// Longest `User-Agent`, in characters.
const MAX_AGENT_CHARS: usize = 200;
/// Between two events of one kind and key, where they could come at any time.
const APART: Duration = Duration::from_secs(3600);

/// Most keys whose notes are written at once: counts of quotas, which go the same way, wait for no more.
const BATCH: usize = 4_096;

/// A batch on its way to the book, and not known to be there.
struct UnderWay {
    notes: UsageNotes,
    is_full: bool,
    /// Of the keys that were seen, in order.
    kinds: Vec<(KeyId, KeyKind)>,
}

impl UnderWay {
    /// Whether a network that is new to a key is worth telling: not for keys that everybody may have. Of a key that roams
    /// it is told once an hour.
    fn new_network(&self, new: NewNetwork) -> Option<NewEvent> {
        let place = self.kinds.binary_search_by_key(&new.key, |(key, _)| *key).ok()?;
        if self.kinds[place].1 == KeyKind::Publishable {
            return None;
        }
        let sighting = self.notes.sightings.get(place)?;
        let at = sighting.networks.iter().find(|seen| seen.network == new.network)?.first;
        let address = sighting.address.filter(|address| new.network.contains(address));
        let apart = if new.others > 1 { APART } else { Duration::ZERO };
        let detail = format!("first use from {}", new.network);
        Some(event(EventKind::NewNetwork, new.key, address, at, detail, apart))
    }
}

/// Takes what workers note and writes it to the store. One task has it.
pub struct Ledger {
    tally: Arc<Tally>,
    names: Arc<RuleNames>,
    /// Takes when keys were used.
    writer: Arc<dyn KeyWriter>,
    /// Takes the rest.
    book: Arc<dyn UsageBook>,
    metrics: Metrics,
    /// Whether addresses are to be masked.
    masks: Arc<AtomicBool>,
    graces: Arc<Graces>,
    refusals: Refusals,
    pending: Pending,
    findings: Findings,
    /// What is being written of both, and not under way.
    uses: IntoIter<(KeyId, Timestamp)>,
    queue: Queue,
    found: IntoIter<(FindingName, FindingCount)>,
    /// Uses on their way, and not known to be there.
    marking: Vec<(KeyId, Timestamp)>,
    under_way: Option<UnderWay>,
    /// What that is brought under, or the next one.
    id: AdditionId,
    events: Vec<NewEvent>,
    /// The same for events.
    telling: Vec<NewEvent>,
    telling_id: AdditionId,
    /// How long full batches took to write.
    spent: Duration,
}

impl Ledger {
    /// What is noted in `tally` goes to `store`, and which successors of rotated keys were used to `graces`. While `masks` is
    /// true, addresses are kept without their last part.
    pub fn new(
        tally: Arc<Tally>,
        names: Arc<RuleNames>,
        store: &Store,
        graces: Arc<Graces>,
        metrics: Metrics,
        masks: Arc<AtomicBool>,
    ) -> Self {
        Self {
            tally,
            names,
            writer: Arc::clone(store.writer()),
            book: Arc::clone(store.usage()),
            metrics,
            masks,
            graces,
            refusals: Refusals::default(),
            pending: Pending::default(),
            findings: Findings::default(),
            uses: IntoIter::default(),
            queue: Queue::default(),
            found: IntoIter::default(),
            marking: Vec::new(),
            under_way: None,
            id: AdditionId::first(),
            events: Vec::new(),
            telling: Vec::new(),
            telling_id: AdditionId::first(),
            spent: Duration::ZERO,
        }
    }

    /// Writes when keys were used. What cannot be written, here as below, is left for [`Self::take_back`].
    ///
    /// # Errors
    /// As any write.
    async fn mark_used(&mut self) -> Result<(), StoreError> {
        let writer = Arc::clone(&self.writer);
        self.uses = self.pending.take_uses();
        loop {
            self.marking = self.uses.by_ref().take(BATCH).collect();
            if self.marking.is_empty() {
                return Ok(());
            }
            let is_full = self.marking.len() >= BATCH;
            self.hear(is_full, writer.mark_used(self.marking.clone())).await?;
        }
    }

    /// Writes everything else but events.
    ///
    /// # Errors
    /// As any write. What was under way goes the same way again, and is counted once, whether or not it had arrived.
    async fn note(&mut self) -> Result<(), StoreError> {
        let book = Arc::clone(&self.book);
        self.queue = self.pending.take();
        self.found = std::mem::take(&mut self.findings).into_vec().into_iter();
        loop {
            if self.under_way.is_none() {
                self.under_way = self.set_out();
            }
            let Some(UnderWay { notes, is_full, .. }) = &self.under_way else { return Ok(()) };
            let (is_full, notes) = (*is_full, notes.clone());
            let new = self.hear(is_full, book.note_usage(notes)).await?;
            self.id = self.id.next();
            if let Some(arrived) = self.under_way.take() {
                self.keep_events(new.into_iter().filter_map(|network| arrived.new_network(network)).collect());
            }
        }
    }

    /// Writes what is unusual, and tells it.
    ///
    /// # Errors
    /// As any write.
    async fn tell(&mut self) -> Result<(), StoreError> {
        let book = Arc::clone(&self.book);
        loop {
            if self.telling.is_empty() {
                self.telling = std::mem::take(&mut self.events);
            }
            if self.telling.is_empty() {
                return Ok(());
            }
            let written = self.hear(false, book.note_events(self.telling_id, self.telling.clone())).await?;
            self.telling_id = self.telling_id.next();
            for (NewEvent { event, .. }, is_written) in std::mem::take(&mut self.telling).into_iter().zip(written) {
                if is_written {
                    self.log(&event);
                }
            }
        }
    }

    /// Waits for the store, and takes over meanwhile what workers noted, where they may run out of room. Takes note of the
    /// time if there was as much as goes at once: where there is less, it is no matter of how much is written.
    async fn hear<T>(&mut self, is_full: bool, mut answer: Answer<'_, T>) -> Result<T, StoreError> {
        let began = Instant::now();
        let answer = loop {
            let answer = tokio::time::timeout(LOOK, &mut answer).await;
            if self.tally.is_filling() {
                self.take_notes(time::now());
            }
            if let Ok(answer) = answer {
                break answer;
            }
        };
        if is_full && answer.is_ok() {
            self.spent += began.elapsed();
        }
        answer
    }

    /// Writes at every interval until told to stop, and once more then; more seldom where it takes long, sooner where much is
    /// noted. Says once when the store goes away, and when it is back.
    pub async fn run(mut self, every: Duration, mut stop: tokio::sync::oneshot::Receiver<()>) {
        let mut last_use = Outage::of("last use");
        let mut usage = Outage::of("usage");
        let mut events = Outage::of("events of keys");
        let mut pace = Pace::new(every);
        let mut telling = Instant::now();
        let mut gathering = telling + every;
        loop {
            let told = tokio::select! {
                () = tokio::time::sleep(LOOK.min(every)) => false,
                _ = &mut stop => true,
            };
            let now = Instant::now();
            if told || now >= gathering || pace.is_due(now, false) || self.tally.is_filling() {
                self.take_notes(time::now());
                gathering = now + every;
            }
            if told || pace.is_due(now, self.is_filling()) {
                self.spent = Duration::ZERO;
                // A store that takes not the one may take the other.
                let marked = last_use.attempt(self.mark_used(), told).await;
                let noted = usage.attempt(self.note(), told).await;
                self.take_back();
                pace.rest(Instant::now(), self.spent);
                if !marked || !noted {
                    pace.fail(Instant::now());
                }
            }
            let is_unusual = !self.events.is_empty() || !self.telling.is_empty();
            if is_unusual && (told || now >= telling) && !events.attempt(self.tell(), told).await {
                telling = Instant::now() + RETRY.min(every);
            }
            if told {
                return;
            }
        }
    }

    /// Whether little room is left for what is not written yet.
    fn is_filling(&self) -> bool {
        is_filling(self.pending.len(), MAX_PENDING) || is_filling(self.findings.of_keys(), MAX_PENDING_FINDINGS)
    }

    /// As [`Self::gather`], whatever happens: what keeps notes must not end for a few of them.
    fn take_notes(&mut self, now: Timestamp) {
        if catch_unwind(AssertUnwindSafe(|| self.gather(now))).is_err() {
            tracing::error!("taking notes of usage panicked: some are lost");
        }
    }

    /// Takes over what workers noted.
    fn gather(&mut self, now: Timestamp) {
        let tally = Arc::clone(&self.tally);
        let awaited = self.graces.awaited();
        let taken: Vec<Noted> = tally.take().collect();
        let sums = self.refusals.sums(taken.iter().flat_map(Noted::counts));
        let mut leaks = Vec::new();
        let mut more = Batch::default();
        for Noted { keys, counts, findings } in taken {
            for (key, note) in keys.iter() {
                if !awaited.is_empty() && note.used_at().is_some() && awaited.contains(key) {
                    self.graces.remember(*key);
                }
                leaks.extend(note.visit.as_ref().and_then(Visit::browser).map(|leak| (*key, leak)));
            }
            more.keys.extend(keys);
            more.counts.extend(counts);
            for (name, count) in findings.iter() {
                self.keep_finding(name, *count);
            }
        }
        self.keep(more);
        let mut events = Vec::new();
        for (key, (address, at)) in leaks {
            let detail = "a browser sent this secret key: whoever sees the page can read it".to_owned();
            events.push(event(EventKind::SecretKeyInBrowser, key, self.shown(address), at, detail, APART));
        }
        for (key, (requests, refused)) in sums {
            if let Some((requests, refused)) = self.refusals.add(key, requests, refused, now) {
                let detail = format!("{refused} of {requests} requests of the last hour were refused");
                let address = self.pending.visit(&key).and_then(|visit| self.shown(visit.address));
                events.push(event(EventKind::ManyRefusals, key, address, now, detail, APART));
            }
        }
        self.keep_events(events);
        self.refusals.sweep(now);
    }

    /// Takes back what was not written.
    fn take_back(&mut self) {
        let uses = std::mem::take(&mut self.marking).into_iter().chain(std::mem::take(&mut self.uses));
        let dropped = self.pending.add_uses(uses.collect(), self.most_pending());
        self.tally.drop_marks(dropped);
        let left = std::mem::take(&mut self.queue).rest();
        self.keep(left);
        for (name, count) in std::mem::take(&mut self.found) {
            self.keep_finding(&name, count);
        }
    }

    fn keep(&mut self, more: Batch) {
        let Dropped { notes, marks } = self.pending.add(more, self.most_pending());
        self.tally.drop_more(notes);
        self.tally.drop_marks(marks);
    }

    fn keep_finding(&mut self, name: &FindingName, count: FindingCount) {
        if !self.findings.add(&name.as_found(), count, MAX_PENDING_FINDINGS) {
            self.tally.drop_more(1);
        }
    }

    fn most_pending(&self) -> usize {
        MAX_PENDING.max(self.tally.room())
    }

    /// An address, as far as it may be kept.
    fn shown(&self, address: Option<IpAddr>) -> Option<IpAddr> {
        let masks = self.masks.load(Ordering::Relaxed);
        address.map(|address| if masks { mask_address(address) } else { address })
    }

    /// Takes out what is written next, if there is anything.
    fn set_out(&mut self) -> Option<UnderWay> {
        loop {
            let batch = self.queue.next(BATCH);
            let findings: Vec<_> = self.found.by_ref().take(BATCH).collect();
            if batch.is_empty() && findings.is_empty() {
                return None;
            }
            let Batch { keys, counts: others } = batch;
            let is_full = keys.len().max(others.len()).max(findings.len()) >= BATCH;
            let seen = keys.iter().filter_map(|(key, note)| Some((*key, note.visit.as_ref()?)));
            let kinds = seen.clone().map(|(key, visit)| (key, visit.kind)).collect();
            let sightings = seen.map(|(key, visit)| self.sighting(key, visit)).collect();
            let first =
                keys.iter().filter_map(|(key, note)| note.counted.map(|(row, requests)| (*key, row, requests.into())));
            let others = others.iter().map(|(counted, requests)| (counted.key, counted.row, *requests));
            let mut counts: Vec<(KeyId, Row, u64)> = first.chain(others).collect();
            counts.sort_by_key(|(key, ..)| *key);
            let counts = counts.into_iter().map(|(key, row, requests)| self.count(key, row, requests)).collect();
            let findings = findings.into_iter().map(|(name, count)| self.finding(name, count)).collect();
            let notes = UsageNotes { id: self.id, counts, sightings, findings };
            if !notes.is_empty() {
                return Some(UnderWay { notes, is_full, kinds });
            }
        }
    }

    fn count(&self, key: KeyId, row: Row, requests: u64) -> UsageCount {
        let (rule, at) = (self.names.text(row.rule), row.at());
        UsageCount { key, rule, status: row.status, passage: row.passage, at, requests }
    }

    fn sighting(&self, key: KeyId, visit: &Visit) -> Sighting {
        let mut networks = visit.networks();
        // The first of a key's networks is no news, so their order counts.
        networks.sort_by_key(|seen| seen.first);
        Sighting { key, at: visit.at, address: self.shown(visit.address), agent: agent_text(visit.agent()), networks }
    }

    fn finding(&self, name: FindingName, count: FindingCount) -> Finding {
        Finding {
            rule: self.names.text(name.rule),
            reason: name.reason.into(),
            caller: name.caller,
            missing: name.missing.iter().map(|scope| scope.as_str().to_owned()).collect(),
            requests: count.requests,
            first: count.first,
            last: count.last,
        }
    }

    fn keep_events(&mut self, more: Vec<NewEvent>) {
        self.events.extend(more);
        let excess = self.events.len().saturating_sub(MAX_PENDING_EVENTS);
        if excess > 0 {
            let mut surplus = Surplus::of(self.events.iter().map(|new| (new.event.kind, 1)), MAX_PENDING_EVENTS);
            self.events.retain(|new| !surplus.takes(&new.event.kind));
            self.tally.drop_more(excess as u64);
        }
    }

    fn log(&self, event: &UsageEvent) {
        self.metrics.count_event(label(event.kind));
        let key_id = event.key.map(tracing::field::display);
        let address = event.address.map(tracing::field::display);
        tracing::warn!(event = event.kind.text(), key_id, address, detail = event.detail, "unusual use of a key");
    }
}

fn event(
    kind: EventKind,
    key: KeyId,
    address: Option<IpAddr>,
    at: Timestamp,
    detail: String,
    apart: Duration,
) -> NewEvent {
    NewEvent { event: UsageEvent { kind, key: Some(key), address, at, detail }, apart }
}

const fn label(kind: EventKind) -> EventLabel {
    match kind {
        EventKind::NewNetwork => EventLabel::NewNetwork,
        EventKind::ManyRefusals => EventLabel::ManyRefusals,
        EventKind::SecretKeyInBrowser => EventLabel::SecretKeyInBrowser,
    }
}

/// A `User-Agent` that can be shown, without any key that somebody put there.
fn agent_text(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() {
        return None;
    }
    let text = String::from_utf8_lossy(bytes);
    Some(without_keys(&visible(&text)).chars().take(MAX_AGENT_CHARS).collect())
}

#[cfg(test)]
impl Ledger {
    /// Writes everything now.
    async fn flush(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.gather(now);
        let (marked, noted) = (self.mark_used().await, self.note().await);
        self.take_back();
        marked.and(noted).and(self.tell().await)
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
