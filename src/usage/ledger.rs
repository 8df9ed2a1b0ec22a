//! What was noted of requests on its way to the book: summed up, watched for what is unusual, written in batches.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hashbrown::HashMap;

use super::findings::Findings;
use super::graces::Graces;
use super::key_notes::KeyNote;
use super::last_use::LastUse;
use super::rules::RuleNames;
use super::tally::{Counted, FindingCount, FindingName, Noted, Tally};
use super::unusual::Refusals;
use super::visit::Visit;
use crate::domain::{KeyId, KeyKind, Timestamp, time, without_keys};
use crate::store::{
    AdditionId, EventKind, Finding, NewEvent, NewNetwork, Outage, Passage, Sighting, StoreError, Surplus, UsageBook,
    UsageCount, UsageEvent, UsageNotes,
};
use crate::telemetry::{EventLabel, Metrics, mask_address, visible};

/// How often is looked whether workers have room: what they have left is for more keys than can come meanwhile.
const LOOK: Duration = Duration::from_millis(250);
/// Most counts kept while the store is away, and most keys of which it is kept when they were used and where they came from,
/// unless workers have room for more.
const MAX_PENDING: usize = 262_144;
/// Most findings of keys.
const MAX_PENDING_FINDINGS: usize = MAX_PENDING / 4;
/// Most events kept while the store is away.
const MAX_PENDING_EVENTS: usize = 1_000;
/// Longest `User-Agent`, in characters.
const MAX_AGENT_CHARS: usize = 200;
/// Between two events of one kind and key, where they could come at any time.
const APART: Duration = Duration::from_secs(3600);

/// Most notes of each kind that are written at once: counts of quotas, which go the same way, wait for no more.
const BATCH: usize = 4_096;

/// What is to be written, in order of the tables: neighbouring rows stand on the same pages, so each page is written about
/// once. A batch of keys from everywhere would write every page of a large table, and the next one again.
struct Queue {
    counts: std::vec::IntoIter<Counted>,
    visits: std::vec::IntoIter<KeyId>,
}

/// What is written at once.
struct Batch {
    counts: Vec<Counted>,
    visits: Vec<KeyId>,
    findings: Vec<FindingName>,
}

/// A batch on its way to the book, and not known to be there.
struct UnderWay {
    notes: UsageNotes,
    kinds: HashMap<KeyId, KeyKind>,
}

impl UnderWay {
    /// Whether a network that is new to a key is worth telling: not for keys that everybody may have. Of a key that roams
    /// it is told once an hour.
    fn new_network(&self, new: NewNetwork) -> Option<NewEvent> {
        if *self.kinds.get(&new.key)? == KeyKind::Publishable {
            return None;
        }
        let sighting = self.notes.sightings.iter().find(|sighting| sighting.key == new.key)?;
        let at = sighting.networks.iter().find(|seen| seen.network == new.network)?.first;
        let address = sighting.address.filter(|address| new.network.contains(address));
        let apart = if new.others > 1 { APART } else { Duration::ZERO };
        let detail = format!("first use from {}", new.network);
        Some(event(EventKind::NewNetwork, new.key, address, at, detail, apart))
    }
}

/// Takes what workers note and writes it to the book. One task has it.
pub struct Ledger {
    tally: Arc<Tally>,
    names: Arc<RuleNames>,
    book: Arc<dyn UsageBook>,
    metrics: Metrics,
    /// Whether addresses are to be masked.
    masks: Arc<AtomicBool>,
    last_use: Arc<LastUse>,
    graces: Arc<Graces>,
    refusals: Refusals,
    counts: HashMap<Counted, u64>,
    visits: HashMap<KeyId, Visit>,
    findings: Findings,
    under_way: Option<UnderWay>,
    /// What that is brought under, or the next one.
    id: AdditionId,
    events: Vec<NewEvent>,
    /// The same for events.
    telling: Vec<NewEvent>,
    telling_id: AdditionId,
}

