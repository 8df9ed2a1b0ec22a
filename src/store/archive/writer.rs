//! Writing a store down, piece by piece.

use std::io::{self, Write};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::lines::{EndLine, First, Heading, Line, hex};
use super::{Piece, Stand};
use crate::domain::{QuotaTerm, Timestamp};
use crate::store::seal::AuditSeal;

/// A backup under way. What was written is one only once [`Self::finish`] has written its last line.
pub(super) struct ArchiveWriter<'w> {
    out: &'w mut (dyn Write + Send),
    digest: Sha256,
    made_at: Timestamp,
    end: EndLine,
    line: Vec<u8>,
}

/// How much a backup holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// Owners.
    pub owners: u64,
    /// Keys.
    pub keys: u64,
    /// Entries of the audit trail.
    pub entries: u64,
    /// SHA-256 of all but the last line, 64 hexadecimal digits.
    pub digest: String,
    /// The name of the pepper that it is sealed with; none: nothing shows whether it was changed.
    pub sealed_with: Option<String>,
}

impl<'w> ArchiveWriter<'w> {
    /// Begins a backup.
    pub(super) fn new(out: &'w mut (dyn Write + Send), made_at: Timestamp) -> Self {
        Self { out, digest: Sha256::new(), made_at, end: EndLine::default(), line: Vec::new() }
    }

    /// Writes a piece down.
    ///
    /// # Errors
    /// The stream's.
    pub(super) fn write(&mut self, piece: Piece) -> io::Result<()> {
        match piece {
            Piece::Stand(stand) => self.begin(stand),
            Piece::Owners(owners) => {
                self.end.owners += owners.len() as u64;
                owners.into_iter().try_for_each(|owner| self.put(&Line::Owner(Box::new(owner.into()))))
            }
            Piece::Keys(keys) => {
                self.end.keys += keys.len() as u64;
                keys.into_iter().try_for_each(|key| self.put(&Line::Key(Box::new(key.into()))))
            }
            Piece::Entries(entries) => {
                self.end.entries += entries.len() as u64;
                entries.into_iter().try_for_each(|entry| self.put(&Line::Entry(entry.into())))
            }
        }
    }

    fn begin(&mut self, stand: Stand) -> io::Result<()> {
        let portcullis_backup = Heading::new(stand, self.made_at);
        self.put(&First { portcullis_backup })
    }

    /// Writes what quotas have counted.
    ///
    /// # Errors
    /// The stream's.
    pub(super) fn write_quotas(&mut self, counts: Vec<(QuotaTerm, u64)>) -> io::Result<()> {
        self.end.quotas += counts.len() as u64;
        counts.into_iter().try_for_each(|count| self.put(&Line::Quota(count.into())))
    }

    /// Writes the last line.
    ///
    /// # Errors
    /// The stream's.
    pub(super) fn finish(mut self, seal: &AuditSeal) -> io::Result<Written> {
        let digest: [u8; 32] = std::mem::take(&mut self.digest).finalize().into();
        let (pepper, mac) = seal.seal_backup(&digest).unzip();
        let sha256 = hex(&digest);
        let end = EndLine { sha256, pepper, mac: mac.map(|mac| mac.to_string()), ..std::mem::take(&mut self.end) };
        let EndLine { owners, keys, entries, ref sha256, ref pepper, .. } = end;
        let written = Written { owners, keys, entries, digest: sha256.clone(), sealed_with: pepper.clone() };
        self.put(&Line::End(end))?;
        self.out.flush()?;
        Ok(written)
    }

    fn put(&mut self, line: &impl Serialize) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        self.line.push(b'\n');
        self.digest.update(&self.line);
        self.out.write_all(&self.line)
    }
}
