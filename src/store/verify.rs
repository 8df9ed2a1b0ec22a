//! The walk along the audit trail that finds what is not as it was written.
//!
//! Owns what a sound trail is. Must not know where rows live: they are handed over in order of their numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::audit::{Action, Dropped};
use super::seal::{AuditHead, AuditMac, AuditSeal};
use super::trail::{Anchor, AuditEntry};
use crate::domain::Timestamp;

/// What a walk along the trail found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verification {
    /// How many entries were looked at.
    pub entries: u64,
    /// The number of the first one.
    pub first: Option<u64>,
    /// The last one that is as it was written: the head, unless there is a breach.
    pub head: AuditHead,
    /// How many are from before there was a chain. Nothing shows whether they were changed.
    pub unsealed: u64,
    /// How many are chained without a key: whoever can write to the store could have written them.
    pub unkeyed: u64,
    /// How many are sealed with each key that is at hand.
    pub keyed: BTreeMap<String, u64>,
    /// How many are sealed with keys that are not at hand: nothing shows whether these were changed.
    pub unverifiable: BTreeMap<String, u64>,
    /// What retention took, as the trail itself says.
    pub dropped: Option<DroppedEntries>,
    /// The first entry that is not as it was written, and why; nothing behind it was looked at.
    pub breach: Option<(u64, Breach)>,
}

/// What retention took from the front of the trail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DroppedEntries {
    /// The number of the last one.
    pub through: u64,
    /// When that one was made.
    pub newest: Timestamp,
    /// When it was dropped.
    pub at: Timestamp,
    /// The retention that was configured then.
    pub retention: Duration,
}

/// Why an entry is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Breach {
    /// It is missing, and so are those up to this one.
    Missing {
        /// The last one of the gap.
        through: u64,
    },
    /// Its number comes where another is due: it was put in, or should have been dropped.
    Extra,
    /// A column of it does not hold what the store writes.
    Unreadable(String),
    /// Its mac is not that of its columns and the entry before it.
    Changed,
    /// It has no mac, though entries before it have one.
    Unsealed,
    /// It is chained without a key, though a key is configured and entries before it have one.
    Unkeyed,
    /// The mark of what was dropped is not what the trail says about it.
    Anchor,
    /// The entries up to this one were dropped younger than the retention of the time allowed.
    DroppedEarly,
    /// It is not the entry that had this number when the head was noted.
    OtherHead,
    /// The trail ends before it, though the head was noted with it.
    CutOff {
        /// Where the trail ends.
        end: u64,
    },
    /// The head that was noted is of an entry that retention has dropped since; a newer one can be compared.
    HeadDropped,
}

impl Verification {
    /// Whether every entry is as it was written; those sealed with the keys in `without` are taken on trust.
    pub fn is_sound(&self, without: &[String]) -> bool {
        self.breach.is_none() && self.unverifiable.keys().all(|key| without.contains(key))
    }
}

impl Breach {
    /// One word for programs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::Extra => "extra",
            Self::Unreadable(_) => "unreadable",
            Self::Changed => "changed",
            Self::Unsealed => "unsealed",
            Self::Unkeyed => "unkeyed",
            Self::Anchor => "anchor",
            Self::DroppedEarly => "dropped_early",
            Self::OtherHead => "other_head",
            Self::CutOff { .. } => "cut_off",
            Self::HeadDropped => "head_dropped",
        }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { through } => write!(f, "it is missing, and so is all up to entry {through}"),
            Self::Extra => f.write_str("its number comes where another one is due: it was put in or moved"),
            Self::Unreadable(found) => write!(f, "a column holds what the store never writes: {found}"),
            Self::Changed => f.write_str("its mac is not that of its columns behind the entry before it"),
            Self::Unsealed => f.write_str("it has no mac, though entries before it have one"),
            Self::Unkeyed => f.write_str("its mac needs no pepper, though entries before it have one that does"),
            Self::Anchor => f.write_str("what was dropped up to it is not what the trail says was dropped"),
            Self::DroppedEarly => f.write_str("it tells of entries that were dropped before their time"),
            Self::OtherHead => {
                f.write_str("it is another one than when the head was noted: the trail was written anew")
            }
            Self::CutOff { end } => write!(f, "the trail ends at entry {end}: what came behind it was cut off"),
            Self::HeadDropped => f.write_str("it was dropped since the head was noted; compare a newer head"),
        }
    }
}

/// Takes rows in order of their numbers and judges each by those before it.
pub(super) struct Verifier<'a> {
    seal: &'a AuditSeal,
    anchor: Option<Anchor>,
    noted: Option<AuditHead>,
    told: Option<Anchor>,
    report: Verification,
}

