//! What requests leave behind, for as long as the process lives.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::{KeyId, Timestamp};
use crate::store::api::Answer;
use crate::store::surplus::Surplus;
use crate::store::usage::{
    AdditionId, EventQuery, Finding, FoundCaller, HOURS_KEPT, KeyUsage, LastSeen, MAX_COUNTS, MAX_EVENTS, MAX_FINDINGS,
    MAX_FOUND_NETWORKS, MAX_KEYLESS_FINDINGS, MAX_NETWORKS, MAX_TIDIED_AT_ONCE, NetworkSeen, NewEvent, NewNetwork,
    Passage, Sighting, Span, Tidied, UsageBook, UsageBucket, UsageEvent, UsageNotes, UsageQuery, at_hour,
};

/// See the module.
#[derive(Default)]
pub(in crate::store) struct MemoryUsage {
    state: Mutex<State>,
}

/// What names a count: where its bucket begins, its key, its length, its rule, its status, what became of it.
type CountName = (KeyId, i64, Span, Arc<str>, u16, Passage);

/// What names a finding.
type FindingName = (Arc<str>, String, FoundCaller, Vec<String>);

#[derive(Default)]
struct State {
    counts: BTreeMap<CountName, u64>,
    seen: HashMap<KeyId, LastSeen>,
    networks: HashMap<KeyId, Vec<NetworkSeen>>,
    events: VecDeque<UsageEvent>,
    findings: BTreeMap<FindingName, Found>,
}

struct Found {
    requests: u64,
    first: Timestamp,
    last: Timestamp,
}

impl State {
    fn add(&mut self, name: CountName, requests: u64) {
        let total = self.counts.entry(name).or_default();
        *total = total.saturating_add(requests);
    }

    fn see(&mut self, sighting: Sighting, new: &mut Vec<NewNetwork>) {
        let Sighting { key, at, address, agent, networks } = sighting;
        if self.seen.get(&key).is_none_or(|seen| seen.at <= at) {
            self.seen.insert(key, LastSeen { at, address, agent });
        }
        let known = self.networks.entry(key).or_default();
        for seen in networks {
            if let Some(known) = known.iter_mut().find(|known| known.network == seen.network) {
                known.first = known.first.min(seen.first);
                known.last = known.last.max(seen.last);
                continue;
            }
            let others = known.len();
            if others > 0 {
                new.push(NewNetwork { key, network: seen.network, others });
            }
            if others >= MAX_NETWORKS {
                let oldest = known.iter().enumerate().min_by_key(|(_, known)| known.last).map(|(at, _)| at);
                oldest.map(|at| known.swap_remove(at));
            }
            known.push(seen);
        }
    }

    fn find(&mut self, finding: Finding) {
        let Finding { rule, reason, caller, missing, requests, first, last } = finding;
        let mut name = (rule, reason.into_owned(), caller, missing);
        if matches!(caller, FoundCaller::Network(_)) && !self.findings.contains_key(&name) {
            let is_alike = |(rule, reason, caller, _): &&FindingName| {
                matches!(caller, FoundCaller::Network(_)) && (rule, reason) == (&name.0, &name.1)
            };
            if self.findings.keys().filter(is_alike).count() >= MAX_FOUND_NETWORKS {
                name.2 = FoundCaller::Other;
            }
        }
        let is_of_key = |(_, _, caller, _): &FindingName| matches!(caller, FoundCaller::Key(_));
        let (of_key, most) = if is_of_key(&name) { (true, MAX_FINDINGS) } else { (false, MAX_KEYLESS_FINDINGS) };
        let found = self.findings.entry(name).or_insert(Found { requests: 0, first, last });
        found.requests = found.requests.saturating_add(requests);
        found.first = found.first.min(first);
        found.last = found.last.max(last);
        let alike = || self.findings.iter().filter(|(name, _)| is_of_key(name) == of_key);
        if alike().count() > most {
            let oldest = alike().min_by_key(|(_, found)| found.last).map(|(name, _)| name.clone());
            oldest.and_then(|name| self.findings.remove(&name));
        }
    }

