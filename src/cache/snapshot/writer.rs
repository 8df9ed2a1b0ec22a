//! The thread that writes the files.
//!
//! A revision is told as applied
//! - once the journal holds it; or
//! - once nothing is on the disk that a restart could go back to, when the disk takes no more.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::base::{BaseHead, BaseWriter};
use super::claim::keep_id;
use super::journal::Journal;
use super::keeper::{Applied, Queue, SnapshotStatus};
use super::place::{Place, open_own};
use super::restore::as_of_note;
use super::seal::{Link, SealKey, SnapshotSeal};
use crate::cache::key_set::KeySet;
use crate::domain::{NodeId, StoreHead, Timestamp, time};

/// How often the thread looks around when nothing happens: for the note of when the store confirmed the set, for a
/// directory that another process had, for a disk that is well again.
const LOOK_AROUND: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 500 });

/// How long a disk that took no base is left alone.
const AFTER_FAILURE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 15 });

/// A journal is at least this long before a new base is worth its writing.
const SHORTEST_TO_REPLACE: u64 = if cfg!(test) { 16 << 10 } else { 4 << 20 };

/// Pieces of a base between two waits for the disk, so that no single wait is long: 8 MiB.
const PIECES_AT_ONCE: u32 = 32;

/// What is on the disk.
pub(super) enum Disk {
    /// A base and journals that lead to what was acknowledged.
    Current {
        journal: Box<Journal>,
        /// Bytes of the base and of journals before this one.
        older: u64,
        acknowledged: StoreHead,
    },
    /// Nothing that a restart could go back to.
    Empty {
        /// When to try to write a base.
        try_at: Instant,
    },
    /// Something that a restart must not go back to. Nothing is acknowledged until it is gone.
    Outdated {
        /// When to try to remove it.
        try_at: Instant,
    },
}

/// Whose directory it is.
pub(super) struct Own {
    /// Held while this process is the one that writes.
    pub(super) lock: Option<File>,
    /// The node that this process is.
    pub(super) id: NodeId,
    /// Whether the files still say that the node has left its fleet.
    pub(super) has_left: bool,
}

/// See the module.
pub(super) struct Writer {
    queue: Arc<Queue>,
    place: Place,
    seal: Arc<ArcSwap<SnapshotSeal>>,
    set: Arc<KeySet>,
    applied: Applied,
    status: watch::Sender<SnapshotStatus>,
    disk: Disk,
    own: Own,
    /// The last note of when the store confirmed the set.
    as_of_noted: Option<Timestamp>,
    /// Where it is written, twice a second: opened once.
    as_of_file: Option<File>,
    /// Whether something outdated could not be removed.
    is_stuck: bool,
    /// Whether the last attempt to write failed.
    is_failing: bool,
}

/// Why no base was written.
enum Undone {
    /// Everything was loaded anew meanwhile, or too much was waiting: begin again.
    Overtaken,
    Failed(io::Error),
}

impl From<io::Error> for Undone {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl Writer {
    /// A thread that goes on from what is on the disk.
    pub(super) fn new(
        queue: Arc<Queue>,
        place: Place,
        seal: Arc<ArcSwap<SnapshotSeal>>,
        set: Arc<KeySet>,
        (applied, status): (Applied, watch::Sender<SnapshotStatus>),
        disk: Disk,
        own: Own,
    ) -> Self {
        Self {
            queue,
            place,
            seal,
            set,
            applied,
            status,
            disk,
            own,
            as_of_noted: None,
            as_of_file: None,
            is_stuck: false,
            is_failing: false,
        }
    }

    /// Writes until the queue is closed.
    pub(super) fn run(mut self) {
        loop {
            let is_closed = self.wait();
            if catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
                tracing::error!("keeping the snapshot panicked; it is begun anew");
                // Nobody knows what is on the disk.
                self.disk = Disk::Outdated { try_at: time::monotonic_now() + LOOK_AROUND };
            }
            if is_closed {
                return;
            }
        }
    }

    /// Returns when there is something to do, and at the latest when it is time to look around; true at the end.
    fn wait(&self) -> bool {
        let mut waiting = self.queue.waiting.lock();
        if !waiting.has_news && !waiting.is_closed {
            self.queue.something.wait_for(&mut waiting, LOOK_AROUND);
        }
        waiting.has_news = false;
        waiting.is_closed
    }

    fn work(&mut self) {
        if self.own.lock.is_none() && !self.claim() {
            self.acknowledge_without_disk();
            return;
        }
        match &self.disk {
            Disk::Outdated { try_at } if *try_at > time::monotonic_now() => {}
            Disk::Outdated { .. } => {
                if self.forget() {
                    self.write_base();
                }
            }
            Disk::Empty { try_at } if *try_at > time::monotonic_now() => self.acknowledge_without_disk(),
            // Somebody removed it: it is made anew, and claimed.
            Disk::Empty { .. } if !self.place.path().is_dir() => {
                self.own.lock = None;
                self.acknowledge_without_disk();
            }
            Disk::Empty { .. } => self.write_base(),
            Disk::Current { .. } => self.append(),
        }
        self.tell_status();
    }

