//! The way back: the base, and what the journals say happened since.

use std::fs::OpenOptions;
use std::io::ErrorKind;

use super::base::{Base, Unreadable};
use super::journal::{Journal, Replayed, replay};
use super::place::{Place, open_own, who_else_writes};
use super::seal::{Link, SealKey, SnapshotSeal};
use crate::cache::apply::{LoadReason, Replica};
use crate::domain::{Revision, RevisionToken, StoreHead, Timestamp};

/// What a snapshot led to.
pub(super) struct Restored {
    /// Where the set stands.
    pub(super) head: StoreHead,
    /// When the store last confirmed that.
    pub(super) as_of: Timestamp,
    /// Whether the end of the last journal was torn. It had not been acknowledged.
    pub(super) torn: bool,
    /// To go on writing.
    pub(super) journal: Journal,
    /// Bytes of the base and of journals before that one.
    pub(super) older: u64,
    /// Whether the store was ever found to have lost commits.
    pub(super) diverged: bool,
}

/// Fills an empty set from the files; `None` when there is no base. Blocks.
///
/// # Errors
/// What makes the files unusable, for people; the set is then as it was.
pub(super) fn restore(
    place: &Place,
    seal: &SnapshotSeal,
    replica: &mut Replica,
) -> Result<Option<Restored>, Unreadable> {
    let said = |error: std::io::Error| format!("{}: {error}", place.base().display());
    let file = match open_own(OpenOptions::new().read(true), &place.base()) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(said(error)),
    };
    if let Some(who) = who_else_writes(&file).map_err(said)? {
        return Err(format!("{}: {who}", place.base().display()));
    }
    let base = Base::read(file, seal).map_err(|reason| format!("{}: {reason}", place.base().display()))?;
    let mut load = replica.begin_load();
    load.take_base(&base)?;
    let mut head = base.head.head;
    let mut as_of = base.head.as_of;
    let (mut number, mut chain) = (base.head.journal, base.head.chain);
    let mut older = base.len;
    let mut last: Option<Replayed> = None;
    loop {
        let replayed = replay(place, number, seal, chain, |record| {
            head = record.head;
            as_of = record.as_of;
            load.take_record(&record);
        })?;
        let Some(replayed) = replayed else { break };
        if let Some(before) = last {
            if before.torn {
                return Err(format!("journal {}: it is torn, and another one follows", number - 1));
            }
            older += before.journal.len;
        }
        chain = replayed.journal.chain;
        number += 1;
        last = Some(replayed);
    }
    let Some(Replayed { journal, torn }) = last else {
        return Err(format!("journal {number} is missing"));
    };
    // What the note says was acknowledged is here, or something is missing that once was on the disk.
    match read_as_of(place, seal) {
        Some((noted, confirmed)) if noted == head => as_of = as_of.max(confirmed),
        Some((noted, _)) if noted.revision >= head.revision => {
            return Err(format!("it ends at revision {}, but {} was acknowledged", head.revision, noted.revision));
        }
        Some(_) | None => {}
    }
    let reason = if base.head.diverged { LoadReason::OtherHistory } else { LoadReason::Behind };
    load.finish(reason, head.revision);
    Ok(Some(Restored { head, as_of, torn, journal, older, diverged: base.head.diverged }))
}

/// Length of the note of when the store last confirmed the set: head, moment, link.
const AS_OF_LEN: usize = 8 + 8 + 8 + 32;

/// That note, sealed.
pub(super) fn as_of_note(key: &SealKey, head: StoreHead, as_of: Timestamp) -> [u8; AS_OF_LEN] {
    let mut note = [0; AS_OF_LEN];
    let (text, link) = note.split_at_mut(24);
    text[..8].copy_from_slice(&head.revision.number().to_le_bytes());
    text[8..16].copy_from_slice(&head.token.0.to_le_bytes());
    text[16..].copy_from_slice(&as_of.unix_ms().to_le_bytes());
    link.copy_from_slice(&key.link(&Link::default(), &[text]));
    note
}

/// What the note says: which head was acknowledged, and when the store confirmed it.
fn read_as_of(place: &Place, seal: &SnapshotSeal) -> Option<(StoreHead, Timestamp)> {
    let note: [u8; AS_OF_LEN] = std::fs::read(place.as_of()).ok()?.try_into().ok()?;
    let word = |number: usize| note.as_chunks::<8>().0.get(number).copied().map(u64::from_le_bytes);
    let head = StoreHead { revision: Revision::new(word(0)?), token: RevisionToken(word(1)?) };
    let as_of = Timestamp::from_unix_ms(word(2)?.cast_signed());
    seal.all().any(|key| as_of_note(&key, head, as_of) == note).then_some((head, as_of))
}