impl Ledger {
    /// What is noted in `tally` goes to `book`, when keys were last used to `last_use`, and which of them were to `graces`.
    /// While `masks` is true, addresses are kept without their last part.
    pub fn new(
        tally: Arc<Tally>,
        names: Arc<RuleNames>,
        book: Arc<dyn UsageBook>,
        last_use: Arc<LastUse>,
        graces: Arc<Graces>,
        metrics: Metrics,
        masks: Arc<AtomicBool>,
    ) -> Self {
        Self {
            tally,
            names,
            book,
            metrics,
            masks,
            last_use,
            graces,
            refusals: Refusals::default(),
            counts: HashMap::new(),
            visits: HashMap::new(),
            findings: Findings::default(),
            under_way: None,
            id: AdditionId::first(),
            events: Vec::new(),
            telling: Vec::new(),
            telling_id: AdditionId::first(),
        }
    }

    /// Writes what was noted since the last time, and tells what is unusual about it. What cannot be written is kept for
    /// the next time, as long as there is room.
    ///
    /// # Errors
    /// As any write. What was under way goes the same way again, and is counted once, whether or not it had arrived.
    pub async fn flush(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.gather(now);
        let mut queue = self.queue();
        loop {
            if self.under_way.is_none() {
                self.under_way = self.set_out(&mut queue);
            }
            let Some(UnderWay { notes, .. }) = &self.under_way else { break };
            let new = self.book.note_usage(notes.clone()).await?;
            self.id = self.id.next();
            if let Some(arrived) = self.under_way.take() {
                self.keep_events(new.into_iter().filter_map(|network| arrived.new_network(network)).collect());
            }
        }
        // Room that was needed while the store was away.
        self.counts = HashMap::new();
        self.visits = HashMap::new();
        self.findings = Findings::default();
        loop {
            if self.telling.is_empty() {
                self.telling = std::mem::take(&mut self.events);
            }
            if self.telling.is_empty() {
                return Ok(());
            }
            let written = self.book.note_events(self.telling_id, self.telling.clone()).await?;
            self.telling_id = self.telling_id.next();
            for (NewEvent { event, .. }, is_written) in std::mem::take(&mut self.telling).into_iter().zip(written) {
                if is_written {
                    self.tell(&event);
                }
            }
        }
    }

    /// Flushes at every interval until told to stop, and once more then; sooner when much is noted. Says once when the
    /// store goes away, and when it is back.
    pub async fn run(mut self, every: Duration, mut stop: tokio::sync::oneshot::Receiver<()>) {
        let mut outage = Outage::of("usage");
        let mut waited = Duration::ZERO;
        loop {
            let step = LOOK.min(every);
            let told = tokio::select! {
                () = tokio::time::sleep(step) => false,
                _ = &mut stop => true,
            };
            waited += step;
            if waited < every && !told && !self.tally.is_filling() {
                continue;
            }
            waited = Duration::ZERO;
            outage.attempt(self.flush(time::now()), told).await;
            if told {
                return;
            }
        }
    }

    /// Takes over what workers noted.
    fn gather(&mut self, now: Timestamp) {
        let tally = Arc::clone(&self.tally);
        let awaited = self.graces.awaited();
        let mut sums: HashMap<KeyId, (u64, u64)> = HashMap::new();
        for Noted { keys, counts, findings } in tally.take() {
            let used = keys.iter().filter_map(|(key, note)| Some((*key, note.used_at()?)));
            let used = used.inspect(|(key, _)| {
                if awaited.contains(key) {
                    self.graces.remember(*key);
                }
            });
            tally.drop_marks(self.last_use.add(used, self.most_pending()));
            for (key, KeyNote { visit, counted, .. }) in keys.into_iter() {
                if let Some((row, requests)) = counted {
                    self.add_count(Counted { key, row }, requests.into(), &mut sums);
                }
                if let Some(visit) = visit {
                    self.add_visit(key, visit);
                }
            }
            for (counted, requests) in counts {
                self.add_count(counted, requests, &mut sums);
            }
            for (name, count) in findings.iter() {
                if !self.findings.add(&name.as_found(), *count, MAX_PENDING_FINDINGS) {
                    self.tally.drop_more(1);
                }
            }
        }
        let mut events = Vec::new();
        for (key, (requests, refused)) in sums {
            if let Some((requests, refused)) = self.refusals.add(key, requests, refused, now) {
                let detail = format!("{refused} of {requests} requests of the last hour were refused");
                let address = self.visits.get(&key).and_then(|visit| self.shown(visit.address));
                events.push(event(EventKind::ManyRefusals, key, address, now, detail, APART));
            }
        }
        self.keep_events(events);
        self.refusals.sweep(now);
    }