    /// Becomes the one process that writes; false while another one is.
    fn claim(&mut self) -> bool {
        self.own.lock = self.place.claim().ok().flatten();
        if self.own.lock.is_some() {
            // Whoever had it left something, which is another node's.
            self.disk = Disk::Outdated { try_at: time::monotonic_now() };
            self.own.has_left = self.place.left().exists();
            keep_id(&self.place, self.own.id);
        }
        self.own.lock.is_some()
    }

    /// Whatever is in the set counts: there is nothing to go back to.
    fn acknowledge_without_disk(&mut self) {
        let head = {
            let mut waiting = self.queue.waiting.lock();
            waiting.want_base();
            waiting.head
        };
        self.acknowledge(head);
    }

    fn acknowledge(&self, head: StoreHead) {
        // Before the first load there is nothing to tell.
        if self.set.is_loaded() {
            self.applied.send_if_modified(|applied| applied.replace(head) != Some(head));
        }
    }

    /// Makes sure that nothing outdated is found by a restart.
    fn forget(&mut self) -> bool {
        match self.place.forget() {
            Ok(()) => {
                self.is_stuck = false;
                self.disk = Disk::Empty { try_at: time::monotonic_now() };
                true
            }
            Err(error) => {
                let was_told = std::mem::replace(&mut self.is_stuck, true);
                if !was_told {
                    tracing::error!(
                        %error,
                        "the snapshot in {} is outdated and cannot be removed; no change is acknowledged until it is",
                        self.place.path().display()
                    );
                }
                self.disk = Disk::Outdated { try_at: time::monotonic_now() + LOOK_AROUND };
                false
            }
        }
    }

    /// Appends what is waiting, and notes when the store confirmed it.
    fn append(&mut self) {
        let Some((records, as_of)) = self.queue.take() else { return self.write_base() };
        let Disk::Current { journal, older, acknowledged } = &mut self.disk else { return };
        if let Some(last) = records.last() {
            let head = last.head;
            match journal.append(&records) {
                Ok(()) => *acknowledged = head,
                Err(error) => return self.give_up(&error),
            }
        }
        let head = *acknowledged;
        let is_long = journal.len > SHORTEST_TO_REPLACE.max(*older / 4);
        let is_sealed_anew = journal.key_name() != self.seal.load().current().name();
        self.acknowledge(head);
        self.note_as_of(head, as_of);
        if is_long || is_sealed_anew {
            self.write_base();
        }
    }

