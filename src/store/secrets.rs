//! Whether secrets are those that the store was written with.
//!
//! A pepper with the right id and another secret is a mistake that nothing else shows: each key hashes to something that
//! nobody has, so all are refused as unknown, and what is written breaks the chain of the audit trail. Owns the look at
//! the trail's end that tells. Must not know where rows live.

use std::collections::BTreeMap;
use std::fmt;

use super::Store;
use super::error::StoreError;
use super::seal::{AuditMac, AuditSeal};
use super::trail::{AuditEntry, AuditQuery};

/// How many entries at the end of the trail are looked at. One that was tampered with is no reason to refuse to start, and
/// all of them seldom are.
const NEWEST: usize = 64;

/// A pepper has another secret than the one that the store was written with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OtherSecret {
    /// The pepper's id.
    pub pepper: String,
    /// How many entries it was tried on.
    pub tried: usize,
}

impl Store {
    /// Looks for a pepper in use that fits none of the newest entries that name it. One that none of them names is taken
    /// on trust.
    ///
    /// # Errors
    /// The store's.
    pub async fn find_other_secret(&self) -> Result<Option<OtherSecret>, StoreError> {
        self.find_other_secret_of(&self.seal.load_full()).await
    }

    /// As [`Self::find_other_secret`], before a seal is used.
    ///
    /// # Errors
    /// The store's.
    pub async fn find_other_secret_of(&self, seal: &AuditSeal) -> Result<Option<OtherSecret>, StoreError> {
        if !seal.is_keyed() {
            return Ok(None);
        }
        // One more: each is sealed behind another.
        let page = self.audit().list_audit(AuditQuery { limit: NEWEST + 1, ..AuditQuery::default() }).await?;
        Ok(other_secret(&page.items, seal))
    }
}

impl fmt::Display for OtherSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pepper, tried } = self;
        let entries =
            if *tried == 1 { "the newest entry".to_owned() } else { format!("none of the newest {tried} entries") };
        let fits = if *tried == 1 { "does not fit" } else { "fits" };
        write!(
            f,
            "auth.peppers: `{pepper}` has another secret here than where the store was written to: {entries} of its audit \
             trail that names it {fits}. With it every key would be refused, and what is written would break the trail. \
             Give every gateway and command the same secret; a new one needs an id of its own. If it is the right one, the trail was changed: `portcullis \
             audit verify` says where"
        )
    }
}

impl std::error::Error for OtherSecret {}

/// As [`Store::find_other_secret`], of entries that follow each other, the newest first.
fn other_secret(entries: &[AuditEntry], seal: &AuditSeal) -> Option<OtherSecret> {
    // By pepper: on how many it was tried, and whether it fits any.
    let mut tried: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
    for (entry, behind) in entries.iter().zip(1..) {
        let before = match entries.get(behind) {
            Some(before) => before.head().mac,
            None if entry.entry == 1 => AuditMac::default(),
            None => continue,
        };
        let Some(sealed) = &entry.sealed else { continue };
        let Some(pepper) = sealed.key.as_deref() else { continue };
        let Some(fits) = seal.check(before, entry, sealed) else { continue };
        let (number, any) = tried.entry(pepper).or_default();
        *number += 1;
        *any |= fits;
    }
    let strange = tried.into_iter().find(|(_, (_, any))| !any);
    strange.map(|(pepper, (tried, _))| OtherSecret { pepper: pepper.to_owned(), tried })
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::domain::{Revision, Timestamp};

    /// A seal with these peppers, the current one first: names and the secret of each.
    fn seal(peppers: &[(&'static str, u8)]) -> AuditSeal {
        AuditSeal::new(peppers.iter().map(|(name, secret)| (*name, Zeroizing::new([*secret; 32]))))
    }

    /// A trail of entries sealed with these, the newest first.
    fn trail(seals: &[AuditSeal]) -> Vec<AuditEntry> {
        let mut entries: Vec<AuditEntry> = Vec::new();
        for (seal, number) in seals.iter().zip(1..) {
            let mut entry = AuditEntry {
                entry: number,
                revision: Revision::new(number),
                at: Timestamp::from_unix_ms(0),
                actor: "local:a".to_owned(),
                address: None,
                action: "key.create".to_owned(),
                subject: "b".to_owned(),
                before: None,
                after: None,
                sealed: None,
            };
            seal.close(entries.last().map_or_else(AuditMac::default, |before| before.head().mac), &mut entry);
            entries.push(entry);
        }
        entries.reverse();
        entries
    }

    #[test]
    fn another_secret_under_the_same_name_fits_nothing() {
        let ours = || seal(&[("one", 1)]);
        for length in [1, 2, 5] {
            let entries = trail(&vec![ours(); length]);
            assert_eq!(other_secret(&entries, &ours()), None, "{length}");
            let found = other_secret(&entries, &seal(&[("one", 2)]));
            assert_eq!(found, Some(OtherSecret { pepper: "one".to_owned(), tried: length }));
        }
    }

    #[test]
    fn where_nothing_was_sealed_with_it_a_pepper_is_taken_on_trust() {
        for sealed in [seal(&[]), seal(&[("two", 2)])] {
            assert_eq!(other_secret(&trail(&[sealed.clone(), sealed]), &seal(&[("one", 1)])), None);
        }
        assert_eq!(other_secret(&[], &seal(&[("one", 1)])), None);
    }

    #[test]
    fn each_pepper_is_tried_on_what_names_it() {
        let before = seal(&[("one", 1)]);
        let since = seal(&[("two", 2), ("one", 1)]);
        let entries = trail(&[before.clone(), before, since.clone(), since.clone()]);
        assert_eq!(other_secret(&entries, &since), None);
        let strange = |peppers: &[(&'static str, u8)]| other_secret(&entries, &seal(peppers)).map(|found| found.pepper);
        assert_eq!(strange(&[("two", 2), ("one", 9)]), Some("one".to_owned()));
        assert_eq!(strange(&[("two", 9), ("one", 1)]), Some("two".to_owned()));
        assert_eq!(strange(&[("three", 3), ("two", 2)]), None);
    }

    #[test]
    fn what_was_tampered_with_is_not_taken_for_another_secret() {
        let ours = || seal(&[("one", 1)]);
        let mut entries = trail(&vec![ours(); 3]);
        entries[0].actor = "local:b".to_owned();
        assert_eq!(other_secret(&entries, &ours()), None);
        // Neither is the front, which retention dropped.
        let _ = entries.pop();
        assert_eq!(other_secret(&entries[1..], &ours()), None);
    }
}
