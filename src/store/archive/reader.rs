//! Reading a backup: whole and as it was written, or not at all.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, BufRead, Read};

use sha2::{Digest, Sha256};

use super::lines::{AnyFirst, EndLine, FORMAT, First, Line, hex, mac_of};
use super::{Archive, Stand};
use crate::domain::{KeyHash, KeyId, OwnerId, OwnerRecord};
use crate::store::seal::AuditSeal;

/// Longest line: the metadata of a record is some kilobytes at most.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// No store counts as far, and what comes next must have a number too.
const MAX_NUMBER: u64 = 1 << 62;

/// What shows that a backup is as it was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// Its seal, where peppers are configured.
    Sealed,
    /// The word of whoever wants it read.
    Taken,
}

/// Why a backup was not read.
#[derive(Debug)]
pub enum NotRead {
    /// The input's own trouble.
    Io(io::Error),
    /// It does not begin as one.
    NoBackup,
    /// A newer portcullis has made it.
    Newer {
        /// The form it has.
        format: u32,
        /// The version that made it.
        made_by: String,
    },
    /// It ends before its last line.
    CutOff,
    /// A line that no version of this program writes.
    Line {
        /// Which one, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// It is not what its last line says.
    Changed,
    /// Its seal is not the one that this pepper makes.
    OtherSeal {
        /// The name of the pepper.
        pepper: String,
    },
    /// It was sealed with a pepper that is not configured.
    UnknownPepper {
        /// Its name.
        pepper: String,
    },
    /// It has no seal, though peppers are configured.
    Unsealed,
}

impl fmt::Display for NotRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "it cannot be read: {error}"),
            Self::NoBackup => f.write_str(
                "it is no backup: `portcullis store backup` writes those. What `pg_dump` or `sqlite3` made is restored \
                 with their own tools",
            ),
            Self::Newer { format, made_by } => write!(
                f,
                "portcullis {made_by} has made it, in form {format}; this portcullis reads up to {FORMAT}: install a \
                 newer one"
            ),
            Self::CutOff => f.write_str("it ends before its last line: it was cut off. Take another backup"),
            Self::Line { line, problem } => write!(f, "line {line}: {problem}. It is damaged: take another backup"),
            Self::Changed => f.write_str("it is not as it was written (its SHA-256 is another): take another backup"),
            Self::OtherSeal { pepper } => write!(
                f,
                "its seal does not fit: either it was changed, or pepper `{pepper}` of `auth.peppers` is not the one \
                 that had this id when it was made. Configure that one, or take another backup"
            ),
            Self::UnknownPepper { pepper } => write!(
                f,
                "it was sealed with pepper `{pepper}`, which `auth.peppers` does not have: nothing shows whether it was \
                 changed, and no key that was made with it will work. Configure it, or accept that with --unverified"
            ),
            Self::Unsealed => f.write_str(
                "it has no seal, as it was made without `auth.peppers`: nothing shows whether it was changed. Accept that \
                 with --unverified",
            ),
        }
    }
}

impl std::error::Error for NotRead {}

impl From<io::Error> for NotRead {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What a backup holds. Everything is read and checked before anything is answered; all of it is held in memory.
///
/// # Errors
/// Whatever shows that it is not, or may not be, as it was written.
pub fn read_archive(input: &mut dyn BufRead, seal: &AuditSeal, proof: Proof) -> Result<Archive, NotRead> {
    let mut lines = Lines { input, digest: Sha256::new(), number: 0, text: Vec::new() };
    let first = lines.first()?;
    let mut reading = Reading::new(first)?;
    let (end, digest) = loop {
        let before = lines.digest.clone();
        let line = lines.next()?;
        match reading.take(line).map_err(|problem| NotRead::Line { line: lines.number, problem })? {
            None => {}
            Some(end) => break check_digest(end, before)?,
        }
    };
    if !lines.input.fill_buf()?.is_empty() {
        return Err(NotRead::Line { line: lines.number + 1, problem: "nothing comes behind the last line".to_owned() });
    }
    reading.check_counts(&end)?;
    if proof == Proof::Sealed {
        check_seal(&end, &digest, seal)?;
    }
    Ok(Archive { digest: end.sha256, ..reading.archive })
}

fn check_digest(end: EndLine, before: Sha256) -> Result<(EndLine, [u8; 32]), NotRead> {
    let digest: [u8; 32] = before.finalize().into();
    if hex(&digest) == end.sha256 { Ok((end, digest)) } else { Err(NotRead::Changed) }
}

fn check_seal(end: &EndLine, digest: &[u8; 32], seal: &AuditSeal) -> Result<(), NotRead> {
    let (pepper, mac) = match (&end.pepper, &end.mac) {
        (Some(pepper), Some(mac)) => (pepper, mac),
        _ if seal.is_keyed() => return Err(NotRead::Unsealed),
        _ => return Ok(()),
    };
    let mac = mac_of(mac).map_err(|_| NotRead::Changed)?;
    match seal.check_backup(pepper, digest, mac) {
        Some(true) => Ok(()),
        Some(false) => Err(NotRead::OtherSeal { pepper: pepper.clone() }),
        None => Err(NotRead::UnknownPepper { pepper: pepper.clone() }),
    }
}

/// The lines of an input, and the digest of those that were taken.
struct Lines<'i> {
    input: &'i mut dyn BufRead,
    digest: Sha256,
    number: u64,
    text: Vec<u8>,
}