    /// The disk takes no more: what is on it must not be found by a restart.
    fn give_up(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::error!(
                %error,
                "the snapshot in {} cannot be written; a gateway that starts without its store will not find one",
                self.place.path().display()
            );
        }
        if self.forget() {
            self.disk = Disk::Empty { try_at: time::monotonic_now() + AFTER_FAILURE };
            self.acknowledge_without_disk();
        }
    }

    fn note_as_of(&mut self, head: StoreHead, as_of: Timestamp) {
        if self.own.has_left && self.queue.waiting.lock().is_confirmed {
            self.own.has_left = self.place.forget_left().is_err();
        }
        let is_time = self.as_of_noted.is_none_or(|noted| as_of.since(noted) >= LOOK_AROUND || as_of < noted);
        if !is_time {
            return;
        }
        self.as_of_noted = Some(as_of);
        let note = as_of_note(&self.seal.load().current(), head, as_of);
        let written = match &self.as_of_file {
            Some(file) => file.write_all_at(&note, 0),
            None => open_own(OpenOptions::new().write(true).create(true).truncate(false), &self.place.as_of())
                .and_then(|file| self.as_of_file.insert(file).write_all_at(&note, 0)),
        };
        if let Err(error) = written {
            self.as_of_file = None;
            // An older moment is found, which only makes the set look older than it is.
            tracing::debug!(%error, "the moment of the snapshot cannot be noted");
        }
    }

    /// Writes the whole set anew.
    fn write_base(&mut self) {
        if !self.set.is_loaded() {
            return;
        }
        match self.try_write_base() {
            Ok(()) => {
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("the snapshot is kept again");
                }
            }
            Err(Undone::Overtaken) => self.queue.waiting.lock().has_news = true,
            Err(Undone::Failed(error)) => self.give_up(&error),
        }
    }

    fn try_write_base(&mut self) -> Result<(), Undone> {
        let key = self.seal.load().current();
        // Whether what is on the disk leads to what is in the set, so that it may be gone on with meanwhile.
        let goes_on = matches!(self.disk, Disk::Current { .. }) && !self.queue.waiting.lock().wants_base;
        let base = if goes_on { self.go_on_in_new_journal(&key)? } else { self.begin_anew(&key)? };
        let path = self.place.base_on_the_way();
        let file = open_own(OpenOptions::new().write(true).create(true).truncate(true), &path)?;
        let mut fresh = match goes_on {
            true => None,
            false => Some(Journal::create(&self.place, base.journal, key.clone(), base.chain)?),
        };
        let set = Arc::clone(&self.set);
        let len = write_set(&set, &file, &key, &base, &mut || self.append_meanwhile(fresh.as_mut()))?;
        file.sync_all()?;
        // What the set showed while it was read is queued by now.
        self.append_meanwhile(fresh.as_mut())?;
        if fresh.is_some() {
            self.as_of_file = None;
            self.place.forget_as_of()?;
        }
        std::fs::rename(&path, self.place.base())?;
        self.place.sync()?;
        self.place.drop_journals_before(base.journal)?;
        match (&mut self.disk, fresh) {
            (Disk::Current { older, .. }, None) => *older = len,
            (_, Some(journal)) => {
                let acknowledged = journal.leads_to.unwrap_or(base.head);
                self.disk = Disk::Current { journal: Box::new(journal), older: len, acknowledged };
                self.acknowledge(acknowledged);
            }
            (Disk::Empty { .. } | Disk::Outdated { .. }, None) => {}
        }
        Ok(())
    }

    /// What a base will say that follows on what is on the disk: whatever comes is acknowledged as before, in a journal
    /// that both the old base and the new one lead to.
    fn go_on_in_new_journal(&mut self, key: &SealKey) -> io::Result<BaseHead> {
        let (as_of, diverged) = {
            let waiting = self.queue.waiting.lock();
            (waiting.as_of, waiting.diverged)
        };
        let Disk::Current { journal, older, acknowledged } = &mut self.disk else {
            return Err(io::Error::other("there is no journal to go on with"));
        };
        let (number, chain) = (journal.number + 1, journal.chain);
        let next = Journal::create(&self.place, number, key.clone(), chain)?;
        *older += std::mem::replace(&mut **journal, next).len;
        Ok(BaseHead { head: *acknowledged, as_of, diverged, journal: number, chain })
    }

    /// What a base will say that has nothing to do with what is on the disk.
    fn begin_anew(&mut self, key: &SealKey) -> io::Result<BaseHead> {
        let (head, as_of, diverged) = {
            let mut waiting = self.queue.waiting.lock();
            // All of it is in the set already.
            waiting.want_base();
            waiting.wants_base = false;
            (waiting.head, waiting.as_of, waiting.diverged)
        };
        if matches!(self.disk, Disk::Empty { .. }) {
            self.acknowledge(head);
        }
        // With a gap behind those that are there: until the new base is, they are read, and must not lead on to this one.
        let number = self.place.journals()?.into_iter().max().unwrap_or(0) + 2;
        if matches!(self.disk, Disk::Current { .. }) {
            self.disk = Disk::Outdated { try_at: time::monotonic_now() };
        }
        // And begins with a link of its own, so that no other journal can be taken for it.
        let its_own = [number.to_le_bytes(), head.revision.number().to_le_bytes(), head.token.0.to_le_bytes()].concat();
        let chain = key.link(&Link::default(), &[&its_own]);
        Ok(BaseHead { head, as_of, diverged, journal: number, chain })
    }

    /// Appends what came while a base is written: to the journal of that base alone, or to the one that the old base leads
    /// to as well, which acknowledges it.
    fn append_meanwhile(&mut self, fresh: Option<&mut Journal>) -> Result<(), Undone> {
        let (records, _) = self.queue.take().ok_or(Undone::Overtaken)?;
        let Some(last) = records.last() else { return Ok(()) };
        let head = last.head;
        match (fresh, &mut self.disk) {
            (Some(journal), disk) => {
                journal.append(&records)?;
                // Nothing is found by a restart, until all of it is.
                if matches!(disk, Disk::Empty { .. }) {
                    self.acknowledge(head);
                }
            }
            (None, Disk::Current { journal, acknowledged, .. }) => {
                journal.append(&records)?;
                *acknowledged = head;
                self.acknowledge(head);
            }
            (None, Disk::Empty { .. } | Disk::Outdated { .. }) => {}
        }
        Ok(())
    }

    fn tell_status(&self) {
        let status = match &self.disk {
            Disk::Current { journal, older, .. } => SnapshotStatus { is_current: true, len: older + journal.len },
            Disk::Empty { .. } | Disk::Outdated { .. } => SnapshotStatus::default(),
        };
        self.status.send_if_modified(|known| std::mem::replace(known, status) != status);
    }
}

/// Writes a set; `between` is called now and then. Returns how long it is.
fn write_set(
    set: &KeySet,
    file: &File,
    key: &SealKey,
    base: &BaseHead,
    between: &mut dyn FnMut() -> Result<(), Undone>,
) -> Result<u64, Undone> {
    let mut writer = BaseWriter::begin(BufWriter::with_capacity(256 << 10, file), key, base)?;
    let mut pieces = 0;
    writer.keys(&set.map(), || {
        pieces += 1;
        if pieces % PIECES_AT_ONCE == 0 {
            file.sync_data()?;
        }
        between()
    })?;
    writer.names(&set.directory())?;
    Ok(writer.end()?)
}