    fn tell(&mut self, NewEvent { event, apart }: NewEvent) -> bool {
        let alike = self.events.iter().filter(|known| known.kind == event.kind && known.key == event.key);
        let is_told = !apart.is_zero() && alike.map(|known| known.at).max().is_some_and(|at| event.at < at.plus(apart));
        if !is_told {
            self.events.push_back(event);
        }
        !is_told
    }

    fn forget_events(&mut self) {
        if self.events.len() > MAX_EVENTS {
            let mut surplus = Surplus::of(self.events.iter().map(|event| (event.kind, 1)), MAX_EVENTS);
            self.events.retain(|event| !surplus.takes(&event.kind));
        }
    }

    fn tidy(&mut self, retention: Duration, now: Timestamp) -> Tidied {
        let mut left = MAX_TIDIED_AT_ONCE;
        let oldest = now.minus(retention);
        let border = oldest.unix_seconds().div_euclid(3600);
        let mut dropped = self.take(&mut left, |(_, begins, span, ..)| begins + span.hours() <= border).len();
        let rows = |state: &Self| state.seen.len() + state.events.len() + state.findings.len() + state.networks.len();
        let before = rows(self);
        self.seen.retain(|_, seen| seen.at >= oldest);
        self.networks.retain(|_, networks| {
            networks.retain(|seen| seen.last >= oldest);
            !networks.is_empty()
        });
        self.events.retain(|event| event.at >= oldest);
        self.findings.retain(|_, found| found.last >= oldest);
        dropped += before - rows(self);
        let border = Span::Day.holding(now.minus(HOURS_KEPT));
        let hours = self.take(&mut left, |(_, begins, span, ..)| *span == Span::Hour && *begins < border);
        let merged = hours.len();
        for ((key, begins, _, rule, status, passage), requests) in hours {
            self.add((key, Span::Day.holding(at_hour(begins)), Span::Day, rule, status, passage), requests);
        }
        let excess = self.counts.len().saturating_sub(MAX_COUNTS).min(left);
        let mut by_age: Vec<CountName> = if excess > 0 { self.counts.keys().cloned().collect() } else { Vec::new() };
        by_age.sort_by_key(|(_, begins, span, ..)| (*span != Span::Day, *begins));
        by_age.truncate(excess);
        for name in &by_age {
            self.counts.remove(name);
        }
        Tidied { merged, dropped, evicted: by_age.len() }
    }

    /// Takes out at most `left` of the counts that are meant, the oldest first.
    fn take(&mut self, left: &mut usize, is_meant: impl Fn(&CountName) -> bool) -> Vec<(CountName, u64)> {
        let mut meant: Vec<CountName> = self.counts.keys().filter(|name| is_meant(name)).cloned().collect();
        meant.sort_by_key(|(_, begins, ..)| *begins);
        meant.truncate(*left);
        *left -= meant.len();
        meant.into_iter().filter_map(|name| self.counts.remove_entry(&name)).collect()
    }

    fn usage(&self, query: &UsageQuery) -> KeyUsage {
        let reaches = |begins: i64, span: Span| at_hour(begins + span.hours()) > hour_of(query.since);
        let first = (query.key, i64::MIN, Span::Hour, Arc::from(""), 0, Passage::Allowed);
        let of_key = self.counts.range(first..).take_while(|((key, ..), _)| *key == query.key);
        let meant = of_key.filter(|((_, begins, span, ..), requests)| {
            **requests > 0 && reaches(*begins, *span) && at_hour(*begins) < query.until
        });
        let mut totals: BTreeMap<(Passage, u16), u64> = BTreeMap::new();
        let mut buckets = Vec::new();
        for ((_, begins, span, rule, status, passage), requests) in meant {
            *totals.entry((*passage, *status)).or_default() += requests;
            buckets.push(UsageBucket {
                begins: at_hour(*begins),
                span: *span,
                rule: Arc::clone(rule),
                status: *status,
                passage: *passage,
                requests: *requests,
            });
        }
        buckets.sort_by(|a, b| {
            (b.begins, a.span, &a.rule, a.status, a.passage).cmp(&(a.begins, b.span, &b.rule, b.status, b.passage))
        });
        let more = buckets.len() > query.limit;
        buckets.truncate(query.limit);
        let mut networks = self.networks.get(&query.key).cloned().unwrap_or_default();
        networks.sort_by_key(|seen| std::cmp::Reverse(seen.last));
        let totals = totals.into_iter().map(|((passage, status), requests)| (passage, status, requests)).collect();
        KeyUsage { totals, buckets, more, seen: self.seen.get(&query.key).cloned(), networks }
    }
}