impl Lines<'_> {
    fn first(&mut self) -> Result<First, NotRead> {
        let text = match self.text() {
            Err(NotRead::CutOff | NotRead::Line { .. }) => return Err(NotRead::NoBackup),
            text => text?,
        };
        let any: AnyFirst = serde_json::from_slice(text).map_err(|_| NotRead::NoBackup)?;
        if any.portcullis_backup.format > FORMAT {
            let AnyFirst { portcullis_backup: heading } = any;
            return Err(NotRead::Newer { format: heading.format, made_by: heading.made_by });
        }
        serde_json::from_slice(text).map_err(|error| NotRead::Line { line: 1, problem: said(&error) })
    }

    fn next(&mut self) -> Result<Line, NotRead> {
        let line = self.number + 1;
        let text = self.text()?;
        serde_json::from_slice(text).map_err(|error| NotRead::Line { line, problem: said(&error) })
    }

    fn text(&mut self) -> Result<&[u8], NotRead> {
        self.text.clear();
        self.number += 1;
        let read = (&mut *self.input).take(MAX_LINE_BYTES).read_until(b'\n', &mut self.text)?;
        if self.text.last() != Some(&b'\n') {
            let is_long = read as u64 == MAX_LINE_BYTES;
            let long = || NotRead::Line { line: self.number, problem: "it is too long".to_owned() };
            return Err(if is_long { long() } else { NotRead::CutOff });
        }
        self.digest.update(&self.text);
        Ok(&self.text)
    }
}

/// What is wrong with a line, without its place: lines are numbered here.
fn said(error: &serde_json::Error) -> String {
    let said = error.to_string();
    said.rsplit_once(" at line ").map_or_else(|| said.clone(), |(problem, _)| problem.to_owned())
}

/// What was read so far.
struct Reading {
    archive: Archive,
    owners: HashSet<OwnerId>,
    ids: HashSet<KeyId>,
    hashes: HashSet<KeyHash>,
}

impl Reading {
    fn new(First { portcullis_backup: heading }: First) -> Result<Self, NotRead> {
        let stand: Stand = heading.stand().map_err(|problem| NotRead::Line { line: 1, problem })?;
        let dropped = stand.anchor.map_or(0, |anchor| anchor.last.entry);
        if stand.revision.number().max(dropped) > MAX_NUMBER {
            return Err(NotRead::Line { line: 1, problem: "a number is out of bounds".to_owned() });
        }
        let archive = Archive {
            made_at: heading.made_at,
            digest: String::new(),
            stand,
            owners: Vec::new(),
            keys: Vec::new(),
            entries: Vec::new(),
            quotas: Vec::new(),
        };
        Ok(Self { archive, owners: HashSet::new(), ids: HashSet::new(), hashes: HashSet::new() })
    }

    /// Takes a line; answers the last one. Says what is wrong with it.
    fn take(&mut self, line: Line) -> Result<Option<EndLine>, String> {
        let Archive { stand, owners, keys, entries, quotas, .. } = &mut self.archive;
        match line {
            Line::Owner(line) => {
                let owner: OwnerRecord = (*line).into();
                if !self.owners.insert(owner.id) {
                    return Err("an owner with its id came before".to_owned());
                }
                owners.push(owner);
                Ok(None)
            }
            Line::Key(line) => {
                let key = line.record()?;
                if !self.ids.insert(key.id) || !self.hashes.insert(key.hash) {
                    return Err("a key with its id or its hash came before".to_owned());
                }
                if key.owner.is_some_and(|owner| !self.owners.contains(&owner)) {
                    return Err("its owner does not come before it".to_owned());
                }
                keys.push(key);
                Ok(None)
            }
            Line::Entry(line) => {
                let entry = line.entry()?;
                let last = entries.last().map(|last| last.entry);
                let last = last.or(stand.anchor.map(|anchor| anchor.last.entry));
                if entry.entry <= last.unwrap_or(0) || entry.entry.max(entry.revision.number()) > MAX_NUMBER {
                    return Err("its number does not come behind the one before it".to_owned());
                }
                entries.push(entry);
                Ok(None)
            }
            Line::Quota(line) => {
                quotas.push(line.into());
                Ok(None)
            }
            Line::End(end) => Ok(Some(end)),
        }
    }

    fn check_counts(&self, end: &EndLine) -> Result<(), NotRead> {
        let Archive { owners, keys, entries, quotas, .. } = &self.archive;
        let found = [owners.len(), keys.len(), entries.len(), quotas.len()].map(|count| count as u64);
        let said = [end.owners, end.keys, end.entries, end.quotas];
        if found == said { Ok(()) } else { Err(NotRead::Changed) }
    }
}
