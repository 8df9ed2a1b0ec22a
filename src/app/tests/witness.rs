//! Who still accepts what was revoked, and whether they may.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use super::fleet::Gateway;
use super::trace::{Event, Way, now_ms};
use crate::domain::{KeyHash, Revision};

/// What must be refused everywhere.
pub(super) struct Watched {
    pub(super) key: u32,
    pub(super) hash: KeyHash,
    pub(super) revision: Revision,
    /// When it was committed.
    at: u64,
    /// Whether the commit was lost.
    pub(super) is_lost: bool,
    /// Whether somebody was told that nobody accepts it any more.
    pub(super) is_complete: bool,
    /// Gateways that accepted it when it was committed, and have not refused it since: whether they were told.
    accepting: BTreeMap<usize, Accepting>,
    /// Gateways that have learnt of it, as long as they live.
    refusing: Vec<Arc<Gateway>>,
}

struct Accepting {
    gateway: Arc<Gateway>,
    is_told: bool,
    was_cut: bool,
}

/// How a gateway came to refuse a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum How {
    /// It was told of the commit.
    Told,
    /// It found it by polling.
    Polled,
    /// Something was wrong with its way meanwhile.
    Troubled,
    /// It was cut off for a while.
    CutOff,
    /// It was cut off for so long that it answers nobody.
    Stale,
}

/// See the module.
#[derive(Default)]
pub(super) struct Witness {
    pub(super) watched: Vec<Watched>,
    /// Milliseconds from the commit to the refusal.
    pub(super) times: BTreeMap<How, Vec<u64>>,
    /// How often somebody waited for all, and was told that it is complete.
    pub(super) waits: u64,
    pub(super) complete: u64,
    /// The first thing that must not be: at which gateway, and what.
    pub(super) failure: Option<(Option<usize>, String)>,
}

impl Witness {
    /// From now on this must be refused.
    pub(super) fn watch(&mut self, key: u32, hash: KeyHash, revision: Revision, gateways: &[Option<Arc<Gateway>>]) {
        let accepting = gateways.iter().flatten().filter(|gateway| gateway.accepts(&hash));
        let accepting = accepting.map(|gateway| {
            (gateway.number, Accepting { gateway: Arc::clone(gateway), is_told: false, was_cut: false })
        });
        self.watched.push(Watched {
            key,
            hash,
            revision,
            at: now_ms(),
            is_lost: false,
            is_complete: false,
            accepting: accepting.collect(),
            refusing: Vec::new(),
        });
    }

    /// A gateway was told of a commit, or commits it itself.
    pub(super) fn is_told(&mut self, gateway: usize, revision: Revision) {
        for watched in self.watched.iter_mut().rev().take_while(|watched| watched.revision >= revision) {
            if watched.revision == revision
                && let Some(accepting) = watched.accepting.get_mut(&gateway)
            {
                accepting.is_told = true;
            }
        }
    }

    /// The commits after this one are lost.
    pub(super) fn lose(&mut self, after: Revision) {
        for watched in self.watched.iter_mut().filter(|watched| watched.revision > after) {
            watched.is_lost = true;
            watched.accepting.clear();
        }
    }

    /// A gateway is no more.
    pub(super) fn is_gone(&mut self, gateway: usize) {
        for watched in &mut self.watched {
            watched.accepting.remove(&gateway);
            watched.refusing.retain(|refusing| refusing.number != gateway);
        }
    }

