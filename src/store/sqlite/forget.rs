//! What is kept for a while only, and goes.

use std::time::Duration;

use rusqlite::params;

use super::commands::Write;
use super::fault::Fault;
use super::trail;
use super::writer::number;
use crate::domain::{KeyId, Revision, Timestamp};
use crate::store::api::{MAX_FORGOTTEN_AT_ONCE, MAX_FORGOTTEN_ENTRIES_AT_ONCE, Repeatable};
use crate::store::audit::{Action, Difference, Dropped};
use crate::store::command::{AUDIT_SUBJECT, Effect};

/// Number, id and hash of a key, and when it was revoked.
type Forgettable = (i64, [u8; 16], [u8; 32], i64);

impl Write<'_> {
    /// Drops what was revoked long ago, and what readers that are not far behind no longer need.
    pub(super) fn forget(&self, before: Timestamp, newest: Revision) -> Result<Effect, Fault> {
        let oldest_answer = self.order.now.minus(Repeatable::KEPT).unix_ms();
        self.connection.execute("DELETE FROM repeatable WHERE at <= ?1", [oldest_answer])?;
        // The newest revision older than `before` stays: readers that have it are not behind by as much as that.
        let oldest: Option<i64> = self.connection.query_row(
            "SELECT max(revision) FROM revisions WHERE at < ?1",
            [before.unix_ms()],
            |row| row.get(0),
        )?;
        if let Some(oldest) = oldest {
            self.connection.execute("DELETE FROM revisions WHERE revision < ?1", [oldest])?;
            self.connection.execute("DELETE FROM removed WHERE revision <= ?1", [oldest])?;
        }
        let gone = self.find_forgettable(before)?;
        for (key, id, hash, revoked_at) in &gone {
            self.connection.prepare_cached("DELETE FROM keys WHERE key = ?1")?.execute([key])?;
            self.note_removed(id, hash)?;
            let difference = Difference::forgotten(Some(Timestamp::from_unix_ms(*revoked_at)));
            self.note(Action::KeyForget, &KeyId::from_bytes(*id).to_string(), &difference)?;
        }
        match gone.len() {
            0 => Ok(Effect::Unchanged(newest)),
            rows => Ok(Effect::Changed(self.next, rows as u64)),
        }
    }

    fn find_forgettable(&self, before: Timestamp) -> Result<Vec<Forgettable>, Fault> {
        let mut find = self.connection.prepare_cached(
            "SELECT key, id, hash, revoked_at FROM keys WHERE revoked_at IS NOT NULL AND revoked_at < ?1 LIMIT ?2",
        )?;
        let limit = i64::try_from(MAX_FORGOTTEN_AT_ONCE).unwrap_or(i64::MAX);
        let found =
            find.query_map([before.unix_ms(), limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        Ok(found.collect::<Result<_, _>>()?)
    }

    /// Notes that a hash no longer leads to a key.
    pub(super) fn note_removed(&self, id: &[u8; 16], hash: &[u8; 32]) -> Result<(), Fault> {
        let mut insert =
            self.connection.prepare_cached("INSERT INTO removed (revision, id, hash) VALUES (?1, ?2, ?3)")?;
        insert.execute(params![number(self.next), id, hash])?;
        Ok(())
    }

    /// Drops the oldest rows of the audit trail, and writes that into it.
    pub(super) fn forget_audit(&self, retention: Duration, newest: Revision) -> Result<Effect, Fault> {
        let before = self.order.now.minus(retention);
        let Some((last, rows)) = trail::find_forgettable(self.connection, before, MAX_FORGOTTEN_ENTRIES_AT_ONCE)?
        else {
            return Ok(Effect::Unchanged(newest));
        };
        let dropped = Dropped { last: last.last, last_at: last.at, retention };
        self.note(Action::AuditForget, AUDIT_SUBJECT, &dropped.difference())?;
        trail::drop_through(self.connection, dropped.anchor())?;
        Ok(Effect::Changed(self.next, rows))
    }
}
