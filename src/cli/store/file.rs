//! A file that is there whole or not at all, and who may have written one.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A file under way, beside the place where it will be. Dropping it takes it away.
pub(super) struct Partial {
    out: BufWriter<File>,
    beside: PathBuf,
}

impl Partial {
    /// Begins a file for `place`, which only its owner may read.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn create(place: &Path) -> io::Result<Self> {
        let beside = beside(place, "partial");
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        Ok(Self { out: BufWriter::with_capacity(1 << 18, file), beside })
    }

    /// What is written into.
    pub(super) fn out(&mut self) -> &mut (dyn Write + Send) {
        &mut self.out
    }

    /// Puts it into its place, once all of it is on the disk.
    ///
    /// # Errors
    /// The file system's; [`io::ErrorKind::AlreadyExists`] where something is in its place that may not go.
    pub(super) fn put(mut self, place: &Path, overwrite: bool) -> io::Result<()> {
        self.out.flush()?;
        self.out.get_ref().sync_all()?;
        if overwrite {
            fs::rename(&self.beside, place)?
        } else {
            move_new(&self.beside, place)?
        }
        keep_entry(place);
        Ok(())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Gone already once it is in its place.
        drop(fs::remove_file(&self.beside));
    }
}

/// A name beside a place, of this process alone.
pub(super) fn beside(place: &Path, what: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(place.file_name().unwrap_or_default());
    name.push(format!(".{}.{what}", std::process::id()));
    place.with_file_name(name)
}

/// Moves a file to a place where nothing is.
///
/// # Errors
/// The file system's; [`io::ErrorKind::AlreadyExists`] where something is.
pub(super) fn move_new(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // A file system without links: whoever makes the file in this very moment loses it.
        Err(_) if to.symlink_metadata().is_err() => fs::rename(from, to),
        Err(_) => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

/// A new name is not there after a power cut unless its directory was written too; where that cannot be asked for, it
/// happens when the system gets to it.
pub(super) fn keep_entry(place: &Path) {
    let directory = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(directory) = File::open(directory) {
        drop(directory.sync_all());
    }
}

/// Who else has their hands on a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exposure {
    /// Nobody.
    None,
    /// Others may read it.
    Readable,
    /// Others may have changed it.
    Writable,
}

impl Exposure {
    /// That of a file. What is no file, a pipe for example, is whose it is.
    pub(super) fn of(about: &Metadata) -> Self {
        Self::judge(about.is_file(), about.mode(), about.uid(), rustix::process::geteuid().as_raw())
    }

    fn judge(is_file: bool, mode: u32, owner: u32, me: u32) -> Self {
        if !is_file {
            Self::None
        } else if mode & 0o022 != 0 || (owner != me && owner != 0) {
            Self::Writable
        } else if mode & 0o044 != 0 {
            Self::Readable
        } else {
            Self::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_in_its_place_whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("backup");
        let names = || fs::read_dir(directory.path()).unwrap().count();
        drop(Partial::create(&place).unwrap());
        assert_eq!(names(), 0, "one that is given up is gone");
        let mut partial = Partial::create(&place).unwrap();
        partial.out().write_all(b"whole").unwrap();
        assert!(!place.exists());
        partial.put(&place, false).unwrap();
        assert_eq!((fs::read(&place).unwrap(), names()), (b"whole".to_vec(), 1));
        assert_eq!(place.metadata().unwrap().mode() & 0o777, 0o600);

        let other = Partial::create(&place).unwrap();
        assert_eq!(other.put(&place, false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!((fs::read(&place).unwrap(), names()), (b"whole".to_vec(), 1));
        Partial::create(&place).unwrap().put(&place, true).unwrap();
        assert_eq!((fs::read(&place).unwrap(), names()), (b"".to_vec(), 1));
    }

    #[test]
    fn whose_hands_a_file_is_in_is_told_by_mode_and_owner() {
        for (mode, owner, found) in [
            (0o600, 7, Exposure::None),
            (0o640, 7, Exposure::Readable),
            (0o604, 0, Exposure::Readable),
            (0o620, 7, Exposure::Writable),
            (0o602, 7, Exposure::Writable),
            (0o600, 8, Exposure::Writable),
        ] {
            assert_eq!(Exposure::judge(true, mode, owner, 7), found, "{mode:o} {owner}");
        }
        assert_eq!(Exposure::judge(false, 0o666, 8, 7), Exposure::None);
    }
}