    /// Looks at what one gateway, or all, still accept; returns what is refused since.
    pub(super) fn look(&mut self, only: Option<usize>) -> Vec<(usize, Event)> {
        let now = now_ms();
        let mut refused = Vec::new();
        for index in 0..self.watched.len() {
            let watched = &mut self.watched[index];
            if watched.accepting.is_empty() {
                continue;
            }
            let numbers: Vec<usize> = match only {
                Some(number) => watched.accepting.contains_key(&number).then_some(number).into_iter().collect(),
                None => watched.accepting.keys().copied().collect(),
            };
            for number in numbers {
                let watched = &mut self.watched[index];
                let Some(accepting) = watched.accepting.get_mut(&number) else { continue };
                accepting.was_cut |= accepting.gateway.link.way() != Way::Open;
                if accepting.gateway.accepts(&watched.hash) {
                    let (gateway, is_told) = (Arc::clone(&accepting.gateway), accepting.is_told);
                    self.judge(index, &gateway, is_told, now);
                    continue;
                }
                let Some(Accepting { gateway, is_told, was_cut }) = watched.accepting.remove(&number) else { continue };
                let after = now - watched.at;
                let is_untroubled = gateway.link.untroubled_since().is_some_and(|since| since <= watched.at);
                let how = if gateway.would_accept(&watched.hash) {
                    How::Stale
                } else if was_cut {
                    How::CutOff
                } else if !is_untroubled {
                    How::Troubled
                } else if is_told {
                    How::Told
                } else {
                    How::Polled
                };
                refused.push((number, Event::Refuses(watched.key, after)));
                if how != How::Stale {
                    watched.refusing.push(gateway);
                }
                self.times.entry(how).or_default().push(after);
            }
        }
        refused
    }

    /// Looks whether a gateway accepts one of what is watched, and whether it may.
    pub(super) fn probe(&mut self, index: usize, gateway: &Arc<Gateway>) {
        let watched = &self.watched[index];
        if watched.is_lost {
            if watched.refusing.iter().any(|refusing| Arc::ptr_eq(refusing, gateway)) && gateway.accepts(&watched.hash)
            {
                let key = watched.key;
                self.blame(
                    Some(gateway.number),
                    format!("accepts key {key} again, which it saw revoked before the commit was lost"),
                );
            }
        } else if gateway.accepts(&watched.hash) {
            self.judge(index, gateway, false, now_ms());
        }
    }

    /// A gateway accepts what is watched: whether it may, now.
    fn judge(&mut self, index: usize, gateway: &Gateway, is_told: bool, now: u64) {
        let Watched { key, at, is_lost, is_complete, .. } = self.watched[index];
        let after = now - at;
        if is_lost {
            return;
        }
        let says = format!("accepts key {key} {after} ms after it was revoked");
        if is_complete {
            return self.blame(Some(gateway.number), format!("{says}, and after somebody was told that all refuse it"));
        }
        if gateway.max_staleness_ms().is_some_and(|most| after > most + 2) {
            return self.blame(Some(gateway.number), format!("{says}; that is longer than its max_staleness"));
        }
        let Some(since) = gateway.link.untroubled_since() else { return };
        let bound =
            if is_told && since <= at { gateway.link.bound_when_told() } else { gateway.link.bound_when_polling() };
        if now - since.max(at) > bound {
            self.blame(Some(gateway.number), format!("{says}; nothing kept it from refusing it within {bound} ms"));
        }
    }

    /// Somebody was told that all refuse it: that must be so now.
    pub(super) fn is_answered(&mut self, index: usize, gateways: &[Option<Arc<Gateway>>]) {
        if self.watched[index].is_lost {
            let key = self.watched[index].key;
            return self
                .blame(None, format!("that all refuse key {key} was said, but the store has lost its revocation"));
        }
        self.watched[index].is_complete = true;
        for gateway in gateways.iter().flatten() {
            self.probe(index, gateway);
        }
    }

    /// Notes what must not be.
    pub(super) fn blame(&mut self, gateway: Option<usize>, what: String) {
        self.failure.get_or_insert((gateway, what));
    }

    /// How long it took, for people.
    pub(super) fn table(&mut self) -> String {
        let mut table = format!(
            "{:<10}{:>8}{:>9}{:>9}{:>9}{:>9}{:>9}   ms from the commit to the refusal\n",
            "gateways", "refusals", "p50", "p90", "p99", "p99.9", "most"
        );
        for (how, times) in &mut self.times {
            times.sort_unstable();
            let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
            let [p50, p90, p99, p999, most] = [0.5, 0.9, 0.99, 0.999, 1.0].map(at);
            let _ = writeln!(
                table,
                "{:<10}{:>8}{p50:>9}{p90:>9}{p99:>9}{p999:>9}{most:>9}",
                format!("{how:?}"),
                times.len()
            );
        }
        table
    }
}