/// Whether there is any use in going on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Walk {
    On,
    Stop,
}

impl<'a> Verifier<'a> {
    /// A walk that begins behind what was dropped. `noted` is a head from earlier.
    pub(super) fn new(seal: &'a AuditSeal, anchor: Option<Anchor>, noted: Option<AuditHead>) -> Self {
        let head = anchor.map(|anchor| anchor.last).unwrap_or_default();
        Self { seal, anchor, noted, told: None, report: Verification { head, ..Verification::default() } }
    }

    /// Looks at the next row.
    pub(super) fn take(&mut self, row: &AuditEntry) -> Walk {
        match self.judge(row) {
            Ok(mac) => {
                self.report.head = AuditHead { entry: row.entry, mac };
                self.report.entries += 1;
                self.report.first.get_or_insert(row.entry);
                Walk::On
            }
            Err((entry, breach)) => self.stop(entry, breach),
        }
    }

    /// The next row cannot be read.
    pub(super) fn take_unreadable(&mut self, found: String) -> Walk {
        self.stop(self.report.head.entry + 1, Breach::Unreadable(found))
    }

    fn stop(&mut self, entry: u64, breach: Breach) -> Walk {
        self.report.breach = Some((entry, breach));
        Walk::Stop
    }

    /// The mac that the next row builds on.
    fn judge(&mut self, row: &AuditEntry) -> Result<AuditMac, (u64, Breach)> {
        let AuditHead { entry: last, mac: previous } = self.report.head;
        let here = |breach| Err((row.entry, breach));
        if row.entry > last + 1 {
            return Err((last + 1, Breach::Missing { through: row.entry - 1 }));
        }
        if row.entry <= last {
            return here(Breach::Extra);
        }
        let is_chained = previous != AuditMac::default();
        let mac = match &row.sealed {
            None if is_chained => return here(Breach::Unsealed),
            None => {
                self.report.unsealed += 1;
                AuditMac::default()
            }
            Some(sealed) => {
                let has_been_keyed = !self.report.keyed.is_empty() || !self.report.unverifiable.is_empty();
                match (&sealed.key, self.seal.check(previous, row, sealed)) {
                    (_, Some(false)) => return here(Breach::Changed),
                    (None, _) if self.seal.is_keyed() && has_been_keyed => return here(Breach::Unkeyed),
                    (None, _) => self.report.unkeyed += 1,
                    (Some(key), Some(true)) => *self.report.keyed.entry(key.clone()).or_default() += 1,
                    (Some(key), None) => *self.report.unverifiable.entry(key.clone()).or_default() += 1,
                }
                sealed.mac
            }
        };
        if self.noted.is_some_and(|noted| noted.entry == row.entry && noted.mac != mac) {
            return here(Breach::OtherHead);
        }
        if row.action == Action::AuditForget.name() {
            self.hear_of_dropping(row).map_err(|breach| (row.entry, breach))?;
        }
        Ok(mac)
    }

    fn hear_of_dropping(&mut self, row: &AuditEntry) -> Result<(), Breach> {
        let told = row.after.as_deref().and_then(Dropped::read).ok_or(Breach::Anchor)?;
        if row.at.since(told.last_at) < told.retention {
            return Err(Breach::DroppedEarly);
        }
        self.told = Some(Anchor { last: told.last, at: told.last_at });
        self.report.dropped = Some(DroppedEntries {
            through: told.last.entry,
            newest: told.last_at,
            at: row.at,
            retention: told.retention,
        });
        Ok(())
    }

    /// What was found, once there are no more rows.
    pub(super) fn conclude(mut self) -> Verification {
        let breach = self.report.breach.take().or_else(|| self.find_at_the_ends());
        Verification { breach, ..self.report }
    }

    fn find_at_the_ends(&self) -> Option<(u64, Breach)> {
        let entry_of = |anchor: &Anchor| anchor.last.entry;
        if self.anchor != self.told {
            return self.anchor.as_ref().or(self.told.as_ref()).map(|anchor| (entry_of(anchor), Breach::Anchor));
        }
        let noted = self.noted?;
        let end = self.report.head.entry;
        let dropped = self.anchor.map_or(AuditHead::default(), |anchor| anchor.last);
        if noted.entry > end {
            Some((end + 1, Breach::CutOff { end }))
        } else if noted.entry < dropped.entry {
            Some((noted.entry, Breach::HeadDropped))
        } else if noted.entry == dropped.entry && noted.mac != dropped.mac {
            Some((noted.entry, Breach::OtherHead))
        } else {
            None
        }
    }
}