    /// Takes over a count, and adds it to the requests and refusals of its key.
    fn add_count(&mut self, counted: Counted, requests: u64, sums: &mut HashMap<KeyId, (u64, u64)>) {
        let sum = sums.entry(counted.key).or_default();
        sum.0 += requests;
        sum.1 += if counted.row.passage == Passage::Refused { requests } else { 0 };
        if self.counts.len() >= self.most_pending() && !self.counts.contains_key(&counted) {
            return self.tally.drop_more(1);
        }
        *self.counts.entry(counted).or_default() += requests;
    }

    fn add_visit(&mut self, key: KeyId, visit: Visit) {
        if let Some((address, at)) = visit.browser() {
            let detail = "a browser sent this secret key: whoever sees the page can read it".to_owned();
            let told = event(EventKind::SecretKeyInBrowser, key, self.shown(address), at, detail, APART);
            self.keep_events(vec![told]);
        }
        if let Some(known) = self.visits.get_mut(&key) {
            known.add(visit);
        } else if self.visits.len() < self.most_pending() {
            self.visits.insert(key, visit);
        } else {
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

    fn queue(&self) -> Queue {
        let mut counts: Vec<Counted> = self.counts.keys().copied().collect();
        counts.sort_unstable();
        let mut visits: Vec<KeyId> = self.visits.keys().copied().collect();
        visits.sort_unstable();
        Queue { counts: counts.into_iter(), visits: visits.into_iter() }
    }

    /// Takes out what is written next, if there is anything.
    fn set_out(&mut self, queue: &mut Queue) -> Option<UnderWay> {
        let batch = self.batch(queue);
        let notes = self.notes(&batch);
        if notes.is_empty() {
            return None;
        }
        let kind = |key: &KeyId| self.visits.get(key).map(|visit| (*key, visit.kind));
        let kinds = batch.visits.iter().filter_map(kind).collect();
        self.forget(&batch);
        Some(UnderWay { notes, kinds })
    }

    fn batch(&self, queue: &mut Queue) -> Batch {
        Batch {
            counts: queue.counts.by_ref().take(BATCH).collect(),
            visits: queue.visits.by_ref().take(BATCH).collect(),
            findings: self.findings.iter().take(BATCH).map(|(name, _)| name.clone()).collect(),
        }
    }

    fn forget(&mut self, batch: &Batch) {
        for counted in &batch.counts {
            self.counts.remove(counted);
        }
        for key in &batch.visits {
            self.visits.remove(key);
        }
        for name in &batch.findings {
            self.findings.remove(name);
        }
    }

    /// A batch, as the book takes it.
    fn notes(&self, batch: &Batch) -> UsageNotes {
        let count = |(counted, requests): (&Counted, &u64)| UsageCount {
            key: counted.key,
            rule: self.names.text(counted.row.rule),
            status: counted.row.status,
            passage: counted.row.passage,
            at: counted.row.at(),
            requests: *requests,
        };
        let finding = |(name, count): (&FindingName, &FindingCount)| Finding {
            rule: self.names.text(name.rule),
            reason: name.reason.into(),
            caller: name.caller,
            missing: name.missing.iter().map(|scope| scope.as_str().to_owned()).collect(),
            requests: count.requests,
            first: count.first,
            last: count.last,
        };
        let sighting = |(key, visit): (&KeyId, &Visit)| {
            let mut networks = visit.networks();
            // The first of a key's networks is no news, so their order counts.
            networks.sort_by_key(|seen| seen.first);
            let (address, agent) = (self.shown(visit.address), agent_text(visit.agent()));
            Sighting { key: *key, at: visit.at, address, agent, networks }
        };
        let sightings = batch.visits.iter().filter_map(|key| self.visits.get_key_value(key));
        let sightings = sightings.map(sighting).collect();
        let counts = batch.counts.iter().filter_map(|counted| self.counts.get_key_value(counted));
        let counts: Vec<UsageCount> = counts.map(count).collect();
        let findings = batch.findings.iter().filter_map(|name| Some((name, self.findings.get(name)?)));
        UsageNotes { id: self.id, counts, sightings, findings: findings.map(finding).collect() }
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

    fn tell(&self, event: &UsageEvent) {
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
#[path = "ledger_tests.rs"]
mod tests;
