//! What report mode let pass, until it is written. Clients without a key are as many as there are addresses, so they are
//! given little room, and none of what keys need.

use hashbrown::HashMap;

use super::rules::RuleName;
use super::tally::{FindingCount, FindingName, Found};
use crate::store::{FoundCaller, MAX_FOUND_NETWORKS};

/// Findings and how often each came.
#[derive(Default)]
pub(super) struct Findings {
    found: HashMap<FindingName, FindingCount>,
    /// How many networks each rule and reason has.
    networks: HashMap<(RuleName, &'static str), usize>,
    /// How many findings are of no key.
    keyless: usize,
}

impl Findings {
    /// With room for so many before it grows.
    pub(super) fn with_capacity(findings: usize) -> Self {
        Self { found: HashMap::with_capacity(findings), ..Self::default() }
    }

    /// Adds what was found. At most `most` findings of keys are kept, and half as many of clients without a key; of those
    /// half by their network, the others are counted together. Answers whether there was room.
    pub(super) fn add(&mut self, found: &Found<'_>, count: FindingCount, most: usize) -> bool {
        if let Some(known) = self.found.get_mut(found) {
            known.add(count);
            return true;
        }
        match found.caller {
            FoundCaller::Key(_) if self.of_keys() >= most => return false,
            FoundCaller::Key(_) => {}
            FoundCaller::Network(_) => {
                let networks = self.networks.entry((found.rule, found.reason)).or_default();
                if *networks >= MAX_FOUND_NETWORKS || self.keyless >= most / 4 {
                    return self.add(&Found { caller: FoundCaller::Other, ..*found }, count, most);
                }
                *networks += 1;
                self.keyless += 1;
            }
            FoundCaller::Local | FoundCaller::Other if self.keyless >= most / 2 => return false,
            FoundCaller::Local | FoundCaller::Other => self.keyless += 1,
        }
        self.found.insert(found.to_name(), count);
        true
    }

    pub(super) fn len(&self) -> usize {
        self.found.len()
    }

    /// How many are of keys.
    pub(super) fn of_keys(&self) -> usize {
        self.found.len() - self.keyless
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&FindingName, &FindingCount)> {
        self.found.iter()
    }

    /// Everything that was found.
    pub(super) fn into_vec(self) -> Vec<(FindingName, FindingCount)> {
        self.found.into_iter().collect()
    }
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;
