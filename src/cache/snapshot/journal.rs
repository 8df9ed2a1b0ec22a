//! Journals: every change since the base, appended and never changed.
//!
//! A file begins with a magic and a line of JSON that names it; then come records, each its length in four bytes (the
//! least significant first), the same inverted, its link, and its payload. A link covers the one before it, across files too.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};

use serde::{Deserialize, Serialize};

use super::base::Unreadable;
use super::place::{Place, open_own, who_else_writes};
use super::record::Record;
use super::seal::{Link, SealKey, SnapshotSeal};
use crate::domain::StoreHead;

/// What a file begins with.
const MAGIC: &[u8; 16] = b"portcullis jrnl\n";

/// Length, twice, and link of a record.
const RECORD_START: usize = LENGTH + 32;

/// Bytes of a length. Twice, so that a changed one is not taken for that of a record that was torn.
const LENGTH: usize = 8;

#[derive(Serialize, Deserialize)]
struct FirstLine {
    number: u64,
    key: Option<String>,
}

/// A journal that is being written.
pub(super) struct Journal {
    file: File,
    pub(super) number: u64,
    key: SealKey,
    /// The link of the last record, of whichever journal.
    pub(super) chain: Link,
    /// How long it is.
    pub(super) len: u64,
    /// Where its last record leads.
    pub(super) leads_to: Option<StoreHead>,
}

impl Journal {
    /// What it is sealed with.
    pub(super) fn key_name(&self) -> Option<&str> {
        self.key.name()
    }

    /// Makes the journal with this number, which goes on behind the link. Returns once it is on the disk. Blocks.
    pub(super) fn create(place: &Place, number: u64, key: SealKey, chain: Link) -> io::Result<Self> {
        // One that exists belongs to an attempt that led to no base.
        let mut file = open_own(OpenOptions::new().write(true).create(true).truncate(true), &place.journal(number))?;
        let mut start = MAGIC.to_vec();
        serde_json::to_writer(&mut start, &FirstLine { number, key: key.name().map(str::to_owned) })?;
        start.push(b'\n');
        file.write_all(&start)?;
        file.sync_all()?;
        place.sync()?;
        Ok(Self { file, number, key, chain, len: start.len() as u64, leads_to: None })
    }

    /// Appends records; returns once they are on the disk. After an error nothing is known of what the file holds. Blocks.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let mut bytes = Vec::new();
        let mut chain = self.chain;
        for record in records {
            let payload = record.to_json()?;
            let length = length_bytes(u32::try_from(payload.len()).map_err(io::Error::other)?);
            chain = self.key.link(&chain, &[&length, &payload]);
            bytes.extend_from_slice(&length);
            bytes.extend_from_slice(&chain);
            bytes.extend_from_slice(&payload);
        }
        self.file.write_all(&bytes)?;
        self.file.sync_data()?;
        self.chain = chain;
        self.len += bytes.len() as u64;
        self.leads_to = records.last().map(|record| record.head).or(self.leads_to);
        Ok(())
    }
}

/// How a journal ended.
pub(super) struct Replayed {
    /// It, to go on writing.
    pub(super) journal: Journal,
    /// Whether its end was torn, and is cut off.
    pub(super) torn: bool,
}

/// Reads the journal with this number behind the link; `None` when there is none. A torn end is cut off. Blocks.
pub(super) fn replay(
    place: &Place,
    number: u64,
    seal: &SnapshotSeal,
    mut chain: Link,
    mut take: impl FnMut(Record),
) -> Result<Option<Replayed>, Unreadable> {
    let said = |error: io::Error| format!("journal {number}: {error}");
    let mut file = match open_own(OpenOptions::new().read(true).write(true), &place.journal(number)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(said(error)),
    };
    if let Some(who) = who_else_writes(&file).map_err(said)? {
        return Err(format!("journal {number}: {who}"));
    }
    let len = file.metadata().map_err(said)?.len();
    let mut input = BufReader::new(&file);
    let mut magic = [0; MAGIC.len()];
    let mut line = Vec::new();
    input.read_exact(&mut magic).map_err(said)?;
    input.by_ref().take(4_096).read_until(b'\n', &mut line).map_err(said)?;
    let first: FirstLine = serde_json::from_slice(&line).map_err(|error| format!("journal {number}: {error}"))?;
    if magic != *MAGIC || first.number != number {
        return Err(format!("journal {number}: it does not begin as that journal does"));
    }
    let key = seal.named(first.key.as_deref());
    let key = key.ok_or_else(|| format!("journal {number}: it is sealed with a pepper that is not configured"))?;
    let mut good = (MAGIC.len() + line.len()) as u64;
    let mut leads_to = None;
    let torn = loop {
        match next_record(&mut input, len - good, &key, chain).map_err(said)? {
            Next::End => break false,
            Next::Torn => break true,
            Next::Wrong => {
                return Err(format!(
                    "journal {number}: the seal of the record at byte {good} is wrong: it was damaged, or changed by \
                     somebody else"
                ));
            }
            Next::Record { payload, link } => {
                let record = Record::from_json(&payload).map_err(|error| format!("journal {number}: {error}"))?;
                leads_to = Some(record.head);
                take(record);
                good += (RECORD_START + payload.len()) as u64;
                chain = link;
            }
        }
    };
    if torn {
        file.set_len(good).and_then(|()| file.sync_all()).map_err(said)?;
    }
    file.seek(SeekFrom::Start(good)).map_err(said)?;
    Ok(Some(Replayed { journal: Journal { file, number, key, chain, len: good, leads_to }, torn }))
}

enum Next {
    Record {
        payload: Vec<u8>,
        link: Link,
    },
    End,
    /// What is left is less than a record, or the last one is not whole.
    Torn,
    /// It cannot have been torn: more follows.
    Wrong,
}

fn next_record(input: &mut impl Read, left: u64, key: &SealKey, chain: Link) -> io::Result<Next> {
    if left == 0 {
        return Ok(Next::End);
    }
    if left < RECORD_START as u64 {
        return Ok(Next::Torn);
    }
    let (mut length, mut link) = ([0; LENGTH], Link::default());
    input.read_exact(&mut length)?;
    input.read_exact(&mut link)?;
    let payload_len = u32::from_le_bytes([length[0], length[1], length[2], length[3]]);
    if length != length_bytes(payload_len) {
        // A file that grew before its bytes were written ends in zeros.
        let is_blank = link == Link::default() && is_all_zeros(input)?;
        return Ok(if is_blank { Next::Torn } else { Next::Wrong });
    }
    let payload_len = u64::from(payload_len);
    let behind = left - RECORD_START as u64;
    if payload_len > behind {
        return Ok(Next::Torn);
    }
    let mut payload = vec![0; usize::try_from(payload_len).map_err(io::Error::other)?];
    input.read_exact(&mut payload)?;
    if key.link(&chain, &[&length, &payload]) == link {
        return Ok(Next::Record { payload, link });
    }
    // The last one may have been written in part only, in whatever order its blocks went to the disk.
    let is_last = payload_len == behind || is_all_zeros(input)?;
    Ok(if is_last { Next::Torn } else { Next::Wrong })
}

fn length_bytes(length: u32) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..].copy_from_slice(&(!length).to_le_bytes());
    bytes
}

fn is_all_zeros(input: &mut impl Read) -> io::Result<bool> {
    let mut some = [0; 4_096];
    loop {
        match input.read(&mut some)? {
            0 => return Ok(true),
            read if some[..read].iter().any(|byte| *byte != 0) => return Ok(false),
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