fn hour_of(moment: Timestamp) -> Timestamp {
    at_hour(Span::Hour.holding(moment))
}

impl UsageBook for MemoryUsage {
    fn note_usage(&self, notes: UsageNotes) -> Answer<'_, Vec<NewNetwork>> {
        Box::pin(async move {
            let mut state = self.state.lock();
            for count in notes.counts {
                let begins = Span::Hour.holding(count.at);
                let name = (count.key, begins, Span::Hour, count.rule, count.status, count.passage);
                state.add(name, count.requests);
            }
            let mut new = Vec::new();
            notes.sightings.into_iter().for_each(|sighting| state.see(sighting, &mut new));
            notes.findings.into_iter().for_each(|finding| state.find(finding));
            Ok(new)
        })
    }

    fn note_events(&self, _: AdditionId, events: Vec<NewEvent>) -> Answer<'_, Vec<bool>> {
        Box::pin(async move {
            let mut state = self.state.lock();
            let written = events.into_iter().map(|event| state.tell(event)).collect();
            state.forget_events();
            Ok(written)
        })
    }

    fn tidy_usage(&self, retention: Duration, now: Timestamp) -> Answer<'_, Tidied> {
        Box::pin(async move { Ok(self.state.lock().tidy(retention, now)) })
    }

    fn key_usage(&self, query: UsageQuery) -> Answer<'_, KeyUsage> {
        Box::pin(async move { Ok(self.state.lock().usage(&query)) })
    }

    fn rules_passed(&self, keys: Vec<KeyId>) -> Answer<'_, Vec<(KeyId, Arc<str>)>> {
        Box::pin(async move {
            let state = self.state.lock();
            let mut passed = Vec::new();
            for key in keys {
                let first = (key, i64::MIN, Span::Hour, Arc::from(""), 0, Passage::Allowed);
                let of_key = state.counts.range(first..).take_while(|((of, ..), _)| *of == key);
                let rules: BTreeSet<&Arc<str>> = of_key
                    .filter(|((.., passage), _)| *passage == Passage::Allowed)
                    .map(|((_, _, _, rule, ..), _)| rule)
                    .collect();
                passed.extend(rules.into_iter().map(|rule| (key, Arc::clone(rule))));
            }
            Ok(passed)
        })
    }

    fn findings(&self) -> Answer<'_, Vec<Finding>> {
        Box::pin(async move {
            let state = self.state.lock();
            let finding = |((rule, reason, caller, missing), found): (&FindingName, &Found)| Finding {
                rule: Arc::clone(rule),
                reason: reason.clone().into(),
                caller: *caller,
                missing: missing.clone(),
                requests: found.requests,
                first: found.first,
                last: found.last,
            };
            let mut found: Vec<Finding> = state.findings.iter().map(finding).collect();
            found.sort_by(|a, b| (&a.rule, b.last).cmp(&(&b.rule, a.last)));
            Ok(found)
        })
    }

    fn list_events(&self, query: EventQuery) -> Answer<'_, Vec<UsageEvent>> {
        Box::pin(async move {
            let state = self.state.lock();
            let of_key = |event: &&UsageEvent| query.key.is_none_or(|key| event.key == Some(key));
            Ok(state.events.iter().rev().filter(of_key).take(query.limit).cloned().collect())
        })
    }

    fn counted_since(&self) -> Answer<'_, Option<Timestamp>> {
        Box::pin(async move { Ok(self.state.lock().counts.keys().map(|(_, begins, ..)| at_hour(*begins)).min()) })
    }
}
