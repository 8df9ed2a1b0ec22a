//! The directory: names of the files, who may read them, and who writes them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The whole set at one revision.
const BASE: &str = "keys.base";
/// The next base, until it is whole.
const BASE_ON_THE_WAY: &str = "keys.base.new";
/// A base that could not be read, kept for people.
const BASE_SET_ASIDE: &str = "keys.base.unreadable";
/// When the store last confirmed what the files hold.
const AS_OF: &str = "as-of";
/// The id of the node that it belongs to.
const NODE: &str = "node";
/// There once the node has left its fleet in order.
const LEFT: &str = "left";
/// Locked by the one process that writes.
const LOCK: &str = "lock";
/// Followed by a number.
const JOURNAL: &str = "journal.";

/// Whether there is a snapshot to start from in this directory; whether it can be read is found out by reading it.
pub fn holds_snapshot(directory: &Path) -> bool {
    directory.join(BASE).exists()
}

/// The directory of one process's snapshot.
#[derive(Clone, Debug)]
pub(super) struct Place(PathBuf);

impl Place {
    pub(super) const fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn base(&self) -> PathBuf {
        self.0.join(BASE)
    }

    pub(super) fn base_on_the_way(&self) -> PathBuf {
        self.0.join(BASE_ON_THE_WAY)
    }

    pub(super) fn as_of(&self) -> PathBuf {
        self.0.join(AS_OF)
    }

    pub(super) fn node(&self) -> PathBuf {
        self.0.join(NODE)
    }

    pub(super) fn left(&self) -> PathBuf {
        self.0.join(LEFT)
    }

    /// The node that it belongs to is back.
    pub(super) fn forget_left(&self) -> io::Result<()> {
        remove(&self.left())?;
        self.sync()
    }

    pub(super) fn journal(&self, number: u64) -> PathBuf {
        self.0.join(format!("{JOURNAL}{number}"))
    }

    /// Makes the directory where it is missing and claims it for this process; `None` while another one has it.
    pub(super) fn claim(&self) -> io::Result<Option<File>> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let lock = open_own(OpenOptions::new().write(true).create(true).truncate(false), &self.0.join(LOCK))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(lock)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Numbers of the journals that exist.
    pub(super) fn journals(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            let number: Option<u64> =
                name.to_str().and_then(|name| name.strip_prefix(JOURNAL)).and_then(|text| text.parse().ok());
            numbers.extend(number);
        }
        Ok(numbers)
    }

    /// Removes the base, and with it everything that a restart could go back to.
    pub(super) fn forget(&self) -> io::Result<()> {
        remove(&self.base())?;
        match self.sync() {
            Err(error) if is_missing(&error) => Ok(()),
            done => done,
        }
    }

    /// Puts a base that cannot be read out of the way of the next start, where people can look at it.
    pub(super) fn set_aside(&self) -> io::Result<()> {
        fs::rename(self.base(), self.0.join(BASE_SET_ASIDE))?;
        self.sync()
    }

    /// Removes the note of when the store confirmed the set: it is about another history.
    pub(super) fn forget_as_of(&self) -> io::Result<()> {
        remove(&self.as_of())?;
        self.sync()
    }

    /// Removes journals with numbers below this one.
    pub(super) fn drop_journals_before(&self, first: u64) -> io::Result<()> {
        for number in self.journals()? {
            if number < first {
                fs::remove_file(self.journal(number))?;
            }
        }
        Ok(())
    }

    /// Returns once renames and removals are on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

/// Removes a file, which may be missing.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if is_missing(&error) => Ok(()),
        done => done,
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Opens a file that is for this user alone.
pub(super) fn open_own(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.mode(0o600).open(path)
}

/// Whether others than this user and root may write a file, which is then not to be believed; says so in words.
pub(super) fn who_else_writes(file: &File) -> io::Result<Option<String>> {
    let metadata = file.metadata()?;
    let ours = rustix::process::geteuid().as_raw();
    Ok(if metadata.uid() != ours && metadata.uid() != 0 {
        Some(format!("it belongs to user {}, not to {ours}", metadata.uid()))
    } else if metadata.mode() & 0o022 != 0 {
        Some(format!("others may write it (mode {:o})", metadata.mode() & 0o777))
    } else {
        None
    })
}
